"""Encodes one segment: latents → fitted vector → steering atoms → coded segment.

The vector is fitted on the states that the steered sampler visits with the base model, so that both halves of the
file work on the same trajectory; the atoms are chosen last, by the adapted model with the vector as the decoder
will have it.
"""

from __future__ import annotations

import functools
import math
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from vovcodec.adaptation.lowrank import LowRankAdapter
from vovcodec.backbone.catalog import model_facts
from vovcodec.backbone.checkpointing import FULL_CHECKPOINTING
from vovcodec.backbone.memory import out_of_memory_explained
from vovcodec.backbone.protocol import Backbone
from vovcodec.codec.budget import DEFAULT_VECTOR_SHARE
from vovcodec.codec.injection import (
    CodedSegment,
    LatentEstimate,
    finished_segment,
    inject_atoms,
    inject_indices,
    inject_nothing,
    log2_candidates_within,
)
from vovcodec.codec.plans import plan_of_preset
from vovcodec.codec.regenerate import adapted_velocity
from vovcodec.codec.scene import inject_scene, may_rest_on_scenes
from vovcodec.container import CodedVector, Sampler
from vovcodec.entropy.symbols import decode_symbols, encode_symbols
from vovcodec.errors import VovError
from vovcodec.fitting.checkpoint import StateFolder
from vovcodec.fitting.fit import (
    FitSettings,
    StageSettings,
    entry_scale,
    fit_vector,
    initial_vector,
)
from vovcodec.fitting.objective import Objective, ReferenceObjective, TrajectoryObjective, straight_path
from vovcodec.fitting.ranks import ALONE, Ranks
from vovcodec.presets import Preset
from vovcodec.progress import ProgressListener, stage_in_shares
from vovcodec.sampling.sampler import Velocity
from vovcodec.sampling.schedule import time_grid
from vovcodec.sampling.steering import SteeringPlan, steer

__all__ = ["encode_segment"]

_VECTOR_FIELDS_BYTES = 3  # what the fields of a vector that a scene does without take, at least


def _fitting_remedies(preset: Preset) -> list[str]:
    """What to say where memory runs out while a vector is fitted."""
    can_checkpoint = model_facts(preset.backbone.id) is not None and preset.backbone.checkpointing != "full"
    remedies = ["code smaller with --size", "take --effort instant, which fits nothing", "shorten the segments"]
    return [FULL_CHECKPOINTING, *remedies] if can_checkpoint else remedies


def _fit_settings(preset: Preset, vector_bytes: float | None, lr_unit: float) -> FitSettings:
    one, two = preset.fitting.stage1, preset.fitting.stage2
    return FitSettings(
        stage1=StageSettings(one.steps, one.lr * lr_unit, one.weight_decay),
        stage2=StageSettings(two.steps, two.lr * lr_unit, two.weight_decay),
        lambda_=two.lambda_,
        warmup_steps=two.warmup_steps,
        target_bytes=None if vector_bytes is None else math.floor(vector_bytes),
        published=preset.fitting.objective == "reference",
    )


