"""Writes a finished stream, after reading back what it is about to write."""

from __future__ import annotations

import sys
from pathlib import Path

from vovcodec.codec.inspect import check
from vovcodec.container import VovFile, parse, serialize, write_vov
from vovcodec.errors import FormatError, VovError

__all__ = ["write_checked"]


def write_checked(target: Path | str, stream: VovFile, *, overwrite: bool) -> VovFile:
    """Write to a path or "-", if the bytes read back as what was meant: a wrong file is never left behind.

    Returns the stream as read, with its layout. Raises VovError, and what `write_vov` raises.
    """
    again = parse(serialize(stream))
    fault = "it reads back differently" if again != stream else None
    try:
        check(again)
    except FormatError as error:
        fault = str(error)
    if fault:
        raise VovError(f"the file made cannot be right ({fault}); nothing is written; please report it")
    if str(target) == "-":
        write_vov(sys.stdout.buffer, stream)
    else:
        write_vov(Path(target), stream, overwrite=overwrite)
    return again
