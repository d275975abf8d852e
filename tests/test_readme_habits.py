"""Every row of the README's table "Coming from ffmpeg", tried out; a row without a test here fails."""

from __future__ import annotations

import json
import re
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from event_clips import write_event_clip
from PIL import Image
from tiny_models import save_tiny_pocket

from vovcodec.cli.app import run
from vovcodec.container import VovFile, audio_of, read_vov
from vovcodec.media import open_frames, probe

README = (Path(__file__).resolve().parent.parent / "README.md").read_text(encoding="utf-8")
TABLE = re.search(r"## Coming from ffmpeg\n\n((?:\|.*\n)+)", README).group(1)
ROWS = [line.split(" | ")[0].removeprefix("| ") for line in TABLE.splitlines()[2:]]
HABITS = {}
FLAGS = ["--preset", "tiny.yaml"]


def habit(row: str):
    """Registers a test for the row that begins with these words."""
    return lambda function: HABITS.setdefault(row, function)


@pytest.mark.parametrize("row", ROWS)
def test_row(row, folder, capsys, monkeypatch):
    assert row in HABITS, f"no test for the README's row {row}"
    HABITS[row](capsys, monkeypatch)


def test_the_example_in_python_runs(tmp_path, monkeypatch, capsys):
    (block,) = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    save_tiny_pocket(tmp_path / "pocket")
    monkeypatch.setenv("VOVCODEC_MODELS", str(tmp_path))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    write_event_clip(Path("clip.mp4"), n_frames=5, event_frame=2)
    exec(compile(block, "README.md", "exec"), {})
    assert capsys.readouterr().out.startswith("1") and probe("back.mp4").n_frames == 5


def test_no_test_is_left_over():
    assert set(HABITS) == set(ROWS)


@pytest.fixture
def folder(tmp_path, tiny_preset, monkeypatch):
    """The current folder: in.mp4 with 10 frames and sound, in.png, and in.vov, made from the first without sound."""
    monkeypatch.chdir(tmp_path)
    Path("tiny.yaml").write_text(tiny_preset.read_text())
    write_event_clip(Path("in.mp4"), n_frames=10, event_frame=5)
    with open_frames("in.mp4") as reader:
        Image.fromarray(next(reader)).save("in.png")
    encode("in.mp4 -o in.vov --audio none --bytes 500")


def vov(line: str, code: int = 0) -> None:
    assert run(line.split()) == code


def encode(arguments: str, output: str = "in.vov") -> VovFile:
    """`vov encode ARGUMENTS` with the tiny model; the file it made."""
    assert run(["encode", *arguments.split(), *FLAGS, *([] if "-q" in arguments else ["-q"])]) == 0
    return read_vov(output) if Path(output).is_file() else None


def n_frames(name: str) -> int:
    with open_frames(name) as reader:
        return sum(1 for _ in reader)


@habit("`ffmpeg -i in.mp4 out.mkv`")
def _(capsys, monkeypatch):
    for kind in ("mkv", "mp4", "webm", "mov", "avi", "gif", "y4m"):
        vov(f"decode in.vov -o back.{kind} -q")
        assert n_frames(f"back.{kind}") == 10
    encode("in.png -o still.vov")
    for kind in ("png", "jpg", "webp", "avif"):
        vov(f"decode still.vov -o back.{kind} -q")
        assert probe(f"back.{kind}").kind == "image"


@habit("`-ss 0.2 -t 0.2`")
def _(capsys, monkeypatch):
    vov("decode in.vov -o part.y4m --ss 0.2 -t 0.2 -q")
    vov("decode in.vov -o whole.y4m -q")
    with open_frames("part.y4m") as part, open_frames("whole.y4m") as whole:
        assert (np.stack(list(part)) == np.stack(list(whole))[5:10]).all()
    stream = encode("in.mp4 -o in.vov -y --ss 0.2 -t 0.2 --bytes 3000 --audio 16k")
    assert stream.header.n_frames == 5 and audio_of(stream).end == 0.2 * 48000


