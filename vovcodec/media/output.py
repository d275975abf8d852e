"""Where written media goes: a file that appears only when it is complete, or a stream that is written as it comes."""

from __future__ import annotations

import os
import stat
import sys
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO

from vovcodec.atomic import give_name, temporary_beside
from vovcodec.errors import MediaError, OutputExistsError
from vovcodec.media.faults import explained

__all__ = ["FileOutput", "FolderOutput", "StreamOutput", "open_output"]


def open_output(target: str | os.PathLike | BinaryIO, overwrite: bool) -> FileOutput | StreamOutput:
    """'-' is standard output; file objects and devices (/dev/null, named pipes) are written directly; anything else
    is a file. Raises OutputExistsError, MediaError."""
    if hasattr(target, "write"):
        return StreamOutput(target, getattr(target, "name", None) or "output stream")
    if os.fspath(target) == "-":
        return StreamOutput(sys.stdout.buffer, "standard output")
    path = Path(target)
    with explained(str(path)):
        if path.exists() and not stat.S_ISREG(path.stat().st_mode):
            if path.is_dir():
                raise MediaError(f"{path}: is a folder, not a file")
            return StreamOutput(path.open("wb"), str(path), owned=True)
        return FileOutput(path, overwrite)


class FileOutput:
    """A hidden sibling that takes the name of the target when it is complete.

    path: where to write. A target that is a symbolic link keeps being one; what it points to is replaced.
    """

    def __init__(self, target: Path, overwrite: bool):
        self.name = str(target)
        if target.exists() and not overwrite:
            raise OutputExistsError(f"{target}: exists already")
        self._target, self._overwrite = target.resolve(), overwrite
        _require_folder(self._target.parent, self.name)
        self.path = temporary_beside(self._target)
        with explained(self.name):
            self.path.touch(exist_ok=False)

    def write(self, data: bytes) -> None:
        """The whole content at once."""
        self.path.write_bytes(data)

    def commit(self) -> None:
        with self.path.open("rb+") as file:
            os.fsync(file.fileno())
        try:
            give_name(self.path, self._target, overwrite=self._overwrite)
        except FileExistsError:
            raise OutputExistsError(f"{self.name}: exists by now") from None

    def discard(self) -> None:
        self.path.unlink(missing_ok=True)


class StreamOutput:
    """A pipe, device or file object. What was written stays written; `discard` cannot take it back."""

    path = None

    def __init__(self, stream: BinaryIO, name: str, owned: bool = False):
        self.name, self._stream, self._owned = name, stream, owned

    # No seek and no close: PyAV would use them.
    def write(self, data: bytes) -> int:
        view = memoryview(data)
        while view:
            view = view[self._stream.write(view) or 0 :]
        return len(data)

    def commit(self) -> None:
        self._stream.flush()
        if self._owned:
            self._stream.close()

    def discard(self) -> None:
        if self._owned:
            with suppress(OSError):  # closing writes what is left, onto a disk that may be full
                self._stream.close()


class FolderOutput:
    """A hidden sibling folder whose files move to the target folder when all are complete.

    The target folder is made if only its last part is missing.
    """

    def __init__(self, target: Path, name: str):
        self.name, self._target = name, target
        if not target.is_dir():
            _require_folder(target.absolute().parent, name)
        with explained(name):
            self.path = temporary_beside(target.absolute())
            self.path.mkdir()

    def commit(self) -> None:
        self._target.mkdir(exist_ok=True)
        for file in sorted(self.path.iterdir()):
            file.replace(self._target / file.name)
        self.path.rmdir()

    def discard(self) -> None:
        if self.path.is_dir():
            for file in self.path.iterdir():
                file.unlink()
            self.path.rmdir()


def _require_folder(folder: Path, name: str) -> None:
    if not folder.is_dir():
        raise MediaError(f"{name}: no such folder: {folder}")
