"""Importance sampling: the kernel, the choice, what the decoder repeats from the indices alone, and their packing."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from vovcodec.container.errors import BadLength, NonCanonical
from vovcodec.container.indices import pack_indices, unpack_indices
from vovcodec.sampling import importance
from vovcodec.sampling.importance import ImportancePlan, diffusion_squared, replay, select
from vovcodec.sampling.noise import Purpose, Stream, normal, raw_u64

SHAPE = (1, 3, 2, 4, 4)
PLAN = ImportancePlan(seed=9, n_steps=7, shift_q8=512, log2_candidates=4)


@pytest.fixture
def target() -> torch.Tensor:
    return torch.from_numpy(normal(Stream(1, Purpose.INITIAL_NOISE, (77,)), SHAPE)) * 0.7 + 0.2


def wiener(x_t: torch.Tensor, t: float) -> torch.Tensor:
    """The velocity of the best estimate for data N(0.2, 0.7²): (x_t − x̂₀)/t, with a bend so that it is not linear."""
    variance = 0.49
    gain = (1 - t) * variance / ((1 - t) ** 2 * variance + t * t)
    clean = 0.2 + gain * (x_t - (1 - t) * 0.2) + 0.05 * torch.sin(3 * x_t)
    return (x_t - clean) / t


@pytest.mark.parametrize(("t", "t_next"), [(0.9, 0.85), (0.5, 0.3), (0.1, 0.05)])
def test_the_kernel_is_an_euler_step_of_the_reverse_equation(t, t_next, target):
    """With g² = 2t/(1 − t) the forward drift is f = −x/(1 − t); reverse in time: f − g²·score, score = −ε̂/t."""
    x_t = target * 0.3 + 0.5
    g_squared = 2 * t / (1 - t)
    noise = (x_t - (1 - t) * target) / t
    drift = -x_t / (1 - t) + g_squared * noise / t
    mean, sigma = importance._kernel(x_t, target, t, t_next)
    torch.testing.assert_close(mean, x_t - (t - t_next) * drift, rtol=1e-4, atol=1e-5)
    assert sigma == pytest.approx(math.sqrt(g_squared * (t - t_next)))


def test_the_diffusion_coefficient_is_clamped_at_5():
    assert diffusion_squared(1.0) == diffusion_squared(0.999) == 25.0
    assert diffusion_squared(0.5) == 2.0
    assert diffusion_squared(0.92) == pytest.approx(23.0)


def test_the_decoder_repeats_the_latents_from_the_indices_alone(target, monkeypatch):
    indices, latents = select(wiener, target, PLAN, 3)
    assert len(indices) == PLAN.n_indices == 6
    assert all(0 <= index < 16 for index in indices) and len(set(indices)) > 1
    monkeypatch.setattr(importance, "_pick", None)  # no weights, no shared uniforms
    again = replay(wiener, indices, PLAN, 3, SHAPE, torch.device("cpu"))
    assert torch.equal(again, latents)
    other = replay(wiener, [(index + 1) % 16 for index in indices], PLAN, 3, SHAPE, torch.device("cpu"))
    assert not torch.equal(other, latents)
    assert not torch.equal(replay(wiener, indices, PLAN, 4, SHAPE, torch.device("cpu")), latents), "another segment"


def test_a_preview_is_the_estimate_on_the_way(target):
    seen = []
    indices, _ = select(wiener, target, PLAN, 0, on_step=lambda t, x_t, clean: seen.append((t, clean)))
    assert [t for t, _ in seen] == PLAN.times[:-1]
    preview = replay(wiener, indices, PLAN, 0, SHAPE, torch.device("cpu"), n_steps=3)
    assert torch.equal(preview, seen[2][1])


def naive_pick(plan: ImportancePlan, segment: int, step: int, delta: np.ndarray, sigma: float) -> int:
    """ln w from both Gaussian densities, all candidates at once, plus Gumbel noise from the stream's uniforms."""
    n_candidates = 1 << plan.log2_candidates
    noise = np.stack(
        [
            normal(Stream(plan.seed, Purpose.CANDIDATE_NOISE, (segment, step, c)), delta.size)
            for c in range(n_candidates)
        ]
    ).astype(np.float64)
    samples = sigma * noise  # the mean of p is the origin, that of p* is delta
    log_weights = ((samples**2).sum(1) - ((samples - delta) ** 2).sum(1)) / (2 * sigma**2)
    raw = raw_u64(Stream(plan.seed, Purpose.CANDIDATE_CHOICE, (segment, step)), n_candidates)
    uniform = ((raw >> np.uint64(11)).astype(np.float64) + 0.5) / 2.0**53
    return int(np.argmax(log_weights - np.log(-np.log(uniform))))


