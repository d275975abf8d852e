"""Low-rank layers: one vector θ becomes the update ΔW = B·A of every adapted linear layer.

All factors are materialised by one gather per optimiser step, f = θ[h]·s·g (projection.py), cut into A_l [r, in] and
B_l [out, r] layer by layer. The gradient of the gather is a segmented sum: since the assignment is balanced, the
entries of each θ_j form a row of a padded [k, max count] table and the backward pass is one gather and one row sum,
the same result on every run (no atomics). A step of several backward passes sums their gradients in the factors first
and takes the segmented sum once (`gather`, `collected`). ΔW is applied as two thin products and never merged into the
weights, whose bf16 rounding is larger than the update.

With an offset θ₀ (a fixed pseudo-random vector that both sides derive from the seed, `offset_vector`) the update is
ΔW = B(θ₀+θ)·A(θ₀+θ) − B(θ₀)·A(θ₀): zero at θ = 0, where its gradient is not zero. A coded vector then starts at the
cheapest symbols there are and pays only for what it changes; without one, both factors have to be coded before the
product does anything.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vovcodec.adaptation.projection import BalancedProjection
from vovcodec.sampling.noise import Purpose, Stream, raw_u16

__all__ = ["LowRankAdapter", "offset_vector"]

_numbers = itertools.count()
_OFFSET_RANGE = 1 / 16  # of factor entries; FORMAT.md, "Projection"


def offset_vector(n_entries: int, vector_length: int, seed: int) -> np.ndarray:
    """θ₀: float32 [k] = float32(u·√(D/k)/16), u = (raw_u16 + 0.5)/32768 − 1 from Stream(seed, VECTOR_OFFSET).

    Factor entries (scaled by 1/√count) are then about uniform in ±1/16. Exact on every machine.
    """
    raw = raw_u16(Stream(seed, Purpose.VECTOR_OFFSET), vector_length)
    unit = (raw.astype(np.float64) + 0.5) / 32768 - 1.0
    return (unit * (np.sqrt(np.float64(n_entries) / vector_length) * _OFFSET_RANGE)).astype(np.float32)


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


def _update_hook(name: str):
    """A forward hook that adds the update whose factors lie on the layer under `name`.

    One function for all layers: compiled blocks then share their code.
    """

    def add_update(layer: nn.Linear, inputs: tuple[Tensor, ...], output: Tensor) -> Tensor:
        x = inputs[0]
        a, b, strength = getattr(layer, name)
        return output + strength * F.linear(F.linear(x, a.to(x.dtype)), b.to(x.dtype))

    return add_update


class LowRankAdapter:
    """Adapts the given layers while `attached`.

    Args:
        linears: (name, layer) in the format's order.
        rank: r of every layer.
        vector_length: k.
        seed: of the projection.
        device: where θ and the factors live; both are float32.
        offset: True for updates around θ₀.
    """

    def __init__(
        self,
        linears: list[tuple[str, nn.Linear]],
        *,
        rank: int,
        vector_length: int,
        seed: int,
        device: torch.device,
        offset: bool = False,
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
        # Of the factors on the layers, which several adapters may share.
        self._name = f"low_rank_update_{next(_numbers)}"
        self._expanded: Tensor | None = None
        self._leaf: Tensor | None = None
        self.strength = 1.0
        self._offset = self._offset_factors = None
        if offset:
            theta_0 = offset_vector(self.n_entries, vector_length, seed)
            self._offset = torch.from_numpy(theta_0).to(device)
            with torch.no_grad():
                self._offset_factors = self._pairs(self._entries(self._offset))

    def _entries(self, theta: Tensor) -> Tensor:
        """All factor entries, float32 [D]."""
        return _Gather.apply(theta, self._index, self._scale, self._rows)

    def _pairs(self, entries: Tensor) -> list[tuple[Tensor, Tensor]]:
        """(A [r, in], B [out, r]) of every layer."""
        parts = entries.split(self._sizes)
        return [
            (parts[2 * i].view(self._rank, layer.in_features), parts[2 * i + 1].view(layer.out_features, self._rank))
            for i, layer in enumerate(self._layers)
        ]

    def materialize(self, theta: Tensor) -> None:
        """Set all factors from θ float32 [k]; differentiable in θ."""
        self._set_factors(self._entries(theta if self._offset is None else self._offset + theta))

    def gather(self, theta: Tensor) -> None:
        """As `materialize`, for any number of backward passes before one `collected`."""
        self._expanded = self._entries(theta if self._offset is None else self._offset + theta)
        self._leaf = self._expanded.detach().requires_grad_()
        self._set_factors(self._leaf)

    def collected(self) -> Tensor:
        """A scalar whose gradient in θ is the sum of all that was back-propagated since `gather`."""
        gradient = self._leaf.grad
        return self._expanded.sum() * 0.0 if gradient is None else (self._expanded * gradient).sum()

    def _set_factors(self, entries: Tensor) -> None:
        factors = self._pairs(entries)
        if self._offset is not None:
            # One pair of thin products per layer all the same: [B, −B₀]·[A; A₀].
            factors = [
                (torch.cat([a, a_0]), torch.cat([b, -b_0], dim=1))
                for (a, b), (a_0, b_0) in zip(factors, self._offset_factors, strict=True)
            ]
        for layer, (a, b) in zip(self._layers, factors, strict=True):
            layer.__dict__[self._name] = (a, b, self.strength)

    @contextmanager
    def attached(self) -> Iterator[None]:
        """While inside, every forward of the layers adds x·Aᵀ·Bᵀ, from the last `materialize`."""
        hook = _update_hook(self._name)
        handles = [layer.register_forward_hook(hook) for layer in self._layers]
        try:
            yield
        finally:
            for layer, handle in zip(self._layers, handles, strict=True):
                handle.remove()
                layer.__dict__.pop(self._name, None)
            self._expanded = self._leaf = None
