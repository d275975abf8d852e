"""The embedded model's autoencoder: an orthonormal block transform with a small convolutional decoder.

Geometry is that of the Wan autoencoder: time stride 4 with the first frame on its own (F = 4n+1 frames become
n+1 latent frames), space stride 8. A group of four frames is cut into 4×8×8×3 blocks; each block is projected on
C orthonormal basis vectors (a separable Karhunen-Loève transform: spatial principal components ⊗ temporal DCT-II).
The first frame is cut into 8×8×3 blocks with a basis of its own, scaled by 2 as if the frame stood still for four.

Because the rows are orthonormal, squared error in latents *is* squared error in pixels up to one constant, so
that a latent residual can be scored, quantised or steered without asking the decoder (Parseval). Latents keep the
natural spread of the coefficients: coarse structure has large variance, detail small variance, and white noise in
latents is white noise in pixels. Diffusion then resolves pictures from coarse to fine.

The decoder inverts the transform and adds a residual predicted by a small convolutional network, which removes
block edges and restores part of what the dropped coefficients held.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from diffusers.configuration_utils import ConfigMixin, register_to_config
from diffusers.models.modeling_utils import ModelMixin
from torch import Tensor, nn

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


class _ResidualBlock(nn.Module):
    """Two spatial convolutions with a depthwise temporal one between them; zero-initialised last layer."""

    def __init__(self, width: int):
        super().__init__()
        self.spatial_in = nn.Conv2d(width, 2 * width, 3, padding=1)
        self.temporal = nn.Conv3d(2 * width, 2 * width, (3, 1, 1), padding=(1, 0, 0), groups=2 * width)
        self.spatial_out = nn.Conv2d(2 * width, width, 3, padding=1)
        nn.init.zeros_(self.spatial_out.weight)
        nn.init.zeros_(self.spatial_out.bias)

    def forward(self, x: Tensor, n_frames: int) -> Tensor:
        """x: [B·F, width, H, W]; the temporal convolution sees frames of one clip only."""
        hidden = F.gelu(self.spatial_in(x), approximate="tanh")
        volume = hidden.unflatten(0, (-1, n_frames)).transpose(1, 2)
        hidden = hidden + self.temporal(volume).transpose(1, 2).flatten(0, 1)
        return x + self.spatial_out(F.gelu(hidden, approximate="tanh"))


class BlockTransformAutoencoder(ModelMixin, ConfigMixin):
    """Orthonormal block transform (encoder) and its inverse with a convolutional residual (decoder).

    Args:
        latent_channels: C, coefficients kept per block.
        latent_scale: g, the factor from orthonormal coefficients of pixels in [−1, 1] to latents.
        refiner_width, refiner_blocks: size of the decoder's network; it works at 1/4 of the picture's size.

    Buffers `intra_basis` [C, 192] and `inter_basis` [C, 768] have orthonormal rows. `intra_std` and `inter_std`
    [C] hold the standard deviation of each latent channel on the training set.
    """

    @register_to_config
    def __init__(
        self,
        latent_channels: int = 64,
        latent_scale: float = 0.25,
        refiner_width: int = 48,
        refiner_blocks: int = 4,
        refiner_stride: int = 4,
    ):
        super().__init__()
        area = 3 * BLOCK_PX * BLOCK_PX
        self.register_buffer("intra_basis", torch.eye(latent_channels, area))
        self.register_buffer("inter_basis", torch.eye(latent_channels, area * GROUP_FRAMES))
        self.register_buffer("intra_std", torch.ones(latent_channels))
        self.register_buffer("inter_std", torch.ones(latent_channels))
        n_inner = 3 * refiner_stride**2
        self.refiner_in = nn.Conv2d(n_inner, refiner_width, 3, padding=1)
        self.refiner = nn.ModuleList([_ResidualBlock(refiner_width) for _ in range(refiner_blocks)])
        self.refiner_out = nn.Conv2d(refiner_width, n_inner, 3, padding=1)
        nn.init.zeros_(self.refiner_out.weight)
        nn.init.zeros_(self.refiner_out.bias)

    def encode(self, frames: Tensor) -> Tensor:
        """Frames [B, 3, 4n+1, H, W] in [−1, 1], H and W multiples of 8 → latents [B, C, n+1, H/8, W/8]."""
        gain = self.config.latent_scale
        # The first frame counts as four equal ones: √4 times the coefficients of one.
        first = intra_blocks(frames[:, :, 0]) @ self.intra_basis.T * (2.0 * gain)
        latents = first[:, None]
        if frames.shape[2] > 1:
            rest = inter_blocks(frames[:, :, 1:]) @ self.inter_basis.T * gain
            latents = torch.cat([latents, rest], dim=1)
        return latents.permute(0, 4, 1, 2, 3).contiguous()

    def invert(self, latents: Tensor) -> Tensor:
        """The linear inverse alone: latents [B, C, n+1, h, w] → frames [B, 3, 4n+1, 8h, 8w], not clamped."""
        gain = self.config.latent_scale
        x = latents.permute(0, 2, 3, 4, 1)
        frames = _intra_unblock(x[:, 0] @ self.intra_basis / (2.0 * gain))
        if x.shape[1] > 1:
            frames = torch.cat([frames, _inter_unblock(x[:, 1:] @ self.inter_basis / gain)], dim=2)
        return frames

    def refine(self, frames: Tensor) -> Tensor:
        """Add the network's residual to linearly inverted frames [B, 3, F, H, W]."""
        stride = self.config.refiner_stride
        b, _, n_frames, _, _ = frames.shape
        images = frames.transpose(1, 2).flatten(0, 1)
        x = self.refiner_in(F.pixel_unshuffle(images, stride))
        for block in self.refiner:
            x = block(x, n_frames)
        residual = F.pixel_shuffle(self.refiner_out(F.gelu(x, approximate="tanh")), stride)
        return (images + residual).unflatten(0, (b, n_frames)).transpose(1, 2)

    def decode(self, latents: Tensor) -> Tensor:
        """Latents [B, C, n+1, h, w] → frames [B, 3, 4n+1, 8h, 8w] clamped to [−1, 1]."""
        return self.refine(self.invert(latents)).clamp(-1.0, 1.0)

    def channel_std(self, n_latent_frames: int) -> Tensor:
        """Standard deviation per channel and latent frame, [1, C, T, 1, 1]."""
        std = self.inter_std[:, None].repeat(1, n_latent_frames)
        std[:, 0] = self.intra_std
        return std[None, :, :, None, None]
