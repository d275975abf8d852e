"""Scenes: a clip of which one picture holds for all frames is steered from that picture on.

Where a camera stands still, most of a clip is the same in every frame, and a still carries it in a fraction of the
bytes: its sampler has one frame to denoise, and a network that was made for that. Where it moves over a scene, the same
holds of the frames brought to one view (camera.py). So a segment may begin with injections into a picture that its
frames agree on. If nothing else is worth coding, the picture is shown for all of them; otherwise the clip's sampler
follows, which takes from the picture what it can show. With the latents s of the clip that shows the picture, and d the
unit vector over frames along which the latents of standing clips lie,

    x̂₀ ← x̂₀ + d·⟨d, s − x̂₀⟩ ,        x̂₀ = s at t = 1

replaces what the network says of the part that stands; where the camera moves, what a picture can show of s − x̂₀ is
found in pixels (`CameraPath.still_part`). A model that knows how to average x̂₀ along its motion does so after that,
and the same is done with the result. Nothing is known yet of what moves, so that the first injection can lead far, to
where the network begins to see it (`scene_start`); none of the steps before that is needed.
"""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

from vovcodec.sampling.sampler import Velocity
from vovcodec.sampling.schedule import start_to_q

__all__ = ["SceneVelocity", "scene_start"]

# Where the network's estimate of what moves begins to be better than none: snr·variance. Chosen on two clips, carphone
# and dog, whose moving parts have variances of 5.3e-4 and 1.6e-4: the same snr for both was wasted steps or 0.1 dB.
_FIRST_SNR = 3.5e-4


def scene_start(moving: Tensor) -> int:
    """snr_start_q of the clip's sampler for the moving part of its latents (encoder only)."""
    return start_to_q(_FIRST_SNR / (float(moving.square().mean()) + 1e-12), -128, 127)


class SceneVelocity:
    """The velocity of a clip whose standing part is known (see the module's docstring); a `sampler.Velocity`.

    velocity: the (adapted) model. standing: s, [1, C, T, h, w]. impose: (x̂₀, s) → x̂₀ with the standing part of s.
    along_motion: (x̂₀, t) → x̂₀ averaged along its motion, which is found better once the scene is in it; x̂₀ itself where
    the model does not do so.
    """

    def __init__(
        self,
        velocity: Velocity,
        standing: Tensor,
        impose: Callable[[Tensor, Tensor], Tensor],
        along_motion: Callable[[Tensor, float], Tensor],
    ) -> None:
        self._velocity, self._standing, self._impose, self._along_motion = velocity, standing, impose, along_motion

    def __call__(self, x_t: Tensor, t: float) -> Tensor:
        return self._with_scene(self._velocity, x_t, t)

    def last(self, x_t: Tensor, t: float) -> Tensor:
        return self._with_scene(getattr(self._velocity, "last", self._velocity), x_t, t)

    def _with_scene(self, velocity: Velocity, x_t: Tensor, t: float) -> Tensor:
        if t == 1.0:
            return x_t - self._standing
        clean = self._impose(x_t - t * velocity(x_t, t), self._standing)
        averaged = self._along_motion(clean, t)
        if averaged is not clean:  # where a camera moves, imposing twice is not quite the same as once
            clean = self._impose(averaged, self._standing)
        return (x_t - clean) / t
