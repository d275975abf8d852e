"""The bench of scenes, on a tiny model of the real classes."""

from __future__ import annotations

import numpy as np
from tiny_clips import picture, write_clip

from vovcodec.bench import scenes
from vovcodec.bench.table import read_rows


def test_standing_clips_are_measured_with_and_without_a_picture(tiny_preset, tmp_path, capsys):
    (tmp_path / "media").mkdir()
    write_clip(tmp_path / "media" / "standing.y4m", np.repeat(picture(1), 5, axis=0))
    noise = np.random.default_rng(1).integers(0, 256, picture(5).shape, dtype=np.uint8)
    write_clip(tmp_path / "media" / "noise.y4m", noise)
    write_clip(tmp_path / "media" / "still.png", picture(1), 0)
    out = tmp_path / "scenes.tsv"
    arguments = ["--media", str(tmp_path / "media"), "--out", str(out), "--preset", str(tiny_preset),
                 "--effort", "fast", "--bytes", "500"]  # fmt: skip
    assert scenes.main(arguments) == 0
    noisy, standing, plain = read_rows(out, scenes.SceneRow)
    assert (noisy.item, noisy.scenes, noisy.picture) == ("noise", "joined", 0)
    assert (standing.item, standing.scenes, plain.scenes) == ("standing", "joined", "none")
    assert 0 < standing.picture <= standing.injections and plain.picture == 0
    assert "of" in capsys.readouterr().out
    assert scenes.main(arguments) == 0 and len(read_rows(out, scenes.SceneRow)) == 3, "nothing is measured twice"


def test_joined_segments_are_measured_apart_too(tiny_preset, tmp_path):
    (tmp_path / "media").mkdir()
    write_clip(tmp_path / "media" / "standing.y4m", np.repeat(picture(1), 20, axis=0))
    out, preset = tmp_path / "scenes.tsv", tmp_path / "joins.yaml"
    preset.write_text(tiny_preset.read_text().replace("scene_frames: 9", "scene_frames: 33"))
    arguments = ["--media", str(tmp_path / "media"), "--out", str(out), "--preset", str(preset),
                 "--effort", "fast", "--bytes", "700"]  # fmt: skip
    assert scenes.main(arguments) == 0
    rows = read_rows(out, scenes.SceneRow)
    assert [(row.scenes, row.segments) for row in rows] == [("joined", 1), ("apart", 3), ("none", 3)]
    assert rows[0].frames == 20 and rows[1].picture and not rows[2].picture
