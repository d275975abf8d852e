"""The bench of realism, on a tiny model of the real classes."""

from __future__ import annotations

import numpy as np
import pytest
from tiny_clips import picture, write_clip

from vovcodec.bench import realism
from vovcodec.bench.table import read_rows
from vovcodec.sampling.schedule import REALISM_STEPS


def test_ends_and_middle_are_measured_once(tiny_preset, tmp_path, capsys):
    (tmp_path / "media").mkdir()
    write_clip(tmp_path / "media" / "waves.y4m", picture(5))
    write_clip(tmp_path / "media" / "still.png", picture(1), 0)
    out = tmp_path / "realism.tsv"
    arguments = ["--media", str(tmp_path / "media"), "--out", str(out), "--preset", str(tiny_preset),
                 "--effort", "fast", "--bytes", "500", "--still-bytes", "300"]  # fmt: skip
    assert realism.main(arguments) == 0
    rows = read_rows(out, realism.RealismRow)
    assert [(row.item, row.realism) for row in rows] == [(n, r) for n in ("waves", "still") for r in (0.0, 0.5, 1.0)]
    mean, half, sampled = rows[:3]
    assert sampled.evaluations == half.evaluations == mean.evaluations + REALISM_STEPS
    assert len({row.detail for row in rows[:3]}) == 3 and all(row.flicker is None for row in rows[3:])
    assert "realism 0.5" in capsys.readouterr().out
    assert realism.main(arguments) == 0 and len(read_rows(out, realism.RealismRow)) == 6, "nothing is measured twice"


def test_several_segments_and_clips_without_motion(tiny_preset, tmp_path):
    (tmp_path / "media").mkdir()
    write_clip(tmp_path / "media" / "long.y4m", np.repeat(picture(1), 14, axis=0))
    out = tmp_path / "realism.tsv"
    arguments = ["--media", str(tmp_path / "media"), "--out", str(out), "--preset", str(tiny_preset),
                 "--effort", "fast", "--bytes", "900", "--realism", "1"]  # fmt: skip
    assert realism.main(arguments) == 0
    (row,) = read_rows(out, realism.RealismRow)
    assert row.frames == 14 and row.flicker is None and row.detail > 0


def test_detail_and_flicker_are_energies():
    flat = np.full((4, 8, 8, 3), 100, dtype=np.uint8)
    checks = flat + (np.indices((8, 8)).sum(0) % 2).astype(np.uint8)[None, :, :, None] * 10
    assert realism.detail_energy(flat) == 0.0
    assert realism.detail_energy(checks) == pytest.approx((4 * 10) ** 2)
    moving = flat + np.array([0, 1, 2, 3], dtype=np.uint8)[:, None, None, None]
    assert realism.flicker_energy(moving) == 0.0
    blinking = flat + np.array([0, 5, 0, 5], dtype=np.uint8)[:, None, None, None]
    assert realism.flicker_energy(blinking) == pytest.approx(100.0)
