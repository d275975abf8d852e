"""How frames map to latents, for every registered model; plain data without torch, so that files can be checked."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from vovcodec.backbone.catalog import CATALOG
from vovcodec.backbone.fingerprint import fingerprint_folder
from vovcodec.backbone.locate import embedded_folder
from vovcodec.errors import ModelError

__all__ = [
    "POCKET_COMPONENTS",
    "POCKET_WEIGHTS",
    "TOKEN_MARGIN_PX",
    "TOKEN_PHASES",
    "LatentGeometry",
    "evaluations_of_steps",
    "known_geometry",
    "pocket_geometry",
    "token_phases",
]

POCKET_WEIGHTS = Path(__file__).parent / "pocket" / "weights"
POCKET_COMPONENTS = ("transformer", "detail", "vae", "pictures", "clips", "text_encoder")
_POCKET_MAX_FRAMES = 129
_POCKET_STILL_CHANNELS = 192  # 8×8 pixels of three colours: nothing is lost (pocket/pictures.py)
_POCKET_CLIP_CHANNELS = 96  # 8×8 pixels of luma, 4×4 of each chroma at half the size (pocket/clips.py)
TOKEN_PHASES = ((0, 0), (0, 1), (1, 0), (1, 1))
TOKEN_MARGIN_PX = 16  # what the grid grows by along a side when it is moved


@dataclass(frozen=True)
class LatentGeometry:
    """How frames map to latents.

    time_stride: coded frames are `time_stride`·n + 1; they become n + 1 latent frames unless `latent_stride` differs.
    space_stride: pixels per latent value along each side.
    size_multiple: coded width and height are multiples of this (stride × patch).
    channels: latent channels C.
    max_frames: longest segment in frames; 1 for models of still pictures.
    still_channels: C of a single frame, where that is another one.
    latent_stride: frames that become one latent frame, after the first; by default `time_stride`.
    """

    time_stride: int
    space_stride: int
    size_multiple: int
    channels: int
    max_frames: int
    still_channels: int | None = None
    latent_stride: int | None = None

    def coded_frames(self, n_frames: int) -> int:
        """The smallest time_stride·n + 1 that is at least `n_frames`."""
        return -(-(n_frames - 1) // self.time_stride) * self.time_stride + 1

    def latent_shape(self, n_frames: int, width: int, height: int) -> tuple[int, int, int, int, int]:
        """[1, C, T, h, w] for coded frames of a size."""
        n_latent_frames = 1 + (n_frames - 1) // (self.latent_stride or self.time_stride)
        channels = self.still_channels if n_frames == 1 and self.still_channels else self.channels
        return (1, channels, n_latent_frames, height // self.space_stride, width // self.space_stride)


def token_phases(is_clip: bool, is_last: bool) -> tuple[tuple[int, int], ...]:
    """Rows and columns by which the embedded model's grid of tokens is moved in the evaluations of one step.

    is_clip: more than one latent frame. is_last: the step whose estimate is the picture. A single frame has
    two, in the last step all four positions of the 2×2 tokens; a clip half as many: there more gain less than they
    cost.
    """
    if is_last and not is_clip:
        return TOKEN_PHASES
    return (TOKEN_PHASES[0], TOKEN_PHASES[3]) if is_last or not is_clip else TOKEN_PHASES[:1]


def evaluations_of_steps(backbone_id: str, n_steps: int, is_clip: bool, n_more: int = 0) -> int:
    """Network evaluations that so many steps of the sampler take (`Backbone.sampler_velocity`).

    is_clip: more than one latent frame. n_more: steps that go on after the last one (sampling/realism.py).
    """
    if backbone_id != "pocket":
        return n_steps + n_more
    others, last = (len(token_phases(is_clip, is_last)) for is_last in (False, True))
    return (n_steps - 1 + n_more) * others + last


def pocket_geometry() -> LatentGeometry:
    """Of every embedded model of this format version."""
    return LatentGeometry(
        time_stride=4,
        space_stride=8,
        size_multiple=16,
        channels=_POCKET_CLIP_CHANNELS,
        max_frames=_POCKET_MAX_FRAMES,
        still_channels=_POCKET_STILL_CHANNELS,
        latent_stride=1,
    )


def known_geometry(backbone_id: str, fingerprint: bytes) -> LatentGeometry | None:
    """The geometry of the model that a file names, None where it cannot be told without that model.

    Public models have one per id. Embedded models of other format versions had others: the one at hand tells about
    files with its own fingerprint only.
    """
    if backbone_id == "pocket":
        try:
            folder = embedded_folder() or POCKET_WEIGHTS
            known = fingerprint_folder(folder, POCKET_COMPONENTS) == fingerprint
        except (ModelError, OSError, ValueError):
            return None
        return pocket_geometry() if known else None
    facts = CATALOG.get(backbone_id)
    if facts is None:
        return None
    return LatentGeometry(
        time_stride=facts.time_stride,
        space_stride=facts.space_stride,
        size_multiple=facts.patch * facts.space_stride,
        channels=facts.latent_channels,
        max_frames=facts.max_frames,
    )
