"""Byte budgets: how large a file may be and which parts get a share of it, from flags and preset."""

from __future__ import annotations

import math
from dataclasses import replace

from vovcodec.codec.options import EncodeOptions
from vovcodec.errors import UsageError
from vovcodec.presets import Preset

__all__ = ["DEFAULT_VECTOR_SHARE", "target_file_bytes", "with_parts"]

DEFAULT_VECTOR_SHARE = 1 / 12


def target_file_bytes(
    options: EncodeOptions, preset: Preset, *, n_frames: int, frame_rate: float, source_pixels: int
) -> int | None:
    """Size in bytes that the whole file may have; None when a fixed multiplier or the preset's atom count decides.

    Flags win over the preset, whose `bytes` are meant per full segment.
    """
    if options.target_bytes is not None:
        return options.target_bytes
    if options.target_bitrate is not None:
        if not frame_rate:
            raise UsageError("a still has no duration: give --bytes or --bpp instead of --bitrate")
        return math.floor(options.target_bitrate * n_frames / frame_rate / 8)
    if options.lambda_ is not None:
        return None
    rate = preset.rate
    if rate.bpp is not None:
        return math.floor(rate.bpp * source_pixels * n_frames / 8)
    if rate.bytes is None:
        return None
    if not frame_rate and rate.still_bytes is not None:
        return rate.still_bytes
    return math.ceil(rate.bytes * max(n_frames / preset.geometry.segment_frames, 0.25))


def with_parts(preset: Preset) -> Preset:
    """The preset without the part of the file to which its split gives nothing.

    A fixed multiplier λ weighs a vector's bits and there is no total to share, so there is a vector then.
    """
    if preset.rate.split is None:
        return preset
    vector, steering = preset.rate.split
    if not steering:
        preset = replace(preset, steering=replace(preset.steering, method="none"))
    if not vector and preset.rate.lambda_ is None:
        preset = replace(preset, adaptation=replace(preset.adaptation, vector_length=0))
    return preset
