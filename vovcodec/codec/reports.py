"""What the codec reports back: plain frozen data."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction

__all__ = ["DecodeReport", "EditReport", "EncodeReport", "ScaleReport"]


@dataclass(frozen=True)
class EncodeReport:
    """What one encode produced.

    sections: bytes per kind of section, summing to size_bytes. bpp: 8·size_bytes / (frames·source width·height).
    psnr_db, ssim: of the decoded frames against the source at coded size, as `vov eval` has them.
    sizes: (width, height) in pixels.
    n_network_evaluations: forward passes of the velocity network, all segments. caption: the text stored.
    """

    output: str
    size_bytes: int
    sections: dict[str, int]
    bpp: float
    psnr_db: float
    ssim: float
    n_frames: int
    source_size: tuple[int, int]
    coded_size: tuple[int, int]
    frame_rate: Fraction
    preset: str
    effort: str
    backbone: str
    n_network_evaluations: int
    encode_s: float
    peak_memory_bytes: int
    segments: int
    caption: str = ""


@dataclass(frozen=True)
class DecodeReport:
    """What one decode produced.

    verify_psnr_db: PSNR the encoder measured, as stored in the file; None without a check section or without `verify`.
    drift_db: PSNR in dB between this machine's and the encoder's thumbnails, infinite where they agree (40 and
        more is as it should be); None as above.
    damage: what was wrong with the file, one line each, and which frames are lost; empty for a whole file.
    """

    output: str
    n_frames: int
    size: tuple[int, int]
    frame_rate: Fraction
    decode_s: float
    n_network_evaluations: int
    peak_memory_bytes: int
    verify_psnr_db: float | None = None
    drift_db: float | None = None
    damage: tuple[str, ...] = ()


@dataclass(frozen=True)
class ScaleReport:
    """What one `scale` produced; fields as in `EncodeReport`. No quality is known where no reference was given."""

    output: str
    size_bytes: int
    sections: dict[str, int]
    bpp: float
    psnr_db: float | None
    ssim: float | None
    n_frames: int
    n_network_evaluations: int
    scale_s: float
    peak_memory_bytes: int


@dataclass(frozen=True)
class EditReport:
    """What one `edit` into a `.vov` file produced; size_bytes and sections as in `EncodeReport`.

    vectors, strengths: of the segment that has most vectors. steps: of the sampler, of the segment that takes
    most.
    """

    output: str
    size_bytes: int
    sections: dict[str, int]
    n_frames: int
    coded_size: tuple[int, int]
    frame_rate: Fraction
    segments: int
    vectors: int
    strengths: list[float] | None
    steps: int
    edits: int | None
    caption: str = ""
