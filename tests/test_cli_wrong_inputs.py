"""Whatever is given to `vov`: one clear line on standard error, the right exit code, no output left behind."""

from __future__ import annotations

import io
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from vovcodec.cli.app import run

GOLDEN = Path(__file__).parent / "golden"
Y4M = b"YUV4MPEG2 W16 H16 F25:1 Ip A1:1 C420jpeg\n"


@pytest.fixture(scope="module")
def files(tmp_path_factory) -> Path:
    """A folder of things that `vov` may be given."""
    from test_media_pipes import audio_only, clip

    folder = tmp_path_factory.mktemp("files")
    (folder / "empty.mp4").touch()
    (folder / "text.mp4").write_text("no video here\n" * 50)
    (folder / "random.mp4").write_bytes(np.random.default_rng(0).bytes(5000))
    (folder / "cut.mp4").write_bytes(clip("mp4")[:300])
    (folder / "no_frames.y4m").write_bytes(Y4M)
    (folder / "good.y4m").write_bytes(Y4M + 2 * (b"FRAME\n" + bytes(384)))
    Image.new("RGB", (16, 16)).save(folder / "good.png")
    (folder / "cut.png").write_bytes((folder / "good.png").read_bytes()[:50])
    audio_only(folder / "sound.wav")
    golden = (GOLDEN / "v0.12-pocket.vov").read_bytes()
    (folder / "good.vov").write_bytes(golden)
    (folder / "clip.vov").write_bytes((GOLDEN / "v0.12-steering.vov").read_bytes())
    (folder / "cut.vov").write_bytes(golden[:-20])
    (folder / "newer.vov").write_bytes(golden[:4] + b"\x93" + golden[5:])
    (folder / "as_text.vov").write_bytes(golden.decode("latin-1").encode("utf-8"))
    (folder / "header_only.vov").write_bytes(golden[:10])
    (folder / "preset.yaml").write_text("backbone: {id: pocket, path: nowhere}\nefforts: {fast: {}}\n")
    (folder / "typo.yaml").write_text("backbone: {id: pocket}\nsteps: 3\n")
    return folder


CASES = [
    ("encode missing.mp4 -o x.vov", 3, "missing.mp4: no such file"),
    ("encode empty.mp4 -o x.vov", 3, "is empty"),
    ("encode . -o x.vov", 3, "is a folder; name a file, or a numbered sequence"),
    ("encode text.mp4 -o x.vov", 3, "is text, not a video"),
    ("encode random.mp4 -o x.vov", 3, "not a video or image format"),
    ("encode cut.mp4 -o x.vov", 3, "cut short"),
    ("encode cut.png -o x.vov", 3, "cut.png"),
    ("encode no_frames.y4m -o x.vov", 3, "frame"),
    ("encode sound.wav -o x.vov", 3, "has no video"),
    ("encode %05d.png -o x.vov", 3, "no file matches"),
    ("encode good.vov -o x.vov", 3, "is a .vov file already; vov decode shows it"),
    ("encode good.y4m --ss 99 -o x.vov", 3, "no frame at 99 s"),
    ("encode good.png --ss 1 -o x.vov", 2, "a single image has no start time"),
    ("encode good.y4m -o nowhere/x.vov", 3, "does not exist"),
    ("scale good.vov -o . --bytes 99", 2, "is a folder"),
    ("encode good.y4m -o x.mp4", 2, "name the output x.vov"),
    ("encode good.y4m -o good.vov", 6, "-y overwrites it"),
    ("encode good.y4m -o x.vov --bytes 0", 2, "--bytes"),
    ("encode good.y4m -o x.vov --bytes 1k --bitrate 6k", 2, "exclude each other"),
    ("encode good.y4m -o x.vov --lambda 1e-3 --split 0:1", 2, "split leaves none"),
    ("encode good.y4m -o x.vov --fps fast", 2, "not a frame rate"),
    ("encode good.y4m -o x.vov --ss 1:99", 2, "not a time"),
    ("encode good.y4m -o x.vov --size 3", 2, "not a size"),
    ("encode good.y4m -o x.vov --size 30x30", 2, "the nearest is 32x32"),
    ("encode good.y4m -o x.vov --audio loud", 2, "not a positive number"),
    ("encode good.y4m -o x.vov --audio 1k", 2, "6k to 510k"),
    ("encode good.y4m -o x.vov --effort fats", 2, "did you mean fast"),
    ("encode good.y4m -o x.vov --preset typo.yaml", 2, "steps"),
    ("encode good.y4m -o x.vov --preset preset.yaml", 5, "nowhere"),
    ("encode good.y4m -o x.vov --frame 3", 2, "--frame"),
    ("decode missing.vov -o x.mp4", 3, "no such file"),
    ("decode good.png -o x.mp4", 4, "this is a PNG image"),
    ("decode good.y4m -o x.mp4", 4, "this is a y4m video"),
    ("decode text.mp4 -o x.mp4", 4, "not a .vov file"),
    ("decode empty.mp4 -o x.mp4", 4, "the file is empty"),
    ("decode as_text.vov -o x.mp4", 4, "copied as text"),
    ("decode cut.vov -o x.mp4", 4, "cut short"),
    ("decode header_only.vov -o x.mp4", 4, "cut short"),
    ("decode newer.vov -o x.mp4", 4, "format version 9.3"),
    ("decode good.vov -o x.xyz", 2, "cannot write .xyz files"),
    ("decode good.vov -o x", 2, "no extension"),
    ("decode clip.vov -o x.y4m --steps 999", 2, "--steps takes fewer"),
    ("decode good.vov -o x.mp4", 2, "an image cannot be written as .mp4"),
    ("decode clip.vov -o x.y4m --ss 99", 3, "no frame at 99 s: the last one is at"),
    ("decode clip.vov -o x.y4m --size 20000x16", 2, "at most 16384 a side, not 20000x16"),
    ("decode clip.vov -o x.png", 2, "a video does not fit into one image"),
    ("decode clip.vov -o x.mp4", 5, "or go on with --force"),
    ("decode good.vov -o good.vov -y", 2, "both input and output"),
    ("scale text.mp4 -o x.vov --bytes 100", 4, "not a .vov file"),
    ("scale good.vov -o x.vov --bytes 9", 2, "too few"),
    ("scale good.vov -o x.vov", 2, "give --reference"),
    ("info good.png", 4, "this is a PNG image"),
    ("info missing.vov", 3, "no such file"),
    ("completion tcsh", 2, "tcsh"),
]