@pytest.mark.parametrize("chunk_values", [1, 40, 1 << 20], ids=["one by one", "in chunks", "all at once"])
def test_the_choice_is_gumbel_max_over_the_weights(monkeypatch, chunk_values):
    monkeypatch.setattr(importance, "_CHUNK_VALUES", chunk_values)
    plan = ImportancePlan(seed=2, n_steps=30, shift_q8=256, log2_candidates=6)
    delta, sigma = 0.4 * np.sin(np.arange(12)), 0.8
    for step in range(10):
        found = importance._pick(plan, 1, step, (delta / sigma).astype(np.float32))
        assert found == naive_pick(plan, 1, step, delta, sigma)


def test_chosen_noise_is_distributed_as_under_the_true_kernel():
    """With many candidates z ~ N(δ/σ, 1): the sample mean of n draws is within 4.5/√n of it, the variance near 1."""
    plan = ImportancePlan(seed=0, n_steps=2, shift_q8=256, log2_candidates=8)
    direction = np.array([1.0, -0.5], dtype=np.float32)
    n_draws = 150
    drawn = []
    for step in range(n_draws):
        index = importance._pick(plan, 0, step, direction)
        drawn.append(normal(Stream(0, Purpose.CANDIDATE_NOISE, (0, step, index)), 2))
    drawn = np.array(drawn, dtype=np.float64)
    assert np.abs(drawn.mean(0) - direction).max() < 4.5 / math.sqrt(n_draws)
    assert np.all((drawn.var(0) > 0.6) & (drawn.var(0) < 1.5))


def test_more_candidates_come_nearer(target):
    errors = []
    for log2_candidates in (1, 9):
        plan = ImportancePlan(seed=4, n_steps=40, shift_q8=256, log2_candidates=log2_candidates)
        _, latents = select(wiener, target, plan, 0)
        errors.append(float((latents - target).square().mean()))
    assert errors[1] < 0.8 * errors[0]


@given(st.integers(1, 24), st.integers(0, 40), st.randoms(use_true_random=False))
def test_packed_indices_come_back(log2_candidates, n_indices, random):
    indices = [random.randrange(1 << log2_candidates) for _ in range(n_indices)]
    packed = pack_indices(indices, log2_candidates)
    assert len(packed) == math.ceil(n_indices * log2_candidates / 8)
    assert unpack_indices(packed, n_indices, log2_candidates) == indices


def test_packing_is_as_the_format_says():
    assert pack_indices([0b101, 0b011, 0b110], 3) == bytes([0b10101111, 0b00000000])
    assert pack_indices([0x3FFFF, 1], 18) == bytes.fromhex("ffffc00010")


def test_bad_indices_are_refused():
    with pytest.raises(BadLength, match="3 indices of 3 bits take 2 bytes, here are 3"):
        unpack_indices(bytes(3), 3, 3)
    with pytest.raises(NonCanonical):
        unpack_indices(bytes([0, 1]), 3, 3)
    with pytest.raises(ValueError, match=r"0\.\.7"):
        pack_indices([8], 3)
