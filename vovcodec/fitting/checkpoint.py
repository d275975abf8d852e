"""State of an unfinished encode, kept so that it can continue after a crash, Ctrl-C or power cut.

A state folder is named by a digest of the coded frames and of every setting that matters, so it can never be used
for another input. It holds one `.fit` file (safetensors) per segment whose fit is in progress and one `.part` file per
finished segment; all are written to a temporary name, synced and renamed. What nobody has gone on with for 30 days is
removed when another state is begun.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import time
from collections.abc import Mapping
from pathlib import Path

from torch import Tensor

from vovcodec.atomic import write_atomically
from vovcodec.backbone.fingerprint import cache_root

__all__ = ["StateFolder", "default_state_root"]

_KEPT_S = 30 * 24 * 3600
_DIGEST, _OURS = re.compile(r"[0-9a-f]{32}"), re.compile(r"\.?\d+\.(fit|part)\b")


def default_state_root() -> Path:
    """`$XDG_CACHE_HOME/vovcodec/states`, by default below ~/.cache."""
    return cache_root() / "states"


class StateFolder:
    """The kept state of one encode job. A folder that cannot be written costs the state, never the encode: `problem`
    then says why nothing is kept (None as long as all is well).

    Args:
        root: folder of all states.
        digest: hex name of the job.
        resume: False discards what an earlier run left.
    """

    def __init__(self, root: Path, digest: str, *, resume: bool = True) -> None:
        self.path = root / digest
        self.problem: str | None = None
        if not resume:
            self.discard()
        with contextlib.suppress(OSError):
            os.utime(self.path)  # in use

    @property
    def is_empty(self) -> bool:
        """Whether there is nothing to go on from."""
        with contextlib.suppress(OSError):
            return not any(path.suffix in (".part", ".fit") for path in self.path.iterdir())
        return True

    def write_part(self, segment: int, data: bytes) -> None:
        """Keep a finished segment."""
        self._write(f"{segment}.part", data)
        with contextlib.suppress(OSError):
            self._fit_path(segment).unlink(missing_ok=True)

    def read_part(self, segment: int) -> bytes | None:
        """A finished segment kept by an earlier run, or None."""
        try:
            return (self.path / f"{segment}.part").read_bytes()
        except OSError:
            return None

    def write_fit(self, segment: int, tensors: Mapping[str, Tensor], figures: Mapping[str, float | int]) -> None:
        """Keep the state of a fit in progress: tensors and plain numbers (as JSON in the metadata)."""
        from safetensors.torch import save

        metadata = {"figures": json.dumps(dict(figures))}
        contiguous = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
        self._write(self._fit_path(segment).name, save(contiguous, metadata))

    def read_fit(self, segment: int) -> tuple[dict[str, Tensor], dict[str, float]] | None:
        """The kept fit of this segment, or None. An unreadable file counts as none: the fit then starts again."""
        from safetensors import SafetensorError, safe_open

        path = self._fit_path(segment)
        if not path.is_file():
            return None
        try:
            with safe_open(path, framework="pt") as stored:
                metadata = stored.metadata() or {}
                names = stored.keys()  # the handle itself cannot be iterated over
                return {name: stored.get_tensor(name) for name in names}, json.loads(metadata["figures"])
        except (SafetensorError, OSError, KeyError, ValueError):
            return None

    def _fit_path(self, segment: int) -> Path:
        return self.path / f"{segment}.fit"

    def _write(self, name: str, data: bytes) -> None:
        try:
            if not self.path.is_dir():
                self.path.mkdir(parents=True, exist_ok=True)
                _remove_abandoned(self.path.parent)
            write_atomically(self.path / name, data)
            self.problem = None
        except OSError as error:
            self.problem = f"{self.path} cannot be written ({error.strerror or error}); choose another --state-dir"

    def discard(self) -> None:
        """Remove everything kept for this job."""
        shutil.rmtree(self.path, ignore_errors=True)


def _remove_abandoned(root: Path) -> None:
    """Removes the state folders, and nothing else that may lie in `root`, that nobody has used for `_KEPT_S`."""
    for folder in root.iterdir():
        with contextlib.suppress(OSError):
            if not _DIGEST.fullmatch(folder.name) or folder.is_symlink():
                continue
            files = list(folder.iterdir())
            used_s = max(path.stat().st_mtime for path in (folder, *files))
            if all(_OURS.match(path.name) for path in files) and time.time() - used_s > _KEPT_S:
                shutil.rmtree(folder)
