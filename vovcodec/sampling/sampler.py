"""The one sampler that encoder and decoder share.

From x₁ = noise at t = 1, for each step t → t′ of the grid, with velocity v(x_t, t):

    x̂₀ = x_t − t·v            ε̂ = x_t + (1 − t)·v
    x_{t′} = (1 − t′)·x̂₀ + t′·(√(1 − η²)·ε̂ + η·z)

η = 0 is the Euler step of the probability-flow ODE (Liu et al. 2023); η > 0 replaces part of the noise by z, which a
`Chooser` supplies: pseudo-random, or selected by an encoder and replayed by a decoder. The last step ends in x̂₀.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from vovcodec.sampling.noise import Purpose, Stream, normal

__all__ = ["Chooser", "Velocity", "initial_noise", "sample"]

Velocity = Callable[[Tensor, float], Tensor]
"""v(x_t, t): latents [1, C, T, h, w] and a time in [0, 1] → velocity of the same shape."""

Chooser = Callable[[int, Tensor], "np.ndarray | Tensor | None"]
"""(injection index, x̂₀) → z with unit mean square for the first N latent values (those of the leading channels; the
others keep ε̂), or None for a plain ODE step."""


def initial_noise(seed: int, segment: int, shape: tuple[int, ...]) -> Tensor:
    """The starting latents of one segment, standard normal float32 from the exact stream."""
    return torch.from_numpy(normal(Stream(seed, Purpose.INITIAL_NOISE, (segment,)), tuple(shape)))


def _inject(direction: Tensor, z: Tensor, eta: float) -> Tensor:
    """√(1 − η²)·ε̂ + η·z on the first len(z) values, ε̂ on the rest."""
    mixed = direction.reshape(-1).clone()
    mixed[: z.numel()] = math.sqrt(1 - eta * eta) * mixed[: z.numel()] + eta * z.reshape(-1)
    return mixed.reshape(direction.shape)


@torch.no_grad()
def sample(
    velocity: Velocity,
    noise: Tensor,
    times: list[float],
    etas: list[float],
    choose: Chooser | None = None,
    on_step: Callable[[int, Tensor, Tensor], None] | None = None,
    n_evaluations: int | None = None,
) -> Tensor:
    """Run the sampler and return x̂₀ of the last step.

    Args:
        velocity: the (adapted) model.
        noise: x₁, float32 [1, C, T, h, w].
        times: n + 1 times from 1 to 0 (`schedule.time_grid`).
        etas: η of the n − 1 injections.
        choose: supplies z; without it every step is an ODE step.
        on_step: called with (step, x_t, x̂₀), e.g. to record the visited states or to show progress.
        n_evaluations: return x̂₀ after so many steps already (a preview).
    """
    x_t = noise
    for step, (t, t_next) in enumerate(zip(times[:-1], times[1:], strict=True)):
        v = velocity(x_t, t)
        clean = x_t - t * v
        if on_step is not None:
            on_step(step, x_t, clean)
        if t_next == 0.0 or step + 1 == n_evaluations:
            return clean
        direction = x_t + (1 - t) * v
        eta = etas[step]
        z = choose(step, clean) if choose is not None and eta > 0 else None
        if z is not None:
            direction = _inject(direction, torch.as_tensor(z, dtype=noise.dtype, device=noise.device), eta)
        x_t = (1 - t_next) * clean + t_next * direction
    raise ValueError("the time grid must end at 0")
