"""Steering: noise injected by the sampler carries information about the original.

At each injection the encoder, which knows x₀, looks for a code word z that points along the residual r = x₀ − x̂₀, and
injects it in place of random noise; the decoder rebuilds the same z from the file. Two families of code words:

- `trellis`: a path of signed atoms (trellis.py), one bit each.
- `hadamard`, `cyclic`: the best M signed atoms (codebook.py), log₂ C(N, M) + M bits for positions and signs.

How many bits, or atoms? A sampler that knew x₀ would draw x_{t′} from the posterior q(x_{t′} | x_t, x₀); one that only
has x̂₀ misses its mean along r, so z must supply  ⟨z, r⟩/‖r‖ = g·‖r‖  with (sampler.py for the update)

    g = [(1 − t′) − √(1 − η²)·(1 − t)·t′/t] / (t′·η)   ( = √(snr′ − snr) for ancestral η ).

Less leaves the sampler free to invent, more overshoots, so a step takes the fewest that reach g·‖r‖.
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

from vovcodec.container.counts import (
    ATOMS_MAX,
    N_WHOLE,
    Phases,
    count_of_index,
    counts_bits,
    index_of_count,
    largest_index,
    usual_step,
)
from vovcodec.entropy.choices import Choice, Choices, choices_bits
from vovcodec.entropy.positions import MAX_POSITIONS
from vovcodec.errors import UsageError
from vovcodec.progress import OnShare
from vovcodec.sampling.codebook import Codebook, make_codebook
from vovcodec.sampling.noise import Purpose, Stream, normal
from vovcodec.sampling.sampler import OnStep, Velocity, advance, estimate, initial_noise, sample
from vovcodec.sampling.schedule import LAST_UNIT, LEAST_STEERED_TIME, ancestral_etas, full_grid_injections, snr_grid
from vovcodec.sampling.trellis import MAX_PATH_ATOMS, TrellisCodebook, bits_to_reach

__all__ = ["MAX_INJECTIONS", "SteeringPlan", "follow", "steer"]

MAX_INJECTIONS = 200
_LONGEST_SHORTLIST = 1 << 17  # no step of any sensible budget takes more
# Of the count that a step needs: as good as that, where a file says it in fewer bits. And how far whole numbers may be
# off, which is what matters where they are small.
_FEWEST, _MOST, _ROUNDED = 0.9, 1.3, 0.6
_GROWTH = 0.45  # what is spent grows with about this power of the ratio; for progress only


@dataclass(frozen=True)
class SteeringPlan:
    """Everything besides the code words that both sides need; all integers, all in the file.

    seed: of every stream. snr_start_q, snr_ratio_q: the grid (schedule.snr_grid). eta_scale_q: see ancestral_etas.
    codebook: trellis, hadamard or cyclic. memory: of the trellis, log₂ of its states.
    active_channels: injections act on the first so many latent channels only (0 = all); the other channels keep ε̂.
    counts, last_q: what the encoder decided: bits or atoms per injection, and how much of a full step the last one is.
    before: counts of the injections that a segment has before these, in a sampler of its own (scene.py): these are
    numbered on from there, and share their bytes. before_ratio_q: snr_ratio_q of that sampler. is_scene: this is it.
    n_injections, free_eta_scale_q: after the steered injections the sampler goes on with pseudo-random noise until
    there are so many in all; 0 = it stops where the steering ends.
    """

    seed: int
    snr_start_q: int
    snr_ratio_q: int
    eta_scale_q: int = 200
    codebook: str = "trellis"
    memory: int = 12
    active_channels: int = 0
    counts: tuple[int, ...] = ()
    last_q: int = LAST_UNIT
    before: tuple[int, ...] = ()
    before_ratio_q: int | None = None
    is_scene: bool = False
    n_injections: int = 0
    free_eta_scale_q: int = 0

    @property
    def times(self) -> list[float]:
        """1, t_0, …, t_{M−1}, 0."""
        return snr_grid(self.snr_start_q, self.snr_ratio_q, len(self.counts), self.last_q, n_total=self.n_injections)

    @property
    def etas(self) -> list[float]:
        """η of every injection."""
        times, n_steered = self.times, len(self.counts)
        steered = ancestral_etas(times, self.eta_scale_q)[:n_steered]
        return steered + ancestral_etas(times, self.free_eta_scale_q)[n_steered:]

    def counts_bits(self, counts: Sequence[int]) -> int:
        """What a file spends on counts, those `before` included [bits]."""
        if self.is_scene:
            phases = Phases(len(counts), self.snr_ratio_q)
        else:
            phases = Phases(len(self.before), self.before_ratio_q, self.snr_ratio_q)
        return counts_bits(counts, self.codebook, phases)

    def n_entries(self, shape: tuple[int, ...]) -> int:
        """N: latent values the atoms act on, for latents of `shape` [1, C, T, h, w]."""
        return min(self.active_channels or shape[1], shape[1]) * math.prod(shape[2:])

    def n_positions(self, shape: tuple[int, ...]) -> int:
        """Number of atoms a step offers."""
        n = self.n_entries(shape)
        return n if self.codebook == "cyclic" else 1 << max(0, (n - 1).bit_length())

    def initial_noise(self, segment: int, shape: tuple[int, ...]) -> Tensor:
        """x₁."""
        return initial_noise(self.seed, segment, shape, len(self.before))

    def make_codebook(self, segment: int, step: int, n_entries: int) -> Codebook | TrellisCodebook:
        """The code words of one injection."""
        step += len(self.before)
        if self.codebook == "trellis":
            return TrellisCodebook(self.seed, segment, step, n_entries, self.memory)
        return make_codebook(self.codebook, self.seed, segment, step, n_entries)


def _gain(t: float, t_next: float, eta: float) -> float:
    """g of the module's docstring."""
    return ((1 - t_next) - math.sqrt(1 - eta * eta) * (1 - t) * t_next / t) / (t_next * eta)


