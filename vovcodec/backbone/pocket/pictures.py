"""How the embedded model sees single pictures: as pixels, not as blocks.

The block transform keeps a third of a picture's coefficients, and its transformer is a poor denoiser where noise is
low. Stills are therefore diffused in a space that loses nothing, and a convolutional network completes there what the
transformer predicts:

    x₀ = ½·W·K·pixels          K: rotation of the three colours;  W: stationary filter, diagonal in the DCT-II

W damps what has little variance, as the block transform does (block_transform.py), here per spatial frequency
f (cycles per pixel) and colour c, with the variance λ of an orthonormal DCT coefficient of natural pictures:

    W² = (λ + ε)/(λ + ε + κ),     λ_c(f) = a_c/(f² + f_c²)^{p_c},     ε = κ/44: W is never below 0.15

The filter is stationary, so noise that is white in x_t is stationary in the picture and a convolution can tell it from
structure. Blocks of 8×8 values are stacked as 192 channels (space to depth): so the rest of the codec sees x₀.

    x̂₀ = P + c_out·F(x_t, P, t),    P: the transformer's estimate, moved here;    c_out = σ/(1 + σ²/v),  σ = t/(1 − t)

c_out follows the noise where that is less than the variance v of x₀, and leaves high noise to the transformer.
"""

from __future__ import annotations

import itertools

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vovcodec.backbone.pocket.block_transform import BLOCK_PX, BlockTransformAutoencoder
from vovcodec.backbone.pocket.completion import (
    TimeEmbedding,
    dct_matrix,
    noise_level,
    residual_levels,
    restoring_gain,
    shrunk,
    with_filtered_residual,
)
from vovcodec.backbone.pocket.stored import StoredNetwork

__all__ = ["PictureNetwork"]

_GAIN = 0.5  # as the block transform scales the first frame
_LEAK = 0.08
_LEAST_VARIANCE = 1 / 44  # of κ; much less, and undoing W would blow noise up


