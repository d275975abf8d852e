"""Seams between segments, on a tiny model of the real classes."""

from __future__ import annotations

from tiny_clips import picture, write_clip

from vovcodec.bench import seams
from vovcodec.bench.table import read_rows


def test_seams_are_measured_where_segments_meet(tiny_preset, tmp_path, capsys):
    (tmp_path / "media").mkdir()
    write_clip(tmp_path / "media" / "waves.y4m", picture(14))
    write_clip(tmp_path / "media" / "short.y4m", picture(5))
    write_clip(tmp_path / "media" / "still.png", picture(1), 0)
    out = tmp_path / "seams.tsv"
    arguments = [
        "--media",
        str(tmp_path / "media"),
        "--out",
        str(out),
        "--preset",
        str(tiny_preset),
        "--effort",
        "fast",
    ]
    assert seams.main([*arguments, "--bytes", "900"]) == 0
    (row,) = read_rows(out, seams.SeamsRow)
    assert (row.item, row.frames, row.segments) == ("waves", 14, 2) and row.size_bytes <= 900
    assert row.seam_psnr_db != row.inside_psnr_db and row.seam_jump > 0 and row.inside_jump > 0
    assert "2 segments" in capsys.readouterr().out
    assert seams.main([*arguments, "--bytes", "900"]) == 0 and len(read_rows(out, seams.SeamsRow)) == 1, (
        "nothing is measured twice"
    )
    assert seams.main([*arguments, "--bytes", "700"]) == 0 and len(read_rows(out, seams.SeamsRow)) == 2
