"""The embedded model's detail network: convolutions on the latent grid that complete the transformer's prediction.

One transformer token covers 2×2 latent positions, 16×16 pixels, and carries them in a stream no wider than its own
input: at low noise, where what is left to do is local (an edge that crosses a token's border, grain on a flat wall), it
is a poor denoiser. Here every latent position has a stream of its own and sees its neighbours in space and time:

    F = F_transformer + D(network input, F_transformer, t)        (F of precondition.py)

The last layer starts at zero: an untrained detail network leaves the transformer as it is.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vovcodec.backbone.pocket.completion import TimeEmbedding
from vovcodec.backbone.pocket.stored import StoredNetwork

__all__ = ["CompletedTransformer", "DetailNetwork"]


class _Block(nn.Module):
    """3×3 in space, three taps in time, scaled and shifted by the time's embedding; residual."""

    def __init__(self, width: int):
        super().__init__()
        self.spatial = nn.Conv2d(width, width, 3, padding=1)
        self.temporal = nn.Linear(3 * width, width)
        self.modulation = nn.Linear(width, 2 * width)
        nn.init.zeros_(self.modulation.weight)
        nn.init.zeros_(self.modulation.bias)

    def forward(self, x: Tensor, time: Tensor, n_frames: int) -> Tensor:
        """x: [B·T, W, h, w], time [B, W]."""
        scale, shift = self.modulation(time).repeat_interleave(n_frames, 0)[:, :, None, None].chunk(2, dim=1)
        hidden = F.gelu(self.spatial(x) * (1 + scale) + shift, approximate="tanh")
        volume = hidden.permute(0, 2, 3, 1).unflatten(0, (-1, n_frames))  # [B, T, h, w, W]
        padded = F.pad(volume, (0, 0, 0, 0, 0, 0, 1, 1))
        taps = torch.cat([padded[:, :-2], volume, padded[:, 2:]], dim=-1)
        return x + self.temporal(taps).flatten(0, 1).permute(0, 3, 1, 2)


class DetailNetwork(StoredNetwork):
    """See the module's docstring. `channels`: latent channels C; `width`, `layers`: its size."""

    def __init__(self, channels: int = 64, width: int = 128, layers: int = 3):
        super().__init__()
        self.proj_in = nn.Linear(2 * channels + 1, width)
        self.time = TimeEmbedding(width)
        self.blocks = nn.ModuleList([_Block(width) for _ in range(layers)])
        self.proj_out = nn.Linear(width, channels)
        nn.init.zeros_(self.proj_out.weight)
        nn.init.zeros_(self.proj_out.bias)

    def forward(self, network_input: Tensor, prediction: Tensor, t: Tensor) -> Tensor:
        """D: input [B, C+1, T, h, w], the transformer's F [B, C, T, h, w], times [B] in [0, 1] → [B, C, T, h, w]."""
        n_frames = prediction.shape[2]
        x = torch.cat([network_input, prediction.to(network_input.dtype)], dim=1).transpose(1, 2).flatten(0, 1)
        x = self.proj_in(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
        time = self.time(t)
        for block in self.blocks:
            x = block(x, time, n_frames)
        out = self.proj_out(F.gelu(x, approximate="tanh").permute(0, 2, 3, 1))
        return out.unflatten(0, (-1, n_frames)).permute(0, 4, 1, 2, 3)


class CompletedTransformer(nn.Module):
    """Transformer and detail network in one, called as the transformer is. Gradients reach whichever asks for them."""

    def __init__(self, transformer: nn.Module, detail: DetailNetwork) -> None:
        super().__init__()
        self.transformer, self.detail, self.config = transformer, detail, transformer.config

    def forward(self, x: Tensor, timestep: Tensor, caption: Tensor) -> Tensor:
        """F_transformer + D for inputs [B, C+1, T, h, w], timesteps 1000·t [B], embeddings [B, n, W_text]."""
        known = self.transformer(x, timestep, caption)
        return known + self.detail(x, known, timestep / 1000)
