"""Whether a clip rests on a picture of its scene, and how a camera moves over it (encoder only).

A picture is the mean of the frames where the camera stands still; where it moves (registration.py) the frames are first
brought to one view. With E, what such a picture misses of the frames, and q, the part of the 8×8 blocks in which it
misses less than 5 grey levels, a clip rests on

    the mean                           if E is 23 + 5·(1 − q)⁵ dB or more below the peak: a street with cars does
    a picture that a camera moves over if E is 1 dB smaller for it, and little enough beside what a clip of this
                                       content usually misses for the bytes, by

    10·log₁₀ U/E − 4.6·(the path's part of the bytes) ≥ 1.6 − 0.53·log₂(bytes/400) − 5·q

U being what is left of a clip that rests on nothing (expected.py). Bytes are counted for 192×128 pixels. The unit of
the path is the one with the least E(unit) + D(what it leaves of the bytes), D being what a picture usually misses, 2 dB
less than U.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from vovcodec.backbone.protocol import Backbone, Scene
from vovcodec.codec.expected import PEAK, expected_db
from vovcodec.codec.registration import as_pixels, camera_of, picture_of, register
from vovcodec.container.camera import camera_path_bits
from vovcodec.metrics import decibels
from vovcodec.sampling.camera import Camera, CameraPath

__all__ = ["View", "best_view"]

_BLOCK_PX, _QUIET_LEVELS = 8, 5.0
_LEAST_STILL_DB, _SWAYING_DB, _SWAYING_POWER = 23.0, 5.0, 5
_LEAST_GAINED_DB = 1.0
_BETTER_DB, _PER_OCTAVE_DB, _QUIET_DB, _PATH_DB = 1.6, 0.53, 5.0, 4.6
_STILL_ENOUGH_DB = 34.0  # no camera that moves leaves so little
_FINEST_STEP_Q = 3
_FEW_BYTES, _FEW_BYTES_PIXELS = 400.0, 24_576
_PICTURE_DB, _DB_PER_DECADE = 2.0, 10.3
# 10·log₁₀ E/D up to which there is nothing but the picture. Where the camera moves, E may be everywhere a little, as
# paths are not exact: with less than half of it in a tenth of the blocks, nothing was gained by coding it below 5.5 dB.
# With two thirds there something moves, as before a camera that stands still.
_ALONE_DB, _ALONE_SPREAD_DB = -1.5, 5.5
_CALM_DB = 40.0  # of E: what moves is less than the network of clips can show, 2 dB were lost by it on one such clip
_SPREAD_SHARE, _MOVES_SHARE = 0.5, 0.65
_SIGHT_POWER = 0.25  # of the share of frames that see a place: 0.1 dB better than 0 and, on one of two clips, than 0.5


@dataclass(frozen=True)
class View:
    """A picture that may hold for a clip, [1, 3, H, W] in [−1, 1], as `scene` before a camera that goes along `path`
    (None: it stands still). shown: what frames it makes, float32 [F, H, W, 3], or a single one for all. missed: mean
    squared errors of these in blocks of 8×8 pixels, [F, H/8, W/8]."""

    scene: Scene
    path: CameraPath | None
    picture: Tensor
    shown: np.ndarray
    missed: np.ndarray

    @property
    def camera(self) -> Camera | None:
        """As the file has it; None where it stands still."""
        return self.path.camera if self.path else None

    @property
    def error(self) -> float:
        """E."""
        return float(self.missed.mean()) + 1e-9

    @property
    def below_peak_db(self) -> float:
        """E as a PSNR."""
        return decibels(self.error)

    @property
    def quiet(self) -> float:
        """q."""
        return float((self.missed.mean(axis=0) < _QUIET_LEVELS**2).mean())

    @property
    def path_bytes(self) -> float:
        """What the path takes of the file."""
        return camera_path_bits(self.camera.path) / 8 if self.camera else 0.0

    @property
    def alone_db(self) -> float:
        """Up to which 10·log₁₀ E/D(B) nothing but the picture is coded."""
        if self.below_peak_db >= _CALM_DB:
            return math.inf
        if self.camera is None:
            return _ALONE_DB
        blocks = np.sort(self.missed, axis=None)[::-1]
        share = float(blocks[: len(blocks) // 10].sum() / (blocks.sum() + 1e-9))
        spread = (_MOVES_SHARE - share) / (_MOVES_SHARE - _SPREAD_SHARE)
        return _ALONE_DB + (_ALONE_SPREAD_DB - _ALONE_DB) * min(1.0, max(0.0, spread))

    def weights(self, space_stride: int) -> Tensor | None:
        """What latents of the picture matter, [1, 1, 1, h, w], by how many frames see them; None: all the same."""
        if self.path is None:
            return None
        sight = F.avg_pool2d(self.path.weights.mean(dim=0, keepdim=True), space_stride) ** _SIGHT_POWER
        return (sight / sight.square().mean().sqrt())[:, :, None]

    def missed_by(self, latents: Tensor) -> float:
        """D of a picture's latents."""
        shown = self.scene.shown(latents, len(self.shown))
        return float(np.mean(np.square(shown - self.shown))) + 1e-9


