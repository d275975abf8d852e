"""How the path of a camera over a picture of its scene is stored (FORMAT.md, 6.6).

Six rows of integers, the coefficients of six parameters of an affine map over time. Cameras move smoothly: a row is
long only if something shakes, its entries fall off, and so a Rice code whose parameter follows the entries before is
within some percent of what a fitted model could do, without the bytes of that model.
"""

from __future__ import annotations

import operator
from dataclasses import dataclass
from typing import Any

from vovcodec.container.bits import BitCounter, BitReader, BitWriter
from vovcodec.container.errors import FETCH_AGAIN, FieldOutOfRange, NonCanonical
from vovcodec.container.fields import Values, When

__all__ = ["MARGIN_PX", "PATH_ENTRY_MAX", "PATH_ROWS", "PATH_ROW_MAX", "PathField", "camera_path_bits", "path_is_tame",
           "picture_size"]  # fmt: skip

MARGIN_PX = 8  # unit of the margins of a picture that a camera moves over
PATH_ROWS = 6
PATH_ROW_MAX = 63  # entries
PATH_ENTRY_MAX = 2**15 - 1
_LENGTH_BITS, _ESCAPE, _ENTRY_BITS = 6, 15, 15
_FIRST_MEAN, _UNIT = 128, 16  # the running mean of magnitudes that a row starts with, in 1/16
_COST_OF_ENTRY = 40  # bytes: a pointer in the tuple and an integer

Path = tuple[tuple[int, ...], ...]


def picture_size(width: int, height: int, margin: tuple[int, int]) -> tuple[int, int]:
    """Of the picture for frames of a size, in pixels; `margin` (x, y) on each side in units of `MARGIN_PX`."""
    return width + 2 * MARGIN_PX * margin[0], height + 2 * MARGIN_PX * margin[1]


def path_is_tame(path: Path, step_q: int, n_frames: int, width: int, height: int) -> bool:
    """Whether no frame's map can shrink or turn the picture too far to be undone; exact integers, so that all readers
    agree (FORMAT.md, 6).

    path: six rows, in units of 2^-step_q px. n_frames: coded frames. width, height: of the frames in pixels.
    """
    _, across_x, down_x, _, across_y, down_y = (sum(map(abs, row)) for row in path)
    most = max(height * across_x + width * down_x, height * across_y + width * down_y)
    return 128 * most**2 <= 9 * n_frames * 4**step_q * (width * height) ** 2


class _RunningMean:
    """What the magnitudes of a row were lately, and the Rice parameter that fits it."""

    def __init__(self) -> None:
        self._mean = _FIRST_MEAN

    def parameter(self) -> int:
        return max(0, (self._mean // _UNIT).bit_length() - 1)

    def add(self, magnitude: int) -> None:
        self._mean = (self._mean + _UNIT * magnitude) // 2


def camera_path_bits(path: Path) -> int:
    """What a file spends on such a path; 1 for a camera that stands still."""
    out = BitCounter()
    _put_path(out, path)
    return out.n_bits


def _put_path(out: BitWriter | BitCounter, path: Path) -> None:
    out.put(int(bool(path)), 1)
    for row in path:
        out.put(len(row), _LENGTH_BITS)
        mean = _RunningMean()
        for entry in row:
            _put_entry(out, entry, mean.parameter())
            mean.add(abs(entry))


def _put_entry(out: BitWriter | BitCounter, entry: int, parameter: int) -> None:
    magnitude = abs(entry)
    quotient = magnitude >> parameter
    if quotient < _ESCAPE:
        out.put((1 << quotient + 1) - 2, quotient + 1)
        out.put(magnitude & ((1 << parameter) - 1), parameter)
    else:
        out.put((1 << _ESCAPE) - 1, _ESCAPE)
        out.put(magnitude, _ENTRY_BITS)
    if magnitude:
        out.put(int(entry < 0), 1)


@dataclass(frozen=True)
class PathField:
    """A camera's path: `PATH_ROWS` tuples, each without zeros at its end, or () where the camera stands still."""

    name: str
    when: When

    units = ("",)

    @property
    def names(self) -> tuple[str, ...]:
        return (self.name,)

    def put(self, out: BitWriter, values: Values, section: str) -> None:
        """Check `values[name]` and append it; raises `FieldOutOfRange`."""
        path = values.get(self.name, ())
        if not self.when.holds(values):
            if path:
                raise FieldOutOfRange(section, self.name, path, f"() unless {self.when.text}")
            return
        values[self.name] = path = self._checked(path, section)
        _put_path(out, path)

    def _checked(self, path: Any, section: str) -> Path:
        if path == ():
            return ()
        try:
            rows = tuple(tuple(map(operator.index, row)) for row in path)
        except TypeError:
            raise FieldOutOfRange(section, self.name, path, _BOUNDS) from None
        are_short = all(len(row) <= PATH_ROW_MAX and (not row or row[-1]) for row in rows)
        are_small = all(abs(entry) <= PATH_ENTRY_MAX for row in rows for entry in row)
        if len(rows) != PATH_ROWS or not any(rows) or not are_short or not are_small:
            raise FieldOutOfRange(section, self.name, rows, _BOUNDS)
        return rows

    def get(self, bits: BitReader, values: Values) -> None:
        """Read into `values[name]`; raises `FieldOutOfRange`, `NonCanonical`, `LimitExceeded` or `BadLength`."""
        values[self.name] = ()
        if not self.when.holds(values) or not bits.get(1):
            return
        rows: list[tuple[int, ...]] = []
        for _ in range(PATH_ROWS):
            n_entries = bits.get(_LENGTH_BITS)
            values["budget"].charge(_COST_OF_ENTRY * n_entries, bits.section, self.name)
            mean, row = _RunningMean(), []
            for _ in range(n_entries):
                row.append(self._entry(bits, mean.parameter()))
                mean.add(abs(row[-1]))
            if row and not row[-1]:
                raise NonCanonical(f"{bits.section}: a row of {self.name} ends with a zero; {FETCH_AGAIN}")
            rows.append(tuple(row))
        if not any(rows):
            raise NonCanonical(f"{bits.section}: {self.name} is stored although the camera stands still")
        values[self.name] = tuple(rows)

    def _entry(self, bits: BitReader, parameter: int) -> int:
        quotient = 0
        while quotient < _ESCAPE and bits.get(1):
            quotient += 1
        if quotient < _ESCAPE:
            magnitude = quotient << parameter | bits.get(parameter)
        else:
            magnitude = bits.get(_ENTRY_BITS)
            if magnitude >> parameter < _ESCAPE:
                raise NonCanonical(f"{bits.section}: {magnitude} in {self.name} is stored in the long form")
        return -magnitude if magnitude and bits.get(1) else magnitude

    def rows(self) -> list[tuple[str, str, str, str]]:
        """As printed in FORMAT.md."""
        return [(self.name, f"if {self.when.text}: see 6.6", _BOUNDS, "where the camera looks, frame by frame")]


_BOUNDS = f"() or {PATH_ROWS} rows of 0..{PATH_ROW_MAX} integers -{PATH_ENTRY_MAX:,}..{PATH_ENTRY_MAX:,}"
