"""DISTS: structure and texture similarity of VGG-16 features.

K. Ding, K. Ma, S. Wang, E. P. Simoncelli, "Image quality assessment: unifying structure and texture similarity",
IEEE TPAMI 44(5), 2022, equations 3 to 6.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from vovcodec.errors import ModelError
from vovcodec.evaluation.networks import find_weights, frame_batches, load_convolutions, read_state, vgg16_layers

__all__ = ["Dists", "load_dists"]

_TAPS = (3, 8, 15, 22, 29)
_CHANNELS = (3, 64, 128, 256, 512, 512)
_MEAN, _STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
_C1 = _C2 = 1e-6


class Dists:
    """d(x, y) = 1 − Σ_l Σ_c (α_lc·l(x, y) + β_lc·s(x, y)), with Σ α + Σ β = 1.

        l = (2·μx·μy + c1) / (μx² + μy² + c1)      s = (2·σxy + c2) / (σx² + σy² + c2)

    over the picture itself and the five stages of VGG-16, its max pooling replaced by l2 pooling with a Hanning window.

    layers: VGG-16. alpha, beta: [Σ C_l] = [1475] each.
    """

    def __init__(self, layers: nn.Sequential, alpha: Tensor, beta: Tensor) -> None:
        total = alpha.sum() + beta.sum()
        self._layers = layers
        self._alpha = torch.split(alpha.flatten() / total, _CHANNELS)
        self._beta = torch.split(beta.flatten() / total, _CHANNELS)
        self._mean, self._std = (torch.tensor(values).view(1, 3, 1, 1) for values in (_MEAN, _STD))
        window = torch.from_numpy(np.hanning(5)[1:-1]).float()
        self._window = torch.outer(window, window) / window.sum() ** 2

    def __call__(self, reference: np.ndarray, distorted: np.ndarray) -> float:
        """Mean distance over all frames, uint8 [F, H, W, 3]; 0 for identical ones, lower is better."""
        return float(np.mean([float(self.distance(x, y)) for x, y in frame_batches(reference, distorted)]))

    @torch.no_grad()
    def distance(self, x: Tensor, y: Tensor) -> Tensor:
        """The distance of two pictures, float32 [1, 3, H, W] in 0…1."""
        similarity = torch.zeros(())
        stages = zip(self._features(x), self._features(y), self._alpha, self._beta, strict=True)
        for one, other, alpha, beta in stages:
            mean_x, mean_y = one.mean((2, 3)), other.mean((2, 3))
            variance_x = (one - mean_x[..., None, None]).square().mean((2, 3))
            variance_y = (other - mean_y[..., None, None]).square().mean((2, 3))
            covariance = (one * other).mean((2, 3)) - mean_x * mean_y
            texture = (2 * mean_x * mean_y + _C1) / (mean_x**2 + mean_y**2 + _C1)
            structure = (2 * covariance + _C2) / (variance_x + variance_y + _C2)
            similarity = similarity + (alpha * texture + beta * structure).sum()
        return 1 - similarity

    def _features(self, picture: Tensor) -> list[Tensor]:
        features, h = [picture], (picture - self._mean) / self._std
        for index, layer in enumerate(self._layers):
            h = self._pooled(h) if isinstance(layer, nn.MaxPool2d) else layer(h)
            if index in _TAPS:
                features.append(h)
        return features

    def _pooled(self, h: Tensor) -> Tensor:
        """√(window ∗ h²) at every second place."""
        window = self._window.expand(h.shape[1], 1, 3, 3)
        return (functional.conv2d(h.square(), window, stride=2, padding=1, groups=h.shape[1]) + 1e-12).sqrt()


def load_dists(folder: Path | None) -> Dists:
    """DISTS with the published weights. Raises ModelError when a file is missing or unsuitable."""
    trunk = find_weights("the network of DISTS (VGG-16)", ("vgg16-397923af.pth", "vgg16.pth"), folder)
    names = ("dists_weights.pt", "dists.pt", "weights.pt")
    mixture = find_weights("the channel weights of DISTS", names, folder, "DISTS_pytorch", ".")
    layers, state = load_convolutions(vgg16_layers(), trunk), read_state(mixture)
    for name in ("alpha", "beta"):
        if name not in state or state[name].numel() != sum(_CHANNELS):
            raise ModelError(f"{mixture}: not the weights of DISTS: no {name} of {sum(_CHANNELS)} values")
    return Dists(layers, state["alpha"].float(), state["beta"].float())
