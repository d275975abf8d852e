"""Files that are whole or not there: written beside their place, flushed to the disk, then given their name."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path
from typing import BinaryIO

__all__ = ["give_name", "temporary_beside", "write_all", "write_atomically"]


def write_atomically(path: Path, data: bytes, *, overwrite: bool = True, mode: int | None = None) -> None:
    """`path` holds what it held before or all of `data`, whenever this process is stopped and whoever else writes.

    overwrite: False raises FileExistsError for a path that exists, even since a moment ago. mode: permissions; None =
    the usual ones. Raises OSError; nothing is left behind then. Only a process that is killed leaves the hidden
    temporary file.
    """
    temporary = temporary_beside(path)
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0), 0o666)
    try:
        with os.fdopen(descriptor, "wb") as file:
            write_all(file, data)
            os.fsync(file.fileno())
        if mode is not None:
            temporary.chmod(mode)
        give_name(temporary, path, overwrite=overwrite)
    except BaseException:
        with contextlib.suppress(OSError):
            temporary.unlink()
        raise
    if os.name == "posix":  # makes the new name itself durable; other systems cannot open a folder
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)


def temporary_beside(path: Path) -> Path:
    """A hidden name in the same folder, so that a rename stays within one file system.

    Processes of several machines or containers can share a folder and a process number, hence the random part.
    """
    return path.with_name(f".{path.name[:100]}.{os.getpid()}-{os.urandom(4).hex()}.tmp")


def give_name(temporary: Path, path: Path, *, overwrite: bool) -> None:
    """Moves a finished temporary file to its place. Raises FileExistsError unless `overwrite`, OSError."""
    if overwrite:
        temporary.replace(path)
        return
    try:
        os.link(temporary, path)  # unlike a rename it never replaces: the second of two writers fails
    except FileExistsError:
        raise
    except OSError:  # a file system without links
        if path.exists():
            raise FileExistsError(f"{path} exists") from None
        temporary.replace(path)
    else:
        temporary.unlink()


def write_all(file: BinaryIO, data: bytes) -> None:
    """Writes and flushes; unbuffered streams may take less than they are given at a time."""
    view = memoryview(data)
    while view:
        n_written = file.write(view)
        view = view[len(view) if n_written is None else n_written :]
    file.flush()
