"""Fingerprint of a model: which weights a file was made with, independent of where they lie.

The digests of large files are remembered, in the process and on disk, under (path, size, time of change): a model of
28 GB is read once, not at every start.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from vovcodec.atomic import write_atomically
from vovcodec.backbone.locate import weight_files

__all__ = ["FINGERPRINT_BYTES", "cache_root", "fingerprint_folder"]

FINGERPRINT_BYTES = 4
_CHUNK_BYTES = 1 << 22
# Smaller files are hashed faster than the remembered digests are read.
_REMEMBER_FROM_BYTES = 64 << 20
_remembered: dict[str, str] = {}


def cache_root() -> Path:
    """`$XDG_CACHE_HOME/vovcodec`, by default below ~/.cache."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "vovcodec"


def fingerprint_folder(folder: Path, components: tuple[str, ...]) -> bytes:
    """First 4 bytes of SHA-256 over one line per file, "component/name:size:SHA-256 of the content".

    The files are config.json and the safetensors files (header and content) of the named component folders, component
    by component, sorted by name. Every SHA-256 is also what the hub lists for the file.

    Raises ModelError when a component has no weights or lacks a shard.
    """
    files = []
    for component in components:
        paths = [*weight_files(folder / component), folder / component / "config.json"]
        files += [(component, path) for path in sorted(paths) if path.is_file()]
    digests = _digests([path for _, path in files])
    listing = "".join(
        f"{component}/{path.name}:{path.stat().st_size}:{digest}\n"
        for (component, path), digest in zip(files, digests, strict=True)
    )
    return hashlib.sha256(listing.encode()).digest()[:FINGERPRINT_BYTES]


def _digests(paths: list[Path]) -> list[str]:
    """SHA-256 of every file, as hex; several files at a time, since hashing leaves Python's lock."""
    keys = [_key(path) for path in paths]
    large = [path.stat().st_size >= _REMEMBER_FROM_BYTES for path in paths]
    if any(is_large and key not in _remembered for key, is_large in zip(keys, large, strict=True)):
        _remembered.update(_read_remembered())
    unknown = [number for number, key in enumerate(keys) if key not in _remembered]
    with ThreadPoolExecutor(max_workers=min(8, os.cpu_count() or 1)) as pool:
        fresh = dict(zip(unknown, pool.map(_file_digest, [paths[number] for number in unknown]), strict=True))
    kept = {keys[number]: digest for number, digest in fresh.items() if large[number]}
    if kept:
        _remembered.update(kept)
        _write_remembered(kept)
    return [fresh.get(number) or _remembered[key] for number, key in enumerate(keys)]


def _key(path: Path) -> str:
    real = path.resolve()
    status = real.stat()
    return f"{real}|{status.st_size}|{status.st_mtime_ns}"


def _file_digest(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as stream:
        while chunk := stream.read(_CHUNK_BYTES):
            digest.update(chunk)
    return digest.hexdigest()


def _read_remembered() -> dict[str, str]:
    try:
        known = json.loads((cache_root() / "digests.json").read_text(encoding="utf-8"))
        return {k: v for k, v in known.items() if isinstance(v, str) and len(v) == 64}
    except (OSError, ValueError, AttributeError):
        return {}  # missing or damaged: hashed again


def _write_remembered(new: dict[str, str]) -> None:
    # A cache that cannot be written costs time, not correctness.
    with contextlib.suppress(OSError):
        path = cache_root() / "digests.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, json.dumps(_read_remembered() | new).encode())
