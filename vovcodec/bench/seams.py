"""What a viewer may see where one segment ends and the next begins: frames at the seam against frames inside.

    python -m vovcodec.bench.seams --media FOLDER --out FILE.tsv [--clips dog] [--bytes 4500] [--preset pocket]
        [--effort instant] [--frames 81] [--threads N]

psnr: mean over the two frames at each seam, and over all others. jump: by how much the change from one frame to the
next differs between the decoded clip and the original, root mean square, in grey values of 255.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from vovcodec.bench.command import media_parser, media_paths, run
from vovcodec.bench.points import Item, encode_item, read_item
from vovcodec.bench.table import Table
from vovcodec.container import read_vov
from vovcodec.evaluation.pictures import read_pictures
from vovcodec.metrics import psnr_per_frame
from vovcodec.progress import SilentListener

__all__ = ["SeamsRow", "main"]


@dataclass(frozen=True)
class SeamsRow:
    """One clip; model: fingerprint of the weights. The measures are those of the module's docstring."""

    model: str
    effort: str
    item: str
    size: str
    frames: int
    segments: int
    target_bytes: int
    size_bytes: int
    seam_psnr_db: float
    inside_psnr_db: float
    seam_jump: float
    inside_jump: float


def _measure(item: Item, preset: str, effort: str, target_bytes: int, threads: int | None) -> SeamsRow | None:
    """The row of a clip; None when it has one segment only."""
    with tempfile.TemporaryDirectory(prefix="vov-seams-") as folder:
        coded = Path(folder) / "coded.vov"
        report = encode_item(
            item, coded, SilentListener(), preset=preset, effort=effort, target_bytes=target_bytes, threads=threads
        )
        stream = read_vov(coded)
        firsts = [segment.first_frame for segment in stream.segments[1:]]
        decoded = read_pictures(coded, SilentListener(), threads=threads).frames
    if not firsts:
        return None
    quality = np.array(psnr_per_frame(item.frames, decoded))
    changes = np.diff(decoded.astype(np.float32), axis=0) - np.diff(item.frames.astype(np.float32), axis=0)
    jumps = np.sqrt(np.square(changes).mean(axis=(1, 2, 3)))  # jump i leads to frame i + 1
    is_seam_frame, is_seam_jump = np.zeros(len(quality), bool), np.zeros(len(jumps), bool)
    for first in firsts:
        is_seam_frame[first - 1 : first + 1] = True
        is_seam_jump[first - 1] = True
    return SeamsRow(
        stream.header.fingerprint.hex(),
        effort,
        item.name,
        "{}x{}".format(*item.size),
        len(decoded),
        1 + len(firsts),
        target_bytes,
        report.size_bytes,
        *(round(float(quality[where].mean()), 3) for where in (is_seam_frame, ~is_seam_frame)),
        *(round(float(jumps[where].mean()), 3) for where in (is_seam_jump, ~is_seam_jump)),
    )


def _work(options: argparse.Namespace) -> int:
    table = Table(options.out, SeamsRow)
    for path in media_paths(options):
        item = read_item(path, options.preset, options.frames, None)
        key = {"effort": options.effort, "frames": len(item.frames), "target_bytes": options.bytes}
        row = None
        if not item.is_still and not table.having(item=item.name, **key):
            row = _measure(item, options.preset, options.effort, options.bytes, options.threads)
        if row is not None:
            table.add(row)
            quality = f"PSNR {row.seam_psnr_db:.2f} dB at seams, {row.inside_psnr_db:.2f} inside"
            jumps = f"jump {row.seam_jump:.2f} at seams, {row.inside_jump:.2f} inside"
            print(f"{row.item}: {row.segments} segments, {quality}; {jumps}", flush=True)
    return 0


def main(arguments: Sequence[str] | None = None) -> int:
    """The command; returns its exit code."""
    parser = media_parser("seams", "Quality where segments meet.", frames=81)
    parser.add_argument("--bytes", type=int, default=4500, help="of the whole file")
    parser.add_argument("--effort", default="instant")
    return run("seams", _work, parser.parse_args(arguments))


if __name__ == "__main__":
    sys.exit(main())
