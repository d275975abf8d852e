"""Does a vector pay that a network predicts in one pass, with a base that was trained together with such vectors?

    python -m vovcodec.bench.amortized --data TRAIN --run FOLDER --media FOLDER --out FILE.tsv [--clips dog,kodim23]
        [--vector-length 64] [--minutes 20] [--bytes 400,800,1500] [--still-bytes 200,500] [--frames 33] [--threads N]

An encoder network sees the latents and gives the symbols of a vector of its own for every sample of a batch; encoder
and embedded model are trained on the prediction of the clean latents, at the high noise where layout, colour and motion
are decided. Then at equal bytes, steering included: the model as shipped, the one trained along without a vector, and
that with its vector. The training is kept in --run and continued there, see timed_training.py for the minutes.
"""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean

import torch
from torch import Tensor, nn

from vovcodec.backbone.pocket.backbone import PocketBackbone
from vovcodec.backbone.pocket.detail import CompletedTransformer
from vovcodec.bench.batched_updates import BatchedUpdates
from vovcodec.bench.command import backbone_of, media_parser, media_paths, run
from vovcodec.bench.points import Item, byte_counts, read_item
from vovcodec.bench.steering_schemes import problem_of
from vovcodec.bench.table import Table
from vovcodec.bench.timed_training import step_generator, train_for
from vovcodec.codec.plans import plan_of_preset
from vovcodec.entropy.symbols import coded_size
from vovcodec.errors import UsageError
from vovcodec.metrics import psnr, ssim
from vovcodec.presets import load_preset, resolve
from vovcodec.pretraining.batches import draw_batch
from vovcodec.pretraining.corpus import Corpus, load_corpus
from vovcodec.pretraining.transformer import draw_times, prediction_loss
from vovcodec.sampling.steering import steer

__all__ = ["AmortizedRow", "VectorEncoder", "main"]

_HEADER_BYTES = 7  # what a file with a vector has more besides the vector itself
_TIMES = (1.5, 1.5)  # mean and standard deviation of logit(t)
_SPREAD = 1.5  # standard deviation of the symbols, about 2.6 bits each
_WITHOUT = 0.2  # share of batches without vectors, so that the model can do without
_SEED, _BETA, _TOKENS = 61, 0.5, 2000
_LR, _EMA = (5e-5, 1e-3), 0.98  # learning rates of the model and of the encoder


@dataclass(frozen=True)
class AmortizedRow:
    """One steered item. variant: shipped, without or with vector; size_bytes: vector, header's part of it and atoms."""

    model: str
    item: str
    frames: int
    vector_length: int
    train_steps: int
    variant: str
    target_bytes: int
    vector_bytes: int
    size_bytes: int
    psnr_db: float
    ssim: float


class VectorEncoder(nn.Module):
    """Latents of the block transform, [B, C, T, h, w] in deviations → symbols float [B, k] of fixed spread, not rounded
    yet.

    log_delta: ln of the step size, of factor entries.
    """

    def __init__(self, channels: int, vector_length: int, width: int = 96, grid: int = 4) -> None:
        super().__init__()
        self.spatial = nn.Sequential(
            nn.Conv2d(2 * channels, width, 3, padding=1), nn.GELU(), nn.Conv2d(width, width, 3, padding=1), nn.GELU()
        )
        self.pool = nn.AdaptiveAvgPool2d(grid)
        self.head = nn.Sequential(
            nn.Linear(width * grid * grid, 4 * width), nn.GELU(), nn.Linear(4 * width, vector_length)
        )
        self.log_delta = nn.Parameter(torch.tensor(math.log(0.02)))

    def forward(self, latents: Tensor) -> Tensor:
        """The first frame's channels and the mean of the others' (their group's means and motion), side by side."""
        first, rest = latents[:, :, 0], latents[:, :, 1:]
        later = rest.mean(dim=2) if rest.shape[2] else torch.zeros_like(first)
        pooled = self.pool(self.spatial(torch.cat([first, later], dim=1)))
        return _SPREAD * nn.functional.layer_norm(self.head(pooled.flatten(1)), (self.head[-1].out_features,))