def _objective(
    preset: Preset,
    plan: SteeringPlan,
    times: list[float],
    velocity: Velocity,
    target: Tensor,
    index: int,
    steering_bytes: float,
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

    if steering_bytes:
        reached, reach = stage_in_shares(listener, "tracing the sampler"), preset.steering.reach
        steer(velocity, target, plan, index, size_bytes=steering_bytes, reach=reach, on_step=record, on_share=reached)
    else:
        listener.stage("tracing the sampler", len(times) - 1)
        with torch.no_grad():
            for x_t, t in straight_path(target, times, plan.seed, index):
                record(t, x_t, x_t - t * velocity(x_t, t))
                listener.advance()
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
    ranks: Ranks = ALONE,
) -> CodedSegment:
    """Encode `frames` (uint8 [4n+1, H, W, 3], padded) as segment `index`.

    Args:
        header_sampler: grid and seed as the header has them.
        adapter: layers for a vector; None = steering only.
        n_frames: real frames, without padding.
        payload_bytes: budget for coded vector and atoms together.
        state: where an unfinished fit is kept.
        ranks: processes that fit the vector together; each calls this with the same arguments.
    """
    plan = plan_of_preset(preset, is_still=False)
    if header_sampler.schedule == "snr":
        plan = replace(plan, snr_start_q=header_sampler.snr_start_q, snr_ratio_q=header_sampler.snr_ratio_q)
    target = backbone.to_latents(frames)
    estimate = LatentEstimate(frames, target)
    steers, injects = preset.steering.method == "atoms", preset.steering.method != "none"
    share = preset.rate.split[0] if preset.rate.split else DEFAULT_VECTOR_SHARE
    if not injects:
        share = 1.0
    n_evaluations = 0
    # Steered steps are not known before the bytes are spent.
    times = [1.0] * 20 if steers else time_grid(header_sampler.n_steps, header_sampler.shift_q8)

    finish = functools.partial(
        finished_segment, backbone, original=frames[:n_frames], index=index, first_frame=first_frame
    )
    if payload_bytes is not None and may_rest_on_scenes(backbone, preset):
        with adapted_velocity(backbone, caption, None, None) as plain:
            # Rounding differs from process to process, what follows must not.
            injected, n_evaluations = ranks.first(
                lambda: inject_scene(
                    backbone,
                    preset,
                    plain,
                    frames,
                    target,
                    plan,
                    index,
                    size_bytes=payload_bytes + (_VECTOR_FIELDS_BYTES if adapter else 0),
                    listener=listener,
                    on_step=estimate.shown_by(listener, 0),
                )
            )
        if injected is not None:
            return finish(injected, vector=None, n_evaluations=n_evaluations)

    vector: CodedVector | None = None
    theta: np.ndarray | None = None
    vector_bytes = None if payload_bytes is None or adapter is None else share * payload_bytes
    if not injects:
        steering_bytes = 0.0
    elif payload_bytes is None:
        steering_bytes = float(preset.steering.bytes)
    else:
        steering_bytes = payload_bytes - (vector_bytes or 0.0)
    if adapter is not None:
        # The published recipe gives rates and start for the vector itself, ours for the factor entries.
        unit = 1.0 if preset.fitting.objective == "reference" else entry_scale(adapter)
        settings = _fit_settings(preset, vector_bytes, unit)
        with adapted_velocity(backbone, caption, None, None, for_fitting=True) as plain:
            traced_bytes = steering_bytes if steers else 0.0
            objective, n_setup = _objective(preset, plan, times, plain, target, index, traced_bytes, listener)
        start = unit * initial_vector(plan.seed, index, adapter.vector_length).to(backbone.device)
        if preset.adaptation.projection == "offset-philox":
            start = torch.zeros_like(start)
        with (
            adapted_velocity(backbone, caption, adapter, None, for_fitting=True) as velocity,
            backbone.fitting_precision(),
            out_of_memory_explained("fitting the vector", str(backbone.device), *_fitting_remedies(preset)),
        ):
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
                ranks=ranks,
            )
        n_evaluations += n_setup + fitted.n_evaluations
        model, words = encode_symbols(fitted.symbols)
        if not np.array_equal(decode_symbols(model, words, len(fitted.symbols)), fitted.symbols):
            raise VovError("the coded vector does not decode to the fitted one; nothing is written; please report it")
        vector = CodedVector(step_size_q=fitted.step_size_q, model=model, words=words)
        theta = fitted.theta
        if injects and payload_bytes is not None:
            steering_bytes = payload_bytes - len(model) - len(words)

    show, reached = estimate.shown_by(listener, 0 if steers else 1), None
    if steers:
        reached = stage_in_shares(listener, "steering")
    else:
        listener.stage("steering" if injects else "sampling", len(times) - 1)
    with adapted_velocity(backbone, caption, adapter, theta) as velocity:
        if steers:
            injected = inject_atoms(
                velocity,
                target,
                plan,
                index,
                size_bytes=steering_bytes,
                reach=preset.steering.reach,
                on_step=show,
                on_share=reached,
            )
        elif injects:
            n_bits = log2_candidates_within(steering_bytes, header_sampler.n_steps)
            injected = inject_indices(
                velocity,
                target,
                header_sampler,
                index,
                log2_candidates=n_bits,
                listener=listener,
                on_step=show,
            )
        else:
            injected = inject_nothing(velocity, target, header_sampler, index, on_step=show)
    return finish(injected, vector=vector, n_evaluations=n_evaluations)
