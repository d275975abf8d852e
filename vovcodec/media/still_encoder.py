"""Images and numbered image sequences through Pillow. See `writer.Encoder`."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
from PIL import Image

from vovcodec.errors import OutputExistsError, UsageError
from vovcodec.media.output import FileOutput, FolderOutput, StreamOutput
from vovcodec.media.sequence import numbered_files, numbered_name

__all__ = ["SequenceEncoder", "StillEncoder"]

_JPEG = ("JPEG", {"quality": 95, "subsampling": "4:4:4", "optimize": True})
_TIFF = ("TIFF", {"compression": "tiff_deflate"})
_FORMATS = {
    "png": ("PNG", {}),
    "jpg": _JPEG,
    "jpeg": _JPEG,
    "webp": ("WEBP", {"quality": 95, "method": 4}),
    "bmp": ("BMP", {}),
    "tif": _TIFF,
    "tiff": _TIFF,
    "avif": ("AVIF", {"quality": 90, "subsampling": "4:4:4"}),
}


class StillEncoder:
    """One image of a kind named in `writer.IMAGE_CONTAINERS`. quality: 1…100 for jpg, webp and avif."""

    def __init__(self, output: FileOutput | StreamOutput, kind: str, quality: int | None):
        self.notices: list[str] = []
        self._output, self._format = output, _format_of(kind, quality)
        self._is_written = False

    def add(self, frame: np.ndarray) -> None:
        if self._is_written:
            raise UsageError(f"{self._output.name}: holds one frame; use %05d in the name for a sequence")
        self._output.write(_encoded(frame, *self._format))
        self._is_written = True

    def finish(self) -> None:
        pass

    def release(self) -> None:
        pass


class SequenceEncoder:
    """Numbered images from 1 on. They are written into a folder of their own, which the output moves into place."""

    def __init__(self, output: FolderOutput, pattern: str, kind: str, quality: int | None, n_before: int):
        self.notices: list[str] = []
        self._output, self._pattern, self._format = output, pattern, _format_of(kind, quality)
        self._highest_before, self._n_written = n_before, 0

    def add(self, frame: np.ndarray) -> None:
        self._n_written += 1
        name = numbered_name(self._pattern, self._n_written)
        (self._output.path / name).write_bytes(_encoded(frame, *self._format))

    def finish(self) -> None:
        if self._highest_before > self._n_written:
            self.notices.append(f"older frames with numbers above {self._n_written} are left in place")

    def release(self) -> None:
        pass


def open_sequence(
    pattern: str, kind: str, quality: int | None, overwrite: bool
) -> tuple[SequenceEncoder, FolderOutput]:
    """Raises OutputExistsError if the pattern names files already and `overwrite` is False."""
    folder = Path(pattern).parent
    existing = numbered_files(pattern) if folder.is_dir() else {}
    if existing and not overwrite:
        raise OutputExistsError(f"{next(iter(existing.values()))}: exists already")
    output = FolderOutput(folder, pattern)
    return SequenceEncoder(output, pattern, kind, quality, max(existing, default=0)), output


def _format_of(kind: str, quality: int | None) -> tuple[str, dict]:
    name, options = _FORMATS[kind]
    if quality is not None and "quality" in options:
        if not 1 <= quality <= 100:
            raise UsageError(f"the quality of .{kind} goes from 1 to 100, not {quality}")
        options = options | {"quality": quality}
    return name, options


def _encoded(frame: np.ndarray, name: str, options: dict) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(frame).save(buffer, format=name, **options)
    return buffer.getvalue()
