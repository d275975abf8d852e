"""The embedded model's text encoder: that of UMT5 (Chung et al. 2023, arXiv 2304.09151), small, on bytes.

Attention has no scale and no rotation; instead every layer adds a learned number per head and distance of two tokens
("relative position bias", Raffel et al. 2020, section 2.1): one for each distance up to 7, then 8 for distances that
grow like powers, in both directions. Names of modules and fields are those of transformers' UMT5EncoderModel, which
computes the same (tests/test_backbone_pocket_networks.py).
"""

from __future__ import annotations

from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vovcodec.backbone.pocket.stored import StoredNetwork

__all__ = ["TextEncoder"]

_BUCKETS, _FARTHEST = 32, 128  # distances are told apart up to the second


class _Attention(nn.Module):
    def __init__(self, width: int, heads: int, head_width: int) -> None:
        super().__init__()
        self._heads = heads
        self.q = nn.Linear(width, heads * head_width, bias=False)
        self.k = nn.Linear(width, heads * head_width, bias=False)
        self.v = nn.Linear(width, heads * head_width, bias=False)
        self.o = nn.Linear(heads * head_width, width, bias=False)
        self.relative_attention_bias = nn.Embedding(_BUCKETS, heads)
        for layer in (self.q, self.k, self.v, self.o):
            nn.init.normal_(layer.weight, std=layer.in_features**-0.5)
        nn.init.normal_(self.q.weight, std=(width * head_width) ** -0.5)
        nn.init.normal_(self.relative_attention_bias.weight, std=width**-0.5)

    def forward(self, x: Tensor, mask: Tensor | None) -> Tensor:
        query, key, value = (y(x).unflatten(2, (self._heads, -1)).transpose(1, 2) for y in (self.q, self.k, self.v))
        bias = self.relative_attention_bias(_bucket(x.shape[1], x.device)).permute(2, 0, 1)
        scores = query @ key.transpose(2, 3) + bias
        if mask is not None:
            scores = scores.masked_fill(mask[:, None, None] == 0, torch.finfo(scores.dtype).min)
        return self.o((scores.softmax(dim=-1) @ value).transpose(1, 2).flatten(2))


class _Mlp(nn.Module):
    def __init__(self, width: int, inner_width: int) -> None:
        super().__init__()
        self.wi_0 = nn.Linear(width, inner_width, bias=False)
        self.wi_1 = nn.Linear(width, inner_width, bias=False)
        self.wo = nn.Linear(inner_width, width, bias=False)
        for layer in (self.wi_0, self.wi_1, self.wo):
            nn.init.normal_(layer.weight, std=layer.in_features**-0.5)

    def forward(self, x: Tensor) -> Tensor:
        return self.wo(F.gelu(self.wi_0(x), approximate="tanh") * self.wi_1(x))


class _Residual(nn.Module):
    """x + f(norm(x)); the name that f has in transformers is given."""

    def __init__(self, name: str, function: nn.Module, width: int, eps: float) -> None:
        super().__init__()
        self._name = name
        self.add_module(name, function)
        self.layer_norm = nn.RMSNorm(width, eps=eps)

    def forward(self, x: Tensor, *arguments: Tensor | None) -> Tensor:
        return x + self.get_submodule(self._name)(self.layer_norm(x), *arguments)


class _Layer(nn.Module):
    def __init__(self, width: int, heads: int, head_width: int, inner_width: int, eps: float) -> None:
        super().__init__()
        attention, mlp = _Attention(width, heads, head_width), _Mlp(width, inner_width)
        self.layer = nn.ModuleList(
            [_Residual("SelfAttention", attention, width, eps), _Residual("DenseReluDense", mlp, width, eps)]
        )

    def forward(self, x: Tensor, mask: Tensor | None) -> Tensor:
        return self.layer[1](self.layer[0](x, mask))


class TextEncoder(StoredNetwork):
    """See the module's docstring. Arguments are those of transformers' UMT5Config."""

    WEIGHTS = "model.safetensors"
    CONSTANT: ClassVar[dict[str, Any]] = {
        "_class_name": "UMT5EncoderModel",
        "dropout_rate": 0.0,
        "feed_forward_proj": "gated-gelu",
        "model_type": "umt5",
        "relative_attention_max_distance": _FARTHEST,
        "relative_attention_num_buckets": _BUCKETS,
    }

    def __init__(
        self,
        vocab_size: int = 384,
        d_model: int = 128,
        d_kv: int = 32,
        d_ff: int = 256,
        num_layers: int = 2,
        num_heads: int = 4,
        layer_norm_epsilon: float = 1e-6,
    ) -> None:
        super().__init__()
        self.shared = nn.Embedding(vocab_size, d_model)
        self.encoder = nn.Module()
        self.encoder.block = nn.ModuleList(
            [_Layer(d_model, num_heads, d_kv, d_ff, layer_norm_epsilon) for _ in range(num_layers)]
        )
        self.encoder.final_layer_norm = nn.RMSNorm(d_model, eps=layer_norm_epsilon)

    def forward(self, ids: Tensor, mask: Tensor | None = None) -> Tensor:
        """Tokens [B, n] → [B, n, d_model]. mask [B, n]: 0 where a token is padding that none may look at."""
        x = self.shared(ids)
        for layer in self.encoder.block:
            x = layer(x, mask)
        return self.encoder.final_layer_norm(x)


def _bucket(n: int, device: torch.device) -> Tensor:
    """Which of the learned numbers belongs to a token (row) that looks at another (column): [n, n]."""
    places = torch.arange(n, device=device)
    ahead = places[None, :] - places[:, None]
    half, near = _BUCKETS // 2, _BUCKETS // 4
    distance = ahead.abs()
    # From 8 on the limits are 8·2^(k/2): squared, integers.
    powers = (distance.square()[..., None] >= near**2 * 2 ** torch.arange(1, half - near, device=device)).sum(-1)
    return torch.where(distance < near, distance, near + powers) + half * (ahead > 0)
