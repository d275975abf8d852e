"""What averaging the token phases is worth: quality with the sampler's velocity and with one evaluation a step, same
bytes.

    python -m vovcodec.bench.token_phases --media FOLDER --out FILE.tsv [--clips dog,kodim23] [--bytes 400,1500]
        [--still-bytes 200,1000] [--preset pocket] [--effort instant] [--frames 33] [--threads N]

Bytes are those of the steering alone.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean

import torch

from vovcodec.backbone.protocol import Backbone
from vovcodec.bench.command import backbone_of, media_parser, media_paths, run
from vovcodec.bench.points import Item, byte_counts, read_item
from vovcodec.bench.steering_schemes import problem_of
from vovcodec.bench.table import Table
from vovcodec.codec.plans import plan_of_preset
from vovcodec.codec.regenerate import adapted_velocity
from vovcodec.metrics import psnr, ssim
from vovcodec.presets import load_preset, resolve
from vovcodec.sampling.steering import SteeringPlan, steer

__all__ = ["PhasesRow", "main"]


@dataclass(frozen=True)
class PhasesRow:
    """One item at one size. t: the time of the last evaluation."""

    model: str
    item: str
    kind: str
    size: str
    frames: int
    bytes: int
    t: float
    plain_psnr_db: float
    psnr_db: float
    plain_ssim: float
    ssim: float


@torch.no_grad()
def _measure(backbone: Backbone, plan: SteeringPlan, item: Item, size_bytes: int) -> PhasesRow:
    plain, target = problem_of(item, backbone)
    times: list[float] = []
    shown = []
    with adapted_velocity(backbone, "", None, None) as averaged:
        for velocity in (plain, averaged):
            _, _, latents = steer(
                velocity, target, plan, 0, size_bytes=size_bytes, on_step=lambda t, x_t, clean: times.append(t)
            )
            shown.append(backbone.to_frames(latents))
    return PhasesRow(
        backbone.fingerprint.hex(),
        item.name,
        "still" if item.is_still else "clip",
        "{}x{}".format(*item.size),
        len(item.frames),
        size_bytes,
        round(times[-1], 3),
        round(psnr(item.frames, shown[0]), 3),
        round(psnr(item.frames, shown[1]), 3),
        round(ssim(item.frames, shown[0]), 5),
        round(ssim(item.frames, shown[1]), 5),
    )


def _work(options: argparse.Namespace) -> int:
    paths = media_paths(options)
    settings = resolve(load_preset(options.preset), {}, options.effort)
    if options.threads:
        torch.set_num_threads(options.threads)
    backbone = backbone_of(settings, options.device)
    table = Table(options.out, PhasesRow, model=backbone.fingerprint.hex())
    for path in paths:
        item = read_item(path, options.preset, options.frames, None)
        for size_bytes in options.still_bytes if item.is_still else options.bytes:
            size = "{}x{}".format(*item.size)
            if table.having(item=item.name, size=size, frames=len(item.frames), bytes=size_bytes):
                continue
            row = _measure(backbone, plan_of_preset(settings, is_still=item.is_still), item, size_bytes)
            table.add(row)
            print(
                f"{row.item} {row.bytes} B: {row.plain_psnr_db:.2f} to {row.psnr_db:.2f} dB",
                file=sys.stderr,
                flush=True,
            )
    for kind, size_bytes in sorted({(row.kind, row.bytes) for row in table.rows}):
        rows = table.having(kind=kind, bytes=size_bytes)
        gain = fmean(row.psnr_db - row.plain_psnr_db for row in rows)
        similarity = fmean(row.ssim - row.plain_ssim for row in rows)
        print(f"{kind} {size_bytes} bytes: {gain:+.2f} dB, SSIM {similarity:+.4f}, mean of {len(rows)}")
    return 0


def main(arguments: Sequence[str] | None = None) -> int:
    """The command; returns its exit code."""
    parser = media_parser("token_phases", "The mean over token phases against a single one.")
    parser.add_argument("--bytes", type=byte_counts, default=[400, 1500], help="of the steering, for clips")
    parser.add_argument("--still-bytes", type=byte_counts, default=[200, 1000], help="of the steering, for pictures")
    parser.add_argument("--effort", default="instant", help="of the preset")
    return run("token_phases", _work, parser.parse_args(arguments))


if __name__ == "__main__":
    sys.exit(main())
