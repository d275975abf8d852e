"""How the embedded model sees clips: as frames behind a stationary filter, not as blocks.

The block transform keeps 64 of 768 coefficients of a block: at 3 KB four tenths of a clip's error are in what it leaves
out. And its transformer is a poor denoiser where noise is low: it makes little of what stays the same from frame to
frame. Clips are therefore diffused in a space that keeps all of the luma and the lower half of the chroma's
frequencies, and a convolutional network with a view of neighbouring frames completes there what the transformer
predicts. It is the moving counterpart of pictures.py:

    x₀ = D·W·K·pixels       K: rotation of the three colours;  W: stationary filter, diagonal in the DCT-II of space and
                            time;  D: ¼, for the first frame ½, as the block transform counts it as four

    W² = (λ + ε)/(λ + ε + κ),     λ_c(f, g) = a_c/((f² + f_c²)^{p_c}·(g² + g_c²)^{q_c}),     ε = κ/10

with spatial frequency f (cycles per pixel), temporal frequency g (cycles per frame) and λ the variance of an
orthonormal DCT coefficient of four frames, so that the damping is the block transform's and its transformer finds noise
of variance t² in every channel. Latents are [B, 96, F, H/8, W/8]: per frame 64 values of luma (space to depth 8) and
2·16 of chroma at half the size (space to depth 4).

    x̂₀ = P + c_out·N(x_t, P, t)  for t ≤ ½, in the sampler's last step for t ≤ 0.6, else P;
                                  P: the transformer's estimate, moved here;
    c_out = σ/(1 + σ²/v),  σ = t/(1 − t) in frames of which D is ¼, half of it in the first

N is shown x_t, P, what of x_t is not P, and the mean of that over 3, 9 and all frames around each: where nothing moves,
these hold the answer with a fraction of the noise.
"""

from __future__ import annotations

import itertools
from functools import lru_cache

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vovcodec.backbone.pocket.block_transform import BLOCK_PX, GROUP_FRAMES, BlockTransformAutoencoder
from vovcodec.backbone.pocket.completion import (
    TimeEmbedding,
    dct_matrix,
    noise_level,
    noise_share,
    residual_levels,
    restoring_gain,
    shrunk,
)
from vovcodec.backbone.pocket.motion import mean_along_motion
from vovcodec.backbone.pocket.stored import StoredNetwork

__all__ = ["MOST_NOISE", "MOST_NOISE_LAST", "ClipNetwork"]

_LUMA = BLOCK_PX * BLOCK_PX
MOST_NOISE = 0.5  # where N costs more than it gives, but for the estimate that is the picture
MOST_NOISE_LAST = 0.6
_MOST_NOISE_MOVING = 0.6  # where motion is still found in the estimate
_GAIN, _FIRST_FRAME = 0.25, 2.0  # as the block transform scales coefficients and its first frame
_LEAST_VARIANCE = 0.1  # of κ: W is never below 0.3, or noise of high frequencies would leak into the blocks
_LEAK = 0.6
_GAIN_STEPS = 9
_REACHES = (1, 4, 128)  # frames before and after that a mean takes in
_VALUES = 6  # luma and chroma of 2×2 pixels

Planes = tuple[Tensor, Tensor]
"""Luma [B, 1, F, H, W] and chroma [B, 2, F, H/2, W/2]."""

Rows = tuple[tuple[float, ...], ...]


def _per_frame(x: Tensor) -> Tensor:
    """[B, C, F, h, w] → [B·F, C, h, w]."""
    return x.transpose(1, 2).flatten(0, 1)


def _as_volume(x: Tensor, n_samples: int) -> Tensor:
    """The inverse of `_per_frame`."""
    return x.unflatten(0, (n_samples, -1)).transpose(1, 2)


