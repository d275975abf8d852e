"""The commands around a pretended codec: what reaches it, what is refused before it loads, what comes out."""

from __future__ import annotations

import io
import json
import sys
import types
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import pytest

from vovcodec.cli.app import run
from vovcodec.codec.options import DecodeLimits, DecodeOptions, EditOptions, EncodeOptions, ScaleOptions
from vovcodec.codec.reports import DecodeReport, EditReport, EncodeReport, ScaleReport
from vovcodec.errors import FormatError, Interrupted, MediaError, ModelError, OutputExistsError, UsageError

ENCODED = EncodeReport(
    output="out.vov",
    size_bytes=1490,
    sections={"header": 40, "vector": 1450},
    bpp=0.0036,
    psnr_db=24.125,
    ssim=0.61,
    n_frames=33,
    source_size=(416, 240),
    coded_size=(224, 128),
    frame_rate=Fraction(30000, 1001),
    preset="pocket",
    effort="fast",
    backbone="pocket",
    n_network_evaluations=120,
    encode_s=12.34,
    peak_memory_bytes=900_000_000,
    segments=1,
)
DECODED = DecodeReport("out.mp4", 33, (416, 240), Fraction(25), 3.2, 20, 700_000_000, drift_db=0.01)
SCALED = ScaleReport("out.vov", 900, {"header": 40, "atoms": 860}, 0.002, None, None, 33, 0, 0.4, 300_000_000)
EDITED = EditReport(
    output="out.vov", size_bytes=410, sections={"vector": 109}, n_frames=33, coded_size=(224, 128),
    frame_rate=Fraction(25), segments=1, vectors=2, strengths=[0.75, 0.5], steps=28, edits=3,
)  # fmt: skip


class Codec:
    """Stands in for the codec modules; keeps what it was called with and does what the test says."""

    def __init__(self) -> None:
        self.calls: list[tuple] = []
        self.behaviour = lambda *arguments: None

    def verb(self, report):
        def call(*arguments, **settings):
            arguments = arguments if arguments[-1] is not None else arguments[:-1]  # no model is kept for others
            self.calls.append(arguments)
            self.behaviour(*arguments)
            return report

        return call


@pytest.fixture
def codec(monkeypatch):
    fake = Codec()
    reports = {"encode": ENCODED, "decode": DECODED, "scale": SCALED, "edit": EDITED}
    for name, report in reports.items():
        module = types.ModuleType(f"vovcodec.codec.{name}")
        setattr(module, name, fake.verb(report))
        monkeypatch.setitem(sys.modules, module.__name__, module)
    return fake


@pytest.fixture
def clip(tmp_path, monkeypatch) -> Path:
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "in.mp4"
    path.write_bytes(b"not read by these tests")
    return path


def test_encode_without_flags_uses_the_defaults(codec, clip, capsys):
    assert run(["encode", "in.mp4", "-o", "out.vov"]) == 0
    source, target, options, _ = codec.calls[0]
    assert (source, target, options) == (Path("in.mp4"), Path("out.vov"), EncodeOptions())
    out, err = capsys.readouterr()
    assert "1,490 bytes" in out and "24.12 dB" in out and "header 40  vector 1450" in out
    assert err == ""


def test_every_encode_flag_reaches_its_option(codec, clip):
    flags = (
        "--preset pocket --effort medium --caption @words.txt --size 208x120 --fps 30000/1001 --ss 1:02.5 -t 2 "
        "--frames 33 --bytes 1.5k --split 3:1 --audio 6k --device cuda:0,1 --seed 7 --no-resume --state-dir st "
        "--threads 2 -y"
    )
    assert run(["encode", "in.mp4", "-o", "out.vov", *flags.split()]) == 0
    assert codec.calls[0][2] == EncodeOptions(
        preset="pocket",
        effort="medium",
        caption="@words.txt",
        size=(208, 120),
        frame_rate=Fraction(30000, 1001),
        start_s=62.5,
        duration_s=2.0,
        n_frames=33,
        target_bytes=1500,
        split=(0.75, 0.25),
        audio="6000",
        device="cuda:0,1",
        seed=7,
        resume=False,
        state_dir=Path("st"),
        overwrite=True,
        threads=2,
    )


