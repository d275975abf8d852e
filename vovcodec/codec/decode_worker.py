"""Decodes one segment after another with one model on one device: in this process, or in a worker of `pool`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from vovcodec.backbone.protocol import Backbone
from vovcodec.codec.check import drift_db
from vovcodec.codec.pool import Tool
from vovcodec.codec.regenerate import Adapters, load_matching_backbone, regenerate_latents, shown_frames
from vovcodec.container import Segment, StreamHeader
from vovcodec.errors import FormatError, portable
from vovcodec.progress import ProgressListener

__all__ = ["DecodedSegment", "Drawing", "make_segment_decoder", "segment_decoder"]

DecodedSegment = tuple[np.ndarray, float | None] | FormatError
"""A segment's frames, uint8 [n_frames, H, W, 3] at coded size, and their drift in dB where it was asked for and can be
told; or what is wrong with it."""


@dataclass(frozen=True)
class Drawing:
    """How segments are drawn. steps: at most so many of the sampler; verify: compare with the segment's check;
    guidance, realism: as in `regenerate_latents`."""

    steps: int | None = None
    verify: bool = False
    guidance: float = 1.0
    realism: float = 0.0


def segment_decoder(backbone: Backbone, header: StreamHeader, drawing: Drawing) -> Tool:
    """A `pool.Tool` that turns (segment, caption) into a `DecodedSegment`."""
    adapters = Adapters(backbone)

    def decode_one(task: tuple[Segment, str], listener: ProgressListener) -> DecodedSegment:
        segment, caption = task
        try:
            latents = regenerate_latents(
                backbone,
                header,
                segment,
                caption,
                adapters,
                n_coded_frames=backbone.geometry.coded_frames(segment.n_frames),
                n_steps=drawing.steps,
                guidance=drawing.guidance,
                realism=drawing.realism,
                on_step=lambda t, x_t, clean: listener.advance(),
            )
            frames = shown_frames(backbone, latents, segment.atoms, segment.n_frames)
        except FormatError as error:  # its checksum is right: a faulty writer made it
            return error
        return frames, drift_db(frames, segment.check) if drawing.verify and segment.check is not None else None

    return decode_one


def make_segment_decoder(
    device: str,
    header: StreamHeader,
    model: Path | None,
    force: bool,
    drawing: Drawing,
    threads: int,
) -> Tool:
    """`segment_decoder` with a model of its own on `device`, for a worker process; threads: of the processor."""
    torch.set_num_threads(threads)
    backbone = load_matching_backbone(header, device=device, force=force, path=model)
    decode_one = segment_decoder(backbone, header, drawing)

    def decode_for_parent(task: tuple[Segment, str], listener: ProgressListener) -> DecodedSegment:
        result = decode_one(task, listener)
        return portable(result) if isinstance(result, FormatError) else result

    return decode_for_parent