@habit("`-r 12.5`")
def _(capsys, monkeypatch):
    header = encode("in.mp4 -o in.vov -y --fps 12.5").header
    assert (header.n_frames, Fraction(header.frame_rate_num, header.frame_rate_den)) == (5, Fraction(25, 2))


@habit("`-frames:v 5`")
def _(capsys, monkeypatch):
    assert encode("in.mp4 -o in.vov -y --frames 5").header.n_frames == 5


@habit("`-s 96x80`, `-vf scale`")
def _(capsys, monkeypatch):
    header = encode("in.mp4 -o in.vov -y --size 96x80").header
    assert (header.coded_width, header.coded_height, header.source_width) == (96, 80, 64)
    vov("decode in.vov -o small.y4m --size 96x80 -q")
    assert (probe("small.y4m").width, probe("small.y4m").height) == (96, 80)


@habit("`-b:v 24k`")
def _(capsys, monkeypatch):
    encode("in.mp4 -o in.vov -y --bitrate 24k")
    assert 0.95 * 1200 <= Path("in.vov").stat().st_size <= 1200, "0.4 s"


@habit("`-fs 900`")
def _(capsys, monkeypatch):
    encode("in.mp4 -o in.vov -y --bytes 900")
    assert 0.95 * 900 <= Path("in.vov").stat().st_size <= 900


@habit("`-crf 30`, `cjxl -q 30`, `avifenc -q 30`")
def _(capsys, monkeypatch):
    encode("in.png -o in.vov -y --bpp 0.5")
    assert 0.9 * 192 <= Path("in.vov").stat().st_size <= 192


@habit("`-preset slow`, `cjxl -e 9`, `avifenc -s 0`")
def _(capsys, monkeypatch):
    vov("presets show pocket --json")
    plain = json.loads(capsys.readouterr().out)
    vov("presets show pocket --effort slow --json")
    slow = json.loads(capsys.readouterr().out)
    assert slow["fitting"]["stage1"]["steps"] > plain["fitting"]["stage1"]["steps"]
    vov("encode in.mp4 -o x.vov --effort slowest", code=2)


@habit("`-an`")
def _(capsys, monkeypatch):
    assert encode("in.mp4 -o in.vov -y --audio none").extras == ()


@habit("`-b:a 24k`")
def _(capsys, monkeypatch):
    assert audio_of(encode("in.mp4 -o in.vov -y --audio 24k")).n_channels == 2
    assert audio_of(encode("in.mp4 -o in.vov -y")).codec == "opus"
    assert encode("in.mp4 -o in.vov -y --bytes 600").extras == ()


@habit("`-c:a copy`")
def _(capsys, monkeypatch):
    assert audio_of(encode("in.mp4 -o in.vov -y --audio copy")).codec == "aac"
    vov("decode in.vov -o back.mp4 -q")
    assert probe("back.mp4").has_audio


@habit("`-y`, `-n`")
def _(capsys, monkeypatch):
    vov("decode in.vov -o in.mp4", code=6)
    vov("decode in.vov -o in.mp4 -n", code=6)
    vov("decode in.vov -o in.mp4 -y")


@habit("`-i - -f matroska -`")
def _(capsys, monkeypatch):
    import io
    import sys
    from types import SimpleNamespace

    def piped(line: str, data: bytes) -> bytes:
        out = SimpleNamespace(buffer=io.BytesIO(), isatty=lambda: False, flush=lambda: None)
        with monkeypatch.context() as patch:
            patch.setattr(sys, "stdin", SimpleNamespace(buffer=io.BytesIO(data), isatty=lambda: False))
            patch.setattr(sys, "stdout", out)
            assert run([*line.split(), "-q"]) == 0
        return out.buffer.getvalue()

    with open_frames("in.mp4") as reader:
        frames = list(reader)
    coded = piped(f"encode - -o - {' '.join(FLAGS)}", Path("in.mp4").read_bytes())
    assert coded.startswith(b"\x89VOV") and len(frames) == 10
    assert piped("decode - -o -", coded).startswith(b"YUV4MPEG2")
    assert piped("decode - -o - --container mkv", coded).startswith(b"\x1aE\xdf\xa3")