@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        (["--bitrate", "6k"], {"target_bitrate": 6000.0}),
        (["--bpp", "0.01"], {"target_bpp": 0.01}),
        (["--lambda", "4e-3"], {"lambda_": 0.004}),
    ],
)
def test_each_rate_flag(codec, clip, flags, expected):
    assert run(["encode", "in.mp4", "-o", "out.vov", *flags]) == 0
    assert codec.calls[0][2] == EncodeOptions(**expected)


def test_every_decode_flag_reaches_its_option(codec, clip):
    flags = "--steps 8 --size coded --ss 1 -t 2 --device cpu --force --threads 2 --container y4m"
    flags += " --limit frames=500 --limit memory=8G --limit hours=0.5"
    assert run(["decode", "in.mp4", "-o", "out.y4m", *flags.split()]) == 0
    assert codec.calls[0][:2] == (Path("in.mp4"), Path("out.y4m"))
    assert replace(codec.calls[0][2], approve=None) == DecodeOptions(
        steps=8,
        size="coded",
        start_s=1.0,
        duration_s=2.0,
        device="cpu",
        force=True,
        threads=2,
        container="y4m",
        limits=DecodeLimits(frames=500, memory=8 * 10**9, hours=0.5),
    )


def test_verify_reaches_decode(codec, clip):
    assert run(["decode", "in.mp4", "-o", "out.y4m", "--verify"]) == 0
    assert codec.calls[0][2].verify


def test_guidance_reaches_decode(codec, clip):
    assert run(["decode", "in.mp4", "-o", "out.y4m", "--guidance", "3"]) == 0
    assert codec.calls[0][2].guidance == 3.0


def test_realism_reaches_decode(codec, clip):
    assert run(["decode", "in.mp4", "-o", "out.y4m", "--realism", "0.5"]) == 0
    assert codec.calls[0][2].realism == 0.5


def test_scale_passes_the_original(codec, clip):
    assert run(["scale", "in.mp4", "--reference", "in.mp4", "-o", "o.vov", "--bytes", "2k", "--method", "atoms"]) == 0
    source, reference, target, options, _ = codec.calls[0]
    assert (source, reference, target, options.target_bytes) == (Path("in.mp4"), Path("in.mp4"), Path("o.vov"), 2000)


def test_scale_without_the_original_only_makes_smaller(codec, clip):
    assert run(["scale", "in.mp4", "-o", "o.vov", "--bytes", "700", "--limit", "hours=2"]) == 0
    source, reference, target, options, _ = codec.calls[0]
    assert (source, reference, target) == (Path("in.mp4"), None, Path("o.vov"))
    assert options == ScaleOptions(target_bytes=700, limits=DecodeLimits(hours=2))


def test_every_edit_flag_reaches_its_option(codec, clip, capsys):
    Path("b.vov").write_bytes(b"not read by these tests")
    flags = (
        "--replace dog=panda --replace a=b=c --merge b.vov:-0.5 --strength -1.5 --keep-structure 0.25 --size 208x112 "
        "--frames 17 --fps 29.97 --steps 4 --guidance 3.5 --container y4m --force --device cpu --threads 2 -y "
        "--limit memory=2G"
    )
    assert run(["edit", "in.mp4", "-o", "out.mkv", *flags.split()]) == 0
    assert codec.calls[0][:2] == (Path("in.mp4"), Path("out.mkv"))
    assert codec.calls[0][2] == EditOptions(
        replacements=(("dog", "panda"), ("a", "b=c")), merge=Path("b.vov"), merge_weight=-0.5, strength=-1.5,
        keep_structure=0.25, size=(208, 112), n_frames=17, frame_rate=Fraction(2997, 100), steps=4, guidance=3.5,
        container="y4m", force=True, device="cpu", threads=2, overwrite=True, limits=DecodeLimits(memory=2 * 10**9),
    )  # fmt: skip
    assert "0.75, 0.5" in capsys.readouterr().out
    assert run(["edit", "in.mp4", "-o", "out.vov", "--caption", "@words.txt", "--merge", "b.vov"]) == 0
    assert codec.calls[1][2] == EditOptions(caption="@words.txt", merge=Path("b.vov"))


