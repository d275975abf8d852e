"""Peak signal-to-noise ratio."""

from __future__ import annotations

import math

import numpy as np

from vovcodec.metrics.frames import require_comparable

__all__ = ["decibels", "psnr", "psnr_per_frame"]


def decibels(mean_squared_error: float) -> float:
    """10·log10(255² / MSE) of values 0..255; inf for 0."""
    return 10 * math.log10(255**2 / mean_squared_error) if mean_squared_error else math.inf


def psnr(reference: np.ndarray, distorted: np.ndarray) -> float:
    """PSNR of a clip in dB: 10·log10(255² / MSE), the MSE taken once over all frames, pixels and RGB components.

    This weighs errors, not frames: it is at most the mean of the per-frame values. Frames are uint8 [F, H, W, 3]; the
    result is inf for identical clips. Raises UsageError for frames that cannot be compared.
    """
    errors = _squared_errors(reference, distorted)
    return decibels(sum(errors) / reference.size)


def psnr_per_frame(reference: np.ndarray, distorted: np.ndarray) -> list[float]:
    """PSNR of each frame in dB, over its own MSE."""
    return [decibels(error / reference[0].size) for error in _squared_errors(reference, distorted)]


def _squared_errors(reference: np.ndarray, distorted: np.ndarray) -> list[int]:
    """Exact integer sums of squared differences, one per frame."""
    require_comparable(reference, distorted)
    errors = []
    for frame, other in zip(reference, distorted, strict=True):
        difference = frame.astype(np.int32) - other
        errors.append(int(np.square(difference).sum(dtype=np.int64)))
    return errors
