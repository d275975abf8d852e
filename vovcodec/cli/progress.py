"""Progress on standard error: a bar on a terminal, plain lines elsewhere, JSON lines for programs.

All three implement `vovcodec.progress.ProgressListener`, are context managers, and start at the true percentage when
a job resumes.
"""

from __future__ import annotations

import contextlib
import json
import sys
import time
from collections.abc import Callable
from typing import Any, Self, TextIO

from vovcodec.cli.arguments import ProgressStyle, Running

__all__ = [
    "BarProgress",
    "JsonProgress",
    "PlainProgress",
    "QuietProgress",
    "Stage",
    "format_figures",
    "open_progress",
    "tell",
]


def open_progress(running: Running, stream: TextIO | None = None, *, source: str | None = None) -> PlainProgress:
    """The listener for these flags. `auto`: a bar when `stream` (default stderr) is a terminal, else plain lines.

    source: the input that is worked on, where it is one of several: every line names it.
    """
    stream = stream or sys.stderr
    if running.progress is ProgressStyle.json:
        progress = JsonProgress(stream)
    elif running.quiet:
        progress = QuietProgress(stream)
    elif running.progress is ProgressStyle.bar or (running.progress is ProgressStyle.auto and stream.isatty()):
        progress = BarProgress(stream)
    else:
        progress = PlainProgress(stream, interval_s=1.0 if running.verbose else 5.0)
    progress.source = source
    return progress


def tell(event: str, message: str, as_json: bool, source: str | None = None, speaker: str = "vov") -> None:
    """One line on standard error from outside a job: an `error` or a `note`. source: one of several inputs."""
    if as_json:
        line = _event_line(event, source, message=message)
    else:
        named = "" if source is None or source in message else f"{source}: "
        line = f"{speaker}: {named}{message}" if event == "error" else f"{named}{message}"
    with contextlib.suppress(OSError):
        print(line, file=sys.stderr, flush=True)


def _event_line(event: str, source: str | None, **content: Any) -> str:
    return json.dumps({"event": event} | ({} if source is None else {"file": source}) | content)


class Stage:
    """Where one stage stands. `done` counts units, including those finished before a resumed job started."""

    def __init__(self, name: str, n_units: int, done: int, now_s: float) -> None:
        self.name, self.n_units, self.done = name, n_units, done
        self._done_before, self._started_s = done, now_s

    @property
    def percent(self) -> float:
        """0..100; a stage without units is complete."""
        return min(100.0, 100.0 * self.done / self.n_units) if self.n_units > 0 else 100.0

    @property
    def is_complete(self) -> bool:
        return self.done >= self.n_units

    def elapsed_s(self, now_s: float) -> float:
        """Seconds since this run began the stage."""
        return now_s - self._started_s

    def left_s(self, now_s: float) -> float | None:
        """Estimated seconds left, from the units of this run only; None before the first."""
        done_now = self.done - self._done_before
        if done_now <= 0:
            return None
        return self.elapsed_s(now_s) / done_now * max(0, self.n_units - self.done)


def format_figures(figures: dict[str, float]) -> str:
    """`size_bytes=1490, psnr_db=24.13` → `1490 bytes, 24.1 dB`. Unknown names are shown with their value."""
    known = {"size_bytes": "{:.0f} bytes", "psnr_db": "{:.1f} dB", "ssim": "SSIM {:.3f}", "bpp": "{:.4f} bpp"}
    return ", ".join(known.get(name, name + " {:.4g}").format(value) for name, value in figures.items())


def _clock_text(seconds: float) -> str:
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{seconds:02}" if hours else f"{minutes}:{seconds:02}"


