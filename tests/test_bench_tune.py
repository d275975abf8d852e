"""The tuner: text edits that keep comments, the search, and the command on a tiny model."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
import yaml
from PIL import Image
from tiny_models import save_tiny_pocket

from vovcodec.bench import tune
from vovcodec.bench.preset_text import setting_path, with_note, with_values
from vovcodec.bench.search import Coordinate, descend
from vovcodec.bench.table import Table, read_rows, write_rows
from vovcodec.errors import MediaError, UsageError
from vovcodec.media import open_writer
from vovcodec.presets import list_presets, load_preset, preset_path

TEXT = """# A preset.
description: some text
backbone: {id: pocket}
steering:
  method: atoms
  snr_start: 0.002            # of the first injection
  snr_ratio: 1.75

rate:
  split: [0.04, 0.96]         # shares
efforts:
  fast: {}
  slow:
    steering: {snr_ratio: 1.5}   # smaller steps
    # the end
"""


def test_values_are_replaced_and_comments_stay():
    values = {"steering.snr_start": 0.003, "rate.split": [0.1, 0.9], "efforts.slow.steering.snr_ratio": 1.2}
    new = with_values(TEXT, values)
    expected = TEXT.replace("0.002", "0.003").replace("[0.04, 0.96]", "[0.1, 0.9]").replace("1.5}", "1.2}")
    assert new == expected


@pytest.mark.parametrize(
    ("path", "line"),
    [
        ("steering.reach", "  snr_ratio: 1.75\n  reach: 7\n"),
        ("efforts.slow.steering.reach", "{snr_ratio: 1.5, reach: 7}   # smaller"),
        ("efforts.fast.steering.reach", "  fast: {steering: {reach: 7}}\n"),
        ("efforts.slow.rate.bytes", "# smaller steps\n    rate: {bytes: 7}\n"),
        ("geometry.multiple", "# smaller steps\ngeometry: {multiple: 7}\n"),
    ],
)
def test_missing_values_are_added_where_they_belong(path, line):
    new = with_values(TEXT, {path: 7})
    assert line in new
    data = yaml.safe_load(new)
    for key in path.split("."):
        data = data[key]
    assert data == 7
    assert len(new.splitlines()) <= len(TEXT.splitlines()) + 1


def test_a_path_through_a_value_is_refused():
    with pytest.raises(UsageError, match="description is no group"):
        with_values(TEXT, {"description.length": 7})


@pytest.mark.parametrize("name", list_presets())
def test_every_shipped_preset_can_be_rewritten(name, tmp_path):
    text = preset_path(name).read_text(encoding="utf-8")
    preset = load_preset(name)
    for effort in preset.efforts:
        path = setting_path(preset, effort, "steering.snr_start")
        text = with_note(with_values(text, {path: 0.0125}), "steering", "once")
    (tmp_path / "new.yaml").write_text(text, encoding="utf-8")
    new = load_preset(tmp_path / "new.yaml")
    assert new.steering.snr_start == 0.0125 and list(new.efforts) == list(preset.efforts)
    assert text.count("# Tuned: once") == 1


def test_a_note_replaces_the_one_before():
    once = with_note(TEXT, "steering", "once " * 40)
    assert once.count("once") == 40 and "#   once" in once and yaml.safe_load(once) == yaml.safe_load(TEXT)
    twice = TEXT.replace("steering:\n  method", "# Tuned: second\nsteering:\n  method")
    assert with_note(once, "steering", "second") == twice
    with pytest.raises(UsageError, match="no group fitting"):
        with_note(TEXT, "fitting", "second")


def test_the_effort_s_own_value_is_the_one_in_force(tmp_path):
    (tmp_path / "a.yaml").write_text(TEXT)
    preset = load_preset(tmp_path / "a.yaml")
    assert setting_path(preset, "slow", "steering.snr_ratio") == "efforts.slow.steering.snr_ratio"
    assert setting_path(preset, "slow", "steering.snr_start") == "steering.snr_start"
    assert setting_path(preset, "fast", "steering.snr_ratio") == "steering.snr_ratio"


COORDINATES = (
    Coordinate("x", step=1.0, low=0.0, high=10.0),
    Coordinate("y", step=2.0, low=0.1, high=100.0, is_factor=True),
    Coordinate("kind", choices=("plain", "good", "bad")),
)


def test_the_search_finds_the_top_of_a_hill_and_remembers_nothing():
    asked = []

    def score(settings):
        asked.append(settings)
        if settings["x"] > 9:
            return None
        kind = {"plain": 0.0, "good": 1.0, "bad": -1.0}[settings["kind"]]
        return kind - (settings["x"] - 3.5) ** 2 - np.log2(settings["y"] / 8) ** 2

    steps = list(descend({"x": 9.0, "y": 1.0, "kind": "plain"}, COORDINATES, score, margin=0.01))
    assert steps[0][0] == {"x": 9.0, "y": 1.0, "kind": "plain"}
    assert dict(steps[-1][0]) == {"x": 3.5, "y": 8.0, "kind": "good"} and steps[-1][1] == pytest.approx(1.0)
    scores = [each for _, each in steps]
    assert scores == sorted(scores) and len(asked) < 60
    with pytest.raises(ValueError, match="not allowed"):
        list(descend({"x": 10.0, "y": 1.0, "kind": "plain"}, COORDINATES, score, margin=0.01))


def test_steps_stay_within_bounds():
    x, y, kind = COORDINATES
    assert (x.moved(9.5, 1, 1.0), x.moved(10.0, 1, 1.0), x.moved(2.0, -1, 0.5)) == (10.0, None, 1.5)
    assert (y.moved(80.0, 1, 1.0), y.moved(4.0, -1, 0.5)) == (100.0, 2.83)
    assert (kind.moved("bad", 1, 1.0), kind.moved("good", -1, 1.0)) == (None, "plain")
    length = Coordinate("n", step=2.0, low=32, high=4096, is_factor=True, digits=6)
    assert length.moved(128, 1, 1.0) == 256 and length.moved(32, -1, 1.0) is None


def test_a_table_comes_back_as_it_was_and_refuses_another(tmp_path):
    path = tmp_path / "rows.tsv"
    row = tune.TrialRow("m", "p", "instant", "x=1", "clip", "8x8", 5, 400, 398, 9, 20.5, 0.5, 0.25)
    write_rows(path, tune.TrialRow, [row])
    assert read_rows(path, tune.TrialRow) == [row]
    assert Table(path, tune.TrialRow, model="m").having(item="clip") == [row]
    with pytest.raises(UsageError, match="model m, now it is n: choose another --out"):
        Table(path, tune.TrialRow, model="n")
    path.write_text("a\tb\n1\t2\n")
    with pytest.raises(MediaError, match="no table of model"):
        Table(path, tune.TrialRow)


@pytest.fixture
def media(tmp_path, monkeypatch):
    monkeypatch.setenv("VOVCODEC_MODELS", str(tmp_path))
    save_tiny_pocket(tmp_path / "pocket")
    folder = tmp_path / "media"
    folder.mkdir()
    y, x = np.mgrid[:32, :48]
    frames = [np.stack([127 + 90 * np.sin(x / 5 + t / 3 + c) * np.cos(y / 6) for c in range(3)], -1) for t in range(5)]
    with open_writer(folder / "waves.y4m", width=48, height=32, frame_rate=Fraction(25)) as writer:
        for frame in frames:
            writer.write(frame.astype("u1"))
    Image.fromarray(frames[0].astype("u1")).save(folder / "wave.png")
    return folder


def test_the_command_stops_continues_and_writes_what_it_found(tmp_path, media, capsys):
    preset = tmp_path / "mine.yaml"
    preset.write_text(
        "backbone: {id: pocket}\ngeometry: {short_side: 32}\nsteering:\n  method: atoms\n"
        "  snr_start: 0.05   # far too late\n  snr_ratio: 3.0\nefforts: {instant: {adaptation: {vector_length: 0}}}\n"
    )
    before, out = preset.read_text(), tmp_path / "trials.tsv"
    common = ["--media", str(media), "--out", str(out), "--preset", str(preset), "--frames", "5", "--threads", "1"]
    common += ["--bytes", "200,400", "--still-bytes", "200", "--settings", "snr_start,codebook", "--device", "cpu"]
    assert tune.main([*common, "--evaluations-budget", "1"]) == 2, "not even the start is measured"
    assert len(read_rows(out, tune.TrialRow)) == 1
    assert tune.main([*common, "--evaluations-budget", "40"]) == 0
    kept = read_rows(out, tune.TrialRow)
    assert "stopped by the budget" in capsys.readouterr().out and preset.read_text() == before
    assert tune.main([*common, "--write", "--most-evaluations", "99"]) == 0
    rows = read_rows(out, tune.TrialRow)
    assert rows[: len(kept)] == kept and len(rows) > len(kept) and all(r.size_bytes <= r.target_bytes for r in rows)
    text, new = preset.read_text(), load_preset(preset)
    assert "# far too late" in text and "# Tuned: python -m vovcodec.bench.tune" in text
    means = {}
    for row in rows:
        means.setdefault(row.settings, []).append(row.psnr_db)
    best = max((words for words in means if len(means[words]) == 3), key=lambda words: sum(means[words]))
    assert best == f"snr_start={new.steering.snr_start} codebook={new.steering.codebook}"
    assert tune.main([*common, "--settings", "snr_star"]) == 2
    assert "snr_star is not searched" in capsys.readouterr().err
