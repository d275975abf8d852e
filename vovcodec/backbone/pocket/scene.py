"""Scenes of the embedded model (`protocol.Scene`): pictures have the space of pictures.py, clips that of clips.py."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from vovcodec.backbone.pixels import to_uint8
from vovcodec.sampling.camera import CameraPath

if TYPE_CHECKING:
    from vovcodec.backbone.pocket.clips import ClipNetwork
    from vovcodec.backbone.pocket.pictures import PictureNetwork

__all__ = ["PocketScene"]


class PocketScene:
    """A scene before a camera that stands still."""

    def __init__(self, pictures: PictureNetwork, clips: ClipNetwork) -> None:
        self._pictures, self._clips = pictures, clips

    @torch.no_grad()
    def target(self, picture: Tensor) -> Tensor:
        """See `protocol.Scene.target`."""
        return self._pictures.encode(picture.to(self._clips.spectrum.device)[:, :, None])

    @torch.no_grad()
    def standing(self, latents: Tensor, n_frames: int) -> Tensor:
        """See `protocol.Scene.standing`."""
        return self._clips.encode_standing(self._picture(latents)[:, :, None], n_frames)

    @torch.no_grad()
    def impose(self, clean: Tensor, standing: Tensor) -> Tensor:
        """See `protocol.Scene.impose`."""
        return self._clips.impose(clean, standing)

    @torch.no_grad()
    def along_motion(self, clean: Tensor, t: float) -> Tensor:
        """See `protocol.Scene.along_motion`."""
        return self._clips.along_motion(clean, t)

    @torch.no_grad()
    def shown(self, latents: Tensor, n_frames: int) -> np.ndarray:
        """See `protocol.Scene.shown`."""
        return np.repeat(to_uint8(self._picture(latents).permute(0, 2, 3, 1)), n_frames, axis=0)

    def seen_by(self, path: CameraPath) -> PocketScene:
        """See `protocol.Scene.seen_by`."""
        return _MovingPocketScene(self._pictures, self._clips, path)

    def _picture(self, latents: Tensor) -> Tensor:
        """Latents of a picture → [1, 3, H, W] in [−1, 1]."""
        return self._pictures.decode(latents)[:, :, 0].clamp(-1.0, 1.0)


class _MovingPocketScene(PocketScene):
    """A scene over which a camera moves; what stands still is known in pixels, not in latents."""

    def __init__(self, pictures: PictureNetwork, clips: ClipNetwork, path: CameraPath) -> None:
        super().__init__(pictures, clips)
        self._path = path

    @torch.no_grad()
    def standing(self, latents: Tensor, n_frames: int) -> Tensor:
        """See `protocol.Scene.standing`."""
        return self._encode(self._path.shown(self._picture(latents)))

    @torch.no_grad()
    def impose(self, clean: Tensor, standing: Tensor) -> Tensor:
        """See `protocol.Scene.impose`."""
        frames = self._clips.decode(standing - clean)[0].transpose(0, 1)
        return clean + self._encode(self._path.still_part(frames))

    @torch.no_grad()
    def shown(self, latents: Tensor, n_frames: int) -> np.ndarray:
        """See `protocol.Scene.shown`."""
        return to_uint8(self._path.shown(self._picture(latents)).permute(0, 2, 3, 1))[:n_frames]

    def _encode(self, frames: Tensor) -> Tensor:
        return self._clips.encode(frames.transpose(0, 1)[None])
