"""Averages an estimate of a clip along the motion that it shows itself ("motion-compensated temporal filtering").

The networks see what stays in its place from frame to frame, but hardly what moves. Their errors differ along a path of
motion, so the mean over such a path has less of them. The decoder finds the motion in the estimate: no bit is spent on
it. Per pair of neighbouring frames A, B, at half their size, the flow u with B(p + u) ≈ A(p) is one Gauss-Newton step
on every level of a pyramid (Lucas and Kanade 1981), with m = (A + B(p + u))/2 and means ⟨·⟩ over 5×5 pixels,

    u ← ⟨u + clamp( [⟨∇m∇mᵀ⟩ + ρ·I]⁻¹·⟨∇m·(A − B(p + u))⟩, ±2 )⟩,     ρ = v/50

and paths are chains of these. With v(t) the usual error of x̂₀'s luma, a frame counts by how much it looks the same:

    x̂₀(p, f) ← Σ_d k_d·s(p + u_d, f + d) / Σ_d k_d,     k_d = exp(−2·e_d/v),     d = −4 … 4
    s = x̂₀ + κ·⟨x_t/(1 − t) − x̂₀⟩₃,                     κ = min(1, 0.06·v/σ²),   σ = t/(1 − t)

e_d: mean squared difference to frame f over 5×5 pixels of half the size around p. What x̂₀ leaves of x_t is noise for
the most part, but less so in the mean of nine frames. FORMAT.md, section 22.3. Other windows, reaches and weights are
within 0.05 dB of these, of errors at a single step; cubic interpolation is 0.08 dB worse on a clip that rests on a
picture of its scene. Paths found in the original would be worth two to four times as much.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

__all__ = ["mean_along_motion"]

_SCALES = (8, 4, 2)  # pixels; flows are wanted at the last one
_REACH = 4  # frames before and after
_WINDOW = 5
_RIDGE, _TOLERANCE = 0.02, 0.5  # of v
_TRUST = 0.06  # in what is left, of v/σ²
_LONGEST_STEP = 2.0

FramePlanes = tuple[Tensor, Tensor]
"""Luma [F, 1, H, W] and chroma [F, C, H/2, W/2] of a clip, H and W multiples of 8."""


def _usual_error(t: float) -> float:
    """v(t), mean squared error of the luma of estimates at time t (fitted to eleven clips of the training set)."""
    return 0.12 * t**0.7


def mean_along_motion(planes: FramePlanes, t: float, left: FramePlanes | None = None) -> FramePlanes:
    """x̂₀'s planes, averaged along its motion (see the module's docstring).

    t: time in (0, 1). left: planes of x_t/(1 − t) − x̂₀; None: s is x̂₀.
    """
    error, shown = _usual_error(t), planes
    if left is not None:
        trust = min(1.0, _TRUST * error * ((1 - t) / t) ** 2)
        shown = tuple(x + trust * _mean(noise, 3) for x, noise in zip(planes, left, strict=True))
    after = _from_frames_after(planes[0], shown, error)
    before = _from_frames_after(planes[0].flip(0), tuple(x.flip(0) for x in shown), error)
    weights, luma, chroma = (a + b.flip(0) for a, b in zip(after, before, strict=True))
    return (shown[0] + luma) / (1 + _twice_as_large(weights)), (shown[1] + chroma) / (1 + weights)


def _from_frames_after(luma: Tensor, shown: FramePlanes, error: float) -> tuple[Tensor, Tensor, Tensor]:
    """Σ_d k_d, [F, 1, H/2, W/2], and Σ_d k_d·s of luma and chroma over the frames after each, d = 1 … 4."""
    weights, lumas, chromas = torch.zeros_like(shown[1][:, :1]), torch.zeros_like(luma), torch.zeros_like(shown[1])
    both = torch.cat([luma, shown[0]], dim=1)
    to_next = _flow(luma[:-1], luma[1:], _RIDGE * error)
    path = to_next
    for distance in range(1, min(_REACH, len(luma) - 1) + 1):
        if distance > 1:
            path = path[:-1] + _moved(to_next[distance - 1 :], path[:-1])
        there, shown_there = _moved(both[distance:], 2 * _twice_as_large_smoothly(path)).split(1, dim=1)
        unlike = F.avg_pool2d((there - luma[:-distance]).square(), 2)
        alike = torch.exp(-_mean(unlike) / (_TOLERANCE * error))
        weights[:-distance] += alike
        lumas[:-distance] += _twice_as_large(alike) * shown_there
        chromas[:-distance] += alike * _moved(shown[1][distance:], path)
    return weights, lumas, chromas


def _flow(first: Tensor, second: Tensor, ridge: float) -> Tensor:
    """u with second(p + u) ≈ first(p), for pairs of images [N, 1, H, W]: [N, 2, H/2, W/2], x and y in pixels of half
    the size."""
    flow = None
    for scale in _SCALES:
        a, b = F.avg_pool2d(first, scale), F.avg_pool2d(second, scale)
        flow = a.new_zeros(len(a), 2, *a.shape[-2:]) if flow is None else 2 * _twice_as_large_smoothly(flow)
        moved = _moved(b, flow)
        dx, dy = _gradient((a + moved) / 2)
        left = a - moved
        products = torch.cat([dx * dx, dx * dy, dy * dy, dx * left, dy * left], dim=1)
        xx, xy, yy, x_left, y_left = _mean(products).split(1, dim=1)
        xx, yy = xx + ridge, yy + ridge
        step = torch.cat([yy * x_left - xy * y_left, xx * y_left - xy * x_left], dim=1) / (xx * yy - xy * xy)
        flow = _mean(flow + step.clamp(-_LONGEST_STEP, _LONGEST_STEP))
    return flow


def _gradient(image: Tensor) -> tuple[Tensor, Tensor]:
    """Central differences along x and y."""
    x = F.pad(image, (1, 1, 1, 1), mode="replicate")
    return (x[..., 1:-1, 2:] - x[..., 1:-1, :-2]) / 2, (x[..., 2:, 1:-1] - x[..., :-2, 1:-1]) / 2


def _mean(images: Tensor, window: int = _WINDOW) -> Tensor:
    """Over 5×5 pixels, or so many, edges repeated."""
    height, width = images.shape[-2:]
    x = F.pad(images, (window // 2,) * 4, mode="replicate")
    # As sums of shifted images, which is three times as fast as a pooling of stride 1.
    rows = sum(x[..., i : i + height, :] for i in range(window))
    return sum(rows[..., i : i + width] for i in range(window)) / window**2


def _moved(images: Tensor, flow: Tensor) -> Tensor:
    """images(p + u), bilinear, edges repeated. images [N, C, H, W], flow [N, 2, H, W] in pixels."""
    height, width = images.shape[-2:]
    x = (2 * torch.arange(width, device=images.device) + 1) / width - 1
    y = (2 * torch.arange(height, device=images.device) + 1) / height - 1
    at = torch.stack([x + flow[:, 0] * (2 / width), y[:, None] + flow[:, 1] * (2 / height)], dim=-1)
    return F.grid_sample(images, at, mode="bilinear", padding_mode="border", align_corners=False)


def _twice_as_large(images: Tensor) -> Tensor:
    return F.interpolate(images, scale_factor=2, mode="nearest")


def _twice_as_large_smoothly(images: Tensor) -> Tensor:
    return F.interpolate(images, scale_factor=2, mode="bilinear", align_corners=False)
