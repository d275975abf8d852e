"""Byte budgets: what a rate target leaves for the payloads, and how many atoms fit into a number of bits."""

from __future__ import annotations

import math

from vovcodec.codec.options import EncodeOptions
from vovcodec.entropy.positions import coded_atoms_bits
from vovcodec.errors import UsageError
from vovcodec.presets import Preset
from vovcodec.sampling.steering import SteeringPlan

__all__ = ["DEFAULT_VECTOR_SHARE", "atoms_for_bytes", "target_file_bytes"]

DEFAULT_VECTOR_SHARE = 1 / 12


def target_file_bytes(
    options: EncodeOptions, preset: Preset, *, n_frames: int, n_segments: int, frame_rate: float, source_pixels: int
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


def atoms_for_bytes(plan: SteeringPlan, shape: tuple[int, ...], size_bytes: float) -> int:
    """The largest number of atoms whose coded positions and signs are expected to fit into `size_bytes`."""
    n_positions = plan.n_positions(shape)

    def fits(n_atoms: int) -> bool:
        counts = plan.with_atoms(n_atoms).counts
        return max(counts, default=0) <= n_positions // 2 and coded_atoms_bits(counts, n_positions) <= 8 * size_bytes

    if plan.n_steps < 2 or not fits(1):
        return 0
    low, high = 1, 2
    while fits(high):
        low, high = high, 2 * high
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if fits(middle) else (low, middle)
    return low
