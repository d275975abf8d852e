"""The two stages of completion.py: the network of pictures and the network of clips, and how their spaces are fitted.

A space's colours are the principal components of the training set's; its spectrum, for each of them, the power law that
fits the logarithm of the mean energy of DCT coefficients best.
"""

from __future__ import annotations

import itertools
import math

import torch
from torch import Tensor

from vovcodec.backbone.pocket.block_transform import GROUP_FRAMES, BlockTransformAutoencoder
from vovcodec.backbone.pocket.clips import MOST_NOISE_LAST, ClipNetwork
from vovcodec.backbone.pocket.completion import dct_matrix
from vovcodec.backbone.pocket.pictures import PictureNetwork
from vovcodec.pretraining.batches import BatchShape, draw_batch
from vovcodec.pretraining.completion import CompletionStage
from vovcodec.pretraining.corpus import Corpus

__all__ = ["CLIPS", "PICTURES", "fit_clip_space", "fit_picture_space"]

_BANDS = 30


def _crops(corpus: Corpus, shape: BatchShape, seed: int, n_batches: int, tokens: int) -> Tensor:
    batches = [
        draw_batch(corpus, seed=seed + 5, step=i, tokens_per_batch=tokens, shapes=(shape,)) for i in range(n_batches)
    ]
    return torch.cat([batch.frames for batch in batches])


def _principal_colours(frames: Tensor) -> Tensor:
    flat = frames.transpose(0, 1).flatten(1)
    colours = torch.linalg.eigh(flat @ flat.T / flat.shape[1]).eigenvectors.T.flip(0)
    return colours * torch.sign(colours.sum(1, keepdim=True))


def _banded(energy: Tensor, n: int) -> tuple[Tensor, Tensor]:
    """Mean squared frequency of 30 bands, and the logarithm of the mean of `energy` [..., n, n] in each, [..., bands]
    float64."""
    axis = torch.arange(n, dtype=torch.float64) / (2 * n)
    square = (axis[:, None].square() + axis[None, :].square()).flatten()
    band = torch.bucketize(square, torch.logspace(math.log10(1 / (2 * n) ** 2), math.log10(0.5), _BANDS).double())
    flat = energy.flatten(-2)
    mean_square = torch.stack([square[band == i].mean() for i in band.unique()])
    return mean_square, torch.stack([flat[..., band == i].mean(-1).log() for i in band.unique()], -1).double()


def _power_law(log_energy: Tensor, *terms: Tensor) -> tuple[float, list[float]]:
    """Mean squared error and (ln a, p, …) of the best ln a − Σ p_i·ln(terms_i); all flat and of one length."""
    design = torch.stack([torch.ones_like(log_energy), *(-torch.log(term) for term in terms)], 1)
    solution = torch.linalg.lstsq(design, log_energy[:, None]).solution[:, 0]
    return (design @ solution - log_energy).square().mean().item(), solution.tolist()


@torch.no_grad()
def fit_picture_space(
    network: PictureNetwork,
    autoencoder: BlockTransformAutoencoder,
    corpus: Corpus,
    seed: int,
    *,
    n_batches: int = 40,
) -> None:
    """Fits colours, spectrum and variance to crops of 128×128."""
    frames = _crops(corpus, BatchShape(1, 128, 128, 1.0), seed, n_batches, 64 * 16)
    network.colours.copy_(_principal_colours(frames))
    rotated = torch.einsum("ij,bjhw->bihw", network.colours, frames[:, :, 0])
    matrix = dct_matrix(128)
    square, log_energy = _banded((matrix @ rotated @ matrix.T).square().mean(0), 128)
    for colour in range(3):
        fits = []
        for f0 in torch.logspace(-3, -1, 40).tolist():
            error, (log_a, p) = _power_law(log_energy[colour], square + f0 * f0)
            fits.append((error, log_a, f0, p))
        network.spectrum[colour] = torch.tensor(min(fits)[1:])
    network.variance.fill_(network.encode(frames).var())


@torch.no_grad()
def fit_clip_space(
    network: ClipNetwork,
    autoencoder: BlockTransformAutoencoder,
    corpus: Corpus,
    seed: int,
    *,
    n_batches: int = 40,
) -> None:
    """Fits colours, spectrum and variance to crops of 17×96×96; the spectrum to stretches of four frames, so that the
    damping is that of the block transform."""
    frames = _crops(corpus, BatchShape(17, 96, 96, 1.0), seed, n_batches, 180 * 2)
    network.colours.copy_(_principal_colours(frames))
    rotated = torch.einsum("ij,bjthw->bithw", network.colours, frames)
    groups = rotated[:, :, 1:].unflatten(2, (-1, GROUP_FRAMES)).transpose(1, 2).flatten(0, 1)
    in_space, in_time = dct_matrix(96), dct_matrix(GROUP_FRAMES)
    spectrum = torch.einsum("ts,bcshw->bcthw", in_time, in_space @ groups @ in_space.T)
    square, log_energy = _banded(spectrum.square().mean(0), 96)  # [bands], [3, 4, bands]
    times = (torch.arange(GROUP_FRAMES, dtype=torch.float64) / (2 * GROUP_FRAMES)).square()
    squares, times = square.repeat(GROUP_FRAMES), times.repeat_interleave(len(square))
    candidates = list(itertools.product(torch.logspace(-3, -1, 24).tolist(), torch.logspace(-2.5, 0, 24).tolist()))
    for colour in range(3):
        fits = []
        for f0, g0 in candidates:
            error, (log_a, p, q) = _power_law(log_energy[colour].flatten(), squares + f0 * f0, times + g0 * g0)
            fits.append((error, log_a, f0, p, g0, q))
        network.spectrum[colour] = torch.tensor(min(fits)[1:])
    network.variance.fill_(network.encode(frames)[:, :, 1:].var())
    network.fit_block_gains(frames, autoencoder)


PICTURES = CompletionStage(
    name="pictures",
    network_class=PictureNetwork,
    make=lambda _: PictureNetwork(),
    fit_space=fit_picture_space,
    shapes=(
        BatchShape(1, 64, 64, 1.0),
        BatchShape(1, 128, 128, 4.0),
        BatchShape(1, 128, 192, 3.0),
        BatchShape(1, 192, 192, 1.0),
    ),
    tokens_per_batch=512,
    lr=1e-3,
    lr_matrices=0.0,
    logit_mean=-1.7,
    logit_std=1.0,
    most_noise=1.0,
    relative=False,
    seed_offset=59,
)

CLIPS = CompletionStage(
    name="clips",
    network_class=ClipNetwork,
    make=lambda autoencoder: ClipNetwork(block_channels=autoencoder.config.latent_channels),
    fit_space=fit_clip_space,
    shapes=(
        BatchShape(5, 96, 96, 0.5),
        BatchShape(9, 96, 96, 0.5),
        BatchShape(17, 96, 96, 2.0),
        BatchShape(33, 64, 64, 1.0),
        BatchShape(33, 96, 96, 3.0),
        BatchShape(33, 128, 128, 1.0),
    ),
    tokens_per_batch=384,
    lr=1.2e-3,
    lr_matrices=0.012,
    logit_mean=-1.6,
    logit_std=0.75,
    most_noise=MOST_NOISE_LAST,
    relative=True,
    seed_offset=83,
)
