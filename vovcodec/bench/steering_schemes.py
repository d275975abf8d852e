"""Steering schemes against one another at the same bytes, on the latents of real clips, in one run.

    python -m vovcodec.bench.steering_schemes --media FOLDER --out FILE.tsv [--clips dog,basketball] [--bytes 800]
        [--still-bytes 500] [--schemes ours,gvcc] [--frames 33] [--preset pocket] [--threads N]
    python -m vovcodec.bench.steering_schemes --scoring [--values N]

Bytes are those of the choices alone: no header, no caption, no vector. The table is written after every row; rows
that it has already are not measured again, so a long run can be done in pieces. `--scoring` times how fast candidates
are scored at the size of Wan's latents instead.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from statistics import fmean
from typing import TYPE_CHECKING

from vovcodec.bench.command import backbone_of, media_parser, media_paths, run
from vovcodec.bench.points import Item, Point, byte_counts, names, point_of, read_item
from vovcodec.bench.table import Table, write_rows
from vovcodec.errors import UsageError
from vovcodec.metrics import psnr, ssim

if TYPE_CHECKING:
    from torch import Tensor

    from vovcodec.presets import Preset
    from vovcodec.sampling.sampler import Velocity

__all__ = ["SchemeRow", "main", "measure_item", "problem_of", "published_points", "schemes_of"]

_PUBLISHED = ("reference-100", "gvcc-64")


@dataclass(frozen=True)
class SchemeRow:
    """One line of the table; target_bytes None for a published setting that is not matched.

    model: fingerprint of the weights. preset: digest of the settings of `ours`.
    """

    model: str
    preset: str
    item: str
    scheme: str
    setting: str
    target_bytes: int | None
    size_bytes: float
    evaluations: int
    psnr_db: float
    ssim: float
    encode_s: float


def schemes_of(preset: Preset, *, is_still: bool) -> dict[str, tuple[bool, object]]:
    """name → (whether the bytes are matched, the scheme), in the order of the table."""
    from vovcodec.bench import schemes
    from vovcodec.codec.plans import plan_of_preset

    plan = plan_of_preset(preset, is_still=is_still)
    return {
        "none": (False, schemes.unsteered),
        "reference-100": (False, partial(schemes.reference, n_steps=100)),
        "reference": (True, schemes.reference),
        "gvcc-64": (False, partial(schemes.gvcc, n_atoms=64)),
        "gvcc": (True, schemes.gvcc),
        "eta0.5-shift1": (True, partial(schemes.constant_eta, shift=1.0)),
        "eta0.5-shift5": (True, partial(schemes.constant_eta, shift=5.0)),
        "ours": (True, partial(schemes.ours, plan=plan)),
        "ours-20": (True, partial(schemes.ours, plan=plan, most_evaluations=20)),
    }


def problem_of(item: Item, backbone) -> tuple[Velocity, Tensor]:
    """What a scheme gets of a clip or picture: the velocity of one evaluation a step, the same for all schemes, and
    latents [1, C, T, h, w]."""
    from vovcodec.media import pad_frames

    stride = backbone.geometry.time_stride
    n_coded = -(-(len(item.frames) - 1) // stride) * stride + 1
    target = backbone.to_latents(pad_frames(item.frames, n_coded))
    condition = backbone.embed_caption("")
    if len(item.frames) == 1:
        return lambda x_t, t: backbone.velocity(x_t, t, condition), target
    return lambda x_t, t: backbone.sampler_velocity(x_t, float(t), condition, last=False), target


def published_points(item: Item, backbone, preset: Preset) -> list[Point]:
    """The settings that were published, and `ours` with the bytes and at most the evaluations of each."""
    from vovcodec.bench import schemes
    from vovcodec.codec.plans import plan_of_preset

    velocity, target = problem_of(item, backbone)
    points = []

    def add(codec: str, outcome, size_bytes: float | None) -> None:
        decoded = backbone.to_frames(outcome.latents)[: len(item.frames)]
        points.append(
            point_of(
                item,
                codec,
                outcome.setting,
                size_bytes and round(size_bytes),
                round(outcome.size_bytes),
                None,
                decoded,
                evaluations=outcome.n_evaluations,
            )
        )

    for name in _PUBLISHED:
        theirs = schemes_of(preset, is_still=item.is_still)[name][1](velocity, target, 0.0)
        add(name, theirs, None)
        plan = plan_of_preset(preset, is_still=item.is_still)
        own = schemes.ours(velocity, target, theirs.size_bytes, plan=plan, most_evaluations=theirs.n_evaluations)
        add(f"ours as {name}", own, theirs.size_bytes)
    return points


def measure_item(
    item: Item,
    backbone,
    chosen: Mapping[str, tuple[bool, object]],
    targets: Sequence[int],
    table: Table[SchemeRow],
    preset: str,
) -> None:
    """Adds to the table every scheme on one clip or picture at every target; those that are not matched run once."""
    model = backbone.fingerprint.hex()
    runs = [(name, size) for name, (matched, _) in chosen.items() for size in (targets if matched else [None])]
    runs = [(name, size) for name, size in runs if not table.having(item=item.name, scheme=name, target_bytes=size)]
    if not runs:
        return
    velocity, target = problem_of(item, backbone)
    for name, size_bytes in runs:
        _, scheme = chosen[name]
        started = time.perf_counter()
        try:
            outcome = scheme(velocity, target, float(size_bytes or 0))
        except UsageError as error:
            print(f"{item.name}: {name}: {error}", file=sys.stderr)
            continue
        encode_s = time.perf_counter() - started
        decoded = backbone.to_frames(outcome.latents)[: len(item.frames)]
        row = SchemeRow(
            model,
            preset,
            item.name,
            name,
            outcome.setting,
            size_bytes,
            round(outcome.size_bytes, 1),
            outcome.n_evaluations,
            round(psnr(item.frames, decoded), 3),
            round(ssim(item.frames, decoded), 5),
            round(encode_s, 1),
        )
        table.add(row)
        print(
            f"{row.item}: {row.scheme} ({row.setting}): {row.size_bytes:.0f} B, {row.evaluations} evaluations, "
            f"{row.psnr_db:.2f} dB, SSIM {row.ssim:.3f}",
            file=sys.stderr,
            flush=True,
        )


def main(arguments: Sequence[str] | None = None) -> int:
    """The command; returns its exit code."""
    options = _parsed(arguments)
    return run("steering_schemes", _scoring if options.scoring else _table, options)


def _scoring(options: argparse.Namespace) -> int:
    import torch

    from vovcodec.bench.candidate_scoring import WAN_LATENT_VALUES, ScoringTime, scoring_lines, scoring_times

    n_values = options.values or WAN_LATENT_VALUES
    rows = scoring_times(n_values)
    print("\n".join([f"{n_values} latent values, {torch.get_num_threads()} threads", *scoring_lines(rows)]))
    if options.out:
        write_rows(options.out, ScoringTime, rows)
    return 0


def _table(options: argparse.Namespace) -> int:
    from vovcodec.presets import load_preset, preset_digest, resolve

    paths = media_paths(options)
    preset = resolve(load_preset(options.preset), {}, None)
    known = list(schemes_of(preset, is_still=False))
    unknown = [name for name in options.schemes if name not in known]
    if unknown:
        raise UsageError(f"no scheme {unknown[0]!r}; there are {', '.join(known)}")
    backbone, digest = backbone_of(preset, options.device), preset_digest(preset).hex()
    table = Table(options.out, SchemeRow, model=backbone.fingerprint.hex(), preset=digest)
    for path in paths:
        item = read_item(path, options.preset, options.frames, None)
        targets = options.still_bytes if item.is_still else options.bytes
        schemes = schemes_of(preset, is_still=item.is_still)
        chosen = {name: schemes[name] for name in known if not options.schemes or name in options.schemes}
        measure_item(item, backbone, chosen, targets, table, digest)
    _print_means(table.rows)
    return 0


def _print_means(rows: Sequence[SchemeRow]) -> None:
    """Means over the items that have all schemes of the table, for each target."""
    for target in sorted({row.target_bytes for row in rows if row.target_bytes}):
        here = [row for row in rows if row.target_bytes in (target, None)]
        names = list(dict.fromkeys(row.scheme for row in here))
        items = {row.item for row in here if row.target_bytes}
        whole = [item for item in items if {row.scheme for row in here if row.item == item} >= set(names)]
        if not whole:
            continue
        print(f"means over {len(whole)} item{'s' * (len(whole) > 1)} at {target} bytes")
        for name in names:
            own = [row for row in here if row.scheme == name and row.item in whole]
            size, evaluations, quality, similarity = (
                fmean(getattr(row, field) for row in own) for field in ("size_bytes", "evaluations", "psnr_db", "ssim")
            )
            print(f"  {name:<15} {size:6.0f} B {evaluations:5.0f} evaluations {quality:6.2f} dB {similarity:.3f}")


def _parsed(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = media_parser("steering_schemes", "Steering schemes at the same bytes.")
    parser.add_argument("--bytes", type=byte_counts, default=[800], help="of the choices alone; one or several")
    parser.add_argument("--still-bytes", type=byte_counts, default=[500], help="the same for pictures")
    parser.add_argument("--schemes", type=names, default=[], help="only these")
    parser.add_argument("--scoring", action="store_true", help="time the scoring of candidates instead")
    parser.add_argument("--values", type=int, help="latent values for --scoring, instead of Wan's 2,096,640")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    sys.exit(main())
