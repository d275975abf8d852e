"""The published fitting loop, re-created from its description to be measured beside ours (arXiv 2603.07615).

diffusers' transformer with full gradient checkpointing; every adapted layer gathers its two factors from θ in each of
its calls, the recomputed ones too; batch 1; θ and Adam in the model's own precision; noise from the device's generator.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vovcodec.adaptation.projection import BalancedProjection

__all__ = ["GatheringLinear", "attach_gathering", "reference_step"]


class GatheringLinear(nn.Module):
    """A frozen linear layer plus a rank-1 update θ[index]·scale that is gathered whenever the layer runs."""

    def __init__(self, linear: nn.Linear, theta: nn.Parameter, index: Tensor, scale: Tensor) -> None:
        super().__init__()
        self.linear, self.theta = linear, theta
        self.register_buffer("index", index)
        self.register_buffer("scale", scale.to(theta.dtype))

    def forward(self, x: Tensor) -> Tensor:
        """x [..., in] → [..., out]."""
        factors = self.theta[self.index] * self.scale
        a = factors[: self.linear.in_features].view(1, -1)
        b = factors[self.linear.in_features :].view(-1, 1)
        return self.linear(x) + F.linear(F.linear(x, a), b)


def attach_gathering(transformer: nn.Module, linears: list[tuple[str, nn.Linear]], vector_length: int) -> nn.Parameter:
    """Wraps the layers in place; returns θ [k], uniform in ±0.02, in the precision of their weights."""
    device, dtype = linears[0][1].weight.device, linears[0][1].weight.dtype
    sizes = [layer.in_features + layer.out_features for _, layer in linears]
    projection = BalancedProjection(sum(sizes), vector_length, 0)
    index = torch.from_numpy(projection.index.astype(np.int64)).to(device).split(sizes)
    scale = torch.from_numpy(projection.scale).to(device).split(sizes)
    theta = nn.Parameter(torch.empty(vector_length, device=device, dtype=dtype).uniform_(-0.02, 0.02))
    for (name, layer), layer_index, layer_scale in zip(linears, index, scale, strict=True):
        parent, _, child = name.rpartition(".")
        setattr(transformer.get_submodule(parent), child, GatheringLinear(layer, theta, layer_index, layer_scale))
    transformer.enable_gradient_checkpointing()
    return theta


def reference_step(
    velocity: Callable[[Tensor, float], Tensor], target: Tensor, theta: nn.Parameter
) -> Callable[[], None]:
    """One optimiser step of the published recipe's first stage as a function."""
    optimizer = torch.optim.AdamW([theta], lr=2e-3, betas=(0.9, 0.999), weight_decay=1e-4)

    def step() -> None:
        noise = torch.randn_like(target)
        t = float(torch.rand(()))
        loss = F.mse_loss(velocity((1 - t) * target + t * noise, t), noise - target)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    return step
