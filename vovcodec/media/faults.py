"""One clear line for everything that can go wrong with a file, a pipe or a codec."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from contextlib import contextmanager

from vovcodec.errors import MediaError, VovError

__all__ = ["explained", "media_error"]

_BY_ERRNO = {
    errno.ENOENT: "no such file",
    errno.EACCES: "permission denied",
    errno.EPERM: "permission denied",
    errno.EISDIR: "is a folder, not a file",
    errno.ENOSPC: "no space left on the device",
    errno.EDQUOT: "the disk quota is used up",
    errno.EPIPE: "the other side closed the pipe",
    errno.EROFS: "the file system is read-only",
    errno.ENAMETOOLONG: "the name is too long",
}


def media_error(exc: BaseException, name: str) -> MediaError:
    """The MediaError to raise for an exception of the operating system, PyAV or Pillow.

    name: what the user calls the file, shown first. OSErrors are told apart by errno, which PyAV's errors carry too.
    """
    kind = type(exc).__name__
    number = getattr(exc, "errno", None)
    if isinstance(exc, OSError) and number in _BY_ERRNO:
        return MediaError(f"{name}: {_BY_ERRNO[number]}")
    if isinstance(exc, BrokenPipeError):
        return MediaError(f"{name}: {_BY_ERRNO[errno.EPIPE]}")
    if isinstance(exc, EOFError):
        return MediaError(f"{name}: the file ends too early")
    if kind == "InvalidDataError":
        return MediaError(f"{name}: damaged, cut short, or not a video or image format that can be read")
    if kind in ("DecoderNotFoundError", "EncoderNotFoundError", "DemuxerNotFoundError", "MuxerNotFoundError"):
        return MediaError(f"{name}: this build of FFmpeg has no codec or container for it")
    if kind == "DecompressionBombError":
        return MediaError(f"{name}: the image has too many pixels to be read safely")
    if isinstance(exc, MemoryError):
        return MediaError(f"{name}: out of memory")
    return MediaError(f"{name}: {getattr(exc, 'strerror', None) or exc or kind}")


@contextmanager
def explained(name: str) -> Iterator[None]:
    """Turns everything that reading or writing media raises inside the block into a MediaError about `name`.

    Our own errors and interrupts pass. Pillow and PyAV raise SyntaxError, ValueError, struct.error and others on
    damaged input, so anything that is an Exception counts.
    """
    try:
        yield
    except VovError:
        raise
    except Exception as exc:
        raise media_error(exc, name) from exc
