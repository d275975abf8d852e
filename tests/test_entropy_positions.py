"""The coder of steering atoms: round trips, rate against log2 C(N, M), truncation, hostile bytes, vectors."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from reference_entropy import reference_decode_atoms

from vovcodec.entropy import positions as positions_module
from vovcodec.entropy.errors import BadCodedAtoms
from vovcodec.entropy.positions import coded_atoms_bits, decode_atoms, encode_atoms

VECTORS = json.loads((Path(__file__).parent / "vectors" / "atoms.json").read_text())


def as_steps(case: dict) -> list[tuple[np.ndarray, np.ndarray]]:
    return [tuple(np.array(step, dtype=int).reshape(-1, 2).T) for step in case["steps"]]


def random_steps(seed: int, n_positions: int, counts: list[int]) -> list[tuple[np.ndarray, np.ndarray]]:
    rng = np.random.default_rng(seed)
    return [(np.sort(rng.choice(n_positions, m, replace=False)), rng.choice([-1, 1], m)) for m in counts]


def assert_same(decoded, steps) -> None:
    assert len(decoded) == len(steps)
    for (positions, signs), (expected_positions, expected_signs) in zip(decoded, steps, strict=True):
        assert positions.dtype == np.int64 and signs.dtype == np.int8
        assert np.array_equal(positions, expected_positions) and np.array_equal(signs, expected_signs)


def exact_bits(n_positions: int, counts: list[int]) -> float:
    return sum(math.log2(math.comb(n_positions, m)) + m for m in counts)


@pytest.mark.parametrize("case", VECTORS, ids=lambda case: case["name"])
def test_vectors(case):
    steps = as_steps(case)
    assert encode_atoms(steps, case["n_positions"]).hex() == case["words"]
    assert_same(decode_atoms(bytes.fromhex(case["words"]), [len(p) for p, _ in steps], case["n_positions"]), steps)


@pytest.mark.parametrize("case", VECTORS, ids=lambda case: case["name"])
def test_second_decoder_agrees(case):
    counts = [len(step) for step in case["steps"]]
    decoded = reference_decode_atoms(bytes.fromhex(case["words"]), counts, case["n_positions"])
    assert [[list(atom) for atom in step] for step in decoded] == case["steps"]


@st.composite
def atoms(draw):
    n_positions = draw(st.integers(1, 300))
    steps = draw(st.lists(st.dictionaries(st.integers(0, n_positions - 1), st.sampled_from([-1, 1])), max_size=5))
    as_arrays = [
        (np.array(sorted(step), dtype=int), np.array([step[p] for p in sorted(step)], dtype=int)) for step in steps
    ]
    return n_positions, as_arrays


@given(atoms())
def test_round_trip(case):
    n_positions, steps = case
    words = encode_atoms(steps, n_positions)
    assert_same(decode_atoms(words, [len(p) for p, _ in steps], n_positions), steps)


@pytest.mark.parametrize(
    "n_positions, counts",
    [
        (159744, [8] * 20),
        (159744, list(range(2, 42, 2))),
        (159744, [200] * 20),
        (4096, [1] * 20),
        (2_096_640, [1, 10, 100, 1000]),
        (4_000_000, [20000]),
        ((1 << 24) - 1, [50] * 3),
        (1000, [500] * 4),
    ],
)
def test_rate_is_the_number_of_possibilities(n_positions, counts):
    steps = random_steps(1, n_positions, counts)
    words = encode_atoms(steps, n_positions)
    exact = exact_bits(n_positions, counts)
    assert 8 * len(words) <= exact * 1.001 + 8
    assert 0.995 * exact <= 8 * len(words) <= coded_atoms_bits(counts, n_positions) <= exact * 1.001 + 8.1
    assert_same(decode_atoms(words, counts, n_positions), steps)


def test_positions_no_law_expects_still_round_trip():
    for n_positions, start in [(100000, 0), (100000, 99000), (1 << 23, 12345)]:
        steps = [(np.arange(start, start + 1000), np.ones(1000, dtype=int))]
        words = encode_atoms(steps, n_positions)
        assert_same(decode_atoms(words, [1000], n_positions), steps)
        assert 8 * len(words) < 1.05 * exact_bits(n_positions, [1000])


def test_more_intervals_than_a_batch(monkeypatch):
    steps = random_steps(3, 5000, [700, 40])
    monkeypatch.setattr(positions_module, "BATCH_INTERVALS", 16)
    assert_same(decode_atoms(encode_atoms(steps, 5000), [700, 40], 5000), steps)


def test_nothing_costs_nothing():
    assert encode_atoms([], 100) == b"" and decode_atoms(b"", [], 100) == []
    empty = (np.zeros(0, dtype=int), np.zeros(0, dtype=int))
    assert encode_atoms([empty, empty], 100) == b"" and coded_atoms_bits([0, 0], 100) == 0
    assert_same(decode_atoms(b"", [0, 0], 100), [empty, empty])


@pytest.mark.parametrize(
    "positions, signs, n_positions",
    [
        ([3, 3], [1, 1], 9),
        ([4, 2], [1, 1], 9),
        ([9], [1], 9),
        ([-1], [1], 9),
        ([1], [0], 9),
        ([1], [1, 1], 9),
        ([0], [1], 1 << 24),
    ],
)
def test_bad_atoms_are_refused_by_the_encoder(positions, signs, n_positions):
    with pytest.raises(ValueError):
        encode_atoms([(np.array(positions), np.array(signs))], n_positions)


@pytest.mark.parametrize("counts, n_positions", [([10], 9), ([-1], 9), ([1], 0), ([1], 1 << 24)])
def test_impossible_counts_are_refused(counts, n_positions):
    with pytest.raises(BadCodedAtoms):
        decode_atoms(b"", counts, n_positions)


def test_impossible_words_are_refused():
    steps = random_steps(2, 100, [5])
    for words in (encode_atoms(steps, 100) + b"\0", b"\xff" * 5000):
        with pytest.raises(BadCodedAtoms):
            decode_atoms(words, [5], 100)


@given(st.binary(max_size=80), st.lists(st.integers(0, 200), max_size=6), st.integers(1, 3000))
def test_any_bytes_give_valid_atoms_or_the_typed_error(words, counts, n_positions):
    try:
        steps = decode_atoms(words, counts, n_positions)
    except BadCodedAtoms:
        return
    assert [len(positions) for positions, _ in steps] == counts
    for positions, signs in steps:
        assert (np.diff(positions) > 0).all() and np.isin(signs, (-1, 1)).all()
        assert positions.size == 0 or (positions[0] >= 0 and positions[-1] < n_positions)


def test_bytes_that_force_improbable_splits_are_refused_or_valid():
    # All ones walks down the last, padding outcomes of every table.
    refused = 0
    for n_bytes in range(1, 60):
        try:
            decode_atoms(b"\xff" * n_bytes, [40, 3, 100], 128)
        except BadCodedAtoms:
            refused += 1
    assert refused
