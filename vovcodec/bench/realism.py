"""What realism costs and what it brings: files decoded as the mean of what they can mean, as one such picture, and in
between (sampling/realism.py).

    python -m vovcodec.bench.realism --media FOLDER --out FILE.tsv [--clips dog,kodim15] [--bytes 800,1500]
        [--still-bytes 200,600] [--realism 0,0.5,1] [--preset pocket] [--effort instant] [--frames 33] [--threads N]

detail: energy of the decoded frames' Laplacian relative to the original's, 1 = as much fine detail, right or wrong.
flicker: energy of the second difference from frame to frame, relative to the original's; empty for stills. Both
are empty where the original has none.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from vovcodec.backbone.protocol import Backbone
from vovcodec.bench.command import backbone_of, media_parser, media_paths, run
from vovcodec.bench.points import Item, byte_counts, encode_item, names, read_item
from vovcodec.bench.table import Table
from vovcodec.codec.measure import n_evaluations_of
from vovcodec.codec.regenerate import Adapters, regenerate_latents, shown_frames
from vovcodec.container import Segment, VovFile, read_vov
from vovcodec.metrics import ms_ssim, psnr, ssim
from vovcodec.presets import load_preset, resolve
from vovcodec.progress import SilentListener

__all__ = ["RealismRow", "detail_energy", "flicker_energy", "main"]


@dataclass(frozen=True)
class RealismRow:
    """One decode of one file. model: fingerprint of the weights; detail, flicker: see the module's docstring."""

    model: str
    effort: str
    item: str
    size: str
    frames: int
    target_bytes: int
    size_bytes: int
    realism: float
    evaluations: int
    psnr_db: float
    ssim: float
    ms_ssim: float
    detail: float | None
    flicker: float | None


def detail_energy(frames: np.ndarray) -> float:
    """Mean square of the Laplacian of the frames' mean colour; uint8 [F, H, W, 3]."""
    grey = frames.mean(axis=-1, dtype=np.float64)
    around = grey[:, :-2, 1:-1] + grey[:, 2:, 1:-1] + grey[:, 1:-1, :-2] + grey[:, 1:-1, 2:]
    return float(np.square(4 * grey[:, 1:-1, 1:-1] - around).mean())


def flicker_energy(frames: np.ndarray) -> float:
    """Mean square of the second difference in time of the frames' mean colour; uint8 [F ≥ 3, H, W, 3]."""
    return float(np.square(np.diff(frames.mean(axis=-1, dtype=np.float64), 2, axis=0)).mean())


def _relative(energy: Callable[[np.ndarray], float], shown: np.ndarray, original: np.ndarray) -> float | None:
    """None where the original has none at all."""
    whole = energy(original)
    return round(energy(shown) / whole, 4) if whole else None


def _latents(backbone: Backbone, stream: VovFile, segment: Segment, realism: float) -> torch.Tensor:
    n_coded = backbone.geometry.coded_frames(segment.n_frames)
    decoding = (backbone, stream.header, segment, stream.caption_of(segment), Adapters(backbone))
    return regenerate_latents(*decoding, n_coded_frames=n_coded, realism=realism)


def _rows(
    item: Item, backbone: Backbone, options: argparse.Namespace, target_bytes: int, realisms: Sequence[float]
) -> list[RealismRow]:
    with tempfile.TemporaryDirectory(prefix="vov-realism-") as folder:
        coded = Path(folder) / "coded.vov"
        settings = {"preset": options.preset, "effort": options.effort, "threads": options.threads}
        report = encode_item(item, coded, SilentListener(), target_bytes=target_bytes, **settings)
        stream = read_vov(coded)
    # Latents are linear in the realism, so the two ends tell all of it.
    ends = [[_latents(backbone, stream, segment, end) for end in (0.0, 1.0)] for segment in stream.segments]
    rows = []
    for realism in realisms:
        parts = (
            shown_frames(backbone, torch.lerp(mean, sampled, realism), segment.atoms, segment.n_frames)
            for segment, (mean, sampled) in zip(stream.segments, ends, strict=True)
        )
        shown = np.concatenate(list(parts))
        rows.append(
            RealismRow(
                stream.header.fingerprint.hex(),
                options.effort,
                item.name,
                "{}x{}".format(*item.size),
                len(shown),
                target_bytes,
                report.size_bytes,
                realism,
                sum(n_evaluations_of(stream.header, segment, realism=realism) for segment in stream.segments),
                round(psnr(item.frames, shown), 3),
                round(ssim(item.frames, shown), 5),
                round(ms_ssim(item.frames, shown), 5),
                _relative(detail_energy, shown, item.frames),
                _relative(flicker_energy, shown, item.frames) if len(shown) > 2 else None,
            )
        )
    return rows


def _work(options: argparse.Namespace) -> int:
    backbone = backbone_of(resolve(load_preset(options.preset), {}, options.effort), options.device)
    table = Table(options.out, RealismRow, model=backbone.fingerprint.hex())
    for path in media_paths(options):
        item = read_item(path, options.preset, options.frames, None)
        for target_bytes in options.still_bytes if item.is_still else options.bytes:
            size = "{}x{}".format(*item.size)
            key = {"effort": options.effort, "size": size, "frames": len(item.frames), "target_bytes": target_bytes}
            missing = [r for r in options.realism if not table.having(item=item.name, realism=r, **key)]
            if not missing:
                continue
            rows = _rows(item, backbone, options, target_bytes, missing)
            table.add(*rows)
            for row in rows:
                found = {"detail": row.detail, "flicker": row.flicker}
                energies = "".join(f", {name} {value:.2f}" for name, value in found.items() if value is not None)
                quality = f"{row.psnr_db:.2f} dB, SSIM {row.ssim:.3f}{energies}"
                print(f"{row.item} {row.size_bytes} B, realism {row.realism:g}: {quality}", flush=True)
    return 0


def main(arguments: Sequence[str] | None = None) -> int:
    """The command; returns its exit code."""
    parser = media_parser("realism", "Distortion and detail of decodes of different realism.")
    parser.add_argument("--bytes", type=byte_counts, default=[800, 1500], help="targets for clips")
    parser.add_argument("--still-bytes", type=byte_counts, default=[200, 600], help="targets for pictures")
    parser.add_argument("--realism", type=lambda text: [float(r) for r in names(text)], default=[0.0, 0.5, 1.0])
    parser.add_argument("--effort", default="instant")
    return run("realism", _work, parser.parse_args(arguments))


if __name__ == "__main__":
    sys.exit(main())
