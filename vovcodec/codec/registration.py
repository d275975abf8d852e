"""How a camera moved, found from a clip: the encoder's half of `sampling/camera.py`.

Frames are registered to their mean by Gauss–Newton steps from coarse to fine (Lucas and Kanade 1981): with frames y_f
moved by the present maps, their mean T, and J_f the derivative of y_f by the six parameters p of frame f,

    p_f ← p_f − (Jᵀ·w·J)⁻¹·Jᵀ·w·(y_f − T) ,    w = 1/(1 + ((y_f − T)/r)²) where frame f sees anything, else 0

so that what moves by itself counts less and less. Nothing is assumed of the path; it becomes smooth when it is rounded,
a row of few coefficients.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from vovcodec.container.camera import MARGIN_PX, PATH_ENTRY_MAX, PATH_ROW_MAX, path_is_tame
from vovcodec.sampling.camera import BLACK, Camera, CameraPath, cosines

__all__ = ["LUMA", "Motion", "as_pixels", "camera_of", "picture_of", "register"]

_LEVELS, _STEPS = (3, 2, 1, 0), 8
_MOST_PIXELS = 60_000  # of a frame at level 0: more are no more exact than a path is coded
_ROBUST_AT = 0.1  # r, of the range of luma
_DAMPING = 1e-3
_UNSEEN_LOSS = 0.5  # of log(1 + (residual/r)²): what a frame does not see counts as a bad fit
_INSET_PX = 2  # within the border or the bars: interpolated over the edge
_DARK, _FLAT, _EDGE = 16.0, 6.0, 0.9  # grey levels of a black bar, their deviation; what a bar cuts, of its neighbour
_MOST_BAR_PX = 63
_MOST_MARGIN = 15
_BEYOND_PX = 2.0  # of the picture's edge may be looked at without a margin for it
_DEAD_ZONE = 0.4  # added before rounding down: small coefficients cost more than they give
LUMA = (0.299, 0.587, 0.114)  # BT.601

Bounds = tuple[float, float, float, float]
"""Left, right, top and bottom of what a frame shows, in half sides from its middle."""


@dataclass(frozen=True)
class Motion:
    """maps: float64 [6, n], the parameters c of `sampling/camera.py` before they are rounded. crop: as of `Camera`."""

    maps: Tensor
    width: int
    height: int
    crop: tuple[int, int, int, int]


def as_pixels(frames: np.ndarray) -> Tensor:
    """uint8 [F, H, W, 3] → [F, 3, H, W] in [−1, 1]."""
    return torch.from_numpy(np.ascontiguousarray(frames)).permute(0, 3, 1, 2).float() / 127.5 - 1.0


@torch.no_grad()
def register(frames: np.ndarray) -> Motion:
    """Frames uint8 [F, H, W, 3] → how the camera moved. Where nothing fits, the maps mean nothing."""
    height, width = frames.shape[1:3]
    crop = _black_bars(frames)
    luma = torch.from_numpy(frames.astype(np.float32) @ np.asarray(LUMA, dtype=np.float32) / 255)[:, None]
    factor = max(1, math.isqrt(height * width // _MOST_PIXELS))
    luma = F.avg_pool2d(luma, factor)
    bounds = _bounds(crop, width, height)
    levels = [_smoothed(luma, level) for level in _LEVELS]
    try:
        moved = _inverted(_registered(levels, bounds).double(), width, height)
    except torch.linalg.LinAlgError:  # a map that brings the picture to a line
        moved = torch.zeros(6, len(frames), dtype=torch.float64)
    return Motion(moved, width, height, crop)


def _registered(levels: list[Tensor], bounds: Bounds) -> Tensor:
    """levels: frames from coarse to fine, [n, 1, H, W]. → Maps of the picture to frames, in half sides, [n, 6]."""
    maps = torch.zeros(len(levels[0]), 6)
    for smooth in levels:
        for step in range(_STEPS):
            if step == _STEPS // 2 and smooth is not levels[-1]:
                maps = _rescued(smooth, maps, bounds)
            maps = maps - _step(smooth, maps, bounds)
            maps = maps - maps.mean(dim=0)
    return maps


def _smoothed(luma: Tensor, level: int) -> Tensor:
    """Means over 2^(level + 1) + 1 pixels, and no more of them than that leaves any detail for."""
    if not level:
        return luma
    reach = 2**level
    smooth = F.avg_pool2d(luma, 2 * reach + 1, 1, reach, count_include_pad=False)
    return F.avg_pool2d(smooth, reach // 2) if level > 1 else smooth


def _rescued(luma: Tensor, maps: Tensor, bounds: Bounds) -> Tensor:
    """For each frame its own map, or what the frames before or after it lead to, whichever fits the mean best."""
    before, after = maps.roll(1, dims=0), maps.roll(-1, dims=0)
    before[0], after[-1] = maps[0], maps[-1]
    ahead, back = 2 * before - before.roll(1, dims=0), 2 * after - after.roll(-1, dims=0)
    ahead[:2], back[-2:] = before[:2], after[-2:]
    mean = _seen_from(luma, maps, bounds).mean
    candidates = torch.stack([maps, before, after, ahead, back])
    misfits = []
    for each in candidates:
        view = _seen_from(luma, each, bounds)
        loss = torch.log1p(((view.moved - mean) / _ROBUST_AT).square())
        loss = torch.where(view.seen > 0, loss, _UNSEEN_LOSS)
        misfits.append(loss.flatten(1).mean(dim=1))
    best = torch.stack(misfits).argmin(dim=0)
    return candidates[best, torch.arange(len(maps))]


@dataclass(frozen=True)
class _Seen:
    """Frames brought to a picture of their size, [n, 1, H, W]: `moved`, and whether they see anything there, `seen`.
    basis: [3, H, W], what the parameters of a map are factors of."""

    moved: Tensor
    seen: Tensor
    basis: Tensor

    @property
    def mean(self) -> Tensor:
        return (self.seen * self.moved).sum(dim=0) / self.seen.sum(dim=0).clamp_min(1)


def _seen_from(luma: Tensor, maps: Tensor, bounds: Bounds) -> _Seen:
    """maps: of the picture to frames, in half sides, [n, 6]."""
    height, width = luma.shape[-2:]
    y, x = torch.meshgrid(_centres(height), _centres(width), indexing="ij")
    basis = torch.stack([torch.ones_like(x), x, y])
    at_x = x + torch.einsum("na,ahw->nhw", maps[:, :3], basis)
    at_y = y + torch.einsum("na,ahw->nhw", maps[:, 3:], basis)
    left, right, top, bottom = bounds
    seen = ((at_x > left) & (at_x < right) & (at_y > top) & (at_y < bottom)).float()[:, None]
    moved = F.grid_sample(luma, torch.stack([at_x, at_y], -1), padding_mode="border", align_corners=False)
    return _Seen(moved, seen, basis)


def _step(luma: Tensor, maps: Tensor, bounds: Bounds) -> Tensor:
    """The Gauss–Newton change of the six parameters of each frame, [n, 6]."""
    height, width = luma.shape[-2:]
    view = _seen_from(luma, maps, bounds)
    moved, seen, basis = view.moved, view.seen, view.basis
    residual = moved - view.mean
    weight = (seen / (1 + (residual / _ROBUST_AT).square()))[:, 0].flatten(1)
    by_x = F.pad((moved[..., 2:] - moved[..., :-2]) * (width / 4), (1, 1, 0, 0))
    by_y = F.pad((moved[..., 2:, :] - moved[..., :-2, :]) * (height / 4), (0, 0, 1, 1))
    jacobian = torch.cat([by_x * basis, by_y * basis], dim=1).flatten(2)
    weighted = jacobian * weight[:, None]
    normal = weighted @ jacobian.transpose(1, 2)
    damping = _DAMPING * normal.diagonal(dim1=1, dim2=2).mean() + 1e-9
    right_side = weighted @ residual.flatten(2).transpose(1, 2)
    return torch.linalg.solve(normal + damping * torch.eye(6), right_side)[..., 0]


def _centres(n: int) -> Tensor:
    return (torch.arange(n) + 0.5) * (2 / n) - 1


def _bounds(crop: tuple[int, int, int, int], width: int, height: int) -> Bounds:
    """Between which coordinates in [−1, 1] a frame shows something."""
    left, right, top, bottom = (math.ceil(side / 4) + _INSET_PX for side in crop)
    return 2 * left / width - 1, 1 - 2 * right / width, 2 * top / height - 1, 1 - 2 * bottom / height


def _inverted(maps: Tensor, width: int, height: int) -> Tensor:
    """Maps of the picture to frames, in half sides [n, 6] → maps of frames to the picture, in pixels [6, n]."""
    linear = torch.eye(2, dtype=torch.float64) + torch.stack([maps[:, 1:3], maps[:, 4:6]], dim=1)
    offset = maps[:, [0, 3], None]
    inverse = torch.linalg.inv(linear)
    moved = torch.cat([-(inverse @ offset), inverse - torch.eye(2, dtype=torch.float64)], dim=2)
    moved = moved * torch.tensor([width / 2, height / 2], dtype=torch.float64)[:, None]
    moved = moved.flatten(1).T
    return moved - moved.mean(dim=1, keepdim=True)


def _black_bars(frames: np.ndarray) -> tuple[int, int, int, int]:
    """Of all frames: left, right, top and bottom, in quarters of a pixel."""
    grey = frames.mean(axis=3)
    sides = []
    for axis in (1, 2):  # what is left are columns, then rows
        profile, deviation = grey.mean(axis=(0, axis)), grey.std(axis=(0, axis))
        sides += [_bar(profile, deviation), _bar(profile[::-1], deviation[::-1])]
    left, right, top, bottom = sides
    return left, right, top, bottom


def _bar(profile: np.ndarray, deviation: np.ndarray) -> int:
    """How far a bar reaches into a profile of grey levels, in quarters of a pixel. What is dark further than that is
    the scene."""
    n_dark, most = 0, min(_MOST_BAR_PX, 3 * len(profile) // 8)
    while n_dark < most and profile[n_dark] < _DARK and deviation[n_dark] < _FLAT:
        n_dark += 1
    if n_dark == most:
        return 0
    share = profile[n_dark] / max(float(profile[n_dark + 1]), 1.0)
    cut = round(4 * (1 - share)) if share < _EDGE else 0
    # Of a bar of less than half a pixel a darker edge of the scene cannot be told.
    return 4 * n_dark + cut if n_dark or cut >= 2 else 0


def camera_of(motion: Motion, step_q: int) -> Camera | None:
    """The motion in units of 2^-step_q pixels; None where that is no path a file can have, or none at all."""
    n_frames = motion.maps.shape[1]
    coefficients = motion.maps @ cosines(n_frames, PATH_ROW_MAX).T * 2.0**step_q
    rounded = (coefficients.abs() + _DEAD_ZONE).floor() * coefficients.sign()
    if not bool(rounded.isfinite().all()) or float(rounded.abs().max()) > PATH_ENTRY_MAX or not bool(rounded.any()):
        return None
    path = tuple(_without_last_zeros(row) for row in rounded.long().tolist())
    camera = Camera(path, step_q, crop=motion.crop)
    if not path_is_tame(path, step_q, n_frames, motion.width, motion.height):
        return None
    reach = _reach(CameraPath(camera, n_frames, motion.width, motion.height, "cpu"))
    margin = [math.ceil(max(0.0, beyond - _BEYOND_PX) / MARGIN_PX) for beyond in reach]
    return replace(camera, margin=(margin[0], margin[1])) if max(margin) <= _MOST_MARGIN else None


def _without_last_zeros(row: list[int]) -> tuple[int, ...]:
    n = max((i + 1 for i, entry in enumerate(row) if entry), default=0)
    return tuple(row[:n])


def _reach(path: CameraPath) -> tuple[float, float]:
    """How far beyond a picture of the frames' size the frames look, in pixels."""
    half = torch.tensor([path.width / 2, path.height / 2], dtype=torch.float64)
    furthest = (path.linear.abs() @ half + path.offset.abs()).amax(dim=0) - half
    return float(furthest[0]), float(furthest[1])


