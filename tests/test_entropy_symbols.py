"""The coder of the vector: round trips, rate against the entropy, hostile bytes, vectors and the second decoder."""

from __future__ import annotations

import contextlib
import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from reference_entropy import reference_decode_symbols

from vovcodec.entropy.errors import BadCodedSymbols, BadEntropyModel
from vovcodec.entropy.symbols import MAX_SYMBOL, SymbolModel, decode_symbols, encode_symbols
from vovcodec.errors import FormatError

VECTORS = json.loads((Path(__file__).parent / "vectors" / "symbols.json").read_text())


def entropy_bytes(symbols: np.ndarray) -> float:
    counts = np.unique(symbols, return_counts=True)[1]
    return float(-(counts * np.log2(counts / symbols.size)).sum()) / 8


def samples(shape: str, spread: float, n: int) -> np.ndarray:
    rng = np.random.default_rng(n)
    draw = {"gaussian": rng.normal, "laplace": rng.laplace}[shape](size=n)
    return np.clip(np.rint(draw * spread), -128, 128).astype(int)


@pytest.mark.parametrize("case", VECTORS, ids=lambda case: case["name"])
def test_vectors(case):
    model, words = encode_symbols(np.array(case["symbols"]))
    assert (model.hex(), words.hex()) == (case["model"], case["words"])
    assert decode_symbols(model, words, len(case["symbols"])).tolist() == case["symbols"]


@pytest.mark.parametrize("case", VECTORS, ids=lambda case: case["name"])
def test_second_decoder_agrees(case):
    model, words = bytes.fromhex(case["model"]), bytes.fromhex(case["words"])
    assert reference_decode_symbols(model, words, len(case["symbols"])) == case["symbols"]


@given(st.lists(st.integers(-MAX_SYMBOL, MAX_SYMBOL), max_size=60) | st.lists(st.integers(-3, 3), max_size=300))
@example([])
@example([128, -128])
@example([129])
@example([-1024])
def test_round_trip(symbols):
    model, words = encode_symbols(np.array(symbols, dtype=np.int32))
    decoded = decode_symbols(model, words, len(symbols))
    assert decoded.dtype == np.int32 and decoded.tolist() == symbols


@pytest.mark.parametrize(
    "model_fields", [(90, 2, 2, a, r) for a in range(4) for r in (0, 7)] + [(0, 0, 7, 1, 0), (127, 7, 0, 3, 0)]
)
def test_every_field_of_the_model_survives_its_bytes(model_fields):
    model = SymbolModel(*model_fields)
    assert SymbolModel.from_bytes(model.to_bytes()) == model
    assert model.prior().sum() <= 1 << 22 and model.prior().argmax() == model.limit


@pytest.mark.parametrize("shape", ["gaussian", "laplace"])
@pytest.mark.parametrize("spread", [0.4, 0.8, 2.0])
def test_long_vectors_are_within_half_a_percent_of_their_entropy(shape, spread):
    symbols = samples(shape, spread, 131072)
    model, words = encode_symbols(symbols)
    assert len(model) + len(words) <= 1.002 * entropy_bytes(symbols)
    assert np.array_equal(decode_symbols(model, words, symbols.size), symbols)


@pytest.mark.parametrize("shape", ["gaussian", "laplace"])
@pytest.mark.parametrize("n", [512, 1024, 4096])
def test_short_vectors_cost_a_few_bytes_over_their_entropy(shape, n):
    symbols = samples(shape, 0.8, n)
    model, words = encode_symbols(symbols)
    assert len(model) + len(words) <= entropy_bytes(symbols) + 6


def test_counts_take_over_when_no_law_fits():
    rng = np.random.default_rng(0)
    symbols = rng.choice([-7, 0, 1, 5], size=20000, p=[0.3, 0.1, 0.4, 0.2])
    model, words = encode_symbols(symbols)
    assert SymbolModel.from_bytes(model).adaptation != 0
    assert len(model) + len(words) <= 1.01 * entropy_bytes(symbols)


def test_all_zero_costs_nothing():
    assert encode_symbols(np.zeros(4096, dtype=int)) == (b"", b"")
    assert decode_symbols(b"", b"", 4096).tolist() == [0] * 4096


def test_symbols_out_of_range_are_refused():
    with pytest.raises(ValueError):
        encode_symbols(np.array([MAX_SYMBOL + 1]))


@pytest.mark.parametrize("model", [b"\x00", b"\x00\x80", b"\x00\x00\x00", b"\x00\x00\x08", b"\x00\x00\x01\x00"])
def test_undefined_models_are_refused(model):
    with pytest.raises(BadEntropyModel):
        decode_symbols(model, b"", 10)


def test_impossible_words_are_refused():
    model, words = encode_symbols(samples("gaussian", 1.0, 100))
    for bad in (words + b"\0", b"\xff" * 309):
        with pytest.raises(BadCodedSymbols):
            decode_symbols(model, bad, 100)
    with pytest.raises(BadCodedSymbols):
        decode_symbols(b"", b"\x01", 100)
    for n in (-1, (1 << 24) + 1):
        with pytest.raises(BadCodedSymbols):
            decode_symbols(model, words, n)


@given(st.binary(max_size=4), st.binary(max_size=60), st.integers(0, 400))
def test_any_bytes_decode_or_raise_a_format_error(model, words, n):
    try:
        symbols = decode_symbols(model, words, n)
    except FormatError:
        return
    assert symbols.shape == (n,) and np.abs(symbols).max(initial=0) <= MAX_SYMBOL


@given(st.integers(0, 2**32 - 1), st.integers(0, 255), st.integers(0, 10**6))
def test_damaged_words_decode_or_raise_a_format_error(seed, value, place):
    symbols = np.random.default_rng(seed).poisson(1.0, 200)
    model, words = encode_symbols(symbols)
    damaged = bytearray(words)
    damaged[place % len(damaged)] = value
    for data in (bytes(damaged), words[: place % len(words)]):
        with contextlib.suppress(FormatError):
            assert decode_symbols(model, data, 200).shape == (200,)
