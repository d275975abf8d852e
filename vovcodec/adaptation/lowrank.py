"""Low-rank layers: one vector θ becomes the update ΔW = B·A of every adapted linear layer.

All factors are materialised by one gather per optimiser step, f = θ[h]·s·g (projection.py), cut into A_l [r, in] and
B_l [out, r] layer by layer. The gradient of the gather is a segmented sum: since the assignment is balanced, the
entries of each θ_j form a row of a padded [k, max count] table and the backward pass is one gather and one row sum,
the same result on every run (no atomics). ΔW is applied as two thin products and never merged into the weights, whose
bf16 rounding is larger than the update.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vovcodec.adaptation.projection import BalancedProjection

__all__ = ["LowRankAdapter"]


class _Gather(torch.autograd.Function):
    """f = θ[index]·scale with a deterministic segmented-sum backward."""

    @staticmethod
    def forward(ctx, theta: Tensor, index: Tensor, scale: Tensor, rows: Tensor) -> Tensor:
        ctx.save_for_backward(scale, rows)
        return theta[index] * scale

    @staticmethod
    def backward(ctx, gradient: Tensor):
        scale, rows = ctx.saved_tensors
        weighted = F.pad(gradient * scale, (0, 1))  # the last entry is the padding that rows may point to
        return weighted[rows].sum(dim=1), None, None, None


class LowRankAdapter:
    """Adapts the given layers while `attached`.

    Args:
        linears: (name, layer) in the format's order.
        rank: r of every layer.
        vector_length: k.
        seed: of the projection.
        device: where θ and the factors live; both are float32.
    """

    def __init__(
        self, linears: list[tuple[str, nn.Linear]], *, rank: int, vector_length: int, seed: int, device: torch.device
    ) -> None:
        self._layers = [layer for _, layer in linears]
        self._rank = rank
        self._sizes = [n for layer in self._layers for n in (rank * layer.in_features, rank * layer.out_features)]
        self.n_entries = sum(self._sizes)
        self.vector_length = vector_length
        projection = BalancedProjection(self.n_entries, vector_length, seed)
        self._index = torch.from_numpy(projection.index.astype(np.int64)).to(device)
        self._scale = torch.from_numpy(projection.scale).to(device)
        longest = int(projection.counts.max())
        rows = np.full((vector_length, longest), self.n_entries, dtype=np.int64)
        rows[np.arange(longest) < projection.counts[:, None]] = projection.order
        self._rows = torch.from_numpy(rows).to(device)
        self._factors: list[Tensor] | None = None
        self.strength = 1.0

    def materialize(self, theta: Tensor) -> None:
        """Set all factors from θ float32 [k]; differentiable in θ."""
        flat = _Gather.apply(theta, self._index, self._scale, self._rows)
        self._factors = list(flat.split(self._sizes))

    def _hook(self, number: int):
        def add_update(layer: nn.Linear, inputs: tuple[Tensor, ...], output: Tensor) -> Tensor:
            x = inputs[0]
            a = self._factors[2 * number].view(self._rank, layer.in_features)
            b = self._factors[2 * number + 1].view(layer.out_features, self._rank)
            update = F.linear(F.linear(x, a.to(x.dtype)), b.to(x.dtype))
            return output + self.strength * update

        return add_update

    @contextmanager
    def attached(self) -> Iterator[None]:
        """While inside, every forward of the layers adds x·Aᵀ·Bᵀ, from the last `materialize`."""
        handles = [layer.register_forward_hook(self._hook(i)) for i, layer in enumerate(self._layers)]
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()
            self._factors = None
