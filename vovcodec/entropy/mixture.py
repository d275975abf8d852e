"""A cheap rate model for short vectors: a mixture of zero-mean Gaussians (torch; encoder only).

Eight numbers instead of a network, symmetric like the coder's laws. Gaussian scale mixtures
hold the Gaussian exactly and approach the Laplace law and peaked or heavy-tailed laws closely (Andrews and Mallows
1974, "Scale mixtures of normal distributions").
"""

from __future__ import annotations

import math

import torch
from torch import nn

from vovcodec.entropy.factorized import MIN_PROBABILITY

__all__ = ["GaussianMixtureModel"]

MIN_LOG_SCALE = -5.0  # a component this narrow already gives everything to zero; narrower ones would divide by zero


class GaussianMixtureModel(nn.Module):
    """p(y) = sum_j w_j * (Phi((y + 1/2) / s_j) - Phi((y - 1/2) / s_j)), the law of a Gaussian mixture after rounding.

    Args:
        n_components: number of Gaussians.
        smallest, largest: initial standard deviations in symbols, spread logarithmically; learned from there on.
    """

    def __init__(self, n_components: int = 4, smallest: float = 0.25, largest: float = 8.0) -> None:
        super().__init__()
        self.log_scales = nn.Parameter(torch.linspace(math.log(smallest), math.log(largest), n_components))
        self.logits = nn.Parameter(torch.zeros(n_components))

    def fit(self, values: torch.Tensor, n_iterations: int = 200, learning_rate: float = 0.1) -> GaussianMixtureModel:
        """Fit the parameters to given symbols by Adam on their histogram. Returns self.

        A start for learning, and with it `rate_bits` is an estimate of the coded size of symbols at hand. The cost
        depends on the number of different symbols, not on the length of the vector.

        Args:
            values: symbols or noisy symbols, any shape; rounded first.
            n_iterations, learning_rate: of Adam.
        """
        magnitudes, counts = torch.unique(values.detach().round().abs(), return_counts=True)
        magnitudes, shares = magnitudes.to(self.logits), counts.to(self.logits) / counts.sum()
        optimizer = torch.optim.Adam(self.parameters(), lr=learning_rate)
        with torch.enable_grad():
            for _ in range(n_iterations):
                optimizer.zero_grad(set_to_none=True)
                (-torch.log2(self.probabilities(magnitudes)) @ shares).backward()
                optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        return self

    def probabilities(self, values: torch.Tensor) -> torch.Tensor:
        """p(y) of noisy or whole symbols: float [n] -> float [n] in [2^-24, 1]."""
        magnitudes = values.reshape(1, -1).abs()
        scales = self.log_scales.clamp_min(MIN_LOG_SCALE).exp()[:, None]
        # The lower tail keeps its precision where the upper one would round to 1 - 1.
        components = torch.special.ndtr((0.5 - magnitudes) / scales) - torch.special.ndtr((-0.5 - magnitudes) / scales)
        return (torch.softmax(self.logits, dim=0) @ components).clamp_min(MIN_PROBABILITY)

    def rate_bits(self, values: torch.Tensor) -> torch.Tensor:
        """Bits for all of `values` together, -sum log2 p(y); scalar, differentiable in values and parameters.

        Args:
            values: noisy symbols theta / Delta + u (or whole symbols, for the size to expect), float, any shape.
        """
        return -torch.log2(self.probabilities(values)).sum()