def test_an_edit_leaves_its_inputs_alone(codec, clip, capsys):
    Path("b.vov").write_bytes(b"not read by these tests")
    merge = ["--merge", "b.vov", "-y"]
    for output in ("in.mp4", "b.vov"):
        assert run(["edit", "in.mp4", "-o", output, *merge]) == 2
        assert f"{output} is both input and output" in capsys.readouterr().err
    assert run(["edit", "in.mp4", "-o", "b.vov", "--caption", "x", "-n"]) == 6
    assert run(["edit", "in.mp4", "-o", "b.vov", "--caption", "x", "-n", "-y"]) == 2
    assert codec.calls == []
    assert run(["edit", "in.mp4", "-o", "b.vov", "--caption", "x", "-y"]) == 0
    assert codec.calls[0][2].overwrite


def test_json_results_are_exact(codec, clip, capsys):
    assert run(["encode", "in.mp4", "-o", "out.vov", "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert (report["size_bytes"], report["frame_rate"], report["source_size"]) == (1490, "30000/1001", [416, 240])
    assert report["sections"] == ENCODED.sections


def test_a_report_leaves_out_what_is_not_known(codec, clip, capsys):
    assert run(["decode", "in.mp4", "-o", "out.mp4"]) == 0
    out = capsys.readouterr().out
    assert "drift" in out and "PSNR" not in out


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        ("encode in.mp4", 2, "'--output'"),
        ("encode -o out.vov", 2, "'IN…'"),
        ("encode in.mp4 -o out.vov --sed 1", 2, "--seed"),
        ("encode in.mp4 -o out.vov --size 3", 2, "not a size"),
        ("encode in.mp4 -o out.vov --frames 0", 2, "--frames"),
        ("encode in.mp4 -o out.vov -t 0", 2, "vov: -t must be greater than 0, not 0.0"),
        ("decode in.mp4 -o out.mp4 -t 0", 2, "vov: -t must be greater than 0, not 0.0"),
        ("encode in.mp4 -o out.vov --bytes 1k --bpp 1", 2, "bytes and bpp exclude"),
        ("encode in.mp4 -o out.vov --preset pockt", 2, "did you mean pocket"),
        ("encode in.mp4 -o out.vov --effort fats", 2, "did you mean fast"),
        ("encode in.mp4 -o out.mp4", 2, "name the output out.vov"),
        ("encode in.mp4 -o out.vov -y -n", 2, "-y and -n"),
        ("encode in.mp4 -o in.mp4.vov/x.vov", 3, "does not exist"),
        ("encode missing.mp4 -o out.vov", 3, "missing.mp4: no such file"),
        ("decode in.mp4 -o in.mp4 -y", 2, "both input and output"),
        ("scale in.mp4 -o . --bytes 99", 2, "is a folder"),
        ("decode in.mp4 -o out.mp4 --steps x", 2, "--steps"),
        ("scale - --reference - -o out.vov", 2, "only one"),
        ("scale in.mp4 -o out.vov", 2, "give --reference ORIGINAL"),
        ("scale in.mp4 --reference in.mp4 -o out.vov --steps 20", 2, "the bytes decide"),
        ("edit in.mp4 -o out.vov", 2, "nothing to change: give --caption"),
        ("edit in.mp4 -o out.vov --replace dog", 2, "is not A=B"),
        ("edit in.mp4 -o out.vov --replace =dog", 2, "is not A=B"),
        ("edit in.mp4 -o out.vov --caption x --replace a=b", 2, "exclude each other"),
        ("edit in.mp4 -o out.vov --strength much", 2, "not a number"),
        ("edit in.mp4 -o out.vov --strength nan", 2, "not a number"),
        ("edit in.mp4 -o out.vov --keep-structure 1.5", 2, "--keep-structure"),
        ("edit in.mp4 -o out.vov --frames 0", 2, "--frames"),
        ("edit in.mp4 -o out.vov --size 3", 2, "not a size"),
        ("edit in.mp4 -o out.vov --merge b.vov:half", 2, "'half' is not a number"),
        ("edit in.mp4 -o out.vov --merge missing.vov:0.5", 3, "missing.vov: no such file"),
        ("edit in.mp4 -o out.vov --merge in.mp4:0.5", 3, "in.mp4:0.5: no such file"),
        ("edit - -o out.vov --merge -", 2, "only one of the two"),
        ("edit missing.vov -o out.vov --caption x", 3, "missing.vov: no such file"),
        ("frobnicate", 2, "No such command"),
    ],
)
def test_refused_in_one_line_before_the_codec_loads(codec, clip, capsys, arguments, code, message):
    assert run(arguments.split()) == code
    out, err = capsys.readouterr()
    assert out == ""
    assert message in err and err.count("\n") == 1 and err.startswith("vov")
    assert codec.calls == []