@pytest.mark.parametrize(("line", "code", "words"), CASES, ids=[line for line, _, _ in CASES])
def test_one_line_and_the_right_code(files, monkeypatch, capsys, line, code, words):
    monkeypatch.chdir(files)
    before = sorted(files.iterdir())
    assert run([*line.split(), *(["-q"] if line.startswith(("encode", "decode", "scale")) else [])]) == code
    out, err = capsys.readouterr()
    assert out == "" and words in err
    assert err.count("\n") == 1 and err.startswith("vov"), err
    assert sorted(files.iterdir()) == before, "nothing is left behind"


@pytest.mark.parametrize(
    ("data", "words"),
    [(b"y\n" * 500_000, "is text"), (b"", "is empty"), (bytes(9000), "not a video"), (Y4M, "frame")],
    ids=["yes", "nothing", "zeros", "no frames"],
)
def test_unusable_standard_input(tmp_path, monkeypatch, capsys, data, words):
    monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=io.BytesIO(data), isatty=lambda: False))
    assert run(["encode", "-", "-o", str(tmp_path / "x.vov"), "-q"]) == 3
    err = capsys.readouterr().err
    assert err.startswith("vov: standard input: ") and words in err and err.count("\n") == 1


def test_files_and_folders_without_permission(files, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(files)

    def closed(*arguments, **keywords):
        raise PermissionError(13, "Permission denied")

    with monkeypatch.context() as patch:
        patch.setattr("tempfile.TemporaryFile", closed)  # chmod would not stop root
        assert run(["encode", "good.y4m", "-o", str(tmp_path / "x.vov"), "-q"]) == 3
    assert "cannot write in" in capsys.readouterr().err

    open_path = Path.open

    def refuse(path, *arguments, **keywords):
        if path.name.startswith("good."):
            raise PermissionError(13, "Permission denied", str(path))
        return open_path(path, *arguments, **keywords)

    monkeypatch.setattr(Path, "open", refuse)
    for line in ("encode good.y4m -o x.vov -q", "info good.vov"):
        assert run(line.split()) == 3
        err = capsys.readouterr().err
        assert "ermission denied" in err and err.count("\n") == 1


@pytest.mark.parametrize(
    ("line", "silent"),
    [
        ("info good.vov", True),
        ("presets", True),
        ("doctor", True),
        ("encode --help", True),
        ("scale good.vov --bytes 200 -o less.vov -y -q", False),
    ],
)
def test_outputs_that_are_full_or_gone(files, tmp_path, line, silent):
    """A reader that had enough of a text is no error; one that misses the report of a job is."""
    words = line.replace("good", str(files / "good")).replace("less", str(tmp_path / "less"))
    command = [sys.executable, "-m", "vovcodec", *words.split()]
    if Path("/dev/full").exists():
        with open("/dev/full", "wb") as full:
            done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True)
        assert (done.returncode, done.stderr) == (3, "vov: standard output: No space left on device\n")
    reader, writer = os.pipe()
    os.close(reader)  # before the command begins, so that it cannot be quicker
    try:
        done = subprocess.run(command, stdout=writer, stderr=subprocess.PIPE, text=True)
    finally:
        os.close(writer)
    lost = (3, "vov: standard output: the other side closed the pipe\n")
    assert (done.returncode, done.stderr) == ((0, "") if silent else lost)


def test_a_device_that_is_full(files, tiny_preset, capsys, monkeypatch):
    if not Path("/dev/full").exists():
        pytest.skip("no such device here")
    monkeypatch.chdir(files)
    assert run(["encode", "good.png", "-o", "/dev/full", "--preset", str(tiny_preset), "-q"]) == 3
    err = capsys.readouterr().err
    assert "No space left" in err and err.count("\n") == 1
