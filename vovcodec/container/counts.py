"""How many atoms each injection has: a coarse grid of counts, one small step from each to the next (FORMAT.md, 6.2).

How many atoms an injection has need not be exact, so that all counts but the last are grid values M_k = 0, 1, 2, 3, 4,
5, 6, 7, 8, 10, 12, 14, 16, 20, ... (a "mini-float" with a mantissa of two bits). Rates grow steadily, by one or two
grid values an injection: these steps cost two bits and one bit, all others six. The last count is exact, because it
takes what is left of the byte budget; of a path that fills its bytes it follows from their number and is not stored.
"""

from __future__ import annotations

import itertools
import operator
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from vovcodec.container.bits import BitReader, BitWriter
from vovcodec.container.codes import Bits, Groups
from vovcodec.container.errors import FETCH_AGAIN, FieldOutOfRange, NonCanonical
from vovcodec.container.fields import Values, When

__all__ = ["ATOMS_MAX", "INJECTIONS_MAX", "K_MAX", "START_INDEX", "CountsField", "count_of_index", "counts_bits",
           "index_of_count", "reachable_counts", "with_implied_last"]  # fmt: skip

ATOMS_MAX = 500_000  # of all injections of a segment together
INJECTIONS_MAX = 1000
K_MAX = 71  # M_71 = 458,752 is the largest grid value a segment can have
START_INDEX = 4  # what the first injection's index is counted from
_REACH_DOWN, _REACH_BITS = 4, 4
_REACH_UP = (1 << _REACH_BITS) - 1 - _REACH_DOWN
_USUAL_STEPS = {2: (0b0, 1), 1: (0b10, 2)}  # prefix code: value and bits; 0b11 introduces all others

_NUMBER = Groups(5, 1, INJECTIONS_MAX)
_STEP = Bits(_REACH_BITS, -_REACH_DOWN, _REACH_UP)
_LAST = Groups(7, 0, ATOMS_MAX)


