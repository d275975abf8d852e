"""A camera that moves over a picture: where each frame of a clip looks on a picture larger than the frames.

Of n frames of W×H pixels, with x = i + ½ − W/2 and y = j + ½ − H/2 of the pixel in column i and row j, frame f shows at
(x, y) what the picture has at

    X = x + c₀ + c₁·2x/W + c₂·2y/H ,    Y = y + c₃ + c₄·2x/W + c₅·2y/H ,
    c_p[f] = Δ·Σ_k q_p[k]·√(2/n)·cos(π·k·(2f + 1)/2n)

measured from the picture's middle, k = 1, 2, …: the picture is the scene as seen from the mean position. So c is in
pixels at the frame's border. Outside of `crop` (left, right, top, bottom, in quarters of a pixel) frames are black,
pixels that it cuts in part. FORMAT.md, 22.2.

`shown` and `gathered` are nearly inverse to one another: pictures of a scene to frames, and frames to the picture that
they agree on.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property

import torch
import torch.nn.functional as F
from torch import Tensor

from vovcodec.container.camera import picture_size

__all__ = ["BLACK", "Camera", "CameraPath", "cosines"]

BLACK = -1.0
_CROP_UNIT = 4
_LEAST_WEIGHT = 2.0**-10  # of what a frame does not see: its border stands for it where no frame does


@dataclass(frozen=True)
class Camera:
    """As a file has it. path: six rows q_p; Δ = 2^-step_q px. margin (x, y): what the picture has on each side of the
    frames, in units of 8 px. crop (left, right, top, bottom): black bars in quarters of a pixel."""

    path: tuple[tuple[int, ...], ...]
    step_q: int = 2
    margin: tuple[int, int] = (0, 0)
    crop: tuple[int, int, int, int] = (0, 0, 0, 0)


def cosines(n: int, n_rows: int | None = None) -> Tensor:
    """Orthonormal DCT-II without its constant row, float64 [n − 1, n], or the first `n_rows` of these rows."""
    k = torch.arange(1, n, dtype=torch.float64)[:n_rows, None]
    f = torch.arange(n, dtype=torch.float64)
    return math.sqrt(2 / n) * torch.cos(math.pi * k * (2 * f + 1) / (2 * n))


class CameraPath:
    """A camera at the frames of one clip (see the module's docstring).

    Args:
        camera: what the file says.
        n_frames: coded frames n.
        width, height: of the frames in pixels.
        device: of the frames and pictures.
    """

    def __init__(self, camera: Camera, n_frames: int, width: int, height: int, device: torch.device | str) -> None:
        self.camera, self.n_frames, self.width, self.height = camera, n_frames, width, height
        self.picture_size = picture_size(width, height, camera.margin)
        self._device = device
        rows = torch.zeros(6, max(map(len, camera.path)), dtype=torch.float64)
        for row, entries in zip(rows, camera.path, strict=True):
            row[: len(entries)] = torch.tensor(entries, dtype=torch.float64)
        moved = 2.0**-camera.step_q * rows @ cosines(n_frames, rows.shape[1])
        scale = torch.tensor([2.0 / width, 2.0 / height], dtype=torch.float64)
        linear = torch.stack([moved[1:3], moved[4:6]]).permute(2, 0, 1) * scale
        self.linear = torch.eye(2, dtype=torch.float64) + linear
        """[n, 2, 2]: (X, Y) = linear·(x, y) + offset."""
        self.offset = moved[[0, 3]].T
        """[n, 2], in pixels."""

    @cached_property
    def _half(self) -> Tensor:
        return torch.tensor([self.width / 2, self.height / 2], dtype=torch.float64)

    @cached_property
    def _half_picture(self) -> Tensor:
        return torch.tensor(self.picture_size, dtype=torch.float64) / 2

    @cached_property
    def _looked_at(self) -> Tensor:
        """Where on the picture each pixel of each frame looks, as `grid_sample` takes it, [n, H, W, 2]."""
        theta = torch.cat([self.linear * self._half, self.offset[:, :, None]], dim=2) / self._half_picture[:, None]
        return self._grid(theta, self.height, self.width)

    @cached_property
    def _seen_at(self) -> Tensor:
        """Where in each frame each pixel of the picture is, [n, H', W', 2]."""
        inverse = torch.linalg.inv(self.linear)
        offset = -(inverse @ self.offset[:, :, None])
        theta = torch.cat([inverse * self._half_picture, offset], dim=2) / self._half[:, None]
        width, height = self.picture_size
        return self._grid(theta, height, width)

    def _grid(self, theta: Tensor, height: int, width: int) -> Tensor:
        size = [self.n_frames, 1, height, width]
        return F.affine_grid(theta.float().to(self._device), size, align_corners=False)

    @cached_property
    def cover(self) -> Tensor:
        """How much of each pixel is not black, [1, 1, H, W]."""
        left, right, top, bottom = (side / _CROP_UNIT for side in self.camera.crop)
        columns, rows = _covered(self.width, left, right), _covered(self.height, top, bottom)
        return (rows[:, None] * columns).to(self._device)[None, None]

    @cached_property
    def weights(self) -> Tensor:
        """What `gathered` counts each frame's sight of each pixel of the picture by, [n, 1, H', W']."""
        left, right, top, bottom = (math.ceil(side / _CROP_UNIT) for side in self.camera.crop)
        seen = self._seen_at
        x = (seen[..., 0] + 1) * (self.width / 2) - 0.5
        y = (seen[..., 1] + 1) * (self.height / 2) - 0.5
        beyond_x = torch.maximum(left - x, x - (self.width - 1 - right))
        beyond_y = torch.maximum(top - y, y - (self.height - 1 - bottom))
        return (1 - torch.maximum(beyond_x, beyond_y)).clamp(_LEAST_WEIGHT, 1.0)[:, None]

    def looks(self, pictures: Tensor) -> Tensor:
        """Pictures [1, C, H', W'] as each frame sees them, without the black bars: [n, C, H, W]."""
        return _sampled(pictures.expand(self.n_frames, -1, -1, -1), self._looked_at)

    def shown(self, pictures: Tensor) -> Tensor:
        """Pictures [1, C, H', W'] with `BLACK` for black → frames [n, C, H, W]."""
        return BLACK + self.cover * (self.looks(pictures) - BLACK)

    def gathered(self, frames: Tensor) -> Tensor:
        """Frames [n, C, H, W] → the picture they agree on, [1, C, H', W']: their mean where they see it."""
        seen = self.weights * _sampled(frames, self._seen_at)
        return seen.sum(dim=0, keepdim=True) / self.weights.sum(dim=0, keepdim=True)

    def still_part(self, frames: Tensor) -> Tensor:
        """What of frames [n, C, H, W] a picture can show: a (nearly) idempotent, linear map. Black bars stand still."""
        return self.cover * self.looks(self.gathered(frames)) + (1 - self.cover) * frames


def _covered(n: int, first: float, last: float) -> Tensor:
    """How much of each of `n` pixels in a row is left by bars of `first` and `last` pixels."""
    at = torch.arange(n, dtype=torch.float32)
    return torch.minimum(at + 1 - first, n - at - last).clamp(0.0, 1.0)


def _sampled(images: Tensor, grid: Tensor) -> Tensor:
    return F.grid_sample(images, grid, mode="bicubic", padding_mode="border", align_corners=False)
