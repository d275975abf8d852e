"""What the sampler's noise carries, chosen with the original in sight: atoms (importance.py has indices), or nothing.

The last stage of encode and all of scale.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from torch import Tensor

from vovcodec.backbone.geometry import evaluations_of_steps
from vovcodec.backbone.protocol import Backbone
from vovcodec.codec.check import segment_check
from vovcodec.codec.plans import coded_atoms
from vovcodec.codec.regenerate import shown_frames
from vovcodec.container import CodedAtoms, CodedIndices, CodedVector, Sampler, Segment
from vovcodec.entropy.choices import Choices, decode_choices, encode_choices, same_choices
from vovcodec.errors import UsageError, VovError
from vovcodec.metrics import SSIM_EVERY, decibels, psnr, ssim
from vovcodec.progress import ProgressListener, stage_in_shares
from vovcodec.sampling.sampler import OnStep, Velocity, initial_noise, sample
from vovcodec.sampling.schedule import time_grid
from vovcodec.sampling.steering import SteeringPlan, steer

__all__ = [
    "CodedSegment",
    "Injected",
    "LatentEstimate",
    "checked_words",
    "finished_segment",
    "inject_atoms",
    "inject_nothing",
]


@dataclass(frozen=True)
class CodedSegment:
    """A coded segment and what its decoder will show: uint8 `frames` (padding trimmed) and their quality.

    ssim: of its frames that are every 8th of the clip, as they count in the clip's SSIM; NaN where there are none.
    """

    segment: Segment
    frames: np.ndarray
    psnr_db: float
    ssim: float
    n_evaluations: int


@dataclass(frozen=True)
class Injected:
    """What goes into the file and the latents [1, C, T, h, w] that a decoder will get from it.

    n_steps: of the sampler.
    """

    latents: Tensor
    n_steps: int
    atoms: CodedAtoms | None = None
    importance: CodedIndices | None = None


class LatentEstimate:
    """PSNR in dB from latent errors: pixel error energy over pixel energy ≈ latent error energy over latent energy.

    Exact for an orthonormal autoencoder, a rough guide for others; used for progress only.
    """

    def __init__(self, frames: np.ndarray, latents: Tensor) -> None:
        pixel_energy = float(np.mean((frames.astype(np.float32) - 127.5) ** 2)) + 1e-9
        self._target = latents
        self._factor = pixel_energy / (float(latents.square().mean()) + 1e-9)

    def psnr_db(self, clean: Tensor) -> float:
        """Of the picture that the estimate x̂₀ = `clean` decodes to."""
        return decibels(self._factor * float((clean - self._target).square().mean()) + 1e-9)

    def shown_by(self, listener: ProgressListener, n_units: int = 1) -> OnStep:
        """A sampler callback that reports each estimate, and so many units of work; 0 where others count them."""
        return lambda t, x_t, clean: listener.advance(n_units, psnr_db=self.psnr_db(clean))


def inject_atoms(
    velocity: Velocity,
    target: Tensor,
    plan: SteeringPlan,
    index: int,
    *,
    size_bytes: float,
    reach: float,
    estimate: LatentEstimate,
    listener: ProgressListener,
) -> Injected:
    """Steer segment `index` towards the latents `target` until `size_bytes` are spent.

    reach: see `steering.steer`. estimate: of `target`'s frames, to tell the listener of.

    Raises UsageError when they do not suffice for a single atom.
    """
    steered, chosen, latents = steer(
        velocity,
        target,
        plan,
        index,
        size_bytes=size_bytes,
        reach=reach,
        on_step=estimate.shown_by(listener, 0),
        on_share=stage_in_shares(listener, "steering"),
    )
    if not steered.counts:
        raise UsageError(f"{size_bytes:.0f} bytes leave no room for steering; raise the byte target")
    words = checked_words(steered, chosen, tuple(target.shape))
    return Injected(latents, len(steered.counts) + 1, atoms=coded_atoms(steered, words))


def checked_words(plan: SteeringPlan, chosen: Choices, shape: tuple[int, ...]) -> bytes:
    """The bytes of all choices for latents of `shape`, which decode to them."""
    n_positions = plan.n_positions(shape)
    words = encode_choices(plan.codebook, chosen, n_positions)
    # What a decoder will read must be what the sampler just used.
    if not same_choices(chosen, decode_choices(plan.codebook, words, (*plan.before, *plan.counts), n_positions)):
        raise VovError("the coded atoms do not decode to the chosen ones; nothing is written; please report it")
    return words


def inject_nothing(
    velocity: Velocity,
    target: Tensor,
    sampler: Sampler,
    index: int,
    *,
    estimate: LatentEstimate,
    listener: ProgressListener,
) -> Injected:
    """The plain sampler of a file without steering; `target` gives shape and device only."""
    noise = initial_noise(sampler.seed, index, tuple(target.shape)).to(target.device)
    times = time_grid(sampler.n_steps, sampler.shift_q8)
    listener.stage("sampling", sampler.n_steps)
    return Injected(sample(velocity, noise, times, [], None, estimate.shown_by(listener)), sampler.n_steps)


def finished_segment(
    backbone: Backbone,
    injected: Injected,
    original: np.ndarray,
    *,
    index: int,
    first_frame: int,
    vector: CodedVector | None,
    n_evaluations: int = 0,
) -> CodedSegment:
    """The coded segment with its check, and how well its decoded frames match.

    Args:
        original: uint8 [n_frames, H, W, 3] at coded size, without padding.
        n_evaluations: spent before the injection; with a scene, all of them.
    """
    decoded = shown_frames(backbone, injected.latents, injected.atoms, len(original))
    quality = psnr(original, decoded)
    segment = Segment(
        index=index,
        first_frame=first_frame,
        n_frames=len(original),
        vector=vector,
        atoms=injected.atoms,
        importance=injected.importance,
        check=segment_check(decoded, quality),
    )
    if not segment.atoms or not segment.atoms.scene_injections:
        n_evaluations += evaluations_of_steps(backbone.id, injected.n_steps, injected.latents.shape[2] > 1)
    counted = slice(-first_frame % SSIM_EVERY, None)
    similarity = ssim(original[counted], decoded[counted]) if len(original[counted]) else math.nan
    return CodedSegment(segment, decoded, quality, similarity, n_evaluations)
