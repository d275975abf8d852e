"""The embedded model's transformer: the architecture of Wan2.1 (Wan team 2025, arXiv 2503.20314), small.

Tokens of p×p latent positions and one latent frame attend to one another, then to the caption; time t scales, shifts
and gates what every block adds ("adaLN"): with e the time's embedding and m_i = e_i + table_i,

    x ← x + m₃·Attention(LN(x)·(1 + m₂) + m₁)
    x ← x + Attention(LN(x), caption)
    x ← x + m₆·MLP(LN(x)·(1 + m₅) + m₄)

Queries and keys are normalised over all heads together and rotated by the token's place (Su et al. 2021, arXiv
2104.09864): of a head's channels two sixths turn with the row, two with the column, the rest with the frame. Names of
modules and fields are those of diffusers' WanTransformer3DModel, which computes the same
(tests/test_backbone_pocket_networks.py): weights are exchangeable, and layers are adapted under the names of Wan's.
"""

from __future__ import annotations

import math
from functools import lru_cache
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vovcodec.backbone.pocket.stored import StoredNetwork

__all__ = ["WanTransformer"]

_BASE = 10000.0  # of rotations and of the time's frequencies


class _Norm(nn.LayerNorm):
    """In float32, whatever comes in."""

    def forward(self, x: Tensor) -> Tensor:
        parameters = (None if p is None else p.float() for p in (self.weight, self.bias))
        return F.layer_norm(x.float(), self.normalized_shape, *parameters, self.eps)


class _Attention(nn.Module):
    def __init__(self, width: int, heads: int, eps: float) -> None:
        super().__init__()
        self._heads = heads
        self.to_q = nn.Linear(width, width)
        self.to_k = nn.Linear(width, width)
        self.to_v = nn.Linear(width, width)
        self.to_out = nn.ModuleList([nn.Linear(width, width)])
        self.norm_q = nn.RMSNorm(width, eps=eps)
        self.norm_k = nn.RMSNorm(width, eps=eps)

    def forward(self, x: Tensor, context: Tensor, rotation: Tensor | None) -> Tensor:
        """x [B, n, W] looks at context [B, m, W]; rotation: of both, where they are the same."""
        query, key = self.norm_q(self.to_q(x)), self.norm_k(self.to_k(context))
        query, key, value = (y.unflatten(2, (self._heads, -1)) for y in (query, key, self.to_v(context)))
        if rotation is not None:
            query, key = _rotated(query, rotation), _rotated(key, rotation)
        seen = F.scaled_dot_product_attention(*(y.transpose(1, 2) for y in (query, key, value)))
        return self.to_out[0](seen.transpose(1, 2).flatten(2).type_as(query))


class _Mlp(nn.Module):
    def __init__(self, width: int, inner_width: int) -> None:
        super().__init__()
        first = nn.Module()
        first.proj = nn.Linear(width, inner_width)
        self.net = nn.ModuleList([first, nn.Identity(), nn.Linear(inner_width, width)])

    def forward(self, x: Tensor) -> Tensor:
        return self.net[2](F.gelu(self.net[0].proj(x), approximate="tanh"))


class _Block(nn.Module):
    def __init__(self, width: int, heads: int, inner_width: int, eps: float) -> None:
        super().__init__()
        self.norm1 = _Norm(width, eps, elementwise_affine=False)
        self.attn1 = _Attention(width, heads, eps)
        self.attn2 = _Attention(width, heads, eps)
        self.norm2 = _Norm(width, eps)
        self.ffn = _Mlp(width, inner_width)
        self.norm3 = _Norm(width, eps, elementwise_affine=False)
        self.scale_shift_table = _table(6, width)

    def forward(self, x: Tensor, caption: Tensor, time: Tensor, rotation: Tensor) -> Tensor:
        """x [B, n, W], caption [B, m, W], time [B, 6, W]. Sums are made in float32 and kept in the dtype of x."""
        m1, m2, m3, m4, m5, m6 = (time.float() + self.scale_shift_table).unbind(1)
        seen = _modulated(self.norm1(x), m2, m1).type_as(x)
        x = torch.addcmul(x.float(), self.attn1(seen, seen, rotation).float(), m3[:, None]).type_as(x)
        x = x + self.attn2(self.norm2(x).type_as(x), caption, None)
        seen = _modulated(self.norm3(x), m5, m4).type_as(x)
        return torch.addcmul(x.float(), self.ffn(seen).float(), m6[:, None]).type_as(x)


class _TwoLayers(nn.Module):
    def __init__(self, width_in: int, width: int) -> None:
        super().__init__()
        self.linear_1, self.linear_2 = nn.Linear(width_in, width), nn.Linear(width, width)


