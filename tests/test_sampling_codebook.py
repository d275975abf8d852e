"""Codebooks: both fast transforms against explicit matrices, and exact sums."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.linalg import hadamard

from vovcodec.sampling.codebook import CyclicShiftCodebook, HadamardCodebook, make_codebook, walsh_hadamard
from vovcodec.sampling.noise import Purpose, Stream, normal, permutation, signs

VECTORS = json.loads((Path(__file__).parent / "vectors" / "steering.json").read_text())
KINDS = ["hadamard", "cyclic"]


def atom(book, position: int, sign: int = 1) -> np.ndarray:
    return book.combine(np.array([position]), np.array([sign], dtype=np.int8))


@pytest.mark.parametrize("levels", [0, 1, 2, 5, 6, 7, 9, 12])
def test_walsh_hadamard_is_the_matrix_in_natural_order(levels):
    n = 1 << levels
    x = torch.randn(n, dtype=torch.float64, generator=torch.Generator().manual_seed(levels))
    assert torch.allclose(walsh_hadamard(x), torch.from_numpy(hadamard(n).astype(np.float64)) @ x)


def test_walsh_hadamard_of_integers_is_exact():
    n = 1 << 13
    x = torch.from_numpy(np.random.default_rng(0).integers(-100, 101, n)).float()
    twice = walsh_hadamard(walsh_hadamard(x))
    assert torch.equal(twice, x * n), "H·H = P·1, without any rounding"


@pytest.mark.parametrize("n", [1, 2, 63, 64, 100])
def test_hadamard_atoms_are_signed_rows_on_random_columns(n):
    book = HadamardCodebook(3, 1, 2, n)
    rows = hadamard(book.n_atoms) if book.n_atoms > 1 else np.ones((1, 1))
    columns = permutation(Stream(3, Purpose.COLUMNS), book.n_atoms)[:n]
    expected = rows[:, columns] * signs(Stream(3, Purpose.STEP_SIGNS, (1, 2)), n)
    assert n <= book.n_atoms < 2 * n
    for position in range(0, book.n_atoms, 7):
        assert np.array_equal(atom(book, position), expected[position])
    residual = torch.randn(n, generator=torch.Generator().manual_seed(n))
    assert np.allclose(book.scores(residual).numpy(), expected @ residual.numpy(), atol=1e-4)


@pytest.mark.parametrize("n", [1, 5, 64, 100])
def test_cyclic_atoms_are_the_shifts_of_one_gaussian(n):
    book = CyclicShiftCodebook(3, 1, 2, n)
    noise = normal(Stream(3, Purpose.STEP_NOISE, (1, 2)), n)
    shifts = np.stack([np.roll(noise, p) for p in range(n)])
    residual = torch.randn(n, generator=torch.Generator().manual_seed(n))
    assert np.allclose(book.scores(residual).numpy(), shifts @ residual.numpy(), atol=1e-4)
    for position in range(0, n, 7):
        scaled = shifts[position] / np.sqrt(np.mean(noise.astype(np.float64) ** 2))
        assert np.allclose(atom(book, position), scaled, atol=1e-6)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("n_entries", [64, 97, 1500])
def test_scores_rank_what_combine_builds(kind, n_entries):
    book = make_codebook(kind, 9, 0, 4, n_entries)
    residual = torch.randn(n_entries, generator=torch.Generator().manual_seed(1))
    scores = book.scores(residual).numpy()
    best = np.argsort(-np.abs(scores))[:12]
    products = np.array([atom(book, p) @ residual.numpy() for p in best])
    ratios = products / scores[best]
    assert np.allclose(ratios, ratios[0], rtol=1e-4) and ratios[0] > 0, "one positive factor for all"
    chosen = np.sort(best)
    together = book.combine(chosen, np.sign(scores[chosen]).astype(np.int8))
    assert together @ residual.numpy() > products.max(), "twelve atoms reach further than the best one"


@pytest.mark.parametrize("kind", KINDS)
def test_a_sum_has_unit_mean_square_and_changes_sign_with_its_atoms(kind):
    book = make_codebook(kind, 5, 2, 0, 777)
    positions = np.array([0, 3, 500, 776])
    atom_signs = np.array([1, -1, 1, 1], dtype=np.int8)
    z = book.combine(positions, atom_signs)
    assert z.dtype == np.float32 and z.shape == (777,)
    assert np.mean(z.astype(np.float64) ** 2) == pytest.approx(1.0, abs=1e-6)
    assert np.array_equal(book.combine(positions, -atom_signs), -z)
    nothing = book.combine(np.zeros(0, dtype=np.int64), np.zeros(0, dtype=np.int8))
    assert not nothing.any(), "no atom, no noise"


def test_a_hadamard_sum_is_exact():
    book = HadamardCodebook(1, 0, 0, 300)
    rng = np.random.default_rng(2)
    positions = np.sort(rng.choice(512, 200, replace=False))
    atom_signs = rng.choice([-1, 1], 200).astype(np.int8)
    rows = np.stack([atom(book, p) for p in positions]).astype(np.int64)
    total = (rows * atom_signs[:, None].astype(np.int64)).sum(axis=0)
    expected = (total / np.sqrt(np.float64((total * total).sum()) / 300)).astype(np.float32)
    assert np.array_equal(book.combine(positions, atom_signs), expected)


@pytest.mark.parametrize("n_entries", [2049, 2100, 2600])
def test_no_two_atoms_nearly_coincide_just_above_a_power_of_two(n_entries):
    """With the first N columns of the matrix, rows i and i + P/2 were 97 % equal for N = 2100."""
    book = HadamardCodebook(0, 0, 0, n_entries)
    half = book.n_atoms // 2
    for position in (0, 1, 77, 1024, half - 1):
        scores = book.scores(torch.from_numpy(atom(book, position))).numpy() / n_entries
        assert scores[position] == pytest.approx(1.0, abs=1e-5)
        others = np.abs(np.delete(scores, position))
        assert others.max() < 0.15, "5 deviations of a random sign pattern and then some"


@pytest.mark.parametrize("kind", KINDS)
def test_every_address_has_a_codebook_of_its_own(kind):
    sums = {
        make_codebook(kind, *address, 64).combine(np.array([5]), np.array([1])).tobytes()
        for address in [(0, 0, 0), (1, 0, 0), (0, 1, 0), (0, 0, 1)]
    }
    assert len(sums) == 4


@pytest.mark.parametrize("case", VECTORS["sums"], ids=lambda case: f"{case['codebook']}-{case['n_entries']}")
def test_vectors_of_sums(case):
    book = make_codebook(case["codebook"], case["seed"], case["segment"], case["step"], case["n_entries"])
    z = book.combine(np.array(case["positions"]), np.array(case["signs"], dtype=np.int8))
    assert [float(value).hex() for value in z[:4]] == case["start_hex"]
    assert hashlib.sha256(z.astype("<f4").tobytes()).hexdigest() == case["sha256"]
