"""Steering on a toy Gaussian model whose clean estimate is the analytic Wiener filter."""

from __future__ import annotations

import itertools
import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from vovcodec.container.counts import count_of_index, index_of_count, largest_index, usual_step
from vovcodec.entropy.choices import decode_choices, encode_choices, same_choices
from vovcodec.entropy.positions import MAX_POSITIONS
from vovcodec.errors import UsageError
from vovcodec.sampling.noise import Purpose, Stream, normal
from vovcodec.sampling.sampler import advance, initial_noise, sample
from vovcodec.sampling.schedule import LEAST_TIME, full_grid_injections, snr_of
from vovcodec.sampling.steering import SteeringPlan, _storable, follow, steer
from vovcodec.sampling.trellis import MAX_PATH_ATOMS

CPU = torch.device("cpu")
SHAPE = (1, 8, 2, 16, 16)  # N = 4096 = P: orthogonal atoms
ODD_SHAPE = (1, 9, 2, 12, 12)  # N = 2592 of P = 4096
PLAN = SteeringPlan(seed=3, snr_start_q=72, snr_ratio_q=48, memory=8)
CODEBOOKS = ["trellis", "hadamard", "cyclic"]
VECTORS = json.loads((Path(__file__).parent / "vectors" / "steering.json").read_text())
VARIANCE = torch.tensor([4.0, 2.0, 1.0, 1.0, 0.5, 0.25, 0.1, 0.1, 0.1])


def variances(shape) -> torch.Tensor:
    return VARIANCE[: shape[1]].view(1, -1, 1, 1, 1)


def gaussian(shape):
    """v(x_t, t) of independent Gaussian values: x̂₀ = (1−t)·λ/((1−t)²λ + t²)·x_t."""
    power = variances(shape)

    def velocity(x_t, t):
        clean = (1 - t) * power / ((1 - t) ** 2 * power + t * t) * x_t
        return (x_t - clean) / t

    return velocity


def picture(shape, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed)) * variances(shape).sqrt()


def spent_bytes(plan: SteeringPlan, choices, shape) -> float:
    n_words = len(encode_choices(plan.codebook, choices, plan.n_positions(shape)))
    return n_words + plan.counts_bits(plan.counts) / 8


def sizes(choices) -> list[int]:
    """Bits or atoms of every injection."""
    return [len(choice[0] if isinstance(choice, tuple) else choice) for choice in choices]


def error(clean: torch.Tensor, target: torch.Tensor) -> float:
    return float((clean - target).square().mean() / target.square().mean())


@pytest.mark.parametrize("shape", [SHAPE, ODD_SHAPE], ids=str)
@pytest.mark.parametrize("codebook", CODEBOOKS)
@pytest.mark.parametrize("eta_scale_q", [200, 120])
@pytest.mark.parametrize("active_channels", [0, 3])
def test_a_decoder_follows_the_encoder_bit_for_bit(shape, codebook, eta_scale_q, active_channels):
    plan = replace(PLAN, codebook=codebook, eta_scale_q=eta_scale_q, active_channels=active_channels)
    plan, atoms, latents = steer(gaussian(shape), picture(shape), plan, 2, size_bytes=120)
    n_positions = plan.n_positions(shape)
    again = decode_choices(codebook, encode_choices(codebook, atoms, n_positions), plan.counts, n_positions)
    assert torch.equal(follow(gaussian(shape), again, plan, 2, shape, CPU), latents)
    assert not torch.equal(follow(gaussian(shape), again, plan, 3, shape, CPU), latents), "the segment is an address"


@pytest.mark.parametrize("codebook", CODEBOOKS)
@pytest.mark.parametrize("shape", [SHAPE, ODD_SHAPE], ids=str)
def test_the_budget_is_kept_and_used(shape, codebook):
    target = picture(shape)
    for size_bytes in (20, 33, 50, 77, 120, 200, 333, 500, 800, 1200):
        plan, atoms, _ = steer(gaussian(shape), target, replace(PLAN, codebook=codebook), 0, size_bytes=size_bytes)
        assert sizes(atoms) == list(plan.counts)
        assert 0.97 * size_bytes - 2 <= spent_bytes(plan, atoms, shape) <= size_bytes


