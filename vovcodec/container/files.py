"""Reading and writing `.vov` files and streams; a file on disk is never left half written."""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import BinaryIO

from vovcodec.atomic import write_all, write_atomically
from vovcodec.container.errors import LimitExceeded
from vovcodec.container.framing import DEFAULT_LIMITS, START_SIZE, Limits, check_prefix
from vovcodec.container.model import VovFile
from vovcodec.container.reader import parse
from vovcodec.container.writer import serialize
from vovcodec.errors import FormatError, MediaError, OutputExistsError, name_input

__all__ = ["read_bytes", "read_vov", "write_vov"]

_CHUNK_SIZE = 2**20


def read_bytes(source: str | Path | BinaryIO, *, limits: Limits = DEFAULT_LIMITS) -> bytes:
    """All bytes of a path or of a binary stream (a pipe, for example), read chunk by chunk up to the limit.

    The magic is looked at as soon as it is there, so that a large file of another kind is refused at once. Raises
    `MediaError` if it cannot be read, `LimitExceeded`, and what `check_prefix` raises.
    """
    if isinstance(source, str | Path):
        try:
            with Path(source).open("rb") as file:
                return read_bytes(file, limits=limits)
        except OSError as error:
            raise MediaError(f"{source}: {error.strerror or error}") from error
    data = bytearray()
    checked = False
    while chunk := source.read(_CHUNK_SIZE):
        data += chunk
        if len(data) > limits.max_file_bytes:
            raise LimitExceeded(f"the input has more than {limits.max_file_bytes} bytes; raise Limits to read it")
        if not checked and len(data) >= START_SIZE:
            check_prefix(memoryview(bytes(data[:START_SIZE])))
            checked = True
    return bytes(data)


def read_vov(source: str | Path | BinaryIO, *, tolerant: bool = False, limits: Limits = DEFAULT_LIMITS) -> VovFile:
    """`parse` of a path or binary stream. Raises `MediaError` and every `FormatError`, which then name the path."""
    try:
        return parse(read_bytes(source, limits=limits), tolerant=tolerant, limits=limits)
    except FormatError as error:
        if isinstance(source, str | Path):
            name_input(error, source)
        raise


def write_vov(target: str | Path | BinaryIO, stream: VovFile, *, overwrite: bool = False) -> int:
    """Write `stream` and return its size in bytes.

    A path is written beside itself, flushed to the disk and renamed, so that it holds either the old or the whole new
    file. Raises `OutputExistsError` unless `overwrite`, `MediaError` if the disk refuses, and what `serialize` raises
    (before anything is touched).
    """
    data = serialize(stream)
    if not isinstance(target, str | Path):
        write_all(target, data)
        return len(data)
    path = Path(os.path.realpath(target))  # a link stays a link
    try:
        mode = path.stat().st_mode
    except OSError:
        mode = None
    if mode is not None and not overwrite and stat.S_ISREG(mode):
        raise OutputExistsError(f"{target} exists; allow overwriting or choose another name")
    try:
        if mode is not None and not stat.S_ISREG(mode):  # a device or a named pipe cannot be renamed over
            with path.open("wb", buffering=0) as file:
                write_all(file, data)
        else:
            permissions = stat.S_IMODE(mode) if mode is not None else None
            write_atomically(path, data, overwrite=overwrite, mode=permissions)
    except FileExistsError:
        raise OutputExistsError(f"{target} exists by now; allow overwriting or choose another name") from None
    except OSError as error:
        raise MediaError(f"{target}: {error.strerror or error}") from error
    return len(data)
