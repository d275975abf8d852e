"""The one sampler that encoder and decoder share.

From x₁ = noise at t = 1, for each step t → t′, with velocity v(x_t, t):

    x̂₀ = x_t − t·v            ε̂ = x_t + (1 − t)·v
    x_{t′} = (1 − t′)·x̂₀ + t′·(√(1 − η²)·ε̂ + η·z)

η = 0 is the Euler step of the probability-flow ODE (Liu et al. 2023); η > 0 replaces part of the noise by z: random,
or selected by an encoder and replayed by a decoder (steering.py). The last step ends in x̂₀, for which a velocity may
know a better estimate than for the others (`estimate`).
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from vovcodec.sampling.noise import Purpose, Stream, normal

__all__ = ["Chooser", "OnStep", "Velocity", "advance", "estimate", "initial_noise", "sample"]

Velocity = Callable[[Tensor, float], Tensor]
"""v(x_t, t): latents [1, C, T, h, w] and a time in [0, 1] → velocity of the same shape. It may have an attribute
`last`, a Velocity that the last evaluation takes instead."""

OnStep = Callable[[float, Tensor, Tensor], None]
"""Called at every step with (t, x_t, x̂₀)."""

Chooser = Callable[[int, Tensor], "np.ndarray | None"]
"""(injection number, x̂₀) → z with unit mean square for the first N latent values (those of the leading channels; the
others keep ε̂), or None for a plain ODE step."""


def initial_noise(seed: int, segment: int, shape: tuple[int, ...], n_before: int = 0) -> Tensor:
    """The starting latents of one segment, standard normal float32 from the exact stream.

    n_before: injections of the segment in a sampler before this one (scene.py).
    """
    return torch.from_numpy(normal(Stream(seed, Purpose.INITIAL_NOISE, (segment, n_before)), tuple(shape)))


def advance(x_t: Tensor, clean: Tensor, t: float, t_next: float, eta: float, z: np.ndarray | None) -> Tensor:
    """x_{t′} from x_t and x̂₀ = `clean`, by the update in the module's docstring. ε̂ = (x_t − (1 − t)·x̂₀)/t."""

    def blend(x_t: Tensor, clean: Tensor, kept: float) -> Tensor:
        carried = t_next * kept / t
        return torch.add(((1 - t_next) - carried * (1 - t)) * clean, x_t, alpha=carried)

    if z is None or eta <= 0:
        return blend(x_t, clean, 1.0)
    n, flat, flat_clean = z.size, x_t.reshape(-1), clean.reshape(-1)
    injected = torch.from_numpy(z.reshape(-1)).to(clean)
    mixed = blend(flat[:n], flat_clean[:n], math.sqrt(1 - eta * eta)).add_(injected, alpha=t_next * eta)
    return torch.cat([mixed, blend(flat[n:], flat_clean[n:], 1.0)]).reshape(clean.shape)


def estimate(velocity: Velocity, x_t: Tensor, t: float, *, is_last: bool) -> Tensor:
    """x̂₀ = x_t − t·v of a step, [1, C, T, h, w]; `is_last`: it is the picture, for which a velocity may have a better
    `last` (see `Velocity`)."""
    chosen = getattr(velocity, "last", velocity) if is_last else velocity
    return x_t - t * chosen(x_t, t)


@torch.no_grad()
def sample(
    velocity: Velocity,
    noise: Tensor,
    times: list[float],
    etas: list[float],
    choose: Chooser | None = None,
    on_step: OnStep | None = None,
    n_steps: int | None = None,
) -> Tensor:
    """Run the sampler and return x̂₀ of the last step.

    Args:
        velocity: the (adapted) model.
        noise: x₁, float32 [1, C, T, h, w].
        times: n + 1 times from 1 to 0 (schedule.py).
        etas: η of the n − 1 injections; may be empty without `choose`.
        choose: supplies z; without it every step is an ODE step.
        on_step: see `OnStep`.
        n_steps: return x̂₀ after so many steps already (a preview).
    """
    x_t = noise
    for step, (t, t_next) in enumerate(itertools.pairwise(times)):
        is_last = t_next == 0.0 or step + 1 == n_steps
        clean = estimate(velocity, x_t, t, is_last=is_last)
        if on_step is not None:
            on_step(t, x_t, clean)
        if is_last:
            return clean
        z = choose(step, clean) if choose is not None else None
        x_t = advance(x_t, clean, t, t_next, etas[step] if z is not None else 0.0, z)
    raise ValueError("the time grid must end at 0")
