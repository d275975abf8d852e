"""The check section: a few bytes that tell a decoder whether it saw what the encoder saw.

A 4×2 luma thumbnail of 16 levels, averaged over all frames of the segment, survives the last-bit differences between
devices and does not survive a wrong model, wrong noise or a broken decode.
"""

from __future__ import annotations

import math

import numpy as np

from vovcodec.container import SegmentCheck
from vovcodec.container.layout import PSNR_Q_MAX
from vovcodec.metrics import decibels

__all__ = ["LEAST_AGREEMENT_DB", "drift_db", "segment_check", "thumbnail"]

# Two and a half grey levels beyond the stored ones in every area. Decodes that differ in threads or precision (float32,
# bfloat16) are within them or one level off in single areas; other noise gives 15 dB (bench/results/*_drift.tsv).
LEAST_AGREEMENT_DB = 40.0
_WIDTH, _HEIGHT = 4, 2
_LEVEL = 16.0  # grey levels that one stored value stands for
_LUMA = np.array([0.299, 0.587, 0.114])


def thumbnail(frames: np.ndarray, width: int = _WIDTH, height: int = _HEIGHT) -> np.ndarray:
    """Mean luma (BT.601 weights) of a width × height grid of areas over all frames, float64 [height, width], 0..255."""
    luma = frames.mean(axis=0, dtype=np.float64) @ _LUMA
    rows = [block.mean(axis=0) for block in np.array_split(luma, height, axis=0)]
    return np.clip([[cell.mean() for cell in np.array_split(row, width)] for row in rows], 0.0, 255.0)


def segment_check(frames: np.ndarray, psnr_db: float) -> SegmentCheck:
    """What the encoder stores about its own decoded `frames` and their PSNR against the coded-size original."""
    return SegmentCheck(
        psnr_q=min(PSNR_Q_MAX, max(0, round(16 * psnr_db))) if math.isfinite(psnr_db) else PSNR_Q_MAX,
        thumbnail_width=_WIDTH,
        thumbnail_height=_HEIGHT,
        thumbnail=_packed(thumbnail(frames)),
    )


def drift_db(frames: np.ndarray, check: SegmentCheck) -> float | None:
    """PSNR in dB between the stored and this machine's thumbnail; infinite within the stored levels, None without one.

    The error of an area is how far its mean luma lies outside of the 16 grey levels that the file names.
    From `LEAST_AGREEMENT_DB` on the two decodes agree to within rounding; a wrong model gives 10 to 25 dB.
    """
    if not check.thumbnail or not check.thumbnail_width * check.thumbnail_height:
        return None
    lower = _LEVEL * _unpacked(check)
    here = thumbnail(frames, check.thumbnail_width, check.thumbnail_height)
    error = np.mean(np.maximum(0.0, np.maximum(lower - here, here - (lower + _LEVEL))) ** 2)
    return decibels(error)


def _packed(cells: np.ndarray) -> bytes:
    values = [int(value // _LEVEL) for value in cells.flat]
    values += [0] * (len(values) % 2)
    return bytes(16 * high + low for high, low in zip(values[::2], values[1::2], strict=True))


def _unpacked(check: SegmentCheck) -> np.ndarray:
    """The stored levels, float64 [height, width]. Cells beyond the stored bytes are black."""
    n_cells = check.thumbnail_width * check.thumbnail_height
    values = [level for byte in check.thumbnail for level in divmod(byte, 16)][:n_cells]
    values += [0] * (n_cells - len(values))
    return np.reshape(np.array(values, dtype=np.float64), (check.thumbnail_height, check.thumbnail_width))
