"""The embedded model's autoencoder: an orthonormal block transform whose detail is damped.

Geometry is that of the Wan autoencoder: time stride 4 with the first frame on its own (F = 4n+1 frames become
n+1 latent frames), space stride 8. A group of four frames is cut into 4×8×8×3 blocks; each block is projected on
C orthonormal basis vectors (a separable Karhunen-Loève transform: spatial principal components ⊗ temporal DCT-II).
The first frame is cut into 8×8×3 blocks with a basis of its own, scaled by 2 as if the frame stood still for four.

Latents keep the natural spread of the coefficients, coarse structure has large variance and detail small variance, so
that diffusion resolves pictures from coarse to fine. Steering spends bits wherever noise is resolved, and at the noise
level where a file's bits run out small coefficients cost more than they give: the best code of a Gaussian source
leaves all below the water level alone (reverse water-filling, Cover & Thomas, section 10.3.3). Coefficients of variance
λ are therefore damped by

    w² = λ / (λ + k·median λ),

which keeps the large ones as they are and shows the small ones to the sampler at a λ times lower signal-to-noise ratio.
"""

from __future__ import annotations

import torch
from torch import Tensor

from vovcodec.backbone.pocket.stored import StoredNetwork

__all__ = ["BLOCK_PX", "GROUP_FRAMES", "BlockTransformAutoencoder", "inter_blocks", "intra_blocks"]

BLOCK_PX = 8
GROUP_FRAMES = 4


def intra_blocks(frames: Tensor) -> Tensor:
    """Cut single frames into blocks: [B, 3, H, W] → [B, H/8, W/8, 192], element order (channel, row, column)."""
    b, c, height, width = frames.shape
    x = frames.reshape(b, c, height // BLOCK_PX, BLOCK_PX, width // BLOCK_PX, BLOCK_PX)
    return x.permute(0, 2, 4, 1, 3, 5).reshape(b, height // BLOCK_PX, width // BLOCK_PX, -1)


def inter_blocks(frames: Tensor) -> Tensor:
    """Cut groups of four frames: [B, 3, 4n, H, W] → [B, n, H/8, W/8, 768], order (frame, channel, row, column)."""
    b, c, n_frames, height, width = frames.shape
    n, h, w = n_frames // GROUP_FRAMES, height // BLOCK_PX, width // BLOCK_PX
    x = frames.reshape(b, c, n, GROUP_FRAMES, h, BLOCK_PX, w, BLOCK_PX)
    return x.permute(0, 2, 4, 6, 3, 1, 5, 7).reshape(b, n, h, w, -1)


def _intra_unblock(blocks: Tensor) -> Tensor:
    b, h, w, _ = blocks.shape
    x = blocks.reshape(b, h, w, 3, BLOCK_PX, BLOCK_PX).permute(0, 3, 1, 4, 2, 5)
    return x.reshape(b, 3, 1, h * BLOCK_PX, w * BLOCK_PX)


def _inter_unblock(blocks: Tensor) -> Tensor:
    b, n, h, w, _ = blocks.shape
    x = blocks.reshape(b, n, h, w, GROUP_FRAMES, 3, BLOCK_PX, BLOCK_PX).permute(0, 5, 1, 4, 2, 6, 3, 7)
    return x.reshape(b, 3, n * GROUP_FRAMES, h * BLOCK_PX, w * BLOCK_PX)


class BlockTransformAutoencoder(StoredNetwork):
    """Block transform (encoder) and its inverse (decoder).

    Args:
        latent_channels: C, coefficients kept per block.
        latent_scale: g, the factor from orthonormal coefficients of pixels in [−1, 1] to undamped latents.
        damping: k of the module's docstring, used when the basis is fitted; 0 = no damping.

    Buffers `intra_basis` [C, 192] and `inter_basis` [C, 768] have orthonormal rows; `intra_weight` and `inter_weight`
    [C] are the damping factors w; `intra_std` and `inter_std` [C] hold the standard deviation of each latent channel
    (damped) on the training set.
    """

    def __init__(self, latent_channels: int = 64, latent_scale: float = 0.25, damping: float = 10.0):
        super().__init__()
        if not latent_scale:
            raise ValueError("latent_scale must not be 0")
        area = 3 * BLOCK_PX * BLOCK_PX
        self.register_buffer("intra_basis", torch.eye(latent_channels, area))
        self.register_buffer("inter_basis", torch.eye(latent_channels, area * GROUP_FRAMES))
        for name in ("intra_weight", "inter_weight", "intra_std", "inter_std"):
            self.register_buffer(name, torch.ones(latent_channels))

    def encode(self, frames: Tensor) -> Tensor:
        """Frames [B, 3, 4n+1, H, W] in [−1, 1], H and W multiples of 8 → latents [B, C, n+1, H/8, W/8]."""
        gain = self.config.latent_scale
        # The first frame counts as four equal ones: √4 times the coefficients of one.
        first = intra_blocks(frames[:, :, 0]) @ self.intra_basis.T * (2.0 * gain * self.intra_weight)
        latents = first[:, None]
        if frames.shape[2] > 1:
            rest = inter_blocks(frames[:, :, 1:]) @ self.inter_basis.T * (gain * self.inter_weight)
            latents = torch.cat([latents, rest], dim=1)
        return latents.permute(0, 4, 1, 2, 3).contiguous()

    def decode(self, latents: Tensor) -> Tensor:
        """Latents [B, C, n+1, h, w] → frames [B, 3, 4n+1, 8h, 8w] clamped to [−1, 1]."""
        gain = self.config.latent_scale
        x = latents.permute(0, 2, 3, 4, 1)
        frames = _intra_unblock((x[:, 0] / (2.0 * gain * self.intra_weight)) @ self.intra_basis)
        if x.shape[1] > 1:
            frames = torch.cat([frames, _inter_unblock((x[:, 1:] / (gain * self.inter_weight)) @ self.inter_basis)], 2)
        return frames.clamp(-1.0, 1.0)

    def channel_std(self, n_latent_frames: int) -> Tensor:
        """Standard deviation per channel and latent frame, [1, C, T, 1, 1]."""
        std = self.inter_std[:, None].repeat(1, n_latent_frames)
        std[:, 0] = self.intra_std
        return std[None, :, :, None, None]
