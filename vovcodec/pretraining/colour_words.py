"""Words for the colours of a picture, by which captions are completed: what a weak prior can be told in words."""

from __future__ import annotations

import re

import torch
import torch.nn.functional as F

__all__ = ["colour_words", "with_colours"]

# The eleven basic colour terms (Berlin and Kay 1969) and an sRGB value that each is used for.
_ANCHORS = {
    "black": (20, 20, 20),
    "white": (240, 240, 240),
    "grey": (128, 128, 128),
    "red": (190, 40, 40),
    "orange": (235, 140, 40),
    "yellow": (235, 215, 70),
    "green": (70, 130, 60),
    "blue": (60, 110, 190),
    "purple": (125, 65, 150),
    "pink": (235, 150, 175),
    "brown": (115, 75, 45),
}
_TONES = 3  # the first of them have no hue
_LEAST_SHARE = (0.5, 0.25)  # of the picture, for a tone and for a hue to be named
_CHROMA_WEIGHT = 2.5  # of differences in chroma against those in luma: weak colours are still that colour
_DARK, _BRIGHT = -0.5, 0.35  # mean of all samples in [−1, 1]
_GRID = 12


def colour_words(frame: torch.Tensor) -> str:
    """ "green and brown", "dark blue", "" … for a frame [3, H, W] in [−1, 1]: colours by share, at most two.

    Each cell of a coarse grid counts for the nearest anchor.
    """
    cells = F.adaptive_avg_pool2d(frame[None], _GRID)[0].flatten(1).T
    anchors = torch.tensor(list(_ANCHORS.values()), dtype=torch.float32) / 127.5 - 1
    shares = torch.cdist(_opponent(cells), _opponent(anchors)).argmin(dim=1).bincount(minlength=len(anchors))
    least = [_LEAST_SHARE[i >= _TONES] * len(cells) for i in range(len(anchors))]
    by_share = shares.argsort(descending=True, stable=True).tolist()
    named = [list(_ANCHORS)[i] for i in by_share if shares[i] >= least[i]][:2]
    mean = float(frame.mean())
    tone = "dark " if mean < _DARK else "bright " if mean > _BRIGHT else ""
    return (tone + " and ".join(named)).strip()


def _opponent(rgb: torch.Tensor) -> torch.Tensor:
    """Luma and weighted chroma differences, [N, 3], of colours [N, 3] in [−1, 1]."""
    luma = rgb.float() @ torch.tensor([0.299, 0.587, 0.114])
    return torch.stack([luma, *(_CHROMA_WEIGHT * (rgb[:, i] - luma) for i in (0, 2))], dim=1)


def with_colours(caption: str, words: str) -> str:
    """The caption of a picture with its colours before the subject: a photo of WORDS goldfish, a WORDS dog."""
    if not words:
        return caption
    head, article, subject = re.fullmatch(r"(a photo of )?(an? )?(.*)", caption, re.IGNORECASE | re.DOTALL).groups("")
    if article:
        article = "an " if words[0] in "aeiou" else "a "
    return f"{head}{article}{words} {subject or 'picture'}"
