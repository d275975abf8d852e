"""What is compared: frames of a reference and of decoded files, `.vov` files being decoded on the way."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import numpy as np

from vovcodec.errors import MediaError
from vovcodec.media import open_frames, resize_frames
from vovcodec.progress import ProgressListener

__all__ = ["Pictures", "is_vov", "read_media", "read_pictures", "resized"]


@dataclass(frozen=True)
class Pictures:
    """Frames of one file.

    frames: uint8 [F, H, W, 3]. frame_rate: per second, 0 for a picture. size_bytes: of the file (a .vov file without
    its sound, because pictures are compared), or of all files of a numbered sequence; None for a pipe.
    """

    name: str
    frames: np.ndarray
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
    source: Path | str,
    listener: ProgressListener,
    *,
    n_frames: int | None = None,
    device: str = "auto",
    threads: int | None = None,
    realism: float = 0.0,
) -> Pictures:
    """The first frames of a media file or of a decoded `.vov` file, the latter at its coded size.

    realism: of decoded files, see `DecodeOptions`.

    Raises MediaError, FormatError, ModelError.
    """
    if not is_vov(source):
        return read_media(source, n_frames=n_frames)
    from vovcodec.codec.decode import decode
    from vovcodec.codec.options import DecodeOptions

    with tempfile.TemporaryDirectory(prefix="vov-eval-") as folder:
        is_still = _is_still(source)
        # PNG keeps every bit; numbered, because the number of frames is not known here.
        target = Path(folder) / ("frame.png" if is_still else "frame%05d.png")
        options = DecodeOptions(size="coded", strict=True, device=device, threads=threads, realism=realism)
        report = decode(Path(source), target, options, listener)
        frames = read_media(target, n_frames=n_frames).frames
    size_bytes = Path(source).stat().st_size - _sound_bytes(source)
    return Pictures(str(source), frames, report.frame_rate, size_bytes, True)


def read_media(source: Path | str, *, n_frames: int | None = None) -> Pictures:
    """The first frames of a video, picture or numbered sequence at its own size. Raises MediaError."""
    with open_frames(source, n_frames=n_frames) as reader:
        frames = list(reader)
        rate = reader.info.frame_rate
    if any(frame.shape != frames[0].shape for frame in frames):
        raise MediaError(f"{source}: the frames differ in size")
    return Pictures(str(source), np.stack(frames), rate, _size_bytes(source), False)


def resized(frames: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Frames at (width, height), unchanged where they have it already."""
    return resize_frames(frames, *size)


def _is_still(source: Path | str) -> bool:
    from vovcodec.container import read_vov

    return not read_vov(Path(source)).header.frame_rate_num


def _sound_bytes(source: Path | str) -> int:
    from vovcodec.codec.measure import section_sizes
    from vovcodec.container import read_vov

    return section_sizes(read_vov(Path(source))).get("audio", 0)


def _size_bytes(source: Path | str) -> int | None:
    from vovcodec.media.sequence import is_sequence, numbered_files

    if str(source) == "-":
        return None
    if is_sequence(str(source)):
        return sum(path.stat().st_size for path in numbered_files(str(source)).values())
    return Path(source).stat().st_size
