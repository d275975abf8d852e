"""Encodes one segment: latents → fitted vector → steering atoms → coded segment.

The vector is fitted on the states that the steered sampler visits with the base model, so that both halves of the
file work on the same trajectory; the atoms are chosen last, by the adapted model with the vector as the decoder
will have it.
"""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from vovcodec.adaptation.lowrank import LowRankAdapter
from vovcodec.backbone.catalog import model_facts
from vovcodec.backbone.checkpointing import FULL_CHECKPOINTING
from vovcodec.backbone.memory import out_of_memory_explained
from vovcodec.backbone.protocol import Backbone
from vovcodec.codec.budget import DEFAULT_VECTOR_SHARE
from vovcodec.codec.importance import inject_indices, log2_candidates_within
from vovcodec.codec.injection import (
    CodedSegment,
    Injected,
    LatentEstimate,
    finished_segment,
    inject_atoms,
    inject_nothing,
)
from vovcodec.codec.plans import plan_of_preset
from vovcodec.codec.regenerate import adapted_velocity
from vovcodec.codec.scene import inject_scene, may_rest_on_scenes
from vovcodec.container import CodedVector, Sampler
from vovcodec.entropy.symbols import decode_symbols, encode_symbols
from vovcodec.errors import VovError
from vovcodec.fitting.checkpoint import StateFolder
from vovcodec.fitting.fit import FitSettings, StageSettings, entry_scale, fit_vector, initial_vector
from vovcodec.fitting.objective import Objective, ReferenceObjective, TrajectoryObjective, straight_path
from vovcodec.fitting.ranks import ALONE, Ranks
from vovcodec.presets import Preset
from vovcodec.progress import ProgressListener, stage_in_shares
from vovcodec.sampling.schedule import time_grid
from vovcodec.sampling.steering import steer

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
    work = _Work(backbone, preset, header_sampler, adapter, caption, frames, index, listener, ranks)
    finish = functools.partial(
        finished_segment, backbone, original=frames[:n_frames], index=index, first_frame=first_frame
    )
    n_evaluations = 0
    if payload_bytes is not None and may_rest_on_scenes(backbone, preset):
        injected, n_evaluations = work.scene(payload_bytes)
        if injected is not None:
            return finish(injected, vector=None, n_evaluations=n_evaluations)
    vector_bytes, steering_bytes = work.shares(payload_bytes)
    vector: CodedVector | None = None
    theta: np.ndarray | None = None
    if adapter is not None:
        vector, theta, n_fit = work.fitted(vector_bytes, steering_bytes, state)
        n_evaluations += n_fit
        if work.injects and payload_bytes is not None:
            steering_bytes = payload_bytes - vector.size_bytes
    return finish(work.injected(theta, steering_bytes), vector=vector, n_evaluations=n_evaluations)


