"""Colour code points (ITU-T H.273), their defaults where a file says nothing, and flattening of transparency.

Frames are RGB with the transfer function of the source: matrix and range are undone on reading and applied again on
writing; primaries and transfer are carried along as tags, never converted (images with an ICC profile excepted).
"""

from __future__ import annotations

import numpy as np

__all__ = [
    "BLACK",
    "PRIMARIES_BT709",
    "TRANSFER_BT709",
    "TRANSFER_SRGB",
    "UNSPECIFIED",
    "WHITE",
    "default_matrix",
    "flatten",
    "matrix_for_writing",
    "scaler_colorspace",
]

MATRIX_RGB = 0
MATRIX_BT709 = 1
UNSPECIFIED = 2
MATRIX_BT601 = 6
PRIMARIES_BT709 = 1
TRANSFER_BT709 = 1
TRANSFER_SRGB = 13
TRANSFERS_HDR = {16: "PQ", 18: "HLG"}

BLACK = 0
WHITE = 255

# H.273 matrix code points → libswscale's coefficient tables (SWS_CS_*). BT.2020 constant luminance (10) is treated as
# non-constant, as every player does; YCgCo (8) and ICtCp (14) have no table and fall back to the default with a notice.
_SCALER_COLORSPACES = {1: 1, 4: 4, 5: 5, 6: 5, 7: 7, 9: 9, 10: 9}


def default_matrix(width: int, height: int) -> int:
    """H.273 matrix of a YCbCr picture that carries no tag: BT.709 from 1280 wide or more than 576 high, else BT.601.

    Files mostly have no tag when they are old or small, and this is the rule players agree on. Sizes are of the stored
    picture, before rotation, in pixels.
    """
    return MATRIX_BT709 if width >= 1280 or height > 576 else MATRIX_BT601


def scaler_colorspace(matrix: int, width: int, height: int) -> int:
    """libswscale's table for an H.273 matrix code point, by `default_matrix` when unspecified or without a table."""
    if matrix not in _SCALER_COLORSPACES:
        matrix = default_matrix(width, height)
    return _SCALER_COLORSPACES[matrix]


def has_scaler_colorspace(matrix: int) -> bool:
    """Whether the matrix can be undone exactly: known to the scaler, unspecified (2) or RGB (0)."""
    return matrix in _SCALER_COLORSPACES or matrix in (MATRIX_RGB, UNSPECIFIED)


def matrix_for_writing(matrix: int, width: int, height: int) -> int:
    """H.273 matrix to encode with and to tag: the wanted one where the scaler can apply it, else the default."""
    return matrix if matrix in _SCALER_COLORSPACES else default_matrix(width, height)


def flatten(rgba: np.ndarray, background: int) -> np.ndarray:
    """Composes straight alpha over a grey background: out = round(c·a + b·(1 − a)).

    rgba: uint8 [H, W, 4]. background: 0…255; WHITE for images and web animations, which are drawn for a light page,
    BLACK for video, which is what players show. Returns uint8 [H, W, 3].
    """
    alpha = rgba[..., 3:].astype(np.uint16)
    mixed = rgba[..., :3] * alpha + background * (255 - alpha)
    return ((mixed + 127) // 255).astype(np.uint8)
