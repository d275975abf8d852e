"""State of an unfinished encode, kept so that it can continue after a crash, Ctrl-C or power cut.

A state folder is named by a digest of the coded frames and of every setting that matters, so it can never be used
for another input. It holds one safetensors file for the fit in progress and one `.part` file per finished segment;
all are written to a temporary name, synced and renamed.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Mapping
from pathlib import Path

from torch import Tensor

__all__ = ["StateFolder", "default_state_root"]


def default_state_root() -> Path:
    """`$XDG_CACHE_HOME/vovcodec/states`, by default below ~/.cache."""
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "vovcodec" / "states"


def _write_atomically(path: Path, data: bytes) -> None:
    temporary = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    with temporary.open("wb") as stream:
        stream.write(data)
        stream.flush()
        os.fsync(stream.fileno())
    temporary.replace(path)


class StateFolder:
    """The kept state of one encode job.

    Args:
        root: folder of all states.
        digest: hex name of the job.
        resume: False discards what an earlier run left.
    """

    def __init__(self, root: Path, digest: str, *, resume: bool = True) -> None:
        self.path = root / digest
        if not resume:
            self.discard()

    def write_part(self, segment: int, data: bytes) -> None:
        """Keep a finished segment."""
        self.path.mkdir(parents=True, exist_ok=True)
        _write_atomically(self.path / f"{segment}.part", data)

    def read_part(self, segment: int) -> bytes | None:
        """A finished segment kept by an earlier run, or None."""
        try:
            return (self.path / f"{segment}.part").read_bytes()
        except FileNotFoundError:
            return None

    def write_fit(self, segment: int, tensors: Mapping[str, Tensor], figures: Mapping[str, float | int]) -> None:
        """Keep the state of the fit in progress: tensors and plain numbers (as JSON in the metadata)."""
        from safetensors.torch import save

        self.path.mkdir(parents=True, exist_ok=True)
        metadata = {"segment": str(segment), "figures": json.dumps(dict(figures))}
        contiguous = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
        _write_atomically(self.path / "fit.safetensors", save(contiguous, metadata))

    def read_fit(self, segment: int) -> tuple[dict[str, Tensor], dict[str, float]] | None:
        """The kept fit of this segment, or None. An unreadable file counts as none: the fit then starts again."""
        from safetensors import SafetensorError, safe_open

        path = self.path / "fit.safetensors"
        if not path.is_file():
            return None
        try:
            with safe_open(path, framework="pt") as stored:
                metadata = stored.metadata() or {}
                if metadata.get("segment") != str(segment):
                    return None
                return {name: stored.get_tensor(name) for name in stored.keys()}, json.loads(metadata["figures"])
        except (SafetensorError, KeyError, ValueError):
            return None

    def discard(self) -> None:
        """Remove everything kept for this job."""
        shutil.rmtree(self.path, ignore_errors=True)