def count_of_index(k: int) -> int:
    """M_k: k for k < 4, then (4 + k mod 4)·2^(⌊k/4⌋ − 1). `ValueError` unless 0 <= k <= K_MAX."""
    if not 0 <= k <= K_MAX:
        raise ValueError(f"the index of a count must be 0..{K_MAX}, not {k}")
    return k if k < 4 else (4 + k % 4) << (k // 4 - 1)


def index_of_count(count: int) -> int:
    """The largest k with M_k <= `count`, at most K_MAX. `ValueError` if `count` is negative."""
    if count < 0:
        raise ValueError(f"a count must be 0 or more, not {count}")
    if count < 4:
        return count
    shift = count.bit_length() - 3
    return min(K_MAX, 4 * (shift + 1) + (count >> shift) - 4)


def reachable_counts(previous_index: int = START_INDEX) -> range:
    """The indices k that may follow `previous_index` (without it: those that the first injection may have)."""
    return range(max(0, previous_index - _REACH_DOWN), min(K_MAX, previous_index + _REACH_UP) + 1)


def counts_bits(counts: Sequence[int], codebook: str) -> int:
    """What a file spends on such counts: their number, the steps, and the last one unless it is implied."""
    if not counts:
        return 0
    indices = [START_INDEX, *map(index_of_count, counts[:-1])]
    steps = sum(_step_bits(k - previous) for previous, k in itertools.pairwise(indices))
    last = 8 * max(1, -(-counts[-1].bit_length() // 7))
    if codebook == "trellis":
        last = 1 if sum(counts) % 8 == 0 else 1 + last
    return 6 * max(1, -(-(len(counts) - 1).bit_length() // 5)) + steps + last


def _step_bits(step: int) -> int:
    return _USUAL_STEPS[step][1] if step in _USUAL_STEPS else 2 + _REACH_BITS


def with_implied_last(counts: tuple[int | None, ...], n_words: int, section: str) -> tuple[int, ...]:
    """Counts as `CountsField.get` left them, completed by the size of the path's bytes.

    Raises `FieldOutOfRange` when the other counts alone take more, `NonCanonical` when a last one was stored that the
    bytes imply.
    """
    *others, last = counts
    implied = 8 * n_words - sum(others)
    if last is None:
        if not 0 <= implied <= ATOMS_MAX:
            raise FieldOutOfRange(section, "last of atoms.counts", implied, f"{_LAST.expected}; {FETCH_AGAIN}")
        _check_total(8 * n_words, "atoms.counts", section)
        return (*others, implied)
    if last == implied:
        raise NonCanonical(f"{section}: the last of atoms.counts is stored although it follows from the words' size")
    return counts


@dataclass(frozen=True)
class CountsField:
    """A tuple of counts: their number m, the first m - 1 as steps on the grid, the last one exactly.

    The reader leaves a last count of None where it is implied: `with_implied_last`. `path`: whether it can be.
    """

    name: str
    when: When
    path: When

    units = ("",)

    @property
    def names(self) -> tuple[str, ...]:
        return (self.name,)

    def put(self, out: BitWriter, values: Values, section: str) -> None:
        """Check `values[name]` and append it; raises `FieldOutOfRange`."""
        if not self.when.holds(values):
            return
        counts = values[self.name]
        if not (isinstance(counts, tuple) and _NUMBER.accepts(len(counts)) and all(map(_LAST.accepts, counts))):
            raise FieldOutOfRange(section, self.name, counts, _BOUNDS)
        counts = values[self.name] = tuple(map(operator.index, counts))
        _check_total(sum(counts), self.name, section)
        _NUMBER.put(out, len(counts))
        index = START_INDEX
        for i, count in enumerate(counts[:-1]):
            previous, index = index, index_of_count(count)
            if count_of_index(index) != count or index not in reachable_counts(previous):
                reach = reachable_counts(previous)
                low, high = count_of_index(reach[0]), count_of_index(reach[-1])
                expected = f"a grid value {low:,}..{high:,} after M_{previous} = {count_of_index(previous):,}"
                raise FieldOutOfRange(section, f"{self.name}[{i}]", count, expected)
            step = index - previous
            if step in _USUAL_STEPS:
                out.put(*_USUAL_STEPS[step])
            else:
                out.put(0b11, 2)
                _STEP.put(out, step)
        if self.path.holds(values):
            implied = sum(counts) == 8 * values["atoms.words_size"]
            out.put(int(not implied), 1)
            if implied:
                return
        _LAST.put(out, counts[-1])

    def get(self, bits: BitReader, values: Values) -> None:
        """Read into `values[name]`; raises `FieldOutOfRange`, `NonCanonical`, `LimitExceeded` or `BadLength`."""
        if not self.when.holds(values):
            return
        n_counts = _NUMBER.get(bits)
        if not _NUMBER.accepts(n_counts):
            raise FieldOutOfRange(bits.section, f"number of {self.name}", n_counts, _NUMBER.expected)
        # A bit in the file is a pointer and a number in memory: charge before building the tuple.
        values["budget"].charge(_COST_OF_COUNT * n_counts, bits.section, self.name)
        counts: list[int | None] = []
        index = START_INDEX
        for _ in range(n_counts - 1):
            reach, index = reachable_counts(index), index + self._step(bits)
            if index not in reach:
                raise FieldOutOfRange(bits.section, f"index in {self.name}", index, f"0..{K_MAX}; {FETCH_AGAIN}")
            counts.append(count_of_index(index))
        stored = not self.path.holds(values) or bool(bits.get(1))
        last = _LAST.get(bits) if stored else None
        _check_total(sum(counts) + (last or 0), self.name, bits.section)
        values[self.name] = (*counts, last)

    def _step(self, bits: BitReader) -> int:
        if not bits.get(1):
            return 2
        if not bits.get(1):
            return 1
        step = _STEP.get(bits)
        if step in _USUAL_STEPS:
            raise NonCanonical(f"{bits.section}: a step of {step} in {self.name} is stored in the long form")
        return step

    def rows(self) -> list[tuple[str, str, str, str]]:
        """As printed in FORMAT.md."""
        return [(self.name, f"if {self.when.text}: see 6.2", _BOUNDS, "atoms of each injection")]


_COST_OF_COUNT = 40  # bytes: a pointer in the tuple and an integer
_BOUNDS = f"{_NUMBER.expected} integers 0..{ATOMS_MAX:,}, together at most {ATOMS_MAX:,}"


def _check_total(total: Any, name: str, section: str) -> None:
    if total > ATOMS_MAX:
        raise FieldOutOfRange(section, f"sum of {name}", total, f"0..{ATOMS_MAX:,}")
