"""How much a file may ask for. Headers of a few bytes can ask for years: nothing is spent before this is checked.

The counts are bounded by the format; limits can be set lower. Memory and time follow from an estimate of the whole
decode, which is shown before it is spent. Neither torch nor a model is loaded.
"""

from __future__ import annotations

import math
import os
from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, replace

from vovcodec.backbone.cost import CPU_FLOPS_PER_THREAD, CUDA_FLOPS, segment_cost
from vovcodec.backbone.geometry import TOKEN_MARGIN_PX, evaluations_of_steps
from vovcodec.backbone.memory import in_gib
from vovcodec.codec.measure import evaluations_by_length, n_evaluations_of
from vovcodec.codec.options import Approve, DecodeLimits
from vovcodec.container import Segment, StreamHeader, VovFile
from vovcodec.container.errors import LimitExceeded

__all__ = ["DecodeCost", "decode_cost", "require_affordable", "require_within", "steering_cost"]

# Resizing and encoding a frame of the output: float rows, planes, the encoder's references.
_PER_OUTPUT_VALUE = 8
_PER_ATOM, _PER_SYMBOL = 100, 24
_PER_SEEN_PIXEL = 80  # of a picture that a camera moves over, in each frame: where it is looked at, samples, sums


@dataclass(frozen=True)
class DecodeCost:
    """What a decode takes: network evaluations, bytes of memory for the model and for the work on its largest segment,
    floating-point operations of all evaluations. All but the first are None for a model that cannot be told about."""

    n_evaluations: int
    model_bytes: int | None
    work_bytes: int | None
    flop: float | None

    @property
    def memory_bytes(self) -> int | None:
        """At the peak."""
        return None if self.work_bytes is None else self.model_bytes + self.work_bytes

    def hours(self, device: str, n_threads: int) -> float | None:
        """On `device` ("cpu" or "cuda…"), at the rates that `backbone.cost` states."""
        if self.flop is None:
            return None
        rate = CUDA_FLOPS if device.startswith("cuda") else CPU_FLOPS_PER_THREAD * n_threads
        return self.flop / rate / 3600


def require_within(stream: VovFile, limits: DecodeLimits) -> None:
    """`LimitExceeded`, saying which option allows more, when the stream has more of something than `limits` say."""
    header = stream.header
    captions = (text for text in (stream.caption, *(s.caption for s in stream.segments)) if text)
    found = {
        "side": max(header.source_width, header.source_height, *_largest_size(header, stream.segments)),
        "frames": header.n_frames,
        "segments": header.n_segments,
        "caption": max((len(text.encode()) for text in captions), default=0),
        "vector": max((max(_vector_lengths(header, s), default=0) for s in stream.segments), default=0),
        "atoms": max((sum(s.atoms.counts) for s in stream.segments if s.atoms), default=0),
        "evaluations": sum(n_evaluations_of(header, segment) for segment in stream.segments),
    }
    for name, value in found.items():
        most = getattr(limits, name)
        if value > most:
            allow = f"--limit {name}={value} allows it"
            raise LimitExceeded(f"{name}: the file has {value:,}, the limit is {most:,}; {allow}")


def decode_cost(
    header: StreamHeader,
    segments: Sequence[Segment],
    *,
    steps: int | None = None,
    guided: Collection[int] = (),
    realism: float = 0.0,
) -> DecodeCost:
    """Of decoding these segments at the source size, at most `steps` steps each (None: all).

    guided: indices of those that are guided by a caption. realism: see `measure.n_evaluations_of`.
    """
    alike: dict[int, list[Segment]] = {}
    evaluations: Counter[int] = Counter()
    for segment in segments:
        is_guided = segment.index in guided
        taken = evaluations_by_length(header, segment, steps, is_guided=is_guided, realism=realism)
        evaluations.update(taken)
        for n_frames in taken:
            alike.setdefault(n_frames, []).append(segment)
    flop, model, work = 0.0, 0, 0
    n_total = evaluations.total()
    known = True
    # Where token phases are averaged, the largest is taken for all.
    margin = TOKEN_MARGIN_PX if header.backbone_id == "pocket" else 0
    for n_frames, group in alike.items():
        width, height = _largest_size(header, group if n_frames == 1 else ())
        one = segment_cost(
            header.backbone_id,
            header.precision,
            n_frames=n_frames,
            width=width + margin,
            height=height + margin,
            rank=max(sum(update.adaptation.rank for update in s.updates(header.adaptation)) for s in group),
        )
        if one is None:
            known = False
            continue
        flop += one.flop * evaluations[n_frames]
        model, work = max(model, one.model_bytes), max(work, one.work_bytes)
    if not known:
        return DecodeCost(n_total, None, None, None)
    work += 3 * _PER_OUTPUT_VALUE * header.source_width * header.source_height
    # A picture of a scene is repeated into all frames that it stands for.
    shown = max((s.n_frames for s in segments if s.atoms and s.atoms.scene_injections), default=0)
    work += 3 * shown * header.coded_width * header.coded_height
    seen = max((s.n_frames for s in segments if s.atoms and s.atoms.camera_path), default=0)
    work += _PER_SEEN_PIXEL * (seen + 1) * math.prod(_largest_size(header, segments))
    work += _PER_ATOM * max((sum(s.atoms.counts) for s in segments if s.atoms), default=0)
    work += _PER_SYMBOL * max((sum(_vector_lengths(header, s)) for s in segments), default=0)
    return DecodeCost(n_total, model, work, flop)


