"""Steering: noise injected by the sampler carries information about the original.

At each injection the encoder, which knows x₀, looks for atoms of the step's codebook that point along the residual
r = x₀ − x̂₀, and injects the normalised sum z of the best M, with their signs, in place of random noise. The decoder
rebuilds the same z from positions and signs. Rate: log₂ C(N, M) + M bits per step.

How many atoms? A sampler that knew x₀ would draw x_{t′} from the posterior q(x_{t′} | x_t, x₀); one that only has x̂₀
misses its mean along r, so z must supply  ⟨z, r⟩/‖r‖ = g·‖r‖  with (sampler.py for the update)

    g = [(1 − t′) − √(1 − η²)·(1 − t)·t′/t] / (t′·η)   ( = √(snr′ − snr) for ancestral η ).

Less leaves the sampler free to invent, more overshoots, so M is the smallest number of atoms whose sum reaches g·‖r‖.
The information this costs is the Kullback-Leibler divergence g²‖r‖²/2 nats (Theis et al. 2022, arXiv 2206.08889), and
the noise level at which the bits run out is where the sampler stops: the estimate x̂₀ from there is the picture.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from vovcodec.container.counts import ATOMS_MAX, START_INDEX, count_of_index, index_of_count, reachable_counts
from vovcodec.entropy.positions import MAX_POSITIONS, coded_atoms_bits, encode_atoms
from vovcodec.errors import UsageError
from vovcodec.sampling.codebook import Codebook, make_codebook
from vovcodec.sampling.sampler import OnStep, Velocity, advance, initial_noise, sample
from vovcodec.sampling.schedule import LAST_UNIT, ancestral_etas, snr_grid

__all__ = ["Atoms", "SteeringPlan", "counts_bits", "follow", "steer"]

Atoms = list[tuple[np.ndarray, np.ndarray]]
"""Per injection: sorted positions int64 [M] and signs int8 [M]."""

_MAX_INJECTIONS = 200
_LONGEST_SHORTLIST = 1 << 17  # no step of any sensible budget takes more atoms
_LEAST_TIME = 0.02  # below this noise is invisible and the last bits are better not spent


@dataclass(frozen=True)
class SteeringPlan:
    """Everything besides the atoms that both sides need; all integers, all in the file.

    seed: of every stream. snr_start_q, snr_ratio_q: the grid (schedule.snr_grid). eta_scale_q: see ancestral_etas.
    active_channels: atoms act on the first so many latent channels only (0 = all); the other channels keep ε̂.
    counts, last_q: what the encoder decided: atoms per injection, and how much of a full step the last one is.
    """

    seed: int
    snr_start_q: int
    snr_ratio_q: int
    eta_scale_q: int = 200
    codebook: str = "hadamard"
    active_channels: int = 0
    counts: tuple[int, ...] = ()
    last_q: int = LAST_UNIT

    @property
    def times(self) -> list[float]:
        """1, t_0, …, t_{m−1}, 0."""
        return snr_grid(self.snr_start_q, self.snr_ratio_q, len(self.counts), self.last_q)

    @property
    def etas(self) -> list[float]:
        """η of every injection."""
        return ancestral_etas(self.times, self.eta_scale_q)

    def n_entries(self, shape: tuple[int, ...]) -> int:
        """N: latent values the atoms act on, for latents of `shape` [1, C, T, h, w]."""
        return min(self.active_channels or shape[1], shape[1]) * math.prod(shape[2:])

    def n_positions(self, shape: tuple[int, ...]) -> int:
        """Number of atoms a step offers, the alphabet of the coded positions."""
        n = self.n_entries(shape)
        return n if self.codebook == "cyclic" else 1 << max(0, (n - 1).bit_length())


def _gain(t: float, t_next: float, eta: float) -> float:
    """g of the module's docstring."""
    return ((1 - t_next) - math.sqrt(1 - eta * eta) * (1 - t) * t_next / t) / (t_next * eta)


