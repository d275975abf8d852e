"""Exact powers of two, step sizes, quantisation and its training proxies."""

from __future__ import annotations

import json
from decimal import Decimal, getcontext
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vovcodec.entropy.exp2 import exp2_table
from vovcodec.entropy.quantizer import dequantize, nearest_step_size_q, quantize, step_size

VECTORS = json.loads((Path(__file__).parent / "vectors" / "step_size.json").read_text())
getcontext().prec = 80


def test_every_fraction_is_correctly_rounded():
    ratio, exact = Decimal(2) ** (Decimal(-1) / 2048), Decimal(1)
    for i, entry in enumerate(exp2_table()):
        assert abs(Decimal(entry) / (1 << 128) / exact - 1) < Decimal(2) ** -122
        # float(Fraction) rounds to nearest, ties to even; the 40-bit mantissas of the symbol model are rounded down.
        assert step_size(i) == 4096 * float(Fraction(exact)), i
        assert entry >> 88 == int(exact * (1 << 40)), i
        exact *= ratio


def test_whole_octaves_are_exact():
    assert [step_size(2048 * i) for i in range(32)] == [2.0 ** (12 - i) for i in range(32)]
    assert step_size(2048 * 5 + 77) == step_size(77) / 32


@pytest.mark.parametrize("case", VECTORS, ids=lambda case: str(case["step_size_q"]))
def test_vectors(case):
    assert step_size(case["step_size_q"]).hex() == case["step_size_hex"]
    values = dequantize(np.array(case["symbols"]), case["step_size_q"])
    assert values.dtype == np.float32 and [float(v).hex() for v in values] == case["dequantized_hex"]


@given(st.integers(0, 65535))
def test_nearest_step_size_q_inverts_step_size(step_size_q):
    assert nearest_step_size_q(step_size(step_size_q)) == step_size_q


def test_step_sizes_out_of_range():
    assert nearest_step_size_q(5000.0) == 0 and nearest_step_size_q(1e-30) == 65535
    for q in (-1, 65536):
        with pytest.raises(ValueError):
            step_size(q)
    for delta in (0.0, -1.0, float("nan"), float("inf")):
        with pytest.raises(ValueError):
            nearest_step_size_q(delta)


def test_quantize_rounds_half_to_even_and_clamps():
    vector = np.array([0.25, 0.75, -0.25, -0.75, 1.25, 1e9, -1e9, 0.0], dtype=np.float32)
    symbols = quantize(vector, 13 * 2048)
    assert symbols.tolist() == [0, 2, 0, -2, 2, 128, -128, 0] and symbols.dtype == np.int32
    assert quantize(vector, 13 * 2048, limit=1).tolist() == [0, 1, 0, -1, 1, 1, -1, 0]
    with pytest.raises(ValueError):
        quantize(np.array([0.0, np.nan]), 0)


@given(st.integers(0, 65535), st.lists(st.integers(-128, 128), max_size=50))
def test_dequantised_symbols_quantise_to_themselves(step_size_q, symbols):
    assert quantize(dequantize(np.array(symbols, dtype=int), step_size_q), step_size_q).tolist() == symbols


def test_straight_through_matches_the_decoder_and_has_the_documented_gradients():
    torch = pytest.importorskip("torch")
    from vovcodec.entropy.proxies import round_straight_through

    theta = torch.tensor([0.26, 0.74, -0.9, 5.0, -5.0], requires_grad=True)
    delta = torch.tensor(0.5, requires_grad=True)
    rounded = round_straight_through(theta, delta, 3)
    half = 13 * 2048
    assert np.array_equal(rounded.detach().numpy(), dequantize(quantize(theta.detach().numpy(), half, limit=3), half))
    rounded.sum().backward()
    assert theta.grad.tolist() == [1, 1, 1, 0, 0]
    expected = (1 - 0.52) + (1 - 1.48) + (-2 + 1.8) + 3 - 3
    assert delta.grad.item() == pytest.approx(expected, abs=1e-5)


def test_additive_noise_is_uniform_reproducible_and_differentiable():
    torch = pytest.importorskip("torch")
    from vovcodec.entropy.proxies import add_uniform_noise

    theta = torch.full((20000,), 0.3, requires_grad=True)
    noisy = add_uniform_noise(theta, 0.1, torch.Generator().manual_seed(1))
    again = add_uniform_noise(theta, 0.1, torch.Generator().manual_seed(1))
    assert torch.equal(noisy, again)
    noise = noisy.detach() - 3.0
    assert noise.min() >= -0.5001 and noise.max() <= 0.5001
    assert abs(noise.mean()) < 0.01 and abs(noise.var() - 1 / 12) < 0.003
    noisy.sum().backward()
    assert torch.allclose(theta.grad, torch.full((20000,), 10.0))
