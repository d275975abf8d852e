"""The trellis: its search is optimal, its decoder agrees with the search, and it beats signed positions."""

from __future__ import annotations

import hashlib
import itertools
import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch

from vovcodec.entropy.choices import choices_bits, decode_choices, encode_choices, same_choices
from vovcodec.entropy.errors import BadCodedAtoms
from vovcodec.entropy.positions import coded_atoms_bits
from vovcodec.sampling.codebook import HadamardCodebook
from vovcodec.sampling.trellis import TrellisCodebook, best_path, bits_to_reach, mean_reach, path_words

VECTORS = json.loads((Path(__file__).parent / "vectors" / "steering.json").read_text())["trellis"]


def total(path, scores, atoms, signs, memory) -> float:
    words = path_words(np.array(path, dtype=np.uint8), memory)
    return float(sum(signs[w] * scores[i, atoms[w]] for i, w in enumerate(words)))


@pytest.mark.parametrize("memory", [1, 2, 4])
def test_the_search_finds_the_best_of_all_paths(memory):
    rng = np.random.default_rng(memory)
    scores = rng.standard_normal((9, 5)).astype(np.float32)
    atoms, signs = rng.integers(0, 5, 2 << memory), rng.choice([-1, 1], 2 << memory).astype(np.int8)
    best = max(itertools.product([0, 1], repeat=9), key=lambda path: total(path, scores, atoms, signs, memory))
    path, value = best_path(scores, atoms, signs, memory)
    assert value == pytest.approx(total(best, scores, atoms, signs, memory), rel=1e-5)
    assert value == pytest.approx(total(path, scores, atoms, signs, memory), rel=1e-5)


def test_a_long_path_is_searched_in_pieces_that_fit_together(monkeypatch):
    rng = np.random.default_rng(0)
    scores = rng.standard_normal((300, 7)).astype(np.float32)
    atoms, signs = rng.integers(0, 7, 64), rng.choice([-1, 1], 64).astype(np.int8)
    _, whole = best_path(scores, atoms, signs, 5)
    monkeypatch.setattr("vovcodec.sampling.trellis._BLOCK_BITS", 5)
    monkeypatch.setattr("vovcodec.sampling.trellis._BLOCK_LEAST", 100)
    path, pieces = best_path(scores, atoms, signs, 5)
    assert pieces == pytest.approx(total(path, scores, atoms, signs, 5), rel=1e-5)
    assert 0.97 * whole < pieces <= whole + 1e-3


def test_words_hold_the_last_bits_newest_lowest():
    assert path_words(np.array([1, 0, 1, 1], dtype=np.uint8), 2).tolist() == [1, 2, 5, 3]
    assert path_words(np.zeros(0, dtype=np.uint8), 12).size == 0


@pytest.mark.parametrize(("n_entries", "n_bits"), [(4096, 100), (2600, 333), (64, 1), (64, 30)])
def test_the_decoded_noise_reaches_what_the_search_promised(n_entries, n_bits):
    book = TrellisCodebook(7, 1, 2, n_entries, 8)
    residual = torch.randn(n_entries, generator=torch.Generator().manual_seed(0))
    residual /= residual.norm()
    path, value = book.search(book.scores(residual).numpy(), n_bits)
    z = book.combine(path)
    assert z.dtype == np.float32 and np.mean(z**2) == pytest.approx(1.0, rel=1e-5)
    # In a frame that is not orthogonal the sum's norm is not exactly √b.
    assert float(z @ residual.numpy()) == pytest.approx(
        value / math.sqrt(n_bits), rel=1e-4 if n_entries == 4096 else 0.1
    )


def test_a_bit_of_the_path_buys_more_than_a_bit_of_a_position():
    """Nats of divergence per bit, against the bound ln 2; and the mean that the encoder plans with."""
    n, n_bits = 1 << 15, 400
    gained, planned = [], []
    for seed in range(4):
        residual = torch.randn(n, generator=torch.Generator().manual_seed(seed))
        residual /= residual.norm()
        book = TrellisCodebook(seed, 0, 0, n, 10)
        _, value = book.search(book.scores(residual).numpy(), n_bits)
        gained.append(value**2 / n_bits / 2 / (n_bits * math.log(2)))
        planned.append(value / math.sqrt(n_bits) / mean_reach(n_bits, n))
    assert np.mean(gained) > 0.85 and np.mean(planned) == pytest.approx(1.0, abs=0.03)
    n_atoms = next(m for m in range(1, 200) if coded_atoms_bits([m], n) > n_bits)
    scores = HadamardCodebook(0, 0, 0, n).scores(residual).abs().sort(descending=True).values[:n_atoms]
    assert float(scores.sum()) ** 2 / n_atoms / 2 / (n_bits * math.log(2)) < 0.82 < np.mean(gained)


def test_planned_bits_and_reach_are_inverse():
    for n_bits in (1, 10, 300, 5000):
        assert bits_to_reach(mean_reach(n_bits, 32768), 32768) == pytest.approx(n_bits)
    assert bits_to_reach(200.0, 32768) == math.inf


def test_paths_are_written_as_they_are():
    rng = np.random.default_rng(0)
    paths = [rng.integers(0, 2, n).astype(np.uint8) for n in (3, 0, 21, 7)]
    words = encode_choices("trellis", paths, 64)
    assert len(words) == 4 and choices_bits("trellis", [3, 0, 21, 7], 64) == 32
    assert same_choices(decode_choices("trellis", words, (3, 0, 21, 7), 64), paths)


@pytest.mark.parametrize(
    ("words", "counts", "message"),
    [(b"\0\0", (3, 4), "1 bytes, not 2"), (b"\1", (3, 4), "not zero"), (bytes(9), (70,), "as many atoms")],
)
def test_impossible_paths_are_refused(words, counts, message):
    with pytest.raises(BadCodedAtoms, match=message):
        decode_choices("trellis", words, counts, 64)


@pytest.mark.parametrize("case", VECTORS, ids=lambda case: f"{case['n_entries']}-{case['memory']}")
def test_vectors_of_paths(case):
    path = np.unpackbits(np.frombuffer(bytes.fromhex(case["path_hex"]), dtype=np.uint8))[: case["n_bits"]]
    book = TrellisCodebook(case["seed"], case["segment"], case["step"], case["n_entries"], case["memory"])
    z = book.combine(path)
    assert [float(value).hex() for value in z[:4]] == case["start_hex"]
    assert hashlib.sha256(z.astype("<f4").tobytes()).hexdigest() == case["sha256"]
