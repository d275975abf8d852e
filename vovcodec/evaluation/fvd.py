"""FVD: Fréchet distance between features of short video crops.

T. Unterthiner et al., "FVD: a new metric for video generation", ICLR DeepGenStruct workshop 2019. Crops as in the
evaluation of "Compression as Adaptation" (arXiv 2603.07615): 16 frames of 224×224 pixels, on a grid of 4×2 places, at
up to five times that do not overlap. The network is a TorchScript file of I3D, the one commonly used with StyleGAN-V.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from vovcodec.errors import ModelError, UsageError
from vovcodec.evaluation.networks import find_weights

__all__ = ["CROP_FRAMES", "CROP_SIDE", "Fvd", "crops", "frechet_distance", "load_fvd"]

CROP_FRAMES, CROP_SIDE = 16, 224
_N_COLUMNS, _N_ROWS, _N_TIMES = 4, 2, 5

Features = Callable[[np.ndarray], np.ndarray]
"""float32 crops [N, 16, 224, 224, 3] in 0…1 → features [N, D]."""


class Fvd:
    """FVD of a clip against its reference; `features` maps crops to vectors."""

    def __init__(self, features: Features) -> None:
        self._features = features

    def __call__(self, reference: np.ndarray, distorted: np.ndarray) -> float:
        """The distance, at least 0 up to rounding; lower is better. Frames uint8 [F, H, W, 3]. Raises UsageError."""
        one, other = (
            np.concatenate([self._features(crop[None].astype(np.float32) / 255) for crop in crops(frames)])
            for frames in (reference, distorted)
        )
        return frechet_distance(one, other)


def crops(frames: np.ndarray) -> list[np.ndarray]:
    """The crops of a clip, uint8 [16, 224, 224, 3] each, evenly spread from border to border; they may overlap in
    space. Raises UsageError for clips that are too small."""
    n_frames, height, width = frames.shape[:3]
    if n_frames < CROP_FRAMES or min(height, width) < CROP_SIDE:
        raise UsageError(
            f"FVD needs at least {CROP_FRAMES} frames of {CROP_SIDE}x{CROP_SIDE}, not {n_frames} of {width}x{height}"
        )
    times = range(0, n_frames - CROP_FRAMES + 1, CROP_FRAMES)[:_N_TIMES]
    rows, columns = _starts(height, _N_ROWS), _starts(width, _N_COLUMNS)
    return [
        frames[time : time + CROP_FRAMES, row : row + CROP_SIDE, column : column + CROP_SIDE]
        for time in times
        for row in rows
        for column in columns
    ]


def _starts(length: int, n: int) -> list[int]:
    return [round(i * (length - CROP_SIDE) / (n - 1)) for i in range(n)]


def frechet_distance(one: np.ndarray, other: np.ndarray) -> float:
    """|μ₁ − μ₂|² + tr(Σ₁ + Σ₂ − 2·(Σ₁Σ₂)^½) of Gaussians fitted to two sets of vectors [N, D], N ≥ 2.

    tr (Σ₁Σ₂)^½ is the sum of the singular values of A₁·A₂ᵀ/(N−1), with A the centred vectors: the two products have
    the same eigenvalues other than zero. Everything in float64.
    """
    one, other = one.astype(np.float64), other.astype(np.float64)
    if min(len(one), len(other)) < 2:
        raise UsageError("a Fréchet distance needs at least two vectors on each side")
    centred, others = one - one.mean(0), other - other.mean(0)
    freedom = np.sqrt((len(one) - 1) * (len(other) - 1))
    mean_part = np.square(one.mean(0) - other.mean(0)).sum()
    spread = np.square(centred).sum() / (len(one) - 1) + np.square(others).sum() / (len(other) - 1)
    return float(mean_part + spread - 2 * np.linalg.svd(centred @ others.T, compute_uv=False).sum() / freedom)


def load_fvd(folder: Path | None) -> Fvd:
    """FVD with I3D from `i3d_torchscript.pt`. Raises ModelError when the file is missing or cannot be loaded."""
    path = find_weights("the network of FVD (I3D)", ("i3d_torchscript.pt",), folder)
    try:
        network = torch.jit.load(str(path), map_location="cpu").eval()
    except (RuntimeError, ValueError) as error:
        raise ModelError(f"{path}: not a TorchScript network: {str(error).splitlines()[0]}") from error

    @torch.no_grad()
    def features(videos: np.ndarray) -> np.ndarray:
        # The reference's evaluation leaves both switches off: values stay in 0…1.
        tensor = torch.from_numpy(videos).permute(0, 4, 1, 2, 3)
        return network(tensor, rescale=False, resize=False, return_features=True).numpy()

    return Fvd(features)
