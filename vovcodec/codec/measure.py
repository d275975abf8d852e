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
        if atoms and atoms.has_scene_and_clip:
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
    atoms = segment.atoms
    n_picture = min(n_steps, atoms.scene_injections + 1) if atoms and atoms.scene_injections else 0
    if atoms and n_picture and not atoms.has_scene_and_clip:
        n_picture = n_steps  # an edit may have it go on
    # What goes on after the file, goes on in the sampler that ends it.
    samplers = [(1, n_picture), (segment.n_frames, n_steps - n_picture)]
    samplers = [(n_frames, n) for n_frames, n in samplers if n]
    more = [0] * (len(samplers) - 1) + [n_more]
    return {
        n_frames: (1 + is_guided) * evaluations_of_steps(header.backbone_id, n, n_frames > 1, m)
        for (n_frames, n), m in zip(samplers, more, strict=True)
    }


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
