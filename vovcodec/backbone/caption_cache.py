"""Caption embeddings, remembered so that a text encoder of many gigabytes is loaded once per caption and machine."""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Callable
from pathlib import Path

from torch import Tensor

from vovcodec.atomic import write_atomically
from vovcodec.backbone.fingerprint import cache_root

__all__ = ["CaptionCache"]

_MAX_FILES = 256


class CaptionCache:
    """Embeddings [L, D] float32 without padding, in memory and below the user's cache folder.

    Args:
        fingerprint: of the model. precision: of its text encoder; both are part of the key, as is the caption.
    """

    def __init__(self, fingerprint: bytes, precision: str) -> None:
        self._prefix = f"{fingerprint.hex()}:{precision}:".encode()
        self._folder = cache_root() / "captions"
        self._memory: dict[str, Tensor] = {}

    def get(self, caption: str, embed: Callable[[str], Tensor]) -> Tensor:
        """The embedding of `caption`, on the CPU, from `embed(caption)` where it is not known yet."""
        if caption not in self._memory:
            embedding = self._read(caption)
            if embedding is None:
                embedding = embed(caption).float().cpu().contiguous()
                self._write(caption, embedding)
            self._memory[caption] = embedding
        return self._memory[caption]

    def _path(self, caption: str) -> Path:
        name = hashlib.sha256(self._prefix + caption.encode("utf-8", "surrogatepass")).hexdigest()[:32]
        return self._folder / f"{name}.safetensors"

    def _read(self, caption: str) -> Tensor | None:
        from safetensors import SafetensorError
        from safetensors.torch import load

        try:
            return load(self._path(caption).read_bytes())["embedding"]
        except (OSError, SafetensorError, KeyError):
            return None  # missing or damaged: embedded again

    def _write(self, caption: str, embedding: Tensor) -> None:
        from safetensors.torch import save

        path = self._path(caption)
        # A cache that cannot be written costs time, not correctness.
        with contextlib.suppress(OSError):
            path.parent.mkdir(parents=True, exist_ok=True)
            write_atomically(path, save({"embedding": embedding}))
            kept = sorted(path.parent.glob("*.safetensors"), key=lambda p: p.stat().st_mtime)
            for old in kept[:-_MAX_FILES]:
                old.unlink(missing_ok=True)
