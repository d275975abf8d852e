"""Realism on a Gaussian model, whose mean estimate and probability-flow ODE are known in closed form."""

from __future__ import annotations

import itertools

import pytest
import torch

from vovcodec.sampling.realism import realism_times, with_realism
from vovcodec.sampling.sampler import estimate
from vovcodec.sampling.schedule import LEAST_TIME, REALISM_STEPS, snr_of

SHAPE = (1, 4, 3, 16, 16)
POWER = 0.3


def velocity(x_t, t):
    """x̂₀ = (1−t)·λ/((1−t)²λ + t²)·x_t."""
    return (x_t - (1 - t) * POWER / ((1 - t) ** 2 * POWER + t * t) * x_t) / t


def noisy(t: float):
    generator = torch.Generator().manual_seed(0)
    x0 = POWER**0.5 * torch.randn(SHAPE, generator=generator)
    x_t = (1 - t) * x0 + t * torch.randn(SHAPE, generator=generator)
    return x0, x_t, estimate(velocity, x_t, t, is_last=True)


@pytest.mark.parametrize("t", [0.3, 0.6])
def test_the_ode_gives_back_the_variance_that_the_mean_lacks(t):
    x0, x_t, clean = noisy(t)
    sampled = with_realism(velocity, x_t, clean, t, 1.0)
    exact = x_t * (POWER / ((1 - t) ** 2 * POWER + t * t)) ** 0.5
    missing = exact.var() - clean.var()
    assert missing > 0.1 * POWER and sampled.var() - clean.var() > 0.5 * missing, "most of it, in four Euler steps"
    assert torch.corrcoef(torch.stack([sampled, exact]).flatten(1))[0, 1] > 0.999
    assert (sampled - x0).square().mean() > (clean - x0).square().mean(), "and is further from the original"


def test_in_between_lies_on_the_straight_line():
    _, x_t, clean = noisy(0.4)
    half, whole = (with_realism(velocity, x_t, clean, 0.4, realism) for realism in (0.5, 1.0))
    assert torch.allclose(half, (clean + whole) / 2, atol=1e-6)
    assert torch.equal(with_realism(velocity, x_t, clean, 0.4, 0.0), clean)


def test_times_fall_to_invisible_noise_in_equal_ratios():
    times = realism_times(0.5)
    assert len(times) == REALISM_STEPS + 1 and times[0] == 0.5 and times[-1] == pytest.approx(LEAST_TIME)
    ratios = [snr_of(after) / snr_of(now) for now, after in itertools.pairwise(times)]
    assert ratios == pytest.approx([ratios[0]] * REALISM_STEPS)


def test_every_step_is_reported_and_takes_one_evaluation():
    _, x_t, clean = noisy(0.5)
    asked, seen = [], []

    def counted(x, t):
        asked.append(t)
        return velocity(x, t)

    with_realism(counted, x_t, clean, 0.5, 1.0, on_step=lambda t, x, c: seen.append(t))
    assert asked == seen == realism_times(0.5)[1:]
