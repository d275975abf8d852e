"""What a source is: a clip, an animation, an image, a numbered sequence, a pipe; and opening the right reader for it.

The decision is made from the first bytes, never from the file name. Files are opened by us, so that FFmpeg never sees
a URL, a play list or any other text that would make it fetch something else.
"""

from __future__ import annotations

import io
import os
import stat
import sys
import tempfile
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, Protocol

import numpy as np

from vovcodec.errors import MediaError
from vovcodec.media.faults import explained
from vovcodec.media.info import MediaInfo
from vovcodec.media.sound import SoundWish

if TYPE_CHECKING:
    from vovcodec.media.sound_reader import SoundReader

__all__ = ["PictureSource", "open_source"]

HEAD_BYTES = 4096
# An image has to be complete in memory before Pillow can read it; nobody pipes a larger one on purpose.
MAX_PIPED_IMAGE_BYTES = 1 << 30

# Magic numbers of the formats that Pillow reads for us. Everything else goes to PyAV.
_IMAGE_MAGIC = (
    b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff", b"GIF87a", b"GIF89a", b"BM", b"II*\0", b"MM\0*", b"II+\0", b"MM\0+",
    b"P1", b"P2", b"P3", b"P4", b"P5", b"P6", b"\0\0\0\x0cjP  \r\n\x87\n", b"\xff\x4f\xff\x51",
)  # fmt: skip
_TEXT_THAT_IS_MEDIA = (b"YUV4MPEG2 ", b"P1", b"P2", b"P3")


class PictureSource(Protocol):
    """Pictures with their times, converted to RGB only when asked, so that dropped ones cost no conversion."""

    info: MediaInfo
    notices: list[str]
    is_variable: bool  # the frames are not evenly spaced in time; `info.frame_rate` is their average
    sound: SoundReader | None  # where the sound goes, if there is some and it was wished for

    def pictures(self, start_s: Fraction) -> Iterator[tuple[Fraction, Any]]:
        """(time in seconds from the start of the clip, picture), in order, beginning at or before `start_s`."""

    def shown_s(self, picture: Any) -> Fraction:
        """Seconds for which a picture is shown; needed of the last one, which no other ends."""

    def to_rgb(self, picture: Any) -> np.ndarray:
        """The upright uint8 [H, W, 3] frame of a picture."""

    def close(self) -> None: ...


def open_source(
    source: str | os.PathLike | BinaryIO, *, sequence_rate: Fraction = Fraction(25), sound: SoundWish = None
) -> PictureSource:
    """Opens a path, a printf pattern (`frames/%05d.png`), '-' (standard input) or a binary file object.

    sequence_rate: frames per second given to a numbered sequence, which has none of its own. sound: see `SoundWish`.
    Raises MediaError with one line that names the source.
    """
    if hasattr(source, "read"):
        return _open_stream(source, getattr(source, "name", None) or "input stream", sound)
    path = os.fspath(source)
    if path == "-":
        return _open_stream(sys.stdin.buffer, "standard input", sound)
    from vovcodec.media import sequence

    if sequence.is_sequence(path):
        return sequence.SequenceSource(path, sequence_rate)
    return _open_path(Path(path), sound)


def _open_path(path: Path, sound: SoundWish) -> PictureSource:
    name = str(path)
    with explained(name):
        mode = path.stat().st_mode
        if stat.S_ISDIR(mode):
            raise MediaError(f"{name}: is a folder; name a file, or a numbered sequence such as {name}/%05d.png")
        file = path.open("rb")
    if not stat.S_ISREG(mode):  # a named pipe, /dev/stdin, a shell's process substitution
        return _open_stream(file, name, sound)
    with file, explained(name):
        head = file.read(HEAD_BYTES)
    _refuse_unusable(head, name)
    if _is_image(head):
        from vovcodec.media.stills import open_image

        return open_image(path, name)
    from vovcodec.media.clip import ClipSource

    return ClipSource(path, name, sound)