class PictureNetwork(StoredNetwork):
    """The space of single pictures and the network that denoises in it (see the module's docstring).

    Args:
        widths: channels at 1/2, 1/4 and 1/8 of the picture's size.
        blocks: residual blocks at each size, on the way down and again on the way up (at the last size once).
        water_level: κ, variance of the coefficients that are damped by a factor of √2.

    Buffers, from the training set: `colours` [3, 3], rows orthonormal; `spectrum` [3, 3], rows (ln a, f₀, p);
    `variance` [1], mean variance of x₀.
    """

    def __init__(
        self, widths: tuple[int, ...] = (64, 128, 192), blocks: tuple[int, ...] = (2, 2, 2), water_level: float = 0.3
    ) -> None:
        super().__init__()
        self.register_buffer("colours", torch.eye(3))
        self.register_buffer("spectrum", torch.tensor([[-4.0, 0.01, 1.0]] * 3))
        self.register_buffer("variance", torch.ones(1))
        time_width = 2 * widths[0]
        self.time = TimeEmbedding(time_width)
        self.proj_in = nn.Conv2d(4 * 9, widths[0], 3, padding=1)
        self.down = residual_levels(widths, blocks, time_width)
        self.up = residual_levels(widths[:-1], blocks[:-1], time_width)
        pairs = list(itertools.pairwise(widths))
        self.shrink = nn.ModuleList([nn.Conv2d(4 * a, b, 1) for a, b in pairs])
        self.grow = nn.ModuleList([nn.Conv2d(b, 4 * a, 1) for a, b in pairs])
        self.proj_out = nn.Conv2d(widths[0], 4 * 3, 3, padding=1)
        nn.init.zeros_(self.proj_out.weight)
        nn.init.zeros_(self.proj_out.bias)

    def damping(self, height: int, width: int) -> Tensor:
        """W of every colour and frequency, [3, H, W]."""
        rows = torch.arange(height, device=self.spectrum.device) / (2.0 * height)
        columns = torch.arange(width, device=self.spectrum.device) / (2.0 * width)
        square = rows[:, None].square() + columns[None, :].square()
        log_a, f0, power = (self.spectrum.float()[:, i, None, None] for i in range(3))
        water = self.config.water_level
        variance = torch.exp(log_a - power * torch.log(square + f0.square())) + _LEAST_VARIANCE * water
        return (variance / (variance + water)).sqrt()

    def _filter(self, pictures: Tensor, gains: Tensor) -> Tensor:
        """Multiplies the DCT-II coefficients of pictures [B, 3, H, W] by `gains` [3, H, W]."""
        rows, columns = (dct_matrix(n).to(pictures.device) for n in pictures.shape[-2:])
        return rows.T @ ((rows @ pictures @ columns.T) * gains) @ columns

    def encode(self, frames: Tensor) -> Tensor:
        """Frames [B, 3, 1, H, W] in [−1, 1] → x₀ [B, 192, 1, H/8, W/8]."""
        pictures = torch.einsum("ij,bjhw->bihw", self.colours.float(), frames[:, :, 0].float())
        pictures = self._filter(pictures, _GAIN * self.damping(*pictures.shape[-2:]))
        return F.pixel_unshuffle(pictures, BLOCK_PX)[:, :, None]

    def decode(self, latents: Tensor) -> Tensor:
        """x₀ [B, 192, 1, h, w] → frames [B, 3, 1, 8h, 8w] in [−1, 1] (not clamped)."""
        pictures = F.pixel_shuffle(latents[:, :, 0].float(), BLOCK_PX)
        pictures = self._filter(pictures, 1.0 / (_GAIN * self.damping(*pictures.shape[-2:])))
        return torch.einsum("ij,bihw->bjhw", self.colours.float(), pictures)[:, :, None]

    def to_blocks(self, x_t: Tensor, t: Tensor, autoencoder: BlockTransformAutoencoder) -> Tensor:
        """What the transformer is shown of x_t [B, 192, 1, h, w]: latents of the block transform [B, C, 1, h, w].

        Both spaces damp alike, so noise of variance t² nearly stays so in every channel; where W is small it is undone
        in part only (completion.restoring_gain).
        """
        pictures = F.pixel_shuffle(x_t[:, :, 0].float(), BLOCK_PX)
        restored = restoring_gain(self.damping(*pictures.shape[-2:]), noise_level(t).view(-1, 1, 1, 1), _LEAK)
        frames = torch.einsum("ij,bihw->bjhw", self.colours.float(), self._filter(pictures, restored / _GAIN))
        return autoencoder.encode(frames[:, :, None])

    def from_blocks(self, latents: Tensor, autoencoder: BlockTransformAutoencoder) -> Tensor:
        """An estimate by the transformer, [B, C, 1, h, w], as P [B, 192, 1, h, w]."""
        return self.encode(autoencoder.decode(latents))

    def error_weights(self, t: Tensor, n_frames: int) -> tuple[Tensor, Tensor]:
        """What squared errors of x̂₀, and of the pixels that it decodes to, count by at times [B]: 1/s² and
        (½)²/s², s² = 1/(1/σ² + 1/v), broadcastable to [B, C, F, H, W]."""
        sigma = noise_level(t).view(-1, 1, 1, 1, 1)
        weight = 1 / sigma.square() + 1 / self.variance
        return weight, _GAIN**2 * weight

    def completed(self, clean: Tensor, x_t: Tensor, t: Tensor) -> Tensor:
        """x̂₀ with the residual that it leaves, filtered (completion.py); all [B, 192, 1, h, w], times [B]."""
        planes = (F.pixel_shuffle(x[:, :, 0].float(), BLOCK_PX) for x in (clean, x_t))
        found = with_filtered_residual(*planes, t.float().clamp_min(1e-4).view(-1, 1, 1, 1))
        return F.pixel_unshuffle(found, BLOCK_PX)[:, :, None]

    def forward(self, x_t: Tensor, prior: Tensor, t: Tensor) -> Tensor:
        """x̂₀ from x_t and P, both [B, 192, 1, h, w], and times [B] in (0, 1]."""
        t = t.float().clamp_min(1e-4)
        noisy, known = (F.pixel_shuffle(x[:, :, 0], BLOCK_PX) for x in (x_t, prior))
        column = t.view(-1, 1, 1, 1)
        scale = ((1 - column).square() * self.variance + column.square()).rsqrt()
        noise = (noisy - (1 - column) * known) / column
        x = torch.cat([noisy * scale, known * self.variance.rsqrt(), noise], dim=1)
        x = self.proj_in(F.pixel_unshuffle(x, 2))
        time = self.time(t)
        kept = []
        for level, blocks in enumerate(self.down):
            for block in blocks:
                x = block(x, time)
            if level < len(self.shrink):
                kept.append(x)
                x = shrunk(x, self.shrink[level])
        for level in reversed(range(len(self.up))):
            x = F.pixel_shuffle(self.grow[level](x), 2) + kept[level]
            for block in self.up[level]:
                x = block(x, time)
        x = F.pixel_shuffle(self.proj_out(x), 2).float()
        sigma = noise_level(column)
        correction = sigma / (1 + sigma.square() / self.variance) * x
        return prior + F.pixel_unshuffle(correction, BLOCK_PX)[:, :, None]