class _Ranking:
    """The atoms of one step by falling |score|, and how far along the residual the best M of them reach.

    `reach[M − 1]` = ⟨z, r⟩/‖r‖ of the best M: Σ|⟨atom, w·r⟩| / (√M·‖w·r‖), times the cosine between w·r and r.
    """

    def __init__(self, codebook: Codebook, residual: Tensor, weighted: Tensor, n_most: int) -> None:
        self._codebook = codebook
        scores = codebook.scores(weighted)
        top = torch.topk(scores.abs(), min(n_most, scores.numel()))
        self._order = top.indices
        self._signs = torch.where(scores[top.indices] < 0, -1, 1)
        ranks = torch.arange(1, top.values.numel() + 1, device=scores.device)
        norm = float(weighted.norm())
        # Atoms have mean square 1 in the Hadamard codebook and nearly so in the other.
        alignment = float(weighted @ residual) / (norm * float(residual.norm()) + 1e-30)
        self.reach = (top.values.double().cumsum(0) / ranks.sqrt() * (alignment / (norm + 1e-30))).cpu()

    def atoms(self, n: int) -> tuple[np.ndarray, np.ndarray]:
        order = self._order[:n].sort()
        positions = order.values.cpu().numpy().astype(np.int64)
        return positions, self._signs[:n][order.indices].cpu().numpy().astype(np.int8)

    def needed(self, reach: float) -> int:
        """The smallest M that reaches so far; one more than there are when none does."""
        # `reach` rises with M as long as M is a small part of N; the first crossing is the one wanted.
        found = (self.reach >= reach).nonzero()
        return int(found[0]) + 1 if len(found) else len(self.reach) + 1


