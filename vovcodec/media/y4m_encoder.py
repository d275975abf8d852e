"""YUV4MPEG2, the uncompressed stream that encoders and players take from pipes. See `writer.Encoder`.

Written here and not by FFmpeg's muxer, because PyAV cannot give that the shape of a pixel.
"""

from __future__ import annotations

from fractions import Fraction

import numpy as np

from vovcodec.media import colour
from vovcodec.media.output import FileOutput, StreamOutput
from vovcodec.media.yuv import RANGE_LIMITED, PixelScaler

__all__ = ["Y4mEncoder"]


class Y4mEncoder:
    """8-bit 4:2:0, limited range, progressive. The stream has no tag for the matrix: `colour.default_matrix` it is."""

    def __init__(
        self, output: FileOutput | StreamOutput, width: int, height: int, frame_rate: Fraction, sample_aspect: Fraction
    ):
        self.notices: list[str] = []
        self._scaler = PixelScaler(colour.scaler_colorspace(colour.UNSPECIFIED, width, height), RANGE_LIMITED)
        self._file = output.path.open("wb") if output.path else output
        self._is_own = output.path is not None
        rate, aspect = (f"{x.numerator}:{x.denominator}" for x in (frame_rate, sample_aspect))
        header = f"YUV4MPEG2 W{width} H{height} F{rate} Ip A{aspect} C420jpeg XYSCSS=420JPEG XCOLORRANGE=LIMITED\n"
        self._file.write(header.encode("ascii"))

    def add(self, frame: np.ndarray) -> None:
        picture = self._scaler.from_rgb(frame, "yuv420p")
        parts = [b"FRAME\n"]
        for plane in picture.planes:
            rows = np.frombuffer(plane, dtype=np.uint8).reshape(plane.height, plane.line_size)
            parts.append(rows[:, : plane.width].tobytes())
        self._file.write(b"".join(parts))

    def finish(self) -> None:
        self.release()

    def release(self) -> None:
        if self._is_own:
            self._file.close()