class _Conditions(nn.Module):
    def __init__(self, width: int, freq_dim: int, text_dim: int) -> None:
        super().__init__()
        self._freq_dim = freq_dim
        self.time_embedder = _TwoLayers(freq_dim, width)
        self.time_proj = nn.Linear(width, 6 * width)
        self.text_embedder = _TwoLayers(text_dim, width)

    def forward(self, timestep: Tensor, caption: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Times [B], embeddings [B, m, text_dim] → e for the last layer [B, W] and for the blocks [B, 6, W], caption
        [B, m, W]."""
        n = self._freq_dim // 2
        exponents = -math.log(_BASE) * torch.arange(n, dtype=torch.float32, device=timestep.device) / n
        angles = timestep[:, None].float() * torch.exp(exponents)
        of_time, of_text = self.time_embedder, self.text_embedder
        waves = torch.cat([angles.cos(), angles.sin()], dim=1).to(of_time.linear_1.weight.dtype)
        time = of_time.linear_2(F.silu(of_time.linear_1(waves))).type_as(caption)
        caption = of_text.linear_2(F.gelu(of_text.linear_1(caption), approximate="tanh"))
        return time, self.time_proj(F.silu(time)).unflatten(1, (6, -1)), caption


class WanTransformer(StoredNetwork):
    """See the module's docstring. Arguments are those of diffusers' WanTransformer3DModel; patch_size: latent frames,
    rows and columns of a token. rope_max_seq_len is kept for that class, and limits nothing here."""

    CONSTANT: ClassVar[dict[str, Any]] = {
        "_class_name": "WanTransformer3DModel",
        "added_kv_proj_dim": None,
        "cross_attn_norm": True,
        "image_dim": None,
        "pos_embed_seq_len": None,
        "qk_norm": "rms_norm_across_heads",
    }

    def __init__(
        self,
        patch_size: tuple[int, int, int] = (1, 2, 2),
        num_attention_heads: int = 4,
        attention_head_dim: int = 64,
        in_channels: int = 65,
        out_channels: int = 64,
        text_dim: int = 128,
        freq_dim: int = 128,
        ffn_dim: int = 768,
        num_layers: int = 7,
        eps: float = 1e-6,
        rope_max_seq_len: int = 256,
    ) -> None:
        super().__init__()
        if attention_head_dim % 2 or attention_head_dim < 6 or freq_dim % 2 or len(patch_size) != 3:
            raise ValueError("attention_head_dim must be even and at least 6, freq_dim even, patch_size three numbers")
        width = num_attention_heads * attention_head_dim
        self.patch_embedding = nn.Conv3d(in_channels, width, kernel_size=patch_size, stride=patch_size)
        self.condition_embedder = _Conditions(width, freq_dim, text_dim)
        self.blocks = nn.ModuleList([_Block(width, num_attention_heads, ffn_dim, eps) for _ in range(num_layers)])
        self.norm_out = _Norm(width, eps, elementwise_affine=False)
        self.proj_out = nn.Linear(width, out_channels * math.prod(patch_size))
        self.scale_shift_table = _table(2, width)

    def forward(self, x: Tensor, timestep: Tensor, caption: Tensor) -> Tensor:
        """Prediction [B, C_out, T, h, w] for x [B, C_in, T, h, w], timesteps 1000·t [B] and a caption's embedding
        [B, m, text_dim]; T, h and w multiples of the patch's."""
        tokens = self.patch_embedding(x)
        grid = tuple(tokens.shape[2:])
        tokens = tokens.flatten(2).transpose(1, 2).contiguous()
        time, modulation, caption = self.condition_embedder(timestep, caption)
        rotation = _rotation(self.config.attention_head_dim, grid, x.device)
        for block in self.blocks:
            tokens = block(tokens, caption, modulation, rotation)
        shift, scale = (time[:, None] + self.scale_shift_table).unbind(1)
        patches = self.proj_out(_modulated(self.norm_out(tokens), scale, shift).type_as(tokens))
        patches = patches.view(len(x), *grid, *self.config.patch_size, -1).movedim(-1, 1)  # [B, C, T, h, w, p, p, p]
        return patches.permute(0, 1, 2, 5, 3, 6, 4, 7).reshape(len(x), -1, *x.shape[2:])


def _table(n: int, width: int) -> nn.Parameter:
    return nn.Parameter(nn.init.normal_(torch.empty(1, n, width), std=width**-0.5))


def _modulated(normal: Tensor, scale: Tensor, shift: Tensor) -> Tensor:
    """normal [B, n, W]; scale and shift [B, W]."""
    return torch.addcmul(shift[:, None], normal, 1 + scale[:, None])


@lru_cache(maxsize=4)
@torch.inference_mode(False)  # gradients may be wanted with what is kept here
def _rotation(head_width: int, grid: tuple[int, int, int], device: torch.device) -> Tensor:
    """By what pairs of channels turn, as complex numbers of size 1: [T·h·w, 1, head_width/2], complex64."""
    in_plane = 2 * (head_width // 6)
    angles = []
    for axis, width in enumerate((head_width - 2 * in_plane, in_plane, in_plane)):
        speeds = _BASE ** -(torch.arange(0, width, 2, dtype=torch.float64) / width)
        along = torch.arange(grid[axis], dtype=torch.float64)[:, None] * speeds
        shape = [1, 1, 1, len(speeds)]
        shape[axis] = grid[axis]
        angles.append(along.view(shape).expand(*grid, -1))
    turn = torch.cat(angles, dim=-1).flatten(0, 2)[:, None]
    return torch.complex(turn.cos().float(), turn.sin().float()).to(device)


def _rotated(x: Tensor, rotation: Tensor) -> Tensor:
    """x [B, n, heads, head_width]; channels 2i and 2i + 1 are real and imaginary part of one number."""
    numbers = torch.view_as_complex(x.float().unflatten(-1, (-1, 2)))
    return torch.view_as_real(numbers * rotation).flatten(-2).type_as(x)
