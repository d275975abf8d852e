"""What a caller may ask of the codec and what it reports back: plain frozen data, no behaviour beyond checks.

The command line builds these from flags; a Python caller builds them directly. `None` always means "not asked for:
the preset or the input decides".
"""

from __future__ import annotations

from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Any, Literal

from vovcodec.errors import UsageError

__all__ = ["DecodeOptions", "DecodeReport", "EncodeOptions", "EncodeReport", "ScaleOptions", "ScaleReport"]

_RATE_FIELDS = ("target_bytes", "target_bitrate", "target_bpp", "lambda_")


def _check_positive(options: object, *names: str) -> None:
    for name in names:
        value = getattr(options, name)
        if value is not None and not value > 0:
            raise UsageError(f"{name} must be greater than 0, not {value}")


def _check_not_negative(options: object, *names: str) -> None:
    for name in names:
        value = getattr(options, name)
        if value is not None and value < 0:
            raise UsageError(f"{name} must not be negative, not {value}")


def _check_size(size: object) -> None:
    if isinstance(size, tuple) and not (len(size) == 2 and all(isinstance(n, int) and n > 0 for n in size)):
        raise UsageError(f"size must be two positive whole numbers, not {size}")


@dataclass(frozen=True)
class EncodeOptions:
    """Settings of one encode.

    preset: name of a shipped preset or path of a YAML file.
    model: folder of the base model; None = where the preset says, or where models usually are.
    precision: of the model's weights: `float32`, `bfloat16`, `int8-weights`; None = from the preset.
    compiled: the model's blocks by torch.compile, on CUDA; None = from the preset.
    batch: states per optimiser step of the fit; None = from the preset.
    effort: name of an effort in that preset.
    caption: the text itself, `@FILE` (read it from a file), `auto` (a local captioner) or `none`; None = `none`.
    size: coded (width, height) in pixels; None = chosen from the preset's short side.
    frame_rate: frames per second to resample to.
    start_s, duration_s: part of the input in seconds. n_frames: at most so many frames (after resampling).
    target_bytes (whole file), target_bitrate (bits per second), target_bpp (bits per source pixel), lambda_ (fixed
        rate-distortion multiplier): at most one of them.
    split: shares of the payload for (vector, steering), summing to 1.
    audio: `none`, `copy` or a bit rate in bits per second as text.
    device: `auto`, `cpu`, `cuda`, `cuda:0,1`; several encode different segments at a time.
    seed: of the decoder's noise. resume: continue a kept state. state_dir: where states are kept.
    threads: CPU threads; None = all.

    Raises UsageError for values that can never make sense.
    """

    preset: str | Path = "pocket"
    model: Path | None = None
    precision: str | None = None
    compiled: bool | None = None
    batch: int | None = None
    effort: str = "fast"
    caption: str | None = None
    size: tuple[int, int] | None = None
    frame_rate: Fraction | None = None
    start_s: float | None = None
    duration_s: float | None = None
    n_frames: int | None = None
    target_bytes: int | None = None
    target_bitrate: float | None = None
    target_bpp: float | None = None
    lambda_: float | None = None
    split: tuple[float, float] | None = None
    audio: str = "none"
    device: str = "auto"
    seed: int | None = None
    resume: bool = True
    state_dir: Path | None = None
    overwrite: bool = False
    threads: int | None = None

    def __post_init__(self) -> None:
        given = [name for name in _RATE_FIELDS if getattr(self, name) is not None]
        if len(given) > 1:
            names = " and ".join(name.removeprefix("target_").rstrip("_") for name in given)
            raise UsageError(f"{names} exclude each other: give one rate target")
        _check_positive(self, *_RATE_FIELDS, "frame_rate", "duration_s", "n_frames", "threads", "batch")
        _check_not_negative(self, "start_s", "seed")
        _check_size(self.size)
        if self.split is not None and (min(self.split) < 0 or abs(sum(self.split) - 1) > 1e-9):
            raise UsageError(f"split must be two shares that sum to 1, not {self.split}")

    def preset_overrides(self) -> dict[str, dict[str, Any]]:
        """The options that replace preset values, in the shape `vovcodec.presets.resolve` takes.

        Size, frame rate and a bit-rate target depend on the input and are applied by `encode` itself.
        """
        overrides: dict[str, dict[str, Any]] = {}
        path = None if self.model is None else str(self.model)
        backbone = {"path": path, "precision": self.precision, "compile": self.compiled}
        backbone = {key: value for key, value in backbone.items() if value is not None}
        if backbone:
            overrides["backbone"] = backbone
        if self.batch is not None:
            overrides["fitting"] = {"batch": self.batch}
        if self.seed is not None:
            overrides["sampler"] = {"seed": self.seed}
        rate = {"bytes": self.target_bytes, "bpp": self.target_bpp, "lambda": self.lambda_}
        rate = {key: value for key, value in rate.items() if value is not None}
        if self.split is not None:
            rate["split"] = list(self.split)
        if rate:
            overrides["rate"] = rate
        return overrides


