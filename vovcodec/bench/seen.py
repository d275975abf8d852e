"""Whether the embedded model codes what it has never seen as well as what it was trained on.

    python -m vovcodec.bench.seen --data FOLDER --out FILE.tsv [--items 12] [--bytes 3000] [--still-bytes 1000]

FOLDER is the one that the model was trained on; which of its files were held out follows from their names
(pretraining/corpus.py). Clips and pictures of both kinds, at most --items of each, are coded in equal bytes. How hard
scenes are differs; that much is taken out by a codec that was trained on nothing: the lead is our PSNR less that of
x265 `slow` (clips) or AVIF (pictures) at our bytes, read off its curve.
"""

from __future__ import annotations

import argparse
import statistics
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from vovcodec.anchors import CLIP_ANCHORS, RateSearch, find_anchor
from vovcodec.bench.command import run
from vovcodec.bench.points import Item, anchor_points, our_point, read_item
from vovcodec.bench.table import Table
from vovcodec.evaluation.curves import Curve
from vovcodec.pretraining.corpus import load_corpus
from vovcodec.progress import SilentListener

__all__ = ["SeenRow", "main", "spread"]

_STILL_ANCHOR = "avif"


@dataclass(frozen=True)
class SeenRow:
    """One item; split: training or held out. anchor_psnr_db: at our bytes; empty where that codec has no file so
    small."""

    effort: str
    item: str
    kind: str
    split: str
    size: str
    frames: int
    size_bytes: int
    psnr_db: float
    ssim: float
    anchor: str
    anchor_psnr_db: float | None


def spread(names: Sequence[str], n: int) -> list[str]:
    """`n` of the names (all when there are fewer), evenly over their sorted order."""
    ordered = sorted(names)
    n = min(n, len(ordered))
    return [ordered[i * len(ordered) // n] for i in range(n)]


def _measure(item: Item, name: str, split: str, options: argparse.Namespace) -> SeenRow:
    target = options.still_bytes if item.is_still else options.bytes
    ours = our_point(item, options.preset, options.effort, target, SilentListener(), options.threads)
    anchor = find_anchor(_STILL_ANCHOR if item.is_still else CLIP_ANCHORS[0])
    points = anchor_points(item, RateSearch(anchor, item.frames), [ours.size_bytes])
    at_ours = Curve((point.size_bytes, point.psnr_db) for point in points).at(ours.size_bytes)
    return SeenRow(
        options.effort,
        name,
        ours.kind,
        split,
        ours.size,
        ours.frames,
        ours.size_bytes,
        ours.psnr_db,
        ours.ssim,
        anchor.title,
        None if at_ours is None else round(at_ours, 3),
    )


def _files(options: argparse.Namespace) -> list[tuple[str, str]]:
    """Names below the folder and the split of each: clips, then pictures that are files of their own."""
    corpus = load_corpus(options.data)
    groups = (
        ("training", corpus.clips),
        ("held out", corpus.held_out_clips),
        ("training", corpus.images),
        ("held out", corpus.held_out_images),
    )
    files = ((split, [i.name for i in items if (options.data / i.name).is_file()]) for split, items in groups)
    return [(name, split) for split, names in files for name in spread(names, options.items)]


def _work(options: argparse.Namespace) -> int:
    table = Table(options.out, SeenRow)
    for name, split in _files(options):
        if table.having(effort=options.effort, item=name):
            continue
        item = read_item(options.data / name, options.preset, options.frames, None)
        row = _measure(item, name, split, options)
        table.add(row)
        lead = "" if row.anchor_psnr_db is None else f", {row.psnr_db - row.anchor_psnr_db:+.2f} against {row.anchor}"
        print(f"{name} ({split}): {row.size_bytes} B, {row.psnr_db:.2f} dB{lead}", flush=True)
    print(_summary(table.rows))
    return 0


def _summary(rows: Sequence[SeenRow]) -> str:
    lines = []
    for kind in dict.fromkeys(row.kind for row in rows):
        for split in ("training", "held out"):
            leads = [
                row.psnr_db - row.anchor_psnr_db
                for row in rows
                if (row.kind, row.split) == (kind, split) and row.anchor_psnr_db is not None
            ]
            if leads:
                error = f" ± {statistics.stdev(leads) / len(leads) ** 0.5:.2f}" if len(leads) > 1 else ""
                lines.append(f"{len(leads)} {kind}s, {split}: {statistics.fmean(leads):+.2f}{error} dB")
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> int:
    """The command; returns its exit code."""
    parser = argparse.ArgumentParser(prog="python -m vovcodec.bench.seen", description="Seen and unseen items.")
    parser.add_argument("--data", type=Path, required=True, help="folder that the model was trained on")
    parser.add_argument("--out", type=Path, required=True, help="the table, TSV; rows it has are not measured again")
    parser.add_argument("--items", type=int, default=12, help="at most so many clips and pictures of either kind")
    parser.add_argument("--bytes", type=int, default=3000, help="of a clip's file")
    parser.add_argument("--still-bytes", type=int, default=1000, help="of a picture's file")
    parser.add_argument("--frames", type=int, default=33, help="of each clip")
    parser.add_argument("--effort", default="instant")
    parser.add_argument("--preset", default="pocket")
    parser.add_argument("--threads", type=int, help="CPU threads")
    return run("seen", _work, parser.parse_args(arguments))


if __name__ == "__main__":
    sys.exit(main())
