"""Hard cuts between scenes, found on very small frames while they go by."""

from __future__ import annotations

from array import array

import numpy as np

__all__ = ["CutDetector"]

_CELL_PX = 8
_LEAST_CHANGE = 12.0  # mean absolute difference of levels 0…255; below it nobody would call it a cut
_PEAK_RATIO = 3.0  # a cut changes the picture so many times more than the frames around it do
_AROUND = 2


class CutDetector:
    """Takes frames one by one and keeps one number of each: the mean absolute difference of cells of 8×8 pixels.

    A cut is a change that is large and stands alone: that of a flash comes twice, those of motion and of fades go on.
    The result depends on the frames only.
    """

    def __init__(self) -> None:
        self._previous: np.ndarray | None = None
        self._changes = array("d")

    def add(self, frame: np.ndarray) -> None:
        """The next frame, uint8 [H, W, 3], all of one size."""
        height, width = (max(1, side // _CELL_PX) for side in frame.shape[:2])
        rows, columns = frame.shape[0] // height, frame.shape[1] // width
        cells = frame[: height * rows, : width * columns].reshape(height, rows, width, columns, 3)
        small = cells.mean(axis=(1, 3), dtype=np.float32)
        change = 0.0 if self._previous is None else float(np.abs(small - self._previous).mean(dtype=np.float64))
        self._changes.append(change)
        self._previous = small

    def cuts(self) -> list[int]:
        """Numbers of the frames that begin a new scene, in order; never 0."""
        found = []
        for number in range(1, len(self._changes)):
            change = self._changes[number]
            around = [
                self._changes[other]
                for other in range(max(1, number - _AROUND), min(len(self._changes), number + _AROUND + 1))
                if other != number
            ]
            if change >= _LEAST_CHANGE and change >= _PEAK_RATIO * max(around, default=0.0):
                found.append(number)
        return found
