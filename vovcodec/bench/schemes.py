"""Other ways to let a sampler's noise carry information, at matched bytes: functions on latents, for tables only.

All start from the same noise and see the same velocity; each returns the estimate a decoder would reach, its rate and
its network evaluations. Where a published scheme draws many Gaussian candidates and keeps the best, only their inner
products with one direction matter for the choice. These are independent normal numbers, so the chosen vector can be
drawn directly: its part along the direction from the order statistics, the rest as one Gaussian. The result has
exactly the distribution of the real scheme and costs one draw instead of thousands; a decoder could not repeat it,
which a table does not need.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from vovcodec.entropy.choices import choices_bits
from vovcodec.entropy.positions import coded_atoms_bits
from vovcodec.errors import UsageError
from vovcodec.sampling.codebook import HadamardCodebook
from vovcodec.sampling.importance import diffusion_squared
from vovcodec.sampling.sampler import Velocity, advance, initial_noise, sample
from vovcodec.sampling.schedule import shift_to_q8, time_grid
from vovcodec.sampling.steering import SteeringPlan, steer

__all__ = ["Outcome", "Scheme", "constant_eta", "gvcc", "ours", "reference", "unsteered"]

_SEED, _SEGMENT = 0, 0


@dataclass(frozen=True)
class Outcome:
    """latents: x̂₀ at the end, [1, C, T, h, w]; size_bytes: of the coded choices alone; setting: what was matched."""

    latents: Tensor
    size_bytes: float
    n_evaluations: int
    setting: str


Scheme = Callable[[Velocity, Tensor, float], Outcome]
"""(velocity, target latents, bytes to stay within) → outcome."""


def _start(target: Tensor) -> tuple[Tensor, torch.Generator]:
    generator = torch.Generator().manual_seed(1)
    return initial_noise(_SEED, _SEGMENT, tuple(target.shape)).to(target.device), generator


def _gaussian(shape: tuple[int, ...], generator: torch.Generator, like: Tensor) -> Tensor:
    return torch.randn(shape, generator=generator).to(like)


def _sde_step(x_t: Tensor, clean: Tensor, t: float, t_next: float, g_squared: float, z: Tensor) -> Tensor:
    """Euler–Maruyama on the reverse-time equation with diffusion g: see sampling.importance."""
    noise = (x_t - (1 - t) * clean) / t
    drift = (noise - clean) + g_squared / (2 * t) * noise
    return x_t - (t - t_next) * drift + math.sqrt(g_squared * (t - t_next)) * z


@torch.no_grad()
def unsteered(velocity: Velocity, target: Tensor, size_bytes: float) -> Outcome:
    """No information at all: 20 steps of the ordinary sampler, shift 5. The floor under every other row."""
    x_t, _ = _start(target)
    times = time_grid(20, shift_to_q8(5.0))
    return Outcome(sample(velocity, x_t, times, []), 0.0, 20, "20 steps, shift 5")


@torch.no_grad()
def reference(
    velocity: Velocity, target: Tensor, size_bytes: float, *, n_steps: int | None = None, shift: float = 3.0
) -> Outcome:
    """Importance sampling of arXiv 2603.07615: one of 1024 whole-latent candidates per step, Gumbel-max over p*/p.

    n_steps: 100 is the published figure and takes 124 bytes; None = as many as the bytes pay for, at most 1000.
    """
    if n_steps is None:
        n_steps = min(1000, 1 + int(8 * size_bytes) // 10)
    x_t, generator = _start(target)
    for t, t_next in itertools.pairwise(time_grid(n_steps, shift_to_q8(shift))):
        clean = x_t - t * velocity(x_t, t)
        if t_next == 0.0:
            break
        g_squared, span = diffusion_squared(t), t - t_next
        # δ/σ, the distance of the two kernels' means in deviations; δ = r·Δ/t·(1 + g²·(1 − t)/(2t)).
        direction = (target - clean) * (span / t * (1 + g_squared * (1 - t) / (2 * t)) / math.sqrt(g_squared * span))
        length = float(direction.norm()) + 1e-30
        along = torch.randn(1024, generator=generator, dtype=torch.float64)
        uniform = torch.rand(1024, generator=generator, dtype=torch.float64).clamp_min(1e-300)
        chosen = along[torch.argmax(length * along - torch.log(-torch.log(uniform)))]
        z = _with_projection(direction / length, float(chosen), 1.0, _gaussian(x_t.shape, generator, x_t))
        x_t = _sde_step(x_t, clean, t, t_next, g_squared, z)
    return Outcome(clean, 10 * (n_steps - 1) / 8, n_steps, f"1 of 1024, shift {shift:g}")


def _with_projection(unit: Tensor, along: float, deviation: float, gaussian: Tensor) -> Tensor:
    """A Gaussian of a deviation, given that its inner product with the unit vector is `along`."""
    rest = gaussian - (gaussian * unit).sum() * unit
    return along * unit + deviation * rest


def _best_atoms(
    residual: Tensor, n_atoms: int, n_candidates: int, gaussian: Tensor, generator: torch.Generator
) -> Tensor:
    """The signed sum of those `n_atoms` of `n_candidates` Gaussian vectors that are most like the residual or its
    opposite, at unit mean square."""
    products = torch.randn(n_candidates, generator=generator, dtype=torch.float64).abs()
    along = float(torch.topk(products, n_atoms).values.sum())
    total = _with_projection(residual / (residual.norm() + 1e-30), along, math.sqrt(n_atoms), gaussian)
    return total / total.square().mean().sqrt()


@torch.no_grad()
def gvcc(
    velocity: Velocity,
    target: Tensor,
    size_bytes: float,
    *,
    n_atoms: int | None = None,
    n_candidates: int = 16384,
    n_steps: int = 20,
    n_deterministic: int = 3,
    shift: float = 3.0,
) -> Outcome:
    """GVCC (arXiv 2603.26571): per step and latent frame the sum of signed Gaussian atoms, g(t) = 3t².

    n_atoms: 64 of 16384 is the published setting; None = the most that the bytes pay for.
    """
    n_frames = target.shape[2]
    n_steered = n_steps - n_deterministic

    def rate_bytes(count: int) -> float:
        return coded_atoms_bits([count] * (n_steered * n_frames), n_candidates) / 8

    if n_atoms is None:
        n_atoms = _largest(lambda count: rate_bytes(count) <= size_bytes, n_candidates)
    x_t, generator = _start(target)
    for step, (t, t_next) in enumerate(itertools.pairwise(time_grid(n_steps, shift_to_q8(shift)))):
        clean = x_t - t * velocity(x_t, t)
        if t_next == 0.0:
            break
        if step >= n_steered or not n_atoms:
            x_t = advance(x_t, clean, t, t_next, 0.0, None)
            continue
        residual, noise = target - clean, _gaussian(x_t.shape, generator, x_t)
        z = torch.empty_like(x_t)
        for frame in range(n_frames):
            z[:, :, frame] = _best_atoms(residual[:, :, frame], n_atoms, n_candidates, noise[:, :, frame], generator)
        x_t = _sde_step(x_t, clean, t, t_next, (3 * t * t) ** 2, z)
    setting = f"{n_atoms} of {n_candidates} per latent frame, shift {shift:g}"
    return Outcome(clean, rate_bytes(n_atoms) if n_atoms else 0.0, n_steps, setting)


@torch.no_grad()
def constant_eta(
    velocity: Velocity,
    target: Tensor,
    size_bytes: float,
    *,
    eta: float = 0.5,
    shift: float = 1.0,
    n_steps: int = 20,
    n_atoms: int | None = None,
) -> Outcome:
    """Hadamard atoms of the whole latents, the same number at each of the n_steps − 1 injections, η constant."""
    n = target.numel()
    n_positions = 1 << max(0, (n - 1).bit_length())

    def rate_bytes(count: int) -> float:
        return coded_atoms_bits([count] * (n_steps - 1), n_positions) / 8

    if n_atoms is None:
        n_atoms = _largest(lambda count: rate_bytes(count) <= size_bytes, n_positions // 4)
    if not n_atoms:
        raise UsageError(f"{size_bytes:.0f} bytes do not pay for one atom at each of {n_steps - 1} injections")

    def choose(step: int, clean: Tensor):
        codebook = HadamardCodebook(_SEED, _SEGMENT, step, n)
        scores = codebook.scores((target - clean).reshape(-1))
        order = torch.topk(scores.abs(), n_atoms).indices.sort().values
        signs = torch.where(scores[order] < 0, -1, 1).cpu().numpy()
        return codebook.combine(order.cpu().numpy(), signs)

    x_t, _ = _start(target)
    latents = sample(velocity, x_t, time_grid(n_steps, shift_to_q8(shift)), [eta] * (n_steps - 1), choose)
    return Outcome(latents, rate_bytes(n_atoms), n_steps, f"{n_atoms} per step, eta {eta:g}, shift {shift:g}")


def _largest(fits: Callable[[int], bool], most: int) -> int:
    """The largest count up to `most` that fits, 0 if none does."""
    low, high = 0, most + 1
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if fits(middle) else (low, middle)
    return low


@torch.no_grad()
def ours(
    velocity: Velocity, target: Tensor, size_bytes: float, *, plan: SteeringPlan, most_evaluations: int | None = None
) -> Outcome:
    """sampling.steering with the grid of a preset; with `most_evaluations` the steps are made so wide that these
    suffice (the runs that find out how wide are not counted)."""
    shape = tuple(target.shape)
    while True:
        steered, _, latents = steer(velocity, target, plan, _SEGMENT, size_bytes=size_bytes)
        n_evaluations = len(steered.counts) + 1
        if most_evaluations is None or n_evaluations <= most_evaluations:
            break
        # The ratios of all steps multiply to the same range of signal-to-noise ratios.
        ratio = (1 + plan.snr_ratio_q / 64) ** (len(steered.counts) / (most_evaluations - 1))
        plan = replace(plan, snr_ratio_q=max(plan.snr_ratio_q + 1, math.floor(64 * (ratio - 1))))
    rate_bits = choices_bits(steered.codebook, steered.counts, steered.n_positions(shape))
    rate_bits += steered.counts_bits(steered.counts)
    unit = "path bits" if steered.codebook == "trellis" else "atoms"
    setting = f"{len(steered.counts)} injections, {sum(steered.counts)} {unit}"
    return Outcome(latents, rate_bits / 8, n_evaluations, setting)
