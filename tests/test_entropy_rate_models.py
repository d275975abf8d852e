"""The training-time rate models against known entropies and against what the coder writes."""

from __future__ import annotations

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from vovcodec.entropy.factorized import FactorizedModel  # noqa: E402
from vovcodec.entropy.mixture import GaussianMixtureModel  # noqa: E402
from vovcodec.entropy.symbols import encode_symbols  # noqa: E402


def laplace_symbols(n: int, spread: float) -> np.ndarray:
    return np.rint(np.random.default_rng(4).laplace(size=n) * spread).astype(int)


def laplace_entropy_bits(spread: float) -> float:
    k = np.arange(1, 400)
    p = 0.5 * (np.exp(-(k - 0.5) / spread) - np.exp(-(k + 0.5) / spread))
    p0 = 1 - np.exp(-0.5 / spread)
    p = p[p > 0]
    return float(-p0 * np.log2(p0) - 2 * (p * np.log2(p)).sum())


def train(model: torch.nn.Module, values: torch.Tensor, n_steps: int) -> None:
    optimizer = torch.optim.Adam(model.parameters(), lr=0.05)
    generator = torch.Generator().manual_seed(0)
    for _ in range(n_steps):
        optimizer.zero_grad()
        noisy = values + torch.rand(values.shape, generator=generator) - 0.5
        (model.rate_bits(noisy) / values.numel()).backward()
        optimizer.step()


@pytest.mark.parametrize("shape", ["gaussian", "laplace", "mostly zero"])
@pytest.mark.parametrize("spread", [0.4, 1.5])
def test_fitted_mixture_predicts_the_coded_size_within_a_percent(shape, spread):
    rng = np.random.default_rng(5)
    draw = {
        "gaussian": rng.normal(size=8192),
        "laplace": rng.laplace(size=8192),
        "mostly zero": rng.normal(size=8192) * 2 * (rng.random(8192) < 0.3),
    }[shape]
    symbols = np.rint(draw * spread).astype(int)
    model, words = encode_symbols(symbols)
    values = torch.tensor(symbols, dtype=torch.float32)
    predicted = GaussianMixtureModel().fit(values).rate_bits(values).item() / 8
    assert predicted == pytest.approx(len(model) + len(words), rel=0.01)


@pytest.mark.parametrize("make", [FactorizedModel, GaussianMixtureModel])
def test_models_learn_a_known_entropy_from_noisy_symbols(make):
    spread = 1.0
    symbols = laplace_symbols(4096, spread)
    values = torch.tensor(symbols, dtype=torch.float32)
    model = make()
    before = model.rate_bits(values).item()
    train(model, values, 200)
    learned = model.rate_bits(values).item() / values.numel()
    assert learned < before / values.numel()
    assert learned == pytest.approx(laplace_entropy_bits(spread), rel=0.03)


@pytest.mark.parametrize("make", [FactorizedModel, GaussianMixtureModel])
def test_probabilities_of_all_symbols_sum_to_one(make):
    # A scale of 8 symbols leaves nothing beyond +-300; the floor of 2^-24 adds at most 601 * 2^-24.
    total = make().probabilities(torch.arange(-300.0, 301.0)).sum().item()
    assert total == pytest.approx(1.0, abs=1e-3)


@pytest.mark.parametrize("make", [FactorizedModel, GaussianMixtureModel])
def test_rate_pulls_symbols_towards_zero(make):
    values = torch.tensor([-3.2, -1.0, 0.7, 4.1], requires_grad=True)
    rate = make().rate_bits(values)
    assert rate.ndim == 0
    rate.backward()
    assert (values.grad * values > 0).all()


@pytest.mark.parametrize("make", [FactorizedModel, GaussianMixtureModel])
def test_extreme_symbols_have_finite_rates_and_gradients(make):
    model = make()
    values = torch.tensor([0.0, -0.5, 0.5, 1e4, -1e4], requires_grad=True)
    rate = model.rate_bits(values)
    rate.backward()
    assert torch.isfinite(rate) and torch.isfinite(values.grad).all()
    assert all(torch.isfinite(p.grad).all() for p in model.parameters())


def test_mixture_of_all_zero_symbols_is_almost_free():
    values = torch.zeros(1000)
    assert GaussianMixtureModel().fit(values).rate_bits(values).item() < 10
