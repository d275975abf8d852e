"""Trains one design of autoencoder, then a flow-matching transformer on its latents, each for so many minutes.

Autoencoder: Charbonnier loss and a small Kullback-Leibler term,

    loss = mean(√(e² + ε²) − ε) + β·KL,   e = decoded − frames,

KL in nats per pixel value, so that β is the same price of information for all designs. Transformer: objective and
optimisers of pretraining.transformer, on latents that are computed once; the encoder takes none of its minutes.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

import torch
from diffusers import AutoencoderKLWan
from torch import Tensor

from vovcodec.backbone.pocket.block_transform import BlockTransformAutoencoder
from vovcodec.backbone.pocket.precondition import precondition
from vovcodec.bench.autoencoder_designs import Design, MetricAutoencoder, build_autoencoder
from vovcodec.bench.timed_training import step_generator, train_for
from vovcodec.pretraining.autoencoder import fit_basis
from vovcodec.pretraining.batches import BatchShape, draw_batch
from vovcodec.pretraining.corpus import Corpus
from vovcodec.pretraining.transformer import (
    TransformerRecipe,
    build_networks,
    draw_times,
    latent_loss,
    make_optimizers,
    predict,
)
from vovcodec.sampling.sampler import Velocity

__all__ = ["Autoencoder", "decoder_parameters", "latent_prior", "trained_autoencoder"]

Autoencoder = BlockTransformAutoencoder | MetricAutoencoder

# Clips as long as those measured: networks that had seen nine frames at most fell from 23 to 12 dB beyond them.
_SHAPES = (
    BatchShape(1, 64, 64, 1.0),
    BatchShape(5, 64, 64, 1.0),
    BatchShape(9, 64, 64, 1.0),
    BatchShape(33, 32, 32, 1.0),
)
_TOKENS_PER_BATCH = 64
_BASIS_BATCHES = 150
# Few positions give a deep design's 96 channels a covariance that holds for these positions only.
_METRIC_SHAPES = (BatchShape(33, 64, 64, 1.0), BatchShape(1, 128, 192, 1.0))
_METRIC_BATCHES, _METRIC_TOKENS = 128, 144
_EPSILON = 0.1  # of values in [−1, 1]: squared error below, absolute above
_BETA = 0.005
_LR = 3e-3
_EMA = 0.995

# Sizes of the clips and pictures that are steered, and smaller ones.
_LATENT_SHAPES = (
    BatchShape(1, 128, 192, 1.5),
    BatchShape(9, 128, 128, 1.0),
    BatchShape(33, 96, 96, 1.0),
    BatchShape(33, 128, 208, 2.0),
)
_LATENT_BATCHES = 48
_RECIPE = TransformerRecipe(width=192, heads=4, layers=4, ffn=512, text_width=64, text_layers=1, tokens_per_batch=1000)

_Kept = TypeVar("_Kept")


def _kept(path: Path, make: Callable[[], _Kept]) -> _Kept:
    """What an earlier call left in `path`, else what `make` returns, left there."""
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        torch.save(make(), path.with_suffix(".tmp"))
        path.with_suffix(".tmp").replace(path)
    return torch.load(path, map_location="cpu", weights_only=True)


def _loss(network: AutoencoderKLWan, frames: Tensor, generator: torch.Generator) -> Tensor:
    with torch.autocast("cpu", torch.bfloat16):
        posterior = network.encode(frames).latent_dist
        decoded = network.decode(posterior.sample(generator)).sample
    error = decoded.float() - frames
    information = posterior.kl().float().sum() / frames.numel()
    return ((error.square() + _EPSILON**2).sqrt() - _EPSILON).mean() + _BETA * information


def trained_autoencoder(
    design: Design, corpus: Corpus, run_dir: Path, minutes: float, seed: int
) -> tuple[Autoencoder, int]:
    """The design's autoencoder, trained or read from `run_dir`, and its steps; the block transform is fitted in closed
    form, whatever the minutes."""
    if design.config is None:
        if not (run_dir / "basis").is_dir():
            fitted = BlockTransformAutoencoder()
            fit_basis(fitted, corpus, seed=seed, n_batches=_BASIS_BATCHES)
            fitted.save_pretrained(run_dir / "basis")
        return BlockTransformAutoencoder.from_pretrained(run_dir / "basis"), 0
    network = build_autoencoder(design, seed)
    optimizer = torch.optim.AdamW(network.parameters(), lr=_LR, betas=(0.9, 0.98), weight_decay=0.0)

    def loss_of_step(step: int) -> Tensor:
        batch = draw_batch(corpus, seed=seed, step=step, tokens_per_batch=_TOKENS_PER_BATCH, shapes=_SHAPES)
        return _loss(network, batch.frames, step_generator(seed, step))

    (average,), n_steps = train_for(minutes, run_dir / "autoencoder.pt", [network], [optimizer], loss_of_step, ema=_EMA)
    autoencoder = MetricAutoencoder(average)

    def metric() -> dict[str, Tensor]:
        batches = (
            draw_batch(corpus, seed=seed + 1, step=i, tokens_per_batch=_METRIC_TOKENS, shapes=_METRIC_SHAPES).frames
            for i in range(_METRIC_BATCHES)
        )
        autoencoder.fit_metric(batches, seed)
        return dict(autoencoder.named_buffers(recurse=False))

    autoencoder.load_state_dict(_kept(run_dir / "metric.pt", metric), strict=False)
    return autoencoder, n_steps


def decoder_parameters(autoencoder: Autoencoder) -> int:
    """How many numbers decoding needs."""
    if isinstance(autoencoder, BlockTransformAutoencoder):
        return sum(
            autoencoder.get_buffer(f"{kind}_{name}").numel()
            for kind in ("intra", "inter")
            for name in ("basis", "weight")
        )
    parts = (autoencoder.network.decoder, autoencoder.network.post_quant_conv)
    return sum(each.numel() for part in parts for each in part.parameters())


def latent_prior(
    autoencoder: Autoencoder, patch_size: int, corpus: Corpus, run_dir: Path, minutes: float, seed: int
) -> tuple[Velocity, int]:
    """The velocity of a transformer trained, or read from `run_dir`, on the autoencoder's latents; and its steps.

    patch_size: of its tokens, in latent positions. Every design sees the same batches as often as its minutes allow.
    """

    @torch.no_grad()
    def latents() -> list[Tensor]:
        batches = (
            draw_batch(corpus, seed=seed, step=i, tokens_per_batch=_RECIPE.tokens_per_batch, shapes=_LATENT_SHAPES)
            for i in range(_LATENT_BATCHES)
        )
        return [autoencoder.encode(batch.frames).bfloat16() for batch in batches]

    pool = _kept(run_dir / "latents.pt", latents)
    networks = build_networks(replace(_RECIPE, seed=seed), autoencoder.config.latent_channels, patch_size)

    def loss_of_step(step: int) -> Tensor:
        x0, generator = pool[step % len(pool)].float(), step_generator(seed, step)
        t = draw_times(len(x0), _RECIPE.logit_mean, _RECIPE.logit_std, generator)
        std = autoencoder.channel_std(x0.shape[2])
        with torch.autocast("cpu", torch.bfloat16):
            return latent_loss(networks, x0, std, [""] * len(x0), t, generator, _RECIPE.beta)

    averages, n_steps = train_for(
        minutes,
        run_dir / "transformer.pt",
        networks,
        make_optimizers(*networks, _RECIPE),
        loss_of_step,
        ema=_RECIPE.ema,
    )

    @torch.no_grad()
    def velocity(x_t: Tensor, t: float) -> Tensor:
        times = torch.full((len(x_t),), t)
        coefficients = precondition(times, autoencoder.channel_std(x_t.shape[2]))
        prediction = predict(averages, x_t, times, [""] * len(x_t), coefficients)
        return (x_t - coefficients.c_skip * x_t - coefficients.c_out * prediction) / max(t, 1e-4)

    return velocity, n_steps
