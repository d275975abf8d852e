"""The two stages of a fit: distortion alone, then distortion of the quantised vector at a rate.

Stage 1 minimises D(θ). Stage 2 has two forms.

With a size to reach, Δ is at every step the finest one at which the coder takes that size for the symbols of θ, so the
rate is right all the time, and D(θ + a·(Δ·round(θ/Δ) − θ)) is minimised straight through with a growing from 0 to 1
over the stage: entries settle where rounding does not hurt.

With a multiplier, D(θ̃) + λ·R/k is minimised, θ̃ = Δ·round(θ/Δ) straight through, R the rate in bits of θ/Δ under
additive uniform noise and a factorised density (Ballé et al. 2017, 2018), Δ = exp(learned scalar).
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor

from vovcodec.adaptation.lowrank import LowRankAdapter
from vovcodec.entropy.quantizer import dequantize, quantize
from vovcodec.errors import UsageError
from vovcodec.fitting.checkpoint import StateFolder
from vovcodec.fitting.guard import Guard
from vovcodec.fitting.objective import Objective
from vovcodec.fitting.ranks import ALONE, Ranks
from vovcodec.fitting.rate import Multiplier, Rate, SizeTarget
from vovcodec.progress import ProgressListener
from vovcodec.sampling.noise import Purpose, Stream, raw_u16
from vovcodec.sampling.sampler import Velocity

__all__ = [
    "FitSettings",
    "FittedVector",
    "StageSettings",
    "entry_scale",
    "fit_vector",
    "initial_vector",
]

_RATE_LR = 0.02  # of step size and density
_INITIAL_RANGE = 0.02  # θ starts uniform in ±0.02 (arXiv 2603.07615)
_SAVE_EVERY_S = 15.0
_Value = TypeVar("_Value")


@dataclass(frozen=True)
class StageSettings:
    """One stage: optimiser steps, learning rate, decoupled weight decay."""

    steps: int
    lr: float
    weight_decay: float = 0.0


@dataclass(frozen=True)
class FitSettings:
    """Both stages and the rate they aim at.

    target_bytes: coded size of the vector, entropy model included; None = what λ makes of it.
    lambda_: multiplier where there is no target: of the objective's distortion per bit per parameter. warmup_steps:
    until it acts in full.
    published: as in arXiv 2603.07615: second moment 0.999, a constant learning rate, which is that of step size and
    density, too, and their form (rate.py).
    """

    stage1: StageSettings
    stage2: StageSettings
    lambda_: float
    warmup_steps: int = 0
    target_bytes: int | None = None
    published: bool = False


@dataclass(frozen=True)
class FittedVector:
    """`symbols` int32 [k], the step size's index, and θ̂ float32 [k] exactly as a decoder gets it.

    `unquantized`: θ float32 [k] as the fit left it.
    """

    symbols: np.ndarray
    step_size_q: int
    theta: np.ndarray
    unquantized: np.ndarray
    n_evaluations: int


def initial_vector(seed: int, segment: int, vector_length: int) -> Tensor:
    """θ at the start of a fit: uniform in ±0.02 from the exact stream, float32 [k]."""
    raw = raw_u16(Stream(seed, Purpose.VECTOR_START, (segment,)), vector_length)
    return torch.from_numpy(((raw.astype(np.float64) + 0.5) / 32768 - 1.0).astype(np.float32)) * _INITIAL_RANGE


def _schedule(step: int, n_steps: int) -> float:
    """Learning-rate factor: three steps of warm-up, constant, cosine to a tenth over the last half."""
    warm = min(1.0, (step + 1) / 3)
    late = max(0.0, 2 * step / max(1, n_steps) - 1)
    return warm * (0.55 + 0.45 * math.cos(math.pi * late))


class _Fit:
    """State of one running fit; everything that must survive an interruption is in `tensors` and `figures`."""

    def __init__(self, theta: Tensor, settings: FitSettings, ranks: Ranks = ALONE) -> None:
        self.settings, self.ranks = settings, ranks
        self.theta = theta.clone().requires_grad_(True)
        self.rate: Rate
        if settings.target_bytes is None:
            self.rate = Multiplier(
                settings.lambda_,
                settings.warmup_steps,
                theta.numel(),
                theta.device,
                published=settings.published,
            )
        else:
            self.rate = SizeTarget(settings.target_bytes)
        self.iteration = 0
        self.optimizer = self._make_optimizer(settings.stage1)
        self.guard = None if settings.published else Guard(theta)

    def _make_optimizer(self, stage: StageSettings) -> torch.optim.Optimizer:
        groups = [{"params": [self.theta], "lr": stage.lr, "base_lr": stage.lr, "weight_decay": stage.weight_decay}]
        if self.in_stage2:
            rest = self.rate.parameters()
            lr = stage.lr if self.settings.published else _RATE_LR
            groups += [{"params": rest, "lr": lr, "base_lr": lr, "weight_decay": 0.0}] if rest else []
        # Short fits gain from a quicker second moment.
        return torch.optim.AdamW(groups, betas=(0.9, 0.999 if self.settings.published else 0.99))

    @property
    def in_stage2(self) -> bool:
        return self.iteration >= self.settings.stage1.steps

    @property
    def n_iterations(self) -> int:
        return self.settings.stage1.steps + self.settings.stage2.steps

    def start_stage2(self) -> None:
        """A new optimiser, for θ and what the rate learns."""
        self.rate.start(self.theta)
        self.optimizer = self._make_optimizer(self.settings.stage2)

    def step(self, adapter: LowRankAdapter, velocity: Velocity, objective: Objective) -> tuple[float, float | None]:
        """One optimiser step; returns the distortion and, in stage 2, the estimated bits.

        Raises UsageError when the fit has diverged.
        """
        settings, stage2 = self.settings, self.in_stage2
        stage, start = (settings.stage2, settings.stage1.steps) if stage2 else (settings.stage1, 0)
        factor = 1.0 if settings.published else _schedule(self.iteration - start, stage.steps)
        for group in self.optimizer.param_groups:
            group["lr"] = group["base_lr"] * factor
        if self.guard is not None:
            self.optimizer.param_groups[0]["lr"] *= self.guard.factor  # θ's
        vector, ranks = self.theta, self.ranks
        if stage2:
            self.must_be_finite()
            vector = self.rate.rounded(self.theta, (self.iteration - start + 1) / stage.steps)
        adapter.gather(vector)
        share = torch.zeros((), device=self.theta.device)
        for part in objective.losses(velocity, self.iteration, ranks.share_of(objective.evaluations)):
            part.backward()
            share += part.detach()
            del part  # its activations go before the next state's come
        loss = adapter.collected()
        rate_loss, bits = self.rate.cost(self.theta, self.iteration - start) if stage2 else (torch.zeros(()), None)
        if stage2:
            # Every process knows the whole rate: its gradient is summed over them like that of their states.
            loss = loss + rate_loss / ranks.size
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        parameters = [parameter for group in self.optimizer.param_groups for parameter in group["params"]]
        distortion = ranks.sum_gradients(parameters, share)
        guard = None if stage2 else self.guard
        if guard is not None and guard.has_run_away(self.theta, distortion, objective.period):
            with torch.no_grad():
                self.theta.copy_(guard.best)
            self.optimizer = self._make_optimizer(stage)
            self.iteration += 1
            return distortion, bits
        if not math.isfinite(distortion + float(rate_loss.detach())):
            raise self._diverged()
        self.optimizer.step()
        self.iteration += 1
        return distortion, bits

    def must_be_finite(self) -> None:
        """Raises UsageError when the last step has left θ without a value."""
        if not bool(self.theta.isfinite().all()):
            raise self._diverged()

    def _diverged(self) -> UsageError:
        name, stage = ("stage2", self.settings.stage2) if self.in_stage2 else ("stage1", self.settings.stage1)
        return UsageError(f"the fit diverged at step {self.iteration}; lower fitting.{name}.lr (it is {stage.lr:g})")

    def snapshot(self) -> tuple[dict[str, Tensor], dict[str, float]]:
        """A copy of everything the next step depends on, to be taken between two steps."""
        tensors: dict[str, Tensor] = {"theta": self.theta}
        figures: dict[str, float] = {"iteration": self.iteration}
        for name, part in self._parts.items():
            values, numbers = part.snapshot()
            tensors |= {f"{name}.{key}": value for key, value in values.items()}
            figures |= {f"{name}.{key}": number for key, number in numbers.items()}
        for number, slot in self.optimizer.state_dict()["state"].items():
            for name, value in slot.items():
                tensors[f"adam.{number}.{name}"] = value
        return {name: value.detach().clone() for name, value in tensors.items()}, figures

    def restore(self, tensors: dict[str, Tensor], figures: dict[str, float]) -> None:
        """Continue exactly where `snapshot` was taken. Raises what torch and a mapping raise for a state that is not
        one of this fit."""
        if tensors["theta"].shape != self.theta.shape:
            raise ValueError("a vector of another length")
        with torch.no_grad():
            self.theta.copy_(tensors["theta"])
        for name, part in self._parts.items():
            part.restore(_below(name, tensors), _below(name, figures))
        self.iteration = int(figures["iteration"])
        if self.iteration == self.settings.stage1.steps:
            return  # stage 2 begins with a new optimiser
        self.optimizer = self._make_optimizer(self.settings.stage2 if self.in_stage2 else self.settings.stage1)
        plain = self.optimizer.state_dict()
        slots: dict[int, dict[str, Tensor]] = {}
        for name, value in tensors.items():
            if name.startswith("adam."):
                _, number, key = name.split(".")
                slots.setdefault(int(number), {})[key] = value
        plain["state"] = slots
        self.optimizer.load_state_dict(plain)

    @property
    def _parts(self) -> dict[str, Rate | Guard]:
        """What keeps a state of its own, by the name under which it is saved."""
        return {"rate": self.rate} | ({"guard": self.guard} if self.guard else {})


def _below(name: str, values: dict[str, _Value]) -> dict[str, _Value]:
    """The values whose keys begin with `name` and a dot, without both."""
    return {key[len(name) + 1 :]: value for key, value in values.items() if key.startswith(f"{name}.")}


def entry_scale(adapter: LowRankAdapter) -> float:
    """√(D/k): by how much a vector entry must move for the factor entries it feeds (scaled by 1/√count) to move by one.

    A learning rate and a starting range given per factor entry and multiplied by this need no tuning across vector
    lengths and models.
    """
    return math.sqrt(adapter.n_entries / adapter.vector_length)


def fit_vector(
    adapter: LowRankAdapter,
    velocity: Velocity,
    objective: Objective,
    settings: FitSettings,
    theta: Tensor,
    *,
    segment: int,
    state: StateFolder | None = None,
    listener: ProgressListener,
    on_progress: Callable[[float, float | None], dict[str, float]] = lambda distortion, bits: {},
    ranks: Ranks = ALONE,
) -> FittedVector:
    """Fit θ, quantise it, and return it as the decoder will see it.

    Args:
        adapter: attached to the backbone by the caller (`adapter.attached()`).
        velocity: the adapted backbone with its condition.
        objective: what to minimise; distortions should be near 1 at the start.
        settings: the stages.
        theta: start, float32 [k].
        segment: number of the segment (state is kept under it).
        state: where to keep the state, and to continue from; None = nowhere.
        listener: receives one unit per network evaluation and the figures of `on_progress(distortion, bits)`.
        ranks: processes that call this with the same arguments; the first one's state counts.

    Raises UsageError when the fit diverges, ModelError when another process is lost.
    """
    if objective.evaluations < ranks.size:
        raise UsageError(
            f"{ranks.size} processes cannot share {objective.evaluations} state(s) per optimiser step: set --batch to "
            f"{ranks.size} or more"
        )
    fit = _Fit(theta, settings, ranks)
    kept = ranks.first(lambda: state.read_fit(segment) if state else None)
    if not ranks.is_first:
        state = None
    if kept is not None:
        try:
            fit.restore(*kept)
        except (KeyError, ValueError, TypeError, RuntimeError):  # damaged, or of an older version: start again
            fit = _Fit(theta, settings, ranks)
    listener.stage("fitting", fit.n_iterations * objective.evaluations, fit.iteration * objective.evaluations)
    last_saved = time.monotonic()
    # An interruption can come in the middle of a step: what is kept is always the state between two of them.
    snapshot = fit.snapshot()
    try:
        while fit.iteration < fit.n_iterations:
            if fit.iteration == settings.stage1.steps:
                fit.start_stage2()
            distortion, bits = fit.step(adapter, velocity, objective)
            if state:
                snapshot = fit.snapshot()
            listener.advance(objective.evaluations, **on_progress(distortion, bits))
            if state and time.monotonic() - last_saved > _SAVE_EVERY_S:
                state.write_fit(segment, *snapshot)
                last_saved = time.monotonic()
    finally:
        # At the end as well: what follows in an encode can be interrupted too.
        if state:
            state.write_fit(segment, *snapshot)
    if not settings.stage2.steps:
        fit.start_stage2()
    fit.must_be_finite()
    step_size_q = fit.rate.step_size_q(fit.theta)
    unquantized = fit.theta.detach().cpu().numpy()
    symbols = quantize(unquantized, step_size_q)
    return FittedVector(
        symbols=symbols,
        step_size_q=step_size_q,
        theta=dequantize(symbols, step_size_q),
        unquantized=unquantized,
        n_evaluations=fit.n_iterations * objective.evaluations,
    )