def steering_cost(
    header: StreamHeader, segments: Sequence[Segment], n_steps: int, n_picture_steps: int = 0
) -> DecodeCost:
    """Of steering these segments anew, `n_steps` steps of the sampler each; memory as for decoding them as clips.

    n_picture_steps: of a picture of each clip's scene, before that; they are counted, and cost next to nothing.
    """
    plain = [replace(s, atoms=replace(s.atoms, scene_injections=0)) if s.atoms else s for s in segments]
    cost = decode_cost(header, plain)
    n_evaluations = sum(evaluations_of_steps(header.backbone_id, n_steps, s.n_frames > 1) for s in segments)
    flop = None if cost.flop is None else cost.flop * n_evaluations / cost.n_evaluations
    if n_picture_steps:
        # Its last estimate may be made twice: where the bytes end, and where the clip goes on from.
        of_picture = evaluations_of_steps(header.backbone_id, n_picture_steps, False)
        of_picture += evaluations_of_steps(header.backbone_id, 1, False)
        n_evaluations += of_picture * sum(s.n_frames > 1 for s in segments)
    return replace(cost, n_evaluations=n_evaluations, flop=flop)


def _largest_size(header: StreamHeader, segments: Iterable[Segment]) -> tuple[int, int]:
    """Width and height of frames and of the pictures that cameras of these segments move over, in pixels."""
    coded_size = header.coded_width, header.coded_height
    sizes = [coded_size, *(s.atoms.picture_size(*coded_size) for s in segments if s.atoms)]
    return max(width for width, _ in sizes), max(height for _, height in sizes)


def _vector_lengths(header: StreamHeader, segment: Segment) -> list[int]:
    """Entries of each vector of a segment, merged ones included."""
    return [update.adaptation.vector_length for update in segment.updates(header.adaptation)]


def require_affordable(
    cost: DecodeCost,
    limits: DecodeLimits,
    *,
    device: str,
    free_bytes: int | None,
    n_workers: int = 1,
    n_threads: int | None = None,
    approve: Approve | None = None,
    doing: str = "decoding",
) -> None:
    """`LimitExceeded` when `cost` is above the limits for memory or hours and nobody approves of it.

    free_bytes: on the device; None = unknown. Where no limit for memory is set, the work alone must fit there: the
    model is the user's own choice, may lie here in a smaller form, and explains itself when it does not fit.
    n_workers: equal ones that share the work; memory and n_threads are those of each. n_threads: None = all.
    approve: asked with one line; None = nobody can be asked. doing: with the file, in that line.
    """
    hours = cost.hours(device, n_threads or os.cpu_count() or 1)
    if hours is not None:
        hours /= n_workers
    allow = f"memory={-(-(cost.memory_bytes or 0) // 10**9)}G"
    if limits.memory is not None and (cost.memory_bytes or 0) > limits.memory:
        what = f"about {in_gib(cost.memory_bytes)} of memory, {in_gib(limits.memory)} are allowed"
    elif limits.memory is None and free_bytes is not None and (cost.work_bytes or 0) > free_bytes:
        what = f"about {in_gib(cost.memory_bytes)} of memory, {in_gib(free_bytes)} are free on {device}"
    elif hours is not None and hours > limits.hours:
        what = f"about {hours:,.0f} hours ({cost.n_evaluations:,} network evaluations) on {device}"
        allow = f"hours={math.ceil(hours)}"
    else:
        return
    if approve is None or not approve(f"{doing} this file takes {what}"):
        raise LimitExceeded(f"{doing} this file takes {what}; --limit {allow} allows it")
