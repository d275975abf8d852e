"""Tunes a preset for its model by measurement: coordinate descent over what steering and split depend on.

    python -m vovcodec.bench.tune --media FOLDER --out FILE.tsv [--clips dog,kodim23] [--preset pocket]
        [--effort instant] [--bytes 400,800,1500] [--still-bytes 200,500,1000] [--settings snr_start,eta_scale]
        [--minutes M | --evaluations-budget N] [--write] [--frames 33] [--threads N]

Objective: mean PSNR over all files and byte targets, of what `vov encode` makes, under a limit on the mean number of
network evaluations (--most-evaluations, by default a quarter more than at the start). Every encode is a row of the
table; a run that was stopped finds its rows there and continues. --write puts the best settings into the preset's YAML,
with the figures in a comment.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from operator import attrgetter
from pathlib import Path
from statistics import fmean
from typing import Any

from vovcodec.bench.command import backbone_of, media_parser, media_paths, run
from vovcodec.bench.points import Item, byte_counts, encode_item, names, read_item
from vovcodec.bench.preset_text import setting_path, with_note, with_values
from vovcodec.bench.search import Coordinate, descend
from vovcodec.bench.table import Table
from vovcodec.codec.budget import with_parts
from vovcodec.errors import MediaError, UsageError
from vovcodec.presets import Preset, load_preset, preset_digest, preset_path, resolve
from vovcodec.progress import SilentListener

__all__ = ["COORDINATES", "TrialRow", "main"]

COORDINATES = (
    Coordinate("steering.eta_scale", step=0.1, low=0.5, high=1.25),
    Coordinate("steering.reach", step=0.1, low=0.5, high=1.5),
    Coordinate("steering.snr_start", step=2.0, low=1e-5, high=0.1, is_factor=True),
    Coordinate("steering.snr_ratio", step=1.4, low=1.1, high=4.9, is_factor=True, origin=1.0),
    Coordinate("steering.codebook", choices=("trellis", "hadamard", "cyclic")),
    Coordinate("adaptation.vector_length", step=2.0, low=32, high=16384, is_factor=True, digits=6),
    Coordinate("rate.split", step=2.0, low=0.01, high=0.6, is_factor=True),
    Coordinate("fitting.stage1.lr", step=2.0, low=1e-4, high=0.2, is_factor=True),
    Coordinate("fitting.stage2.lr", step=2.0, low=1e-4, high=0.2, is_factor=True),
)
"""What is searched, in this order; all but steering only with a vector, whose share `rate.split` stands for here."""

_MARGIN_DB = 0.005


@dataclass(frozen=True)
class TrialRow:
    """One encode of one file. preset: digest of all settings; settings: those that are searched, for people."""

    model: str
    preset: str
    effort: str
    settings: str
    item: str
    size: str
    frames: int
    target_bytes: int
    size_bytes: int
    evaluations: int
    psnr_db: float
    ssim: float
    encode_s: float


class _OutOfBudget(Exception):
    """The time or the network evaluations allowed are spent."""


class _Trials:
    """Measures settings on all items and targets, through the table."""

    def __init__(self, options: argparse.Namespace, preset: Preset, items: Sequence[Item], table: Table, model: str):
        self._options, self._preset, self._items, self._table, self._model = options, preset, items, table, model
        self._text = preset_path(options.preset).read_text(encoding="utf-8")
        self._started, self.n_spent, self._most = time.monotonic(), 0, options.most_evaluations

    def text(self, settings: Mapping[str, Any]) -> str:
        """The preset's YAML with these settings."""
        values = {setting_path(self._preset, self._options.effort, n): _to_yaml(n, v) for n, v in settings.items()}
        return with_values(self._text, values)

    def rows(self, settings: Mapping[str, Any]) -> list[TrialRow]:
        """One row per item and target. Raises UsageError for settings that do not work, _OutOfBudget."""
        with tempfile.TemporaryDirectory(prefix="vov-tune-") as folder:
            path = Path(folder) / preset_path(self._options.preset).name
            path.write_text(self.text(settings), encoding="utf-8")
            digest = preset_digest(resolve(load_preset(path), {}, self._options.effort)).hex()
            rows = []
            for item in self._items:
                for target in self._options.still_bytes if item.is_still else self._options.bytes:
                    rows.append(self._row(item, target, path, digest, settings))
        return rows

    def _row(self, item: Item, target: int, path: Path, digest: str, settings: Mapping[str, Any]) -> TrialRow:
        size, n_frames, effort = "{}x{}".format(*item.size), len(item.frames), self._options.effort
        key = {"preset": digest, "effort": effort, "item": item.name, "size": size, "frames": n_frames}
        kept = self._table.having(**key, target_bytes=target)
        if kept:
            return kept[0]
        options = self._options
        minutes = (time.monotonic() - self._started) / 60
        if (options.minutes is not None and minutes >= options.minutes) or (
            options.evaluations_budget is not None and self.n_spent >= options.evaluations_budget
        ):
            raise _OutOfBudget
        report = encode_item(
            item,
            path.parent / "coded.vov",
            SilentListener(),
            preset=path,
            effort=effort,
            target_bytes=target,
            device=options.device,
            threads=options.threads,
        )
        self.n_spent += report.n_network_evaluations
        row = TrialRow(
            self._model,
            digest,
            effort,
            _words(settings),
            item.name,
            size,
            n_frames,
            target,
            report.size_bytes,
            report.n_network_evaluations,
            round(report.psnr_db, 3),
            round(report.ssim, 5),
            round(report.encode_s, 1),
        )
        self._table.add(row)
        return row

    def score(self, settings: Mapping[str, Any]) -> float | None:
        """Mean PSNR in dB; None for settings that do not work or take too many evaluations."""
        try:
            rows = self.rows(settings)
        except UsageError as error:
            print(f"{_words(settings)}: {error}", file=sys.stderr)
            return None
        quality, evaluations = fmean(row.psnr_db for row in rows), fmean(row.evaluations for row in rows)
        if self._most is None:
            self._most = 1.25 * evaluations
        allowed = evaluations <= self._most
        note = "" if allowed else " (too many)"
        print(f"{_words(settings)}: {quality:.3f} dB, {evaluations:.1f} evaluations{note}", file=sys.stderr, flush=True)
        return quality if allowed else None


