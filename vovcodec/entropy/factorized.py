"""The deep factorised rate model (torch; encoder only). `mixture.py` has the cheap alternative with the same interface.

Balle, Minnen, Singh, Hwang, Johnston 2018, "Variational image compression with a scale hyperprior", appendix 6.1.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import nn
from torch.nn import functional

__all__ = ["MIN_PROBABILITY", "FactorizedModel"]

MIN_PROBABILITY = 2.0**-24  # the coder never gives a symbol less than this, so no symbol costs more than 24 bits


class FactorizedModel(nn.Module):
    """One learned cumulative distribution c(y), shared by all symbols of a vector.

    c = sigmoid(f_K(... f_1(y))), f_j(x) = g_j(H_j x + b_j), g_j(x) = x + a_j * tanh(x), the last g is the identity,
    with H_j = softplus(.) >= 0 and a_j = tanh(.) > -1, so c increases. p(y) = c(y + 1/2) - c(y - 1/2).

    Args:
        filters: widths of the hidden layers; three of width 3 make the reference's four layers.
        init_scale: initial half-width of the distribution in symbols.
    """

    def __init__(self, filters: Sequence[int] = (3, 3, 3), init_scale: float = 10.0) -> None:
        super().__init__()
        widths = (1, *filters, 1)
        n_layers = len(widths) - 1
        scale = init_scale ** (1.0 / n_layers)
        self.matrices = nn.ParameterList()
        self.biases = nn.ParameterList()
        self.factors = nn.ParameterList()
        # Biases start spread, not random: fits start from the same state without touching torch's generator.
        for layer, (n_in, n_out) in enumerate(pairwise(widths)):
            start = math.log(math.expm1(1.0 / scale / n_out))
            self.matrices.append(nn.Parameter(torch.full((n_out, n_in), start)))
            spread = torch.linspace(-0.5, 0.5, n_out) if n_out > 1 else torch.zeros(1)
            self.biases.append(nn.Parameter(spread[:, None]))
            if layer < n_layers - 1:
                self.factors.append(nn.Parameter(torch.zeros(n_out, 1)))

    def cumulative_logits(self, values: torch.Tensor) -> torch.Tensor:
        """logit c(y): float [n] in symbols -> float [n]."""
        hidden = values.reshape(1, -1)
        for layer, (matrix, bias) in enumerate(zip(self.matrices, self.biases, strict=True)):
            hidden = functional.softplus(matrix) @ hidden + bias
            if layer < len(self.factors):
                hidden = hidden + torch.tanh(self.factors[layer]) * torch.tanh(hidden)
        return hidden.reshape(-1)

    def probabilities(self, values: torch.Tensor) -> torch.Tensor:
        """p(y) of noisy or whole symbols: float [n] -> float [n] in [2^-24, 1]."""
        values = values.reshape(-1)
        lower = self.cumulative_logits(values - 0.5)
        upper = self.cumulative_logits(values + 0.5)
        # sigmoid(u) - sigmoid(l) = sigmoid(-l) - sigmoid(-u): take it on the side where both are small.
        sign = -torch.sign(lower + upper).detach()
        sign = torch.where(sign == 0, torch.ones_like(sign), sign)
        difference = torch.abs(torch.sigmoid(sign * upper) - torch.sigmoid(sign * lower))
        return difference.clamp_min(MIN_PROBABILITY)

    def rate_bits(self, values: torch.Tensor) -> torch.Tensor:
        """Bits for all of `values` together, -sum log2 p(y); scalar, differentiable in values and parameters.

        Args:
            values: noisy symbols theta / Delta + u (or whole symbols, for the size to expect), float, any shape.
        """
        return -torch.log2(self.probabilities(values)).sum()
