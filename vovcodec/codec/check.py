"""The check section: a few bytes that tell a decoder whether it saw what the encoder saw.

A 4×2 luma thumbnail, averaged over all frames of the segment, survives the last-bit differences between devices and
does not survive a wrong model, wrong noise or a broken decode.
"""

from __future__ import annotations

import math

import numpy as np

from vovcodec.container import SegmentCheck

__all__ = ["LEAST_AGREEMENT_DB", "drift_db", "segment_check", "thumbnail"]

# Two and a half grey levels in every area. Decodes that differ in threads or precision (float32, bfloat16) are equal or
# one level apart in single areas, 48 dB or more; other noise gives 15 dB (bench/drift.py, bench/results/*_drift.tsv).
LEAST_AGREEMENT_DB = 40.0
_WIDTH, _HEIGHT = 4, 2
_LUMA = np.array([0.299, 0.587, 0.114])


def thumbnail(frames: np.ndarray, width: int = _WIDTH, height: int = _HEIGHT) -> np.ndarray:
    """Mean luma (BT.601 weights) of a width × height grid of areas over all frames, uint8 [height, width]."""
    luma = frames.mean(axis=0, dtype=np.float64) @ _LUMA
    rows = [block.mean(axis=0) for block in np.array_split(luma, height, axis=0)]
    cells = [[cell.mean() for cell in np.array_split(row, width)] for row in rows]
    return np.rint(np.clip(cells, 0, 255)).astype(np.uint8)


def segment_check(frames: np.ndarray, psnr_db: float) -> SegmentCheck:
    """What the encoder stores about its own decoded `frames` and their PSNR against the coded-size original."""
    return SegmentCheck(
        psnr_q=min(65535, max(0, round(256 * psnr_db))) if math.isfinite(psnr_db) else 65535,
        thumbnail_width=_WIDTH,
        thumbnail_height=_HEIGHT,
        thumbnail=thumbnail(frames).tobytes(),
    )


def drift_db(frames: np.ndarray, check: SegmentCheck) -> float | None:
    """PSNR in dB between the stored and this machine's thumbnail; infinite when equal, None without a thumbnail.

    From `LEAST_AGREEMENT_DB` on the two decodes agree to within rounding; a wrong model gives 10 to 25 dB.
    """
    if not check.thumbnail:
        return None
    stored = np.frombuffer(check.thumbnail, dtype=np.uint8).reshape(check.thumbnail_height, check.thumbnail_width)
    here = thumbnail(frames, check.thumbnail_width, check.thumbnail_height)
    error = np.mean((stored.astype(np.float64) - here) ** 2)
    return math.inf if error == 0 else 10 * math.log10(255**2 / error)