def _open_stream(stream: BinaryIO, name: str, sound: SoundWish) -> PictureSource:
    with explained(name):
        head = _read_up_to(stream, HEAD_BYTES)
        _refuse_unusable(head, name)
        if _is_image(head):
            rest = _read_up_to(stream, MAX_PIPED_IMAGE_BYTES)
            if len(rest) == MAX_PIPED_IMAGE_BYTES:
                raise MediaError(f"{name}: the piped image is larger than {MAX_PIPED_IMAGE_BYTES >> 30} GiB")
            from vovcodec.media.stills import open_image

            return open_image(io.BytesIO(head + rest), name)
        from vovcodec.media.clip import ClipSource

        if _needs_seeking(head):
            return ClipSource(_spooled(head, stream), name, sound)
        return ClipSource(_HeadFirst(head, stream), name, sound)


def _refuse_unusable(head: bytes, name: str) -> None:
    if not head:
        raise MediaError(f"{name}: is empty")
    if head.startswith(b"\x89VOV"):
        raise MediaError(f"{name}: is a .vov file already; vov decode shows it, vov scale changes its size")
    if _is_text(head):
        raise MediaError(f"{name}: is text, not a video or image")


def _is_text(head: bytes) -> bool:
    if head.startswith(_TEXT_THAT_IS_MEDIA):
        return False
    if any(byte < 32 and byte not in b"\t\n\f\r\x1b" for byte in head):
        return False
    try:
        head.decode("utf-8")
    except UnicodeDecodeError as exc:
        return exc.start >= HEAD_BYTES - 4  # only the last character is cut in half
    return True


def _is_image(head: bytes) -> bool:
    if head[4:8] == b"ftyp":
        return head[8:12] in (b"avif", b"avis")
    return head.startswith(_IMAGE_MAGIC) or (head[:4] == b"RIFF" and head[8:12] == b"WEBP")


def _needs_seeking(head: bytes) -> bool:
    """MP4 and MOV whose index (`moov`) does not come before the data (`mdat`) cannot be read front to back."""
    offset, known = 0, (b"ftyp", b"free", b"skip", b"wide", b"uuid", b"pnot")
    if head[4:8] not in (b"ftyp", b"moov", b"mdat", b"wide", b"free", b"skip"):
        return False
    while offset + 8 <= len(head):
        size, box = int.from_bytes(head[offset : offset + 4], "big"), head[offset + 4 : offset + 8]
        if box in (b"moov", b"moof", b"sidx", b"styp"):
            return False
        if box not in known or size < 8:
            return True
        offset += size
    return True


def _read_up_to(stream: BinaryIO, n_bytes: int) -> bytes:
    """Reads until n_bytes are there or the stream ends: one read of a pipe may give less than asked."""
    parts, missing = [], n_bytes
    while missing:
        part = stream.read(min(missing, 1 << 20))
        if not part:
            break
        if not isinstance(part, bytes):
            raise MediaError("the input stream delivers text; open it in binary mode")
        parts.append(part)
        missing -= len(part)
    return b"".join(parts)


def _spooled(head: bytes, stream: BinaryIO) -> BinaryIO:
    """The whole stream as a temporary file without a name, which disappears when it is closed."""
    file = tempfile.TemporaryFile()  # noqa: SIM115 - the clip closes it
    file.write(head)
    while part := stream.read(1 << 20):
        file.write(part)
    file.seek(0)
    return file


class _HeadFirst:
    """A stream whose first bytes were already taken, put together again. Forward only, and never closed by PyAV."""

    def __init__(self, head: bytes, stream: BinaryIO):
        self._head, self._stream = head, stream

    def read(self, n_bytes: int) -> bytes:
        if self._head:
            part, self._head = self._head[:n_bytes], self._head[n_bytes:]
            return part
        return self._stream.read(n_bytes)
