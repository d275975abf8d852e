"""Draws a rate–distortion table (of `vovcodec.bench.rate_distortion`): one column per file, PSNR above SSIM.

    python -m vovcodec.bench.plot --table FILE.tsv --out FILE.png [--items dog,kodim23] [--kind clip] [--columns 4]

Whole files of ours, payload bytes of the other codecs; a ring marks where another codec overtakes ours as bytes grow.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from vovcodec.bench.points import Point, names
from vovcodec.bench.table import read_rows
from vovcodec.errors import UsageError, VovError
from vovcodec.evaluation.plot import draw_curves, new_figure, save_figure

__all__ = ["draw_table", "main"]

_METRICS = {"psnr_db": "PSNR [dB]", "ssim": "SSIM"}


def draw_table(points: Sequence[Point], path: Path, n_columns: int) -> None:
    """The PNG of all items of the table. Raises UsageError without matplotlib or points, MediaError."""
    # Published ways to steer are single points, some at ten times the bytes: they have no curve.
    points = [point for point in points if point.is_of_a_codec]
    items = list(dict.fromkeys(point.item for point in points))
    if not items:
        raise UsageError("nothing to plot: no such rows in the table")
    n_columns = min(n_columns, len(items))
    n_blocks = -(-len(items) // n_columns)
    codecs = list(dict.fromkeys(point.codec for point in points))
    ours = [codec for codec in codecs if codec.startswith("vov ")]
    figure, panels = new_figure(n_blocks * len(_METRICS), n_columns, (2.5, 1.9))
    for number, item in enumerate(items):
        block, column = divmod(number, n_columns)
        here = [point for point in points if point.item == item]
        for row, (field, title) in enumerate(_METRICS.items()):
            axes = panels[block * len(_METRICS) + row][column]
            curves = {
                codec: sorted((point.size_bytes, getattr(point, field)) for point in here if point.codec == codec)
                for codec in codecs
            }
            draw_curves(axes, curves, ours=ours)
            if not column:
                axes.set_ylabel(title, fontsize=8)
            if not row:
                n_frames = here[0].frames
                what = f"{n_frames} frames" if n_frames > 1 else "still"
                axes.set_title(f"{item}\n{what} of {here[0].size}", fontsize=8)
            else:
                axes.set_xlabel("bytes", fontsize=8)
    for number in range(len(items), n_blocks * n_columns):
        block, column = divmod(number, n_columns)
        for row in range(len(_METRICS)):
            panels[block * len(_METRICS) + row][column].axis("off")
    legends = (axes.get_legend_handles_labels() for row in panels for axes in row)
    handles = {name: handle for legend in legends for handle, name in zip(*legend, strict=True)}
    figure.legend(
        [handles[codec] for codec in codecs if codec in handles],
        [codec for codec in codecs if codec in handles],
        loc="outside upper center",
        ncols=len(handles),
        fontsize=9,
        frameon=False,
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    save_figure(figure, path)


def main(arguments: Sequence[str] | None = None) -> int:
    """The command; returns its exit code."""
    parser = argparse.ArgumentParser(prog="python -m vovcodec.bench.plot", description="Draw a rate–distortion table.")
    parser.add_argument("--table", type=Path, required=True, help="TSV of vovcodec.bench.rate_distortion")
    parser.add_argument("--out", type=Path, required=True, help="PNG")
    parser.add_argument("--items", type=names, default=[], help="only files whose names contain one of these")
    parser.add_argument("--kind", choices=("clip", "still"), help="clips or stills only")
    parser.add_argument("--columns", type=int, default=4)
    options = parser.parse_args(arguments)
    try:
        points = read_rows(options.table, Point)
        points = [point for point in points if options.kind in (None, point.kind)]
        if options.items:
            points = [point for point in points if any(name in point.item for name in options.items)]
        draw_table(points, options.out, max(1, options.columns))
    except VovError as error:
        print(f"plot: {error}", file=sys.stderr)
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
