"""Sampler times, atoms per step and noise fractions: everything a decoder derives from a few integers.

Only integers and correctly rounded IEEE float64 operations are used, so all machines get the same numbers.
"""

from __future__ import annotations

from fractions import Fraction

from vovcodec.errors import UsageError

__all__ = ["ETA_UNIT", "atom_counts", "noise_fractions", "shift_to_q8", "time_grid"]

ETA_UNIT = 200


def time_grid(n_steps: int, shift_q8: int) -> list[float]:
    """Times t_0 = 1 > t_1 > … > t_n = 0 of an n-step sampler.

    With u = 1 − i/n and shift s = shift_q8/256:  t = s·u / (1 + (s − 1)·u)   (Esser et al. 2024, section 5.3.2).
    The quotient is formed from exact rationals and rounded once to float64.

    Args:
        n_steps: network evaluations, ≥ 1.
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


def atom_counts(n_atoms_total: int, n_injections: int, ramp_q: int) -> list[int]:
    """Atoms per injection, summing exactly to `n_atoms_total`.

    Injection i of m has weight w_i = (255 − r)·(m − 1 − i) + r·i with r = `ramp_q` (128 ≈ constant, 255 = growing
    linearly from zero, 0 = falling to zero); counts are the differences of floor(total·Σw/W).
    """
    if n_injections == 0:
        return []
    last = n_injections - 1
    weights = [(255 - ramp_q) * (last - i) + ramp_q * i for i in range(n_injections)] if last else [1]
    total_weight = sum(weights)
    counts, running, placed = [], 0, 0
    for weight in weights:
        running += weight
        reached = n_atoms_total * running // total_weight
        counts.append(reached - placed)
        placed = reached
    return counts


def noise_fractions(eta_q: tuple[int, ...], n_injections: int) -> list[float]:
    """η of each injection, q/200 in [0, 1]: one stored value for all, or one per injection."""
    values = eta_q * n_injections if len(eta_q) == 1 else eta_q
    if len(values) < n_injections:
        raise UsageError(f"{n_injections} injections need as many noise fractions, not {len(values)}")
    return [min(q, ETA_UNIT) / ETA_UNIT for q in values[:n_injections]]