def test_without_a_command_the_help_is_shown(capsys):
    assert run([]) == 2
    out, err = capsys.readouterr()
    assert out == "" and "Commands:" in err


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (UsageError("x"), 2),
        (MediaError("x"), 3),
        (FormatError("x"), 4),
        (ModelError("x"), 5),
        (OutputExistsError("x"), 6),
        (Interrupted("x"), 130),
        (KeyboardInterrupt(), 130),
    ],
)
def test_errors_become_exit_codes(codec, clip, capsys, error, code):
    def fail(*arguments):
        raise error

    codec.behaviour = fail
    assert run(["encode", "in.mp4", "-o", "out.vov"]) == code
    assert capsys.readouterr().err.startswith("vov: ")


def test_an_interrupted_encode_says_how_to_continue(codec, clip, capsys):
    def interrupt(*arguments):
        raise Interrupted("stopped at step 40 of 200; state kept")

    codec.behaviour = interrupt
    assert run(["encode", "in.mp4", "-o", "out.vov", "--caption", "a cup"]) == 130
    err = capsys.readouterr().err
    assert "state kept" in err
    assert "to continue: vov encode in.mp4 -o out.vov --caption 'a cup'" in err


def test_an_interrupted_batch_goes_on_with_what_is_not_there_yet(codec, clip, capsys):
    clip.with_name("b.mp4").write_bytes(b"another")

    def interrupt(source, target, *more):
        if Path(source).name == "b.mp4":
            raise Interrupted("stopped; nothing is kept")
        Path(target).write_bytes(b"coded")

    for flag, more in (("", " -n"), (" -n", " -n"), (" -y", " -y")):
        codec.behaviour = interrupt
        assert run(f"encode{flag} in.mp4 b.mp4 -o out/".split()) == 130
        assert f"to continue: vov encode{more} in.mp4 b.mp4 -o out/" in capsys.readouterr().err
        Path("out/in.vov").unlink()


def test_an_unexpected_error_is_one_line_and_a_traceback_with_v(codec, clip, capsys):
    codec.behaviour = lambda *arguments: 1 / 0
    assert run(["encode", "in.mp4", "-o", "out.vov"]) == 1
    err = capsys.readouterr().err
    assert "ZeroDivisionError" in err and "this is a bug; rerun with -v" in err and "Traceback" not in err
    assert run(["encode", "in.mp4", "-o", "out.vov", "-v"]) == 1
    assert "Traceback" in capsys.readouterr().err


