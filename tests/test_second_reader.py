"""The text alone is enough: a reader written from FORMAT.md finds in every file what ours finds, or refuses it too."""

from __future__ import annotations

import ast
import dataclasses
import json
import random
from pathlib import Path

import pytest
import second_reader as second
from fuzz_mutations import corpus, mutate
from reference_entropy import reference_decode_atoms, reference_decode_symbols

from vovcodec.container import VovFile, parse
from vovcodec.container.errors import FormatError
from vovcodec.entropy.positions import decode_atoms
from vovcodec.entropy.quantizer import dequantize, step_size
from vovcodec.entropy.symbols import decode_symbols

HERE = Path(__file__).parent
FILES = sorted([*(HERE / "golden").glob("*.vov"), *(HERE / "conformance").glob("*.vov")])
VAE = HERE.parent / "vovcodec" / "backbone" / "pocket" / "weights" / "vae" / "config.json"
N_CHANGED = 1500


def plain(part: object) -> object:
    """Our data in the second reader's shape."""
    if dataclasses.is_dataclass(part):
        return {field.name: plain(getattr(part, field.name)) for field in dataclasses.fields(part)}
    return part


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


def test_the_second_reader_stands_alone():
    for name in ("second_reader.py", "reference_entropy.py"):
        tree = ast.parse((HERE / name).read_text(encoding="utf-8"))
        imported = {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
        imported |= {node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
        assert imported <= {"__future__", "decimal", "json", "math", "pathlib", "typing", "zlib"}


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_both_readers_find_the_same(path: Path):
    data = path.read_bytes()
    assert second.read(data) == ours(parse(data))


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_both_decode_the_same_symbols_and_atoms(path: Path):
    content = second.read(path.read_bytes())
    header = content["header"]
    if header["backbone_id"] != "pocket" or header["fingerprint"].hex() == "0123456789abcdef":
        pytest.skip("its payloads are made up")
    channels = json.loads(VAE.read_text(encoding="utf-8"))["latent_channels"]
    for segment in content["segments"]:
        if vector := segment["vector"]:
            n, q = header["adaptation"]["vector_length"], vector["step_size_q"]
            symbols = reference_decode_symbols(vector["model"], vector["words"], n)
            assert symbols == decode_symbols(vector["model"], vector["words"], n).tolist()
            assert second.step_size(q) == step_size(q)
            assert [float(value) for value in dequantize(symbols, q)] == pytest.approx(
                [symbol * second.step_size(q) for symbol in symbols], rel=1e-7
            )
        if atoms := segment["atoms"]:
            size = header["coded_height"] // 8, header["coded_width"] // 8
            n = second.n_positions(atoms, channels, 1 + -(-(segment["n_frames"] - 1) // 4), *size)
            decoded = decode_atoms(atoms["words"], atoms["counts"], n)
            listed = [list(zip(places.tolist(), signs.tolist(), strict=True)) for places, signs in decoded]
            assert reference_decode_atoms(atoms["words"], list(atoms["counts"]), n) == listed


@pytest.mark.parametrize("q", [0, 1, 1024, 2047, 2048, 12345, 65535])
def test_step_sizes_agree(q: int):
    assert second.step_size(q) == step_size(q)


def test_both_readers_refuse_the_same_files():
    """Files changed at every layer, behind right checksums: accepting is a matter of the text, not of the reader."""
    rng, pool = random.Random(11), corpus("file")
    n_accepted, n_refused = 0, 0
    for _ in range(N_CHANGED):
        data = mutate("file", rng.choice(pool), rng.choice(pool), rng)
        try:
            mine = ours(parse(data))
        except FormatError as error:
            with pytest.raises(second.Refused):
                second.read(data)
                pytest.fail(f"only ours refuses {data.hex()}: {error}")
            n_refused += 1
        else:
            assert second.read(data) == mine, data.hex()
            n_accepted += 1
    assert min(n_accepted, n_refused) > N_CHANGED // 10
