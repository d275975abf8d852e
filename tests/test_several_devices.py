"""Whole encodes and decodes on several devices: workers with segments, and processes under torchrun."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from tiny_models import save_tiny_pocket, save_tiny_wan

from vovcodec.backbone.locate import MODELS_VARIABLE
from vovcodec.cli.app import run
from vovcodec.codec.decode import decode
from vovcodec.codec.encode import encode
from vovcodec.codec.options import DecodeOptions, EncodeOptions
from vovcodec.codec.regenerate import theta_of
from vovcodec.container import read_vov, write_vov
from vovcodec.errors import FormatError
from vovcodec.progress import SilentListener

ROOT = Path(__file__).resolve().parent.parent
PRESET = """
description: tiny
backbone: {{id: {id}, path: "{path}"}}
geometry: {{short_side: 32, multiple: 16, segment_frames: 5, scene_frames: 5}}
adaptation: {{vector_length: 64}}
steering: {{method: atoms, snr_start: 0.01, snr_ratio: 3.0, bytes: 300}}
fitting: {{stage1: {{steps: {steps}, lr: 1e-2}}, stage2: {{steps: 3, lr: 5e-3}}}}
rate: {{bytes: 500}}
efforts: {{fast: {{}}}}
"""


@pytest.fixture
def place(tmp_path, monkeypatch):
    pocket = save_tiny_pocket(tmp_path / "shelf" / "pocket")
    wan = save_tiny_wan(tmp_path / "shelf" / "wan2.1-1.3b")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    monkeypatch.setenv(MODELS_VARIABLE, str(tmp_path / "shelf"))
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    for name, model, steps in (("tiny", pocket, 3), ("long", pocket, 100_000), ("wan", wan, 3)):
        (tmp_path / f"{name}.yaml").write_text(PRESET.format(id=model.name, path=model, steps=steps))
    grain = np.random.default_rng(7).integers(0, 256, (13, 3, 32, 48), dtype=np.uint8)
    frames = b"".join(b"FRAME\n" + frame.tobytes() for frame in grain)
    (tmp_path / "in.y4m").write_bytes(b"YUV4MPEG2 W48 H32 F25:1 Ip A1:1 C444\n" + frames)
    return tmp_path


class Stages(SilentListener):
    def __init__(self) -> None:
        self.stages = []

    def stage(self, name: str, n_units: int, done: int = 0) -> None:
        self.stages.append((name, n_units, done))


def vov(place: Path, *arguments: str, launcher: tuple[str, ...] = (), **settings) -> subprocess.Popen:
    command = [sys.executable, *launcher, "-m", "vovcodec", *arguments]
    return subprocess.Popen(command, cwd=place, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **settings)


@pytest.mark.slow  # every process loads torch and a model
def test_segments_spread_over_workers(place):
    one, two = place / "one.vov", place / "two.vov"
    options = EncodeOptions(preset=place / "tiny.yaml", target_bytes=1500)
    single = encode(place / "in.y4m", one, options)
    listener = Stages()
    double = encode(place / "in.y4m", two, EncodeOptions(**vars(options) | {"device": "cpu,cpu"}), listener)
    assert ("encoding segments", 3, 0) in listener.stages
    assert not list((place / "xdg").rglob("*.part")) and not list((place / "xdg").rglob("*.fit"))
    alone, together = read_vov(one), read_vov(two)
    assert [s.index for s in together.segments] == [0, 1, 2] and together.header == alone.header
    assert together.segments[0] == alone.segments[0], "the same work for the same share of the bytes"
    assert double.size_bytes <= 1500 and double.size_bytes == pytest.approx(single.size_bytes, rel=0.02)
    assert double.n_network_evaluations == pytest.approx(single.n_network_evaluations, abs=3)
    # A lost segment and one from a faulty writer are concealed alike.
    faulty, damaged = place / "faulty.vov", place / "damaged.vov"
    first, second, third = together.segments
    second = replace(second, atoms=replace(second.atoms, words=b"\xff" * 5000))
    write_vov(faulty, replace(together, segments=(first, second, third), layout=()))
    data = bytearray(faulty.read_bytes())
    lost = next(section for section in read_vov(faulty).layout if section.segment == 2)
    data[lost.offset + lost.size_bytes - 10] ^= 4
    damaged.write_bytes(data)
    for coded, n_faults in ((two, 0), (damaged, 2)):
        shown, reports = [], []
        for name, device in (("one", "cpu"), ("two", "cpu,cpu")):
            options = DecodeOptions(device=device, verify=True, overwrite=True)
            reports.append(decode(coded, place / f"{name}.y4m", options))
            shown.append((place / f"{name}.y4m").read_bytes())
        assert shown[0] == shown[1]
        assert reports[0].damage == reports[1].damage and len(reports[0].damage) == n_faults
        assert reports[0].drift_db == reports[1].drift_db
    with pytest.raises(FormatError):
        decode(faulty, place / "strict.y4m", DecodeOptions(device="cpu,cpu", strict=True))
    assert not (place / "strict.y4m").exists()


def children(pid: int, named: bytes = b"spawn_main") -> list[int]:
    found = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return [int(each) for each in found if named in Path(f"/proc/{each}/cmdline").read_bytes()]


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="looks at processes")
def test_a_killed_worker_ends_the_command_and_what_is_done_is_kept(place):
    arguments = ("encode", "in.y4m", "-o", "out.vov", "--preset", "long.yaml", "--device", "cpu,cpu", "--threads", "1")
    process = vov(place, *arguments)
    try:
        deadline = time.monotonic() + 300
        while len(list((place / "xdg").rglob("*.fit"))) < 2:  # both are at work and have saved once
            assert process.poll() is None and time.monotonic() < deadline, process.stderr.read()
            time.sleep(0.5)
        workers = children(process.pid)
        assert len(workers) == 2
        os.kill(workers[0], signal.SIGKILL)
        out, err = process.communicate(timeout=60)
    finally:
        process.kill()
    assert process.returncode == 5 and out == ""
    assert "the worker on cpu" in err and "SIGKILL" in err and "are kept" in err and "Traceback" not in err
    assert not (place / "out.vov").exists() and len(list((place / "xdg").rglob("*.fit"))) == 2
    assert not any(Path(f"/proc/{worker}").exists() for worker in workers)


@pytest.mark.slow  # test_fitting_ranks.py has two processes that fit together in the fast suite
def test_torchrun_makes_the_file_of_one_process(place):
    """The published entry point with two processes and gloo, on a tiny Wan model."""
    options = EncodeOptions(preset=place / "wan.yaml", batch=4, n_frames=5, device="cpu")
    encode(place / "in.y4m", place / "one.vov", options)
    launcher = ("-m", "torch.distributed.run", "--nnodes", "1", "--nproc-per-node", "2", "--standalone")
    line = "encode in.y4m -o two.vov --preset wan.yaml --batch 4 --frames 5 --device cpu --threads 1"
    together = vov(place, *line.split(), launcher=launcher)
    try:
        out, err = together.communicate(timeout=300)
    finally:
        together.terminate()  # torchrun ends its processes
    assert together.returncode == 0, err
    assert out.count("two.vov") == 1, "one process reports"
    one, two = read_vov(place / "one.vov"), read_vov(place / "two.vov")
    assert two.header == one.header and two.caption == one.caption
    # Sums in another order: a symbol or an atom may differ here and there.
    vectors = [theta_of(file.segments[0].updates(file.header.adaptation)[0]) for file in (one, two)]
    assert np.linalg.norm(vectors[1] - vectors[0]) <= 0.02 * np.linalg.norm(vectors[0])
    assert two.segments[0].check.psnr_q == pytest.approx(one.segments[0].check.psnr_q, abs=0.3 * 256)


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="looks at processes")
def test_a_killed_rank_ends_torchrun_and_the_fit_is_kept(place):
    launcher = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2")
    line = "encode in.y4m -o out.vov --preset long.yaml --batch 4 --frames 5 --device cpu --threads 1"
    process = vov(place, *line.split(), launcher=launcher)
    try:
        deadline = time.monotonic() + 300
        while not list((place / "xdg").rglob("*.fit")):  # saved once while it goes on
            assert process.poll() is None and time.monotonic() < deadline, process.stderr.read()
            time.sleep(0.5)
        last = children(process.pid, b"encode")[-1]
        os.kill(last, signal.SIGKILL)
        out, err = process.communicate(timeout=120)
    finally:
        process.terminate()
    assert process.returncode != 0 and out == "" and not (place / "out.vov").exists()
    assert "lost the others" in err or "the work so far is kept" in err, err
    assert len(list((place / "xdg").rglob("*.fit"))) == 1


def test_only_encode_runs_under_torchrun(place, monkeypatch, capsys):
    for name, value in (("RANK", "0"), ("WORLD_SIZE", "2"), ("MASTER_ADDR", "localhost")):
        monkeypatch.setenv(name, value)
    assert run(["decode", "two.vov", "-o", "x.y4m"]) == 2
    assert "leave torchrun out" in capsys.readouterr().err
