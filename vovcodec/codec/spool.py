"""Coded-size frames on disk: the number of frames is known before coding starts, and memory does not grow with it."""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from types import TracebackType

import numpy as np

from vovcodec.errors import MediaError

__all__ = ["FrameSpool"]


@contextmanager
def _explained() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        place = tempfile.gettempdir()
        reason = f"{error.strerror}; $TMPDIR can name another folder"
        raise MediaError(f"cannot keep the frames in {place}: {reason}") from error


class FrameSpool:
    """An append-only list of uint8 frames [H, W, 3] of one size in an unnamed temporary file; a context manager."""

    def __init__(self, width: int, height: int) -> None:
        self.width, self.height = width, height
        self._shape = (height, width, 3)
        self._file = tempfile.TemporaryFile(prefix="vov-frames-")  # noqa: SIM115 - closed by __exit__
        self._digest = hashlib.sha256(f"{width}x{height}".encode())
        self.n_frames = 0

    def __enter__(self) -> FrameSpool:
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._file.close()

    def append(self, frame: np.ndarray) -> None:
        """Add one frame. Raises MediaError when the disk is full."""
        data = np.ascontiguousarray(frame, dtype=np.uint8)
        if data.shape != self._shape:
            raise ValueError(f"a frame of shape {data.shape} does not fit a spool of {self._shape}")
        with _explained():
            self._file.write(data.data)
        self._digest.update(data.data)
        self.n_frames += 1

    def read(self, start: int, n_frames: int) -> np.ndarray:
        """Frames start … start + n_frames − 1, uint8 [n_frames, H, W, 3]. Raises MediaError when the disk is full."""
        frame_bytes = int(np.prod(self._shape))
        with _explained():  # seeking writes what was still held back
            self._file.seek(start * frame_bytes)
            data = bytearray(self._file.read(n_frames * frame_bytes))  # a bytes object would make a read-only array
        return np.frombuffer(data, dtype=np.uint8).reshape(n_frames, *self._shape)

    def sample(self, n_most: int) -> np.ndarray:
        """All frames, or n_most evenly spaced ones if there are more, uint8 [F, H, W, 3]."""
        n = min(n_most, self.n_frames)
        return np.concatenate([self.read(int((i + 0.5) * self.n_frames / n), 1) for i in range(n)])

    def digest(self) -> bytes:
        """SHA-256 of size and content of all frames so far."""
        return self._digest.digest()
