"""Seen and held-out items side by side, on a tiny model of the real classes."""

from __future__ import annotations

import pytest
from tiny_clips import picture, write_clip

from vovcodec.bench import seen
from vovcodec.bench.table import read_rows
from vovcodec.pretraining.corpus import load_corpus


def names_of_both_splits(folder: str, suffix: str, fraction: float) -> tuple[str, str]:
    from vovcodec.pretraining.corpus import _held_out

    names = [f"{folder}/{i}{suffix}" for i in range(400)]
    return next(n for n in names if not _held_out(n, fraction)), next(n for n in names if _held_out(n, fraction))


@pytest.fixture
def data(tmp_path):
    folder = tmp_path / "data"
    (folder / "images").mkdir(parents=True)
    (folder / "clips").mkdir()
    for name in names_of_both_splits("clips", ".mkv", 0.09):
        write_clip(folder / name, picture(5))
    for name in names_of_both_splits("images", ".png", 0.03):
        write_clip(folder / name, picture(1), 0)
    return folder


@pytest.mark.slow  # two codecs search for their bytes
def test_both_splits_are_coded_in_equal_bytes(tiny_preset, data, tmp_path, capsys):
    out = tmp_path / "seen.tsv"
    arguments = ["--data", str(data), "--out", str(out), "--preset", str(tiny_preset), "--effort", "fast"]
    arguments += ["--bytes", "2000", "--still-bytes", "900"]
    assert seen.main(arguments) == 0
    rows = read_rows(out, seen.SeenRow)
    corpus = load_corpus(data)
    held_out = {item.name for item in (*corpus.held_out_clips, *corpus.held_out_images)}
    assert len(rows) == 4 and {row.item for row in rows if row.split == "held out"} == held_out
    for row in rows:
        expected = (2000, 5, "x265 slow") if row.kind == "clip" else (900, 1, "AVIF")
        assert row.size_bytes <= expected[0] and (row.frames, row.anchor) == expected[1:]
    text = capsys.readouterr().out
    assert "1 clips, training: " in text and "1 stills, held out: " in text
    before = out.read_text()
    assert seen.main(arguments) == 0 and out.read_text() == before, "nothing is measured twice"


def test_names_are_spread_evenly():
    assert seen.spread(["d", "b", "a", "c"], 2) == ["a", "c"]
    assert seen.spread(["b", "a"], 5) == ["a", "b"] and seen.spread([], 3) == []
