"""The coder of steering atoms: for every step, M distinct signed positions out of N.

FORMAT.md, "Atom positions". The positions of a step are coded by halving: how many of the m atoms of an interval lie
in its left half follows the hypergeometric law, whose product over all intervals is exactly the uniform law over
subsets, so the rate is log2 C(N, M) + M bits per step whatever the positions are. An interval with one atom is coded
as a uniform offset at once. All intervals of one depth, of all steps, are coded as one batch.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from vovcodec.entropy.errors import BadCodedAtoms
from vovcodec.entropy.range_coder import FREQUENCY_TOTAL, RangeReader, RangeWriter, bit_length, frequencies

__all__ = ["MAX_POSITIONS", "coded_atoms_bits", "decode_atoms", "encode_atoms"]

MAX_POSITIONS = (1 << 24) - 1
EXACT_BITS = 6  # counts of up to 2^6 - 1 atoms are split exactly, larger ones at a reduced resolution
TABLE_WIDTHS = (5, 17, 65)  # columns of frequency tables: outcomes 0 .. m, the escape, padding; m = 3, 15, 63 fill them
WEIGHT_TOTAL = 1 << 30
BATCH_INTERVALS = 1 << 15  # part of the format: bounds the frequency tables in memory

Atoms = list[tuple[np.ndarray, np.ndarray]]


def encode_atoms(steps: Sequence[tuple[np.ndarray, np.ndarray]], n_positions: int) -> bytes:
    """Encode the atoms of all steps in one range-coder stream.

    Args:
        steps: (positions, signs) per step: strictly increasing int [M] in 0 .. n_positions-1, and +-1 [M]. M may be 0
            and may differ between steps; the container keeps the counts.
        n_positions: N, 1 .. 2^24 - 1.

    Returns:
        The shortest bytes that decode to these atoms.

    Raises:
        ValueError: positions out of range or not increasing, signs other than +-1, or n_positions out of range.
    """
    check_n_positions(n_positions, ValueError)
    for positions, signs in steps:
        positions = np.asarray(positions)
        if positions.ndim != 1 or positions.shape != np.shape(signs) or (np.abs(signs) != 1).any():
            raise ValueError("every atom needs one sign, +1 or -1")
        inside = (positions >= 0) & (positions < n_positions)
        if not inside.all() or (np.diff(positions) <= 0).any():
            raise ValueError(f"atom positions must increase strictly within 0 .. {n_positions - 1}")
    counts = [len(positions) for positions, _ in steps]
    places = [np.asarray(positions, dtype=np.int64) + step * n_positions for step, (positions, _) in enumerate(steps)]
    negative = [np.asarray(signs) < 0 for _, signs in steps]
    writer = RangeWriter()
    code_places(writer, counts, n_positions, concatenate(places))
    writer.uniform(np.full(sum(counts), 2, dtype=np.int64), concatenate(negative))
    return writer.finish()


def decode_atoms(words: bytes, counts: Sequence[int], n_positions: int) -> Atoms:
    """Decode what `encode_atoms` wrote.

    Args:
        words: the bytes.
        counts: M of each step; the caller has capped their number and sum. Memory is about 100 bytes per atom plus
            some 30 MB.
        n_positions: N, 1 .. 2^24 - 1.

    Returns:
        (positions, signs) per step: int64 [M], strictly increasing in 0 .. N-1, and int8 [M] of +1 and -1.

    Raises:
        BadCodedAtoms: the counts are impossible, or the bytes cannot be the code of such atoms.
    """
    check_n_positions(n_positions, BadCodedAtoms)
    for count in counts:
        if not 0 <= count <= n_positions:
            raise BadCodedAtoms(f"{count} atoms cannot be at distinct places among {n_positions}")
    # 3 bytes per decision of probability 2^-24, at most 24 decisions of up to three parts for each atom, and a sign.
    if len(words) > 8 + 256 * sum(counts):
        raise BadCodedAtoms(f"{len(words)} bytes are too many for {sum(counts)} atoms")
    reader = RangeReader(words, BadCodedAtoms)
    places = code_places(reader, counts, n_positions, None)
    negative = reader.uniform(np.full(places.size, 2, dtype=np.int64))
    signs = (1 - 2 * negative).astype(np.int8)
    bounds = np.cumsum(counts)[:-1] if len(counts) else []
    per_step = zip(np.split(places, bounds), np.split(signs, bounds), strict=True) if len(counts) else ()
    return [(positions - step * n_positions, sign) for step, (positions, sign) in enumerate(per_step)]


def coded_atoms_bits(counts: Sequence[int], n_positions: int) -> float:
    """Bits that `encode_atoms` needs for such counts: sum of log2 C(N, M) + M, plus 0.1 % and 8 bits.

    The rate hardly depends on the positions, so this bounds the size from above closely enough to choose the number of
    atoms for a byte budget: `coded_atoms_bits(...) <= 8 * budget_bytes` is kept by atoms at random positions.
    """
    bits = 0.0
    for count in counts:
        ways = math.lgamma(n_positions + 1) - math.lgamma(count + 1) - math.lgamma(n_positions - count + 1)
        bits += ways / math.log(2) + count
    return 1.001 * bits + 8.0 if bits else 0.0


def check_n_positions(n_positions: int, error: type[Exception]) -> None:
    """Raise `error` unless 1 <= n_positions < 2^24."""
    if not 1 <= n_positions <= MAX_POSITIONS:
        raise error(f"the number of atom positions must be 1 .. {MAX_POSITIONS}, not {n_positions}")


def concatenate(parts: Sequence[np.ndarray]) -> np.ndarray:
    """The parts in a row as int64; empty for no parts."""
    return np.concatenate([np.zeros(0, dtype=np.int64), *parts]).astype(np.int64, copy=False)


def code_places(
    coder: RangeWriter | RangeReader, counts: Sequence[int], n_positions: int, places: np.ndarray | None
) -> np.ndarray:
    """Walk the intervals depth by depth, encoding `places` or (None) decoding them; the same walk serves both.

    Args:
        places: step * N + position for every atom, increasing, int64; None to decode.

    Returns:
        The places, increasing, int64.
    """
    atoms = np.asarray(counts, dtype=np.int64)
    start = np.arange(atoms.size, dtype=np.int64) * n_positions
    size = np.full(atoms.size, n_positions, dtype=np.int64)
    single_starts, single_sizes, found = [], [], []
    while True:
        full = (atoms == size) & (atoms > 0)
        found.extend(np.arange(a, a + m) for a, m in zip(start[full].tolist(), atoms[full].tolist(), strict=True))
        single = (atoms == 1) & ~full
        single_starts.append(start[single])
        single_sizes.append(size[single])
        divided = (atoms > 1) & ~full
        if not divided.any():
            break
        start, size, atoms = start[divided], size[divided], atoms[divided]
        left_size = size // 2
        middle = start + left_size
        left = None if places is None else np.searchsorted(places, middle) - np.searchsorted(places, start)
        left = code_left_counts(coder, left_size, size - left_size, atoms, left)
        # Left and right halves interleaved: intervals stay in the order of their positions.
        start = np.stack([start, middle], axis=1).ravel()
        size = np.stack([left_size, size - left_size], axis=1).ravel()
        atoms = np.stack([left, atoms - left], axis=1).ravel()
    starts, sizes = concatenate(single_starts), concatenate(single_sizes)
    offsets = None if places is None else places[np.searchsorted(places, starts)] - starts
    found.append(starts + coder.uniform(sizes, offsets))
    return np.sort(concatenate(found))


def code_left_counts(
    coder: RangeWriter | RangeReader,
    left_size: np.ndarray,
    right_size: np.ndarray,
    atoms: np.ndarray,
    left: np.ndarray | None,
) -> np.ndarray:
    """Code how many atoms of each interval lie in its left half: intervals with up to 3 atoms, up to 15, others.

    Counts below 64 are coded as they are. For larger ones the deviation from floor(m / 2) is coded in units of 2^t, t
    such that 16 <= m / 4^t < 64 (the law's width shrinks like that of m / 4^t atoms), then its t low bits; a
    deviation beyond the reduced range is announced by an escape and coded uniformly.
    """
    result = np.zeros_like(atoms) if left is None else left
    table = np.searchsorted(TABLE_WIDTHS[:-1], atoms + 2)
    for which, width in enumerate(TABLE_WIDTHS):
        rows = np.flatnonzero(table == which)
        for first in range(0, rows.size, BATCH_INTERVALS):
            batch = rows[first : first + BATCH_INTERVALS]
            known = None if left is None else left[batch]
            result[batch] = code_batch(coder, left_size[batch], right_size[batch], atoms[batch], known, width)
    return result


def code_batch(
    coder: RangeWriter | RangeReader,
    left_size: np.ndarray,
    right_size: np.ndarray,
    atoms: np.ndarray,
    left: np.ndarray | None,
    width: int,
) -> np.ndarray:
    """`code_left_counts` for intervals that share one table width. Returns the left counts, int64."""
    t = np.maximum((bit_length(atoms) - (EXACT_BITS - 1)) // 2, 0)
    reduced_atoms = atoms >> 2 * t
    rounding = (1 << 2 * t) - 1
    freqs = split_frequencies(left_size + rounding >> 2 * t, right_size + rounding >> 2 * t, reduced_atoms, width)
    escape = reduced_atoms + 1
    base = reduced_atoms // 2
    coded, low = None, None
    if left is not None:
        deviation = left - atoms // 2
        coded = base + (deviation >> t)
        coded = np.where((t > 0) & ((coded < 0) | (coded > reduced_atoms)), escape, coded)
        low = np.where(coded == escape, left, deviation & ((1 << t) - 1))
    coded = coder.individual(freqs, coded)
    if (coded > escape).any() or ((coded == escape) & (t == 0)).any():
        raise BadCodedAtoms("an interval's left half holds more atoms than the interval")
    low = coder.uniform(np.where(coded == escape, atoms + 1, 1 << t), low)
    result = np.where(coded == escape, low, atoms // 2 + ((coded - base) << t) + low)
    if ((result < np.maximum(atoms - right_size, 0)) | (result > np.minimum(atoms, left_size))).any():
        raise BadCodedAtoms("half an interval holds more atoms than it has positions")
    return result


def split_frequencies(left_size: np.ndarray, right_size: np.ndarray, atoms: np.ndarray, width: int) -> np.ndarray:
    """Frequencies of 0 .. m atoms in the left half, then of the escape and of padding (1 each), int64 [n, width].

    w(k) = C(a, k) C(b, m - k), from w(k_min) = 1 by w(k + 1) = w(k) * ((a - k)(m - k)) / ((k + 1)(b - m + k + 1)) in
    float64: numerator and denominator are exact integers, one division, one product. Then floor(w / max w * 2^30).
    m < 64, so nothing overflows or vanishes.
    """
    a, b, m = left_size[:, None], right_size[:, None], atoms[:, None]
    k = np.arange(width, dtype=np.int64)[None]
    lowest, highest = np.maximum(m - b, 0), np.minimum(m, a)
    inside = (k > lowest) & (k <= highest)
    numerator = np.where(inside, (a - k + 1) * (m - k + 1), 1).astype(np.float64)
    denominator = np.where(inside, k * (b - m + k), 1).astype(np.float64)
    weights = np.cumprod(numerator / denominator, axis=1)
    weights[(k < lowest) | (k > highest)] = 0.0
    return frequencies((weights / weights.max(axis=1, keepdims=True) * WEIGHT_TOTAL).astype(np.int64))


assert WEIGHT_TOTAL * (1 << EXACT_BITS) < 1 << 62 and FREQUENCY_TOTAL > MAX_POSITIONS