@pytest.mark.parametrize("ratio", [1.4, 1.75, 2.5])
def test_no_budget_is_ever_exceeded(ratio):
    """Wherever the bytes run out: the last count may be implied by the path's bytes or cost up to three more."""
    plan = replace(PLAN, memory=3, snr_ratio_q=round(64 * (ratio - 1)))
    for size_bytes in np.arange(4, 130, 0.91):
        steered, choices, _ = steer(gaussian(ODD_SHAPE), picture(ODD_SHAPE), plan, 0, size_bytes=float(size_bytes))
        assert size_bytes - 3 <= spent_bytes(steered, choices, ODD_SHAPE) <= size_bytes


@pytest.mark.parametrize("size_bytes", [100, 400, 1000])
def test_counts_can_be_stored(size_bytes):
    """All but the last on the container's grid, and mostly by nearly its usual step."""
    plan, _, _ = steer(gaussian(SHAPE), picture(SHAPE), PLAN, 0, size_bytes=size_bytes)
    indices = [index_of_count(count) for count in plan.counts[:-1]]
    assert [count_of_index(index) for index in indices] == list(plan.counts[:-1])
    assert all(index <= largest_index(i) for i, index in enumerate(indices))
    usual = usual_step(PLAN.snr_ratio_q)
    near = [abs(index - previous - usual) <= 1 for previous, index in itertools.pairwise(indices[1:])]
    assert sum(near) >= 0.8 * len(near)