def _to_yaml(name: str, value: Any) -> Any:
    return [value, round(1 - value, 6)] if name == "rate.split" else value


def _words(settings: Mapping[str, Any]) -> str:
    return " ".join(f"{_short(name)}={value}" for name, value in settings.items())


def _short(name: str) -> str:
    """`steering.reach` → `reach`, `fitting.stage1.lr` → `stage1.lr`."""
    return name.partition(".")[2]


def _starting_point(preset: Preset, wanted: Sequence[str]) -> tuple[dict[str, Any], list[Coordinate]]:
    """The settings in force and the coordinates to search. Raises UsageError for a name that is none."""
    known = {_short(each.name): each for each in COORDINATES}
    for name in wanted:
        if name not in known:
            raise UsageError(f"{name} is not searched; there are {', '.join(known)}")
    has_vector = with_parts(preset).adaptation.vector_length > 0
    start, coordinates = {}, []
    for short, each in known.items():
        if (wanted and short not in wanted) or (not each.name.startswith("steering.") and not has_vector):
            continue
        value = attrgetter(each.name)(preset)
        if each.name == "rate.split":
            value = value[0] if value else 1 / 12
        start[each.name] = value
        coordinates.append(each)
    return start, coordinates


def _gains(before: Sequence[TrialRow], after: Sequence[TrialRow]) -> str:
    """Figures per target, for the terminal and the preset's comment."""
    parts = []
    for target in sorted({row.target_bytes for row in before}):
        old, new = ([row for row in rows if row.target_bytes == target] for rows in (before, after))
        was, now = (fmean(row.psnr_db for row in rows) for rows in (old, new))
        parts.append(f"{target} bytes {now:.2f} dB (before {was:.2f}), {fmean(r.evaluations for r in new):.0f} passes")
    n_items = len({row.item for row in before})
    return f"means over {n_items} file{'s' * (n_items > 1)}: " + "; ".join(parts)


def _work(options: argparse.Namespace) -> int:
    paths = media_paths(options)
    preset = load_preset(options.preset)
    resolved = resolve(preset, {}, options.effort)
    if resolved.steering.method != "atoms":
        raise UsageError(f"effort {options.effort} of preset {preset.name} does not steer with atoms")
    start, coordinates = _starting_point(resolved, options.settings)
    model = backbone_of(resolved, options.device).fingerprint.hex()
    items = [read_item(path, options.preset, options.frames, None) for path in paths]
    trials = _Trials(options, preset, items, Table(options.out, TrialRow, model=model), model)
    best: Mapping[str, Any] | None = None
    try:
        for best, quality in descend(start, coordinates, trials.score, margin=_MARGIN_DB):
            print(f"best so far: {quality:.3f} dB with {_words(best)}", flush=True)
    except _OutOfBudget:
        print("stopped by the budget; the same command continues", flush=True)
    if best is None:
        raise UsageError("the budget did not suffice for the settings that the preset has now")
    figures = _gains(trials.rows(start), trials.rows(best))
    print(f"{_words(best)}\n{figures}")
    if options.write:
        changed = {name: value for name, value in best.items() if value != start[name]}
        path = preset_path(options.preset)
        note = f"python -m vovcodec.bench.tune --effort {options.effort}, model {model}, {figures}"
        try:
            path.write_text(with_note(trials.text(changed), "steering", note), encoding="utf-8")
        except OSError as error:
            raise MediaError(f"{path}: {error.strerror or error}") from error
        print(f"written to {path}")
    return 0


def main(arguments: Sequence[str] | None = None) -> int:
    """The command; returns its exit code."""
    parser = media_parser("tune", "Tune a preset by measurement.")
    parser.add_argument("--effort", default="instant", help="of the preset; instant needs no fit")
    parser.add_argument("--bytes", type=byte_counts, default=[400, 800, 1500], help="targets for clips")
    parser.add_argument("--still-bytes", type=byte_counts, default=[200, 500, 1000], help="targets for pictures")
    parser.add_argument("--settings", type=names, default=[], help="search these only")
    parser.add_argument("--most-evaluations", type=float, help="mean number of network evaluations allowed")
    parser.add_argument("--minutes", type=float, help="stop after so many minutes")
    parser.add_argument("--evaluations-budget", type=int, help="stop after so many network evaluations in all")
    parser.add_argument("--write", action="store_true", help="put the best settings into the preset's YAML")
    return run("tune", _work, parser.parse_args(arguments))


if __name__ == "__main__":
    sys.exit(main())
