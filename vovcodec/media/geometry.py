"""Coded sizes, segments of 4n+1 frames, padding and resizing."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise, product

import numpy as np

from vovcodec.errors import UsageError

__all__ = ["Segment", "coded_size", "pad_frames", "require_multiples", "resize_frames", "segment_lengths"]


def coded_size(width: int, height: int, *, short_side: int, multiple: int) -> tuple[int, int]:
    """The size at which a picture is coded: multiples of `multiple`, the short side near `short_side`.

    The picture is scaled so that its short side is `short_side` (never enlarged). Each side then has two candidates,
    the multiples below and above (one if it fits already). Of the up to four sizes the one with the least change of
    aspect |ln((w'/h') / (w/h))| is taken; a tie goes to the larger one. So 416x240 at short side 120 in steps of 16
    becomes 208x128 (aspect −6 %), not 208x112 (+7 %).

    All in pixels, at least 1. Raises UsageError.
    """
    if min(width, height, short_side, multiple) < 1:
        raise UsageError(f"sizes have to be at least 1: {width}x{height}, short side {short_side}, step {multiple}")
    scale = min(1.0, short_side / min(width, height))
    candidates = product(_neighbours(width * scale, multiple), _neighbours(height * scale, multiple))

    def preference(size: tuple[int, int]) -> tuple[float, int]:
        distortion = abs(math.log(size[0] * height / (size[1] * width)))
        return round(distortion, 12), -size[0] * size[1]

    return min(candidates, key=preference)


def require_multiples(size: tuple[int, int], multiple: int, most: int, who: str, remark: str = "") -> None:
    """Raises UsageError for a (width, height) in pixels whose sides are not multiples of `multiple` up to `most`.

    who: subject and verb of the message, which names the nearest size; remark: its end.
    """
    if all(side % multiple == 0 and side <= most for side in size):
        return
    nearest = (min(most // multiple, max(1, round(side / multiple))) * multiple for side in size)
    raise UsageError(
        f"{who} sizes that are multiples of {multiple}, up to {most}; {size[0]}x{size[1]} is not one, the nearest is "
        f"{'x'.join(map(str, nearest))}{remark}"
    )


def _neighbours(ideal: float, multiple: int) -> set[int]:
    """The multiples next to a length, both the same if it is one (to a millionth); at least one `multiple`."""
    steps = ideal / multiple
    return {max(1, math.floor(steps + 1e-6)) * multiple, max(1, math.ceil(steps - 1e-6)) * multiple}


@dataclass(frozen=True)
class Segment:
    """Frames start … start + n_frames − 1 of a clip, coded as n_coded_frames ≥ n_frames by repeating the last one."""

    start: int
    n_frames: int
    n_coded_frames: int


def segment_lengths(n_frames: int, segment_frames: int, stride: int = 4, cuts: Sequence[int] = ()) -> list[Segment]:
    """Cuts n_frames into as few segments of at most `segment_frames` as there can be, of about the same length.

    segment_frames has the form stride·n + 1, as every n_coded_frames has: the temporal grid of the autoencoder, whose
    first latent stands for one frame and every other one for `stride`. Lengths differ by `stride` at most, but for the
    last one of a scene, which takes what is left. cuts: frames that begin a new scene, in order; a segment begins at
    each, unless a scene would be shorter than 2·stride + 1 frames. Raises UsageError.
    """
    if n_frames < 1:
        raise UsageError("there are no frames to cut into segments")
    if segment_frames < 1 or (segment_frames - 1) % stride:
        raise UsageError(f"a segment has to have {stride}n+1 frames, not {segment_frames}")
    shortest = 2 * stride + 1
    scenes = [0]
    for cut in cuts:
        if segment_frames >= shortest and cut - scenes[-1] >= shortest and n_frames - cut >= shortest:
            scenes.append(cut)
    segments = []
    for begin, end in pairwise([*scenes, n_frames]):
        n_segments = math.ceil((end - begin) / segment_frames)
        n_strides = math.ceil((end - begin - n_segments) / stride)
        for i in range(n_segments):
            n_coded = (n_strides // n_segments + (i < n_strides % n_segments)) * stride + 1
            segments.append(Segment(begin, min(n_coded, end - begin), n_coded))
            begin += n_coded
    return segments


def pad_frames(frames: np.ndarray, n_coded_frames: int) -> np.ndarray:
    """Repeats the last frame: [F, ...] → [n_coded_frames, ...]. Raises UsageError if there are more or no frames."""
    n_missing = n_coded_frames - len(frames)
    if not len(frames) or n_missing < 0:
        raise UsageError(f"{len(frames)} frames cannot be padded to {n_coded_frames}")
    return np.concatenate([frames, np.repeat(frames[-1:], n_missing, axis=0)]) if n_missing else frames


def resize_frames(frames: np.ndarray, width: int, height: int) -> np.ndarray:
    """Resizes uint8 [F, H, W, 3] (or one frame [H, W, 3]) to the given width and height in pixels, 8 bits per step.

    Pillow's antialiased LANCZOS if any side shrinks, else BICUBIC, which rings less where detail has to be invented.
    """
    from PIL import Image

    if frames.ndim == 3:
        return resize_frames(frames[None], width, height)[0]
    if frames.shape[1:3] == (height, width):
        return frames
    shrinks = width < frames.shape[2] or height < frames.shape[1]
    kernel = Image.Resampling.LANCZOS if shrinks else Image.Resampling.BICUBIC
    resized = np.empty((len(frames), height, width, 3), dtype=np.uint8)
    for index, frame in enumerate(frames):
        resized[index] = np.asarray(Image.fromarray(frame).resize((width, height), kernel))
    return resized
