"""What so many bytes are likely to leave of a clip, before it is coded (encoder only).

Coding spends its bytes about as the largest coefficients of a transform would at six bits each: an orthonormal DCT of
16×16 pixels and all frames. Clips come 4 dB closer than these, whatever is in them: with U the error that is left,
within 0.7 dB that held for 22 clips that rest on nothing. Of a clip that rests on a picture,

    min over s of   P(s·B) + min(E, M((1 − s)·B))

P being what such coefficients leave of the picture, E what it misses of the frames, and M the U of that.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from vovcodec.codec.registration import LUMA
from vovcodec.sampling.camera import cosines

__all__ = ["PEAK", "expected_db", "expected_scene_error"]

PEAK = 255.0**2
_BLOCK_PX = 16
_COEFFICIENT_BITS = 6
_CLOSER_DB = 4.0
_MOST_BLOCKS = 200  # enough, and quick for large frames
_COLOURS = (LUMA, (-0.169, -0.331, 0.5), (0.5, -0.419, -0.081))  # Y, Cb, Cr
_SHARES = (0.45, 0.55, 0.65, 0.75, 0.85, 0.92)


def expected_db(frames: np.ndarray, size_bytes: float) -> float:
    """U of frames [F, H, W, 3] in grey levels, in dB below the peak."""
    return 10 * math.log10(PEAK / (_left_by_bytes(frames)(size_bytes) + 1e-9)) - _CLOSER_DB


def expected_scene_error(frames: np.ndarray, picture: np.ndarray, shown: np.ndarray, size_bytes: float) -> float:
    """Mean square of what is left of frames [F, H, W, 3] by picture and clip together.

    picture: [1, H', W', 3] in grey levels, and what it makes of the frames, `shown`, as many or a single one.
    """
    of_picture = _left_by_bytes(picture)
    moving = frames - shown.astype(np.float32)
    most = float(np.square(moving).mean())
    of_moving = _left_by_bytes(moving)
    errors = [of_picture(size_bytes) + most]
    for share in _SHARES:
        moving_error = 10 ** (_CLOSER_DB / 10) * of_moving((1 - share) * size_bytes)
        errors.append(of_picture(share * size_bytes) + min(most, moving_error))
    return min(errors)


def _left_by_bytes(frames: np.ndarray) -> Callable[[float], float]:
    """Bytes → mean square of what that many bytes of the largest coefficients leave of frames [F, H, W, 3]."""
    n_frames, height, width = frames.shape[:3]
    side = _BLOCK_PX
    rows, columns = height // side, width // side
    blocks = frames[:, : rows * side, : columns * side].reshape(n_frames, rows, side, columns, side, 3)
    blocks = blocks.transpose(1, 3, 5, 0, 2, 4).reshape(rows * columns, 3, n_frames, side, side)
    n_blocks = len(blocks)
    blocks = torch.from_numpy(np.ascontiguousarray(blocks[:: -(-n_blocks // _MOST_BLOCKS)])).float()
    colours = torch.einsum("ij,bjfhw->bifhw", torch.tensor(_COLOURS), blocks)
    time, space = _dct(n_frames), _dct(side)
    coefficients = torch.einsum("fg,bighw->bifhw", time, space @ colours @ space.T)
    powers, _ = coefficients.square().flatten().sort()
    left = powers.cumsum(0, dtype=torch.float64) / len(powers)
    taken = len(blocks) / n_blocks

    def left_by(size_bytes: float) -> float:
        n_kept = round(8 * max(size_bytes, 0.0) / _COEFFICIENT_BITS * taken)
        return float(left[-1 - n_kept]) if n_kept < len(left) else 0.0

    return left_by


def _dct(n: int) -> Tensor:
    """The orthonormal DCT-II of n values, [n, n]."""
    return torch.cat([torch.full((1, n), n**-0.5), cosines(n).float()])
