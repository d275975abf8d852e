"""Decodes one segment after another with one model on one device: in this process, or in a worker of `pool`."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from vovcodec.backbone.protocol import Backbone
from vovcodec.codec.check import drift_db
from vovcodec.codec.plans import n_coded_frames_of
from vovcodec.codec.pool import Tool
from vovcodec.codec.regenerate import load_matching_backbone, make_adapter, regenerate_latents
from vovcodec.container import Segment, StreamHeader
from vovcodec.progress import ProgressListener

__all__ = ["make_segment_decoder", "segment_decoder"]


def segment_decoder(backbone: Backbone, header: StreamHeader, steps: int | None, verify: bool) -> Tool:
    """A `pool.Tool` that turns (segment, caption) into uint8 frames [n_frames, H, W, 3] at coded size and their drift.

    Args:
        steps: at most so many network evaluations. verify: compare with the segment's check; the drift in dB is None
            where there is none.
    """
    adapter = make_adapter(backbone, header.adaptation) if header.adaptation else None

    def decode_one(task: tuple[Segment, str], listener: ProgressListener) -> tuple[np.ndarray, float | None]:
        segment, caption = task
        latents = regenerate_latents(
            backbone,
            header,
            segment,
            caption,
            adapter,
            n_coded_frames=n_coded_frames_of(segment, backbone.geometry.time_stride),
            n_evaluations=steps,
            on_step=lambda t, x_t, clean: listener.advance(),
        )
        frames = backbone.to_frames(latents)[: segment.n_frames]
        return frames, drift_db(frames, segment.check) if verify and segment.check is not None else None

    return decode_one


def make_segment_decoder(
    device: str, header: StreamHeader, model: Path | None, force: bool, steps: int | None, verify: bool, threads: int
) -> Tool:
    """`segment_decoder` with a model of its own on `device`, for a worker process; threads: of the processor."""
    torch.set_num_threads(threads)
    backbone = load_matching_backbone(header, device=device, force=force, path=model)
    return segment_decoder(backbone, header, steps, verify)
