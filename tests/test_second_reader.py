"""The text alone is enough: a reader written from FORMAT.md finds in every file what ours finds, or refuses it too."""

from __future__ import annotations

import ast
import dataclasses
import math
import random
from pathlib import Path

import numpy as np
import pytest
import second_reader as second
from fuzz_mutations import corpus, mutate
from reference_entropy import (
    reference_decode_atoms,
    reference_decode_paths,
    reference_decode_symbols,
    reference_path_atoms,
)

from vovcodec.container import VovFile, audio_of, parse
from vovcodec.container.errors import BadAudio, FormatError
from vovcodec.entropy.choices import decode_choices
from vovcodec.entropy.errors import BadCodedAtoms
from vovcodec.entropy.quantizer import dequantize, step_size
from vovcodec.entropy.symbols import decode_symbols
from vovcodec.sampling.codebook import HadamardCodebook
from vovcodec.sampling.trellis import TrellisCodebook

HERE = Path(__file__).parent
FILES = sorted([*(HERE / "golden").glob("*.vov"), *(HERE / "conformance").glob("*.vov")])
N_CHANGED = 1500


def plain(part: object) -> object:
    """Our data in the second reader's shape."""
    if dataclasses.is_dataclass(part):
        return {field.name: plain(getattr(part, field.name)) for field in dataclasses.fields(part)}
    return tuple(map(plain, part)) if isinstance(part, tuple) else part


def ours(stream: VovFile) -> dict:
    """A parsed file as the second reader gives it."""
    extras = {id(part): [(extra.type, extra.payload) for extra in part.extras] for part in (stream, *stream.segments)}
    return {
        "header": plain(stream.header),
        "caption": stream.caption,
        "segments": [plain(segment) | {"extras": extras[id(segment)]} for segment in stream.segments],
        "history": list(stream.history),
        "extras": extras[id(stream)],
    }


def sound_of(stream: VovFile, content: dict) -> dict | None:
    """The sound that both readers find; None also where both refuse it."""
    try:
        mine = plain(audio_of(stream))
    except BadAudio as error:
        with pytest.raises(second.Refused):
            second.audio(content)
            pytest.fail(f"only ours refuses the sound: {error}")
        return None
    assert second.audio(content) == mine
    return mine


