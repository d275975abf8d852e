"""The step size at which a vector takes the bytes it may take."""

from __future__ import annotations

import numpy as np
import pytest

from vovcodec.entropy.quantizer import SYMBOL_LIMIT, nearest_step_size_q, quantize
from vovcodec.entropy.step_search import finest_step_size_q
from vovcodec.entropy.symbols import coded_size


def size_of(vector: np.ndarray, step_size_q: int) -> int:
    return coded_size(quantize(vector, step_size_q))


@pytest.mark.parametrize("near", [None, 0, 20000, 25000, 65535])
@pytest.mark.parametrize("size_bytes", [20, 60, 110])
@pytest.mark.parametrize("deviation", [1e-3, 0.5, 20.0, 900.0])
def test_the_bytes_are_used_and_never_exceeded(deviation, size_bytes, near):
    vector = (deviation * np.random.default_rng(2).standard_normal(200)).astype(np.float32)
    found = finest_step_size_q(vector, size_bytes, near)
    assert size_bytes - 2 <= size_of(vector, found) <= size_bytes
    assert size_of(vector, found + 256) > size_bytes, "a step finer by a twelfth"


def test_a_good_guess_saves_most_of_the_work(monkeypatch):
    import vovcodec.entropy.step_search as module

    vector = np.random.default_rng(3).standard_normal(500).astype(np.float32)
    calls = []
    monkeypatch.setattr(module, "coded_size", lambda symbols: calls.append(1) or coded_size(symbols))
    found = finest_step_size_q(vector, 120)
    n_without = len(calls)
    finest_step_size_q(1.002 * vector, 120, found)
    assert len(calls) - n_without <= 0.6 * n_without


def test_no_finer_than_the_largest_symbol_and_zeros_fit_into_nothing():
    vector = np.random.default_rng(4).standard_normal(50).astype(np.float32)
    for near in (None, 12000):
        found = finest_step_size_q(vector, 10**6, near)
        assert 0 <= nearest_step_size_q(float(np.abs(vector).max()) / SYMBOL_LIMIT) - found <= 4
    assert not quantize(vector, finest_step_size_q(vector, 0)).any()
    assert size_of(np.zeros(50), finest_step_size_q(np.zeros(50), 0)) == 0


def test_a_vector_beyond_the_coarsest_step_takes_that():
    assert finest_step_size_q(np.full(10, 1e9), 0) == 0
