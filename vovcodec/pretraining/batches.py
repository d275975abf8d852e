"""Training batches: crops, scales, flips, speeds, colour changes and camera motion over photographs.

Batch number `step` is a pure function of (corpus, seed, step): an interrupted run continues with exactly the
batches it would have seen.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F

from vovcodec.pretraining.colour_words import colour_words, with_colours
from vovcodec.pretraining.corpus import Corpus, Item

__all__ = ["SHAPES", "Batch", "BatchShape", "draw_batch"]


@dataclass(frozen=True)
class BatchShape:
    """One kind of batch: `size` samples of `n_frames` × `height` × `width`, drawn with relative `weight`."""

    n_frames: int
    height: int
    width: int
    weight: float


# Sizes of thumbnails, stills and clips that the embedded model is asked for; all batches hold about as many tokens.
SHAPES = (
    BatchShape(1, 64, 64, 2.0),
    BatchShape(1, 128, 128, 2.0),
    BatchShape(1, 128, 192, 2.0),
    BatchShape(5, 96, 96, 1.0),
    BatchShape(9, 128, 128, 1.5),
    BatchShape(17, 112, 112, 1.5),
    BatchShape(33, 96, 96, 1.5),
    BatchShape(33, 128, 208, 2.0),
)


@dataclass(frozen=True)
class Batch:
    """`frames` float32 [B, 3, F, H, W] in [−1, 1] and one caption per sample."""

    frames: torch.Tensor
    captions: list[str]


def _resize_crop(frames: np.ndarray, height: int, width: int, rng: np.random.Generator) -> torch.Tensor:
    """Random scale between "just fits" and native size, random crop → float32 [F, 3, height, width] in [−1, 1]."""
    _, src_h, src_w, _ = frames.shape
    fit = max(height / src_h, width / src_w)
    scale = fit if fit >= 1.0 else float(np.exp(rng.uniform(np.log(fit), 0.0)))
    crop_h, crop_w = min(src_h, round(height / scale)), min(src_w, round(width / scale))
    top = int(rng.integers(0, src_h - crop_h + 1))
    left = int(rng.integers(0, src_w - crop_w + 1))
    x = torch.from_numpy(np.ascontiguousarray(frames[:, top : top + crop_h, left : left + crop_w]))
    x = x.permute(0, 3, 1, 2).float().div_(127.5).sub_(1.0)
    if (crop_h, crop_w) != (height, width):
        x = F.interpolate(x, size=(height, width), mode="bicubic", antialias=True, align_corners=False)
    return x.clamp_(-1.0, 1.0)


def _camera_motion(image: np.ndarray, shape: BatchShape, rng: np.random.Generator) -> torch.Tensor:
    """A clip made from a photograph: smooth pan, zoom and rotation, sampled with bilinear interpolation.

    The path is start + velocity·τ + acceleration·τ², τ in [0, 1]; the window stays inside the picture where it fits.
    """
    _, src_h, src_w, _ = image.shape
    n = shape.n_frames
    tau = torch.linspace(0, 1, n)
    speed = float(rng.choice([0.0, 0.1, 0.3, 0.6])) * n / 33
    aspect = (shape.width / shape.height) / (src_w / src_h)
    half = np.array([min(1.0, aspect), min(1.0, 1 / aspect)])
    zoom_from = rng.uniform(0.45, 0.95)
    zoom = zoom_from * torch.exp(torch.tensor(rng.normal(0, 0.5) * speed) * tau)
    room = 1.0 - half * zoom_from
    start = rng.uniform(-room, room)
    velocity, acceleration = rng.normal(0, speed, 2), rng.normal(0, speed / 3, 2)
    angle = torch.tensor(rng.normal(0, 0.15) * speed) * tau
    cos, sin = torch.cos(angle) * zoom, torch.sin(angle) * zoom
    theta = torch.zeros(n, 2, 3)
    theta[:, 0, 0], theta[:, 0, 1] = cos * half[0], -sin * half[1]
    theta[:, 1, 0], theta[:, 1, 1] = sin * half[0], cos * half[1]
    for axis in range(2):
        theta[:, axis, 2] = start[axis] + velocity[axis] * tau + acceleration[axis] * tau**2
    x = torch.from_numpy(image.copy()).permute(0, 3, 1, 2).float().div_(127.5).sub_(1.0)
    # Sampling far below the source's resolution would alias: bring the source down first.
    shrink = zoom_from * half[1] * src_h / shape.height
    if shrink > 1.3:
        x = F.interpolate(x, scale_factor=1 / shrink, mode="bicubic", antialias=True, align_corners=False)
    grid = F.affine_grid(theta, [n, 3, shape.height, shape.width], align_corners=False)
    clip = F.grid_sample(x.expand(n, -1, -1, -1), grid, padding_mode="reflection", align_corners=False)
    return clip.clamp_(-1.0, 1.0)


def _colour_jitter(x: torch.Tensor, rng: np.random.Generator) -> torch.Tensor:
    """Brightness, contrast and saturation, mild, the same for all frames of a sample."""
    grey = x.mean(dim=1, keepdim=True)
    x = grey + (x - grey) * float(rng.uniform(0.7, 1.2))
    return (x * float(rng.uniform(0.8, 1.1)) + float(rng.normal(0, 0.08))).clamp_(-1.0, 1.0)


def _draw_sample(
    corpus: Corpus, shape: BatchShape, rng: np.random.Generator, colour_words_share: float
) -> tuple[torch.Tensor, str]:
    if shape.n_frames == 1:
        if (rng.random() < 0.15 or not corpus.images) and corpus.clips:
            item = corpus.clips[int(rng.integers(len(corpus.clips)))]
            at = int(rng.integers(len(item.frames)))
            x = _resize_crop(item.frames[at : at + 1], shape.height, shape.width, rng)
        else:
            item = _large_enough(corpus.images, shape, rng)
            x = _resize_crop(item.frames, shape.height, shape.width, rng)
    elif (rng.random() < 0.4 and corpus.images) or not corpus.clips:
        item = _large_enough(corpus.images, shape, rng)
        x = _camera_motion(item.frames, shape, rng)
    else:
        stride = int(rng.choice([1, 1, 1, 2]))
        span = (shape.n_frames - 1) * stride + 1
        long_enough = [c for c in corpus.clips if len(c.frames) >= span]
        if not long_enough:
            stride, span = 1, min(shape.n_frames, max(len(c.frames) for c in corpus.clips))
            long_enough = [c for c in corpus.clips if len(c.frames) >= span]
        # Long clips hold more to learn from: weight by the square root of their length.
        weights = np.sqrt([len(c.frames) for c in long_enough])
        item = long_enough[int(rng.choice(len(long_enough), p=weights / weights.sum()))]
        start = int(rng.integers(0, len(item.frames) - span + 1))
        frames = item.frames[start : start + span : stride]
        if rng.random() < 0.3:
            frames = frames[::-1]
        x = _resize_crop(frames, shape.height, shape.width, rng)
        if len(x) < shape.n_frames:
            x = torch.cat([x, x[-1:].expand(shape.n_frames - len(x), -1, -1, -1)])
    if rng.random() < 0.5:
        x = x.flip(-1)
    if rng.random() < 0.5:
        x = _colour_jitter(x, rng)
    caption = item.caption
    if rng.random() < colour_words_share:
        caption = with_colours(caption, colour_words(x[0]))
    return x, caption


def _large_enough(items: list[Item], shape: BatchShape, rng: np.random.Generator) -> Item:
    """A random photograph that need not be enlarged by more than a quarter (any, when there is none)."""
    for _ in range(64):
        item = items[int(rng.integers(len(items)))]
        if min(item.frames.shape[1] / shape.height, item.frames.shape[2] / shape.width) >= 0.8:
            return item
    return item


def draw_batch(
    corpus: Corpus,
    *,
    seed: int,
    step: int,
    tokens_per_batch: int,
    token_px: int = 16,
    caption_dropout: float = 0.3,
    colour_words_share: float = 0.5,
    shapes: tuple[BatchShape, ...] = SHAPES,
) -> Batch:
    """Batch number `step`: one shape from `shapes`, as many samples as fill `tokens_per_batch` tokens.

    A token covers 4 frames × `token_px` × `token_px` pixels. A caption is replaced by "" with `caption_dropout`; a
    share of them names the picture's colours, so that colours can be asked for.
    """
    rng = np.random.default_rng([seed, step])
    weights = np.array([s.weight for s in shapes])
    shape = shapes[int(rng.choice(len(shapes), p=weights / weights.sum()))]
    n_tokens = (1 + (shape.n_frames - 1) // 4) * (shape.height // token_px) * (shape.width // token_px)
    n_samples = max(1, tokens_per_batch // n_tokens)
    samples = [_draw_sample(corpus, shape, rng, colour_words_share) for _ in range(n_samples)]
    frames = torch.stack([x for x, _ in samples]).transpose(1, 2).contiguous()
    captions = ["" if rng.random() < caption_dropout else caption for _, caption in samples]
    return Batch(frames, captions)
