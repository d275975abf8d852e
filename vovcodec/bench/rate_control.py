"""How near files come to random byte targets, and what an unreachable target is told.

    python -m vovcodec.bench.rate_control --media FOLDER --out FILE.tsv [--clips dog,kodim23] [--targets 20]
        [--effort instant,fast] [--seed 0] [--frames 33] [--threads N]

Targets are drawn log-uniformly from the range of the kind (clip or still), items in turn. A miss is the share of the
target that is left over; a file must be within 2 % from below.
"""

from __future__ import annotations

import argparse
import random
import re
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean

from vovcodec.bench.command import media_parser, media_paths, run
from vovcodec.bench.points import Item, byte_counts, encode_item, names, read_item
from vovcodec.bench.table import Table
from vovcodec.errors import UsageError
from vovcodec.presets import load_preset, preset_digest, resolve
from vovcodec.progress import SilentListener

__all__ = ["TargetRow", "least_target", "main"]

ALLOWED_MISS = 0.02


@dataclass(frozen=True)
class TargetRow:
    """One encode: bytes asked for and got, and which parts they went to."""

    preset: str
    item: str
    effort: str
    target_bytes: int
    size_bytes: int
    vector_bytes: int
    atoms_bytes: int
    overhead_bytes: int
    miss_percent: float
    psnr_db: float


def measure(item: Item, preset: str, effort: str, target_bytes: int, folder: Path) -> TargetRow:
    """One encode at one target. Raises UsageError when it cannot be reached."""
    report = encode_item(
        item, folder / "coded.vov", SilentListener(), preset=preset, effort=effort, target_bytes=target_bytes
    )
    parts = report.sections
    return TargetRow(
        preset_digest(resolve(load_preset(preset), {}, effort)).hex(),
        item.name,
        effort,
        target_bytes,
        report.size_bytes,
        parts.get("vector", 0),
        parts.get("atoms", 0),
        parts["overhead"],
        round(100 * (1 - report.size_bytes / target_bytes), 3),
        round(report.psnr_db, 3),
    )


def least_target(item: Item, preset: str, effort: str, folder: Path) -> tuple[str, int]:
    """What a target of one byte is told, and the least one that it names. Raises ValueError when it names none."""
    try:
        measure(item, preset, effort, 1, folder)
    except UsageError as error:
        named = re.search(r"at least (\d+)", str(error))
        if named:
            return str(error), int(named[1])
        raise ValueError(f"the message names no least target: {error}") from error
    raise ValueError("one byte is not refused")


def _targets(options: argparse.Namespace, items: Sequence[Item]) -> Iterator[tuple[Item, str, int]]:
    generator = random.Random(options.seed)
    for effort in options.effort:
        for number in range(options.targets):
            item = items[number % len(items)]
            low, high = options.still_range if item.is_still else options.clip_range
            yield item, effort, round(low * (high / low) ** generator.random())


def _work(options: argparse.Namespace) -> int:
    items = [read_item(path, options.preset, options.frames, None) for path in media_paths(options)]
    table = Table(options.out, TargetRow)
    measured: list[TargetRow] = []
    with tempfile.TemporaryDirectory(prefix="vov-bench-") as name:
        folder = Path(name)
        for item, effort, target in _targets(options, items):
            digest = preset_digest(resolve(load_preset(options.preset), {}, effort)).hex()
            kept = table.having(preset=digest, item=item.name, effort=effort, target_bytes=target)
            if not kept:
                kept = [measure(item, options.preset, effort, target, folder)]
                table.add(*kept)
            row = kept[0]
            measured.append(row)
            print(
                f"{item.name}: {effort}, {target} bytes asked, {row.size_bytes} got ({row.vector_bytes} vector, "
                f"{row.atoms_bytes} atoms), miss {row.miss_percent:.2f} %",
                file=sys.stderr,
                flush=True,
            )
        for effort in options.effort:
            message, least = least_target(items[0], options.preset, effort, folder)
            row = measure(items[0], options.preset, effort, least, folder)
            print(f"{effort}, 1 byte: {message}\n  at {least}: {row.size_bytes} bytes, {row.psnr_db:.2f} dB")
    for effort in options.effort:
        misses = [row.miss_percent for row in measured if row.effort == effort]
        print(
            f"{effort}: {len(misses)} targets, misses from {min(misses):.2f} to {max(misses):.2f} %, "
            f"mean {fmean(misses):.2f} %"
        )
    bad = [row for row in measured if not 0 <= row.miss_percent <= 100 * ALLOWED_MISS]
    for row in bad:
        print(f"MISSED: {row.item} {row.effort}: {row.target_bytes} bytes asked, {row.size_bytes} got")
    return 1 if bad else 0


def main(arguments: Sequence[str] | None = None) -> int:
    """The command; returns its exit code: 1 when a target was missed."""
    parser = media_parser("rate_control", "How near files come to random byte targets.")
    parser.add_argument("--targets", type=int, default=20, help="for each effort")
    parser.add_argument("--effort", type=names, default=["instant"], help="one or several")
    parser.add_argument("--clip-range", type=byte_counts, default=[250, 6000], help="of the targets, LOW,HIGH")
    parser.add_argument("--still-range", type=byte_counts, default=[150, 2000], help="the same for pictures")
    parser.add_argument("--seed", type=int, default=0, help="of the targets")
    return run("rate_control", _work, parser.parse_args(arguments))


if __name__ == "__main__":
    sys.exit(main())
