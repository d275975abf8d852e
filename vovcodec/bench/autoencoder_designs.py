"""Autoencoders to compare with the embedded model's block transform: designs of the Wan class, trained here.

All keep the Wan geometry in time (4n+1 frames become n+1 latent frames). Widths are chosen so that decoding takes
about as long for all of them.

A trained autoencoder's latents have no scale of their own and its channels matter unequally, while steering counts
latent errors as pixel errors. Its latents z are therefore turned into the decoder's pixel metric: with
G = E[JᵀJ], J the decoder's Jacobian with respect to one position's channels, and Σ the channels' covariance,

    y = Vᵀ·G^½·(z − mean),   V the eigenvectors of G^½·Σ·G^½,

so that to first order, and but for the overlap of neighbours, errors of y are errors of pixels and its channels are
uncorrelated: what the block transform has by construction. Scale, weight of the first frame and damping are the block
transform's too.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import torch
from diffusers import AutoencoderKLWan
from torch import Tensor, nn

__all__ = ["DESIGNS", "Design", "MetricAutoencoder", "build_autoencoder"]

_LATENT_SCALE = 0.25  # as in the embedded model's block transform
_WATER_LEVEL = 0.0758  # k·median λ of that transform: the variance at which damping begins
_LEAST_SENSITIVITY = 1e-6  # of the most sensitive direction: what the decoder ignores must not divide by zero


@dataclass(frozen=True)
class Design:
    """space_stride: pixels per latent position along each side; patch_size: latent positions per transformer token,
    along each side. config: of AutoencoderKLWan; None for the block transform."""

    title: str
    space_stride: int = 8
    patch_size: int = 2
    config: dict[str, Any] | None = field(default=None)


def _space_to_depth(patch_px: int, **config: Any) -> dict[str, Any]:
    """Pixels of a patch are channels, as in the autoencoder of Wan 2.2."""
    channels = 3 * patch_px**2
    levels = {"dim_mult": [1, 2, 2], "temperal_downsample": [True, True]}
    return levels | {"patch_size": patch_px, "in_channels": channels, "out_channels": channels} | config


DESIGNS = {
    "block": Design("linear block transform, 4x8x8, 64 channels"),
    "wan": Design(
        "small Wan autoencoder, 4x8x8, 16 channels",
        config={"base_dim": 8, "z_dim": 16, "dim_mult": [1, 2, 4, 4], "temperal_downsample": [False, True, True]},
    ),
    "s2d": Design("space-to-depth input, 4x8x8, 32 channels", config=_space_to_depth(2, base_dim=24, z_dim=32)),
    "deep": Design(
        "deep compression, 4x16x16, 96 channels",
        space_stride=16,
        patch_size=1,
        config=_space_to_depth(4, base_dim=48, z_dim=96),
    ),
}


def build_autoencoder(design: Design, seed: int) -> AutoencoderKLWan:
    """The design's network with seeded initial weights, in the memory layout that is fastest on processors."""
    torch.manual_seed(seed)
    z_dim = design.config["z_dim"]
    network = AutoencoderKLWan(
        num_res_blocks=1,
        is_residual=True,  # shortcuts without parameters: without them these few minutes teach little
        latents_mean=[0.0] * z_dim,
        latents_std=[1.0] * z_dim,
        scale_factor_spatial=design.space_stride,
        **design.config,
    )
    # Posteriors start narrow: otherwise the first steps only learn to see through their noise.
    nn.init.constant_(network.quant_conv.bias[z_dim:], -6.0)
    for module in network.modules():
        if isinstance(module, nn.Conv3d):
            module.weight.data = module.weight.data.contiguous(memory_format=torch.channels_last_3d)
        elif isinstance(module, nn.Conv2d):
            module.weight.data = module.weight.data.contiguous(memory_format=torch.channels_last)
    return network


