"""The balanced pseudo-random projection from one short vector to all low-rank factor entries.

FORMAT.md, "Projection". factors[i] = theta[index[i]] * scale[i], i = 0 .. D-1, where `index` uses every vector entry
floor(D/k) or floor(D/k) + 1 times and scale[i] = sign[i] / sqrt(count of index[i]). The map is isometric: columns are
orthonormal, so the norm of the factors is that of the vector. arXiv 2603.07615; UniLoRA.
"""

from __future__ import annotations

from functools import cached_property

import numpy as np

from vovcodec.errors import UsageError
from vovcodec.sampling.noise import Purpose, Stream, permutation, signs

__all__ = ["BalancedProjection"]


class BalancedProjection:
    """Index map of one (number of factor entries, vector length, seed).

    With P = permutation(Stream(seed, PROJECTION_ORDER), D) and i = 0 .. D-1: index[P[i]] = i mod k.
    With g = signs(Stream(seed, PROJECTION_SIGN), D) and c[j] = floor(D/k) + (1 if j < D mod k else 0):
    scale[i] = g[i] * float32(1 / sqrt(float64(c[index[i]]))).

    Args:
        n_entries: D, the number of entries of all factors together, k <= D < 2^31.
        vector_length: k >= 1, the number of vector entries.
        seed: 0 .. 2^32 - 1.

    Raises:
        UsageError: the vector is longer than the factors have entries, or a size is out of range.
    """

    def __init__(self, n_entries: int, vector_length: int, seed: int) -> None:
        if vector_length < 1:
            raise UsageError(f"the vector needs at least 1 entry, not {vector_length}")
        if n_entries < vector_length:
            raise UsageError(
                f"a vector of {vector_length} entries is longer than the {n_entries} low-rank factor entries it would "
                f"fill; choose a vector of at most {n_entries} entries, a higher rank or more layers"
            )
        if n_entries >= 1 << 31:
            raise UsageError(f"at most 2^31 - 1 factor entries are supported, not {n_entries}")
        self.n_entries = n_entries
        self.vector_length = vector_length
        self.seed = seed

    @cached_property
    def index(self) -> np.ndarray:
        """Vector entry used by each factor entry, int32 [D], 0 .. k-1."""
        index = np.empty(self.n_entries, dtype=np.int32)
        rounds = np.arange(self.n_entries, dtype=np.int32) % np.int32(self.vector_length)
        index[permutation(Stream(self.seed, Purpose.PROJECTION_ORDER), self.n_entries)] = rounds
        return index

    @cached_property
    def counts(self) -> np.ndarray:
        """How many factor entries use each vector entry, int64 [k]."""
        base, extra = divmod(self.n_entries, self.vector_length)
        return base + (np.arange(self.vector_length) < extra)

    @cached_property
    def scale(self) -> np.ndarray:
        """Signed scale of each factor entry, float32 [D], +-1/sqrt(count)."""
        sign = signs(Stream(self.seed, Purpose.PROJECTION_SIGN), self.n_entries)
        inverse_root = (1.0 / np.sqrt(self.counts.astype(np.float64))).astype(np.float32)
        return inverse_root[self.index] * sign

    @cached_property
    def order(self) -> np.ndarray:
        """Factor entries sorted by vector entry, then by position (a stable argsort of `index`), int64 [D].

        The factor entries that use vector entry j are `counts[j]` in a row, after those of the entries before it.
        """
        entry_bits = np.uint64(self.n_entries.bit_length())
        packed = self.index.astype(np.uint64) << entry_bits | np.arange(self.n_entries, dtype=np.uint64)
        packed.sort()
        return (packed & np.uint64((1 << int(entry_bits)) - 1)).astype(np.int64)
