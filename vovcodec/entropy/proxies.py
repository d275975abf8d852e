"""Differentiable stand-ins for rounding while a vector is fitted (torch; encoder only).

Both express the vector in units of the step size, y = theta / Delta, so that a rate model sees symbols.
"""

from __future__ import annotations

import torch

__all__ = ["add_uniform_noise", "round_straight_through"]


def add_uniform_noise(
    theta: torch.Tensor, step_size: torch.Tensor | float, generator: torch.Generator | None = None
) -> torch.Tensor:
    """Noisy symbols for the rate: y = theta / Delta + u, u uniform in [-1/2, 1/2).

    Balle et al. 2017, "End-to-end optimized image compression", section 3: the density of y at integers equals the
    probabilities of the rounded symbols. Differentiable in theta and Delta.

    Args:
        theta: float [k].
        step_size: Delta > 0, scalar.
        generator: source of the noise, on theta's device; torch's default one if None.

    Returns:
        float [k], in symbols.
    """
    noise = torch.rand(theta.shape, generator=generator, dtype=theta.dtype, device=theta.device) - 0.5
    return theta / step_size + noise


def round_straight_through(theta: torch.Tensor, step_size: torch.Tensor | float, limit: int) -> torch.Tensor:
    """Dequantised vector with a straight-through gradient: theta' = Delta * clamp(round(theta / Delta), -limit, limit).

    Forward: exactly the decoder's value up to float32 rounding (ties to even as in `quantizer.quantize`). Backward:
    rounding counts as the identity, so d theta' / d theta = 1 inside the range and 0 where clamped, and
    d theta' / d Delta = q - theta / Delta inside the range and +-limit where clamped (Esser et al. 2020, "Learned step
    size quantization", equation 3).

    Args:
        theta: float [k].
        step_size: Delta > 0, scalar; a tensor that requires a gradient for a learned step size.
        limit: largest magnitude of a symbol.

    Returns:
        float [k].
    """
    scaled = torch.clamp(theta / step_size, -limit, limit)
    symbols = scaled + (torch.round(scaled) - scaled).detach()
    return symbols * step_size
