"""How many atoms each injection has: a coarse grid of counts, and runs of one usual step on it (FORMAT.md, 6.2).

How many atoms an injection has need not be exact, so that all counts but the last are grid values M_k = 0, 1, 2, 3, 4,
5, 6, 7, 8, 10, 12, 14, 16, 20, ... (a "mini-float" with a mantissa of two bits). Rates grow steadily, by a factor that
follows from the ratio of the sampler's steps: what is stored is how often k grows by that usual step, and what it does
in between. The last count is exact, because it takes what is left of the byte budget; of a path that fills its bytes it
follows from their number and is not stored.
"""

from __future__ import annotations

import operator
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from vovcodec.container.bits import BitCounter, BitReader, BitWriter
from vovcodec.container.codes import Bits, Groups, get_rice, put_rice
from vovcodec.container.errors import FETCH_AGAIN, FieldOutOfRange, NonCanonical
from vovcodec.container.fields import Values, When

__all__ = ["ATOMS_MAX", "INJECTIONS_MAX", "K_MAX", "N_WHOLE", "SCENE_INJECTIONS", "CountsField", "Phases",
           "count_of_index", "counts_bits", "index_of_count", "largest_index", "usual_step",
           "with_implied_last"]  # fmt: skip

ATOMS_MAX = 500_000  # of all injections of a segment together
INJECTIONS_MAX = 1000
K_MAX = 71  # M_71 = 458,752 is the largest grid value a segment can have
N_WHOLE, _WHOLE_BITS = 2, 6  # the first indices of a phase stand for themselves
_RUN_BITS, _OTHER_BITS = 2, 2  # parameters of the Rice codes of runs and of unusual steps
_SMALL_RATIO_Q = 36  # ratios below 1.5625 raise a count by a quarter of an octave, others by half of one

SCENE_INJECTIONS = Groups(6, 0, INJECTIONS_MAX)
_NUMBER = Groups(6, 1, INJECTIONS_MAX)
_WHOLE = Bits(_WHOLE_BITS, 0, (1 << _WHOLE_BITS) - 1)
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


def largest_index(position: int) -> int:
    """The largest index that injection `position` of a phase may have."""
    return _WHOLE.high if position < N_WHOLE else K_MAX


def usual_step(snr_ratio_q: int | None) -> int:
    """By how much the index usually grows where signal-to-noise ratios grow by 1 + snr_ratio_q / 64 (None: schedule
    shift)."""
    return 1 if snr_ratio_q is not None and snr_ratio_q < _SMALL_RATIO_Q else 2


@dataclass(frozen=True)
class Phases:
    """The first `n_scene` injections make a picture of the scene, in steps of `scene_ratio_q`; the others follow in
    steps of `snr_ratio_q` (None: schedule shift)."""

    n_scene: int = 0
    scene_ratio_q: int | None = None
    snr_ratio_q: int | None = None

    def split(self, n: int) -> Iterator[tuple[int, int, int]]:
        """(begin, end, usual step) of each phase of `n` injections."""
        if self.n_scene:
            yield 0, min(n, self.n_scene), usual_step(self.scene_ratio_q)
        if n > self.n_scene:
            yield self.n_scene, n, usual_step(self.snr_ratio_q)


def counts_bits(counts: Sequence[int], codebook: str, phases: Phases) -> int:
    """What a file spends on such counts: their numbers, all of them but the last, and that one unless it is implied.

    With codebook "trellis" it is taken to be implied where the path fills whole bytes.
    """
    if not counts:
        return 0
    out = BitCounter()
    if phases.n_scene:
        SCENE_INJECTIONS.put(out, phases.n_scene)
    _put(out, list(map(index_of_count, counts[:-1])), phases)
    if codebook == "trellis":
        out.put(0, 1)
    if codebook != "trellis" or sum(counts) % 8:
        _LAST.put(out, counts[-1])
    return out.n_bits


def _put(out: BitWriter | BitCounter, indices: list[int], phases: Phases) -> None:
    """The number of counts, and the indices of all but the last."""
    n_counts = len(indices) + 1
    if not phases.n_scene:
        _NUMBER.put(out, n_counts)
    elif n_counts == phases.n_scene:
        out.put(0, 1)
    else:
        out.put(1, 1)
        _NUMBER.put(out, n_counts - phases.n_scene)
    for begin, end, usual in phases.split(n_counts):
        _put_phase(out, indices[begin:end], usual)


