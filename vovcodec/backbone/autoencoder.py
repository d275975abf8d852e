"""The autoencoder of Wan and Qwen-Image (the same network): frames ↔ latents normalised per channel.

    latents = (mode(encode(x)) − mean) / std        frames = decode(std·latents + mean)

with `latents_mean` and `latents_std` of the autoencoder's configuration and x in [−1, 1], as in diffusers' pipelines.
It runs in float32 whatever the transformer's precision: in bfloat16 its rounding is visible.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor, nn

from vovcodec.backbone.memory import (
    MemoryNeed,
    free_memory_bytes,
    is_out_of_memory,
    out_of_memory_explained,
    release_memory,
    set_aside,
)
from vovcodec.backbone.pixels import to_uint8

__all__ = ["NormalizedAutoencoder"]

_Result = TypeVar("_Result")


class NormalizedAutoencoder:
    """Wraps an `AutoencoderKLWan` or `AutoencoderKLQwenImage`.

    Args:
        network: in float32, on its device.
        device: where it works.
        idle: modules on a CUDA device that do nothing meanwhile; they make room where not even tiles fit.
    """

    def __init__(
        self,
        network: nn.Module,
        device: torch.device,
        idle: Callable[[], Sequence[nn.Module]] = tuple,
    ) -> None:
        self.network = network.eval().requires_grad_(False)
        self.device = device
        self._idle = idle if device.type == "cuda" else tuple
        config = network.config
        self.channels: int = config.z_dim
        self._mean = torch.tensor(config.latents_mean, device=device).view(1, -1, 1, 1, 1)
        self._std = torch.tensor(config.latents_std, device=device).view(1, -1, 1, 1, 1)

    @torch.no_grad()
    def to_latents(self, frames: np.ndarray, need: MemoryNeed) -> Tensor:
        """uint8 frames [F, H, W, 3] → float32 latents [1, C, T, h, w]. `need`: estimate for this size."""

        def work() -> Tensor:
            x = torch.tensor(frames, device=self.device).permute(3, 0, 1, 2)[None]
            moments = self.network.encode(x.float() / 127.5 - 1.0).latent_dist
            return (moments.mode() - self._mean) / self._std

        return self._run("encoding frames to latents", work, need)

    @torch.no_grad()
    def to_frames(self, latents: Tensor, need: MemoryNeed) -> np.ndarray:
        """Latents [1, C, T, h, w] → uint8 frames [F, H, W, 3]. `need`: estimate for this size."""

        def work() -> np.ndarray:
            x = self.network.decode(latents.float() * self._std + self._mean, return_dict=False)[0]
            return to_uint8(x[0].permute(1, 2, 3, 0))

        return self._run("decoding latents to frames", work, need)

    def _run(self, activity: str, work: Callable[[], _Result], need: MemoryNeed) -> _Result:
        """`work` with or without tiles; where the estimate was too low, once more with tiles, then without `idle`."""
        free = free_memory_bytes(str(self.device))
        fits = free is None or need.frames <= free
        self._set_tiling(not fits)
        if fits:
            done, result = self._tried(work)
            if done:
                return result
            self._set_tiling(True)
        if idle := self._idle():
            done, result = self._tried(work)
            if done:
                return result
        with (
            set_aside(idle, str(self.device)),
            out_of_memory_explained(
                activity,
                str(self.device),
                "use a smaller --size",
                "use shorter segments (geometry.segment_frames in the preset)",
            ),
        ):
            return work()

    def _tried(self, work: Callable[[], _Result]) -> tuple[bool, _Result | None]:
        """(True, the result), or (False, None) where memory ran out."""
        try:
            return True, work()
        except Exception as error:
            if not is_out_of_memory(error):
                raise
        release_memory(str(self.device))
        return False, None

    def _set_tiling(self, tiling: bool) -> None:
        if tiling:
            self.network.enable_tiling()
            self.network.enable_slicing()
        else:
            self.network.disable_tiling()
