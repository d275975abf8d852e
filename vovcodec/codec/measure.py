"""Figures about a run: memory and where the bytes of a file went."""

from __future__ import annotations

import resource
import sys

from vovcodec.container import VovFile, overhead_bytes
from vovcodec.container.layout import AUDIO, FRAMING_SIZE_MIN

__all__ = ["peak_memory_bytes", "section_sizes"]


def peak_memory_bytes() -> int:
    """Largest resident size of this process so far."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else 1024 * peak  # bytes on macOS, kilobytes elsewhere


def section_sizes(stream: VovFile) -> dict[str, int]:
    """Bytes per kind of content of a parsed stream; they sum to the file's size.

    `overhead` is everything but caption, vectors, atoms and sound: header, framing, checks, index.
    """
    total = max(section.offset + section.size_bytes for section in stream.layout)
    sizes = {
        "vector": sum(each.vector.size_bytes for s in stream.segments for each in s.updates(stream.header.adaptation)),
        "atoms": sum(len(s.atoms.words) for s in stream.segments if s.atoms),
        "indices": sum(len(s.importance.indices) for s in stream.segments if s.importance),
        "audio": sum(s.size_bytes - FRAMING_SIZE_MIN for s in stream.layout if s.type == AUDIO),
    }
    overhead = overhead_bytes(stream)
    rest = {"overhead": overhead, "caption": total - overhead - sum(sizes.values())}
    return {name: size for name, size in {**rest, **sizes}.items() if size}
