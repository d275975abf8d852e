"""Rate–distortion curves: points joined by straight lines over log2 of the bytes."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

__all__ = ["Crossing", "Curve", "crossing"]


class Curve:
    """Points (bytes, quality), higher quality being better. Of points with equal bytes the best is kept."""

    def __init__(self, points: Iterable[tuple[float, float]]) -> None:
        best: dict[float, float] = {}
        for size_bytes, value in points:
            best[size_bytes] = max(value, best.get(size_bytes, -math.inf))
        self.sizes_bytes = np.array(sorted(best), dtype=np.float64)
        self.values = np.array([best[size] for size in self.sizes_bytes], dtype=np.float64)

    def __len__(self) -> int:
        return len(self.values)

    def at(self, size_bytes: float) -> float | None:
        """The quality at a number of bytes; None outside the curve, which is never extended."""
        if not len(self) or not self.sizes_bytes[0] <= size_bytes <= self.sizes_bytes[-1]:
            return None
        return float(np.interp(math.log2(size_bytes), np.log2(self.sizes_bytes), self.values))

    def slope(self) -> float | None:
        """Quality per doubling of the bytes, by least squares; None with fewer than two points."""
        if len(self) < 2:
            return None
        x = np.log2(self.sizes_bytes)
        return float(np.sum((x - x.mean()) * (self.values - self.values.mean())) / np.sum((x - x.mean()) ** 2))


@dataclass(frozen=True)
class Crossing:
    """Where one curve is overtaken by another, within the bytes that both cover.

    size_bytes  the last point at which ours falls below theirs; None where that does not happen
    low, high   the bytes both cover; None when their ranges do not meet
    lead        mean of ours minus theirs over the common knots, in the unit of the curves
    """

    size_bytes: float | None
    low: float | None
    high: float | None
    lead: float | None

    def words(self) -> str:
        """The same for people."""
        if self.low is None:
            return "no bytes in common"
        span = f"{self.low:.0f}-{self.high:.0f} B"
        if self.size_bytes is not None:
            return f"crosses at {self.size_bytes:.0f} B"
        return f"{'above' if self.lead >= 0 else 'below'} throughout {span}"


def crossing(ours: Curve, theirs: Curve) -> Crossing:
    """Where `theirs` overtakes `ours` for good as bytes grow. Both curves are straight between their knots in log2 of
    the bytes, so the difference is too, and its zeros are exact."""
    if not len(ours) or not len(theirs):
        return Crossing(None, None, None, None)
    low = max(ours.sizes_bytes[0], theirs.sizes_bytes[0])
    high = min(ours.sizes_bytes[-1], theirs.sizes_bytes[-1])
    if low > high:
        return Crossing(None, None, None, None)
    knots = sorted({low, high} | {size for size in (*ours.sizes_bytes, *theirs.sizes_bytes) if low <= size <= high})
    leads = [ours.at(size) - theirs.at(size) for size in knots]
    return Crossing(_last_fall(knots, leads), float(low), float(high), float(np.mean(leads)))


def _last_fall(knots: Sequence[float], leads: Sequence[float]) -> float | None:
    """Where the piecewise linear lead last goes from ≥ 0 to < 0, if it stays below from there on."""
    if leads[-1] >= 0:
        return None
    for index in range(len(knots) - 2, -1, -1):
        if leads[index] >= 0:
            share = leads[index] / (leads[index] - leads[index + 1])
            start, end = math.log2(knots[index]), math.log2(knots[index + 1])
            return float(2 ** (start + share * (end - start)))
    return None