@dataclass(frozen=True)
class EncodeReport:
    """What one encode produced.

    sections: bytes per kind of section, summing to size_bytes. bpp: 8·size_bytes / (frames·source width·height).
    psnr_db, ssim: of the decoded frames against the source at coded size. sizes: (width, height) in pixels.
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
class DecodeOptions:
    """Settings of one decode.

    steps: stop after so many network evaluations and show the estimate reached (a preview).
    size: output size: (width, height), `coded` or `source`. start_s, duration_s: part of the clip in seconds.
    verify: compare with the file's check section. force: decode although the base model differs.
    model: folder of the base model; None = where models usually are.
    device: `auto`, `cpu`, `cuda`, `cuda:0,1`; several decode different segments at a time.
    container: output format when the name does not tell (a pipe); None = from the name, `y4m` on a pipe.

    Raises UsageError for values that can never make sense.
    """

    steps: int | None = None
    size: tuple[int, int] | Literal["coded", "source"] = "source"
    start_s: float | None = None
    duration_s: float | None = None
    verify: bool = False
    model: Path | None = None
    device: str = "auto"
    force: bool = False
    overwrite: bool = False
    threads: int | None = None
    container: str | None = None

    def __post_init__(self) -> None:
        _check_positive(self, "steps", "duration_s", "threads")
        _check_not_negative(self, "start_s")
        _check_size(self.size)


@dataclass(frozen=True)
class DecodeReport:
    """What one decode produced.

    verify_psnr_db: PSNR the encoder measured, as stored in the file; None without a check section or without `verify`.
    drift_db: PSNR in dB between this machine's and the encoder's thumbnails, infinite where they are equal (40 and
        more is as it should be); None as above.
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


@dataclass(frozen=True)
class ScaleOptions:
    """Settings of one `scale`: new steering for an existing file, within a byte budget.

    target_bytes: size of the whole new file; None = what the preset of the file's model has.
    method: `atoms` or `importance`. steps: sampler steps of importance sampling; with atoms the bytes decide.
    model: as in `DecodeOptions`.

    Raises UsageError for values that can never make sense.
    """

    target_bytes: int | None = None
    steps: int | None = None
    method: Literal["atoms", "importance"] = "atoms"
    model: Path | None = None
    device: str = "auto"
    force: bool = False
    overwrite: bool = False
    threads: int | None = None

    def __post_init__(self) -> None:
        _check_positive(self, "target_bytes", "steps", "threads")
        if self.steps is not None and self.method == "atoms":
            raise UsageError("steps go with the method importance; with atoms the bytes decide how many there are")


@dataclass(frozen=True)
class ScaleReport:
    """What one `scale` produced; fields as in `EncodeReport`. No quality is known where no reference was given."""

    output: str
    size_bytes: int
    sections: dict[str, int] = field(default_factory=dict)
    bpp: float = 0.0
    psnr_db: float | None = None
    ssim: float | None = None
    n_frames: int = 0
    n_network_evaluations: int = 0
    scale_s: float = 0.0
    peak_memory_bytes: int = 0
