"""Encodes one segment: latents → fitted vector → steering atoms → coded segment.

The vector is fitted on the states that the steered sampler visits with the base model, so that both halves of the
file work on the same trajectory; the atoms are chosen last, by the adapted model with the vector as the decoder
will have it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from vovcodec.adaptation.lowrank import LowRankAdapter
from vovcodec.backbone.protocol import Backbone
from vovcodec.codec.budget import DEFAULT_VECTOR_SHARE
from vovcodec.codec.check import segment_check
from vovcodec.codec.plans import coded_atoms, plan_of_preset
from vovcodec.codec.regenerate import adapted_velocity
from vovcodec.container import CodedAtoms, CodedVector, Sampler, Segment
from vovcodec.entropy.positions import encode_atoms
from vovcodec.entropy.symbols import encode_symbols
from vovcodec.errors import UsageError
from vovcodec.fitting.checkpoint import StateFolder
from vovcodec.fitting.fit import FitSettings, FittedVector, StageSettings, fit_vector, initial_vector, requantize
from vovcodec.fitting.objective import Objective, ReferenceObjective, TrajectoryObjective, straight_path
from vovcodec.metrics import psnr, ssim
from vovcodec.presets import Preset
from vovcodec.progress import ProgressListener
from vovcodec.sampling.sampler import Velocity, initial_noise, sample
from vovcodec.sampling.schedule import time_grid
from vovcodec.sampling.steering import SteeringPlan, steer

__all__ = ["CodedSegment", "encode_segment", "score_weights"]


@dataclass(frozen=True)
class CodedSegment:
    """A coded segment and what its decoder will show: uint8 `frames` (padding trimmed) and their quality."""

    segment: Segment
    frames: np.ndarray
    psnr_db: float
    ssim: float
    n_evaluations: int


class _Estimate:
    """PSNR in dB from latent errors: pixel error energy over pixel energy ≈ latent error energy over latent energy.

    Exact for an orthonormal autoencoder, a rough guide for others; used for progress only.
    """

    def __init__(self, frames: np.ndarray, latents: Tensor) -> None:
        pixel_energy = float(np.mean((frames.astype(np.float32) - 127.5) ** 2)) + 1e-9
        self._target = latents
        self._factor = pixel_energy / (float(latents.square().mean()) + 1e-9)

    def psnr_db(self, clean: Tensor) -> float:
        error = self._factor * float((clean - self._target).square().mean()) + 1e-9
        return 10 * math.log10(255**2 / error)


def score_weights(backbone: Backbone, n_latent_frames: int, exponent: float) -> Tensor | None:
    """Weights of the residual in the atoms' scores: the backbone's own, times channel deviation^exponent."""
    weights = backbone.score_weights(n_latent_frames)
    deviations = getattr(backbone, "channel_std", None)
    if exponent and deviations is not None:
        emphasis = deviations(n_latent_frames) ** exponent
        weights = emphasis if weights is None else weights * emphasis
    return weights


def _fit_settings(preset: Preset, vector_bytes: float | None) -> FitSettings:
    one, two = preset.fitting.stage1, preset.fitting.stage2
    return FitSettings(
        stage1=StageSettings(one.steps, one.lr, one.weight_decay),
        stage2=StageSettings(two.steps, two.lr, two.weight_decay),
        lambda_=two.lambda_,
        warmup_steps=two.warmup_steps,
        # The entropy model's description costs about three bytes that the rate model does not see.
        target_bits=None if vector_bytes is None else max(16.0, 8.0 * (vector_bytes - 3)),
    )


def _objective(
    preset: Preset,
    plan: SteeringPlan,
    times: list[float],
    velocity: Velocity,
    target: Tensor,
    index: int,
    steering_bytes: float,
    weights: Tensor | None,
    listener: ProgressListener,
) -> tuple[Objective, int]:
    """The preset's objective and the network evaluations spent on setting it up."""
    fitting = preset.fitting
    if fitting.objective == "reference":
        return ReferenceObjective(target, plan.seed, index, fitting.batch), 0
    states: list[tuple[Tensor, float]] = []
    scales: list[float] = []

    def record(t: float, x_t: Tensor, clean: Tensor) -> None:
        states.append((x_t, t))
        scales.append(float((clean - target).square().mean()) + 1e-12)
        listener.advance()

    listener.stage("tracing the sampler", len(times) - 1)
    if steering_bytes:
        steer(velocity, target, plan, index, size_bytes=steering_bytes, weights=weights, on_step=record)
    else:
        with torch.no_grad():
            for x_t, t in straight_path(target, times, plan.seed, index):
                record(t, x_t, x_t - t * velocity(x_t, t))
    return TrajectoryObjective(target, states, scales, plan.seed, index, fitting.batch), len(states)