class _Trained:
    """The model and the encoder, trained together, and the updates that join them."""

    def __init__(self, backbone: PocketBackbone, vector_length: int) -> None:
        self.backbone = backbone
        self.completed = CompletedTransformer(backbone.transformer, backbone._detail)
        self.updates = BatchedUpdates(backbone.adaptable_linears("qkvo", 0), vector_length=vector_length, seed=0)
        torch.manual_seed(_SEED)
        self.encoder = VectorEncoder(backbone.vae.config.latent_channels, vector_length)
        self.n_steps = 0

    def symbols(self, frames: Tensor) -> Tensor:
        """Rounded symbols [B, k] of frames [B, 3, F, H, W] in [-1, 1], straight through."""
        x0 = self.backbone.vae.encode(frames)
        soft = self.encoder(x0 / self.backbone.vae.channel_std(x0.shape[2]))
        return soft + (soft.round() - soft).detach()

    def adapted(self, symbols: Tensor) -> AbstractContextManager[None]:
        """While inside, sample b of a batch sees the model with the vector of symbols [B, k], row b."""
        return self.updates.attached(symbols * self.encoder.log_delta.exp() * self.updates.entry_scale)

    def train(self, corpus: Corpus, path: Path, minutes: float) -> None:
        """Until `minutes` are over in all; continues the state in `path`. The averaged networks are what is kept."""
        backbone = self.backbone

        def loss_of_step(step: int) -> Tensor:
            batch = draw_batch(corpus, seed=_SEED, step=step, tokens_per_batch=_TOKENS)
            generator = step_generator(_SEED, step)
            t = draw_times(len(batch.frames), *_TIMES, generator)
            adapted = nullcontext()
            if float(torch.rand((), generator=generator)) >= _WITHOUT:
                adapted = self.adapted(self.symbols(batch.frames))
            with torch.autocast("cpu", torch.bfloat16), adapted:
                networks = (self.completed, backbone._text_encoder)
                return prediction_loss(*networks, backbone.vae, batch.frames, batch.captions, t, generator, _BETA)

        networks = [self.completed, self.encoder]
        optimizers = [
            torch.optim.AdamW(network.requires_grad_(True).parameters(), lr=lr, betas=(0.9, 0.98))
            for network, lr in zip(networks, _LR, strict=True)
        ]
        averages, self.n_steps = train_for(minutes, path, networks, optimizers, loss_of_step, ema=_EMA)
        for network, average in zip(networks, averages, strict=True):
            network.load_state_dict(average.state_dict())
            network.requires_grad_(False)


def _work(options: argparse.Namespace) -> int:
    if options.run is None or options.data is None:
        raise UsageError("give --data FOLDER and --run FOLDER")
    preset = resolve(load_preset(options.preset), {}, None)
    paths = media_paths(options)
    shipped, along = (backbone_of(preset, "cpu") for _ in range(2))
    model = shipped.fingerprint.hex()
    trained = _Trained(along, options.vector_length)
    trained.train(load_corpus(options.data), options.run / f"amortized-{options.vector_length}.pt", options.minutes)
    table = Table(options.out, AmortizedRow, model=model)
    for path in paths:
        item = read_item(path, options.preset, options.frames, None)
        targets = options.still_bytes if item.is_still else options.bytes
        for target_bytes in targets:
            for variant in ("shipped", "without", "with"):
                key = {"item": item.name, "frames": len(item.frames), "vector_length": options.vector_length}
                key |= {"train_steps": trained.n_steps, "variant": variant, "target_bytes": target_bytes}
                if not table.having(**key):
                    row = _measured(item, shipped if variant == "shipped" else along, trained, preset, key)
                    table.add(row)
                    print(f"{row.item}: {variant}, {row.size_bytes} B: {row.psnr_db:.2f} dB", file=sys.stderr)
    print(_means(table.rows))
    return 0


@torch.no_grad()
def _measured(item: Item, backbone, trained: _Trained, preset, key: dict) -> AmortizedRow:
    velocity, target = problem_of(item, backbone)
    vector_bytes, adapted = 0, nullcontext()
    if key["variant"] == "with":
        frames = torch.from_numpy(item.frames).permute(3, 0, 1, 2)[None].float() / 127.5 - 1.0
        symbols = trained.symbols(frames)
        vector_bytes = _HEADER_BYTES + coded_size(symbols[0].numpy().round().astype(int))
        adapted = trained.adapted(symbols)
    atoms_bytes = key["target_bytes"] - vector_bytes
    with adapted:
        _, _, latents = steer(
            velocity, target, plan_of_preset(preset, is_still=item.is_still), 0, size_bytes=atoms_bytes
        )
    decoded = backbone.to_frames(latents)[: len(item.frames)]
    return AmortizedRow(
        trained.backbone.fingerprint.hex(),
        **key,
        vector_bytes=vector_bytes,
        size_bytes=vector_bytes + atoms_bytes,
        psnr_db=round(psnr(item.frames, decoded), 3),
        ssim=round(ssim(item.frames, decoded), 5),
    )


def _means(rows: Sequence[AmortizedRow]) -> str:
    """Gains over the shipped model, by kind and target."""
    lines = []
    for is_still, target in sorted({(row.frames == 1, row.target_bytes) for row in rows}):
        here = [row for row in rows if (row.frames == 1, row.target_bytes) == (is_still, target)]
        plain = {row.item: row for row in here if row.variant == "shipped"}
        for variant in ("without", "with"):
            gains = [row.psnr_db - plain[row.item].psnr_db for row in here if row.variant == variant]
            vector = fmean(row.vector_bytes for row in here if row.variant == variant)
            kind = "still" if is_still else "clip"
            lines.append(
                f"{kind} {target} bytes, {variant} vector ({vector:.0f} B): {fmean(gains):+.2f} dB on {len(gains)}"
            )
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> int:
    """The command; returns its exit code."""
    parser = media_parser("amortized", "A vector that a network predicts, against steering alone.")
    parser.add_argument("--data", type=Path, help="training photographs and clips")
    parser.add_argument("--run", type=Path, help="where the training is kept")
    parser.add_argument("--vector-length", type=int, default=64)
    parser.add_argument("--minutes", type=float, default=20.0, help="of training, in all")
    parser.add_argument("--bytes", type=byte_counts, default=[400, 800, 1500], help="targets for clips")
    parser.add_argument("--still-bytes", type=byte_counts, default=[200, 500], help="targets for pictures")
    return run("amortized", _work, parser.parse_args(arguments))


if __name__ == "__main__":
    sys.exit(main())