class PlainProgress:
    """One line when a stage resumes, at most one per `interval_s` while it runs, one when it ends.

    source: the input that lines are about, where there are several.
    """

    source: str | None = None

    def __init__(self, stream: TextIO, interval_s: float = 5.0, clock: Callable[[], float] = time.monotonic) -> None:
        self._stream, self._interval_s, self._clock = stream, interval_s, clock
        self._stage: Stage | None = None
        self._figures: dict[str, float] = {}
        self._last_line_s = 0.0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *failure: object) -> None:
        self.close()

    def close(self) -> None:
        """Called when the job ends, whether or not it succeeded."""

    def stage(self, name: str, n_units: int, done: int = 0) -> None:
        self._stage, self._figures = Stage(name, n_units, done, self._clock()), {}
        self._last_line_s = self._clock()
        self._began(self._stage)

    def advance(self, n_units: int = 1, **figures: float) -> None:
        stage = self._stage
        if stage is None:
            return
        was_complete = stage.is_complete
        stage.done += n_units
        self._figures.update(figures)
        now_s = self._clock()
        if (stage.is_complete and not was_complete) or now_s - self._last_line_s >= self._interval_s:
            self._last_line_s = now_s
            self._moved(stage, now_s)

    def note(self, message: str) -> None:
        self._say(message)

    def warn(self, message: str) -> None:
        self._say(f"warning: {message}")

    def _began(self, stage: Stage) -> None:
        if stage.done:
            self._say(f"{stage.name}: resumed at {stage.percent:.0f} %")

    def _moved(self, stage: Stage, now_s: float) -> None:
        parts = [f"{stage.name}: {stage.percent:.0f} %", f"{_clock_text(stage.elapsed_s(now_s))} elapsed"]
        left_s = stage.left_s(now_s)
        if left_s is not None and not stage.is_complete:
            parts.append(f"{_clock_text(left_s)} left")
        if self._figures:
            parts.append(format_figures(self._figures))
        self._say(", ".join(parts))

    def _say(self, line: str) -> None:
        self._print(line if self.source is None or self.source in line else f"{self.source}: {line}")

    def _print(self, line: str) -> None:
        # Nobody reads any more, or the log's disk is full: no reason to lose the work.
        with contextlib.suppress(OSError):
            print(line, file=self._stream, flush=True)


class QuietProgress(PlainProgress):
    """Warnings only."""

    def note(self, message: str) -> None:
        pass

    def _began(self, stage: Stage) -> None:
        pass

    def _moved(self, stage: Stage, now_s: float) -> None:
        pass


class JsonProgress(PlainProgress):
    """One JSON object per line: `event` is stage, advance, note or warn; `eta_s` is null before it is known."""

    def __init__(self, stream: TextIO, interval_s: float = 0.2, clock: Callable[[], float] = time.monotonic) -> None:
        super().__init__(stream, interval_s, clock)

    def note(self, message: str) -> None:
        self._event("note", message=message)

    def warn(self, message: str) -> None:
        self._event("warn", message=message)

    def _began(self, stage: Stage) -> None:
        self._event("stage", stage=stage.name, n_units=stage.n_units, done=stage.done, percent=round(stage.percent, 2))

    def _moved(self, stage: Stage, now_s: float) -> None:
        left_s = stage.left_s(now_s)
        self._event(
            "advance",
            stage=stage.name,
            n_units=stage.n_units,
            done=stage.done,
            percent=round(stage.percent, 2),
            elapsed_s=round(stage.elapsed_s(now_s), 3),
            eta_s=None if left_s is None else round(left_s, 3),
            **self._figures,
        )

    def _event(self, event: str, **content: Any) -> None:
        self._print(_event_line(event, self.source, **content))


class BarProgress(PlainProgress):
    """A bar with stage, percentage, time left and the current figures, redrawn in place by rich."""

    def __init__(self, stream: TextIO, clock: Callable[[], float] = time.monotonic) -> None:
        super().__init__(stream, interval_s=0.0, clock=clock)
        # rich costs 60 ms to import, which only a job that shows a bar should pay.
        from rich.console import Console
        from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn

        self._console = Console(file=stream)
        self._bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            TaskProgressColumn(),
            TextColumn("{task.fields[left]}"),
            TextColumn("{task.fields[figures]}"),
            console=self._console,
        )
        self._task: Any = None

    def __enter__(self) -> Self:
        self._bar.start()
        return self

    def close(self) -> None:
        self._bar.stop()

    def _began(self, stage: Stage) -> None:
        self._task = self._bar.add_task(
            stage.name, total=max(1, stage.n_units), completed=stage.done, left="", figures=""
        )

    def _moved(self, stage: Stage, now_s: float) -> None:
        left_s = stage.left_s(now_s)
        self._bar.update(
            self._task,
            completed=stage.done,
            left="" if left_s is None or stage.is_complete else f"{_clock_text(left_s)} left",
            figures=format_figures(self._figures),
        )

    def _print(self, line: str) -> None:
        self._console.print(line, markup=False, highlight=False)