class MetricAutoencoder(nn.Module):
    """A trained autoencoder whose latents are in the pixel metric of the module's docstring; used as the block
    transform is. Row 0 of each buffer is for the first latent frame, row 1 for all others."""

    def __init__(self, network: AutoencoderKLWan) -> None:
        super().__init__()
        self.network = network.eval().requires_grad_(False)
        n_channels = network.config.z_dim
        self.config = SimpleNamespace(latent_channels=n_channels)
        self.register_buffer("mean", torch.zeros(2, n_channels))
        self.register_buffer("std", torch.ones(2, n_channels))
        self.register_buffer("to_metric", torch.eye(n_channels).repeat(2, 1, 1))
        self.register_buffer("from_metric", torch.eye(n_channels).repeat(2, 1, 1))

    def _autocast(self) -> torch.autocast:
        native = torch.cpu._is_avx512_bf16_supported()
        return torch.autocast("cpu", torch.bfloat16, enabled=native)

    def _raw_latents(self, frames: Tensor) -> Tensor:
        with self._autocast():
            return self.network.encode(frames).latent_dist.mean.float()

    def _raw_frames(self, z: Tensor) -> Tensor:
        with self._autocast():
            return self.network.decode(z).sample.float()

    def encode(self, frames: Tensor) -> Tensor:
        """Frames [B, 3, 4n+1, H, W] in [−1, 1] → latents [B, C, n+1, h, w]."""
        z = self._raw_latents(frames)
        index = _frame_index(z.shape[2])
        return torch.einsum("tcd,bdthw->bcthw", self.to_metric[index], z - _per_frame(self.mean, index))

    def decode(self, latents: Tensor) -> Tensor:
        """Latents [B, C, n+1, h, w] → frames [B, 3, 4n+1, H, W] in [−1, 1]."""
        index = _frame_index(latents.shape[2])
        z = torch.einsum("tcd,bdthw->bcthw", self.from_metric[index], latents)
        return self._raw_frames(z + _per_frame(self.mean, index))

    def channel_std(self, n_latent_frames: int) -> Tensor:
        """Standard deviation per channel and latent frame, [1, C, T, 1, 1]."""
        return _per_frame(self.std, _frame_index(n_latent_frames))

    def fit_metric(self, batches: Iterable[Tensor], seed: int) -> None:
        """Measure G, mean and Σ on training frames [B, 3, F, H, W], some of them clips.

        For u with independent entries ±1, E[(Jᵀu)(Jᵀu)ᵀ] = JᵀJ: one backward pass per batch.
        """
        generator = torch.Generator().manual_seed(seed)
        values: tuple[list[Tensor], list[Tensor]] = ([], [])
        gradients: tuple[list[Tensor], list[Tensor]] = ([], [])
        for frames in batches:
            with torch.no_grad():
                z = self._raw_latents(frames)
            z.requires_grad_(True)
            with torch.enable_grad():
                decoded = self._raw_frames(z)
                probe = torch.randint(0, 2, decoded.shape, generator=generator) * 2.0 - 1.0
                (gradient,) = torch.autograd.grad((decoded * probe).sum(), z)
            for kept, each in ((values, z.detach()), (gradients, gradient)):
                kept[0].append(_positions(each[:, :, :1]))
                kept[1].append(_positions(each[:, :, 1:]))
        for row, scale in enumerate((2 * _LATENT_SCALE, _LATENT_SCALE)):
            z, gradient = torch.cat(values[row]).double(), torch.cat(gradients[row]).double()
            sensitivity, axes = torch.linalg.eigh(gradient.T @ gradient / len(gradient))
            root = sensitivity.clamp_min(_LEAST_SENSITIVITY * float(sensitivity[-1])).sqrt()
            metric, inverse = axes * root @ axes.T, axes / root @ axes.T
            variance, basis = torch.linalg.eigh(scale**2 * metric @ torch.cov(z.T) @ metric)
            variance, basis = variance.flip(0).clamp_min(1e-12), basis.flip(1)
            weight = (variance / (variance + _WATER_LEVEL)).sqrt()
            self.mean[row] = z.mean(0)
            self.std[row] = weight * variance.sqrt()
            self.to_metric[row] = scale * weight[:, None] * (basis.T @ metric)
            self.from_metric[row] = inverse @ basis / (scale * weight)


def _frame_index(n_latent_frames: int) -> Tensor:
    return torch.arange(n_latent_frames).clamp_max(1)


def _per_frame(rows: Tensor, index: Tensor) -> Tensor:
    """[2, C] → [1, C, T, 1, 1]."""
    return rows[index].T[None, :, :, None, None]


def _positions(volume: Tensor) -> Tensor:
    """[B, C, T, h, w] → [B·T·h·w, C]."""
    return volume.movedim(1, -1).flatten(0, -2)
