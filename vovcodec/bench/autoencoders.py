"""Autoencoders for the embedded model at equal decode time: what steering makes of their latents at the same bytes.

    python -m vovcodec.bench.autoencoders --data TRAINFOLDER --media EVALFOLDER --run FOLDER --out FILE.tsv
        [--designs block,wan,s2d,deep] [--autoencoder-minutes 12] [--transformer-minutes 10] [--clips dog,kodim23]
        [--bytes 400,800,1500,3000] [--still-bytes 200,500,1000] [--seed 0] [--threads N]

For every design an autoencoder is trained (the block transform is fitted), then the same small transformer without
captions on its latents, then clips and pictures are steered. On the processor; minutes are those of processor time per
thread. Trained networks stay in the run folder, which belongs to one set of minutes and one seed; bytes are those of
the choices alone.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np
import torch
from torch import Tensor

from vovcodec.backbone.pixels import to_uint8
from vovcodec.bench.autoencoder_designs import DESIGNS
from vovcodec.bench.autoencoder_training import Autoencoder, decoder_parameters, latent_prior, trained_autoencoder
from vovcodec.bench.command import media_parser, media_paths, run
from vovcodec.bench.points import Item, byte_counts, names, read_item
from vovcodec.bench.schemes import ours
from vovcodec.bench.table import Table
from vovcodec.codec.plans import plan_of_preset
from vovcodec.errors import UsageError
from vovcodec.media import pad_frames
from vovcodec.metrics import psnr, ssim
from vovcodec.presets import load_preset, preset_digest, resolve
from vovcodec.pretraining.corpus import Corpus, load_corpus
from vovcodec.sampling.steering import SteeringPlan

__all__ = ["AutoencoderRow", "main"]

_COST_SIZE = (33, 128, 224)  # frames, height, width


@dataclass(frozen=True)
class AutoencoderRow:
    """One clip or picture of one design at one size.

    preset: digest of the settings, whose steering plan is used. decoder_parameters: numbers the decoder is made of.
    latent_values, decode_s: of 33 frames of 224×128, processor seconds. ceiling: what the autoencoder alone keeps.
    size_bytes: of the choices alone.
    """

    preset: str
    design: str
    autoencoder_minutes: float
    transformer_minutes: float
    autoencoder_steps: int
    transformer_steps: int
    decoder_parameters: int
    latent_values: int
    decode_s: float
    item: str
    kind: str
    size: str
    frames: int
    ceiling_psnr_db: float
    ceiling_ssim: float
    target_bytes: int
    size_bytes: float
    evaluations: int
    psnr_db: float
    ssim: float


def _work(options: argparse.Namespace) -> int:
    paths = media_paths(options)
    if options.data is None or options.run is None:
        raise UsageError("give --data TRAINFOLDER and --run FOLDER")
    unknown = [name for name in options.designs if name not in DESIGNS]
    if unknown:
        raise UsageError(f"no design {unknown[0]!r}; there are {', '.join(DESIGNS)}")
    preset = resolve(load_preset(options.preset), {}, None)
    shared = {
        "preset": preset_digest(preset).hex(),
        "autoencoder_minutes": options.autoencoder_minutes,
        "transformer_minutes": options.transformer_minutes,
    }
    table = Table(options.out, AutoencoderRow, **shared)
    items = [read_item(path, options.preset, options.frames, None) for path in paths]
    corpus = None
    for design in options.designs or DESIGNS:
        missing = []
        for item in items:
            known = table.having(design=design, item=item.name, frames=len(item.frames))
            sizes = set(options.still_bytes if item.is_still else options.bytes) - {row.target_bytes for row in known}
            if sizes:
                missing.append((item, sorted(sizes)))
        if missing:
            corpus = corpus or load_corpus(options.data)
            _measure(design, corpus, missing, table, shared, options, plan_of_preset(preset, is_still=False))
    _print_means(table.rows)
    return 0


def _measure(
    design: str,
    corpus: Corpus,
    missing: Sequence[tuple[Item, list[int]]],
    table: Table[AutoencoderRow],
    shared: dict[str, Any],
    options: argparse.Namespace,
    plan: SteeringPlan,
) -> None:
    """Trains what is not trained yet, and adds a row for each item and each of its missing sizes."""
    print(f"{design}: {DESIGNS[design].title}", file=sys.stderr, flush=True)
    run_dir, patch_size = options.run / design, DESIGNS[design].patch_size
    autoencoder, n_steps = trained_autoencoder(
        DESIGNS[design], corpus, run_dir, options.autoencoder_minutes, options.seed
    )
    velocity, n_transformer_steps = latent_prior(
        autoencoder, patch_size, corpus, run_dir, options.transformer_minutes, options.seed
    )
    latent_values, decode_s = _cost(autoencoder)
    own = shared | {
        "design": design,
        "autoencoder_steps": n_steps,
        "transformer_steps": n_transformer_steps,
        "decoder_parameters": decoder_parameters(autoencoder),
        "latent_values": latent_values,
        "decode_s": round(decode_s, 3),
    }
    for item, sizes in missing:
        n_frames = len(item.frames)
        target = autoencoder.encode(_to_tensor(pad_frames(item.frames, -(-(n_frames - 1) // 4) * 4 + 1)))
        ceiling = to_uint8(autoencoder.decode(target)[0].permute(1, 2, 3, 0))[:n_frames]
        for size_bytes in sizes:
            outcome = ours(velocity, target, size_bytes, plan=plan)
            decoded = to_uint8(autoencoder.decode(outcome.latents)[0].permute(1, 2, 3, 0))[:n_frames]
            row = AutoencoderRow(
                **own,
                item=item.name,
                kind="still" if item.is_still else "clip",
                size="{}x{}".format(*item.size),
                frames=n_frames,
                ceiling_psnr_db=round(psnr(item.frames, ceiling), 3),
                ceiling_ssim=round(ssim(item.frames, ceiling), 5),
                target_bytes=size_bytes,
                size_bytes=round(outcome.size_bytes, 1),
                evaluations=outcome.n_evaluations,
                psnr_db=round(psnr(item.frames, decoded), 3),
                ssim=round(ssim(item.frames, decoded), 5),
            )
            table.add(row)
            quality = f"{row.psnr_db:.2f} of {row.ceiling_psnr_db:.2f} dB, SSIM {row.ssim:.3f}"
            print(f"{item.name}: {design}, {size_bytes} B: {quality}", file=sys.stderr, flush=True)


def _to_tensor(frames: np.ndarray) -> Tensor:
    """uint8 [F, H, W, 3] → float32 [1, 3, F, H, W] in [−1, 1]."""
    return torch.from_numpy(frames).permute(3, 0, 1, 2)[None].float() / 127.5 - 1.0


@torch.no_grad()
def _cost(autoencoder: Autoencoder) -> tuple[int, float]:
    """Latent values of a clip of 33 frames of 224×128, and the processor seconds that decoding it takes, best of 3."""
    latents = autoencoder.encode(torch.zeros(1, 3, *_COST_SIZE))
    spent = []
    for _ in range(3):
        before = time.process_time()
        autoencoder.decode(latents)
        spent.append(time.process_time() - before)
    return latents.numel(), min(spent)


def _print_means(rows: Sequence[AutoencoderRow]) -> None:
    for design in dict.fromkeys(row.design for row in rows):
        own = [row for row in rows if row.design == design]
        first = own[0]
        print(
            f"{design}: {first.decoder_parameters} parameters and {first.decode_s} s to decode, "
            f"{first.latent_values} latent values, {first.autoencoder_steps} and {first.transformer_steps} steps"
        )
        for frames, target in sorted({(row.frames, row.target_bytes) for row in own}):
            here = [row for row in own if (row.frames, row.target_bytes) == (frames, target)]
            quality, similarity, most, most_similar = (
                fmean(getattr(row, field) for row in here)
                for field in ("psnr_db", "ssim", "ceiling_psnr_db", "ceiling_ssim")
            )
            shown = f"{quality:6.2f} dB {similarity:.3f}, ceiling {most:.2f} dB {most_similar:.3f}"
            print(f"  {frames:2} frame(s), {target:4} bytes: {shown}, mean of {len(here)}")


def main(arguments: Sequence[str] | None = None) -> int:
    """The command; returns its exit code."""
    parser = media_parser("autoencoders", "Autoencoders through steering, at equal decode time.")
    parser.add_argument("--data", type=Path, help="folder of photographs and clips to train on")
    parser.add_argument("--run", type=Path, help="folder that keeps the trained networks, of one set of minutes")
    parser.add_argument("--designs", type=names, default=[], help="only these")
    parser.add_argument("--autoencoder-minutes", type=float, default=12.0, help="of training each, processor time")
    parser.add_argument("--transformer-minutes", type=float, default=10.0, help="of training each, processor time")
    parser.add_argument("--bytes", type=byte_counts, default=[400, 800, 1500, 3000], help="of the choices, for clips")
    parser.add_argument("--still-bytes", type=byte_counts, default=[200, 500, 1000], help="the same for pictures")
    parser.add_argument("--seed", type=int, default=0)
    return run("autoencoders", _work, parser.parse_args(arguments))


if __name__ == "__main__":
    sys.exit(main())