def _pack(planes: Planes) -> Tensor:
    luma, chroma = planes
    packed = [F.pixel_unshuffle(_per_frame(luma), BLOCK_PX), F.pixel_unshuffle(_per_frame(chroma), BLOCK_PX // 2)]
    return _as_volume(torch.cat(packed, dim=1), luma.shape[0])


def _unpack(latents: Tensor) -> Planes:
    x = _per_frame(latents)
    luma, chroma = F.pixel_shuffle(x[:, :_LUMA], BLOCK_PX), F.pixel_shuffle(x[:, _LUMA:], BLOCK_PX // 2)
    return _as_volume(luma, latents.shape[0]), _as_volume(chroma, latents.shape[0])


def _half_size(latents: Tensor) -> Tensor:
    """Latents [B, 96, F, h, w] → what the network computes on, [B·F, 6, 4h, 4w]."""
    x = _per_frame(latents)
    luma = F.pixel_unshuffle(F.pixel_shuffle(x[:, :_LUMA], BLOCK_PX), 2)
    return torch.cat([luma, F.pixel_shuffle(x[:, _LUMA:], BLOCK_PX // 2)], dim=1)


def _from_half_size(x: Tensor, n_samples: int) -> Tensor:
    luma = F.pixel_unshuffle(F.pixel_shuffle(x[:, :4], 2), BLOCK_PX)
    return _as_volume(torch.cat([luma, F.pixel_unshuffle(x[:, 4:], BLOCK_PX // 2)], dim=1), n_samples)


def _spectrum(x: Tensor, height: int, width: int) -> Tensor:
    """Orthonormal DCT-II over the last three axes, F, H and W; the lowest `height`×`width` frequencies."""
    time, rows, columns = (dct_matrix(n).to(x.device) for n in x.shape[-3:])
    x = rows[:height] @ x @ columns[:width].T
    return (time @ x.flatten(-2)).unflatten(-1, x.shape[-2:])


def _from_spectrum(x: Tensor, height: int, width: int) -> Tensor:
    """The inverse: frames of `height`×`width` from their lowest frequencies."""
    time, rows, columns = (dct_matrix(n).to(x.device) for n in (x.shape[-3], height, width))
    x = (time.T @ x.flatten(-2)).unflatten(-1, x.shape[-2:])
    return rows[: x.shape[-2]].T @ x @ columns[: x.shape[-1]]


@lru_cache(maxsize=4)
def _damping(spectrum: Rows, water: float, n_frames: int, height: int, width: int, device: torch.device) -> Planes:
    """W of every frequency for rows (ln a, f₀, p, g₀, q): luma [F, H, W] and chroma [2, F, H/2, W/2]."""
    times = torch.arange(n_frames, device=device) / (2.0 * n_frames)
    rows = torch.arange(height, device=device) / (2.0 * height)
    columns = torch.arange(width, device=device) / (2.0 * width)
    planes = []
    for colour, (log_a, f0, p, g0, q) in enumerate(spectrum):
        kept = (slice(None), slice(None)) if colour == 0 else (slice(height // 2), slice(width // 2))
        square = rows[kept[0], None].square() + columns[None, kept[1]].square()
        in_space = p * torch.log(square + f0 * f0)
        in_time = q * torch.log(times.square() + g0 * g0)
        variance = torch.exp(log_a - in_time[:, None, None] - in_space) + _LEAST_VARIANCE * water
        planes.append((variance / (variance + water)).sqrt())
    return planes[0], torch.stack(planes[1:])


class ClipNetwork(StoredNetwork):
    """The space of clips and the network that denoises in it (see the module's docstring).

    Args:
        widths: channels at 1/2, 1/4 and 1/8 of the frames' size. At 1/8 a position also covers four frames, the first
            one frame, like the block transform's.
        blocks: residual blocks at each size, on the way down and again on the way up (at the last size once).
        water_level: κ, variance of the coefficients that are damped by a factor of √2.
        block_channels: C of the block transform.

    Buffers, from the training set: `colours` [3, 3], rows orthonormal; `spectrum` [3, 5], rows (ln a, f₀, p, g₀, q);
    `variance` [1], mean variance of x₀ outside first frames; `block_gains` [9, 2, C], what is left of each channel of
    the block transform when `to_blocks` has undone the damping as far as it dares, at nine noise shares from 0 to 1, in
    the first latent frame and in the others.
    """

    def __init__(
        self,
        widths: tuple[int, ...] = (32, 80, 160),
        blocks: tuple[int, ...] = (1, 1, 3),
        water_level: float = 1.2133,
        block_channels: int = 64,
    ) -> None:
        super().__init__()
        self.register_buffer("colours", torch.eye(3))
        self.register_buffer("spectrum", torch.tensor([[-6.0, 0.01, 1.0, 0.1, 0.5]] * 3))
        self.register_buffer("variance", torch.ones(1))
        self.register_buffer("block_gains", torch.ones(_GAIN_STEPS, 2, block_channels))
        time_width = 2 * widths[0]
        self.time = TimeEmbedding(time_width)
        self.proj_in = nn.Conv2d((3 + len(_REACHES)) * _VALUES + 1, widths[0], 3, padding=1)
        self.down = residual_levels(widths, blocks, time_width)
        self.up = residual_levels(widths[:-1], blocks[:-1], time_width)
        strides = [4 * (GROUP_FRAMES if level == len(widths) - 2 else 1) for level in range(len(widths) - 1)]
        pairs = list(itertools.pairwise(widths))
        self.shrink = nn.ModuleList([nn.Conv2d(n * a, b, 1) for n, (a, b) in zip(strides, pairs, strict=True)])
        self.grow = nn.ModuleList([nn.Conv2d(b, n * a, 1) for n, (a, b) in zip(strides, pairs, strict=True)])
        self.proj_out = nn.Conv2d(widths[0], _VALUES, 3, padding=1)
        nn.init.zeros_(self.proj_out.weight)
        nn.init.zeros_(self.proj_out.bias)

    def damping(self, n_frames: int, height: int, width: int) -> Planes:
        """W of every frequency: luma [F, H, W] and chroma [2, F, H/2, W/2]."""
        spectrum = tuple(tuple(row) for row in self.spectrum.tolist())
        return _damping(spectrum, self.config.water_level, n_frames, height, width, self.spectrum.device)

    def _frame_gain(self, n_frames: int) -> Tensor:
        """D, [F, 1, 1]."""
        gain = torch.full((n_frames, 1, 1), _GAIN, device=self.spectrum.device)
        gain[0] *= _FIRST_FRAME
        return gain

    def encode(self, frames: Tensor) -> Tensor:
        """Frames [B, 3, F, H, W] in [−1, 1], F > 1, H and W multiples of 8 → x₀ [B, 96, F, H/8, W/8]."""
        height, width = frames.shape[-2:]
        gain = self._frame_gain(frames.shape[2])
        luma_gain, chroma_gain = self.damping(*frames.shape[2:])
        planes = torch.einsum("ij,bjthw->bithw", self.colours.float(), frames.float())
        size, half = (height, width), (height // 2, width // 2)
        luma = _from_spectrum(_spectrum(planes[:, :1], *size) * luma_gain, *size)
        chroma = _from_spectrum(_spectrum(planes[:, 1:], *half) * chroma_gain, *half)
        return _pack((luma * gain, chroma * gain))

    def encode_standing(self, pictures: Tensor, n_frames: int) -> Tensor:
        """x₀ of clips that show pictures [B, 3, 1, H, W] for `n_frames` frames: all but the first are alike."""
        two = self.encode(pictures.expand(-1, -1, 2, -1, -1))
        return torch.cat([two[:, :, :1], two[:, :, 1:].expand(-1, -1, n_frames - 1, -1, -1)], dim=2)

    def impose(self, clean: Tensor, standing: Tensor) -> Tensor:
        """x₀ with its component along D, where clips that stand still lie, taken from `standing`."""
        along = self._frame_gain(clean.shape[2])
        along = along / along.norm()
        return clean + along * ((standing - clean) * along).sum(dim=2, keepdim=True)

    def _filtered(self, planes: Planes, gains: Planes, *, upscale: bool = False) -> Planes:
        """Multiplies DCT-II coefficients of luma and chroma by `gains`; upscale: chroma becomes as large as luma."""
        luma, chroma = planes
        size, half = luma.shape[-2:], chroma.shape[-2:]
        luma = _from_spectrum(_spectrum(luma, *size) * gains[0], *size)
        return luma, _from_spectrum(_spectrum(chroma, *half) * gains[1], *(size if upscale else half))

    def along_motion(self, clean: Tensor, t: float, x_t: Tensor | None = None) -> Tensor:
        """x̂₀ [B, 96, F, h, w] at a time in [0, 1], averaged along its motion (motion.py); above t = 0.6 `clean` itself.

        x_t: of the same shape, where what x̂₀ leaves of it is to be averaged as well.
        """
        if t > _MOST_NOISE_MOVING:
            return clean
        t = max(t, 1e-4)  # as the networks have it
        gain, damping = self._frame_gain(clean.shape[2]), self.damping(*self._size(clean))

        def planes(latents: Tensor) -> Planes:
            return self._filtered(tuple(x / gain for x in _unpack(latents.float())), tuple(1 / w for w in damping))

        def frames(of: Planes, sample: int) -> Planes:
            return of[0][sample].transpose(0, 1), of[1][sample].transpose(0, 1)

        known, left = planes(clean), None if x_t is None else planes(x_t / (1 - t) - clean)
        found = [
            mean_along_motion(frames(known, i), t, None if left is None else frames(left, i)) for i in range(len(clean))
        ]
        luma, chroma = self._filtered(tuple(torch.stack(x).transpose(1, 2) for x in zip(*found, strict=True)), damping)
        return _pack((luma * gain, chroma * gain))

    def _undone(self, latents: Tensor, gains: Planes) -> Tensor:
        """Frames [B, 3, F, H, W] from latents, `gains` in place of 1/W; not clamped."""
        gain = self._frame_gain(latents.shape[2])
        luma, chroma = self._filtered(tuple(x / gain for x in _unpack(latents.float())), gains, upscale=True)
        return torch.einsum("ij,bithw->bjthw", self.colours.float(), torch.cat([luma, chroma], dim=1))

    def _size(self, latents: Tensor) -> tuple[int, int, int]:
        return latents.shape[2], BLOCK_PX * latents.shape[3], BLOCK_PX * latents.shape[4]

    def decode(self, latents: Tensor) -> Tensor:
        """x₀ [B, 96, F, h, w] → frames [B, 3, F, 8h, 8w] in [−1, 1] (not clamped)."""
        luma, chroma = self.damping(*self._size(latents))
        return self._undone(latents, (1 / luma, 1 / chroma))

    def to_blocks(self, x_t: Tensor, t: Tensor, autoencoder: BlockTransformAutoencoder) -> Tensor:
        """What the transformer is shown of x_t [B, 96, F, h, w] at times [B]: latents of the block transform,
        [B, C, 1 + (F − 1)/4, h, w], of signal (1 − t)·x₀ and about as much noise in every channel as it was trained
        with."""
        blocks = self._partly_restored(x_t, noise_level(t), autoencoder)
        position = (_GAIN_STEPS - 1) * noise_share(noise_level(t))
        lower = position.long().clamp_max(_GAIN_STEPS - 2)
        part = (position - lower)[:, None, None]
        gains = self.block_gains[lower] * (1 - part) + self.block_gains[lower + 1] * part  # [B, 2, C]
        frames = torch.arange(blocks.shape[2], device=blocks.device).clamp_max(1)
        return blocks / gains[:, frames].transpose(1, 2)[..., None, None]

    def _partly_restored(self, x: Tensor, sigma: Tensor, autoencoder: BlockTransformAutoencoder) -> Tensor:
        sigma = sigma.view(-1, 1, 1, 1, 1)
        luma, chroma = self.damping(*self._size(x))
        gains = restoring_gain(luma, sigma, _LEAK), restoring_gain(chroma, sigma, _LEAK)
        return autoencoder.encode(self._undone(x, gains))

    @torch.no_grad()
    def fit_block_gains(self, frames: Tensor, autoencoder: BlockTransformAutoencoder) -> None:
        """Least-squares gains of clips [B, 3, F, H, W] without noise; colours and spectrum must be fitted before."""
        latents, wanted = self.encode(frames), autoencoder.encode(frames)
        for index in range(_GAIN_STEPS):
            share = min(index / (_GAIN_STEPS - 1), 1 - 1e-6)
            found = self._partly_restored(latents, torch.tensor([0.25 * share / (1 - share)]), autoencoder)
            for row, part in enumerate((slice(0, 1), slice(1, None))):
                products = (found * wanted)[:, :, part].sum((0, 2, 3, 4))
                self.block_gains[index, row] = products / wanted[:, :, part].square().sum((0, 2, 3, 4))

    def from_blocks(self, latents: Tensor, autoencoder: BlockTransformAutoencoder) -> Tensor:
        """An estimate by the transformer as P [B, 96, F, h, w]."""
        return self.encode(autoencoder.decode(latents))

    def error_weights(self, t: Tensor, n_frames: int) -> tuple[Tensor, Tensor]:
        """What squared errors of x̂₀, and of the pixels that it decodes to, count by at times [B]: 1/(D'·s)² and
        (¼)²/s², D' = 4·D, s² = 1/((D'/σ)² + 1/v), broadcastable to [B, C, F, H, W]."""
        gain = (self._frame_gain(n_frames) / _GAIN)[None, None]
        sigma = noise_level(t).view(-1, 1, 1, 1, 1) / gain
        weight = 1 / sigma.square() + 1 / self.variance
        return weight / gain.square(), _GAIN**2 * weight

    def forward(self, x_t: Tensor, prior: Tensor, t: Tensor) -> Tensor:
        """x̂₀ from x_t and P, both [B, 96, F, h, w], F = 4n + 1, and times [B] in (0, 1]."""
        n_samples, _, n_frames = x_t.shape[:3]
        t = t.float().clamp_min(1e-4)
        gain = (self._frame_gain(n_frames) / _GAIN).view(1, -1, 1, 1, 1)  # 2, 1, 1, …
        gain = gain.expand(n_samples, -1, 1, 1, 1).flatten(0, 1)
        column = t.repeat_interleave(n_frames).view(-1, 1, 1, 1)
        noisy, known = (_half_size(x) for x in (x_t, prior))
        # In units of the frames after the first: there noise is half as strong.
        scale = ((1 - column).square() * self.variance + (column / gain).square()).rsqrt()
        noise = (noisy - (1 - column) * known) / column
        seen = [noisy / gain * scale, known / gain * self.variance.rsqrt(), noise]
        seen += _means_over_frames(noise / gain, n_samples)
        x = torch.cat([*seen, (gain - 1).expand_as(noisy[:, :1])], 1)
        x = self.proj_in(x.contiguous(memory_format=torch.channels_last))
        time = self.time(t)
        kept = []
        for level, blocks in enumerate(self.down):
            is_last = level == len(self.down) - 1
            for block in blocks:
                x = block(x, time, len(x) // n_samples)
            if not is_last:
                kept.append(x)
                if level == len(self.down) - 2:
                    x = self.shrink[level](_grouped(F.pixel_unshuffle(x, 2), n_samples))
                else:
                    x = shrunk(x, self.shrink[level])
        for level in reversed(range(len(self.up))):
            x = self.grow[level](x)
            if level == len(self.up) - 1:
                x = _ungrouped(x, n_samples, n_frames)
            x = F.pixel_shuffle(x, 2) + kept[level]
            for block in self.up[level]:
                x = block(x, time, n_frames)
        x = self.proj_out(x).float()
        sigma = noise_level(column) / gain
        correction = gain * sigma / (1 + sigma.square() / self.variance) * x
        return prior + _from_half_size(correction, n_samples)


def _means_over_frames(x: Tensor, n_samples: int) -> list[Tensor]:
    """For every reach the mean over up to so many frames before and after each, times the root of their number: white
    noise keeps its variance. [B·F, C, h, w]."""
    frames = x.unflatten(0, (n_samples, -1))
    n = frames.shape[1]
    total = F.pad(frames.cumsum(dim=1), (0, 0, 0, 0, 0, 0, 1, 0))
    at = torch.arange(n, device=x.device)
    means = []
    for reach in _REACHES:
        first, end = (at - reach).clamp_min(0), (at + reach + 1).clamp_max(n)
        scale = (end - first).float().rsqrt().view(-1, 1, 1, 1)
        means.append(((total[:, end] - total[:, first]) * scale).flatten(0, 1))
    return means


def _grouped(x: Tensor, n_samples: int) -> Tensor:
    """[B·(4n+1), C, h, w] → [B·(n+1), 4C, h, w]: the first frame four times, then groups of four."""
    frames = x.unflatten(0, (n_samples, -1))
    first = frames[:, :1].expand(-1, GROUP_FRAMES - 1, -1, -1, -1)
    return torch.cat([first, frames], dim=1).flatten(0, 1).unflatten(0, (-1, GROUP_FRAMES)).flatten(1, 2)


def _ungrouped(x: Tensor, n_samples: int, n_frames: int) -> Tensor:
    """[B·(n+1), 4C, h, w] → [B·(4n+1), C, h, w]: the last of the first group is the first frame."""
    frames = x.unflatten(1, (GROUP_FRAMES, -1)).unflatten(0, (n_samples, -1)).flatten(1, 2)
    return frames[:, -n_frames:].flatten(0, 1)
