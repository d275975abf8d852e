"""Figures about a run: memory, network evaluations, and where the bytes of a file went."""

from __future__ import annotations

import resource
import sys

from vovcodec.backbone.geometry import evaluations_of_steps
from vovcodec.container import Segment, StreamHeader, VovFile, overhead_bytes
from vovcodec.container.layout import AUDIO, framing_size_min

__all__ = ["n_evaluations_of", "peak_memory_bytes", "section_sizes"]


def peak_memory_bytes() -> int:
    """Largest resident size of this process so far."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else 1024 * peak  # bytes on macOS, kilobytes elsewhere


def n_evaluations_of(
    header: StreamHeader, segment: Segment, steps: int | None = None, *, is_guided: bool = False
) -> int:
    """Network evaluations that a decode of `segment` takes: all of it, or a preview of `steps` steps of the sampler.

    is_guided: by its caption (`DecodeOptions.guidance`), which takes every one twice.
    """
    n_steps = header.sampler.steps_of(segment)
    return (1 + is_guided) * evaluations_of_steps(
        header.backbone_id, min(steps or n_steps, n_steps), segment.n_frames > 1
    )


def section_sizes(stream: VovFile) -> dict[str, int]:
    """Bytes per kind of content of a parsed stream; they sum to the file's size.

    `overhead` is everything but caption, vectors, atoms and sound: header, framing, checks, index.
    """
    total = max(section.offset + section.size_bytes for section in stream.layout)
    sizes = {
        "vector": sum(each.vector.size_bytes for s in stream.segments for each in s.updates(stream.header.adaptation)),
        "atoms": sum(len(s.atoms.words) for s in stream.segments if s.atoms),
        "indices": sum(len(s.importance.indices) for s in stream.segments if s.importance),
        "audio": sum(s.size_bytes - framing_size_min(AUDIO) for s in stream.layout if s.type == AUDIO),
    }
    overhead = overhead_bytes(stream)
    rest = {"overhead": overhead, "caption": total - overhead - sum(sizes.values())}
    return {name: size for name, size in {**rest, **sizes}.items() if size}
