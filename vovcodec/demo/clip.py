"""A clip with real picture content, made on the fly: a camera moves over a photograph."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

import numpy as np
from PIL import Image

from vovcodec.errors import UsageError
from vovcodec.media import open_writer

__all__ = ["FRAME_RATE", "HEIGHT", "N_FRAMES", "WIDTH", "camera_motion", "find_photograph", "write_clip"]

WIDTH, HEIGHT = 416, 240
N_FRAMES = 33
FRAME_RATE = Fraction(25)

# The camera's view at the first and last frame: (centre x, centre y, width) as shares of the photograph's width.
_VIEW_BEGIN = (0.48, 0.31, 0.90)
_VIEW_END = (0.56, 0.34, 0.72)


def find_photograph() -> Path:
    """`coffee.png` (Rachel Michetti, CC0, 600×400) as scikit-image ships it. Raises UsageError without scikit-image."""
    found = importlib.util.find_spec("skimage")
    folders = found.submodule_search_locations if found else None
    for folder in folders or ():
        path = Path(folder) / "data" / "coffee.png"
        if path.is_file():
            return path
    raise UsageError("the demo's photograph comes with scikit-image: pip install 'vovcodec[demo]'")


def camera_motion(photograph: Image.Image, n_frames: int = N_FRAMES) -> Iterator[np.ndarray]:
    """Frames uint8 [HEIGHT, WIDTH, 3] of a pan and zoom that starts and ends softly: s = 3u² − 2u³, u from 0 to 1."""
    photograph = photograph.convert("RGB")
    for index in range(n_frames):
        u = index / max(1, n_frames - 1)
        s = 3 * u**2 - 2 * u**3
        x, y, view = (photograph.width * (a + (b - a) * s) for a, b in zip(_VIEW_BEGIN, _VIEW_END, strict=True))
        scale = view / WIDTH  # photograph pixels per frame pixel
        left, top = x - view / 2, y - scale * HEIGHT / 2
        # Sub-pixel steps, so that the motion is as smooth as a camera's.
        frame = photograph.transform(
            (WIDTH, HEIGHT), Image.Transform.AFFINE, (scale, 0, left, 0, scale, top), Image.Resampling.BICUBIC
        )
        yield np.asarray(frame)


def write_clip(path: Path) -> None:
    """Writes the demo clip as a video, visually lossless."""
    with (
        Image.open(find_photograph()) as photograph,
        open_writer(path, width=WIDTH, height=HEIGHT, frame_rate=FRAME_RATE, quality=12, overwrite=True) as writer,
    ):
        for frame in camera_motion(photograph):
            writer.write(frame)