@habit("`-f image2 f%03d.png`")
def _(capsys, monkeypatch):
    vov("decode in.vov -o f%03d.png -q")
    assert sorted(path.name for path in Path().glob("f*.png"))[::9] == ["f001.png", "f010.png"]
    header = encode("f%03d.png -o in.vov -y --fps 25").header
    assert (header.n_frames, header.frame_rate_num) == (10, 25)


@habit("`for f in *.png; do …; done`")
def _(capsys, monkeypatch):
    Image.open("in.png").save("second.png")
    assert run(["encode", "in.png", "missing.png", "second.png", "-o", "out/", "-q", *FLAGS]) == 3
    assert sorted(path.name for path in Path("out").iterdir()) == ["in.vov", "second.vov"]


@habit("`-threads 1`, `avifenc -j 1`")
def _(capsys, monkeypatch):
    import torch

    before = torch.get_num_threads()
    vov("decode in.vov -o back.y4m --threads 1 -q")
    assert torch.get_num_threads() == 1
    torch.set_num_threads(before)


@habit("`-hwaccel cuda`")
def _(capsys, monkeypatch):
    import torch

    vov("decode in.vov -o back.y4m --device cuda -q", code=0 if torch.cuda.is_available() else 5)


@habit("`-loglevel error`")
def _(capsys, monkeypatch):
    vov("decode in.vov -o back.y4m -q")
    assert capsys.readouterr().err == ""


@habit("`-progress pipe:2`")
def _(capsys, monkeypatch):
    vov("decode in.vov -o back.y4m --progress json")
    assert all("event" in json.loads(line) for line in capsys.readouterr().err.splitlines())


@habit("`ffprobe -print_format json`")
def _(capsys, monkeypatch):
    vov("info in.vov --json")
    assert json.loads(capsys.readouterr().out)["summary"]["n_frames"] == 10


@habit("`-xerror`")
def _(capsys, monkeypatch):
    stream = read_vov("in.vov")
    assert len(stream.segments) == 2
    last = next(section for section in reversed(stream.layout) if section.name == "segment")
    data = bytearray(Path("in.vov").read_bytes())
    data[last.offset + 12] ^= 1
    Path("bad.vov").write_bytes(data)
    vov("decode bad.vov -o back.y4m --strict -q", code=4)
    assert not Path("back.y4m").exists()
    vov("decode bad.vov -o back.y4m -q", code=4)
    assert n_frames("back.y4m") == 10 and "frames 5 to 9 are lost" in capsys.readouterr().err


@habit("`-noautorotate`")
def _(capsys, monkeypatch):
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.open("in.png").save("turned.jpg", exif=exif)
    header = encode("turned.jpg -o in.vov -y").header
    assert (header.source_width, header.source_height, header.rotation) == (48, 64, 90)
    run(["encode", "turned.jpg", "-o", "again.vov", *FLAGS])
    assert "turned upright by 90 degrees" in capsys.readouterr().err


@habit("`-x264-params scenecut=40`")
def _(capsys, monkeypatch):
    dark, bright = (Image.new("RGB", (64, 48), (level, level, 90)) for level in (20, 220))
    for number in range(20):
        (dark if number < 10 else bright).save(f"c{number}.png")
    assert 10 in [segment.first_frame for segment in encode("c%d.png -o in.vov -y --bytes 1500").segments]


@habit("`-pix_fmt yuv420p10le`")
def _(capsys, monkeypatch):
    Image.fromarray(np.full((48, 64), 40_000, np.uint16)).save("deep.png")
    Image.new("RGBA", (64, 48), (90, 80, 70, 128)).save("clear.png")
    for name, words in (("deep", "16 bits per component are reduced to 8"), ("clear", "flattened on white")):
        assert run(["encode", f"{name}.png", "-o", f"{name}.vov", *FLAGS]) == 0
        assert words in capsys.readouterr().err