class _Search:
    """Code words of one step along a residual r, found by their scores along w·r.

    `reach` is ⟨z, r⟩/‖r‖ = ⟨z, w·r⟩/‖w·r‖ times the cosine between w·r and r, z having unit mean square.
    """

    def __init__(self, codebook: Codebook | TrellisCodebook, residual: Tensor, weighted: Tensor) -> None:
        self._codebook = codebook
        norm = float(weighted.norm()) + 1e-30
        self._scores = codebook.scores(weighted) / norm
        self._alignment = float(weighted @ residual) / (norm * (float(residual.norm()) + 1e-30)) + 1e-30


class _BestAtoms(_Search):
    """The atoms by falling |score|; the best M reach Σ|score|/√M."""

    def __init__(self, codebook: Codebook, residual: Tensor, weighted: Tensor, most: int) -> None:
        super().__init__(codebook, residual, weighted)
        top = torch.topk(self._scores.abs(), min(most, self._scores.numel()))
        self._order = top.indices
        self._signs = torch.where(self._scores[top.indices] < 0, -1, 1)
        ranks = torch.arange(1, top.values.numel() + 1, device=self._scores.device)
        # Atoms have mean square 1 in the Hadamard codebook and nearly so in the other.
        self._reach = (top.values.double().cumsum(0) / ranks.sqrt() * self._alignment).cpu()

    def needed(self, reach: float) -> int:
        """The smallest M that reaches so far; one more than there are when none does."""
        # The reach rises with M as long as M is a small part of N; the first crossing is the one wanted.
        found = (self._reach >= reach).nonzero()
        return int(found[0]) + 1 if len(found) else len(self._reach) + 1

    def take(self, n: int) -> tuple[np.ndarray, np.ndarray]:
        """Sorted positions int64 [n] and signs int8 [n] of the best n."""
        order = self._order[:n].sort()
        positions = order.values.cpu().numpy().astype(np.int64)
        return positions, self._signs[:n][order.indices].cpu().numpy().astype(np.int8)


