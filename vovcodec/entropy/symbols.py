"""The coder of the vector's symbols: integers -> (model bytes, words) and back.

FORMAT.md, "Symbol model". The distribution is described by 2 bytes: a shape from a family of symmetric laws
w(k) ~ 2^(-scale * |k|^power) with its own weight for zero, and how fast symbol counts take over from it. Counts are
taken in after whole chunks of symbols, so coding stays vectorised. A static description is the same with counts left
out. There is no explicit frequency table: it would need about a byte for each symbol in use, and that is no less than
what description and counts cost together (5 to 35 bytes over the entropy of 131,072 symbols of ten distributions).
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from vovcodec.entropy.errors import BadCodedSymbols, BadEntropyModel
from vovcodec.entropy.exp2 import FRACTIONS_PER_OCTAVE, TABLE_BITS, exp2_table
from vovcodec.entropy.range_coder import FREQUENCY_TOTAL, RangeReader, RangeWriter, frequencies

__all__ = ["MAX_SYMBOL", "MAX_SYMBOLS", "SymbolModel", "coded_size", "decode_symbols", "encode_symbols"]

REACH_STEP = 128
MAX_REACH_INDEX = 7
MAX_SYMBOL = REACH_STEP * (1 + MAX_REACH_INDEX)
MAX_SYMBOLS = 1 << 24

N_SCALES = 128
SCALE_MANTISSAS = (16, 17, 19, 21, 23, 25, 27, 29)  # about 16 * 2^(i / 8)
POWERS_QUARTERS = (2, 3, 4, 5, 6, 7, 8, 10)  # exponents of |k| in quarters: 1/2 .. 5/2
ZERO_BOOSTS = (-4, -2, 0, 2, 4, 8, 12, 16)  # quarter octaves by which zero is likelier than the law says
PRIOR_COUNTS = (0, 32, 256, 2048)  # symbols the law is worth against counts; 0: counts are not used
WEIGHT_FRACTION_BITS = 40
PRIOR_BITS = 22
FIRST_CHUNK = 32


@dataclass(frozen=True)
class SymbolModel:
    """Everything a decoder needs to rebuild the frequencies; each field indexes a constant of the format.

    scale: 0 .. 127, shape: 0 .. 7, zero: 0 .. 7, adaptation: 0 .. 3, reach: 0 .. 7 (symbols are within
    +-128 * (1 + reach)).
    """

    scale: int
    shape: int
    zero: int
    adaptation: int
    reach: int = 0

    @property
    def limit(self) -> int:
        """Largest magnitude of a symbol."""
        return REACH_STEP * (1 + self.reach)

    def to_bytes(self) -> bytes:
        """2 bytes, little-endian: scale in bits 0-6, shape 7-9, zero 10-12, adaptation 13-14; then reach unless 0."""
        packed = self.scale | self.shape << 7 | self.zero << 10 | self.adaptation << 13
        return packed.to_bytes(2, "little") + (bytes([self.reach]) if self.reach else b"")

    @classmethod
    def from_bytes(cls, data: bytes) -> SymbolModel:
        """Inverse of `to_bytes`. Raises BadEntropyModel for any other bytes."""
        if len(data) not in (2, 3):
            raise BadEntropyModel(f"an entropy model has 0, 2 or 3 bytes, not {len(data)}")
        packed = int.from_bytes(data[:2], "little")
        if packed >> 15:
            raise BadEntropyModel("the entropy model's reserved bit is set")
        reach = data[2] if len(data) == 3 else 0
        if len(data) == 3 and not 1 <= reach <= MAX_REACH_INDEX:
            raise BadEntropyModel(f"the entropy model's reach must be 1 .. {MAX_REACH_INDEX}, not {reach}")
        return cls(packed & 127, packed >> 7 & 7, packed >> 10 & 7, packed >> 13 & 3, reach)

    def prior(self) -> np.ndarray:
        """Weights of the law, int64 [2 * limit + 1], symbol -limit first, summing to at most 2^22.

        E(0) = 8192 - 512 * boost, E(k) = 8192 + floor(e * T(|k|) / 256), T(k) = floor(16 * k^power);
        w = floor(2^40 * 2^(-E / 2048)), prior = floor(w * 2^22 / sum w).
        """
        exponents = zero_and_tail_exponents(self.limit)[1][self.scale * len(POWERS_QUARTERS) + self.shape].copy()
        exponents[0] = zero_exponent(self.zero)
        octaves = np.minimum(exponents // FRACTIONS_PER_OCTAVE, 62)
        half = mantissas()[exponents % FRACTIONS_PER_OCTAVE] >> octaves
        weights = np.concatenate([half[:0:-1], half])
        return (weights << PRIOR_BITS) // weights.sum()

    def chunk_weights(self, prior: np.ndarray, counts: np.ndarray) -> np.ndarray:
        """Weights after `counts` [..., A] symbols have been seen: prior * prior_counts + counts * 2^22."""
        prior_count = PRIOR_COUNTS[self.adaptation]
        return prior * prior_count + (counts << PRIOR_BITS) if prior_count else np.broadcast_to(prior, counts.shape)


@lru_cache(maxsize=1)
def mantissas() -> np.ndarray:
    """floor(2^40 * 2^(-i / 2048)), int64 [2048]."""
    return np.array([entry >> (TABLE_BITS - WEIGHT_FRACTION_BITS) for entry in exp2_table()], dtype=np.int64)


def zero_exponent(zero: int) -> int:
    """E(0) of a zero index, in 1/2048 octaves."""
    return 4 * FRACTIONS_PER_OCTAVE - (FRACTIONS_PER_OCTAVE // 4) * ZERO_BOOSTS[zero]


@lru_cache(maxsize=2)
def zero_and_tail_exponents(limit: int) -> tuple[np.ndarray, np.ndarray]:
    """E(0) for each zero index, int64 [8], and E(k) for each (scale, shape), int64 [128 * 8, limit + 1].

    Column 0 of the second is a placeholder.
    """
    # floor(16 * k^(p/4)) = isqrt(isqrt(16^4 * k^p)), exactly, in integers.
    powers = [[math.isqrt(math.isqrt(k**p << 16)) for k in range(limit + 1)] for p in POWERS_QUARTERS]
    scales = np.array([SCALE_MANTISSAS[s % 8] << s // 8 for s in range(N_SCALES)], dtype=np.int64)
    tails = 4 * FRACTIONS_PER_OCTAVE + (scales[:, None, None] * np.array(powers, dtype=np.int64)[None] >> 8)
    zeros = np.array([zero_exponent(zero) for zero in range(len(ZERO_BOOSTS))], dtype=np.int64)
    return zeros, tails.reshape(N_SCALES * len(POWERS_QUARTERS), limit + 1)


@lru_cache(maxsize=2)
def law_costs(limit: int) -> tuple[np.ndarray, np.ndarray]:
    """Encoder's search table: E / 2048 float64 [1024, limit + 1], and log2 of the sum of weights, float64 [1024, 8]."""
    zeros, tails = zero_and_tail_exponents(limit)
    tail_sum = 2.0 * np.exp2(-tails[:, 1:] / FRACTIONS_PER_OCTAVE).sum(axis=1)
    log_totals = np.log2(tail_sum[:, None] + np.exp2(-zeros / FRACTIONS_PER_OCTAVE)[None])
    costs = tails / FRACTIONS_PER_OCTAVE
    costs[:, 0] = 0.0  # zeros are accounted for separately, by their boost
    return costs, log_totals


