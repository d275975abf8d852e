"""How long an optimiser step and a decoder step take, and what they need: the published loop against ours, in one run.

    python -m vovcodec.bench.fitting_speed [--architecture pocket|wan2.1-1.3b|wan2.1-14b|tiny] [--shape 81x480x832]
        [--device auto] [--precision bfloat16] [--checkpointing auto] [--compile] [--steps 5] [--out FILE.tsv]

Both sides run diffusers' Wan transformer at the full size of the architecture with random weights, one after the
other, each in a process of its own. `frozen` is the same model without a vector: one forward pass and its backward pass
to the input. Medians over the steps; wall_s is the clock, cpu_s the time of this process on the processor, which other
programs disturb less. peak_mb: allocated on a CUDA device; on the processor the largest resident size of the process.
"""

from __future__ import annotations

import argparse
import datetime
import os
import platform
import sys
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, fields
from multiprocessing import get_context
from pathlib import Path

import diffusers
import torch

from vovcodec.backbone.checkpointing import CHECKPOINTING
from vovcodec.backbone.registry import pick_device
from vovcodec.bench.speed_sides import ARCHITECTURES, Row, Settings, measure
from vovcodec.errors import VovError

__all__ = ["main", "measured", "summary_lines"]

_SHAPES = {"tiny": (5, 32, 32), "pocket": (33, 128, 224)}


def measured(side: str, settings: Settings) -> list[Row]:
    """`measure` in a process of its own: nothing that the other side allocated or compiled is left."""
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as process:
        return process.submit(measure, side, settings).result()


def summary_lines(rows: Sequence[Row], device: str) -> list[str]:
    """For people: how the sides compare, by the clock on a CUDA device and by processor time elsewhere."""
    is_cuda = device.startswith("cuda")
    found = {(row.side, row.what): row for row in rows}
    seconds = {key: row.wall_s if is_cuda else row.cpu_s for key, row in found.items()}
    kind = "s" if is_cuda else "processor seconds"
    lines = []
    for what in ("fit", "decode"):
        theirs, ours = found["reference", what], found["ours", what]
        ratio = seconds["reference", what] / seconds["ours", what]
        lines.append(
            f"{what}: {seconds['ours', what]:.4g} {kind} per step with {ours.peak_mb:.0f} MB, reference loop "
            f"{seconds['reference', what]:.4g} with {theirs.peak_mb:.0f} MB: {ratio:.2f} times as fast"
        )
    overhead = 100 * (seconds["ours", "fit"] / seconds["frozen", "frozen pass"] - 1)
    lines.append(f"a fit step takes {overhead:.1f} % more than the frozen model's own forward and backward pass")
    return lines


def _write_table(path: Path, settings: Settings, rows: Sequence[Row]) -> None:
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
    lines = ["\t".join([*shared, *(each.name for each in fields(Row))])]
    for row in rows:
        values = [f"{value:.5g}" if isinstance(value, float) else str(value) for value in asdict(row).values()]
        lines.append("\t".join([*map(str, shared.values()), *values]))
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")


def main(arguments: Sequence[str] | None = None) -> int:
    """The command; returns its exit code."""
    options = _parsed(arguments)
    try:
        device = pick_device(options.device)
        settings = Settings(
            architecture=options.architecture,
            shape=options.shape or _SHAPES.get(options.architecture, (81, 480, 832)),
            device=device,
            precision=options.precision or ("bfloat16" if device.startswith("cuda") else "float32"),
            checkpointing=options.checkpointing,
            compiled=options.compiled,
            steps=options.steps,
            threads=options.threads,
        )
        rows: list[Row] = []
        for side in ("reference", "ours"):
            rows += measured(side, settings)
        _write_table(options.out, settings, rows)
    except VovError as error:
        print(f"fitting_speed: {error}", file=sys.stderr)
        return error.exit_code
    print("\n".join(summary_lines(rows, device)))
    return 0


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
    parser.add_argument("--architecture", choices=list(ARCHITECTURES), default="pocket")
    parser.add_argument("--shape", type=_shape, help="FxHxW in pixels; default 81x480x832, smaller for small models")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--precision", choices=["bfloat16", "float32"], help="default bfloat16 on CUDA, else float32")
    parser.add_argument("--checkpointing", choices=["auto", *CHECKPOINTING], default="auto", help="of our side")
    parser.add_argument("--compile", dest="compiled", action="store_true", help="our blocks by torch.compile")
    parser.add_argument("--steps", type=int, default=5, help="measured, after two to warm up")
    parser.add_argument("--threads", type=int, help="CPU threads")
    parser.add_argument("--out", type=Path, default=Path("runs/fitting_speed.tsv"))
    return parser.parse_args(arguments)


if __name__ == "__main__":
    sys.exit(main())
