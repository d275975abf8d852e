"""What the convolutional networks that complete the transformer's estimate share (pictures.py, clips.py, detail.py)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache

import torch
import torch.nn.functional as F
from torch import Tensor, nn

__all__ = [
    "LITTLE_NOISE",
    "ResidualBlock",
    "TimeEmbedding",
    "dct_matrix",
    "noise_level",
    "noise_share",
    "residual_levels",
    "restoring_gain",
    "shrunk",
    "with_filtered_residual",
]

_TIME_FEATURES = 32
_EPSILON = 1e-4
LITTLE_NOISE = 0.02  # up to this time `with_filtered_residual` is worth its while
_WINDOW = 9  # pixels
_CERTAIN = 1.3  # times σ²: 3.3 standard deviations above what noise alone has in 9×9 pixels of three colours


def noise_level(t: Tensor) -> Tensor:
    """σ = t/(1 − t): the noise's standard deviation when x_t is scaled back to x₀."""
    return t / (1 - t).clamp_min(1e-4)


def with_filtered_residual(clean: Tensor, x_t: Tensor, t: Tensor) -> Tensor:
    """x̂₀ + g·r, r = x_t/(1 − t) − x̂₀: takes back what an estimate took for noise.

    What the best estimate leaves has less power than the noise, E r² = σ² − E(x̂₀ − x₀)². Where it has more, the rest is
    picture that the network does not know, and a Wiener filter (Lee 1980, with local variances) keeps

        g = max(0, 1 − 1.3·σ²/m)

    of it, m being the mean square of r over 9×9 pixels and three colours.

    clean, x_t: [N, 3, H, W], H and W at least 5; t: times in (0, 1), broadcastable to them.
    """
    left = x_t / (1 - t) - clean
    half = _WINDOW // 2
    power = F.pad(left.square().mean(dim=1, keepdim=True), (half,) * 4, mode="reflect")
    power = F.avg_pool2d(power, _WINDOW, stride=1).clamp_min(1e-12)
    return clean + (1 - _CERTAIN * noise_level(t).square() / power).clamp_min(0) * left


@lru_cache(maxsize=16)
def dct_matrix(n: int) -> Tensor:
    """The orthonormal DCT-II of n values, float32 [n, n]: rows are frequencies."""
    k = torch.arange(n, dtype=torch.float64)
    scale = torch.full_like(k, math.sqrt(2.0 / n))
    scale[0] /= math.sqrt(2.0)
    matrix = torch.empty(n, n)
    # In parts: in float64 all of it would take several times the memory.
    for part, rows, scales in zip(matrix.split(64), k.split(64), scale.split(64), strict=True):
        part.copy_(torch.cos(math.pi / n * (k + 0.5) * rows[:, None]) * scales[:, None])
    return matrix


def noise_share(sigma: Tensor) -> Tensor:
    """u = σ/(σ + ¼), 0 without noise and 1 for noise alone."""
    return sigma / (sigma + 0.25)


def restoring_gain(damping: Tensor, sigma: Tensor, leak: float) -> Tensor:
    """W/(W² + leak·u): undoes a damping W where that is not small, for what the transformer is shown.

    Where W is small, 1/W would blow noise of high frequencies up until it leaks into every block. That this falls with
    the noise, u = `noise_share`, was best when the transformer's error was measured.
    """
    return damping / (damping.square() + leak * noise_share(sigma))


def shrunk(x: Tensor, convolution: nn.Conv2d) -> Tensor:
    """`convolution` (1×1, 4·C channels in) of `F.pixel_unshuffle(x, 2)`, as one convolution of stride 2."""
    weight = convolution.weight.view(convolution.out_channels, -1, 2, 2)
    return F.conv2d(x, weight, convolution.bias, stride=2)


def residual_levels(widths: Sequence[int], blocks: Sequence[int], time_width: int) -> nn.ModuleList:
    """For every size a list of so many residual blocks of its width."""
    return nn.ModuleList(
        [nn.ModuleList([ResidualBlock(w, time_width) for _ in range(n)]) for w, n in zip(widths, blocks, strict=True)]
    )


class TimeEmbedding(nn.Sequential):
    """Times [B] → [B, width]."""

    def __init__(self, width: int) -> None:
        super().__init__(nn.Linear(2 * _TIME_FEATURES, width), nn.GELU(approximate="tanh"))

    def forward(self, t: Tensor) -> Tensor:
        """t in [0, 1]."""
        frequencies = torch.exp(torch.linspace(0, math.log(1000), _TIME_FEATURES, device=t.device))
        angles = t.float()[:, None] * frequencies
        return super().forward(torch.cat([angles.sin(), angles.cos()], dim=1))


class ResidualBlock(nn.Module):
    """Two 3×3 convolutions after a normalisation (root mean square over channels), residual, scaled and shifted by the
    time's embedding between them.

    Given the number of frames, the first convolution sees a quarter of its channels one frame earlier and a quarter one
    frame later ("temporal shift", Lin et al. 2019, arXiv 1811.08383); beyond the ends they are zero.
    """

    def __init__(self, width: int, time_width: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(width, width, 3, padding=1)
        self.second = nn.Conv2d(width, width, 3, padding=1)
        self.modulation = nn.Linear(time_width, 2 * width)
        nn.init.zeros_(self.modulation.weight)
        nn.init.zeros_(self.modulation.bias)
        nn.init.zeros_(self.second.bias)
        with torch.no_grad():
            self.second.weight.mul_(0.2)

    def forward(self, x: Tensor, time: Tensor, n_frames: int = 1) -> Tensor:
        """x [B·F, C, h, w], frames of a sample one after the other; time [B, time_width]."""
        scale, shift = self.modulation(time).chunk(2, dim=1)
        normal = F.rms_norm(x.permute(0, 2, 3, 1), x.shape[1:2], eps=_EPSILON)  # [B·F, h, w, C]
        if n_frames > 1:
            normal = _shifted(normal, n_frames)
        normal = normal.permute(0, 3, 1, 2)
        if len(time) == 1:
            # All frames are modulated alike: the convolution can do it, in place of two passes over its output.
            weight = self.first.weight * (1 + scale).view(-1, 1, 1, 1)
            hidden = F.conv2d(normal, weight, self.first.bias * (1 + scale[0]) + shift[0], padding=1)
        else:
            scale, shift = (v.repeat_interleave(n_frames, 0)[:, :, None, None] for v in (scale, shift))
            hidden = self.first(normal) * (1 + scale) + shift
        return self.second(F.gelu(hidden, approximate="tanh")).add_(x)


def _shifted(frames: Tensor, n_frames: int) -> Tensor:
    """[B·F, h, w, C] → the same, a quarter of the channels from the frame before and a quarter from the one after."""
    frames = frames.unflatten(0, (-1, n_frames))
    quarter = frames.shape[-1] // 4
    mixed = frames.clone()
    mixed[:, 1:, ..., :quarter] = frames[:, :-1, ..., :quarter]
    mixed[:, 0, ..., :quarter] = 0
    mixed[:, :-1, ..., quarter : 2 * quarter] = frames[:, 1:, ..., quarter : 2 * quarter]
    mixed[:, -1, ..., quarter : 2 * quarter] = 0
    return mixed.flatten(0, 1)
