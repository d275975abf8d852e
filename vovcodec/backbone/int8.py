"""Weight-only quantisation to 8 bits: what lets a model of 20 B parameters run on a card of 24 to 32 GB.

FORMAT.md, section 4, precision int8-weights. For every linear layer inside the transformer's blocks, from its bfloat16
weights W:

    s_o  = bfloat16(max_i |W[o, i]| / 127), 1 where that is 0
    q    = clamp(round(W / s_o), ±127)                       int8, stored
    W'   = bfloat16(q·s_o)                                   made for each product and dropped again

Everything else stays in bfloat16. The model is another one than in bfloat16: header and caption cache say so.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vovcodec.errors import ModelError

__all__ = ["Int8Linear", "quantize_blocks"]

_BLOCK_LISTS = ("blocks", "transformer_blocks")


class _Product(torch.autograd.Function):
    """x·W'ᵀ. Only int8 weights are kept for the backward pass; they are frozen, so there is a gradient in x alone."""

    @staticmethod
    def forward(ctx, x: Tensor, weight: Tensor, scale: Tensor) -> Tensor:
        ctx.save_for_backward(weight, scale)
        return F.linear(x, weight.to(x.dtype) * scale.to(x.dtype))

    @staticmethod
    def backward(ctx, gradient: Tensor):
        weight, scale = ctx.saved_tensors
        return gradient @ (weight.to(gradient.dtype) * scale.to(gradient.dtype)), None, None


class Int8Linear(nn.Module):
    """Stands in for a frozen `nn.Linear`, with its weights quantised on `device`."""

    def __init__(self, linear: nn.Linear, device: torch.device) -> None:
        super().__init__()
        self.in_features, self.out_features = linear.in_features, linear.out_features
        weight = linear.weight.detach().to(device=device, dtype=torch.bfloat16).float()
        scale = (weight.abs().amax(dim=1, keepdim=True) / 127).bfloat16().float()
        scale[scale == 0] = 1.0
        self.register_buffer("weight", (weight / scale).round().clamp(-127, 127).to(torch.int8))
        self.register_buffer("scale", scale.bfloat16())
        bias = linear.bias
        self.register_buffer("bias", None if bias is None else bias.detach().to(device))

    def forward(self, x: Tensor) -> Tensor:
        """x [..., in] → [..., out] in the dtype of x."""
        product = _Product.apply(x, self.weight, self.scale)
        return product if self.bias is None else product + self.bias.to(x.dtype)


def quantize_blocks(transformer: nn.Module, device: torch.device) -> None:
    """Replaces every linear layer inside the blocks of a diffusers transformer, one after the other.

    Raises ModelError where it has no blocks under a usual name: it would stay as it is and be called int8-weights.
    """
    blocks = [getattr(transformer, name) for name in _BLOCK_LISTS if hasattr(transformer, name)]
    if not blocks:
        names = " or ".join(_BLOCK_LISTS)
        raise ModelError(f"a {type(transformer).__name__} has no {names} to quantise; use --precision bfloat16")
    for module in [module for each in blocks for module in each.modules()]:
        for name, child in list(module.named_children()):
            if isinstance(child, nn.Linear):
                setattr(module, name, Int8Linear(child, device))
