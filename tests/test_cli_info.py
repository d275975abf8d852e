"""`vov info`, `vov presets`, `vov doctor`, `vov --version`: what they print, on real files."""

from __future__ import annotations

import json
import math
import re
from dataclasses import replace
from pathlib import Path

import container_samples as samples
import pytest
from tiny_schema import faults

from vovcodec import __version__
from vovcodec.cli.app import run
from vovcodec.cli.report import format_mapping, format_table
from vovcodec.codec.inspect import summary
from vovcodec.container import VERSION, parse, serialize

GOLDEN = sorted((Path(__file__).parent / "golden").glob("*.vov"))


@pytest.mark.parametrize("path", GOLDEN, ids=lambda path: path.name)
def test_info_shows_a_golden_file(path, capsys):
    assert run(["info", str(path)]) == 0
    out, err = capsys.readouterr()
    assert f"{path.stat().st_size:,} bytes" in out and "frames" in out and err == ""


def test_doctor_says_what_is_here_and_what_would_run(capsys, tmp_path, monkeypatch):
    from huggingface_hub import constants

    from vovcodec.backbone.locate import MODELS_VARIABLE
    from vovcodec.cli import doctor

    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.delenv(MODELS_VARIABLE, raising=False)
    kept = tmp_path / "xdg" / "vovcodec" / "states" / "job" / "0.part"
    kept.parent.mkdir(parents=True)
    kept.write_bytes(bytes(2_000_000))
    assert run(["doctor", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["missing"] == [] and found["versions"]["vovcodec"] == __version__
    assert "MB" in found["models"]["pocket"] and "hf download" in found["models"]["wan2.1-14b"]
    (would_run,) = [lines for group, lines in found.items() if group.startswith("would run on")]
    assert "int8-weights" in would_run["qwen-image"] and "GiB" in would_run["wan2.1-1.3b"]
    assert found["caches"]["unfinished encodes"].endswith("1 file(s), 2.0 MB")
    assert "not there yet" in found["caches"]["captions"]
    monkeypatch.setattr(doctor, "_NEEDED", (*doctor._NEEDED, "no-such-package"))
    assert run(["doctor"]) == 5
    assert "missing: no-such-package" in capsys.readouterr().err


@pytest.mark.parametrize("path", GOLDEN, ids=lambda path: path.name)
def test_info_json_has_the_true_size(path, capsys):
    assert run(["info", "--json", str(path)]) == 0
    found = json.loads(capsys.readouterr().out)
    size_bytes = path.stat().st_size
    assert found["summary"]["size_bytes"] == found["content"]["size_bytes"] == size_bytes
    width, height = found["summary"]["source_size"]
    assert found["summary"]["bpp"] == 8 * size_bytes / (found["summary"]["n_frames"] * width * height)


def test_psnr_is_that_of_the_clip_beside_the_worst_segments():
    (one,) = samples.steering_only().segments
    checks = [replace(one.check, psnr_q=16 * psnr_db) for psnr_db in (20, 40)]
    pair = [
        replace(one, index=i, n_frames=n, check=check)
        for i, (n, check) in enumerate(zip((30, 10), checks, strict=True))
    ]
    told = summary(replace(samples.steering_only(), segments=tuple(pair)))
    assert told["psnr_db"] == pytest.approx(-10 * math.log10((30 * 1e-2 + 10 * 1e-4) / 40))
    assert told["worst_psnr_db"] == 20.0
    alone = summary(replace(samples.steering_only(), segments=tuple(pair[1:])))
    assert (alone["psnr_db"], alone["worst_psnr_db"]) == (40.0, None)
    shortened = summary(replace(samples.steering_only(), segments=(pair[0], replace(pair[1], check=None))))
    assert (shortened["psnr_db"], shortened["worst_psnr_db"]) == (None, None)


def test_info_on_many_files_is_a_table(capsys):
    assert run(["info", *map(str, GOLDEN)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 1 + len(GOLDEN)
    assert [line.split()[0] for line in lines[1:]] == [path.name for path in GOLDEN]
    assert run(["info", "--json", *map(str, GOLDEN)]) == 0
    assert len(json.loads(capsys.readouterr().out)) == len(GOLDEN)


def test_one_bad_file_does_not_hide_the_others(tmp_path, capsys):
    bad = tmp_path / "bad.vov"
    bad.write_bytes(GOLDEN[0].read_bytes()[:-3])
    assert run(["info", str(bad), str(GOLDEN[0])]) == 4
    out, err = capsys.readouterr()
    assert GOLDEN[0].name in out
    assert err.startswith(f"vov: {bad}: ") and err.count("\n") == 1


def test_info_shows_what_is_left_of_a_damaged_file(tmp_path, capsys):
    whole = serialize(samples.three_segments())
    second = parse(whole).layout[3]
    for name, data in (
        ("flip", whole[: second.offset + 9] + b"!" + whole[second.offset + 10 :]),
        ("cut", whole[: second.offset + 9]),
        ("longer", whole + b"junk"),
        ("lost", serialize(samples.steering_only())[:-9]),
    ):
        (tmp_path / name).write_bytes(data)
        assert run(["info", str(tmp_path / name)]) == 4
        out, err = capsys.readouterr()
        assert re.search(r"\ndamage in (file|segment \d): ", out) and "bits per pixel" in out
        assert re.match(rf"vov: {tmp_path / name}: damaged; \d of \d segments can be read: ", err)
        assert err.count("\n") == 1
        assert run(["info", "--json", str(tmp_path / name)]) == 4
        found = json.loads(capsys.readouterr().out)
        assert found["content"]["damage"] and not faults(found, "info")
        assert run(["info", str(tmp_path / name), str(GOLDEN[0])]) == 4
        assert name in capsys.readouterr().out
        assert run(["info", "--check", str(tmp_path / name)]) == 4
        assert "segments can be read" in capsys.readouterr().err
    (tmp_path / "header").write_bytes(whole[:7] + b"!" + whole[8:])
    assert run(["info", str(tmp_path / "header")]) == 4
    out, err = capsys.readouterr()
    assert not out and err.count("\n") == 1


def test_info_refuses_what_only_strict_reading_finds(tmp_path, capsys, monkeypatch):
    stream = samples.three_segments()
    longer = replace(stream, header=replace(stream.header, n_frames=200))
    monkeypatch.setattr("vovcodec.container.writer._check_segments", lambda stream: None)
    data = serialize(longer)
    (tmp_path / "short.vov").write_bytes(data)
    assert not parse(data, tolerant=True).damage
    for more in ([], ["--check"]):
        assert run(["info", *more, str(tmp_path / "short.vov")]) == 4
        assert "n_frames" in capsys.readouterr().err


def test_info_of_something_else(tmp_path, capsys):
    text = tmp_path / "text.vov"
    text.write_text("this is not it")
    assert run(["info", str(text)]) == 4
    assert run(["info", str(tmp_path / "none.vov")]) == 3
    assert capsys.readouterr().err.count("\n") == 2


def test_check_decodes_a_real_vector_and_finds_damage(vector_file, tmp_path, capsys):
    assert run(["info", "--check", str(vector_file)]) == 0
    assert "check passed" in capsys.readouterr().out
    data = bytearray(vector_file.read_bytes())
    data[-8] ^= 0x10
    damaged = tmp_path / "damaged.vov"
    damaged.write_bytes(data)
    assert run(["info", "--check", str(damaged)]) == 4
    assert "0 of 1 segments can be read" in capsys.readouterr().err


def test_check_finds_symbols_that_checksums_cannot(tmp_path, capsys):
    """A writer's fault: valid sections around words that no symbols have."""
    path = write_file(tmp_path / "faulty.vov", b"\x00\x00", b"\xff" * 4000)
    assert run(["info", str(path)]) == 0
    assert run(["info", "--check", str(path)]) == 4
    assert "segment 0" in capsys.readouterr().err


def write_file(path: Path, model: bytes, words: bytes) -> Path:
    from vovcodec.container import Adaptation, CodedVector, Sampler, Segment, StreamHeader, VovFile, write_vov

    header = StreamHeader(
        source_width=416,
        source_height=240,
        coded_width=224,
        coded_height=128,
        frame_rate_num=25,
        frame_rate_den=1,
        n_frames=33,
        segment_frames=33,
        backbone_id="pocket",
        fingerprint=bytes(range(4)),
        preset_digest=b"ab",
        adaptation=Adaptation(vector_length=300),
        sampler=Sampler(n_steps=4, shift_q8=256),
    )
    vector = CodedVector(step_size_q=3000, model=model, words=words)
    write_vov(path, VovFile(header, (Segment(index=0, n_frames=33, vector=vector),)))
    return path


@pytest.fixture
def vector_file(tmp_path) -> Path:
    import numpy as np

    from vovcodec.entropy.symbols import encode_symbols

    return write_file(tmp_path / "vector.vov", *encode_symbols(np.arange(300) % 7 - 3))


def test_version_names_program_and_format(capsys):
    assert run(["--version"]) == 0
    assert capsys.readouterr().out == f"vovcodec {__version__}, format {VERSION[0]}.{VERSION[1]}\n"


def test_presets_are_listed_and_shown(capsys):
    assert run(["presets"]) == 0
    assert "pocket" in capsys.readouterr().out
    assert run(["presets", "--json"]) == 0
    assert "pocket" in [row["name"] for row in json.loads(capsys.readouterr().out)]
    assert run(["presets", "show", "pocket", "--effort", "paper", "--json"]) == 0
    shown = json.loads(capsys.readouterr().out)
    assert shown["fitting"]["stage2"]["lambda"] == 0.004 and len(shown["digest"]) == 4
    assert run(["presets", "show", "pockt"]) == 2


def test_tables_align():
    table = format_table(["name", "bytes"], [["a", 5], ["long", 12345]])
    assert table.splitlines() == ["name  bytes", "a         5", "long  12345"]
    mapping = format_mapping({"a": 1, "group": {"long": 2.0, "b": (3, 4)}, "none": None})
    assert mapping.splitlines() == ["a     1", "group", "  long  2", "  b     3x4", "none  -"]