def test_an_existing_output_is_kept_unless_told(codec, clip, capsys):
    Path("out.vov").write_bytes(b"precious")
    assert run(["encode", "in.mp4", "-o", "out.vov"]) == 6
    assert capsys.readouterr().err == "vov: out.vov exists; -y overwrites it\n"
    assert run(["encode", "in.mp4", "-o", "out.vov", "-n"]) == 6
    assert capsys.readouterr().err == "vov: out.vov exists\n"
    assert codec.calls == []
    assert run(["encode", "in.mp4", "-o", "out.vov", "-y"]) == 0
    assert codec.calls[0][2].overwrite is True


def test_a_sequence_protects_each_of_its_frames(codec, clip):
    Path("f00007.png").write_bytes(b"precious")
    Path("g00007.png").write_bytes(b"unrelated")
    assert run(["decode", "in.mp4", "-o", "f%05d.png"]) == 6
    assert run(["decode", "in.mp4", "-o", "h%05d.png"]) == 0


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize(("answer", "code"), [("y\n", 0), ("yes\n", 0), ("n\n", 6), ("\n", 6), ("", 6)])
def test_a_person_at_a_terminal_is_asked(codec, clip, monkeypatch, answer, code):
    Path("out.vov").write_bytes(b"precious")
    monkeypatch.setattr(sys, "stdin", Terminal(answer))
    monkeypatch.setattr(sys, "stderr", Terminal())
    assert run(["encode", "in.mp4", "-o", "out.vov", "--progress", "plain"]) == code
    assert "out.vov exists. Overwrite?" in sys.stderr.getvalue()


def test_nobody_is_asked_with_n_or_without_a_terminal(codec, clip, monkeypatch):
    Path("out.vov").write_bytes(b"precious")
    monkeypatch.setattr(sys, "stdin", Terminal("y\n"))
    monkeypatch.setattr(sys, "stderr", Terminal())
    assert run(["encode", "in.mp4", "-o", "out.vov", "-n"]) == 6
    monkeypatch.setattr(sys, "stderr", io.StringIO())
    assert run(["encode", "in.mp4", "-o", "out.vov"]) == 6


def test_pipes_reach_the_codec_and_the_report_leaves_stdout_alone(codec, clip, capsys):
    assert run(["encode", "-", "-o", "-"]) == 0
    assert codec.calls[0][:2] == ("-", "-")
    out, err = capsys.readouterr()
    assert out == "" and "1,490 bytes" in err
    assert run(["encode", "-", "-o", "-", "-q"]) == 0
    assert capsys.readouterr() == ("", "")


def test_binary_data_is_not_written_to_a_terminal(codec, clip, monkeypatch):
    monkeypatch.setattr(sys, "stdout", Terminal())
    assert run(["decode", "in.mp4", "-o", "-"]) == 2


def test_progress_follows_the_flags(codec, clip, capsys):
    def work(source, target, options, listener):
        listener.stage("fitting", 10, done=5)
        listener.advance(5, size_bytes=1490)
        listener.note("a note")
        listener.warn("a warning")

    codec.behaviour = work
    run(["encode", "in.mp4", "-o", "out.vov"])
    err = capsys.readouterr().err.splitlines()
    assert err[0] == "fitting: resumed at 50 %" and err[1].startswith("fitting: 100 %")
    assert err[2:] == ["a note", "warning: a warning"]
    run(["encode", "in.mp4", "-o", "out.vov", "-q"])
    assert capsys.readouterr().err == "warning: a warning\n"
    run(["encode", "in.mp4", "-o", "out.vov", "--progress", "json"])
    events = [json.loads(line)["event"] for line in capsys.readouterr().err.splitlines()]
    assert events == ["stage", "advance", "note", "warn"]


def test_pretrain_passes_its_arguments_through(monkeypatch):
    seen = []
    module = types.ModuleType("vovcodec.pretraining.main")
    module.main = lambda arguments: seen.append(arguments) or 5
    monkeypatch.setitem(sys.modules, module.__name__, module)
    assert run(["pretrain", "--help", "--data", "x", "-y"]) == 5
    assert seen == [["--help", "--data", "x", "-y"]]