def best_view(backbone: Backbone, frames: np.ndarray, size_bytes: float) -> View | None:
    """The picture that a clip may rest on; None if it may not."""
    mean = frames.mean(axis=0, dtype=np.float32)
    still = View(
        scene=backbone.scene,
        path=None,
        picture=torch.from_numpy(mean).permute(2, 0, 1)[None] / 127.5 - 1.0,
        shown=mean[None],
        missed=_squared_errors(frames, mean[None]),
    )
    if still.below_peak_db < _STILL_ENOUGH_DB and size_bytes > 0:
        moving = _moving_view(backbone, frames, size_bytes, still)
        if moving is not None:
            return moving
    least_db = _LEAST_STILL_DB + _SWAYING_DB * (1 - still.quiet) ** _SWAYING_POWER
    return still if still.below_peak_db >= least_db else None


def _moving_view(backbone: Backbone, frames: np.ndarray, size_bytes: float, still: View) -> View | None:
    """The picture that a camera may move over, by the cheapest path that shows where; None if it is worth none."""
    motion = register(frames)
    pixels, plain_db = as_pixels(frames), expected_db(frames, size_bytes)
    octaves = math.log2(size_bytes / _FEW_BYTES * _FEW_BYTES_PIXELS / (motion.width * motion.height))
    best, least_error, finest_db, least_db = None, math.inf, None, math.inf
    for step_q in range(_FINEST_STEP_Q, -1, -1):
        camera = camera_of(motion, step_q)
        if camera is None:
            continue
        view = _view_by(backbone, camera, frames, pixels)
        if finest_db is None:  # whose error says what the camera is worth, whatever its path will cost
            finest_db = view.below_peak_db
            least_db = plain_db + _BETTER_DB - _PER_OCTAVE_DB * octaves - _QUIET_DB * view.quiet
            if finest_db < max(still.below_peak_db + _LEAST_GAINED_DB, least_db):
                return None
        left = max(1 - view.path_bytes / size_bytes, 0.01)
        error = view.error + PEAK * 10 ** (-(plain_db + _PICTURE_DB + _DB_PER_DECADE * math.log10(left)) / 10)
        if error < least_error:
            best, least_error = view, error
    if best is None or finest_db < least_db + _PATH_DB * best.path_bytes / size_bytes:
        return None
    return best


def _view_by(backbone: Backbone, camera: Camera, frames: np.ndarray, pixels: Tensor) -> View:
    height, width = frames.shape[1:3]
    path = CameraPath(camera, len(frames), width, height, "cpu")
    picture = picture_of(pixels, path)
    shown = (127.5 * (path.shown(picture) + 1)).permute(0, 2, 3, 1).numpy()
    scene = backbone.scene.seen_by(CameraPath(camera, len(frames), width, height, backbone.device))
    return View(scene, path, picture, shown, _squared_errors(frames, shown))


def _squared_errors(frames: np.ndarray, shown: np.ndarray) -> np.ndarray:
    """Means over blocks, [F, H/8, W/8], of uint8 [F, H, W, 3] and as many frames, or one for all."""
    height, width = frames.shape[1:3]
    blocks = (height // _BLOCK_PX, _BLOCK_PX, width // _BLOCK_PX, _BLOCK_PX)
    expected = np.broadcast_to(shown, frames.shape)
    errors = (np.square(a - b).mean(axis=2) for a, b in zip(frames, expected, strict=True))
    return np.stack([each.reshape(blocks).mean(axis=(1, 3)) for each in errors])
