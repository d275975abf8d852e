"""LPIPS: weighted distance of normalised network features.

R. Zhang, P. Isola, A. A. Efros, E. Shechtman, O. Wang, "The unreasonable effectiveness of deep features as a
perceptual metric", CVPR 2018, equation 1, version 0.1 of the authors' weights ("lin").
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from vovcodec.errors import ModelError
from vovcodec.evaluation.networks import (
    alexnet_layers,
    find_weights,
    frame_batches,
    load_convolutions,
    read_state,
    vgg16_layers,
)

__all__ = ["Lpips", "load_lpips"]

# Statistics of the training images for pictures in −1…1.
_SHIFT, _SCALE = (-0.030, -0.088, -0.188), (0.458, 0.448, 0.450)
# Per network: the layers, which of them are compared (all after a ReLU), torchvision's file, the authors' file.
_NETWORKS = {
    "vgg": (vgg16_layers, (3, 8, 15, 22, 29), ("vgg16-397923af.pth", "vgg16.pth"), ("lpips_vgg.pth", "vgg.pth")),
    "alex": (
        alexnet_layers,
        (1, 4, 7, 9, 11),
        ("alexnet-owt-7be5be79.pth", "alexnet-owt-4df8aa71.pth", "alexnet.pth"),
        ("lpips_alex.pth", "alex.pth"),
    ),
}


class Lpips:
    """d(x, y) = Σ_l mean_hw Σ_c w_lc·(x̂_lhwc − ŷ_lhwc)², features x̂ of unit length over the channels c.

    layers: the network. taps: indices of the layers compared. weights: [C_l] each, not negative.
    """

    def __init__(self, layers: nn.Sequential, taps: Sequence[int], weights: Sequence[Tensor]) -> None:
        self._layers, self._taps = layers, tuple(taps)
        self._weights = [weight.reshape(1, -1, 1, 1) for weight in weights]
        self._shift, self._scale = (torch.tensor(values).view(1, 3, 1, 1) for values in (_SHIFT, _SCALE))

    def __call__(self, reference: np.ndarray, distorted: np.ndarray) -> float:
        """Mean distance over all frames, uint8 [F, H, W, 3]; 0 for identical ones, lower is better."""
        return float(np.mean([float(self.distance(x, y)) for x, y in frame_batches(reference, distorted)]))

    @torch.no_grad()
    def distance(self, x: Tensor, y: Tensor) -> Tensor:
        """The distance of two pictures, float32 [1, 3, H, W] in 0…1."""
        total = torch.zeros(())
        for one, other, weight in zip(self._features(x), self._features(y), self._weights, strict=True):
            total = total + ((one - other) ** 2 * weight).sum(1).mean()
        return total

    def _features(self, picture: Tensor) -> list[Tensor]:
        h = (2 * picture - 1 - self._shift) / self._scale
        features = []
        for index, layer in enumerate(self._layers):
            h = layer(h)
            if index in self._taps:
                features.append(h / (h.square().sum(1, keepdim=True).sqrt() + 1e-10))
        return features


def load_lpips(network: str, folder: Path | None) -> Lpips:
    """LPIPS on 'vgg' or 'alex' with the published weights. Raises ModelError when a file is missing or unsuitable."""
    build, taps, trunk_names, lin_names = _NETWORKS[network]
    trunk = find_weights(f"the network of LPIPS ({network})", trunk_names, folder)
    lin = find_weights(f"the channel weights of LPIPS ({network})", lin_names, folder, "lpips", "weights/v0.1")
    layers, state = load_convolutions(build(), trunk), read_state(lin)
    try:
        weights = [state[f"lin{number}.model.1.weight"].float() for number in range(len(taps))]
    except KeyError as error:
        raise ModelError(f"{lin}: not the channel weights of LPIPS version 0.1: no {error.args[0]}") from error
    return Lpips(layers, taps, weights)
