"""The plot of a rate–distortion table; the drawing itself needs matplotlib, which is an extra."""

from __future__ import annotations

import sys

import pytest
from PIL import Image

from vovcodec.bench import plot
from vovcodec.bench.points import Point
from vovcodec.bench.table import write_rows


@pytest.fixture
def table(tmp_path):
    """Two clips on which another codec overtakes ours at 894 bytes, and a still that it cannot code."""
    rows = []
    for item, kind in (("a", "clip"), ("b", "clip"), ("c", "still")):
        for size, ours, theirs in ((400, 20.0, None), (800, 21.0, 20.5), (1600, 22.0, 26.5)):
            for codec, value in (("vov instant", ours), ("x265 slow", theirs)):
                if value is not None and (kind == "clip" or codec == "vov instant"):
                    rows.append(Point(item, kind, "64x48", 9, codec, "", size, size, None, value, value / 40, 0.5))
    write_rows(tmp_path / "table.tsv", Point, rows)
    return tmp_path / "table.tsv"


def test_a_table_becomes_a_png(table, tmp_path):
    pytest.importorskip("matplotlib")
    for arguments, columns in ((["--kind", "clip"], 2), ([], 3), (["--columns", "2"], 2)):
        assert plot.main(["--table", str(table), "--out", str(tmp_path / "out.png"), *arguments]) == 0
        with Image.open(tmp_path / "out.png") as picture:
            assert picture.format == "PNG" and picture.width == round(columns * 2.5 * 130)


def test_what_is_wrong_is_said(table, tmp_path, capsys, monkeypatch):
    arguments = ["--table", str(table), "--out", str(tmp_path / "out.png")]
    assert plot.main([*arguments, "--items", "nothing"]) == 2
    assert "nothing to plot" in capsys.readouterr().err
    assert plot.main(["--table", str(tmp_path / "none.tsv"), "--out", str(tmp_path / "out.png")]) == 3
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    assert plot.main(arguments) == 2
    assert "vovcodec[plot]" in capsys.readouterr().err and not (tmp_path / "out.png").exists()
