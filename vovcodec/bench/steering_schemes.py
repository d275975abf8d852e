"""Steering schemes against one another at the same bytes, on the latents of real clips, in one run.

    python -m vovcodec.bench.steering_schemes --media FOLDER --out FILE.tsv [--clips dog,basketball] [--bytes 800]
        [--schemes ours,gvcc] [--frames 33] [--preset pocket] [--threads N]
    python -m vovcodec.bench.steering_schemes --scoring [--values N]

Bytes are those of the choices alone: no header, no caption, no vector. `--scoring` times how fast candidates are scored
at the size of Wan's latents instead.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from functools import partial
from pathlib import Path

from vovcodec.bench.points import Item, byte_counts, find_items, names, read_item
from vovcodec.errors import UsageError, VovError
from vovcodec.metrics import psnr, ssim

__all__ = ["SchemeRow", "compare", "main", "schemes_of"]


@dataclass(frozen=True)
class SchemeRow:
    """One line of the table; target_bytes None for a published setting that is not matched."""

    item: str
    scheme: str
    setting: str
    target_bytes: int | None
    size_bytes: float
    evaluations: int
    psnr_db: float
    ssim: float
    encode_s: float


def schemes_of(preset) -> dict[str, tuple[bool, object]]:
    """name → (whether the bytes are matched, the scheme), in the order of the table."""
    from vovcodec.bench import schemes
    from vovcodec.codec.plans import plan_of_preset

    return {
        "none": (False, schemes.unsteered),
        "reference-100": (False, partial(schemes.reference, n_steps=100)),
        "reference": (True, schemes.reference),
        "gvcc-64": (False, partial(schemes.gvcc, n_atoms=64)),
        "gvcc": (True, schemes.gvcc),
        "eta0.5-shift1": (True, partial(schemes.constant_eta, shift=1.0)),
        "eta0.5-shift5": (True, partial(schemes.constant_eta, shift=5.0)),
        "ours": (True, partial(schemes.ours, plan=plan_of_preset(preset))),
    }


def compare(item: Item, backbone, chosen: Mapping[str, tuple[bool, object]], targets: Sequence[int]) -> list[SchemeRow]:
    """Every scheme on one clip or picture at every target; those that are not matched run once."""
    from vovcodec.media import pad_frames

    stride = backbone.geometry.time_stride
    n_coded = -(-(len(item.frames) - 1) // stride) * stride + 1
    target = backbone.to_latents(pad_frames(item.frames, n_coded))
    condition = backbone.embed_caption("")

    def velocity(x_t, t):
        return backbone.velocity(x_t, t, condition)

    rows = []
    for name, (matched, scheme) in chosen.items():
        for size_bytes in targets if matched else targets[:1]:
            started = time.perf_counter()
            try:
                outcome = scheme(velocity, target, float(size_bytes))
            except UsageError as error:
                print(f"{item.name}: {name}: {error}", file=sys.stderr)
                continue
            encode_s = time.perf_counter() - started
            decoded = backbone.to_frames(outcome.latents)[: len(item.frames)]
            row = SchemeRow(
                item.name,
                name,
                outcome.setting,
                size_bytes if matched else None,
                round(outcome.size_bytes, 1),
                outcome.n_evaluations,
                round(psnr(item.frames, decoded), 3),
                round(ssim(item.frames, decoded), 5),
                round(encode_s, 1),
            )
            rows.append(row)
            print(
                f"{row.item}: {row.scheme} ({row.setting}): {row.size_bytes:.0f} B, {row.evaluations} evaluations, "
                f"{row.psnr_db:.2f} dB, SSIM {row.ssim:.3f}",
                file=sys.stderr,
                flush=True,
            )
    return rows


def write_rows(path: Path, kind: type, rows: Sequence[object]) -> None:
    """Dataclass rows as TSV with a header; empty cells for None."""
    names = [field.name for field in fields(kind)]
    cells = (["" if getattr(row, name) is None else str(getattr(row, name)) for name in names] for row in rows)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join("\t".join(line) for line in [names, *cells]) + "\n", encoding="utf-8")


def main(arguments: Sequence[str] | None = None) -> int:
    """The command; returns its exit code."""
    options = _parsed(arguments)
    # As the command does: libraries neither fetch anything nor draw progress bars of their own.
    for name in ("HF_HUB_OFFLINE", "HF_HUB_DISABLE_PROGRESS_BARS"):
        os.environ.setdefault(name, "1")
    try:
        return _scoring(options) if options.scoring else _table(options)
    except VovError as error:
        print(f"steering_schemes: {error}", file=sys.stderr)
        return error.exit_code


def _scoring(options: argparse.Namespace) -> int:
    import torch

    from vovcodec.bench.candidate_scoring import WAN_LATENT_VALUES, ScoringTime, scoring_lines, scoring_times

    if options.threads:
        torch.set_num_threads(options.threads)
    n_values = options.values or WAN_LATENT_VALUES
    rows = scoring_times(n_values)
    print("\n".join([f"{n_values} latent values, {torch.get_num_threads()} threads", *scoring_lines(rows)]))
    if options.out:
        write_rows(options.out, ScoringTime, rows)
    return 0


def _table(options: argparse.Namespace) -> int:
    import torch

    from vovcodec.backbone.registry import load_backbone
    from vovcodec.presets import load_preset, resolve

    if options.media is None or options.out is None:
        raise UsageError("give --media FOLDER and --out FILE.tsv, or --scoring")
    if options.threads:
        torch.set_num_threads(options.threads)
    preset = resolve(load_preset(options.preset), {}, None)
    chosen = schemes_of(preset)
    unknown = [name for name in options.schemes if name not in chosen]
    if unknown:
        raise UsageError(f"no scheme {unknown[0]!r}; there are {', '.join(chosen)}")
    chosen = {name: scheme for name, scheme in chosen.items() if not options.schemes or name in options.schemes}
    paths = find_items(options.media, options.clips)
    if not paths:
        raise UsageError(f"{options.media}: no clips or pictures of these names in it")
    settings = preset.backbone
    backbone = load_backbone(
        settings.id,
        path=settings.path,
        revision=settings.revision,
        device=options.device,
        precision=settings.precision,
    )
    rows: list[SchemeRow] = []
    for path in paths:
        rows += compare(read_item(path, options.preset, options.frames, None), backbone, chosen, options.bytes)
        write_rows(options.out, SchemeRow, rows)
    return 0


def _parsed(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m vovcodec.bench.steering_schemes", description="Steering schemes at the same bytes."
    )
    parser.add_argument("--media", type=Path, help="folder with clips and pictures, searched through")
    parser.add_argument("--out", type=Path, help="the table, TSV")
    parser.add_argument("--clips", type=names, default=[], help="only files whose names contain one of these")
    parser.add_argument("--bytes", type=byte_counts, default=[800], help="of the choices alone; one or several")
    parser.add_argument("--schemes", type=names, default=[], help="only these")
    parser.add_argument("--preset", default="pocket")
    parser.add_argument("--frames", type=int, default=33, help="of each clip")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, help="CPU threads")
    parser.add_argument("--scoring", action="store_true", help="time the scoring of candidates instead")
    parser.add_argument("--values", type=int, help="latent values for --scoring, instead of Wan's 2,096,640")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    sys.exit(main())