@pytest.mark.parametrize("usual", [1, 2])
@pytest.mark.parametrize("wanted", [0, 1, 3, 9, 30, 77, 400, 5000])
def test_a_count_is_near_what_a_step_needs(usual, wanted):
    """From 0.8 to 1.3 of that (and one) after any count; the usual step where that is as good."""
    for before in ([], [7], [3, 5], [8, 640], [8, 20], [9, 4, 4]):
        count = _storable(wanted, before, usual, 10**6)
        assert count_of_index(index_of_count(count)) == count
        assert 0.8 * wanted - 1 <= count <= 1.3 * wanted + 1
        assert _storable(wanted, before, usual, count // 2) <= count // 2
        if len(before) >= 2:
            follows = count_of_index(index_of_count(before[-1]) + usual)
            assert count == follows or not 0.9 * wanted <= follows <= 1.3 * wanted


@pytest.mark.parametrize("codebook", CODEBOOKS)
@pytest.mark.parametrize("size_bytes", [1, 100, 1500])
@pytest.mark.parametrize("ratio_q", [12, 48])
def test_progress_is_near_the_truth_and_complete_at_the_end_only(codebook, size_bytes, ratio_q):
    shares, plan = [], replace(PLAN, codebook=codebook, snr_ratio_q=ratio_q)
    steer(gaussian(SHAPE), picture(SHAPE), plan, 0, size_bytes=size_bytes, on_share=shares.append)
    assert shares[-1] == 1.0 and max(shares[:-1], default=0.0) < 1.0
    for step, share in enumerate(shares, start=1):
        assert share == pytest.approx(step / len(shares), abs=0.35)


def test_more_bytes_never_make_it_much_worse():
    errors = []
    for size_bytes in (25, 50, 100, 200, 400, 800, 1600):
        _, _, clean = steer(gaussian(SHAPE), picture(SHAPE), PLAN, 0, size_bytes=size_bytes)
        errors.append(error(clean, picture(SHAPE)))
    assert errors[0] < 1.0, "even a few bytes beat the mean"
    assert all(after < 1.02 * before for before, after in itertools.pairwise(errors))
    # The rate-distortion bound of this Gaussian source at 800 and at 1600 bytes differs by far more than a factor of 2.
    assert errors[-1] < 0.5 * errors[-2] < 0.25 * errors[0]


@pytest.mark.parametrize("codebook", CODEBOOKS)
def test_a_small_picture_with_a_large_budget_takes_no_more_atoms_than_there_are(codebook):
    shape = (1, 2, 1, 8, 8)
    plan = replace(PLAN, codebook=codebook)
    plan, atoms, clean = steer(gaussian(shape), picture(shape), plan, 0, size_bytes=5000)
    n_positions = plan.n_positions(shape)
    assert sizes(atoms) == list(plan.counts) and max(plan.counts) <= n_positions
    again = decode_choices(codebook, encode_choices(codebook, atoms, n_positions), plan.counts, n_positions)
    assert torch.equal(follow(gaussian(shape), again, plan, 0, shape, CPU), clean)
    assert error(clean, picture(shape)) < 0.01, "where bytes abound the picture is nearly exact"


def test_tiny_latents_and_hopeless_budgets():
    shape = (1, 1, 1, 1, 2)
    plan, _, _ = steer(gaussian(shape), picture(shape), PLAN, 0, size_bytes=1)
    assert plan.counts == ()
    plan, atoms, clean = steer(gaussian(SHAPE), picture(SHAPE), PLAN, 0, size_bytes=1)
    assert plan.counts == () and atoms == []
    first = sample(gaussian(SHAPE), initial_noise(3, 0, SHAPE), [1.0, 0.0], [])
    assert torch.equal(clean, first), "nothing injected: the first estimate"


def test_the_last_evaluation_may_know_better():
    """Encoder and decoder take it at the same place, a preview where it ends."""

    class Velocity:
        def __init__(self):
            self.plain, self.calls = gaussian(SHAPE), []

        def __call__(self, x_t, t):
            self.calls.append("plain")
            return self.plain(x_t, t)

        def last(self, x_t, t):
            self.calls.append("last")
            return (x_t - 0.5 * picture(SHAPE)) / t

    for size_bytes in (1, 40):
        velocity = Velocity()
        plan, choices, clean = steer(velocity, picture(SHAPE), PLAN, 0, size_bytes=size_bytes)
        assert velocity.calls[-1] == "last" and velocity.calls.count("last") == 1
        assert torch.allclose(clean, 0.5 * picture(SHAPE), atol=1e-5)
        velocity.calls.clear()
        assert torch.equal(follow(velocity, choices, plan, 0, SHAPE, CPU), clean)
        assert velocity.calls == ["plain"] * len(plan.counts) + ["last"]
    velocity.calls.clear()
    follow(velocity, choices, plan, 0, SHAPE, CPU, n_steps=2)
    assert velocity.calls == ["plain", "last"]


def test_what_the_format_cannot_address_is_refused():
    class Huge:
        def __init__(self, n_values):
            self.shape = (1, 1, 1, 1, n_values)

    for plan, limit in (
        (replace(PLAN, codebook="hadamard"), MAX_POSITIONS),
        (replace(PLAN, codebook="trellis"), MAX_PATH_ATOMS),
    ):
        with pytest.raises(UsageError, match="code smaller"):
            steer(None, Huge(limit + 2), plan, 0, size_bytes=100)


def test_a_truncated_file_shows_a_coarser_picture():
    plan, atoms, full = steer(gaussian(SHAPE), picture(SHAPE), PLAN, 0, size_bytes=600)
    errors = []
    for n_injections in range(len(plan.counts) + 1):
        whole = n_injections == len(plan.counts)
        shorter = plan if whole else replace(plan, counts=plan.counts[:n_injections], last_q=16)
        clean = follow(gaussian(SHAPE), atoms[:n_injections], shorter, 0, SHAPE, CPU)
        errors.append(error(clean, picture(SHAPE)))
    assert error(full, picture(SHAPE)) == errors[-1] < 0.7 * errors[0]
    assert all(after < 1.02 * before for before, after in itertools.pairwise(errors))
    # A truncated file is the preview after as many evaluations.
    preview = follow(gaussian(SHAPE), atoms, plan, 0, SHAPE, CPU, n_steps=4)
    assert error(preview, picture(SHAPE)) == pytest.approx(errors[3], rel=1e-6)


def trace(shape, plan, size_bytes, weights=None):
    visited = []
    plan, atoms, _ = steer(
        gaussian(shape),
        picture(shape),
        plan,
        0,
        size_bytes=size_bytes,
        weights=weights,
        on_step=lambda t, x_t, clean: visited.append((t, x_t, clean)),
    )
    return plan, atoms, visited


@pytest.mark.parametrize(
    ("shape", "codebook", "tolerance"),
    [(SHAPE, "hadamard", 1e-3), (ODD_SHAPE, "hadamard", 0.1), (SHAPE, "trellis", 0.2), (ODD_SHAPE, "trellis", 0.2)],
    ids=str,
)
def test_the_injected_noise_reaches_as_far_as_the_posterior_mean(shape, codebook, tolerance):
    """⟨z, r⟩/‖r‖ = √(snr′ − snr)·‖r‖, with counts of 0.9 to 1.3 times what that takes; it grows with their root."""
    plan, atoms, visited = trace(shape, replace(PLAN, codebook=codebook), 900)
    assert [t for t, _, _ in visited] == plan.times[:-1]
    n = plan.n_entries(shape)
    ratios = []
    for step, choice in enumerate(atoms[:-1]):
        residual = (picture(shape) - visited[step][2]).reshape(-1).double().numpy()
        z = plan.make_codebook(0, step, n).combine(*(choice if isinstance(choice, tuple) else (choice,)))
        length = np.linalg.norm(residual)
        reach = float(z @ residual) / length
        t, t_next = plan.times[step], plan.times[step + 1]
        wanted = math.sqrt(snr_of(t_next) - snr_of(t)) * length
        if plan.counts[step] >= (8 if codebook == "hadamard" else 24):  # fewer are few choices
            assert wanted * (0.94 - tolerance) <= reach <= wanted * (1.15 + tolerance), step
            ratios.append(reach / wanted)
    assert len(ratios) >= 4 and np.mean(ratios) > (0.93 if shape == SHAPE else 0.9)


@pytest.mark.parametrize("eta_scale_q", [200, 150, 90])
def test_the_gain_makes_up_for_what_the_sampler_misses(eta_scale_q):
    """With exactly that z the mean of x_t' is the one a sampler that knows x₀ would have: the definition of g."""
    plan = replace(PLAN, eta_scale_q=eta_scale_q, counts=(1,) * 8)
    x0, noise = picture(SHAPE), initial_noise(1, 0, SHAPE)
    for step, (t, t_next) in enumerate(itertools.pairwise(plan.times[1:-1]), start=1):
        eta = plan.etas[step]
        x_t = (1 - t) * x0 + t * noise
        clean = 0.5 * x0
        residual = x0 - clean
        gain = ((1 - t_next) - math.sqrt(1 - eta * eta) * (1 - t) * t_next / t) / (t_next * eta)
        if eta_scale_q == 200:
            assert gain == pytest.approx(math.sqrt(snr_of(t_next) - snr_of(t)), rel=1e-6)
        moved = advance(x_t, clean, t, t_next, eta, (gain * residual).reshape(-1).numpy())
        ideal = advance(x_t, x0, t, t_next, eta, np.zeros(x0.numel(), dtype=np.float32))
        assert torch.allclose(moved, ideal, atol=1e-4)


def test_weights_choose_other_atoms_and_need_no_word_to_the_decoder():
    weights = variances(SHAPE)
    plan, atoms, visited = trace(SHAPE, PLAN, 300, weights)
    _, plain_atoms, _ = trace(SHAPE, PLAN, 300)
    assert not same_choices(atoms, plain_atoms)
    assert torch.equal(follow(gaussian(SHAPE), atoms, plan, 0, SHAPE, CPU), visited[-1][2])


def test_without_a_chooser_the_sampler_is_euler():
    noise, times = initial_noise(0, 0, SHAPE), [1.0, 0.6, 0.3, 0.0]
    x_t = noise
    for t, t_next in itertools.pairwise(times):
        x_t = x_t + (t_next - t) * gaussian(SHAPE)(x_t, t)
    assert torch.allclose(sample(gaussian(SHAPE), noise, times, []), x_t, atol=1e-5)
    with pytest.raises(ValueError, match="end at 0"):
        sample(gaussian(SHAPE), noise, [1.0, 0.5], [])


@pytest.mark.parametrize("case", VECTORS["generations"], ids=str)
def test_vectors_of_times_and_etas_beyond_the_steering(case):
    plan = SteeringPlan(
        seed=0, snr_start_q=72, snr_ratio_q=48, counts=(1,) * case["n_steered"], last_q=case["last_q"],
        n_injections=case["n_injections"], free_eta_scale_q=case["free_eta_scale_q"],
    )  # fmt: skip
    assert [t.hex() for t in plan.times] == case["times_hex"]
    assert [eta.hex() for eta in plan.etas] == case["etas_hex"]


@pytest.mark.parametrize("n_kept", [0, 3, None])
def test_after_the_steering_the_rest_is_generated(n_kept):
    """Written out once more: the steered steps as before, then pseudo-random noise down to low noise."""
    plan, atoms, _ = steer(gaussian(SHAPE), picture(SHAPE), PLAN, 2, size_bytes=300)
    if n_kept is not None:
        plan, atoms = replace(plan, counts=plan.counts[:n_kept], last_q=16), atoms[:n_kept]
    m = len(atoms)
    free = replace(plan, n_injections=20, free_eta_scale_q=100)
    assert free.times[: m + 1] == plan.times[: m + 1] and len(free.times) == 22
    x_t = initial_noise(PLAN.seed, 2, SHAPE)
    for step, (t, t_next) in enumerate(itertools.pairwise(free.times)):
        clean = x_t - t * gaussian(SHAPE)(x_t, t)
        if t_next == 0.0:
            break
        if step < m:
            codebook = plan.make_codebook(2, step, plan.n_entries(SHAPE))
            x_t = advance(x_t, clean, t, t_next, plan.etas[step], codebook.combine(atoms[step]))
        else:
            eta = 0.5 * math.sqrt(1 - snr_of(t) / snr_of(t_next))
            noise = normal(Stream(PLAN.seed, Purpose.STEP_NOISE, (2, step)), SHAPE)
            x_t = advance(x_t, clean, t, t_next, eta, noise)
    assert torch.allclose(follow(gaussian(SHAPE), atoms, free, 2, SHAPE, CPU), clean, atol=1e-5)


def test_what_is_generated_is_no_blur():
    """A model that knows the distribution makes values of its variance; where the steering stops short, of far less."""
    plan, atoms, _ = steer(gaussian(SHAPE), picture(SHAPE), PLAN, 0, size_bytes=300)
    short = replace(plan, counts=plan.counts[:2], last_q=16)
    free = replace(short, n_injections=full_grid_injections(72, 48, 1000), free_eta_scale_q=100)
    energy = [
        float((follow(gaussian(SHAPE), atoms[:2], each, 0, SHAPE, CPU).square() / variances(SHAPE)).mean())
        for each in (short, free)
    ]
    assert energy[0] < 0.3
    assert 0.8 < energy[1] < 1.2


@pytest.mark.parametrize(("start_q", "ratio_q"), [(72, 48), (0, 256), (255, 1), (120, 16)])
def test_a_full_grid_ends_where_noise_is_invisible(start_q, ratio_q):
    n_injections = full_grid_injections(start_q, ratio_q, 1000)
    times = SteeringPlan(0, start_q, ratio_q, n_injections=n_injections).times
    assert len(times) == n_injections + 2
    assert times[-2] <= LEAST_TIME < times[-3] or n_injections == 1000
    assert (64 + ratio_q) ** n_injections <= 2 ** (6 * n_injections + 64), "what a file may ask for"
