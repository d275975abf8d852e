"""kill -9 in the middle of an encode: what is started again ends with the same bytes, and no file is half written."""

from __future__ import annotations

import random
import signal
import subprocess
import sys
import time
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from tiny_models import save_tiny_pocket

from vovcodec.backbone.locate import MODELS_VARIABLE
from vovcodec.codec.encode import encode
from vovcodec.codec.options import EncodeOptions
from vovcodec.container import read_vov
from vovcodec.media import open_writer
from vovcodec.progress import SilentListener

PRESET = """
backbone: {id: pocket}
geometry: {short_side: 32, multiple: 16, segment_frames: 9, scene_frames: 9}
adaptation: {vector_length: 64}
steering: {method: atoms, snr_start: 0.01, snr_ratio: 2.0}
fitting: {stage1: {steps: 12, lr: 1e-2}, stage2: {steps: 12, lr: 5e-3}}
rate: {bytes: 600}
efforts: {fast: {}}
"""

# Keeps the state after every step, prints a line per step, and kills itself: after ten steps of a fit, or when the
# temporary file of a finished segment or of the output is written but not yet in its place.
ENCODER = """
import os, signal, sys
from pathlib import Path
import torch
from vovcodec.codec.encode import encode
from vovcodec.codec.options import EncodeOptions
from vovcodec.fitting import fit
from vovcodec.progress import SilentListener

source, folder, moment = Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3]
torch.set_num_threads(1)
fit._SAVE_EVERY_S = 0.0

class Killing(SilentListener):
    def stage(self, name, n_units, done=0):
        self.name, self.n_steps = name, 0

    def advance(self, n_units=1, **figures):
        print(self.name, flush=True)
        self.n_steps += 1
        if moment == self.name and self.n_steps == 10:
            os.kill(os.getpid(), signal.SIGKILL)

def sync(descriptor, sync=os.fsync):
    temporary = {"segment": "states/*/.0.part.*.tmp", "output": ".out.vov.*.tmp"}
    if moment in temporary and list(folder.glob(temporary[moment])):
        os.kill(os.getpid(), signal.SIGKILL)
    sync(descriptor)

os.fsync = sync
options = EncodeOptions(preset=folder / "tiny.yaml", state_dir=folder / "states", overwrite=True)
encode(source, folder / "out.vov", options, Killing())
"""


class Stages(SilentListener):
    """Remembers the stages: name, units, units done before."""

    def __init__(self) -> None:
        self.stages: list[tuple[str, int, int]] = []

    def stage(self, name: str, n_units: int, done: int = 0) -> None:
        self.stages.append((name, n_units, done))


@pytest.fixture(scope="module")
def shelf(tmp_path_factory):
    folder = tmp_path_factory.mktemp("shelf")
    save_tiny_pocket(folder / "pocket")
    return folder


@pytest.fixture
def job(shelf, tmp_path, monkeypatch):
    """(source, folder): a clip of two segments and the folder of one encode of it."""
    monkeypatch.setenv(MODELS_VARIABLE, str(shelf))
    (tmp_path / "tiny.yaml").write_text(PRESET)
    y, x = np.mgrid[:32, :48]
    with open_writer(tmp_path / "in.y4m", width=48, height=32, frame_rate=Fraction(25)) as writer:
        for t in range(14):
            waves = [127 + 70 * np.sin(x / 5 + t / 3 + c) + 40 * np.cos(y / 3 - t / 4) for c in range(3)]
            writer.write(np.stack(waves, axis=-1).clip(0, 255).astype(np.uint8))
    return tmp_path / "in.y4m", tmp_path


def options_of(folder: Path) -> EncodeOptions:
    return EncodeOptions(preset=folder / "tiny.yaml", state_dir=folder / "states", overwrite=True)


def expected_bytes(source: Path, folder: Path) -> bytes:
    """What an encode that nobody disturbs makes."""
    encode(source, folder / "whole.vov", replace(options_of(folder), state_dir=folder / "other"), SilentListener())
    return (folder / "whole.vov").read_bytes()


def start(source: Path, folder: Path, moment: str = "never") -> subprocess.Popen:
    command = [sys.executable, "-c", ENCODER, str(source), str(folder), moment]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


def kept(folder: Path) -> list[str]:
    return sorted(path.name for path in (folder / "states").rglob("*.*"))


@pytest.mark.slow  # five processes that import torch
def test_killed_three_times_in_a_row(job):
    """In the first fit, while a finished segment is being kept, while the output is being written."""
    source, folder = job
    expected = expected_bytes(source, folder)
    (folder / "out.vov").write_bytes(b"what was there before")
    for moment, parts, fits, n_fitting in [
        ("fitting", set(), {"0"}, 10),
        ("segment", set(), {"0"}, 15),
        ("output", {"0", "1"}, set(), 24),
    ]:
        process = start(source, folder, moment)
        steps, _ = process.communicate(timeout=300)
        assert process.returncode == -signal.SIGKILL
        assert (folder / "out.vov").read_bytes() == b"what was there before"
        files = kept(folder)
        assert {name[0] for name in files if name.endswith(".part")} == parts
        assert {name[0] for name in files if name.endswith(".fit")} == fits, moment
        # State is kept after a step is told, so the tenth step is the one that is done again.
        assert steps.count("fitting") == n_fitting
    listener = Stages()
    encode(source, folder / "out.vov", options_of(folder), listener)
    assert (folder / "out.vov").read_bytes() == expected
    assert listener.stages == [], "both segments were kept"
    assert kept(folder) == []
    assert len(read_vov(folder / "out.vov").segments) == 2


@pytest.mark.slow
def test_killed_at_twenty_random_moments(job):
    """Each some random milliseconds after a random step: no clock decides how many kills come in time."""
    source, folder = job
    expected = expected_bytes(source, folder)
    process = start(source, folder)
    n_steps = len(process.communicate(timeout=600)[0].splitlines())
    assert (folder / "out.vov").read_bytes() == expected
    generator, n_resumed = random.Random(0), 0
    for _ in range(20):
        (folder / "out.vov").unlink()
        process = start(source, folder)
        for _ in range(generator.randint(1, n_steps)):
            process.stdout.readline()
        time.sleep(generator.uniform(0, 0.02))
        process.kill()
        process.communicate(timeout=600)
        assert process.returncode in (0, -signal.SIGKILL)
        if (folder / "out.vov").exists():
            assert (folder / "out.vov").read_bytes() == expected, "a file is there whole or not at all"
        listener = Stages()
        encode(source, folder / "out.vov", options_of(folder), listener)
        assert (folder / "out.vov").read_bytes() == expected
        n_resumed += any(done for _, _, done in listener.stages) or len(listener.stages) < 6
    assert n_resumed >= 10, "most moments leave something to continue from"
