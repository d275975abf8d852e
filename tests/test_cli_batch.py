"""Several files in one command, JSON that keeps to its schema, completion; with a tiny model, in this process."""

from __future__ import annotations

import json
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from tiny_schema import SCHEMA, faults

from vovcodec.cli import app
from vovcodec.cli.app import run
from vovcodec.cli.completion import complete
from vovcodec.codec import models
from vovcodec.container import read_vov
from vovcodec.media import open_writer

TINY = "--bytes 300 -q"


def vov(line: str) -> int:
    """One command line, words separated by spaces."""
    return run(line.split())


@pytest.fixture
def inputs(tmp_path, monkeypatch, tiny_preset) -> str:
    """a.y4m, b.png and frames/1.png, 2.png in the current folder; the flags that encode them quickly."""
    monkeypatch.chdir(tmp_path)
    ramp = np.add.outer(np.arange(48), np.arange(64)).astype(np.uint8)
    picture = np.stack([ramp * 2, 200 - ramp, ramp], axis=-1)
    with open_writer("a.y4m", width=64, height=48, frame_rate=Fraction(25)) as writer:
        for _ in range(2):
            writer.write(picture)
    Image.fromarray(picture).save("b.png")
    Path("frames").mkdir()
    for number in (1, 2):
        Image.fromarray(picture).save(f"frames/{number}.png")
    return f"--preset {tiny_preset} {TINY}"


@pytest.fixture
def loads(monkeypatch) -> list[str]:
    """The backbones that were loaded."""
    import vovcodec.backbone.registry as registry

    found, load = [], registry.load_backbone
    monkeypatch.setattr(registry, "load_backbone", lambda name, **options: found.append(name) or load(name, **options))
    return found


def test_many_files_in_one_folder_load_the_model_once(inputs, loads, capsys):
    assert vov(f"encode a.y4m broken.mp4 b.png frames/%d.png -o coded/ --json {inputs}") == 3
    out, err = capsys.readouterr()
    assert err == "vov: broken.mp4: no such file\n", "one line, and the others went on"
    reports = [json.loads(line) for line in out.splitlines()]
    assert [report["output"] for report in reports] == ["coded/a.vov", "coded/b.vov", "coded/frames.vov"]
    assert not any(fault for report in reports for fault in faults(report, "encode"))
    assert loads == ["pocket"]
    assert vov(f"encode b.png -o alone.vov {inputs}") == 0
    assert Path("alone.vov").read_bytes() == Path("coded/b.vov").read_bytes(), "sharing the model changes nothing"

    loads.clear()
    capsys.readouterr()
    Path("coded/bad.vov").write_bytes(b"not one")
    Path("shown").mkdir()
    assert vov("decode coded/bad.vov coded/a.vov coded/b.vov -o shown --json --verify -q") == 4
    out, err = capsys.readouterr()
    assert err.startswith("vov: coded/bad.vov: ") and err.count("\n") == 1
    reports = [json.loads(line) for line in out.splitlines()]
    assert sorted(path.name for path in Path("shown").iterdir()) == ["a.mp4", "b.png"]
    assert not any(fault for report in reports for fault in faults(report, "decode")) and loads == ["pocket"]
    assert vov("decode coded/a.vov -o shown/ --container mkv -q") == 0 and Path("shown/a.mkv").exists()

    capsys.readouterr()
    assert run(["info", "--json", "--check", "coded/a.vov", "coded/b.vov"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert not any(fault for each in found for fault in faults(each, "info")) and faults(found, SCHEMA) == []
    assert vov("scale coded/a.vov -o less.vov --bytes 250 --json") == 0
    assert faults(json.loads(capsys.readouterr().out), "scale") == []


def test_a_per_cent_sign_does_not_make_a_sequence(inputs, capsys):
    for name in ("50% off", "60% off", "take %d"):
        Path("b.png").with_name(f"{name}.png").write_bytes(Path("b.png").read_bytes())
    flags = inputs.split()
    assert run(["encode", "50% off.png", "60% off.png", "take %d.png", "frames/%d.png", "-o", "out/", *flags]) == 0
    coded = sorted(path.stem for path in Path("out").iterdir())
    assert coded == ["50% off", "60% off", "frames", "take %d"]
    assert run(["encode", "70% off.png", "-o", "out/", *flags]) == 3
    assert "70% off.png: no such file" in capsys.readouterr().err


def test_one_input_goes_into_a_folder_as_several_do(inputs):
    Path("there").mkdir()
    assert vov(f"encode b.png -o there {inputs}") == 0 and Path("there/b.vov").exists()
    assert vov(f"encode b.png -o . {inputs}") == 0 and Path("b.vov").exists()
    assert vov(f"encode b.png -o new/and/deep/ {inputs}") == 0 and Path("new/and/deep/b.vov").exists()
    assert vov("decode b.vov -o there -q") == 0 and Path("there/b.png").exists()


def test_existing_outputs_of_a_batch(inputs, capsys):
    Path("out").mkdir()
    Path("out/a.vov").write_bytes(b"precious")
    assert vov(f"encode a.y4m b.png -o out/ -n {inputs}") == 0
    assert "out/a.vov exists: skipped" in capsys.readouterr().err
    assert Path("out/a.vov").read_bytes() == b"precious" and read_vov("out/b.vov").header.n_frames == 1
    assert vov(f"encode a.y4m b.png -o out/ {inputs}") == 6
    assert Path("out/a.vov").read_bytes() == b"precious"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("encode a.y4m b.png -o out.vov", "2 inputs need a folder for their outputs: -o out.vov/"),
        ("encode a.y4m sub/a.mkv -o out/", "a.y4m and sub/a.mkv would both become out/a.vov"),
        ("encode a.y4m - -o out/", "standard input has no name"),
        ("decode a.vov a.mkv -o out/ --container png", "a.vov and a.mkv would both become out/a.png"),
    ],
)
def test_batches_that_make_no_sense(inputs, capsys, arguments, message):
    assert vov(arguments) == 2
    err = capsys.readouterr().err
    assert message in err and err.count("\n") == 1 and not Path("out").exists()


