"""Decodes one segment after another with one model on one device: in this process, or in a worker of `pool`."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from vovcodec.backbone.protocol import Backbone
from vovcodec.codec.check import drift_db
from vovcodec.codec.pool import Tool
from vovcodec.codec.regenerate import Adapters, load_matching_backbone, regenerate_latents
from vovcodec.container import Segment, StreamHeader
from vovcodec.errors import FormatError, portable
from vovcodec.progress import ProgressListener

__all__ = ["DecodedSegment", "make_segment_decoder", "segment_decoder"]

DecodedSegment = tuple[np.ndarray, float | None] | FormatError
"""A segment's frames, uint8 [n_frames, H, W, 3] at coded size, and their drift in dB where it was asked for and can be
told; or what is wrong with it."""


def segment_decoder(backbone: Backbone, header: StreamHeader, steps: int | None, verify: bool, guidance: float) -> Tool:
    """A `pool.Tool` that turns (segment, caption) into a `DecodedSegment`.

    Args:
        steps: at most so many steps of the sampler. verify: compare with the segment's check.
        guidance: as in `regenerate_latents`.
    """
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
                n_steps=steps,
                guidance=guidance,
                on_step=lambda t, x_t, clean: listener.advance(),
            )
        except FormatError as error:  # its checksum is right: a faulty writer made it
            return error
        frames = backbone.to_frames(latents)[: segment.n_frames]
        return frames, drift_db(frames, segment.check) if verify and segment.check is not None else None

    return decode_one


def make_segment_decoder(
    device: str,
    header: StreamHeader,
    model: Path | None,
    force: bool,
    steps: int | None,
    verify: bool,
    guidance: float,
    threads: int,
) -> Tool:
    """`segment_decoder` with a model of its own on `device`, for a worker process; threads: of the processor."""
    torch.set_num_threads(threads)
    decode_one = segment_decoder(
        load_matching_backbone(header, device=device, force=force, path=model), header, steps, verify, guidance
    )

    def decode_for_parent(task: tuple[Segment, str], listener: ProgressListener) -> DecodedSegment:
        result = decode_one(task, listener)
        return portable(result) if isinstance(result, FormatError) else result

    return decode_for_parent
