"""Structural similarity, at one scale and at several."""

from __future__ import annotations

import numpy as np

from vovcodec.errors import UsageError
from vovcodec.metrics.frames import require_comparable

__all__ = ["SSIM_EVERY", "ms_ssim", "ssim"]

WINDOW = 11
SSIM_EVERY = 8  # neighbouring frames differ little, and time is dear on a CPU
_SIGMA = 1.5
# (K1·L)² and (K2·L)² with K1 = 0.01, K2 = 0.03, L = 255.
_C1, _C2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2
_SCALE_WEIGHTS = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)
_LUMA_BT601 = np.array([0.299, 0.587, 0.114])

_kernel = np.exp(-((np.arange(WINDOW) - WINDOW // 2) ** 2) / (2 * _SIGMA**2))
_kernel /= _kernel.sum()


def ssim(reference: np.ndarray, distorted: np.ndarray, *, channels: str = "rgb", every: int = SSIM_EVERY) -> float:
    """Mean SSIM of a clip, at most 1 (identical).

        SSIM = (2·μx·μy + C1)(2·σxy + C2) / ((μx² + μy² + C1)(σx² + σy² + C2))

    Z. Wang, A. C. Bovik, H. R. Sheikh, E. P. Simoncelli, "Image quality assessment: from error visibility to
    structural similarity", IEEE TIP 13(4), 2004, section III: moments under an 11×11 Gaussian window of sigma 1.5, only
    where the window fits; C1 = (0.01·255)², C2 = (0.03·255)². No downsampling beforehand.

    reference, distorted  uint8 [F, H, W, 3], at least 11×11 pixels
    channels              'rgb': mean of the three components' values; 'luma': Y = 0.299 R + 0.587 G + 0.114 B, not
                          rounded, as the paper does on grey images
    every                 use frames 0, every, 2·every, … only

    Raises UsageError for frames that cannot be compared or are smaller than the window.
    """
    values = [
        float(np.mean(luminance * structure))
        for x, y in _planes(reference, distorted, channels, every)
        for luminance, structure in [_similarities(x, y)]
    ]
    return float(np.mean(values))


def ms_ssim(reference: np.ndarray, distorted: np.ndarray, *, channels: str = "rgb", every: int = SSIM_EVERY) -> float:
    """Mean multi-scale SSIM of a clip, from 0 to 1 (identical).

        MS-SSIM = l_M^(α_M) · Π_{j=1…M} cs_j^(β_j)

    with l·cs averaged together at the coarsest scale, cs alone at the finer ones. Z. Wang, E. P. Simoncelli,
    A. C. Bovik, "Multi-scale structural similarity for image quality assessment", Asilomar 2003, equation 7, with the
    weights of its section 3.2 (0.0448, 0.2856, 0.3001, 0.2363, 0.1333). Between scales 2×2 pixels are averaged (an odd
    last row or column is dropped). Negative means count as 0.

    The coarsest scale has to hold the window, so five scales need a short side of 176 pixels. Smaller pictures use
    fewer scales (88: four, 44: three, 22: two, 11: one) with the weights of the finest ones divided by their sum;
    such values are comparable with each other at one size, not with published ones.

    Arguments and errors as for `ssim`.
    """
    values = []
    for x, y in _planes(reference, distorted, channels, every):
        n_scales = max(n for n in range(1, 6) if n == 1 or min(x.shape) >> (n - 1) >= WINDOW)
        weights = np.array(_SCALE_WEIGHTS[:n_scales])
        means = []
        for scale in range(n_scales):
            luminance, structure = _similarities(x, y)
            is_last = scale == n_scales - 1
            means.append(np.mean(luminance * structure) if is_last else np.mean(structure))
            if not is_last:
                x, y = _halved(x), _halved(y)
        values.append(float(np.prod(np.maximum(means, 0) ** (weights / weights.sum()))))
    return float(np.mean(values))


def _planes(reference: np.ndarray, distorted: np.ndarray, channels: str, every: int):
    """Pairs of float64 [H, W] planes, in 0…255."""
    require_comparable(reference, distorted)
    if channels not in ("rgb", "luma") or every < 1:
        raise UsageError(f"channels are 'rgb' or 'luma' and every is at least 1, not {channels!r} and {every}")
    if min(reference.shape[1:3]) < WINDOW:
        raise UsageError(f"SSIM needs frames of at least {WINDOW}x{WINDOW} pixels")
    for x, y in zip(reference[::every], distorted[::every], strict=True):
        if channels == "luma":
            yield x @ _LUMA_BT601, y @ _LUMA_BT601
        else:
            for channel in range(3):
                yield x[..., channel].astype(np.float64), y[..., channel].astype(np.float64)


def _similarities(x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Maps of the luminance term l and of contrast times structure cs, [H−10, W−10].

    σx² and σy² only occur as a sum, so four filterings do instead of five.
    """
    mean_x, mean_y, square, product = _blurred(np.stack([x, y, x * x + y * y, x * y]))
    mean_product, mean_square = mean_x * mean_y, mean_x * mean_x + mean_y * mean_y
    luminance = (2 * mean_product + _C1) / (mean_square + _C1)
    structure = (2 * (product - mean_product) + _C2) / (square - mean_square + _C2)
    return luminance, structure


def _blurred(planes: np.ndarray) -> np.ndarray:
    """The separable Gaussian over the last two axes, valid region only: [N, H, W] → [N, H−10, W−10].

    Shifted sums, one axis after the other; the window is symmetric, so each weight serves two shifts.
    """
    half = WINDOW // 2
    for axis in (1, 2):
        length = planes.shape[axis] - WINDOW + 1
        shifted = [planes[:, k : k + length] if axis == 1 else planes[:, :, k : k + length] for k in range(WINDOW)]
        total = shifted[half] * _kernel[half]
        pair = np.empty_like(total)
        for k in range(half):
            np.add(shifted[k], shifted[WINDOW - 1 - k], out=pair)
            pair *= _kernel[k]
            total += pair
        planes = total
    return planes


def _halved(plane: np.ndarray) -> np.ndarray:
    height, width = plane.shape[0] // 2 * 2, plane.shape[1] // 2 * 2
    plane = plane[:height, :width]
    return (plane[0::2, 0::2] + plane[1::2, 0::2] + plane[0::2, 1::2] + plane[1::2, 1::2]) / 4
