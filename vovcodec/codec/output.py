"""Whether a `.vov` file can be written where the user wants it: asked before hours of work, not after."""

from __future__ import annotations

import os
import stat
import tempfile
from pathlib import Path

from vovcodec.errors import MediaError, OutputExistsError

__all__ = ["require_writable"]


def require_writable(target: Path | str, *, overwrite: bool) -> None:
    """Returns when `container.write_vov` should be able to write `target`; "-" always passes.

    Raises OutputExistsError when it exists and `overwrite` is False, MediaError for a folder, a folder that is not
    there, or one without permission to write. Devices and named pipes pass.
    """
    if str(target) == "-":
        return
    path = Path(os.path.realpath(target))
    try:
        mode = path.stat().st_mode
    except OSError:
        mode = None
    if mode is not None and stat.S_ISDIR(mode):
        raise MediaError(f"{target}: is a folder, not a file")
    if mode is not None and not stat.S_ISREG(mode):
        return
    if mode is not None and not overwrite:
        raise OutputExistsError(f"{target} exists; allow overwriting or choose another name")
    if not path.parent.is_dir():
        raise MediaError(f"{target}: no such folder: {path.parent}")
    try:
        # Permissions do not tell all: read-only and special file systems, used-up quotas.
        with tempfile.TemporaryFile(dir=path.parent, prefix=".vov-", suffix=".tmp"):
            pass
    except OSError as error:
        raise MediaError(f"{target}: cannot write in {path.parent}: {error.strerror}") from error
