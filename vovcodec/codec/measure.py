"""Figures about a run: memory, network evaluations, and where the bytes of a file went."""

from __future__ import annotations

import resource
import sys

from vovcodec.backbone.geometry import evaluations_of_steps
from vovcodec.container import Segment, StreamHeader, VovFile, overhead_bytes
from vovcodec.container.layout import AUDIO, framing_size_min
from vovcodec.sampling.schedule import LAST_UNIT, LEAST_TIME, REALISM_STEPS, snr_grid, time_grid

__all__ = ["evaluations_by_length", "n_evaluations_of", "n_realism_steps", "peak_memory_bytes", "section_sizes"]


def peak_memory_bytes() -> int:
    """Largest resident size of this process so far."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else 1024 * peak  # bytes on macOS, kilobytes elsewhere


def n_realism_steps(header: StreamHeader, segment: Segment) -> int:
    """Steps that realism takes after those of the segment's sampler; 0 where it ends without visible noise, or has made
    no step at all."""
    sampler, atoms, generation = header.sampler, segment.atoms, segment.generation
    if sampler.schedule == "snr":
        start_q, ratio_q = sampler.snr_start_q, sampler.snr_ratio_q
        n_steered, last_q = (len(atoms.counts), atoms.last_q) if atoms else (0, LAST_UNIT)
        if _has_moves(segment):
            start_q, n_steered = atoms.clip_start_q, n_steered - atoms.scene_injections
        elif atoms and atoms.scene_injections:
            ratio_q = atoms.scene_ratio_q
        n_total = generation.n_injections if generation else 0
        times = snr_grid(start_q, ratio_q, n_steered, last_q, n_total=n_total)
    else:
        times = time_grid(sampler.n_steps, sampler.shift_q8)
    return REALISM_STEPS if LEAST_TIME < times[-2] < 1 else 0


def n_evaluations_of(
    header: StreamHeader,
    segment: Segment,
    steps: int | None = None,
    *,
    is_guided: bool = False,
    realism: float = 0.0,
) -> int:
    """Network evaluations that a decode of `segment` takes: all of it, or a preview of `steps` steps of the sampler.

    is_guided: by its caption (`DecodeOptions.guidance`), which takes every one twice. realism: as in `DecodeOptions`.
    """
    return sum(evaluations_by_length(header, segment, steps, is_guided=is_guided, realism=realism).values())


def evaluations_by_length(
    header: StreamHeader,
    segment: Segment,
    steps: int | None = None,
    *,
    is_guided: bool = False,
    realism: float = 0.0,
) -> dict[int, int]:
    """`n_evaluations_of` by the frames that they are evaluations of: the segment's, or 1 for a picture of its scene."""
    n_steps = header.sampler.steps_of(segment)
    n_steps = min(steps or n_steps, n_steps)
    n_more = n_realism_steps(header, segment) if realism else 0
    n_scene = segment.atoms.scene_injections if segment.atoms else 0
    each = 1 + is_guided
    if not n_scene:
        return {
            segment.n_frames: each * evaluations_of_steps(header.backbone_id, n_steps, segment.n_frames > 1, n_more)
        }
    n_picture = min(n_steps, n_scene + 1) if _has_moves(segment) else n_steps
    found = {1: each * evaluations_of_steps(header.backbone_id, n_picture, False, 0 if _has_moves(segment) else n_more)}
    if n_steps > n_picture:
        n_clip = evaluations_of_steps(header.backbone_id, n_steps - n_picture, True, n_more)
        found[segment.n_frames] = each * n_clip
    return found


def _has_moves(segment: Segment) -> bool:
    """Whether a clip follows the picture of the segment's scene."""
    return segment.atoms is not None and 0 < segment.atoms.scene_injections < len(segment.atoms.counts)


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
