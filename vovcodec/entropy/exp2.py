"""Powers of two with fractional exponents in integers, so that no mathematics library's last bit matters.

FORMAT.md, "Step size". With F = 2048 fractions per octave, T[i] ~ 2^(128 - i / 2048), i = 0 .. 2047, is built from 11
integer square roots and integer products, all rounded down; its relative error is below 2^-122, and the roundings
taken from it below (53 bits to nearest, 40 bits down) are those of the exact value (tested for every i).
"""

from __future__ import annotations

import math
from functools import lru_cache

__all__ = ["FRACTIONS_PER_OCTAVE", "TABLE_BITS", "exp2_table", "power_of_two"]

OCTAVE_BITS = 11
FRACTIONS_PER_OCTAVE = 1 << OCTAVE_BITS
TABLE_BITS = 128


@lru_cache(maxsize=1)
def exp2_table() -> tuple[int, ...]:
    """T[i] = 2^128 * 2^(-i / 2048) as integers, 2048 of them, T[0] = 2^128, strictly decreasing.

    roots: r_0 = 2^127, r_j = isqrt(r_(j-1) * 2^128), so r_j ~ 2^(128 - 2^-j);
    T[i] = the product of r_j over the set bits (2048 >> j) of i, from the highest to the lowest, each product
    shifted down by 128 bits.
    """
    roots = [1 << (TABLE_BITS - 1)]
    for _ in range(OCTAVE_BITS):
        roots.append(math.isqrt(roots[-1] << TABLE_BITS))
    table = [1 << TABLE_BITS]
    for root in roots[1:]:
        # Entries for twice as many fractions: each known one, and each known one times the next finer root.
        table = [entry for known in table for entry in (known, known * root >> TABLE_BITS)]
    return tuple(table)


def power_of_two(exponent_q: int) -> float:
    """2^(exponent_q / 2048) as the nearest float64 (ties to even), for -2^20 <= exponent_q <= 2^20."""
    octaves, fraction = divmod(-exponent_q, FRACTIONS_PER_OCTAVE)
    # int -> float rounds to nearest, ties to even, and ldexp by a whole number of octaves is exact.
    return math.ldexp(float(exp2_table()[fraction]), -TABLE_BITS - octaves)
