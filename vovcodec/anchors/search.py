"""The best encode of an anchor within a number of bytes."""

from __future__ import annotations

import numpy as np

from vovcodec.anchors.anchor import Anchor, Coded

__all__ = ["RateSearch"]

_FIRST_STRIDE = 8
# Size is not quite monotonic in quality: a few settings above the first that was too large may fit again.
_N_LOOK_ABOVE = 3
_CLOSE_ENOUGH = 0.995


class RateSearch:
    """Encodes of the same frames by one anchor at whatever qualities were needed so far; none is made twice.

    anchor: see there. frames: uint8 [F, H, W, 3].
    """

    def __init__(self, anchor: Anchor, frames: np.ndarray) -> None:
        self.anchor, self._frames = anchor, frames
        self._tried: dict[int, Coded] = {}

    @property
    def tried(self) -> list[Coded]:
        """All encodes so far, lowest quality first."""
        return [self._tried[index] for index in sorted(self._tried)]

    def floor(self) -> Coded:
        """The fewest bytes that the codec's scale allows, at its lowest quality."""
        return self._at(0)

    def within(self, size_bytes: int) -> Coded | None:
        """The encode with the most payload bytes that has at most `size_bytes`; None where the floor is above.

        Bisection over the anchor's qualities. Where size is not monotonic, a better one further up can be missed.
        """
        if self.floor().payload_bytes > size_bytes:
            return None
        end = self._first_too_large(size_bytes)
        # What earlier searches tried narrows the bracket.
        fits = max(index for index in self._tried if index < end and self._fits(index, size_bytes))
        too_large = min((index for index in self._tried if fits < index), default=end)
        while too_large - fits > 1:
            middle = (fits + too_large) // 2
            fits, too_large = (middle, too_large) if self._fits(middle, size_bytes) else (fits, middle)
        if self._at(fits).payload_bytes < _CLOSE_ENOUGH * size_bytes:
            for index in range(too_large + 1, min(too_large + 1 + _N_LOOK_ABOVE, len(self.anchor.qualities))):
                self._at(index)
        return max(
            (coded for coded in self._tried.values() if coded.payload_bytes <= size_bytes),
            key=lambda coded: coded.payload_bytes,
        )

    def next_above(self, size_bytes: int) -> Coded | None:
        """Of the encodes so far, the smallest with more payload bytes than `size_bytes`: after `within`, its upper
        neighbour. None where every setting fits."""
        above = [coded for coded in self._tried.values() if coded.payload_bytes > size_bytes]
        return min(above, key=lambda coded: coded.payload_bytes, default=None)

    def _first_too_large(self, size_bytes: int) -> int:
        """An index whose encode is too large, or one past the last. Gallops up: high qualities take long to encode."""
        index = 0
        stride = _FIRST_STRIDE
        while index < len(self.anchor.qualities):
            if not self._fits(index, size_bytes):
                return index
            index, stride = index + stride, 2 * stride
        last = len(self.anchor.qualities) - 1
        return last + 1 if self._fits(last, size_bytes) else last

    def _fits(self, index: int, size_bytes: int) -> bool:
        return self._at(index).payload_bytes <= size_bytes

    def _at(self, index: int) -> Coded:
        if index not in self._tried:
            self._tried[index] = self.anchor.encode(self._frames, self.anchor.qualities[index])
        return self._tried[index]
