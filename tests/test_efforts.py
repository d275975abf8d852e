"""The README's table of efforts against what the shipped default preset really does."""

from __future__ import annotations

import math
import re
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import torch

from vovcodec.backbone.geometry import evaluations_of_steps
from vovcodec.codec.encode import encode
from vovcodec.codec.options import EncodeOptions
from vovcodec.codec.plans import plan_of_preset
from vovcodec.container import read_vov
from vovcodec.media import open_writer
from vovcodec.presets import Preset, load_preset, resolve
from vovcodec.sampling.schedule import snr_grid, snr_of

README = Path(__file__).resolve().parent.parent / "README.md"
PRESET = load_preset("pocket")


def table() -> dict[str, tuple[int, int]]:
    """Effort → network evaluations as the README says: forward, and with gradient for a vector."""
    pattern = r"^\| `(\w+)`[^|]*\|[^|]*\| (?:about )?(\d+) \| (\d*) ?\|$"
    rows = re.findall(pattern, README.read_text(encoding="utf-8"), re.MULTILINE)
    return {name: (int(forward), int(backward or 0)) for name, forward, backward in rows}


@pytest.fixture(scope="module")
def last_snr(tmp_path_factory):
    """Where the steering of an `instant` encode of 33 frames ends: with a quarter of the pixels and of the bytes."""
    folder = tmp_path_factory.mktemp("instant")
    y, x = np.mgrid[:128, :160] / 128
    grain = np.random.default_rng(1).normal(size=(1, 32, 40, 3)).repeat(4, 1).repeat(4, 2)[0]
    with open_writer(folder / "in.y4m", width=160, height=128, frame_rate=Fraction(25)) as writer:
        for t in range(33):
            disc = 80.0 * ((x - 0.4 - t / 80) ** 2 + (y - 0.5) ** 2 < 0.04)[..., None]
            shade = np.stack([60 + 90 * x, 150 - 70 * y, 90 + 40 * x * y], axis=-1)
            # Bands that go to and fro: nothing that a camera's path could show.
            bands = [np.roll(band, t * (-1) ** i, axis=1) for i, band in enumerate(np.split(grain, 8))]
            writer.write((shade + disc + 25 * np.concatenate(bands)).clip(0, 255).astype(np.uint8))
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    report = encode(
        folder / "in.y4m",
        folder / "out.vov",
        EncodeOptions(effort="instant", size=(80, 64), target_bytes=375, state_dir=folder),
    )
    torch.set_num_threads(before)
    stream = read_vov(folder / "out.vov")
    sampler, segment = stream.header.sampler, stream.segments[0]
    atoms = segment.atoms
    assert sampler.steps_of(segment) == len(atoms.counts) + 1
    assert report.n_network_evaluations == evaluations_of_steps("pocket", len(atoms.counts) + 1, True)
    times = snr_grid(sampler.snr_start_q, sampler.snr_ratio_q, len(atoms.counts), atoms.last_q)
    return snr_of(times[-2])


def forward_passes(settings: Preset, last_snr: float) -> int:
    """Of an encode whose steering ends at `last_snr`, without a vector."""
    if settings.steering.method == "none":
        return evaluations_of_steps("pocket", settings.sampler.steps, True)
    plan = plan_of_preset(settings, is_still=False)
    first = snr_of(snr_grid(plan.snr_start_q, plan.snr_ratio_q, 1)[1])
    n_injections = 1 + math.ceil(math.log(last_snr / first) / math.log(1 + plan.snr_ratio_q / 64) - 1e-6)
    return evaluations_of_steps("pocket", n_injections + 1, True)


def test_every_effort_is_in_the_table():
    assert list(table()) == list(PRESET.efforts)


@pytest.mark.parametrize("effort", list(PRESET.efforts))
def test_the_passes_of_an_effort_are_those_of_the_table(effort, last_snr):
    settings = resolve(PRESET, {}, effort)
    assert settings.rate.split in ([0, 1], None)
    forward, with_gradient = table()[effort]
    fitting = settings.fitting
    assert (fitting.stage1.steps + fitting.stage2.steps) * fitting.batch == with_gradient
    # How far the bytes of a clip reach depends on the clip.
    assert forward == pytest.approx(forward_passes(settings, last_snr), rel=0.25)
