"""The two stages of a fit: distortion alone, then distortion plus rate on the quantised vector.

Stage 1 minimises D(θ). Stage 2 minimises D(θ̃) + λ·R/k with θ̃ = Δ·round(θ/Δ) straight through, R the rate in bits of
θ/Δ under additive uniform noise and a factorised density (Ballé et al. 2017, 2018), Δ = exp(learned scalar). With a
rate target, λ follows the rate R̂ of the rounded symbols: λ = exp(I + 2·e) with e = R̂/target − 1, clamped to ±1, and
after every step I += e/10.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from vovcodec.adaptation.lowrank import LowRankAdapter
from vovcodec.entropy.factorized import FactorizedModel
from vovcodec.entropy.mixture import GaussianMixtureModel
from vovcodec.entropy.proxies import add_uniform_noise, round_straight_through
from vovcodec.entropy.quantizer import SYMBOL_LIMIT, dequantize, nearest_step_size_q, quantize
from vovcodec.errors import UsageError
from vovcodec.fitting.checkpoint import StateFolder
from vovcodec.fitting.guard import Guard
from vovcodec.fitting.objective import Objective
from vovcodec.fitting.ranks import ALONE, Ranks
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
    "requantize",
    "thinned",
]

_INITIAL_RANGE = 0.02  # θ starts uniform in ±0.02 (arXiv 2603.07615)
_SAVE_EVERY_S = 15.0
_LAMBDA_GAIN = 0.1
_LAMBDA_PULL = 2.0
_LAMBDA_REACH = 20.0  # ln λ stays this near to its start, so that a target out of reach does not wind it up
_LONG_VECTOR = 16384  # from here on the deep density earns its cost


@dataclass(frozen=True)
class StageSettings:
    """One stage: optimiser steps, learning rate, decoupled weight decay."""

    steps: int
    lr: float
    weight_decay: float = 0.0


@dataclass(frozen=True)
class FitSettings:
    """Both stages and the rate they aim at.

    lambda_: multiplier at the start of stage 2 (relative distortion per bit per parameter). warmup_steps: of λ.
    target_bits: coded size of the vector to reach; None = λ stays as it is.
    published: the optimiser of arXiv 2603.07615 to the letter: second moment 0.999 and a constant learning rate.
    """

    stage1: StageSettings
    stage2: StageSettings
    lambda_: float
    warmup_steps: int = 0
    target_bits: float | None = None
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


def requantize(fitted: FittedVector, step_size_q: int) -> FittedVector:
    """The same fit with another step size."""
    symbols = quantize(fitted.unquantized, step_size_q)
    return replace(fitted, symbols=symbols, step_size_q=step_size_q, theta=dequantize(symbols, step_size_q))


def thinned(fitted: FittedVector, n_kept: int) -> FittedVector:
    """The same fit with its `n_kept` largest entries only, zero elsewhere."""
    symbols = fitted.symbols.copy()
    symbols[np.argsort(-np.abs(fitted.unquantized), kind="stable")[n_kept:]] = 0
    return replace(fitted, symbols=symbols, theta=dequantize(symbols, fitted.step_size_q))


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
        self.log_delta = torch.zeros((), device=theta.device, requires_grad=True)
        k = theta.numel()
        self.rate_model = (FactorizedModel() if k >= _LONG_VECTOR else GaussianMixtureModel()).to(theta.device)
        self.log_lambda = self._first_log_lambda = math.log(max(settings.lambda_, 1e-12))
        self.iteration = 0
        self.optimizer = self._make_optimizer(settings.stage1)
        self.generator = torch.Generator(theta.device)
        self.guard = None if settings.published else Guard(theta)

    def _make_optimizer(self, stage: StageSettings) -> torch.optim.Optimizer:
        groups = [{"params": [self.theta], "lr": stage.lr, "base_lr": stage.lr, "weight_decay": stage.weight_decay}]
        if self.in_stage2:
            rest = [self.log_delta, *self.rate_model.parameters()]
            groups.append({"params": rest, "lr": 0.02, "base_lr": 0.02, "weight_decay": 0.0})
        # Short fits gain from a quicker second moment.
        return torch.optim.AdamW(groups, betas=(0.9, 0.999 if self.settings.published else 0.99))

    @property
    def in_stage2(self) -> bool:
        return self.iteration >= self.settings.stage1.steps

    @property
    def n_iterations(self) -> int:
        return self.settings.stage1.steps + self.settings.stage2.steps

    def start_stage2(self) -> None:
        """Δ from the vector's spread: two bits or so per parameter to begin with, λ takes it from there."""
        with torch.no_grad():
            target = self.settings.target_bits
            bits = min(4.0, max(0.5, target / self.theta.numel())) if target else 2.0
            # A Gaussian of deviation σ has entropy log2(σ/Δ) + 2.05 bits at small Δ.
            delta = min(1.0, float(self.theta.std(correction=0)) * 2.0 ** (2.05 - bits) + 1e-8)
            self.log_delta.fill_(math.log(delta))
        if isinstance(self.rate_model, GaussianMixtureModel):
            self.rate_model.fit(self.theta.detach() / delta)
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
        bits, miss = None, 0.0
        vector, ranks = self.theta, self.ranks
        if stage2:
            delta = self.log_delta.exp()
            vector = round_straight_through(self.theta, delta, SYMBOL_LIMIT)
        adapter.gather(vector)
        share = torch.zeros((), device=self.theta.device)
        for part in objective.losses(velocity, self.iteration, ranks.share_of(objective.evaluations)):
            part.backward()
            share += part.detach()
            del part  # its activations go before the next state's come
        loss = adapter.collected()
        rate_loss = torch.zeros(())
        if stage2:
            # Noise from a generator addressed by the iteration: a resumed fit draws the same.
            self.generator.manual_seed(self.iteration)
            noisy = add_uniform_noise(self.theta, delta, self.generator)
            warm = min(1.0, (self.iteration - start + 1) / max(1, settings.warmup_steps))
            with torch.no_grad():
                # Reported and controlled is the rate of the symbols; noise makes a vector of many zeros look expensive.
                symbols = (self.theta / delta).round().clamp(-SYMBOL_LIMIT, SYMBOL_LIMIT)
                bits = float(self.rate_model.rate_bits(symbols))
            if settings.target_bits:
                miss = max(-1.0, min(1.0, bits / settings.target_bits - 1.0))
            multiplier = math.exp(self.log_lambda + _LAMBDA_PULL * miss)
            rate_loss = multiplier * warm * self.rate_model.rate_bits(noisy) / self.theta.numel()
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
            name = "stage2" if stage2 else "stage1"
            raise UsageError(f"the fit diverged at step {self.iteration}; lower fitting.{name}.lr (it is {stage.lr:g})")
        self.optimizer.step()
        with torch.no_grad():
            self.log_delta.clamp_(max=0.0)  # the file's largest step size is 1
        moved = self.log_lambda + _LAMBDA_GAIN * miss - self._first_log_lambda
        self.log_lambda = self._first_log_lambda + max(-_LAMBDA_REACH, min(_LAMBDA_REACH, moved))
        self.iteration += 1
        return distortion, bits

    def snapshot(self) -> tuple[dict[str, Tensor], dict[str, float]]:
        """A copy of everything the next step depends on, to be taken between two steps."""
        tensors = {"theta": self.theta, "log_delta": self.log_delta}
        for name, value in self.rate_model.state_dict().items():
            tensors[f"rate.{name}"] = value
        kept, figures = self.guard.snapshot() if self.guard else ({}, {})
        tensors |= {f"guard.{name}": value for name, value in kept.items()}
        for number, slot in self.optimizer.state_dict()["state"].items():
            for name, value in slot.items():
                tensors[f"adam.{number}.{name}"] = value
        copies = {name: value.detach().clone() for name, value in tensors.items()}
        figures = {f"guard.{name}": value for name, value in figures.items()}
        return copies, {"iteration": self.iteration, "log_lambda": self.log_lambda, **figures}

    def restore(self, tensors: dict[str, Tensor], figures: dict[str, float]) -> None:
        """Continue exactly where `snapshot` was taken. Raises what torch and a mapping raise for a state that is not
        one of this fit."""
        if tensors["theta"].shape != self.theta.shape:
            raise ValueError("a vector of another length")
        with torch.no_grad():
            self.theta.copy_(tensors["theta"])
            self.log_delta.copy_(tensors["log_delta"])
        self.rate_model.load_state_dict({n[5:]: v for n, v in tensors.items() if n.startswith("rate.")})
        if self.guard is not None:
            kept = {n[6:]: v for n, v in tensors.items() if n.startswith("guard.")}
            self.guard.restore(kept, {n[6:]: v for n, v in figures.items() if n.startswith("guard.")})
        self.iteration, self.log_lambda = int(figures["iteration"]), float(figures["log_lambda"])
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
    step_size_q = nearest_step_size_q(math.exp(float(fit.log_delta.detach())))
    unquantized = fit.theta.detach().cpu().numpy()
    symbols = quantize(unquantized, step_size_q)
    return FittedVector(
        symbols=symbols,
        step_size_q=step_size_q,
        theta=dequantize(symbols, step_size_q),
        unquantized=unquantized,
        n_evaluations=fit.n_iterations * objective.evaluations,
    )
