"""The step size at which a vector takes the bytes it may take (encoder only)."""

from __future__ import annotations

import numpy as np

from vovcodec.entropy.quantizer import MAX_STEP_SIZE_Q, SYMBOL_LIMIT, nearest_step_size_q, quantize
from vovcodec.entropy.symbols import coded_size

__all__ = ["finest_step_size_q"]

_RESOLUTION = 4  # indices: 0.14 % of Δ, far less than a byte of anything that fits into a file
_FIRST_STRIDE = 16


def finest_step_size_q(vector: np.ndarray, size_bytes: int, near: int | None = None) -> int:
    """The largest step_size_q (finest Δ) found at which the coded symbols of `vector` take at most `size_bytes`.

    A search outwards from `near`, then by bisection; that coarser symbols are shorter is true up to a few bytes, and
    what is returned has been tried. Not finer than where the largest entry has the largest symbol.

    Args:
        vector: θ, float [k], finite.
        size_bytes: of entropy model and words together, at least 0.
        near: a guess, the last step's for instance; a good one saves most of the work.

    Returns:
        The index; 0, the coarsest Δ, where even that is too fine.
    """
    largest = float(np.abs(vector).max(initial=0.0))
    finest = nearest_step_size_q(largest / SYMBOL_LIMIT) if largest else MAX_STEP_SIZE_Q

    def fits(step_size_q: int) -> bool:
        return coded_size(quantize(vector, step_size_q)) <= size_bytes

    coarse, fine = 0, finest + 1
    place, stride = finest if near is None else min(near, finest), _FIRST_STRIDE
    while fine - coarse > _RESOLUTION:
        if fits(place):
            coarse, place = place, place + stride
        else:
            fine, place = place, place - stride
        stride *= 2
        if not coarse < place < fine:
            place = (coarse + fine) // 2
    return coarse