def test_progress_events_keep_to_the_schema(inputs, capsys):
    flags = inputs.removesuffix(" -q")
    assert vov(f"encode a.y4m -o a.vov --progress json {flags} --size 32x32") == 0
    events = [json.loads(line) for line in capsys.readouterr().err.splitlines()]
    # Steps that follow one another within a moment share an event, perhaps with the end of their stage.
    assert {"stage", "note"} <= {event["event"] for event in events}
    assert not any(fault for event in events for fault in faults(event, "progress"))


@pytest.mark.parametrize(
    ("line", "code", "words", "file"),
    [
        ("encode gone.png b.png -o out/", 3, "gone.png: no such file", "gone.png"),
        ("encode gone.png -o out.vov", 3, "gone.png: no such file", None),
        ("encode b.png -o out.vov --sead 1", 2, "--sead", None),
    ],
)
def test_errors_are_events_where_progress_is(inputs, capsys, line, code, words, file):
    for progress in ("--progress json", "--progress=json"):
        assert vov(f"{line} {progress} -y {inputs}") == code
        events = [json.loads(each) for each in capsys.readouterr().err.splitlines()]
        (error,) = [event for event in events if event["event"] == "error"]
        assert words in error["message"] and error.get("file") == file and faults(error, "progress") == []


def test_what_is_skipped_is_an_event(inputs, capsys):
    Path("out").mkdir()
    Path("out/b.vov").write_bytes(b"precious")
    assert vov(f"encode b.png -o out/ -n --progress json {inputs}") == 0
    expected = {"event": "note", "file": "b.png", "message": "out/b.vov exists: skipped"}
    assert json.loads(capsys.readouterr().err) == expected


def test_the_schema_names_what_the_reports_have():
    from dataclasses import fields

    from vovcodec.codec.reports import DecodeReport, EditReport, EncodeReport, ScaleReport

    reports = {"encode": EncodeReport, "decode": DecodeReport, "scale": ScaleReport, "edit": EditReport}
    for name, report in reports.items():
        definition = SCHEMA["$defs"][name]
        assert set(definition["properties"]) == set(definition["required"]) == {field.name for field in fields(report)}
        assert {"$ref": f"#/$defs/{name}"} in SCHEMA["anyOf"]
    assert faults({"event": "stage", "percent": "half"}, "progress") == [".percent is 'half', not number"]
    for nothing in ({}, [{}], {"size_bytes": 100}, "text", None):
        assert faults(nothing, SCHEMA)
    assert faults({"file": "x", "summary": {}, "more": 1}, "info")


@pytest.mark.parametrize(
    ("line", "name"),
    [("presets --json", "presets"), ("presets show pocket --json", "preset"), ("doctor --json", "doctor"),
     ("presets show paper-image --effort fast --json", "preset"), ("eval b.png b.png frames/1.png -q --json", "eval")],
)  # fmt: skip
def test_the_schema_has_the_other_commands(inputs, capsys, line, name):
    assert vov(line) == 0
    printed = json.loads(capsys.readouterr().out)
    assert faults(printed, name) == faults(printed, SCHEMA) == []
    if name == "eval":
        assert [row["psnr_db"] for row in printed["rows"]] == ["inf", "inf"]


def test_the_schema_names_every_measure():
    from vovcodec.evaluation.measures import MEASURES

    assert {measure.key for measure in MEASURES.values()} <= set(SCHEMA["$defs"]["compared"]["properties"])


def test_nothing_is_written_as_json_that_json_does_not_have(capsys):
    from vovcodec.cli.report import to_plain

    assert json.dumps(to_plain({"a": float("inf"), "b": [np.float64("-inf")]}), allow_nan=False)


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_scripts(shell, capsys):
    assert run(["completion", shell]) == 0
    script = capsys.readouterr().out
    assert f"{app.COMPLETION_VARIABLE}={shell}_complete" in script and "vov" in script


def test_completion_knows_commands_and_options(monkeypatch, capsys):
    def completions(words: str) -> list[str]:
        monkeypatch.setenv("COMP_WORDS", words)
        monkeypatch.setenv("COMP_CWORD", str(len(words.split(" ")) - 1))
        assert complete(app.root, "bash_complete") == 0
        return [line.split(",")[1] for line in capsys.readouterr().out.splitlines()]

    assert completions("vov en") == ["encode"]
    assert "--bytes" in completions("vov encode --by")
    assert completions("vov encode --progress j") == ["json"]


def test_a_cache_keeps_one_backbone(monkeypatch, loads, tiny_shelf):
    cache = models.BackboneCache()
    first = cache.load("pocket", path=tiny_shelf / "pocket", device="cpu")
    assert cache.load("pocket", path=tiny_shelf / "pocket", device="cpu") is first
    assert cache.load("pocket", path=tiny_shelf / "pocket", device="cpu", precision="bfloat16") is not first
    assert len(loads) == 2
