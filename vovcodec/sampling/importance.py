"""Importance sampling: one index per sampler step picks one of M whole-latent noises that both sides can draw.

The scaling method of arXiv 2603.07615, kept for comparison; steering.py buys far more with the same bytes. From x₁ at
the times of `schedule.time_grid`, with v, ε̂ and x̂₀ as in sampler.py and Δ = t − t′, a step draws from the kernel

    p  = N(μ(x̂₀), σ²):   μ(x̂₀) = x_t − Δ·(v + g²/(2t)·ε̂),   σ² = g²·Δ,   g = min(5, √(2t/(1 − t)))

an Euler–Maruyama step of the reverse-time equation. An encoder that knows x₀ would draw from p* = N(μ(x₀), σ²). Of M
candidates x = μ(x̂₀) + σ·z, z from the exact stream (segment, step, candidate), it keeps argmax(ln w + G) with Gumbel
noise G, a sample of the weights w = p*(x)/p(x); with δ = μ(x₀) − μ(x̂₀)

    ln w = ⟨z, δ⟩/σ − ‖δ‖²/(2σ²)

so one inner product per candidate decides. The last step ends in x̂₀ and has no index. A decoder draws one candidate
per step, the one whose index the file holds; weights and G are the encoder's affair.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from vovcodec.sampling.noise import Purpose, Stream, normal
from vovcodec.sampling.sampler import OnStep, Velocity, estimate, initial_noise
from vovcodec.sampling.schedule import time_grid

__all__ = ["FEW_STEPS", "ImportancePlan", "diffusion_squared", "replay", "select"]

FEW_STEPS = 50
"""At so many steps or fewer the method makes pictures worse than none (arXiv 2603.07615, its plot over step counts)."""

_CHUNK_VALUES = 1 << 22  # candidates are drawn so many latent values at a time: 16 MB
_MOST_DIFFUSION_SQUARED = 25.0


@dataclass(frozen=True)
class ImportancePlan:
    """Everything besides the indices that both sides need. M = 2^log2_candidates; n_steps − 1 indices."""

    seed: int
    n_steps: int
    shift_q8: int
    log2_candidates: int

    @property
    def times(self) -> list[float]:
        """n_steps + 1 times from 1 to 0."""
        return time_grid(self.n_steps, self.shift_q8)

    @property
    def n_indices(self) -> int:
        """One for every step but the last."""
        return self.n_steps - 1


def diffusion_squared(t: float) -> float:
    """g² = min(25, 2t/(1 − t)), 25 at t = 1."""
    return _MOST_DIFFUSION_SQUARED if t == 1.0 else min(_MOST_DIFFUSION_SQUARED, 2.0 * t / (1.0 - t))


def _kernel(x_t: Tensor, clean: Tensor, t: float, t_next: float) -> tuple[Tensor, float]:
    """Mean μ(`clean`) and deviation σ of the step from t to t′."""
    span, g_squared = t - t_next, diffusion_squared(t)
    noise = (x_t - (1.0 - t) * clean) / t
    drift = (noise - clean) + g_squared / (2.0 * t) * noise
    return x_t - span * drift, math.sqrt(g_squared * span)


def _candidate(plan: ImportancePlan, segment: int, step: int, index: int, shape: tuple[int, ...]) -> np.ndarray:
    return normal(Stream(plan.seed, Purpose.CANDIDATE_NOISE, (segment, step, index)), shape)


def _pick(plan: ImportancePlan, segment: int, step: int, direction: np.ndarray) -> int:
    """argmax of ⟨z, direction⟩ + Gumbel noise over all candidates; `direction` = δ/σ, float32 [N]. Constant memory.

    ‖δ‖²/(2σ²) is the same for all of them and drops out.
    """
    n_candidates, n = 1 << plan.log2_candidates, direction.size
    chunk = max(1, min(n_candidates, _CHUNK_VALUES // n))
    noise = np.empty((chunk, n), dtype=np.float32)
    uniforms = Stream(plan.seed, Purpose.CANDIDATE_CHOICE, (segment, step)).generator()
    best, best_score = 0, -math.inf
    for first in range(0, n_candidates, chunk):
        count = min(chunk, n_candidates - first)
        for row in range(count):
            noise[row] = _candidate(plan, segment, step, first + row, (n,))
        # The middle of one of 2^53 cells: neither 0 nor 1.
        uniform = ((uniforms.random_raw(count) >> np.uint64(11)).astype(np.float64) + 0.5) / 2.0**53
        scores = noise[:count] @ direction - np.log(-np.log(uniform))
        leader = int(np.argmax(scores))
        if scores[leader] > best_score:
            best, best_score = first + leader, float(scores[leader])
    return best


@torch.no_grad()
def select(
    velocity: Velocity, target: Tensor, plan: ImportancePlan, segment: int, *, on_step: OnStep | None = None
) -> tuple[list[int], Tensor]:
    """Encoder: sample towards `target` and note which candidate every step took.

    Args:
        velocity: the adapted model.
        target: x₀, float32 [1, C, T, h, w].
        plan: steps and candidates; the time taken is n_steps·M draws of the whole latents.
        segment: number of the segment, part of every random stream's address.
        on_step: see `sampler.OnStep`.

    Returns:
        The n_steps − 1 indices, each 0 … M − 1, and the latents a decoder will get.
    """
    indices: list[int] = []

    def choose(step: int, x_t: Tensor, clean: Tensor, t: float, t_next: float) -> int:
        (mean, sigma), (wanted, _) = _kernel(x_t, clean, t, t_next), _kernel(x_t, target, t, t_next)
        direction = ((wanted - mean) / sigma).reshape(-1).float().cpu().numpy()
        indices.append(_pick(plan, segment, step, direction))
        return indices[-1]

    latents = _run(velocity, plan, segment, tuple(target.shape), target.device, choose, on_step, None)
    return indices, latents


@torch.no_grad()
def replay(
    velocity: Velocity,
    indices: Sequence[int],
    plan: ImportancePlan,
    segment: int,
    shape: tuple[int, ...],
    device: torch.device,
    *,
    on_step: OnStep | None = None,
    n_steps: int | None = None,
) -> Tensor:
    """Decoder: the latents of `select` from its indices, up to the network's floating-point differences.

    n_steps: return x̂₀ after so many steps already (a preview).
    """
    return _run(velocity, plan, segment, shape, device, lambda step, *_: int(indices[step]), on_step, n_steps)


def _run(velocity, plan, segment, shape, device, choose, on_step, n_steps) -> Tensor:
    """The sampler both sides share; `choose(step, x_t, x̂₀, t, t′)` names the candidate."""
    x_t = initial_noise(plan.seed, segment, shape).to(device)
    for step, (t, t_next) in enumerate(itertools.pairwise(plan.times)):
        is_last = t_next == 0.0 or step + 1 == n_steps
        clean = estimate(velocity, x_t, t, is_last=is_last)
        if on_step is not None:
            on_step(t, x_t, clean)
        if is_last:
            return clean
        index = choose(step, x_t, clean, t, t_next)
        mean, sigma = _kernel(x_t, clean, t, t_next)
        x_t = mean + sigma * torch.from_numpy(_candidate(plan, segment, step, index, shape)).to(mean)
    raise ValueError("the time grid must end at 0")
