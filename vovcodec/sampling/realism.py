"""Detail that no bit supports: from where the steering ends, the probability-flow ODE goes on to the picture.

The estimate x̂₀ that a file ends with is the mean of all pictures that it could mean: closest to the original, and
softer than any of them. The ODE leads from the same state x_t to one of them, x̃₀, sharper and further away. With a
realism r in [0, 1] the picture is

    (1 − r)·x̂₀ + r·x̃₀ ,

the straight line that the best compromises between distortion and perception lie on (Freirich, Michaeli and Meir 2021,
"A theory of the distortion-perception tradeoff in Wasserstein space", arXiv 2107.02555). Only the decoder is concerned:
every file whose sampler stops above invisible noise, as nearly all steered ones do, can be decoded with any r.
"""

from __future__ import annotations

import itertools
import math

import torch
from torch import Tensor

from vovcodec.sampling.sampler import OnStep, Velocity, advance, estimate
from vovcodec.sampling.schedule import LEAST_TIME, REALISM_STEPS, snr_of, time_of

__all__ = ["realism_times", "with_realism"]


def realism_times(t: float) -> list[float]:
    """t and the `REALISM_STEPS` times after it, down to LEAST_TIME in geometric progression of signal to noise."""
    ratio = math.log(snr_of(LEAST_TIME) / snr_of(t)) / REALISM_STEPS
    return [t, *(time_of(snr_of(t) * math.exp(ratio * (i + 1))) for i in range(REALISM_STEPS))]


@torch.no_grad()
def with_realism(
    velocity: Velocity, x_t: Tensor, clean: Tensor, t: float, realism: float, on_step: OnStep | None = None
) -> Tensor:
    """The picture's latents by the module's docstring, [1, C, T, h, w].

    Args:
        velocity: the (adapted) model; asked `REALISM_STEPS` times.
        x_t, t: the state at which the sampler stopped, LEAST_TIME < t < 1.
        clean: x̂₀ there.
        realism: r.
        on_step: see `sampler.OnStep`.
    """
    sampled = clean
    for now, after in itertools.pairwise(realism_times(t)):
        x_t = advance(x_t, sampled, now, after, 0.0, None)
        sampled = estimate(velocity, x_t, after, is_last=False)
        if on_step is not None:
            on_step(after, x_t, sampled)
    return torch.lerp(clean, sampled, realism)
