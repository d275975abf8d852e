"""The benches of rate control, split and objectives on a tiny model: what they run, keep, skip and conclude."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image
from tiny_models import save_tiny_pocket

from vovcodec.bench import objectives, rate_control, split
from vovcodec.bench.table import read_rows

PRESET = """
backbone: {id: pocket}
geometry: {short_side: 32}
adaptation: {vector_length: 64, projection: offset-philox}
steering: {method: atoms, snr_start: 0.02, snr_ratio: 4.0}
fitting: {stage1: {steps: 2}, stage2: {steps: 2}}
rate: {split: [0.2, 0.8]}
efforts:
  instant: {adaptation: {vector_length: 0}}
  fast: {}
  paper:
    adaptation: {projection: balanced-philox}
    sampler: {steps: 3}
    steering: {method: none}
    fitting: {objective: reference, batch: 2, stage1: {steps: 2, lr: 2e-3}, stage2: {steps: 2, lr: 2e-3}}
    rate: {lambda: 4e-3, split: null}
"""


@pytest.fixture(scope="module")
def shelf(tmp_path_factory):
    folder = tmp_path_factory.mktemp("shelf")
    save_tiny_pocket(folder / "pocket")
    y, x = np.mgrid[:32, :48]
    picture = np.stack([127 + 60 * np.sin(x / 3 + c) + 60 * np.cos(y / 2 - c) for c in range(3)], -1)
    (folder / "media").mkdir()
    Image.fromarray(picture.clip(0, 255).astype("u1")).save(folder / "media" / "waves.png")
    (folder / "mine.yaml").write_text(PRESET)
    return folder


@pytest.fixture
def common(shelf, tmp_path, monkeypatch):
    monkeypatch.setenv("VOVCODEC_MODELS", str(shelf))
    out = tmp_path / "table.tsv"
    return ["--media", str(shelf / "media"), "--preset", str(shelf / "mine.yaml"), "--out", str(out)], out


def test_random_targets_are_hit(common, capsys):
    arguments, out = common
    arguments = [*arguments, "--targets", "4", "--effort", "instant,fast", "--still-range", "200,500"]
    assert rate_control.main(arguments) == 0
    rows = read_rows(out, rate_control.TargetRow)
    assert [row.effort for row in rows] == ["instant"] * 4 + ["fast"] * 4
    for row in rows:
        assert 200 <= row.target_bytes <= 500 and 0.98 * row.target_bytes <= row.size_bytes <= row.target_bytes
        assert row.vector_bytes + row.atoms_bytes + row.overhead_bytes == row.size_bytes
        assert (row.vector_bytes > 0) == (row.effort == "fast")
    printed = capsys.readouterr().out
    assert printed.count("1 byte: 1 bytes are too few") == 2 and "fast: 4 targets" in printed
    assert rate_control.main(arguments) == 0 and read_rows(out, rate_control.TargetRow) == rows


def test_a_missed_target_is_an_error(common, capsys, monkeypatch):
    arguments, _ = common
    monkeypatch.setattr(rate_control, "ALLOWED_MISS", -1.0)
    assert rate_control.main([*arguments, "--targets", "1", "--still-range", "200,201"]) == 1
    assert "MISSED: waves instant" in capsys.readouterr().out


def test_shares_of_the_vector(common, capsys):
    arguments, out = common
    assert split.main([*arguments, "--shares", "0,20,50", "--still-bytes", "300", "--exact"]) == 0
    rows = read_rows(out, split.SplitRow)
    assert [row.share_percent for row in rows] == [0, 20, 50]
    assert [row.vector_length for row in rows] == [0, 240, 600]
    sizes = [row.vector_bytes for row in rows]
    assert sizes[0] == 0 < sizes[1] <= 60 and 0 < sizes[2] <= 150
    assert all(294 <= row.size_bytes <= 300 for row in rows), "what the vector leaves goes to the atoms"
    printed = capsys.readouterr().out
    assert "20 % vector: " in printed and printed.count("coding the vector costs ") == 2
    assert rows[0].psnr_exact_db is None and all(abs(row.psnr_exact_db - row.psnr_db) < 1 for row in rows[1:])
    assert split.main([*arguments, "--effort", "paper"]) == 2


def test_recipes_are_compared(common, capsys):
    arguments, out = common
    sizes = ["--vector-length", "64", "--budgets", "6", "--reference-budgets", "6", "--paper-budgets", "8"]
    arguments = [*arguments, *sizes, "--steps", "1,2", "--crop", "16"]
    arguments += ["--recipes", "trajectory,float,on-policy,through-sampler"]
    assert objectives.main(arguments) == 0
    rows = read_rows(out, objectives.FitRow)
    assert [(row.recipe, row.steps) for row in rows] == [
        *((recipe, steps) for recipe in ("trajectory", "float", "on-policy", "through-sampler") for steps in (1, 2)),
        *(("reference", steps) for steps in (1, 2, 50)),
        *(("paper", steps) for steps in (1, 2, 50)),
    ]
    assert {row.size for row in rows} == {"16x16"} and all(row.vector_bytes > 0 for row in rows)
    printed = capsys.readouterr().out
    assert "paper: " in printed and "ours, 2 steps: " in printed and "after 8 evaluations" in printed
    assert objectives.main(arguments) == 0 and read_rows(out, objectives.FitRow) == rows
    floats = [row for row in rows if row.recipe == "float"]
    assert [row.vector_bytes for row in floats] == [256, 256]
    assert objectives.main([*arguments, "--recipes", "guess"]) == 2
