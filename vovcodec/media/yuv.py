"""RGB to and from the stored pixel formats, through libswscale at its most exact settings."""

from __future__ import annotations

import av
import numpy as np
from av.video.reformatter import Interpolation, VideoReformatter

__all__ = ["RANGE_FULL", "RANGE_LIMITED", "RANGE_UNSPECIFIED", "PixelScaler"]

RANGE_UNSPECIFIED, RANGE_LIMITED, RANGE_FULL = 0, 1, 2

# Exact rounding and full chroma resolution: the fast paths of the scaler are off by up to 3 levels.
_FLAGS = (
    Interpolation.BICUBIC
    | Interpolation.ACCURATE_RND
    | Interpolation.FULL_CHR_H_INT
    | Interpolation.FULL_CHR_H_INP
    | Interpolation.BITEXACT
)


class PixelScaler:
    """One libswscale context, which is set up once for a run of equal frames.

    colorspace: libswscale's table, see `colour.scaler_colorspace`. colour_range: RANGE_LIMITED or RANGE_FULL, of the
    stored picture; RGB is always full range.
    """

    def __init__(self, colorspace: int, colour_range: int):
        self._colorspace, self._range = colorspace, colour_range
        self._reformatter = VideoReformatter()

    def to_rgb(self, picture: av.VideoFrame, width: int, height: int, with_alpha: bool) -> np.ndarray:
        """uint8 [height, width, 3], or 4 with alpha."""
        return self._reformatter.reformat(
            picture, width, height, "rgba" if with_alpha else "rgb24",
            src_colorspace=self._colorspace, dst_colorspace=self._colorspace,
            src_color_range=self._range, dst_color_range=RANGE_FULL, interpolation=_FLAGS, threads=1,
        ).to_ndarray()  # fmt: skip

    def from_rgb(self, frame: np.ndarray, pixel_format: str) -> av.VideoFrame:
        """A picture of the given FFmpeg pixel format from uint8 [H, W, 3]. Chroma is filtered, then subsampled."""
        return self._reformatter.reformat(
            av.VideoFrame.from_ndarray(np.ascontiguousarray(frame), format="rgb24"), format=pixel_format,
            dst_colorspace=self._colorspace, src_color_range=RANGE_FULL, dst_color_range=self._range,
            interpolation=_FLAGS, threads=1,
        )  # fmt: skip
