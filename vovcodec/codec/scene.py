"""The encoder's half of scenes (sampling/scene.py): whether a clip rests on a picture, and how many bytes that gets.

Two errors decide, mean squared, of the frames at coded size:

    E      what the mean of the frames misses of them: the part that moves
    D(b)   what a picture of b bytes misses of that mean; known for every b once the picture is steered to the end

A clip stands still enough if E is 23 + 5·(1 − q)⁵ dB or more below the peak, q being the part of its 8×8 blocks in
which the mean misses less than 5 grey levels: a street with cars rests on its picture, a swaying camera's does not. If
E is well below D(B) the picture gets all of the B bytes. Else it gets those up to the first injection where they are a
share 0.82 − 0.028·(10·log₁₀ E/D(b)) of B: the better the picture already is, the more is to be had from what moves.
"""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from vovcodec.backbone.geometry import evaluations_of_steps
from vovcodec.backbone.protocol import Backbone
from vovcodec.codec.accounting import scene_bits
from vovcodec.codec.injection import Injected, checked_words, score_weights
from vovcodec.codec.plans import coded_atoms, scene_plan_of_preset
from vovcodec.container.counts import counts_bits
from vovcodec.entropy.choices import choices_bits
from vovcodec.presets import Preset
from vovcodec.progress import ProgressListener
from vovcodec.sampling.sampler import OnStep, Velocity, estimate
from vovcodec.sampling.scene import SceneVelocity, scene_start
from vovcodec.sampling.steering import MAX_INJECTIONS, SteeringPlan, steer

__all__ = ["inject_scene"]

_LEAST_STILL_DB, _SWAYING_DB, _SWAYING_POWER = 23.0, 5.0, 5
_LIKELY_STEPS = 40  # for the progress bar
_BLOCK_PX, _QUIET_LEVELS = 8, 5.0
_ALONE_DB = 1.5  # E this far below D(B): nothing but the picture
_SHARE, _SHARE_PER_DB = 0.82, 0.028
_LEAST_SHARE, _MOST_SHARE = 0.45, 0.9


