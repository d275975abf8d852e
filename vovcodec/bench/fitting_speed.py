"""How long fitting, steering and decoding take and what they need: the published loop against ours, in one run.

    python -m vovcodec.bench.fitting_speed [--architecture pocket|wan2.1-1.3b|wan2.1-14b|tiny …] [--shape 81x480x832]
        [--device auto] [--precision bfloat16] [--checkpointing auto] [--compile] [--steps 5] [--out FILE.tsv]

All sides run diffusers' Wan classes (pocket too, whose own class computes the same) at the full size of the
architecture with random weights, made on the device, one after the other, each in a process of its own. What cannot be
measured, for want of memory above all, becomes a row that says why, and the rest goes on; the exit code is then 5.

Rows of a side: `fit`, an optimiser step; `decode`, one step of a decoder; `frozen pass`, the same model without a
vector, one forward pass and its backward pass to the input. Ours also: `steering` and `decoding`, a whole segment with
the settings and bytes of the shipped preset. `to latents` and `to frames`: the autoencoder on the whole segment. The
text encoder is not measured. Medians over the steps; wall_s is the clock, cpu_s the time of this process on the
processor, which other programs disturb less. peak_mb: allocated on a CUDA device; on the processor the largest resident
size of the process.
"""

from __future__ import annotations

import argparse
import datetime
import math
import os
import platform
import statistics
import sys
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, replace
from multiprocessing import get_context
from pathlib import Path

import diffusers
import torch

from vovcodec.backbone.checkpointing import CHECKPOINTING
from vovcodec.backbone.registry import pick_device
from vovcodec.bench.architectures import ARCHITECTURES
from vovcodec.bench.speed_sides import Row, Settings, failed_row, measure
from vovcodec.errors import ModelError, VovError

__all__ = ["main", "measured", "summary_lines"]

_SHAPES = {"tiny": (5, 32, 32), "pocket": (33, 128, 224)}
_TARGET = 0.6  # of the reference loop's time


def measured(side: str, settings: Settings) -> list[Row]:
    """`measure` in a process of its own: nothing that the other side allocated or compiled is left, and what ends that
    process does not end the run."""
    try:
        with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as process:
            return process.submit(measure, side, settings).result()
    except Exception as error:  # whatever it was: the other sides are worth measuring all the same
        return [failed_row(side, "all", settings, str(error) or type(error).__name__)]


def summary_lines(rows: Sequence[Row], device: str) -> list[str]:
    """For people: how the sides compare, by the clock on a CUDA device and by processor time elsewhere."""
    is_cuda = device.startswith("cuda")
    kind = "s" if is_cuda else "processor seconds"
    known = [row for row in rows if not math.isnan(row.wall_s)]

    def seconds(side: str, what: str) -> float | None:
        found = [row.wall_s if is_cuda else row.cpu_s for row in known if (row.side, row.what) == (side, what)]
        return statistics.fmean(found) if found else None

    lines = []
    for what in ("fit", "decode"):
        for side in ("reference", "ours"):
            for row in known:
                if (row.side, row.what) == (side, what):
                    lines.append(f"{what}, {side}: {seconds(side, what):.4g} {kind} per step, {row.peak_mb:.0f} MB")
        theirs, ours = seconds("reference", what), seconds("ours", what)
        if theirs and ours:
            target = f" (target {_TARGET})" if what == "fit" else ""
            lines.append(f"{what}: ours takes {ours / theirs:.2f} of the reference loop's time{target}")
    fit, frozen = seconds("ours", "fit"), seconds("ours", "frozen pass")
    if fit and frozen:
        lines.append(f"a fit step takes {100 * (fit / frozen - 1):.1f} % more than the frozen model's own passes")
    for row in known:
        if row.what not in ("fit", "decode", "frozen pass"):
            how = f" ({row.note})" if row.note else ""
            lines.append(f"{row.what}: {row.wall_s if is_cuda else row.cpu_s:.4g} {kind}{how}, {row.peak_mb:.0f} MB")
    return lines + [f"{row.side}, {row.what}: not measured: {row.note}" for row in rows if math.isnan(row.wall_s)]


