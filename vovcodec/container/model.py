"""What a `.vov` file holds, as plain frozen data. Nothing here reads, writes or checks: `layout.py` owns the bounds.

Enumerations are their names as text; fixed-point numbers are integers named `*_q` with the unit in the docstring.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace

from vovcodec.container.camera import picture_size
from vovcodec.container.errors import FormatError

__all__ = [
    "Adaptation",
    "CodedAtoms",
    "CodedIndices",
    "CodedVector",
    "Generation",
    "RawSection",
    "Sampler",
    "SectionLayout",
    "Segment",
    "SegmentCheck",
    "StreamHeader",
    "VectorUpdate",
    "VovFile",
]


@dataclass(frozen=True, slots=True, kw_only=True)
class Adaptation:
    """How the vector θ becomes low-rank layers. Absent (None) in files without any vector."""

    projection_id: str = "balanced-philox"
    projection_seed: int = 0
    rank: int = 1
    targets: str = "qkvo"
    last_blocks: int = 0  # 0 = all blocks
    vector_length: int
    strength_q8: int = 256  # signed 8.8 fixed point; 256 = 1.0

    @property
    def strength(self) -> float:
        """The factor on ΔW as a float, exact."""
        return self.strength_q8 / 256


@dataclass(frozen=True, slots=True, kw_only=True)
class Sampler:
    """What the decoder samples with, and at which times (FORMAT.md, "Times").

    schedule "shift": `n_steps` steps with a flow shift of `shift_q8` / 256, down to t = 0. "snr": signal-to-noise
    ratios from 2^(-snr_start_q / 8) on, each 1 + snr_ratio_q / 64 times the one before, as many as a segment has
    injections. The fields of the other schedule are None.
    """

    sampler_id: str = "ode"
    noise_id: str = "philox-normal16"
    seed: int = 0
    schedule: str = "shift"
    n_steps: int | None = None
    shift_q8: int | None = None
    snr_start_q: int | None = None
    snr_ratio_q: int | None = None

    def steps_of(self, segment: Segment) -> int:
        """Steps of the sampler that a segment takes."""
        if self.n_steps is not None:
            return self.n_steps
        if segment.generation is not None:
            return 1 + segment.generation.n_injections
        return 1 + (len(segment.atoms.counts) if segment.atoms is not None else 0)


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamHeader:
    """Everything that holds for the whole stream. Sizes in px, frame rate in 1/s, 0/1 = still image."""

    source_width: int
    source_height: int
    coded_width: int
    coded_height: int
    frame_rate_num: int
    frame_rate_den: int
    n_frames: int
    n_segments: int = 1
    segment_frames: int
    colour_matrix: int = 2
    colour_primaries: int = 2
    colour_transfer: int = 2
    colour_range: int = 0
    rotation: int = 0
    sample_aspect_num: int = 1
    sample_aspect_den: int = 1
    has_audio: bool = False
    backbone_id: str
    backbone_revision: str = ""
    fingerprint: bytes
    preset_digest: bytes
    precision: str = "float32"
    adaptation: Adaptation | None = None
    sampler: Sampler


@dataclass(frozen=True, slots=True, kw_only=True)
class CodedVector:
    """θ as range-coded symbols; `header.adaptation.vector_length` says how many. Δ = 2**(12 - step_size_q / 2048)."""

    step_size_q: int
    model: bytes  # entropy-model description, made and parsed by vovcodec.entropy
    words: bytes

    @property
    def size_bytes(self) -> int:
        """Of model and words."""
        return len(self.model) + len(self.words)


@dataclass(frozen=True, slots=True, kw_only=True)
class VectorUpdate:
    """One update of the model: a coded vector and how it becomes low-rank layers, with its strength."""

    adaptation: Adaptation
    vector: CodedVector


@dataclass(frozen=True, slots=True, kw_only=True)
class Generation:
    """How the sampler goes on where the steering ends (schedule "snr"), down to low noise instead of stopping.

    `n_injections`: all of them, steered or not. `eta_scale_q`: factor on the noise fraction of those without atoms in
    1/200; their noise is pseudo-random.
    """

    n_injections: int
    eta_scale_q: int = 100


@dataclass(frozen=True, slots=True, kw_only=True)
class CodedAtoms:
    """Steering atoms: for each injection how many, `counts`, and for all of them which, `words`.

    With codebook "trellis" every atom is one bit of a path in `words`, and `memory` is the trellis' (12 otherwise).
    All counts but the last must be grid values (`counts.count_of_index`). A file is made smaller by dropping the last
    entries of `counts` and coding `words` anew from the atoms that are left.
    `last_q`: the last injection is so many 16ths of a step (schedule "snr"; otherwise 16). `eta_scale_q`: factor on
    the noise fraction in 1/200. `active_channels`: the atoms act on so many latent channels, 0 = all.

    With `scene_injections` > 0 the first so many belong to a picture of the segment's scene, coded as a still on a grid
    of its own (`scene_ratio_q`, `scene_last_q`; `last_q` where there are no others); the others to the clip, whose grid
    then begins at `clip_start_q` (FORMAT.md, 22.1).

    With `camera_path` the camera moves over that picture (22.2): six rows of coefficients in units of
    2^-`camera_step_q` px; the picture is larger than the frames by 8·`margin_x` and 8·`margin_y` px on each side, and
    what lies outside of `crop_left` … `crop_bottom` (quarters of a pixel) is black.
    """

    codebook: str = "trellis"
    memory: int = 12
    counts: tuple[int, ...]
    last_q: int = 16
    eta_scale_q: int = 200
    active_channels: int = 0
    scene_injections: int = 0
    scene_ratio_q: int = 24
    scene_last_q: int = 16
    clip_start_q: int = 0
    camera_path: tuple[tuple[int, ...], ...] = ()
    camera_step_q: int = 2
    margin_x: int = 0
    margin_y: int = 0
    crop_left: int = 0
    crop_right: int = 0
    crop_top: int = 0
    crop_bottom: int = 0
    words: bytes

    @property
    def has_scene_and_clip(self) -> bool:
        """Whether a clip follows the picture of the scene."""
        return 0 < self.scene_injections < len(self.counts)

    def picture_size(self, width: int, height: int) -> tuple[int, int]:
        """Pixels of the picture of the scene for frames of a size."""
        return picture_size(width, height, (self.margin_x, self.margin_y))

    def cut(self, n_injections: int, words: bytes) -> CodedAtoms:
        """The first so many injections, fewer than there are, and their `words`."""
        kept = replace(self, counts=self.counts[:n_injections], last_q=16, words=words)
        if n_injections > self.scene_injections:
            return kept
        last_q = self.scene_last_q if n_injections == self.scene_injections else 16
        return replace(kept, last_q=last_q, scene_injections=n_injections, scene_last_q=16, clip_start_q=0)

    def n_positions(self, shape: tuple[int, ...]) -> int:
        """Atoms that an injection chooses from for latents of `shape` [1, C, T, h, w] (FORMAT.md, 20)."""
        n_entries = min(self.active_channels or shape[1], shape[1]) * math.prod(shape[2:])
        return n_entries if self.codebook == "cyclic-shift" else 1 << max(0, (n_entries - 1).bit_length())


@dataclass(frozen=True, slots=True, kw_only=True)
class CodedIndices:
    """The candidate that importance sampling takes at each step but the last, `log2_candidates` bits each, packed."""

    log2_candidates: int
    indices: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class SegmentCheck:
    """What the encoder saw when it decoded its own work: PSNR in 1/16 dB and a very small luma thumbnail.

    Thumbnail: floor(luma / 16) row by row, the first pixel in the upper four bits of the first byte.
    """

    psnr_q: int
    thumbnail_width: int = 0
    thumbnail_height: int = 0
    thumbnail: bytes = b""

    @property
    def psnr_db(self) -> float:
        """PSNR in dB; the largest value that can be stored stands for all above."""
        return self.psnr_q / 16


@dataclass(frozen=True, slots=True, kw_only=True)
class RawSection:
    """An ancillary section kept as it is: `type` 0x80..0xBF belongs to the stream, 0xC0..0xFF to a segment."""

    type: int
    payload: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Segment:
    """One independently decodable run of `n_frames` real frames (padding not counted) from `first_frame` on.

    `caption` None means the stream's shared caption (`VovFile.caption`). `merged`: further vectors, each with an
    adaptation of its own. `generation` None: the sampler stops where the steering ends.
    """

    index: int
    first_frame: int = 0
    n_frames: int
    caption: str | None = None
    vector: CodedVector | None = None
    atoms: CodedAtoms | None = None
    importance: CodedIndices | None = None
    check: SegmentCheck | None = None
    merged: tuple[VectorUpdate, ...] = ()
    generation: Generation | None = None
    extras: tuple[RawSection, ...] = ()

    def updates(self, adaptation: Adaptation | None) -> tuple[VectorUpdate, ...]:
        """All updates of the model, the segment's own vector (with the header's `adaptation`) first."""
        if self.vector is None or adaptation is None:
            return self.merged
        return (VectorUpdate(adaptation=adaptation, vector=self.vector), *self.merged)


@dataclass(frozen=True, slots=True, kw_only=True)
class SectionLayout:
    """Where a section lies: `offset` and `size_bytes` (framing and CRC included); `parts` = its blobs' sizes.

    `segment` is the number of the segment it belongs to, None for the stream's own sections.
    """

    name: str
    type: int
    segment: int | None
    offset: int
    size_bytes: int
    parts: tuple[tuple[str, int], ...] = ()


@dataclass(frozen=True, slots=True)
class VovFile:
    """A whole file. `layout`, `version` and `damage` are the reader's findings and do not take part in comparisons.

    `damage` (tolerant reading only) lists (segment number or None for the stream's own sections, error).
    """

    header: StreamHeader
    segments: tuple[Segment, ...]
    caption: str | None = None
    extras: tuple[RawSection, ...] = ()
    history: tuple[dict, ...] = ()
    layout: tuple[SectionLayout, ...] = field(default=(), compare=False)
    damage: tuple[tuple[int | None, FormatError], ...] = field(default=(), compare=False)
    version: tuple[int, int] | None = field(default=None, compare=False)

    def caption_of(self, segment: Segment) -> str:
        """The caption that conditions `segment`: its own, else the shared one, else the empty text."""
        if segment.caption is not None:
            return segment.caption
        return self.caption or ""
