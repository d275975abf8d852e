"""What an anchor is: a codec with one quality scale, and what one encode of it gives."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from vovcodec.errors import UsageError

__all__ = ["Anchor", "Coded", "require_frames"]


@dataclass(frozen=True)
class Coded:
    """One encode.

    quality        on the anchor's own scale
    payload_bytes  the coded pictures with everything their decoder needs, no container: for clips the sum of the
                   packets, parameter sets included; for stills the compressed image inside the file
    file_bytes     the whole file, where the anchor makes one (stills), else None
    data           the packets, or the file in one piece
    decode         () → uint8 frames [F, H, W, 3] of the size that went in
    """

    anchor: str
    quality: float
    payload_bytes: int
    file_bytes: int | None
    data: tuple[bytes, ...]
    decode: Callable[[], np.ndarray]


@dataclass(frozen=True)
class Anchor:
    """A codec to compare with.

    name        as on the command line; title: with version-independent settings, for tables
    scale       what the quality numbers are called: CRF or quality
    qualities   every setting there is, the fewest bytes first; its first entry is the codec's floor
    stills_only takes one frame
    run         (frames uint8 [F, H, W, 3], quality) → Coded
    missing     () → what this installation lacks, '' if nothing
    """

    name: str
    title: str
    scale: str
    qualities: tuple[float, ...]
    stills_only: bool
    run: Callable[[np.ndarray, float], Coded]
    missing: Callable[[], str]

    def encode(self, frames: np.ndarray, quality: float) -> Coded:
        """Encodes uint8 frames [F, H, W, 3]. Raises UsageError for frames it cannot take, MediaError if it fails."""
        require_frames(frames)
        if self.stills_only and len(frames) != 1:
            raise UsageError(f"{self.name} codes one picture, not a clip of {len(frames)} frames")
        return self.run(frames, quality)


def require_frames(frames: np.ndarray) -> None:
    """Raises UsageError unless frames are uint8 [F, H, W, 3] with at least one pixel."""
    if frames.dtype != np.uint8 or frames.ndim != 4 or frames.shape[-1] != 3 or not frames.size:
        raise UsageError(f"frames have to be uint8 [F, H, W, 3], not {frames.dtype} {frames.shape}")
