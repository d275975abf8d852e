"""Sampler times and noise fractions: everything a decoder derives from a few integers.

Only integers and correctly rounded IEEE float64 operations (+, −, ×, ÷, √) are used, so all machines get the same
numbers. With signal-to-noise ratio snr(t) = ((1 − t)/t)² of x_t = (1 − t)·x₀ + t·ε there are two grids:

- `time_grid`: n steps with a shift, for samplers that run all the way to t = 0.
- `snr_grid`: signal-to-noise ratios in geometric progression, for steering. At low rates the bits of a file run out
  at high noise; the sampler then stops and the model's estimate x̂₀ is the picture, instead of inventing detail that
  no bit supports.
"""

from __future__ import annotations

import itertools
import math
from fractions import Fraction

from vovcodec.errors import UsageError

__all__ = [
    "ETA_UNIT",
    "LAST_UNIT",
    "LEAST_STEERED_TIME",
    "LEAST_TIME",
    "REALISM_STEPS",
    "ancestral_etas",
    "full_grid_injections",
    "ratio_to_q",
    "shift_to_q8",
    "snr_grid",
    "snr_of",
    "start_to_q",
    "time_grid",
    "time_of",
]

ETA_UNIT = 200
LAST_UNIT = 16
LEAST_TIME = 0.02  # below this noise is invisible
LEAST_STEERED_TIME = 0.0008  # noise of a grey level at most; only pictures of flat colours and high rates get here
REALISM_STEPS = 4  # of realism.py


def time_grid(n_steps: int, shift_q8: int) -> list[float]:
    """Times t_0 = 1 > t_1 > … > t_n = 0 of an n-step sampler.

    With u = 1 − i/n and shift s = shift_q8/256:  t = s·u / (1 + (s − 1)·u)   (Esser et al. 2024, section 5.3.2).
    The quotient is formed from exact rationals and rounded once to float64.

    Args:
        n_steps: steps of the sampler, ≥ 1.
        shift_q8: 256·s, ≥ 1. 256 is a uniform grid; larger values spend more steps at high noise.
    """
    if n_steps < 1 or shift_q8 < 1:
        raise UsageError(f"a sampler needs at least 1 step and a positive shift, not {n_steps} and {shift_q8}/256")
    shift = Fraction(shift_q8, 256)
    us = (Fraction(n_steps - i, n_steps) for i in range(n_steps + 1))
    return [float(shift * u / (1 + (shift - 1) * u)) for u in us]


def shift_to_q8(shift: float) -> int:
    """The stored integer nearest to a shift: round(256·s), at least 1."""
    return max(1, round(256 * shift))


def start_to_q(snr_start: float, low: int = 0, high: int = 255) -> int:
    """The stored integer nearest to a first signal-to-noise ratio: round(−8·log₂ snr), `low`..`high` (encoder only)."""
    return min(high, max(low, round(-8 * math.log2(snr_start))))


def ratio_to_q(ratio: float) -> int:
    """The stored integer nearest to a ratio of successive signal-to-noise ratios: round(64·(ratio − 1)), 1..255."""
    return min(255, max(1, round(64 * (ratio - 1))))


def snr_of(t: float) -> float:
    """((1 − t)/t)², 0 at t = 1."""
    ratio = (1.0 - t) / t
    return ratio * ratio  # a product is exact in its rounding, a power need not be


def time_of(snr: float) -> float:
    """1/(1 + √snr)."""
    return 1.0 / (1.0 + math.sqrt(snr))


def _snr_start(snr_start_q: int) -> float:
    """2^(−q/8): three square roots of an exact power of two."""
    return math.sqrt(math.sqrt(math.sqrt(2.0**-snr_start_q)))


def _partial_snr(previous: float, snr_ratio_q: int, last_q: int) -> float:
    """previous·ratio^(last_q/16), ratio = 1 + snr_ratio_q/64; `last_q` in 1..16, 16 being one full step."""
    ratio = 1.0 + snr_ratio_q / 64
    if last_q == LAST_UNIT:
        return previous * ratio
    root = math.sqrt(math.sqrt(math.sqrt(math.sqrt(ratio))))
    snr = previous
    for _ in range(last_q):
        snr *= root
    return snr


def snr_grid(
    snr_start_q: int, snr_ratio_q: int, n_injections: int, last_q: int = LAST_UNIT, *, n_total: int = 0
) -> list[float]:
    """Times 1, t_0, …, t_{M−1}, 0 of a sampler with m steered injections, M = max(m, n_total) (M + 1 steps).

    snr_i = 2^(−snr_start_q/8)·(1 + snr_ratio_q/64)^i, t_i = time_of(snr_i); the last steered one may be a partial step,
    `previous·ratio^(last_q/16)` of the one before (for m = 1: of 2^(−snr_start_q/8)/ratio).
    """
    ratio = 1.0 + snr_ratio_q / 64
    snrs: list[float] = []
    snr = _snr_start(snr_start_q)
    for _ in range(max(n_injections, n_total)):
        snrs.append(snr)
        snr *= ratio
    if n_injections and last_q != LAST_UNIT:
        before = snrs[n_injections - 2] if n_injections > 1 else snrs[0] / ratio
        snrs[n_injections - 1] = _partial_snr(before, snr_ratio_q, last_q)
    return [1.0, *(time_of(s) for s in snrs), 0.0]


def full_grid_injections(snr_start_q: int, snr_ratio_q: int, most: int, least_time: float = LEAST_TIME) -> int:
    """Injections of an `snr_grid` that goes down to `least_time`, by default where noise is invisible, 1..`most`."""
    snr, n_injections = _snr_start(snr_start_q), 1
    while n_injections < most and time_of(snr) > least_time:
        snr *= 1.0 + snr_ratio_q / 64
        n_injections += 1
    return n_injections


def ancestral_etas(times: list[float], eta_scale_q: int) -> list[float]:
    """Noise fraction of every injection: min(1, (q/200)·√(1 − snr(t)/snr(t′))).

    At q = 200 this is ancestral sampling (the posterior variance of Ho et al. 2020, eq. 7, for this path); less keeps
    more of the estimated noise.
    """
    scale = eta_scale_q / ETA_UNIT
    pairs = itertools.pairwise(times[:-1])  # the last step injects nothing
    return [min(1.0, scale * math.sqrt(1.0 - snr_of(t) / snr_of(t_next))) for t, t_next in pairs]
