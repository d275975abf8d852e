"""What a frozen diffusion model must offer to be used as a codec; how to add one: .github/CONTRIBUTING.md, "Adding"."""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Protocol

import numpy as np
from torch import Tensor, device, nn

from vovcodec.backbone.geometry import LatentGeometry

if TYPE_CHECKING:
    from vovcodec.sampling.camera import CameraPath

__all__ = ["Backbone", "LatentGeometry", "Scene"]


class Scene(Protocol):
    """What a model offers to code a clip from a picture of its scene on (sampling/scene.py)."""

    def target(self, picture: Tensor) -> Tensor:
        """Pixels [1, 3, H, W] in [−1, 1] → latents [1, C, 1, h, w], as a still's."""
        ...

    def standing(self, latents: Tensor, n_frames: int) -> Tensor:
        """Latents of a still → those of the clip that shows it for `n_frames` coded frames, [1, C, T, h, w]."""
        ...

    def impose(self, clean: Tensor, standing: Tensor) -> Tensor:
        """Latents of a clip, with what a picture can show of it taken from `standing`. Linear in both."""
        ...

    def along_motion(self, clean: Tensor, t: float) -> Tensor:
        """x̂₀ of a clip at time t, [1, C, T, h, w], with fewer errors for what the model makes of its motion; `clean`
        itself where that is nothing."""
        ...

    def shown(self, latents: Tensor, n_frames: int) -> np.ndarray:
        """Latents of a still → the first `n_frames` frames of the clip that shows it, uint8 [F, H, W, 3]."""
        ...

    def seen_by(self, path: CameraPath) -> Scene:
        """The same for a camera that moves; the picture is then larger than the frames."""
        ...


class Backbone(Protocol):
    """A frozen model. `velocity` follows x_t = (1 − t)·x₀ + t·ε, v = ε − x₀, in the model's normalised latents."""

    id: str
    revision: str
    fingerprint: bytes
    precision: str
    geometry: LatentGeometry
    device: device
    scene: Scene | None
    """None where clips cannot rest on a picture of their scene."""

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

    def sampler_velocity(self, x_t: Tensor, t: float, condition: Tensor, *, last: bool) -> Tensor:
        """`velocity` as the sampler takes it, where a better estimate is worth more than one evaluation. `last`: for
        the step whose estimate is the picture. Part of the model, so that all decoders do the same;
        `geometry.evaluations_of_steps` says how many evaluations it takes. For most models it is `velocity`."""
        ...

    def fitting_precision(self) -> AbstractContextManager:
        """A context for the passes of a fit, which need not be reproducible elsewhere: faster, less exact arithmetic
        where this machine has it, else nothing."""
        ...

    def adaptable_linears(self, targets: str, last_blocks: int) -> list[tuple[str, nn.Linear]]:
        """The layers a vector may adapt, in the fixed order that the format relies on."""
        ...
