"""Exact random streams: the same integers, permutations and Gaussians on every machine and device.

FORMAT.md, "Random streams". Everything is derived from the raw 64-bit outputs of Philox4x64-10 (Salmon et al. 2011,
"Parallel random numbers: as easy as 1, 2, 3"), which NumPy guarantees for `Philox.random_raw` (NEP 19); none of
NumPy's distributions is used, because those may change. A stream is addressed, never advanced: asking twice for the
same stream gives the same numbers, and a longer request starts with the numbers of a shorter one.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import IntEnum

import numpy as np

from vovcodec.sampling.normal_table import normal_table

__all__ = ["Purpose", "Stream", "normal", "permutation", "raw_u16", "raw_u64", "signs", "uniform_int"]

U32 = 1 << 32


class Purpose(IntEnum):
    """What a stream is for. The numbers are part of the format: append, never renumber."""

    INITIAL_NOISE = 1  # (segment): the sampler's starting latents
    STEP_NOISE = 2  # (segment, step): the Gaussian a sampler step injects or builds its codebook from
    STEP_SIGNS = 3  # (segment, step): the signs that premultiply a codebook
    COLUMNS = 4  # (): the order of a codebook's columns
    CANDIDATE_NOISE = 5  # (segment, step, candidate): one whole-latent candidate of importance sampling
    CANDIDATE_CHOICE = 6  # (segment, step): the shared uniforms of importance sampling
    TRELLIS_LABELS = 7  # (): atoms and signs of a trellis' branches
    PROJECTION_ORDER = 16  # (): the balanced assignment of factor entries to vector entries
    PROJECTION_SIGN = 17  # (): the signs of the factor entries
    VECTOR_OFFSET = 18  # (): the fixed vector around which an offset projection updates
    VECTOR_START = 32  # (segment): the fit's initial vector; encoder only
    FITTING_NOISE = 33  # (segment, iteration, sample): the fit's noise; encoder only
    FITTING_TIME = 34  # (segment, iteration): the fit's times; encoder only


@dataclass(frozen=True)
class Stream:
    """The address of one random stream: a seed, a purpose and up to four indices, each 0 .. 2^32 - 1.

    Philox's 128-bit key and 256-bit counter, as 64-bit words:
    key = [seed + purpose * 2^32, i0 + i1 * 2^32];  counter = [block + 1, i2 + i3 * 2^32, 0, 0],
    block = 0, 1, 2, ... Missing indices are 0. Distinct addresses never share a (key, counter) pair.
    """

    seed: int
    purpose: int
    indices: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        if len(self.indices) > 4:
            raise ValueError(f"a stream has at most 4 indices, not {len(self.indices)}")
        for number in (self.seed, self.purpose, *self.indices):
            if not 0 <= number < U32:
                raise ValueError(f"seed, purpose and indices of a stream are 0 .. 2^32 - 1, not {number}")

    def generator(self) -> np.random.Philox:
        """NumPy's bit generator at the start of this stream."""
        i0, i1, i2, i3 = (*self.indices, 0, 0, 0, 0)[:4]
        key = np.array([self.seed + self.purpose * U32, i0 + i1 * U32], dtype=np.uint64)
        # NumPy adds 1 to the counter before it makes the first block, hence "block + 1" in the format.
        counter = np.array([0, i2 + i3 * U32, 0, 0], dtype=np.uint64)
        return np.random.Philox(key=key, counter=counter)


def raw_u64(stream: Stream, n: int) -> np.ndarray:
    """The first `n` raw outputs of a stream, uint64 [n]."""
    return stream.generator().random_raw(n)


def raw_u16(stream: Stream, n: int) -> np.ndarray:
    """The first `n` 16-bit integers of a stream, uint16 [n]: four from each raw output, lowest bits first."""
    return raw_u64(stream, -(-n // 4)).astype("<u8", copy=False).view("<u2")[:n].astype(np.uint16, copy=False)


def signs(stream: Stream, n: int) -> np.ndarray:
    """The first `n` signs of a stream, int8 [n]: 64 from each raw output, lowest bit first; bit 1 means -1."""
    raw_bytes = raw_u64(stream, -(-n // 64)).astype("<u8", copy=False).view(np.uint8)
    bits = np.unpackbits(raw_bytes, count=n, bitorder="little").view(np.int8)
    return np.int8(1) - (bits << 1)


def normal(stream: Stream, shape: int | tuple[int, ...]) -> np.ndarray:
    """Standard Gaussians from 16-bit integers: table[u16], in C order.

    Args:
        stream: which stream.
        shape: shape of the result.

    Returns:
        float32 [shape]; multiples of 2^-12 within +-4.326, mean 0 and variance 0.99998 over the table.
    """
    shape = (shape,) if isinstance(shape, int) else tuple(shape)
    return normal_table()[raw_u16(stream, math.prod(shape))].reshape(shape)


def permutation(stream: Stream, n: int) -> np.ndarray:
    """A permutation of 0 .. n-1: the stable argsort of the stream's first `n` raw outputs, int64 [n].

    Equal keys keep their order. Sorting `key with its low bits replaced by the index` is faster than an argsort and
    independent of the sorting algorithm, since no two such numbers are equal; the few neighbours whose remaining high
    bits agree are then put in the order of their full keys.
    """
    if n < 2:
        return np.arange(n, dtype=np.int64)
    keys = raw_u64(stream, n)
    index_bits = np.uint64((n - 1).bit_length())
    packed = (keys >> index_bits << index_bits) | np.arange(n, dtype=np.uint64)
    packed.sort()
    order = (packed & np.uint64((1 << int(index_bits)) - 1)).astype(np.int64)
    packed >>= index_bits
    same = packed[1:] == packed[:-1]
    if same.any():
        tied = np.flatnonzero(np.concatenate([[False], same]) | np.concatenate([same, [False]]))
        entries = order[tied]
        order[tied] = entries[np.lexsort((entries, keys[entries]))]
    return order


def uniform_int(stream: Stream, n: int, bound: int) -> np.ndarray:
    """`n` integers in 0 .. bound-1, int64 [n]: floor(high 32 bits of raw * bound / 2^32), 1 <= bound <= 2^32.

    No value is rejected, so the i-th result depends on the i-th raw output alone; the bias is below bound / 2^32.
    """
    if not 1 <= bound <= U32:
        raise ValueError(f"bound must be 1 .. 2^32, not {bound}")
    return ((raw_u64(stream, n) >> np.uint64(32)) * np.uint64(bound) >> np.uint64(32)).astype(np.int64)
