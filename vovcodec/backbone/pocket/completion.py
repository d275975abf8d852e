"""What the two convolutional networks that complete the transformer's estimate share (pictures.py, clips.py)."""

from __future__ import annotations

import math
from functools import lru_cache

import torch
import torch.nn.functional as F
from torch import Tensor, nn

__all__ = ["ResidualBlock", "TimeEmbedding", "dct_matrix", "noise_level", "noise_share", "restoring_gain"]

_TIME_FEATURES = 32


def noise_level(t: Tensor) -> Tensor:
    """σ = t/(1 − t): the noise's standard deviation when x_t is scaled back to x₀."""
    return t / (1 - t).clamp_min(1e-4)


@lru_cache(maxsize=16)
def dct_matrix(n: int) -> Tensor:
    """The orthonormal DCT-II of n values, float32 [n, n]: rows are frequencies."""
    k = torch.arange(n, dtype=torch.float64)
    matrix = torch.cos(math.pi / n * (k[None, :] + 0.5) * k[:, None]) * math.sqrt(2.0 / n)
    matrix[0] /= math.sqrt(2.0)
    return matrix.float()


def noise_share(sigma: Tensor) -> Tensor:
    """u = σ/(σ + ¼), 0 without noise and 1 for noise alone."""
    return sigma / (sigma + 0.25)


def restoring_gain(damping: Tensor, sigma: Tensor, leak: float) -> Tensor:
    """W/(W² + leak·u): undoes a damping W where that is not small, for what the transformer is shown.

    Where W is small, 1/W would blow noise of high frequencies up until it leaks into every block. That this falls with
    the noise, u = `noise_share`, was best when the transformer's error was measured.
    """
    return damping / (damping.square() + leak * noise_share(sigma))


class TimeEmbedding(nn.Sequential):
    """Times [B] → [B, width]."""

    def __init__(self, width: int) -> None:
        super().__init__(nn.Linear(2 * _TIME_FEATURES, width), nn.GELU(approximate="tanh"))

    def forward(self, t: Tensor) -> Tensor:
        """t in (0, 1]."""
        frequencies = torch.exp(torch.linspace(0, math.log(1000), _TIME_FEATURES, device=t.device))
        angles = t[:, None] * frequencies
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
        modulation = self.modulation(time).repeat_interleave(n_frames, 0)
        scale, shift = modulation[:, :, None, None].chunk(2, dim=1)
        normal = x * x.square().mean(dim=1, keepdim=True).add(1e-4).rsqrt()
        if n_frames > 1:
            normal = _shifted(normal, n_frames)
        return x + self.second(F.gelu(self.first(normal) * (1 + scale) + shift, approximate="tanh"))


def _shifted(x: Tensor, n_frames: int) -> Tensor:
    quarter = x.shape[1] // 4
    frames = x.permute(0, 2, 3, 1).unflatten(0, (-1, n_frames))  # [B, F, h, w, C], as channels_last lies in memory
    earlier = F.pad(frames[:, :-1, ..., :quarter], (0, 0, 0, 0, 0, 0, 1, 0))
    later = F.pad(frames[:, 1:, ..., quarter : 2 * quarter], (0, 0, 0, 0, 0, 0, 0, 1))
    mixed = torch.cat([earlier, later, frames[..., 2 * quarter :]], dim=-1)
    return mixed.flatten(0, 1).permute(0, 3, 1, 2)
