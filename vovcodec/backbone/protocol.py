"""What a frozen diffusion model must offer to be used as a codec. Adding one takes one file, one line in the registry
and one preset."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
from torch import Tensor, device, nn

__all__ = ["Backbone", "LatentGeometry"]


@dataclass(frozen=True)
class LatentGeometry:
    """How frames map to latents.

    time_stride: coded frames are `time_stride`·n + 1; they become n + 1 latent frames.
    space_stride: pixels per latent value along each side.
    size_multiple: coded width and height are multiples of this (stride × patch).
    channels: latent channels C.
    max_frames: longest segment in frames; 1 for models of still pictures.
    """

    time_stride: int
    space_stride: int
    size_multiple: int
    channels: int
    max_frames: int

    def latent_shape(self, n_frames: int, width: int, height: int) -> tuple[int, int, int, int, int]:
        """[1, C, T, h, w] for coded frames of a size."""
        n_latent_frames = 1 + (n_frames - 1) // self.time_stride
        return (1, self.channels, n_latent_frames, height // self.space_stride, width // self.space_stride)


class Backbone(Protocol):
    """A frozen model. `velocity` follows x_t = (1 − t)·x₀ + t·ε, v = ε − x₀, in the model's normalised latents."""

    id: str
    revision: str
    fingerprint: bytes
    precision: str
    geometry: LatentGeometry
    device: device

    def to_latents(self, frames: np.ndarray) -> Tensor:
        """uint8 frames [F, H, W, 3], F = time_stride·n + 1 → latents float32 [1, C, T, h, w]."""
        ...

    def to_frames(self, latents: Tensor) -> np.ndarray:
        """Latents [1, C, T, h, w] → uint8 frames [F, H, W, 3]."""
        ...

    def embed_caption(self, caption: str) -> Tensor:
        """A caption → the condition that `velocity` takes, [1, L, D]. The empty caption is allowed."""
        ...

    def velocity(self, x_t: Tensor, t: float | Tensor, condition: Tensor) -> Tensor:
        """v(x_t, t) for latents [B, C, T, h, w] and a time (or [B] times) in [0, 1]; differentiable in the weights'
        adaptation; float32 out."""
        ...

    def adaptable_linears(self, targets: str, last_blocks: int) -> list[tuple[str, nn.Linear]]:
        """The layers a vector may adapt, in the fixed order that the format relies on."""
        ...

    def score_weights(self, n_latent_frames: int) -> Tensor | None:
        """Relative importance of latent errors for pixels, broadcastable to [1, C, T, h, w]; None = all equal."""
        ...
