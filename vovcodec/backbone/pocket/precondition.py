"""What the embedded model's transformer predicts, and how that becomes a velocity.

Latent channels have very different variances λ (block_transform.py), so each channel is preconditioned for its own
signal-to-noise ratio (Karras et al. 2022, section 5, per channel and for the path x_t = (1−t)·x₀ + t·ε):

    s²      = (1−t)²·λ + t²              variance of x_t
    c_in    = 1/s                        network input has unit variance at every t
    c_skip  = (1−t)·λ/s²                 Wiener estimate of x₀ from x_t
    c_out   = √λ·t/s                     standard deviation of what the Wiener estimate misses
    x̂₀      = c_skip·x_t + c_out·F(c_in·x_t, t)
    v       = (x_t − x̂₀)/t

F therefore starts from the best linear estimate and has a unit-variance target in every channel at every t.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

__all__ = ["Preconditioning", "network_input", "precondition"]

_T_MIN = 1e-4


@dataclass(frozen=True)
class Preconditioning:
    """Coefficients of one time, each broadcastable to latents [B, C, T, h, w]."""

    c_in: Tensor
    c_skip: Tensor
    c_out: Tensor


def precondition(t: Tensor, channel_std: Tensor) -> Preconditioning:
    """Coefficients for times `t` [B] in [0, 1] and channel deviations [1, C, T, 1, 1]."""
    t = t.clamp_min(_T_MIN).view(-1, 1, 1, 1, 1)
    variance = channel_std.square()
    total = (1 - t).square() * variance + t.square()
    return Preconditioning(c_in=total.rsqrt(), c_skip=(1 - t) * variance / total, c_out=channel_std * t * total.rsqrt())


def network_input(x_t: Tensor, coefficients: Preconditioning) -> Tensor:
    """Normalised latents and one more channel that marks the first latent frame: [B, C+1, T, h, w]."""
    mark = torch.zeros_like(x_t[:, :1])
    mark[:, :, 0] = 1.0
    return torch.cat([x_t * coefficients.c_in, mark], dim=1)