class _BestPath(_Search):
    """The best path of so many bits; what it will reach is known in the mean only, before it is searched."""

    def __init__(self, codebook: TrellisCodebook, residual: Tensor, weighted: Tensor, most: int) -> None:
        super().__init__(codebook, residual, weighted)
        self._most = most

    def needed(self, reach: float) -> int:
        """Bits that reach so far on the average; one more than there are when none do."""
        return math.ceil(min(bits_to_reach(reach / self._alignment, self._codebook.n_atoms), self._most + 1))

    def take(self, n: int) -> np.ndarray:
        """The bits, uint8 [n]."""
        if n == 0:
            return np.zeros(0, dtype=np.uint8)
        return self._codebook.search(self._scores.cpu().numpy(), n)[0]


def _noise(codebook: Codebook | TrellisCodebook, choice: Choice) -> np.ndarray:
    return codebook.combine(*choice) if isinstance(choice, tuple) else codebook.combine(choice)


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
    on_share: OnShare | None = None,
) -> tuple[SteeringPlan, Choices, Tensor]:
    """Encoder: sample towards `target` until the bytes are spent.

    Args:
        velocity: the adapted model.
        target: x₀, float32 [1, C, T, h, w].
        plan: grid, η and codebook; its counts are ignored.
        segment: number of the segment, part of every random stream's address.
        size_bytes: what counts and code words may take together, those of `plan.before` included.
        weights: importance of each latent value for the score, broadcastable to `target` (None = all equal).
            Encoder only: the decoder does not need them.
        reach: of the code words, as a multiple of g·‖r‖. Encoder only.
        on_step: see `sampler.OnStep`.
        on_share: told after each step, an estimate as long as there are more.

    Returns:
        The plan with counts and last_q, what was chosen, and the latents a decoder will get.

    Raises UsageError for latents with more values than the format can address.
    """
    shape = tuple(target.shape)
    n, n_positions = plan.n_entries(shape), plan.n_positions(shape)
    limit = MAX_PATH_ATOMS if plan.codebook == "trellis" else MAX_POSITIONS
    if n_positions > limit:
        raise UsageError(f"steering addresses {limit} atoms and these latents need {n_positions}: code smaller")
    most = max(1, min(_LONGEST_SHORTLIST, n_positions // (2 if plan.codebook == "trellis" else 4)))
    counts: list[int] = []
    choices: Choices = []
    last_q = LAST_UNIT
    x_t, t = plan.initial_noise(segment, shape).to(target.device), 1.0
    finished = False
    while True:
        spent = [*plan.before, *counts]
        affordable = _affordable(plan, 8.0 * size_bytes, spent, n_positions, most)
        finished = finished or affordable == 0 or len(counts) == MAX_INJECTIONS
        clean = estimate(velocity, x_t, t, is_last=finished)
        if on_step is not None:
            on_step(t, x_t, clean)
        if on_share is not None:
            on_share(1.0 if finished else _share_of_steps(plan, 8.0 * size_bytes, counts, n_positions))
        if finished:
            return replace(plan, counts=tuple(counts), last_q=last_q), choices, clean
        step = len(counts)
        residual = target - clean
        weighted = residual if weights is None else residual * weights
        flat, flat_weighted = residual.reshape(-1)[:n], weighted.reshape(-1)[:n]
        length = reach * float(flat.norm())
        codebook = plan.make_codebook(segment, step, n)
        search = (_BestPath if plan.codebook == "trellis" else _BestAtoms)(codebook, flat, flat_weighted, most)
        t_next, eta = _step_to(plan, step, LAST_UNIT)
        count = _storable(search.needed(_gain(t, t_next, eta) * length), counts, usual_step(plan.snr_ratio_q), most)
        if t_next < LEAST_STEERED_TIME or not _fits(plan, 8.0 * size_bytes, [*spent, count], n_positions):
            # The last injection: a part of a step, as far as the remaining bytes reach, and never beyond the estimate.
            finished = True
            if plan.codebook == "trellis":
                count += -(sum(spent) + count) % 8
            count = min(count, affordable)
            for last_q in range(LAST_UNIT, 0, -1):
                t_next, eta = _step_to(plan, step, last_q)
                if search.needed(_gain(t, t_next, eta) * length) <= count:
                    break
        choices.append(search.take(count))
        counts.append(count)
        x_t = advance(x_t, clean, t, t_next, eta, _noise(codebook, choices[-1]) if count else None)
        t = t_next


def _share_of_steps(plan: SteeringPlan, bits: float, counts: list[int], n_positions: int) -> float:
    """How far the step after `counts` is, of all that a budget of so many bits is likely to pay for."""
    before, spent = (choices_bits(plan.codebook, each, n_positions) for each in (list(plan.before), counts))
    growth = _GROWTH * math.log(1 + plan.snr_ratio_q / 64)
    more = math.log(max(1.0, (bits - before) / max(1.0, spent))) / growth
    most = full_grid_injections(plan.snr_start_q, plan.snr_ratio_q, MAX_INJECTIONS, LEAST_STEERED_TIME)
    return (len(counts) + 1) / (min(len(counts) + more, max(most, len(counts))) + 2)


def _step_to(plan: SteeringPlan, step: int, last_q: int) -> tuple[float, float]:
    """t′ and η of injection `step` when it is the last one, exactly as a decoder derives them."""
    times = snr_grid(plan.snr_start_q, plan.snr_ratio_q, step + 1, last_q)
    return times[-2], ancestral_etas(times, plan.eta_scale_q)[-1]


def _storable(wanted: int, counts: Sequence[int], usual: int, most: int) -> int:
    """A count near `wanted` and at most `most` that a file can store after `counts`: the usual step where that is near
    enough, or nearly the usual one, else the nearest."""
    highest = min(largest_index(len(counts)), index_of_count(most))
    if len(counts) >= N_WHOLE:
        previous = index_of_count(counts[-1])
        for k in (previous + usual, previous + usual - 1, previous + usual + 1):
            if not 0 <= k <= highest:
                continue
            if _FEWEST * wanted - _ROUNDED <= count_of_index(k) <= _MOST * wanted + _ROUNDED:
                return count_of_index(k)
    below = min(highest, index_of_count(wanted))
    low, high = count_of_index(below), count_of_index(min(highest, below + 1))
    return low if wanted * wanted < low * high else high


def _fits(plan: SteeringPlan, bits: float, counts: list[int], n_positions: int) -> bool:
    """Whether a file can end with these counts: a last one that leaves bits of a byte unused is stored, and costs."""
    return choices_bits(plan.codebook, counts, n_positions) + plan.counts_bits(counts) <= bits


def _affordable(plan: SteeringPlan, bits: float, counts: list[int], n_positions: int, most: int) -> int:
    """The largest count of one more, last injection that fits into the budget of all, at most `most`.

    The bits of a path are made to fill whole bytes, which the file then has for nothing, with the last count.
    """
    spent = sum(counts)
    most = min(most, ATOMS_MAX - spent)
    if plan.codebook == "trellis":
        to_a_byte = -spent % 8
        n_bytes = int((bits - plan.counts_bits([*counts, to_a_byte])) // 8)
        filling = 8 * n_bytes - spent
        if filling <= most:
            return max(0, filling)
    low, high = 0, most + 1
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if _fits(plan, bits, [*counts, middle], n_positions) else (low, middle)
    return low


def follow(
    velocity: Velocity,
    choices: Choices,
    plan: SteeringPlan,
    segment: int,
    shape: tuple[int, ...],
    device: torch.device,
    *,
    on_step: OnStep | None = None,
    n_steps: int | None = None,
) -> Tensor:
    """Decoder: replay what `steer` chose; the same latents up to the network's floating-point differences.

    Where the plan has more injections than were steered, the rest of the way is generated with pseudo-random noise.
    """
    n = plan.n_entries(shape)

    def choose(step: int, clean: Tensor) -> np.ndarray | None:
        if step >= len(choices):
            return normal(Stream(plan.seed, Purpose.STEP_NOISE, (segment, len(plan.before) + step)), shape)
        if not plan.counts[step]:
            return None
        return _noise(plan.make_codebook(segment, step, n), choices[step])

    noise = plan.initial_noise(segment, shape).to(device)
    return sample(velocity, noise, plan.times, plan.etas, choose, on_step, n_steps)
