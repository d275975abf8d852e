"""The balanced projection: balance, isometry, transpose, order and vectors."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vovcodec.adaptation.projection import BalancedProjection
from vovcodec.errors import UsageError

VECTORS = json.loads((Path(__file__).parent / "vectors" / "projection.json").read_text())


@pytest.mark.parametrize("case", VECTORS, ids=lambda case: f"{case['n_entries']}-{case['vector_length']}")
def test_vectors(case):
    projection = BalancedProjection(case["n_entries"], case["vector_length"], case["seed"])
    assert projection.index[:10].tolist() == case["index_start"]
    assert [float(s).hex() for s in projection.scale[:10]] == case["scale_start_hex"]
    for name, dtype in (("index", "<i4"), ("scale", "<f4"), ("order", "<i8")):
        content = getattr(projection, name).astype(dtype).tobytes()
        assert hashlib.sha256(content).hexdigest() == case[f"{name}_sha256"], name


@given(st.integers(1, 300), st.integers(0, 500), st.integers(0, 2**32 - 1))
def test_every_vector_entry_is_used_equally_often(vector_length, extra, seed):
    projection = BalancedProjection(vector_length + extra, vector_length, seed)
    used = np.bincount(projection.index, minlength=vector_length)
    base = projection.n_entries // vector_length
    assert used.sum() == projection.n_entries and set(used.tolist()) <= {base, base + 1}
    assert np.array_equal(used, projection.counts)
    assert np.array_equal(np.abs(projection.scale), (1 / np.sqrt(used)).astype(np.float32)[projection.index])


@given(st.integers(1, 300), st.integers(0, 500), st.integers(0, 2**32 - 1))
def test_order_is_the_stable_argsort_of_the_index(vector_length, extra, seed):
    projection = BalancedProjection(vector_length + extra, vector_length, seed)
    assert np.array_equal(projection.order, np.argsort(projection.index, kind="stable"))
    ends = np.cumsum(projection.counts)
    for entry in (0, vector_length // 2, vector_length - 1):
        segment = projection.order[ends[entry] - projection.counts[entry] : ends[entry]]
        assert (projection.index[segment] == entry).all() and segment.size == projection.counts[entry]


def test_expansion_is_isometric():
    projection = BalancedProjection(7001, 300, 11)
    vector = np.random.default_rng(0).normal(size=300).astype(np.float32)
    factors = vector[projection.index] * projection.scale
    assert factors.dtype == np.float32
    assert np.linalg.norm(factors) == pytest.approx(np.linalg.norm(vector), rel=1e-5)


def test_signs_are_balanced_and_seeds_matter():
    first, second = BalancedProjection(20000, 500, 1), BalancedProjection(20000, 500, 2)
    assert abs(np.sign(first.scale).mean()) < 0.04
    assert (first.index == second.index).mean() < 0.02
    assert abs((np.sign(first.scale) * np.sign(second.scale)).mean()) < 0.04


@pytest.mark.parametrize(
    "n_entries, vector_length, words", [(99, 100, "higher rank"), (5, 0, "at least 1"), (1 << 31, 9, "2\\^31")]
)
def test_impossible_sizes_are_usage_errors(n_entries, vector_length, words):
    with pytest.raises(UsageError, match=words):
        BalancedProjection(n_entries, vector_length, 0)
