"""Whether a clip rests on a picture of its scene, and how a camera moves over it (encoder only).

A picture is the mean of the frames where the camera stands still; where it moves (registration.py) the frames are first
brought to one view. With E, what such a picture misses of the frames, and q, the part of the 8×8 blocks in which it
misses less than 5 grey levels, a clip rests on

    the mean                           if E is 23 + 5·(1 − q)⁵ dB or more below the peak: a street with cars does
    a picture that a camera moves over if E is G ≥ 1.5 dB smaller for it, and 21.2 + 22·(1 − q)³ − 0.4·G dB below the
                                       peak: then most that the picture does not show has a place of its own

The unit of the path is the one with the least E(unit) + D(what it leaves), D being what pictures of so many pixels
usually miss for the bytes.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from vovcodec.backbone.protocol import Backbone, Scene
from vovcodec.codec.registration import as_pixels, camera_of, picture_of, register
from vovcodec.container.camera import camera_path_bits
from vovcodec.sampling.camera import Camera, CameraPath

__all__ = ["View", "best_view"]

_PEAK = 255.0**2
_BLOCK_PX, _QUIET_LEVELS = 8, 5.0
_LEAST_STILL_DB, _SWAYING_DB, _SWAYING_POWER = 23.0, 5.0, 5
_LEAST_MOVING_DB, _LOOSE_DB, _LOOSE_POWER, _PER_GAINED_DB = 21.2, 22.0, 3, 0.4
_LEAST_GAINED_DB = 1.5
_STILL_ENOUGH_DB = 34.0  # no camera that moves leaves so little
_FINEST_STEP_Q = 3
_USUAL_DB, _USUAL_BYTES, _USUAL_PIXELS, _DB_PER_DECADE = 26.8, 400.0, 24_576, 10.3
# 10·log₁₀ E/D up to which there is nothing but the picture. Where the camera moves, E may be everywhere a little, as
# paths are not exact: with less than half of it in a tenth of the blocks, nothing was gained by coding it below 5.5 dB.
# With two thirds there something moves, as before a camera that stands still.
_ALONE_DB, _ALONE_SPREAD_DB = -1.5, 5.5
_SPREAD_SHARE, _MOVES_SHARE = 0.5, 0.65


@dataclass(frozen=True)
class View:
    """A picture that may hold for a clip: `picture` [1, 3, H, W] in [−1, 1], through `scene` and `camera` (None: it
    stands still). shown: what frames it makes, float32 [F, H, W, 3], or a single one for all. missed: mean squared
    errors of these in blocks of 8×8 pixels, [F, H/8, W/8]."""

    scene: Scene
    camera: Camera | None
    picture: Tensor
    shown: np.ndarray
    missed: np.ndarray

    @property
    def error(self) -> float:
        """E."""
        return float(self.missed.mean()) + 1e-9

    @property
    def below_peak_db(self) -> float:
        return 10 * math.log10(_PEAK / self.error)

    @property
    def quiet(self) -> float:
        """q."""
        return float((self.missed.mean(axis=0) < _QUIET_LEVELS**2).mean())

    @property
    def alone_db(self) -> float:
        """Up to which 10·log₁₀ E/D(B) nothing but the picture is coded."""
        if self.camera is None:
            return _ALONE_DB
        blocks = np.sort(self.missed, axis=None)[::-1]
        share = float(blocks[: len(blocks) // 10].sum() / (blocks.sum() + 1e-9))
        spread = (_MOVES_SHARE - share) / (_MOVES_SHARE - _SPREAD_SHARE)
        return _ALONE_DB + (_ALONE_SPREAD_DB - _ALONE_DB) * min(1.0, max(0.0, spread))

    def missed_by(self, latents: Tensor) -> float:
        """D of a picture's latents."""
        shown = self.scene.shown(latents, len(self.shown))
        return float(np.mean(np.square(shown - self.shown))) + 1e-9


def best_view(backbone: Backbone, frames: np.ndarray, size_bytes: float) -> View | None:
    """The picture that a clip may rest on; None if it may not."""
    mean = frames.mean(axis=0, dtype=np.float32)
    still = View(
        scene=backbone.scene,
        camera=None,
        picture=torch.from_numpy(mean).permute(2, 0, 1)[None] / 127.5 - 1.0,
        shown=mean[None],
        missed=_squared_errors(frames, mean[None]),
    )
    if still.below_peak_db < _STILL_ENOUGH_DB:
        moving = _moving_view(backbone, frames, size_bytes, still)
        if moving is not None:
            return moving
    least_db = _LEAST_STILL_DB + _SWAYING_DB * (1 - still.quiet) ** _SWAYING_POWER
    return still if still.below_peak_db >= least_db else None


def _moving_view(backbone: Backbone, frames: np.ndarray, size_bytes: float, still: View) -> View | None:
    """The picture that a camera may move over, by the cheapest path that shows where; None if it is worth none."""
    motion = register(frames)
    pixels = as_pixels(frames)
    views: list[View] = []
    for step_q in range(_FINEST_STEP_Q, -1, -1):
        camera = camera_of(motion, step_q)
        if camera is None:
            continue
        path = CameraPath(camera, len(frames), motion.width, motion.height, "cpu")
        picture = picture_of(pixels, path)
        shown = (127.5 * (path.shown(picture) + 1)).permute(0, 2, 3, 1).numpy()
        scene = backbone.scene.seen_by(CameraPath(camera, path.n_frames, path.width, path.height, backbone.device))
        views.append(View(scene, camera, picture, shown, _squared_errors(frames, shown)))
        gained_db = views[0].below_peak_db - still.below_peak_db
        least_db = _LEAST_MOVING_DB + _LOOSE_DB * (1 - views[0].quiet) ** _LOOSE_POWER - _PER_GAINED_DB * gained_db
        if gained_db < _LEAST_GAINED_DB or views[0].below_peak_db < least_db:
            return None
    return min(views, key=lambda view: _expected_error(view, size_bytes), default=None)


def _expected_error(view: View, size_bytes: float) -> float:
    """E and what a picture usually misses for the bytes that are left beside its path."""
    left = max(size_bytes - camera_path_bits(view.camera.path) / 8, 1.0)
    per_pixel = left / _USUAL_BYTES * _USUAL_PIXELS / math.prod(view.picture.shape[-2:])
    return view.error + _PEAK * 10 ** (-(_USUAL_DB + _DB_PER_DECADE * math.log10(per_pixel)) / 10)


def _squared_errors(frames: np.ndarray, shown: np.ndarray) -> np.ndarray:
    """Means over blocks, [F, H/8, W/8], of uint8 [F, H, W, 3] and as many frames, or one for all."""
    height, width = frames.shape[1:3]
    blocks = (height // _BLOCK_PX, _BLOCK_PX, width // _BLOCK_PX, _BLOCK_PX)
    expected = np.broadcast_to(shown, frames.shape)
    errors = (np.square(a - b).mean(axis=2) for a, b in zip(frames, expected, strict=True))
    return np.stack([each.reshape(blocks).mean(axis=(1, 3)) for each in errors])