@dataclass
class _Work:
    """What the parts of one segment share: its latents, the plan of its steering, how its estimate is shown."""

    backbone: Backbone
    preset: Preset
    sampler: Sampler
    adapter: LowRankAdapter | None
    caption: str
    frames: np.ndarray
    index: int
    listener: ProgressListener
    ranks: Ranks

    def __post_init__(self) -> None:
        method = self.preset.steering.method
        self.steers, self.injects = method == "atoms", method != "none"
        self.plan = plan_of_preset(self.preset, is_still=False)
        if self.sampler.schedule == "snr":
            grid = {"snr_start_q": self.sampler.snr_start_q, "snr_ratio_q": self.sampler.snr_ratio_q}
            self.plan = replace(self.plan, **grid)
        self.target = self.backbone.to_latents(self.frames)
        self.estimate = LatentEstimate(self.frames, self.target)

    def scene(self, payload_bytes: float) -> tuple[Injected | None, int]:
        """A picture of the segment's scene and the clip on top of it, where that pays, and network evaluations."""
        with adapted_velocity(self.backbone, self.caption, None, None) as plain:
            # Rounding differs from process to process, what follows must not.
            return self.ranks.first(
                lambda: inject_scene(
                    self.backbone,
                    self.preset,
                    plain,
                    self.frames,
                    self.target,
                    self.plan,
                    self.index,
                    size_bytes=payload_bytes + (_VECTOR_FIELDS_BYTES if self.adapter else 0),
                    listener=self.listener,
                    on_step=self.estimate.shown_by(self.listener, 0),
                )
            )

    def shares(self, payload_bytes: float | None) -> tuple[float | None, float]:
        """Bytes of the vector, None where λ decides or there is none, and of the steering."""
        share = self.preset.rate.split[0] if self.preset.rate.split else DEFAULT_VECTOR_SHARE
        if not self.injects:
            share = 1.0
        vector_bytes = None if payload_bytes is None or self.adapter is None else share * payload_bytes
        if not self.injects:
            return vector_bytes, 0.0
        if payload_bytes is None:
            return vector_bytes, float(self.preset.steering.bytes)
        return vector_bytes, payload_bytes - (vector_bytes or 0.0)

    def fitted(
        self, vector_bytes: float | None, steering_bytes: float, state: StateFolder | None
    ) -> tuple[CodedVector, np.ndarray, int]:
        """The vector as the file has it, θ̂ float32 [k] as a decoder gets it from there, and network evaluations."""
        adapter, preset = self.adapter, self.preset
        # The published recipe gives rates and start for the vector itself, ours for the factor entries.
        unit = 1.0 if preset.fitting.objective == "reference" else entry_scale(adapter)
        objective, n_setup = self._objective(steering_bytes)
        start = unit * initial_vector(self.plan.seed, self.index, adapter.vector_length).to(self.backbone.device)
        if preset.adaptation.projection == "offset-philox":
            start = torch.zeros_like(start)
        with (
            adapted_velocity(self.backbone, self.caption, adapter, None, for_fitting=True) as velocity,
            self.backbone.fitting_precision(),
            out_of_memory_explained("fitting the vector", str(self.backbone.device), *_fitting_remedies(preset)),
        ):
            fitted = fit_vector(
                adapter,
                velocity,
                objective,
                _fit_settings(preset, vector_bytes, unit),
                start,
                segment=self.index,
                state=state,
                listener=self.listener,
                on_progress=lambda loss, bits: {"loss": loss} | ({} if bits is None else {"size_bytes": bits / 8}),
                ranks=self.ranks,
            )
        model, words = encode_symbols(fitted.symbols)
        if not np.array_equal(decode_symbols(model, words, len(fitted.symbols)), fitted.symbols):
            raise VovError("the coded vector does not decode to the fitted one; nothing is written; please report it")
        vector = CodedVector(step_size_q=fitted.step_size_q, model=model, words=words)
        return vector, fitted.theta, n_setup + fitted.n_evaluations

    def _objective(self, steering_bytes: float) -> tuple[Objective, int]:
        """The preset's objective and the network evaluations spent on setting it up."""
        plan, target, index, batch = self.plan, self.target, self.index, self.preset.fitting.batch
        if self.preset.fitting.objective == "reference":
            return ReferenceObjective(target, plan.seed, index, batch), 0
        states: list[tuple[Tensor, float]] = []
        scales: list[float] = []

        def record(t: float, x_t: Tensor, clean: Tensor) -> None:
            states.append((x_t, t))
            scales.append(float((clean - target).square().mean()) + 1e-12)

        with adapted_velocity(self.backbone, self.caption, None, None, for_fitting=True) as plain:
            if self.steers:
                steer(
                    plain,
                    target,
                    plan,
                    index,
                    size_bytes=steering_bytes,
                    reach=self.preset.steering.reach,
                    on_step=record,
                    on_share=stage_in_shares(self.listener, "tracing the sampler"),
                )
            else:
                times = time_grid(self.sampler.n_steps, self.sampler.shift_q8)
                self.listener.stage("tracing the sampler", len(times) - 1)
                with torch.no_grad():
                    for x_t, t in straight_path(target, times, plan.seed, index):
                        record(t, x_t, x_t - t * plain(x_t, t))
                        self.listener.advance()
        return TrajectoryObjective(target, states, scales, plan.seed, index, batch), len(states)

    def injected(self, theta: np.ndarray | None, steering_bytes: float) -> Injected:
        """What steers the sampler, under the model as θ̂ adapts it."""
        arguments = {"estimate": self.estimate, "listener": self.listener}
        with adapted_velocity(self.backbone, self.caption, self.adapter, theta) as velocity:
            if self.steers:
                reach = self.preset.steering.reach
                return inject_atoms(
                    velocity, self.target, self.plan, self.index, size_bytes=steering_bytes, reach=reach, **arguments
                )
            if not self.injects:
                return inject_nothing(velocity, self.target, self.sampler, self.index, **arguments)
            n_bits = log2_candidates_within(steering_bytes, self.sampler.n_steps)
            return inject_indices(velocity, self.target, self.sampler, self.index, log2_candidates=n_bits, **arguments)
