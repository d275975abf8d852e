"""The encoder's half of scenes (sampling/scene.py): how many of a clip's bytes the picture gets that it rests on.

Two errors decide, mean squared, of the frames at coded size:

    E      what the picture misses of them: the part that moves (view.py)
    D(b)   what b bytes of it miss of the picture; known for every b once the picture is steered to the end

If E is well below D(B), or little more and nowhere in particular, the picture gets all of the B bytes. Else it gets
those up to the first injection where they are a share 0.82 − 0.028·(10·log₁₀ E/D(b)) of B: the better the picture
already is, the more is to be had from what moves.
"""

from __future__ import annotations

import bisect
import math
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from vovcodec.backbone.geometry import evaluations_of_steps
from vovcodec.backbone.protocol import Backbone
from vovcodec.codec.budget import DEFAULT_VECTOR_SHARE
from vovcodec.codec.injection import Injected, checked_words
from vovcodec.codec.plans import coded_atoms, scene_plan_of_preset
from vovcodec.codec.view import best_view
from vovcodec.container.writer import scene_bits
from vovcodec.entropy.choices import choices_bits
from vovcodec.presets import Preset
from vovcodec.progress import ProgressListener, stage_in_shares
from vovcodec.sampling.camera import Camera
from vovcodec.sampling.sampler import OnStep, Velocity, estimate
from vovcodec.sampling.scene import SceneVelocity, scene_start
from vovcodec.sampling.steering import SteeringPlan, steer

__all__ = ["inject_scene", "may_rest_on_scenes"]

_SHARE, _SHARE_PER_DB = 0.82, 0.028
_LEAST_SHARE, _MOST_SHARE = 0.45, 0.9
_MOST_OF_A_VECTOR = 0.05  # a vector with more of the bytes was asked for; with less a scene can do without it


def may_rest_on_scenes(backbone: Backbone, preset: Preset) -> bool:
    """Whether clips that are encoded with this model and preset may rest on pictures."""
    steering = preset.steering
    share = preset.rate.split[0] if preset.rate.split else DEFAULT_VECTOR_SHARE
    if steering.method != "atoms" or (preset.adaptation.vector_length and share > _MOST_OF_A_VECTOR):
        return False
    return steering.scene and _is_able(backbone, steering.codebook, steering.active_channels)


def _is_able(backbone: Backbone, codebook: str, active_channels: int) -> bool:
    return backbone.scene is not None and codebook == "trellis" and not active_channels


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
    is_able = _is_able(backbone, plan.codebook, plan.active_channels)
    if not (steering.scene and is_able and len(frames) > 1):
        return None, 0
    listener.stage("looking for a scene", 1)
    view = best_view(backbone, frames, size_bytes)
    listener.advance()
    if view is None:
        return None, 0
    states: list[tuple[float, Tensor]] = []
    pictures: list[Tensor] = []

    def record(t: float, x_t: Tensor, clean: Tensor) -> None:
        states.append((t, x_t))
        pictures.append(clean)

    def better_db(n_injections: int) -> float:
        """10·log₁₀ E/D(b) of the picture after so many injections."""
        return 10 * math.log10(view.error / view.missed_by(pictures[n_injections]))

    scene_plan = scene_plan_of_preset(preset, plan)
    alone_bytes, both_bytes = _field_bytes(scene_plan, plan, view.camera)
    scene_plan, choices, picture = steer(
        velocity,
        view.scene.target(view.picture),
        scene_plan,
        index,
        size_bytes=size_bytes - alone_bytes,
        weights=view.weights(backbone.geometry.space_stride),
        reach=steering.reach,
        on_step=record,
        on_share=stage_in_shares(listener, "steering a picture of the scene"),
    )
    size_bytes -= both_bytes
    n_steps = len(scene_plan.counts) + 1
    n_evaluations = evaluations_of_steps(backbone.id, n_steps, False)
    if not scene_plan.counts:
        return None, n_evaluations
    if better_db(len(scene_plan.counts)) <= view.alone_db:
        words = checked_words(scene_plan, choices, tuple(picture.shape))
        return Injected(picture, n_steps, coded_atoms(scene_plan, words, scene_plan, view.camera)), n_evaluations
    n_scene = _injections_of_picture(scene_plan, better_db, size_bytes)
    if n_scene is None:
        # Joined segments (spans.py) are too long to do without the picture.
        if len(frames) <= preset.geometry.segment_frames or len(scene_plan.counts) == 1:
            return None, n_evaluations
        n_scene = len(scene_plan.counts) - 1
    scene_plan = replace(scene_plan, counts=scene_plan.counts[:n_scene], last_q=16)
    with torch.no_grad():
        t, x_t = states[n_scene]
        picture = estimate(velocity, x_t, t, is_last=True)
    standing = view.scene.standing(picture, len(frames))
    start_q = scene_start(view.scene.impose(target, torch.zeros_like(target)))
    clip_plan, moves, latents = steer(
        SceneVelocity(velocity, standing, view.scene.impose, view.scene.along_motion),
        target,
        replace(plan, snr_start_q=start_q, before=scene_plan.counts, before_ratio_q=scene_plan.snr_ratio_q),
        index,
        size_bytes=size_bytes,
        reach=steering.reach,
        on_step=on_step,
        on_share=stage_in_shares(listener, "steering what moves"),
    )
    # Once from where the picture was cut; the clip's first estimate is known.
    n_evaluations += evaluations_of_steps(backbone.id, 1, False)
    if not clip_plan.counts:
        return None, n_evaluations
    n_evaluations += evaluations_of_steps(backbone.id, len(clip_plan.counts), True)
    chosen = [*choices[:n_scene], *moves]
    words = checked_words(clip_plan, chosen, max(tuple(target.shape), tuple(picture.shape), key=math.prod))
    atoms = coded_atoms(clip_plan, words, scene_plan, view.camera)
    return Injected(latents, len(atoms.counts) + 1, atoms), n_evaluations


def _field_bytes(scene_plan: SteeringPlan, plan: SteeringPlan, camera: Camera | None) -> tuple[float, float]:
    """What a file says about a picture alone, and about a picture and the clip after it, at most [bytes]."""
    scene_plan = replace(scene_plan, counts=(0,))
    plan = replace(plan, snr_start_q=1, before=scene_plan.counts, counts=(0,))
    alone, both = (coded_atoms(each, b"", scene_plan, camera) for each in (scene_plan, plan))
    return scene_bits(alone) / 8, scene_bits(both) / 8


def _injections_of_picture(plan: SteeringPlan, better_db: Callable[[int], float], size_bytes: float) -> int | None:
    """How many of a picture's injections a clip rests on; None where the picture ends long before its share.

    plan: of the picture. better_db: 10·log₁₀ E/D(b) after so many. It grows with them: few have to be asked for.
    """
    counts = plan.counts

    def bits(n: int) -> float:
        return choices_bits("trellis", counts[:n], 0) + plan.counts_bits(counts[:n])

    def is_enough(n: int) -> bool:
        spent, most = bits(n), 8 * size_bytes
        if not _LEAST_SHARE * most <= spent < _MOST_SHARE * most:
            return spent >= _MOST_SHARE * most
        return spent >= most * (_SHARE - _SHARE_PER_DB * better_db(n))

    # The last one may be a part of a step, or not on the grid of counts: others cannot follow it.
    whole = range(1, len(counts))
    found = bisect.bisect_left(whole, True, key=is_enough)
    if found < len(whole):
        return whole[found]
    return len(counts) - 1 if bits(len(counts) - 1) >= 8 * size_bytes * _LEAST_SHARE else None
