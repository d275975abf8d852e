"""Damaged files: which frames are lost, what is shown instead, and the lines that say so."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from vovcodec.container import Segment, VovFile
from vovcodec.errors import FormatError

__all__ = ["Concealer", "spans"]

_GREY = 128


def spans(stream: VovFile, first: int, last: int) -> Iterator[tuple[Segment | None, int, int]]:
    """(segment, first frame, frame after its last) for the frames first … last − 1; segment None where it is lost."""
    reached = first
    for segment in stream.segments:
        begin, end = max(first, segment.first_frame), min(last, segment.first_frame + segment.n_frames)
        if begin >= end:
            continue
        if begin > reached:
            yield None, reached, begin
        yield segment, begin, end
        reached = end
    if reached < last:
        yield None, reached, last


class Concealer:
    """Shows the last good frame, or grey before the first one, in the place of lost ones, and keeps account.

    lines: what was wrong with the file, so far.
    """

    def __init__(self, stream: VovFile, width: int, height: int) -> None:
        self._stream, self._shown = stream, np.full((height, width, 3), _GREY, np.uint8)
        self._is_grey = True
        self.lines = [str(error) for number, error in stream.damage if number is None]

    def show(self, frame: np.ndarray) -> np.ndarray:
        """A good frame, unchanged."""
        self._shown, self._is_grey = frame, False
        return frame

    def conceal(self, begin: int, end: int, fault: FormatError | None) -> Iterator[np.ndarray]:
        """Stand-ins for the frames begin … end − 1. fault: what is wrong with them; None: what the reader found."""
        reason = fault or self._why_lost(begin, end)
        numbers = f"frame {begin} is" if end == begin + 1 else f"frames {begin} to {end - 1} are"
        instead = "grey instead" if self._is_grey else "the last good one is shown"
        self.lines.append(f"{numbers} lost, {instead}: {reason}")
        for _ in range(begin, end):
            yield self._shown

    def _why_lost(self, begin: int, end: int) -> FormatError | str:
        segments = self._stream.segments
        before = max((s.index for s in segments if s.first_frame + s.n_frames <= begin), default=-1)
        after = min((s.index for s in segments if s.first_frame >= end), default=self._stream.header.n_segments)
        errors = [error for number, error in self._stream.damage if number is not None and before < number < after]
        return errors[0] if len(errors) == 1 else f"segments {before + 1} to {after - 1} are damaged"
