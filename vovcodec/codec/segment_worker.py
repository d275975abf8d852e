"""Encodes one segment after another with one model on one device: in this process, or in a worker of `pool`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from vovcodec.backbone.protocol import Backbone
from vovcodec.codec.finished import FinishedSegment
from vovcodec.codec.models import load_preset_backbone
from vovcodec.codec.pool import Tool
from vovcodec.codec.regenerate import make_adapter
from vovcodec.codec.segment import encode_segment
from vovcodec.container import StreamHeader
from vovcodec.errors import ModelError
from vovcodec.fitting.checkpoint import StateFolder
from vovcodec.fitting.ranks import ALONE, Ranks
from vovcodec.presets import Preset
from vovcodec.progress import ProgressListener

__all__ = ["SegmentTask", "make_segment_encoder", "segment_encoder"]


@dataclass(frozen=True)
class SegmentTask:
    """One segment to encode; fields as the arguments of `segment.encode_segment`."""

    index: int
    first_frame: int
    n_frames: int
    frames: np.ndarray
    payload_bytes: float | None


def segment_encoder(
    backbone: Backbone, preset: Preset, header: StreamHeader, caption: str, state: StateFolder, ranks: Ranks = ALONE
) -> Tool:
    """A `pool.Tool` that turns a `SegmentTask` into a `FinishedSegment`.

    Arguments as those of `segment.encode_segment`.
    """
    adapter = make_adapter(backbone, header.adaptation) if header.adaptation else None

    def encode_one(task: SegmentTask, listener: ProgressListener) -> FinishedSegment:
        coded = encode_segment(
            backbone,
            preset,
            header.sampler,
            adapter,
            caption,
            task.frames,
            index=task.index,
            first_frame=task.first_frame,
            n_frames=task.n_frames,
            payload_bytes=task.payload_bytes,
            state=state,
            listener=listener,
            ranks=ranks,
        )
        return coded.segment, coded.psnr_db, coded.ssim, coded.n_evaluations

    return encode_one


def make_segment_encoder(
    device: str, preset: Preset, header: StreamHeader, caption: str, state_path: Path, threads: int
) -> Tool:
    """`segment_encoder` with a model of its own on `device`, for a worker process; threads: of the processor."""
    torch.set_num_threads(threads)
    backbone = load_preset_backbone(preset, device)
    if backbone.fingerprint != header.fingerprint:
        raise ModelError(f"the weights of {header.backbone_id} changed while the encode was running")
    return segment_encoder(backbone, preset, header, caption, StateFolder(state_path.parent, state_path.name))
