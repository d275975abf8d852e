"""The demonstration around pretended commands: its clip, its comparison, its sheet, the bench's table."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from vovcodec.demo import __main__ as demo
from vovcodec.demo import bench, clip, measure


@pytest.fixture(scope="module")
def source(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("demo") / "source.mp4"
    clip.write_clip(path)
    return path


@pytest.fixture(scope="module")
def frames(source) -> np.ndarray:
    return measure.read_frames(source)


def test_the_clip_has_the_promised_shape_and_moves(frames):
    assert frames.shape == (clip.N_FRAMES, clip.HEIGHT, clip.WIDTH, 3)
    steps = np.abs(np.diff(frames.astype(np.int16), axis=0)).mean(axis=(1, 2, 3))
    assert steps.max() > 2, "the camera must move"
    assert steps[0] < steps.max() / 2, "softly at first"


def test_the_camera_stays_inside_the_photograph():
    """Outside it there would be black, which is easy to code and would flatter the figures."""
    with Image.open(clip.find_photograph()) as photograph:
        white = Image.new("RGB", photograph.size, "white")
    assert min(frame.min() for frame in clip.camera_motion(white)) == 255


def test_comparing_resizes_the_reference(frames):
    half = frames[:4, ::2, ::2]
    psnr_db, similarity = measure.compare(frames[:4], half)
    assert 20 < psnr_db < 60 and 0.5 < similarity < 1
    assert measure.compare(half, half) == (float("inf"), pytest.approx(1.0))


def test_the_sheet_is_an_image(frames, tmp_path):
    demo.write_sheet(tmp_path / "sheet.png", (frames, "source"), (frames, "same"))
    with Image.open(tmp_path / "sheet.png") as sheet:
        assert sheet.width > 4 * clip.WIDTH and sheet.height > 2 * clip.HEIGHT


@pytest.fixture
def pretended_vov(monkeypatch, source):
    """Commands that copy instead of coding: what they print is what the real ones print."""

    def pretend(command, **_):
        _, _, _, verb, given, *rest = command
        output = rest[rest.index("-o") + 1] if "-o" in rest else None
        report = {"encode_s": 1.0, "peak_memory_bytes": 10**9, "n_network_evaluations": 7}
        if verb == "encode":
            shutil.copy(given, output)
            quality = {"psnr_db": 20.0, "ssim": 0.5, "coded_size": [416, 240], "effort": "fast"}
            report |= quality | {"sections": {"vector": 3}}
        elif verb == "info":
            report |= {"check": {"segments": 1}}
        elif output.endswith(".mp4"):
            shutil.copy(given, output)
        else:
            for number, frame in enumerate(measure.read_frames(given, 3), 1):
                Image.fromarray(frame).save(output % number)
        return subprocess.CompletedProcess(command, 0, stdout=json.dumps(report))

    monkeypatch.setattr(subprocess, "run", pretend)


def test_the_demo_prints_its_figures_and_leaves_its_files(pretended_vov, tmp_path, capsys):
    assert demo.main(["-o", str(tmp_path)]) == 0
    out = capsys.readouterr().out
    size_bytes = (tmp_path / "clip.vov").stat().st_size
    bits_per_pixel = 8 * size_bytes / (33 * 416 * 240)
    assert f"{size_bytes} bytes, {bits_per_pixel:.5f} bits per pixel" in out
    assert "416x240: PSNR inf dB, SSIM 1.0000" in out
    left = {path.name for path in tmp_path.iterdir()}
    assert left == {"source.mp4", "clip.vov", "decoded.mp4", "realism.mp4", "sheet.png"}


def test_the_bench_writes_one_row_per_file_and_target(pretended_vov, source, tmp_path, capsys):
    efforts = ["--effort", "instant,fast", "--frames", "3"]
    assert bench.main([str(source), "-o", str(tmp_path), "--bytes", "800", "1500", *efforts]) == 0
    table = (tmp_path / "bench.tsv").read_text()
    assert table == capsys.readouterr().out
    header, *rows = (line.split("\t") for line in table.splitlines())
    assert tuple(header) == bench.COLUMNS and len(rows) == 4
    row = dict(zip(header, rows[0], strict=True))
    assert (row["frames"], row["bytes"], row["psnr_db"]) == ("3", str(source.stat().st_size), "inf")


def test_a_command_that_fails_ends_the_demo_with_its_code(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(subprocess, "run", lambda command, **_: subprocess.CompletedProcess(command, 5, stdout=""))
    assert demo.main(["-o", str(tmp_path)]) == 5
    assert "exit code 5" in capsys.readouterr().err
