"""Fits the embedded model's block transform in closed form.

Basis: the spatial Karhunen-Loève transform U (eigenvectors of the covariance of 8×8×3 blocks) tensor the four-point
DCT-II in time; of the 4·192 products the C with the largest variance on clips are kept. The first frame's channels
repeat the spatial part of every product that is constant in time, and fill the rest with further columns of U.
"""

from __future__ import annotations

import math

import numpy as np
import torch

from vovcodec.backbone.pocket.block_transform import (
    GROUP_FRAMES,
    BlockTransformAutoencoder,
    inter_blocks,
    intra_blocks,
)
from vovcodec.backbone.pocket.clips import ClipNetwork
from vovcodec.pretraining.batches import BatchShape, draw_batch
from vovcodec.pretraining.corpus import Corpus

__all__ = ["fit_basis", "reconstruction_psnr"]

_BASIS_SHAPES = (BatchShape(1, 128, 128, 1.0), BatchShape(9, 128, 128, 2.0))


def _temporal_dct() -> torch.Tensor:
    """Orthonormal DCT-II of length 4, rows are basis vectors."""
    n = torch.arange(GROUP_FRAMES, dtype=torch.float64)
    basis = torch.cos(math.pi / GROUP_FRAMES * (n[None, :] + 0.5) * n[:, None]) * math.sqrt(2 / GROUP_FRAMES)
    basis[0] /= math.sqrt(2)
    return basis


def fit_basis(model: BlockTransformAutoencoder, corpus: Corpus, *, seed: int, n_batches: int = 150) -> None:
    """Set bases, damping and channel deviations from `n_batches` training batches, in closed form; deterministic."""
    batches = [
        draw_batch(corpus, seed=seed, step=i, tokens_per_batch=1200, shapes=_BASIS_SHAPES).frames
        for i in range(n_batches)
    ]
    singles = torch.cat([intra_blocks(x[:, :, 0]).reshape(-1, 192) for x in batches]).double()
    _, vectors = torch.linalg.eigh(singles.T @ singles / len(singles))
    spatial = vectors.flip(1).T  # rows, by falling variance
    spatial = spatial * torch.where(spatial.sum(1, keepdim=True) < 0, -1.0, 1.0)

    groups = torch.cat([inter_blocks(x[:, :, 1:]).reshape(-1, GROUP_FRAMES, 192) for x in batches if x.shape[2] > 1])
    coefficients = torch.einsum("kt,bta,ja->bkj", _temporal_dct(), groups.double(), spatial)
    variance = coefficients.square().mean(0)  # [temporal, spatial]
    n_channels = model.config.latent_channels
    order = np.argsort(-variance.flatten().numpy(), kind="stable")[:n_channels]
    pairs = [divmod(int(i), variance.shape[1]) for i in order]
    dct = _temporal_dct()
    inter = torch.stack([torch.outer(dct[k], spatial[j]).flatten() for k, j in pairs])
    constant = [j for k, j in pairs if k == 0]
    spare = iter(j for j in range(len(spatial)) if j not in set(constant))
    intra_index = [j if k == 0 else next(spare) for k, j in pairs]
    model.inter_basis.copy_(inter)
    model.intra_basis.copy_(spatial[intra_index])
    gain = model.config.latent_scale
    inter_variance = gain**2 * variance.flatten()[torch.from_numpy(order)]
    intra_variance = (2 * gain) ** 2 * (singles @ spatial[intra_index].T).square().mean(0)
    middle = model.config.damping * torch.cat([intra_variance, inter_variance]).median()
    for name, power in (("intra", intra_variance), ("inter", inter_variance)):
        weight = (power / (power + middle)).sqrt()
        getattr(model, f"{name}_weight").copy_(weight)
        getattr(model, f"{name}_std").copy_(weight * power.sqrt())


@torch.no_grad()
def reconstruction_psnr(model: BlockTransformAutoencoder | ClipNetwork, clips: list[torch.Tensor]) -> float:
    """Mean PSNR in dB of clips [1, 3, F, H, W] through encode and decode."""
    errors = [(model.decode(model.encode(frames)) - frames).square().mean().item() for frames in clips]
    return float(np.mean([-10 * math.log10(error / 4 + 1e-12) for error in errors]))
