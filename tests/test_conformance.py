"""The conformance cases: what a decoder must find exactly, and pixels within their tolerance."""

from __future__ import annotations

import json
from pathlib import Path

import make_conformance as cases
import numpy as np
import pytest
from PIL import Image
from reference_entropy import reference_decode_atoms, reference_decode_symbols

from vovcodec.container import read_vov

ALL = pytest.mark.parametrize("name", cases.CASES)


def expected(name: str) -> dict:
    return json.loads((cases.FOLDER / f"{name}.json").read_text(encoding="utf-8"))


def test_every_file_of_the_folder_belongs_to_a_case():
    listed = {f"{name}.{ending}" for name in cases.CASES for ending in ("vov", "json", "png")}
    assert {path.name for path in cases.FOLDER.iterdir()} == listed
    assert sum(path.stat().st_size for path in cases.FOLDER.iterdir()) < 400_000


@ALL
def test_symbols_and_atoms_are_exact(name: str):
    stream = read_vov(cases.FOLDER / f"{name}.vov")
    assert [cases.entropy_of(stream, segment) for segment in stream.segments] == expected(name)["segments"], (
        "if the embedded model is a new one: python tests/make_conformance.py"
    )


@ALL
def test_the_second_decoder_finds_them_too(name: str):
    stream = read_vov(cases.FOLDER / f"{name}.vov")
    for segment, found in zip(stream.segments, expected(name)["segments"], strict=True):
        if segment.vector is not None:
            n = stream.header.adaptation.vector_length
            assert reference_decode_symbols(segment.vector.model, segment.vector.words, n) == found["symbols"]
        if segment.atoms is not None:
            counts = list(segment.atoms.counts)
            decoded = reference_decode_atoms(segment.atoms.words, counts, found["n_positions"])
            assert decoded == [list(zip(*atoms, strict=True)) for atoms in found["atoms"]]


@ALL
def test_pixels_are_within_the_tolerance(name: str, tmp_path: Path):
    frames = cases.decoded(cases.FOLDER / f"{name}.vov", tmp_path)
    with Image.open(cases.FOLDER / f"{name}.png") as picture:
        reference = np.asarray(picture.convert("RGB")).reshape(frames.shape)
    error = frames.astype(np.float64) - reference
    tolerance = expected(name)["tolerance"]
    assert np.sqrt(np.mean(error**2)) <= tolerance["rms"]
    assert np.abs(error).max() <= tolerance["peak"]
    # The tolerance is tight enough to notice another picture.
    assert np.sqrt(np.mean((reference[..., ::-1].astype(np.float64) - reference) ** 2)) > 10 * tolerance["rms"]