def chunks(n: int, adaptation: int) -> Iterator[tuple[int, int]]:
    """(start, stop) of the runs of symbols coded with the same frequencies; one run when counts are not used.

    After t symbols the next run has max(32, floor(t / 4)) symbols, or what is left.
    """
    start = 0
    while start < n:
        length = max(FIRST_CHUNK, start // 4) if PRIOR_COUNTS[adaptation] else n
        stop = min(n, start + length)
        yield start, stop
        start = stop


def best_law(histogram: np.ndarray, reach: int) -> SymbolModel:
    """The static law with the shortest code for a histogram, int64 [2 * limit + 1]."""
    limit = REACH_STEP * (1 + reach)
    costs, log_totals = law_costs(limit)
    folded = histogram[limit:].astype(np.float64)
    folded[1:] += histogram[limit - 1 :: -1]
    zero_bits = zero_and_tail_exponents(limit)[0] / FRACTIONS_PER_OCTAVE * folded[0]
    bits = (costs @ folded)[:, None] + folded.sum() * log_totals + zero_bits
    law, zero = np.unravel_index(int(bits.argmin()), bits.shape)
    return SymbolModel(int(law) // len(POWERS_QUARTERS), int(law) % len(POWERS_QUARTERS), int(zero), 0, reach)


def choose_model(symbols: np.ndarray, limit_reach: int) -> tuple[SymbolModel, np.ndarray]:
    """The description with the shortest code, and the frequencies of each chunk, int64 [n_chunks, A]."""
    limit = REACH_STEP * (1 + limit_reach)
    n_symbols = 2 * limit + 1
    shifted = symbols + limit
    adaptive_chunks = np.array([np.bincount(shifted[a:b], minlength=n_symbols) for a, b in chunks(symbols.size, 1)])
    histogram = adaptive_chunks.sum(axis=0)
    law = best_law(histogram, limit_reach)
    prior = law.prior()
    best: tuple[float, SymbolModel, np.ndarray] | None = None
    for adaptation in range(len(PRIOR_COUNTS)):
        model = SymbolModel(law.scale, law.shape, law.zero, adaptation, limit_reach)
        in_chunks = adaptive_chunks if PRIOR_COUNTS[adaptation] else histogram[None]
        seen = np.cumsum(in_chunks, axis=0) - in_chunks
        freqs = frequencies(model.chunk_weights(prior, seen))
        bits = -float((in_chunks * np.log2(freqs / FREQUENCY_TOTAL)).sum())
        if best is None or bits < best[0]:
            best = (bits, model, freqs)
    return best[1], best[2]


def encode_symbols(symbols: np.ndarray) -> tuple[bytes, bytes]:
    """Encode symbols with the shortest description the format has for them.

    Args:
        symbols: int [n], n <= 2^24, each within +-1024.

    Returns:
        (model, words): the distribution's description (0 bytes when all symbols are zero, 2 when all are within
        +-128, else 3) and the range coder's bytes. The decoder is told n by the container.

    Raises:
        ValueError: a symbol out of range, or too many symbols.
    """
    symbols = np.asarray(symbols).astype(np.int64).ravel()
    if symbols.size > MAX_SYMBOLS:
        raise ValueError(f"at most 2^24 symbols can be coded at once, not {symbols.size}")
    magnitude = int(np.abs(symbols).max(initial=0))
    if magnitude > MAX_SYMBOL:
        raise ValueError(f"symbols must be within +-{MAX_SYMBOL}, not {magnitude}")
    if magnitude == 0:
        return b"", b""
    model, freqs = choose_model(symbols, max(0, (magnitude - 1) // REACH_STEP))
    writer = RangeWriter()
    for chunk_freqs, (start, stop) in zip(freqs, chunks(symbols.size, model.adaptation), strict=True):
        writer.identical(chunk_freqs, symbols[start:stop] + model.limit)
    return model.to_bytes(), writer.finish()


def coded_size(symbols: np.ndarray) -> int:
    """Bytes of what `encode_symbols` makes of symbols, description and words together."""
    return sum(map(len, encode_symbols(symbols)))


def decode_symbols(model: bytes, words: bytes, n: int) -> np.ndarray:
    """Decode what `encode_symbols` wrote.

    Args:
        model: description of the distribution.
        words: the range coder's bytes.
        n: number of symbols, 0 .. 2^24; the caller has capped it. Memory is about 16 bytes each.

    Returns:
        int32 [n], each within +-1024.

    Raises:
        BadEntropyModel: `model` is not a description the format defines.
        BadCodedSymbols: `words` cannot be the code of n symbols under this model.
    """
    if not 0 <= n <= MAX_SYMBOLS:
        raise BadCodedSymbols(f"a vector has at most 2^24 symbols, not {n}")
    if not model:
        if words:
            raise BadCodedSymbols("coded symbols without an entropy model")
        return np.zeros(n, dtype=np.int32)
    description = SymbolModel.from_bytes(model)
    # A frequency of 1 in 2^24 is 3 bytes; the coder's own rounding stays far below the 8 spare ones.
    if len(words) > 3 * n + 8:
        raise BadCodedSymbols(f"{len(words)} bytes are too many for {n} symbols")
    reader = RangeReader(words, BadCodedSymbols)
    prior = description.prior()
    counts = np.zeros(prior.size, dtype=np.int64)
    symbols = np.empty(n, dtype=np.int32)
    for start, stop in chunks(n, description.adaptation):
        chunk = reader.identical(frequencies(description.chunk_weights(prior, counts)), stop - start)
        counts += np.bincount(chunk, minlength=prior.size)
        symbols[start:stop] = chunk
    symbols -= description.limit
    return symbols
