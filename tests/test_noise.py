"""The exact streams: NumPy's raw Philox against an independent one, the normal table, derived integers and vectors."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from reference_entropy import reference_philox, reference_raw

from vovcodec.errors import VovError
from vovcodec.sampling import normal_table as table_module
from vovcodec.sampling.noise import Purpose, Stream, normal, permutation, raw_u16, raw_u64, signs, uniform_int

VECTORS = json.loads((Path(__file__).parent / "vectors" / "noise.json").read_text())


def test_reference_philox_is_the_published_one():
    # Known-answer vectors of Random123 (kat_vectors, philox4x64 with 10 rounds).
    ones = (1 << 64) - 1
    assert reference_philox((0, 0), (0, 0, 0, 0))[0] == 0x16554D9ECA36314C
    assert reference_philox((ones, ones), (ones,) * 4)[0] == 0x87B092C3013FE90B


@given(st.integers(0, 2**32 - 1), st.integers(0, 2**32 - 1), st.lists(st.integers(0, 2**32 - 1), max_size=4))
def test_raw_stream_follows_the_documented_layout(seed, purpose, indices):
    expected = [reference_raw(seed, purpose, indices, i) for i in range(11)]
    assert raw_u64(Stream(seed, purpose, tuple(indices)), 11).tolist() == expected


@pytest.mark.parametrize("case", VECTORS, ids=lambda case: f"{case['seed']}-{case['purpose']}")
def test_vectors(case):
    stream = Stream(case["seed"], case["purpose"], tuple(case["indices"]))
    assert [f"{raw:016x}" for raw in raw_u64(stream, 6).tolist()] == case["raw_u64"]
    assert signs(stream, 12).tolist() == case["signs"]
    assert (normal(stream, 8) * 4096).tolist() == case["normal_times_4096"]
    assert permutation(stream, 10).tolist() == case["permutation_10"]
    assert uniform_int(stream, 6, 1000).tolist() == case["uniform_int_1000"]
    many = (normal(stream, 100003) * 4096).astype("<i2")
    assert hashlib.sha256(many.tobytes()).hexdigest() == case["normal_100003_sha256"]
    order = permutation(stream, 100003).astype("<i8")
    assert hashlib.sha256(order.tobytes()).hexdigest() == case["permutation_100003_sha256"]


def test_shipped_table_is_what_the_generator_makes():
    rebuilt = table_module.build_half_table()
    assert np.array_equal(rebuilt, table_module.half_table())
    assert table_module.digest(rebuilt) == table_module.TABLE_SHA256


def test_table_is_far_from_ties_and_agrees_with_scipy():
    special = pytest.importorskip("scipy.special")
    quantiles = special.ndtri((np.arange(32768, 65536) + 0.5) / 65536) * 4096
    assert np.abs(quantiles % 1 - 0.5).min() > 1e-5
    assert np.array_equal(np.rint(quantiles), table_module.half_table())


def test_table_is_symmetric_and_exact():
    table = table_module.normal_table()
    assert table.dtype == np.float32 and table.shape == (65536,)
    assert np.array_equal(table, -table[::-1])
    assert np.array_equal(table.astype(np.float64) * 4096, np.rint(table.astype(np.float64) * 4096))
    assert (np.diff(table) >= 0).all() and 4.32 < table.max() < 4.33


@pytest.mark.parametrize(
    "content", [None, b"", b"no zlib", table_module.pack_half_table(np.arange(32768, dtype=np.int16))]
)
def test_damaged_table_is_refused(content, tmp_path, monkeypatch):
    path = tmp_path / "normal_table.bin"
    if content is not None:
        path.write_bytes(content)
    monkeypatch.setattr(table_module, "TABLE_FILE", path)
    with pytest.raises(VovError, match="reinstall"):
        table_module.half_table.__wrapped__()


def test_integers_of_16_bits_and_signs_are_bits_of_the_raw_stream():
    stream = Stream(5, Purpose.STEP_SIGNS)
    bits = "".join(f"{raw:064b}"[::-1] for raw in raw_u64(stream, 3).tolist())
    assert raw_u16(stream, 11).tolist() == [int(bits[16 * i : 16 * i + 16][::-1], 2) for i in range(11)]
    assert signs(stream, 150).tolist() == [-1 if bit == "1" else 1 for bit in bits[:150]]
    assert signs(stream, 150).dtype == np.int8


def test_a_longer_request_starts_with_the_shorter_one():
    stream = Stream(9, Purpose.STEP_NOISE, (1, 2))
    for draw in (raw_u64, raw_u16, signs, normal):
        assert np.array_equal(draw(stream, 1000)[:37], draw(stream, 37))


def test_normals_are_standard_and_streams_are_unrelated():
    first = normal(Stream(1, Purpose.INITIAL_NOISE), (200, 500)).astype(np.float64)
    second = normal(Stream(1, Purpose.INITIAL_NOISE, (1,)), (200, 500)).astype(np.float64)
    assert first.shape == (200, 500)
    assert abs(first.mean()) < 0.016 and abs(first.var() - 1) < 0.023 and abs((first * second).mean()) < 0.016


@pytest.mark.parametrize("n", [0, 1, 2, 3, 1000, 65536])
def test_permutation_is_the_stable_argsort_of_the_raw_keys(n):
    stream = Stream(3, Purpose.COLUMNS)
    assert np.array_equal(permutation(stream, n), np.argsort(raw_u64(stream, n), kind="stable"))


def test_permutation_breaks_ties_of_high_bits_by_full_key_then_index(monkeypatch):
    keys = np.array([5, 3, 3, 1 << 60, 4, (1 << 60) + 1, 3, 1 << 60, 0], dtype=np.uint64)
    monkeypatch.setattr("vovcodec.sampling.noise.raw_u64", lambda stream, n: keys[:n])
    assert permutation(Stream(0, 1), 9).tolist() == np.argsort(keys, kind="stable").tolist()


def test_uniform_int_covers_its_range_evenly():
    values = uniform_int(Stream(2, Purpose.CANDIDATE_CHOICE), 60000, 6)
    counts = np.bincount(values)
    assert counts.size == 6 and np.abs(counts - 10000).max() < 450
    assert uniform_int(Stream(2, 6), 5, 1).tolist() == [0] * 5


def test_out_of_range_addresses_are_refused():
    for arguments in [(-1, 1), (1 << 32, 1), (0, 1 << 32), (0, 1, (1 << 32,)), (0, 1, (0,) * 5)]:
        with pytest.raises(ValueError):
            Stream(*arguments)
    for bound in (0, (1 << 32) + 1):
        with pytest.raises(ValueError):
            uniform_int(Stream(0, 1), 3, bound)
