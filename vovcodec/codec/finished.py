"""Finished segments of an encode, kept in its state folder until the whole file is written."""

from __future__ import annotations

import json
from dataclasses import replace

from vovcodec.container import Segment, StreamHeader, VovFile, parse, serialize
from vovcodec.errors import VovError
from vovcodec.fitting.checkpoint import StateFolder

__all__ = ["FinishedSegment", "keep_segment", "kept_segment"]

FinishedSegment = tuple[Segment, float, float, int]
"""A segment, its PSNR in dB and SSIM, and the network evaluations spent on it, as in `injection.CodedSegment`."""


def keep_segment(state: StateFolder, header: StreamHeader, finished: FinishedSegment) -> None:
    """Keep it as a one-segment stream, with its figures as a line of JSON before it. header: of the whole file."""
    segment, psnr_db, ssim, n_evaluations = finished
    alone = VovFile(
        header=replace(header, n_segments=1, n_frames=segment.n_frames),
        segments=(replace(segment, index=0, first_frame=0),),
    )
    figures = json.dumps({"psnr_db": psnr_db, "ssim": ssim, "n_evaluations": n_evaluations})
    state.write_part(segment.index, figures.encode() + b"\n" + serialize(alone))


def kept_segment(state: StateFolder, index: int, first_frame: int) -> FinishedSegment | None:
    """What `keep_segment` kept, at its place in the file; None when there is nothing or it is damaged."""
    data = state.read_part(index)
    if data is None:
        return None
    try:
        line, _, rest = data.partition(b"\n")
        figures = json.loads(line)
        segment = replace(parse(rest).segments[0], index=index, first_frame=first_frame)
        return segment, float(figures["psnr_db"]), float(figures["ssim"]), int(figures["n_evaluations"])
    except (VovError, ValueError, KeyError, TypeError):
        return None