def encode_segment(
    backbone: Backbone,
    preset: Preset,
    header_sampler: Sampler,
    adapter: LowRankAdapter | None,
    caption: str,
    frames: np.ndarray,
    *,
    index: int,
    first_frame: int,
    n_frames: int,
    payload_bytes: float | None,
    state: StateFolder | None,
    listener: ProgressListener,
) -> CodedSegment:
    """Encode `frames` (uint8 [4n+1, H, W, 3], padded) as segment `index`.

    Args:
        header_sampler: grid and seed as the header has them.
        adapter: layers for a vector; None = steering only.
        n_frames: real frames, without padding.
        payload_bytes: budget for coded vector and atoms together.
        state: where an unfinished fit is kept.
    """
    plan = plan_of_preset(preset)
    target = backbone.to_latents(frames)
    shape = tuple(target.shape)
    estimate = _Estimate(frames, target)
    steers = preset.steering.method == "atoms"
    share = preset.rate.split[0] if preset.rate.split else DEFAULT_VECTOR_SHARE
    if not steers:
        share = 1.0
    n_evaluations = 0
    weights = score_weights(backbone, shape[2], preset.steering.weight) if steers else None
    # Sampler steps are not known before the bytes are spent: a guess for the progress bar.
    times = [1.0] * 20 if steers else time_grid(header_sampler.n_steps, header_sampler.shift_q8)

    vector: CodedVector | None = None
    theta: np.ndarray | None = None
    vector_bytes = None if payload_bytes is None or adapter is None else share * payload_bytes
    if not steers:
        steering_bytes = 0.0
    elif payload_bytes is None:
        steering_bytes = float(preset.steering.bytes)
    else:
        steering_bytes = payload_bytes - (vector_bytes or 0.0)
    if adapter is not None:
        settings = _fit_settings(preset, vector_bytes)
        with adapted_velocity(backbone, caption, None, None) as plain:
            objective, n_setup = _objective(
                preset, plan, times, plain, target, index, steering_bytes, weights, listener
            )
        start = initial_vector(plan.seed, index, adapter.vector_length).to(backbone.device)
        with adapted_velocity(backbone, caption, adapter, None) as velocity:
            fitted = fit_vector(
                adapter,
                velocity,
                objective,
                settings,
                start,
                segment=index,
                state=state,
                listener=listener,
                on_progress=lambda loss, bits: {"loss": loss} | ({} if bits is None else {"size_bytes": bits / 8}),
            )
        n_evaluations += n_setup + fitted.n_evaluations
        fitted, model, words = _coded_within(fitted, None if vector_bytes is None else math.floor(vector_bytes))
        vector = CodedVector(step_size_q=fitted.step_size_q, model=model, words=words)
        theta = fitted.theta
        if steers and payload_bytes is not None:
            steering_bytes = payload_bytes - len(model) - len(words)

    listener.stage("steering" if steers else "sampling", len(times) - 1)

    def show(t: float, x_t: Tensor, clean: Tensor) -> None:
        listener.advance(psnr_db=estimate.psnr_db(clean))

    atoms_part: CodedAtoms | None = None
    with adapted_velocity(backbone, caption, adapter, theta) as velocity:
        if steers:
            steered, chosen, latents = steer(
                velocity, target, plan, index, size_bytes=steering_bytes, weights=weights, on_step=show
            )
            if not steered.counts:
                raise UsageError(f"{steering_bytes:.0f} bytes leave no room for steering; raise the byte target")
            atoms_part = coded_atoms(steered, encode_atoms(chosen, steered.n_positions(shape)))
            n_evaluations += len(steered.counts) + 1
        else:
            noise = initial_noise(plan.seed, index, shape).to(backbone.device)
            latents = sample(velocity, noise, times, [], None, show)
            n_evaluations += len(times) - 1
    decoded = backbone.to_frames(latents)[:n_frames]
    original = frames[:n_frames]
    quality = psnr(original, decoded)
    segment = Segment(
        index=index,
        first_frame=first_frame,
        n_frames=n_frames,
        vector=vector,
        atoms=atoms_part,
        check=segment_check(decoded, quality),
    )
    return CodedSegment(segment, decoded, quality, ssim(original, decoded), n_evaluations)


def _coded_within(fitted: FittedVector, size_bytes: int | None) -> tuple[FittedVector, bytes, bytes]:
    """Code the symbols; where they exceed `size_bytes`, quantise more coarsely until they fit (bisection over Δ)."""
    model, words = encode_symbols(fitted.symbols)
    if size_bytes is None or len(model) + len(words) <= size_bytes:
        return fitted, model, words
    coarse, fine = 0, fitted.step_size_q
    while fine - coarse > 16:
        middle = (coarse + fine) // 2
        model, words = encode_symbols(requantize(fitted, middle).symbols)
        coarse, fine = (middle, fine) if len(model) + len(words) <= size_bytes else (coarse, middle)
    fitted = requantize(fitted, coarse)
    return fitted, *encode_symbols(fitted.symbols)