def latents_of(header: dict, segment: dict) -> tuple[int, int, int, int]:
    """Channels, frames, rows and columns of a segment's latents; channels are those of the embedded model."""
    channels = 96 if segment["n_frames"] > 1 else 192
    n_frames = 1 + -(-(segment["n_frames"] - 1) // 4) * 4
    return channels, n_frames, header["coded_height"] // 8, header["coded_width"] // 8


def atoms_of_path(bits: list[int], *address: int) -> tuple[np.ndarray, np.ndarray]:
    """Positions and signs by `reference_path_atoms`."""
    places, signs = zip(*reference_path_atoms(bits, *address), strict=True)
    return np.array(places), np.array(signs)


def test_the_second_reader_stands_alone():
    for name in ("second_reader.py", "reference_entropy.py"):
        tree = ast.parse((HERE / name).read_text(encoding="utf-8"))
        imported = {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
        imported |= {node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
        assert imported <= {"__future__", "binascii", "decimal", "json", "math", "pathlib", "typing", "zlib"}


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_both_readers_find_the_same(path: Path):
    data = path.read_bytes()
    stream, content = parse(data), second.read(data)
    assert content == ours(stream)
    assert (sound_of(stream, content) is not None) == (path.name == "v0.12-trellis.vov")


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_both_decode_the_same_symbols_and_atoms(path: Path):
    content = second.read(path.read_bytes())
    header = content["header"]
    if header["backbone_id"] != "pocket" or header["fingerprint"].hex() == "01234567":
        pytest.skip("its payloads are made up")
    for segment in content["segments"]:
        own = ({"adaptation": header["adaptation"], "vector": segment["vector"]},) if segment["vector"] else ()
        for update in own + segment["merged"]:
            vector = update["vector"]
            n, q = update["adaptation"]["vector_length"], vector["step_size_q"]
            symbols = reference_decode_symbols(vector["model"], vector["words"], n)
            assert symbols == decode_symbols(vector["model"], vector["words"], n).tolist()
            assert second.step_size(q) == step_size(q)
            assert [float(value) for value in dequantize(symbols, q)] == pytest.approx(
                [symbol * second.step_size(q) for symbol in symbols], rel=1e-7
            )
        atoms = segment["atoms"]
        if atoms and atoms["codebook"] != "trellis":
            n = second.n_positions(atoms, *latents_of(header, segment))
            decoded = decode_choices(atoms["codebook"], atoms["words"], atoms["counts"], n)
            listed = [list(zip(places.tolist(), signs.tolist(), strict=True)) for places, signs in decoded]
            assert reference_decode_atoms(atoms["words"], list(atoms["counts"]), n) == listed


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_both_read_the_same_paths(path: Path):
    """Made-up paths too: both refuse the words, or both find the same bits and, from them, the same atoms."""
    content = second.read(path.read_bytes())
    seed = content["header"]["sampler"]["seed"]
    for segment in content["segments"]:
        atoms = segment["atoms"]
        if not atoms or atoms["codebook"] != "trellis":
            continue
        channels, *size = latents_of(content["header"], segment)
        n_positions = second.n_positions(atoms, channels, *size)
        n_entries = (min(atoms["active_channels"], channels) or channels) * math.prod(size)
        words, counts, memory = atoms["words"], list(atoms["counts"]), atoms["memory"]
        try:
            mine = decode_choices("trellis", words, counts, n_positions)
        except BadCodedAtoms:
            with pytest.raises(AssertionError):
                reference_decode_paths(words, counts, n_positions)
            continue
        paths = reference_decode_paths(words, counts, n_positions)
        assert paths == [bits.tolist() for bits in mine]
        for step in [step for step, bits in enumerate(paths) if bits]:
            address = seed, segment["index"], step, n_entries
            expected = HadamardCodebook(*address).combine(*atoms_of_path(paths[step], seed, memory, n_positions))
            np.testing.assert_array_equal(TrellisCodebook(*address, memory).combine(mine[step]), expected)


@pytest.mark.parametrize(
    ("n_entries", "n_bits", "memory", "seed"), [(1, 1, 1, 0), (5, 8, 16, 1), (100, 77, 2, 2**32 - 1), (900, 300, 12, 7)]
)
def test_paths_of_any_length_and_memory_mean_the_same(n_entries: int, n_bits: int, memory: int, seed: int):
    bits = np.random.default_rng(3).integers(0, 2, n_bits).astype(np.uint8)
    book = TrellisCodebook(seed, 0, 0, n_entries, memory)
    found = atoms_of_path(bits.tolist(), seed, memory, book.n_atoms)
    np.testing.assert_array_equal(book.combine(bits), HadamardCodebook(seed, 0, 0, n_entries).combine(*found))


@pytest.mark.parametrize("q", [0, 1, 1024, 2047, 2048, 12345, 65535])
def test_step_sizes_agree(q: int):
    assert second.step_size(q) == step_size(q)


def test_both_readers_refuse_the_same_files():
    """Files changed at every layer, behind right checksums: accepting is a matter of the text, not of the reader."""
    rng, pool = random.Random(11), corpus("file")
    n_accepted, n_refused, n_sounds = 0, 0, 0
    for _ in range(N_CHANGED):
        data = mutate("file", rng.choice(pool), rng.choice(pool), rng)
        try:
            stream = parse(data)
        except FormatError as error:
            with pytest.raises(second.Refused):
                second.read(data)
                pytest.fail(f"only ours refuses {data.hex()}: {error}")
            n_refused += 1
        else:
            content = second.read(data)
            assert content == ours(stream), data.hex()
            n_sounds += sound_of(stream, content) is not None
            n_accepted += 1
    assert min(n_accepted, n_refused) > N_CHANGED // 10
    assert n_sounds > N_CHANGED // 100
