"""What is compared: frames of a reference and of decoded files, `.vov` files being decoded on the way."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np

from vovcodec.errors import FormatError, MediaError, name_input
from vovcodec.media import open_frames, resize_frames
from vovcodec.progress import ProgressListener

__all__ = ["Pictures", "is_vov", "read_media", "read_pictures", "resized"]


@dataclass(frozen=True)
class Pictures:
    """Frames of one file.

    frames: uint8 [F, H, W, 3]. is_whole: these are all that the file has. frame_rate: per second, 0 for a picture.
    size_bytes: of the file (a .vov file without its sound, because pictures are compared), or of all files of a
    numbered sequence; None for a pipe.
    """

    name: str
    frames: np.ndarray
    is_whole: bool
    frame_rate: Fraction
    size_bytes: int | None
    is_vov: bool


def is_vov(path: Path | str) -> bool:
    """Whether a file begins like a `.vov` file, whatever its name."""
    from vovcodec.container.layout import MAGIC

    try:
        with open(path, "rb") as file:
            return file.read(len(MAGIC)) == MAGIC
    except OSError:
        return False


def read_pictures(
    source: Path | str, listener: ProgressListener, *, n_frames: int | None = None, **decoding: Any
) -> Pictures:
    """The first frames of a media file or of a decoded `.vov` file, the latter at its coded size.

    decoding: further fields of `DecodeOptions`.

    Raises MediaError, FormatError, ModelError.
    """
    if not is_vov(source):
        return read_media(source, n_frames=n_frames)
    from vovcodec.codec.decode import decode_stream
    from vovcodec.codec.measure import section_sizes
    from vovcodec.codec.options import DecodeOptions
    from vovcodec.codec.plans import frame_rate_of
    from vovcodec.container import read_vov

    stream = read_vov(Path(source))
    rate, n_all = frame_rate_of(stream.header), stream.header.n_frames
    n_frames = n_all if n_frames is None else min(n_frames, n_all)
    options = DecodeOptions(size="coded", strict=True, duration_s=float(n_frames / rate) if rate else None, **decoding)
    with tempfile.TemporaryDirectory(prefix="vov-eval-") as folder:
        # PNG keeps every bit.
        target = Path(folder) / ("frame%05d.png" if rate else "frame.png")
        try:
            decode_stream(stream, target, options, listener)
        except FormatError as error:
            name_input(error, source)
            raise
        frames = read_media(target).frames
    size_bytes = Path(source).stat().st_size - section_sizes(stream).get("audio", 0)
    return Pictures(str(source), frames, n_frames == n_all, rate, size_bytes, True)


def read_media(source: Path | str, *, n_frames: int | None = None) -> Pictures:
    """The first frames of a video, picture or numbered sequence at its own size. Raises MediaError."""
    # One frame more than asked for shows whether the file has more.
    with open_frames(source, n_frames=None if n_frames is None else n_frames + 1) as reader:
        frames = list(reader)
        rate = reader.info.frame_rate
    if any(frame.shape != frames[0].shape for frame in frames):
        raise MediaError(f"{source}: the frames differ in size")
    known = np.stack(frames[:n_frames])
    return Pictures(str(source), known, len(known) == len(frames), rate, _size_bytes(source), False)


def resized(frames: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Frames at (width, height), unchanged where they have it already."""
    return resize_frames(frames, *size)


def _size_bytes(source: Path | str) -> int | None:
    from vovcodec.media.sequence import is_sequence, numbered_files

    if str(source) == "-":
        return None
    if is_sequence(str(source)):
        return sum(path.stat().st_size for path in numbered_files(str(source)).values())
    return Path(source).stat().st_size