@torch.no_grad()
def steer(
    velocity: Velocity,
    target: Tensor,
    plan: SteeringPlan,
    segment: int,
    *,
    size_bytes: float,
    weights: Tensor | None = None,
    reach: float = 1.0,
    on_step: OnStep | None = None,
) -> tuple[SteeringPlan, Atoms, Tensor]:
    """Encoder: sample towards `target` until the bytes are spent.

    Args:
        velocity: the adapted model.
        target: x₀, float32 [1, C, T, h, w].
        plan: grid, η and codebook; its counts are ignored.
        segment: number of the segment, part of every random stream's address.
        size_bytes: what counts, positions and signs may take together.
        weights: importance of each latent value for the score, broadcastable to `target` (None = all equal).
            Encoder only: the decoder does not need them.
        reach: of the atoms, as a multiple of g·‖r‖. Encoder only.
        on_step: see `sampler.OnStep`.

    Returns:
        The plan with counts and last_q, the atoms, and the latents a decoder will get.

    Raises UsageError for latents with more values than the format can address.
    """
    shape = tuple(target.shape)
    n, n_positions = plan.n_entries(shape), plan.n_positions(shape)
    if n_positions > MAX_POSITIONS:
        raise UsageError(f"steering addresses {MAX_POSITIONS} atoms and these latents need {n_positions}: code smaller")
    most = max(1, min(_LONGEST_SHORTLIST, n_positions // 4))
    counts: list[int] = []
    atoms: Atoms = []
    last_q = LAST_UNIT
    x_t, t = initial_noise(plan.seed, segment, shape).to(target.device), 1.0
    previous_index = START_INDEX
    finished = False
    while True:
        clean = x_t - t * velocity(x_t, t)
        if on_step is not None:
            on_step(t, x_t, clean)
        if finished or len(counts) == _MAX_INJECTIONS:
            return replace(plan, counts=tuple(counts), last_q=last_q), atoms, clean
        step = len(counts)
        residual = target - clean
        weighted = residual if weights is None else residual * weights
        flat, flat_weighted = residual.reshape(-1)[:n], weighted.reshape(-1)[:n]
        length = reach * float(flat.norm())
        codebook = make_codebook(plan.codebook, plan.seed, segment, step, n)
        ranking = _Ranking(codebook, flat, flat_weighted, most)
        t_next, eta = _step_to(plan, step, LAST_UNIT)
        n_atoms = _storable(ranking.needed(_gain(t, t_next, eta) * length), previous_index, most)
        affordable = _affordable(8.0 * size_bytes, counts, n_positions, most)
        if n_atoms > affordable or t_next < _LEAST_TIME:
            # The last injection: a part of a step, as far as the remaining bytes reach, and never beyond the estimate.
            finished = True
            if affordable == 0:
                return replace(plan, counts=tuple(counts), last_q=LAST_UNIT), atoms, clean
            n_atoms = min(n_atoms, _topped_up(affordable, 8.0 * size_bytes, counts, atoms, ranking, n_positions))
            for last_q in range(LAST_UNIT, 0, -1):
                t_next, eta = _step_to(plan, step, last_q)
                if ranking.needed(_gain(t, t_next, eta) * length) <= n_atoms:
                    break
        chosen = ranking.atoms(n_atoms)
        counts.append(n_atoms)
        atoms.append(chosen)
        previous_index = index_of_count(n_atoms)
        x_t = advance(x_t, clean, t, t_next, eta, codebook.combine(*chosen) if n_atoms else None)
        t = t_next


def _step_to(plan: SteeringPlan, step: int, last_q: int) -> tuple[float, float]:
    """t′ and η of injection `step` when it is the last one, exactly as a decoder derives them."""
    times = snr_grid(plan.snr_start_q, plan.snr_ratio_q, step + 1, last_q)
    return times[-2], ancestral_etas(times, plan.eta_scale_q)[-1]


def _storable(wanted: int, previous_index: int, most: int) -> int:
    """The smallest count that the file can store here and that is at least `wanted`, or the largest in reach that is
    at most `most`."""
    in_reach = [count_of_index(index) for index in reachable_counts(previous_index)]
    allowed = [count for count in in_reach if count <= most] or in_reach[:1]
    return next((count for count in allowed if count >= wanted), allowed[-1])


def counts_bits(counts: Sequence[int]) -> int:
    """What the file spends on the counts (FORMAT.md, 6.2): their number, 4 bits for each but the last, the last one."""
    if not counts:
        return 0
    n_groups = max(1, -(-(len(counts) - 1).bit_length() // 5))
    last_groups = max(1, -(-counts[-1].bit_length() // 7))
    return 6 * n_groups + 4 * (len(counts) - 1) + 8 * last_groups


def _affordable(bits: float, counts: list[int], n_positions: int, most: int) -> int:
    """The largest number of atoms of one more, last injection that fits into the budget of all, at most `most`."""

    def fits(count: int) -> bool:
        return coded_atoms_bits([*counts, count], n_positions) + counts_bits([*counts, count]) <= bits

    low, high = 0, min(most, ATOMS_MAX - sum(counts)) + 1
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if fits(middle) else (low, middle)
    return low


def _topped_up(
    affordable: int, bits: float, counts: list[int], atoms: Atoms, ranking: _Ranking, n_positions: int
) -> int:
    """`affordable` or a little more: the bound it comes from is a byte or so too careful, coding tells exactly."""
    while affordable < min(len(ranking.reach), ATOMS_MAX - sum(counts)):
        more = affordable + 1
        words = encode_atoms([*atoms, ranking.atoms(more)], n_positions)
        if 8 * len(words) + counts_bits([*counts, more]) > bits:
            break
        affordable = more
    return affordable


def follow(
    velocity: Velocity,
    atoms: Atoms,
    plan: SteeringPlan,
    segment: int,
    shape: tuple[int, ...],
    device: torch.device,
    *,
    on_step: OnStep | None = None,
    n_evaluations: int | None = None,
) -> Tensor:
    """Decoder: replay the atoms of `steer`; the same latents up to the network's floating-point differences."""
    n = plan.n_entries(shape)

    def choose(step: int, clean: Tensor) -> np.ndarray | None:
        positions, atom_signs = atoms[step]
        if not len(positions):
            return None
        return make_codebook(plan.codebook, plan.seed, segment, step, n).combine(positions, atom_signs)

    noise = initial_noise(plan.seed, segment, shape).to(device)
    return sample(velocity, noise, plan.times, plan.etas, choose, on_step, n_evaluations)
