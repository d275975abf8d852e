"""Step size and symbols of the vector: q = clamp(round(theta / Delta)), theta' = q * Delta.

FORMAT.md, "Step size". The step size is stored as an integer and evaluated without any mathematics library, so the
dequantised vector is the same on every machine.
"""

from __future__ import annotations

import math

import numpy as np

from vovcodec.entropy.exp2 import FRACTIONS_PER_OCTAVE, power_of_two

__all__ = ["SYMBOL_LIMIT", "dequantize", "nearest_step_size_q", "quantize", "step_size"]

SYMBOL_LIMIT = 128
MAX_STEP_SIZE_Q = 65535
COARSEST_OCTAVES = 12  # a vector entry is √(D/k) times the factor entries it feeds: hundreds, where k is small


def step_size(step_size_q: int) -> float:
    """Delta = 2^(12 - step_size_q / 2048), the nearest float64; 4096 down to 2^-20 in steps of 0.034 %.

    Raises ValueError unless 0 <= step_size_q <= 65535.
    """
    if not 0 <= step_size_q <= MAX_STEP_SIZE_Q:
        raise ValueError(f"step_size_q must be 0 .. {MAX_STEP_SIZE_Q}, not {step_size_q}")
    return power_of_two(COARSEST_OCTAVES * FRACTIONS_PER_OCTAVE - int(step_size_q))


def nearest_step_size_q(delta: float) -> int:
    """The step_size_q whose step size is nearest to `delta` in ratio, clamped to 0 .. 65535 (encoder only).

    Raises ValueError unless `delta` is positive and finite.
    """
    if not (delta > 0 and math.isfinite(delta)):
        raise ValueError(f"a step size must be positive and finite, not {delta}")
    return min(max(round(FRACTIONS_PER_OCTAVE * (COARSEST_OCTAVES - math.log2(delta))), 0), MAX_STEP_SIZE_Q)


def quantize(vector: np.ndarray, step_size_q: int, limit: int = SYMBOL_LIMIT) -> np.ndarray:
    """Symbols q = clamp(round_half_even(theta / Delta), -limit, limit).

    Args:
        vector: theta, float [k]; evaluated in float64. Must be finite.
        step_size_q: integer step size, see `step_size`.
        limit: largest magnitude of a symbol.

    Returns:
        int32 [k]. Raises ValueError for a vector with NaN or infinity.
    """
    vector = np.asarray(vector, dtype=np.float64)
    if not np.isfinite(vector).all():
        raise ValueError("the vector holds NaN or infinity")
    return np.clip(np.rint(vector / step_size(step_size_q)), -limit, limit).astype(np.int32)


def dequantize(symbols: np.ndarray, step_size_q: int) -> np.ndarray:
    """theta' = float32(float64(q) * Delta), float32 with the shape of `symbols`; one float64 product, one rounding."""
    return (np.asarray(symbols, dtype=np.float64) * step_size(step_size_q)).astype(np.float32)