@torch.no_grad()
def picture_of(frames: Tensor, path: CameraPath) -> Tensor:
    """The picture [1, 3, H', W'] that frames [n, 3, H, W] in [−1, 1] are best shown by; smooth where none sees it.

    The mean of the frames is interpolated twice until it is shown again: a Landweber step gives back what that takes.
    """
    picture = path.gathered(frames)
    is_seen = path.weights.amax(dim=0, keepdim=True) >= 0.5
    picture = picture + is_seen * path.gathered(path.cover * (frames - path.shown(picture)))
    return torch.where(is_seen, picture, _filled(picture, is_seen)).clamp(BLACK, 1.0)


def _filled(picture: Tensor, is_seen: Tensor) -> Tensor:
    """A smooth continuation beyond what is seen: means of ever larger areas."""
    value, weight, levels = picture * is_seen, is_seen.float(), []
    while max(value.shape[-2:]) > 1:
        levels.append((value, weight))
        value, weight = (F.avg_pool2d(each, 2, ceil_mode=True) for each in (value, weight))
    filled = value / weight.clamp_min(1e-6)
    for value, weight in reversed(levels):
        filled = F.interpolate(filled, size=value.shape[-2:], mode="bilinear", align_corners=False)
        filled = torch.where(weight > 0, value / weight.clamp_min(1e-6), filled)
    return filled