def _put_phase(out: BitWriter | BitCounter, indices: list[int], usual: int) -> None:
    for k in indices[:N_WHOLE]:
        _WHOLE.put(out, k)
    run = 0
    for previous, k in zip(indices[N_WHOLE - 1 :], indices[N_WHOLE:], strict=False):
        if k - previous == usual:
            run += 1
            continue
        put_rice(out, run, _RUN_BITS)
        run = 0
        _put_unusual(out, k - previous - usual)
    if run:
        put_rice(out, run, _RUN_BITS)


def _put_unusual(out: BitWriter | BitCounter, more: int) -> None:
    """How much more than the usual step: -1, 1, and then -2, 2, -3, 3, ... by their number."""
    if more == -1:
        out.put(0b0, 1)
    elif more == 1:
        out.put(0b10, 2)
    else:
        out.put(0b11, 2)
        put_rice(out, 2 * (abs(more) - 2) + (more > 0), _OTHER_BITS)


def _get_phase(bits: BitReader, n: int, usual: int, name: str) -> list[int]:
    """The indices of a phase of which `n` are stored."""
    indices = [_WHOLE.get(bits) for _ in range(min(n, N_WHOLE))]
    while len(indices) < n:
        run = get_rice(bits, _RUN_BITS, n - len(indices))
        more = [usual] * run
        if len(indices) + run < n:
            more.append(usual + _get_unusual(bits))
        for step in more:
            indices.append(indices[-1] + step)
            if not 0 <= indices[-1] <= K_MAX:
                raise FieldOutOfRange(bits.section, f"index in {name}", indices[-1], f"0..{K_MAX}; {FETCH_AGAIN}")
    return indices


def _get_unusual(bits: BitReader) -> int:
    if not bits.get(1):
        return -1
    if not bits.get(1):
        return 1
    number = get_rice(bits, _OTHER_BITS, 2 * K_MAX)
    size = 2 + number // 2
    return size if number % 2 else -size


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
    """A tuple of counts: their number m, the first m - 1 as indices on the grid, the last one exactly.

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
        counts, phases = values[self.name], _phases(values)
        if not (isinstance(counts, tuple) and _NUMBER.accepts(len(counts)) and all(map(_LAST.accepts, counts))):
            raise FieldOutOfRange(section, self.name, counts, _BOUNDS)
        if len(counts) < phases.n_scene:
            raise FieldOutOfRange(section, f"number of {self.name}", len(counts), f"at least {phases.n_scene}")
        counts = values[self.name] = tuple(map(operator.index, counts))
        _check_total(sum(counts), self.name, section)
        indices = list(map(index_of_count, counts[:-1]))
        for begin, end, _ in phases.split(len(counts)):
            for i in range(begin, min(end, len(indices))):
                largest = largest_index(i - begin)
                if indices[i] > largest or count_of_index(indices[i]) != counts[i]:
                    expected = f"a grid value 0..{count_of_index(largest):,}"
                    raise FieldOutOfRange(section, f"{self.name}[{i}]", counts[i], expected)
        _put(out, indices, phases)
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
        phases = _phases(values)
        n_counts = phases.n_scene
        if not n_counts:
            n_counts = _NUMBER.get(bits)
        elif bits.get(1):
            n_counts += _NUMBER.get(bits)
        if not _NUMBER.accepts(n_counts):
            raise FieldOutOfRange(bits.section, f"number of {self.name}", n_counts, _NUMBER.expected)
        # A bit in the file is a pointer and a number in memory: charge before building the tuple.
        values["budget"].charge(_COST_OF_COUNT * n_counts, bits.section, self.name)
        counts: list[int | None] = []
        for begin, end, usual in phases.split(n_counts):
            n_stored = min(end, n_counts - 1) - begin
            counts += map(count_of_index, _get_phase(bits, n_stored, usual, self.name))
        stored = not self.path.holds(values) or bool(bits.get(1))
        last = _LAST.get(bits) if stored else None
        _check_total(sum(counts) + (last or 0), self.name, bits.section)
        values[self.name] = (*counts, last)

    def rows(self) -> list[tuple[str, str, str, str]]:
        """As printed in FORMAT.md."""
        return [(self.name, f"if {self.when.text}: see 6.2", _BOUNDS, "atoms of each injection")]


_COST_OF_COUNT = 40  # bytes: a pointer in the tuple and an integer
_BOUNDS = f"{_NUMBER.expected} integers 0..{ATOMS_MAX:,}, together at most {ATOMS_MAX:,}"


def _phases(values: Values) -> Phases:
    sampler = values["header"].sampler
    return Phases(values["atoms.scene_injections"], values["atoms.scene_ratio_q"], sampler.snr_ratio_q)


def _check_total(total: Any, name: str, section: str) -> None:
    if total > ATOMS_MAX:
        raise FieldOutOfRange(section, f"sum of {name}", total, f"0..{ATOMS_MAX:,}")
