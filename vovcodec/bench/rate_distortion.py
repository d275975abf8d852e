"""Our codec at byte targets against classic codecs at the same bytes, on a folder of clips and pictures, in one run.

    python -m vovcodec.bench.rate_distortion --media FOLDER --out FILE.tsv [--effort instant,fast] [--clips dog,kodim23]
        [--bytes 400,800,1500,3000] [--still-bytes 200,500,1000] [--frames 33] [--short-side N] [--published]
        [--anchors-only]

Clips: the first frames at the size the preset chooses, x265 `slow` and SVT-AV1 `preset 4`. Stills: WebP and AVIF. Every
codec gets the same frames; compared are our whole file with the anchor's payload. With --published also the published
ways to steer (see steering_schemes.py) in their own settings, each with ours at its bytes and evaluations, one
evaluation a step, bytes of the choices alone. The table is written after each item, the summary is printed at the end.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from vovcodec.anchors import CLIP_ANCHORS, STILL_ANCHORS, RateSearch, find_anchor
from vovcodec.bench.command import backbone_of
from vovcodec.bench.points import (
    Item,
    Point,
    anchor_points,
    byte_counts,
    find_items,
    names,
    our_point,
    read_item,
)
from vovcodec.bench.steering_schemes import published_points
from vovcodec.bench.summary import summarize
from vovcodec.bench.table import write_rows
from vovcodec.errors import UsageError, VovError
from vovcodec.presets import load_preset, resolve
from vovcodec.progress import SilentListener

__all__ = ["main", "measure_item"]


def measure_item(
    item: Item,
    targets: Sequence[int],
    efforts: Sequence[str],
    *,
    preset: str = "pocket",
    anchors: Sequence[str],
    threads: int | None = None,
) -> list[Point]:
    """All points of one item: ours at every effort and target, anchors at the bytes ours took (without efforts: at the
    targets) and at their floors. A target that ours cannot reach is reported on standard error and left out."""
    points: list[Point] = []
    for effort in efforts:
        for target in targets:
            try:
                point = our_point(item, preset, effort, target, SilentListener(), threads)
            except UsageError as error:
                print(f"{item.name}: {effort} at {target} bytes: {error}", file=sys.stderr)
                continue
            points.append(point)
            _tell(point)
    budgets = [point.size_bytes for point in points] or list(targets)
    for name in anchors:
        for point in anchor_points(item, RateSearch(find_anchor(name), item.frames), budgets):
            points.append(point)
            _tell(point)
    return points


def main(arguments: Sequence[str] | None = None) -> int:
    """The command; returns its exit code: 0, or that of the last item that failed."""
    options = _parsed(arguments)
    # As the command does: libraries neither fetch anything nor draw progress bars of their own.
    for name in ("HF_HUB_OFFLINE", "HF_HUB_DISABLE_PROGRESS_BARS"):
        os.environ.setdefault(name, "1")
    try:
        for name in (*CLIP_ANCHORS, *STILL_ANCHORS):
            find_anchor(name)
        paths = find_items(options.media, options.clips)
        if not paths:
            raise UsageError(f"{options.media}: no clips or pictures of these names in it")
        published = None
        if options.published:
            preset = resolve(load_preset(options.preset), {}, None)
            published = backbone_of(preset, "auto"), preset
    except VovError as error:
        print(f"rate_distortion: {error}", file=sys.stderr)
        return error.exit_code
    points: list[Point] = []
    code = 0
    for path in paths:
        try:
            item = read_item(path, options.preset, options.frames, options.short_side)
            points += measure_item(
                item,
                options.still_bytes if item.is_still else options.bytes,
                [] if options.anchors_only else options.effort,
                preset=options.preset,
                anchors=STILL_ANCHORS if item.is_still else CLIP_ANCHORS,
                threads=options.threads,
            )
            if published is not None:
                for point in published_points(item, *published):
                    points.append(point)
                    _tell(point)
        except VovError as error:
            print(f"rate_distortion: {path.name}: {error}", file=sys.stderr)
            code = error.exit_code
            continue
        write_rows(options.out, Point, points)
    print(summarize(points))
    return code


def _parsed(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m vovcodec.bench.rate_distortion", description="Rate and distortion against classic codecs."
    )
    parser.add_argument("--media", type=Path, required=True, help="folder with clips and pictures, searched through")
    parser.add_argument("--out", type=Path, required=True, help="the table, TSV")
    parser.add_argument("--clips", type=names, default=[], help="only files whose names contain one of these")
    parser.add_argument("--bytes", type=byte_counts, default=[400, 800, 1500, 3000], help="targets for clips")
    parser.add_argument("--still-bytes", type=byte_counts, default=[200, 500, 1000], help="targets for pictures")
    parser.add_argument("--effort", type=names, default=["instant"], help="one or several")
    parser.add_argument("--preset", default="pocket")
    parser.add_argument("--frames", type=int, default=33, help="of each clip")
    parser.add_argument("--short-side", type=int, help="pixels, instead of the preset's")
    parser.add_argument("--threads", type=int, help="CPU threads")
    parser.add_argument("--published", action="store_true", help="also the published ways to steer")
    parser.add_argument("--anchors-only", action="store_true", help="classic codecs at the targets, no model")
    return parser.parse_args(arguments)


def _tell(point: Point) -> None:
    """One line of progress."""
    setting = f" {point.setting}" if point.setting else ""
    quality = f"{point.psnr_db:.2f} dB, SSIM {point.ssim:.3f}, MS-SSIM {point.ms_ssim:.3f}"
    print(f"{point.item}: {point.codec}{setting}: {point.size_bytes} B, {quality}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
