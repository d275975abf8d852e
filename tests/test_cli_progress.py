"""Progress: true percentages on resume, honest estimates, few lines, machine-readable JSON."""

from __future__ import annotations

import io
import json

import pytest

from vovcodec.cli.arguments import ProgressStyle, Running
from vovcodec.cli.progress import (
    BarProgress,
    JsonProgress,
    PlainProgress,
    QuietProgress,
    Stage,
    format_figures,
    open_progress,
)
from vovcodec.progress import stage_in_shares


class Clock:
    """A clock that the test sets."""

    def __init__(self) -> None:
        self.now_s = 100.0

    def __call__(self) -> float:
        return self.now_s


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_a_resumed_stage_starts_at_the_true_percentage():
    stream, clock = io.StringIO(), Clock()
    progress = PlainProgress(stream, interval_s=5.0, clock=clock)
    progress.stage("fitting", 200, done=50)
    assert stream.getvalue() == "fitting: resumed at 25 %\n"
    clock.now_s += 10.0
    progress.advance(50, size_bytes=1490, psnr_db=24.13)
    # 50 units in 10 s; the 50 done by the earlier run must not count as speed.
    assert stream.getvalue().splitlines()[1] == "fitting: 50 %, 0:10 elapsed, 0:20 left, 1490 bytes, 24.1 dB"


def test_plain_lines_are_rate_limited_and_the_end_is_always_told():
    stream, clock = io.StringIO(), Clock()
    progress = PlainProgress(stream, interval_s=5.0, clock=clock)
    progress.stage("sampling", 100)
    for _ in range(100):
        clock.now_s += 0.1
        progress.advance()
    lines = stream.getvalue().splitlines()
    assert len(lines) == 2
    assert lines[-1] == "sampling: 100 %, 0:10 elapsed"


def test_there_is_no_estimate_before_the_first_unit():
    stage = Stage("fitting", 10, 5, now_s=0.0)
    assert stage.left_s(3.0) is None
    assert Stage("empty", 0, 0, now_s=0.0).percent == 100.0


def test_a_stage_in_shares_is_complete_at_the_end_only_and_never_goes_back():
    stream = io.StringIO()
    progress = JsonProgress(stream, interval_s=0.0)
    reached = stage_in_shares(progress, "steering")
    for share in (0.25, 0.2, 0.9999, 0.5, 1.0):
        reached(share)
    percents = [json.loads(line)["percent"] for line in stream.getvalue().splitlines()]
    assert percents == [0.0, 25.0, 25.0, 99.9, 99.9, 100.0]


def test_json_lines_carry_everything():
    stream, clock = io.StringIO(), Clock()
    progress = JsonProgress(stream, interval_s=0.0, clock=clock)
    progress.stage("fitting", 4, done=1)
    clock.now_s += 2.0
    progress.advance(1, psnr_db=20.0)
    progress.note("a note")
    progress.warn("a warning")
    stage, advance, note, warn = map(json.loads, stream.getvalue().splitlines())
    assert stage == {"event": "stage", "stage": "fitting", "n_units": 4, "done": 1, "percent": 25.0}
    assert advance["event"] == "advance" and advance["done"] == 2 and advance["percent"] == 50.0
    assert advance["eta_s"] == 4.0 and advance["psnr_db"] == 20.0
    assert (note["event"], warn["message"]) == ("note", "a warning")


def test_quiet_shows_warnings_only():
    stream = io.StringIO()
    progress = QuietProgress(stream, interval_s=0.0)
    progress.stage("fitting", 2, done=1)
    progress.advance()
    progress.note("a note")
    progress.warn("careful")
    assert stream.getvalue() == "warning: careful\n"


def test_a_bar_shows_stage_percentage_and_figures():
    stream = Terminal()
    with BarProgress(stream) as progress:
        progress.stage("fitting", 4, done=1)
        progress.advance(1, size_bytes=1490)
        progress.note("[red]not markup[/red]")
    text = stream.getvalue()
    for expected in ("fitting", "50%", "1490 bytes", "[red]not markup[/red]"):
        assert expected in text


@pytest.mark.parametrize(
    ("style", "quiet", "terminal", "expected"),
    [
        ("auto", False, True, BarProgress),
        ("auto", False, False, PlainProgress),
        ("plain", False, True, PlainProgress),
        ("bar", False, False, BarProgress),
        ("json", True, True, JsonProgress),
        ("auto", True, True, QuietProgress),
    ],
)
def test_the_style_follows_flags_and_terminal(style, quiet, terminal, expected):
    stream = Terminal() if terminal else io.StringIO()
    running = Running("auto", None, False, False, ProgressStyle(style), quiet, verbose=False, as_json=False)
    assert type(open_progress(running, stream)) is expected


def test_unknown_figures_keep_their_name():
    assert format_figures({"lambda_": 0.00412345, "ssim": 0.5}) == "lambda_ 0.004123, SSIM 0.500"


@pytest.mark.parametrize("style", [*ProgressStyle])
def test_one_of_several_inputs_is_named_in_every_line(style):
    stream = io.StringIO()
    running = Running("cpu", None, False, False, style, quiet=False, verbose=False, as_json=False)
    with open_progress(running, stream, source="clips/a.mp4") as progress:
        progress.note("the frame rate is variable")
        progress.warn("clips/a.mp4 is dark")
        progress.stage("steering", 2, done=1)
        progress.advance()
    lines = stream.getvalue().splitlines()
    if style is ProgressStyle.json:
        assert {json.loads(line)["file"] for line in lines} == {"clips/a.mp4"}
        assert json.loads(lines[0])["message"] == "the frame rate is variable"
        return
    assert lines[:2] == ["clips/a.mp4: the frame rate is variable", "warning: clips/a.mp4 is dark"]
    if style is not ProgressStyle.bar:
        assert lines[2] == "clips/a.mp4: steering: resumed at 50 %"
