"""Low-rank updates with a vector of its own for every sample of a batch, differentiable: for training only.

The same factors as `adaptation.lowrank.LowRankAdapter` of rank 1 with an offset makes of each vector (a test compares).
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch
from torch import Tensor, nn

from vovcodec.adaptation.lowrank import offset_vector
from vovcodec.adaptation.projection import BalancedProjection

__all__ = ["BatchedUpdates"]


class BatchedUpdates:
    """ΔW_b = B(θ₀+θ_b)·A(θ₀+θ_b) − B(θ₀)·A(θ₀) for sample b, on the given (name, layer) in the format's order.

    entry_scale: √(D/k), by how much a vector entry must move for the factor entries it feeds to move by one.
    """

    def __init__(self, linears: list[tuple[str, nn.Linear]], *, vector_length: int, seed: int) -> None:
        self._layers = [layer for _, layer in linears]
        self._sizes = [n for layer in self._layers for n in (layer.in_features, layer.out_features)]
        n_entries = sum(self._sizes)
        projection = BalancedProjection(n_entries, vector_length, seed)
        self._index = torch.from_numpy(projection.index.astype(np.int64))
        self._scale = torch.from_numpy(projection.scale)
        self._offset = torch.from_numpy(offset_vector(n_entries, vector_length, seed))
        self.entry_scale = math.sqrt(n_entries / vector_length)

    def _factors(self, theta: Tensor) -> tuple[Tensor, ...]:
        """A and B of the first layer, of the second one, …: [B, in] and [B, out] of θ₀ + θ [B, k]."""
        return ((self._offset + theta)[:, self._index] * self._scale).split(self._sizes, dim=1)

    @contextmanager
    def attached(self, theta: Tensor) -> Iterator[None]:
        """While inside, sample b of a batch sees the layers with the update of θ [B, k], row b."""
        factors, still = self._factors(theta), self._factors(torch.zeros_like(theta[:1]))
        handles = []
        for number, layer in enumerate(self._layers):
            a, b = factors[2 * number : 2 * number + 2]
            a_0, b_0 = still[2 * number : 2 * number + 2]

            def add_update(module, inputs, output, a=a, b=b, a_0=a_0, b_0=b_0):
                x = inputs[0]  # [B, n, in]
                moved = (x @ a.to(x.dtype)[:, :, None]) * b.to(x.dtype)[:, None]
                return output + moved - (x @ a_0.to(x.dtype)[:, :, None]) * b_0.to(x.dtype)[:, None]

            handles.append(layer.register_forward_hook(add_update))
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()