def inject_scene(
    backbone: Backbone,
    preset: Preset,
    velocity: Velocity,
    frames: np.ndarray,
    target: Tensor,
    plan: SteeringPlan,
    index: int,
    *,
    size_bytes: float,
    listener: ProgressListener,
    on_step: OnStep | None = None,
) -> tuple[Injected | None, int]:
    """Steering of segment `index` by way of a picture of its scene, None where that is not the better way; and the
    network evaluations spent.

    Args:
        frames: uint8 [F, H, W, 3], of which `target` are the latents.
        plan: as for `injection.inject_atoms`.
        size_bytes: for picture and clip together.
        on_step: see `sampler.OnStep`; of the clip's sampler only.
    """
    steering = preset.steering
    is_able = backbone.scene is not None and plan.codebook == "trellis" and not plan.active_channels
    if not (steering.scene and is_able and len(frames) > 1):
        return None, 0
    mean = frames.mean(axis=0, dtype=np.float32)
    moving = sum(np.square(frame - mean).mean(axis=2) for frame in frames) / len(frames)
    moving_error = float(moving.mean()) + 1e-9
    if not _stands_still(moving):
        return None, 0
    listener.stage("steering a picture of the scene", _LIKELY_STEPS)
    states: list[tuple[float, Tensor]] = []
    errors: list[float] = []

    def record(t: float, x_t: Tensor, clean: Tensor) -> None:
        states.append((t, x_t))
        errors.append(float(np.mean(np.square(backbone.to_frames(clean)[0] - mean))) + 1e-9)
        listener.advance()

    scene_plan = scene_plan_of_preset(preset, plan)
    alone_bytes, both_bytes = _field_bytes(scene_plan, plan)
    scene_plan, choices, picture = steer(
        velocity,
        backbone.scene.target(frames),
        scene_plan,
        index,
        size_bytes=size_bytes - alone_bytes,
        weights=score_weights(backbone, 1, steering.weight),
        reach=steering.reach,
        on_step=record,
    )
    size_bytes -= both_bytes
    n_steps = len(scene_plan.counts) + 1
    n_evaluations = evaluations_of_steps(backbone.id, n_steps, False)
    if not scene_plan.counts:
        return None, n_evaluations
    if 10 * math.log10(errors[-1] / moving_error) >= _ALONE_DB:
        words = checked_words(scene_plan, choices, tuple(picture.shape))
        return Injected(picture, n_steps, coded_atoms(scene_plan, words, scene_plan)), n_evaluations
    n_scene = _injections_of_picture(scene_plan.counts, [moving_error / error for error in errors], size_bytes)
    if n_scene is None:
        return None, n_evaluations
    scene_plan = replace(scene_plan, counts=scene_plan.counts[:n_scene], last_q=16)
    with torch.no_grad():
        t, x_t = states[n_scene]
        picture = estimate(velocity, x_t, t, is_last=True)
    listener.stage("steering what moves", _LIKELY_STEPS // 4)
    standing = backbone.scene.standing(picture, len(frames))
    start_q = scene_start(backbone.scene.impose(target, torch.zeros_like(target)))
    clip_plan, moves, latents = steer(
        SceneVelocity(velocity, standing, backbone.scene.impose),
        target,
        replace(plan, snr_start_q=start_q, before=scene_plan.counts),
        index,
        size_bytes=size_bytes,
        weights=score_weights(backbone, target.shape[2], steering.weight),
        reach=steering.reach,
        on_step=on_step,
    )
    # Once from where the picture was cut; the clip's first estimate is known.
    n_evaluations += evaluations_of_steps(backbone.id, 1, False)
    if not clip_plan.counts:
        return None, n_evaluations
    n_evaluations += evaluations_of_steps(backbone.id, len(clip_plan.counts), True)
    words = checked_words(clip_plan, [*choices[:n_scene], *moves], tuple(target.shape))
    atoms = coded_atoms(clip_plan, words, scene_plan)
    return Injected(latents, len(atoms.counts) + 1, atoms), n_evaluations


def _field_bytes(scene_plan: SteeringPlan, plan: SteeringPlan) -> tuple[int, int]:
    """What a file says about a picture alone, and about a picture and the clip after it, at most [bytes]."""
    scene_plan = replace(scene_plan, counts=(0,) * MAX_INJECTIONS)
    plan = replace(plan, snr_start_q=1, before=scene_plan.counts, counts=(0,))
    both = coded_atoms(plan, b"", scene_plan)
    return math.ceil(scene_bits(coded_atoms(scene_plan, b"", scene_plan)) / 8), math.ceil(scene_bits(both) / 8)


def _stands_still(moving: np.ndarray) -> bool:
    """Whether a clip with these squared errors of its mean [H, W] may rest on it: the module's docstring."""
    height, width = (side // _BLOCK_PX * _BLOCK_PX for side in moving.shape)
    blocks = moving[:height, :width].reshape(height // _BLOCK_PX, _BLOCK_PX, width // _BLOCK_PX, _BLOCK_PX)
    quiet = float((blocks.mean(axis=(1, 3)) < _QUIET_LEVELS**2).mean())
    below_peak_db = 10 * math.log10(255.0**2 / (float(moving.mean()) + 1e-9))
    return below_peak_db >= _LEAST_STILL_DB + _SWAYING_DB * (1 - quiet) ** _SWAYING_POWER


def _injections_of_picture(counts: tuple[int, ...], gains: list[float], size_bytes: float) -> int | None:
    """How many of a picture's injections a clip rests on; None where the picture ends long before its share.

    gains: E/D(b) before each injection and after the last.
    """
    bits = 0.0
    # The last one may be a part of a step, or not on the grid of counts: others cannot follow it.
    for n in range(1, len(counts)):
        share = _SHARE - _SHARE_PER_DB * 10 * math.log10(gains[n])
        bits = choices_bits("trellis", counts[:n], 0) + counts_bits(counts[:n], "trellis")
        if bits >= 8 * size_bytes * min(_MOST_SHARE, max(_LEAST_SHARE, share)):
            return n
    return len(counts) - 1 if bits >= 8 * size_bytes * _LEAST_SHARE else None