def _table_rows(settings: Settings, rows: Sequence[Row]) -> list[dict[str, object]]:
    if settings.device.startswith("cuda"):
        device = torch.cuda.get_device_name(settings.device)
    else:
        device = f"{platform.processor() or platform.machine()}, {settings.threads or os.cpu_count()} threads"
    shared = {
        "date": datetime.date.today().isoformat(),
        "device": device,
        "torch": torch.__version__,
        "diffusers": diffusers.__version__,
        "architecture": settings.architecture,
        "shape": "x".join(map(str, settings.shape)),
        "precision": settings.precision,
        "compiled": settings.compiled,
        "steps": settings.steps,
    }
    return [shared | asdict(row) for row in rows]


def _write_table(path: Path, lines: Sequence[dict[str, object]]) -> None:
    def cells(line: dict[str, object]) -> list[str]:
        return [f"{value:.5g}" if isinstance(value, float) else str(value) for value in line.values()]

    text = ["\t".join(row) for row in [list(lines[0]), *map(cells, lines)]]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(text) + "\n", encoding="utf-8")


def _jobs(options: argparse.Namespace, device: str) -> list[tuple[str, Settings]]:
    """(side, settings) of everything to be measured, in order."""
    jobs = []
    for architecture in options.architecture:
        settings = Settings(
            architecture=architecture,
            shape=options.shape or _SHAPES.get(architecture, (81, 480, 832)),
            device=device,
            precision=options.precision or ("bfloat16" if device.startswith("cuda") else "float32"),
            checkpointing=options.checkpointing,
            compiled=False,
            steps=options.steps,
            threads=options.threads,
        )
        jobs += [("reference", settings), ("ours", settings)]
        if options.compiled:
            jobs.append(("ours", replace(settings, compiled=True)))
        if architecture != "pocket":  # which has another autoencoder
            jobs.append(("autoencoder", settings))
    return jobs


def main(arguments: Sequence[str] | None = None) -> int:
    """The command; returns its exit code."""
    options = _parsed(arguments)
    try:
        device = pick_device(options.device)
    except VovError as error:
        print(f"fitting_speed: {error}", file=sys.stderr)
        return error.exit_code
    lines: list[dict[str, object]] = []
    found: dict[str, list[Row]] = {}
    for side, settings in _jobs(options, device):
        print(f"measuring {side}, {settings.architecture}{', compiled' * settings.compiled}", file=sys.stderr)
        rows = measured(side, settings)
        lines += _table_rows(settings, rows)
        _write_table(options.out, lines)  # after every side: a run that is stopped leaves what it has
        title = f"{settings.architecture}{', ours compiled' * settings.compiled}"
        found.setdefault(title, []).extend(rows)
    for title, rows in found.items():
        if title.endswith("compiled"):
            rows = [*(row for row in found[title.partition(",")[0]] if row.side == "reference"), *rows]
        print("\n".join([f"{title}:", *(f"  {line}" for line in summary_lines(rows, device))]))
    return ModelError.exit_code if any(math.isnan(row.wall_s) for rows in found.values() for row in rows) else 0


def _shape(text: str) -> tuple[int, int, int]:
    try:
        n_frames, height, width = (int(part) for part in text.split("x"))
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{text!r} is not FxHxW such as 81x480x832") from error
    if n_frames < 1 or (n_frames - 1) % 4 or min(height, width) < 16 or height % 16 or width % 16:
        raise argparse.ArgumentTypeError(f"{text}: frames are 4n+1, height and width multiples of 16")
    return n_frames, height, width


def _parsed(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m vovcodec.bench.fitting_speed", description="The published fitting loop against ours."
    )
    parser.add_argument("--architecture", choices=list(ARCHITECTURES), nargs="+", default=["pocket"])
    parser.add_argument("--shape", type=_shape, help="FxHxW in pixels; default 81x480x832, smaller for small models")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--precision", choices=["bfloat16", "float32"], help="default bfloat16 on CUDA, else float32")
    parser.add_argument("--checkpointing", choices=["auto", *CHECKPOINTING], default="auto", help="of our side")
    parser.add_argument(
        "--compile", dest="compiled", action="store_true", help="ours once more, with blocks by torch.compile"
    )
    parser.add_argument("--steps", type=int, default=5, help="measured, after two to warm up")
    parser.add_argument("--threads", type=int, help="CPU threads")
    parser.add_argument("--out", type=Path, default=Path("runs/fitting_speed.tsv"))
    return parser.parse_args(arguments)


if __name__ == "__main__":
    sys.exit(main())
