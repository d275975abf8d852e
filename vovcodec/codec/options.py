"""What a caller may ask of the codec: plain frozen data, no behaviour beyond checks (reports.py is what comes back).

The command line builds these from flags; a Python caller builds them directly. `None` always means "not asked for:
the preset or the input decides".
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Any, Literal

from vovcodec.container.layout import SOURCE_SIDE_MAX
from vovcodec.errors import UsageError

__all__ = [
    "Approve",
    "DecodeLimits",
    "DecodeOptions",
    "EditOptions",
    "EncodeOptions",
    "ScaleOptions",
    "check_realism",
]

Approve = Callable[[str], bool]
"""Asked with one line that says what a decode will take; whether to go on."""

_SIZE_FIELDS = ("target_bytes", "target_bitrate", "target_bpp")
_RATE_FIELDS = (*_SIZE_FIELDS, "lambda_")
_MOST_GUIDANCE = 100
_OPUS_BIT_RATES = (6_000, 510_000)


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


def _check_guidance(guidance: float) -> None:
    if not 0 <= guidance <= _MOST_GUIDANCE:
        raise UsageError(f"guidance must be 0 to {_MOST_GUIDANCE}, not {guidance:g}")


def check_realism(realism: float) -> None:
    """Raises UsageError unless 0 ≤ realism ≤ 1."""
    if not 0 <= realism <= 1:
        raise UsageError(f"realism must be 0 to 1, not {realism:g}")


def _check_size(size: object) -> None:
    if isinstance(size, tuple) and not (len(size) == 2 and all(isinstance(n, int) and n > 0 for n in size)):
        raise UsageError(f"size must be two positive whole numbers, not {size}")
    if isinstance(size, tuple) and max(size) > SOURCE_SIDE_MAX:
        raise UsageError(f"size must be at most {SOURCE_SIDE_MAX} a side, not {size[0]}x{size[1]}")


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
    audio: `none`, `copy` (the source's packets) or bits per second of Opus as text; None = 16000, unless a given size
        of the file leaves too little for it (see `vovcodec.codec.sound`).
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
    audio: str | None = None
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
        if self.split is not None and not self.split[0] and self.lambda_ is not None:
            raise UsageError("lambda weighs a vector's bits, and split leaves none: leave one of them out")
        if self.audio not in (None, "none", "copy"):
            least, most = _OPUS_BIT_RATES
            if not (self.audio.isdecimal() and least <= int(self.audio) <= most):
                rates = f"{least // 1000}k to {most // 1000}k"
                raise UsageError(f"audio is none, copy, or a rate of {rates}, not {self.audio}")

    def has_size_target(self) -> bool:
        """Whether the caller says how large the whole file may be."""
        return any(getattr(self, name) is not None for name in _SIZE_FIELDS)

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
class DecodeLimits:
    """What one file may have or take; `codec.limits` enforces it. The defaults of the counts are the format's bounds.

    side: px, of source and coded frames, and of pictures that a camera moves over. frames, segments: of the stream.
    caption: bytes of UTF-8 of one caption. vector: symbols of one vector. atoms: of one segment. evaluations: of the
        network, all segments of the file.
    memory: bytes, of each worker where there are several devices; None = what is free on the device. hours: of the
        whole decode, as estimated.
    """

    side: int = SOURCE_SIDE_MAX
    frames: int = 10_000_000
    segments: int = 32_768
    caption: int = 8192
    vector: int = 1 << 24
    atoms: int = 500_000
    evaluations: int = 32_768_000
    memory: int | None = None
    hours: float = 24.0


@dataclass(frozen=True)
class DecodeOptions:
    """Settings of one decode.

    steps: stop after so many steps of the sampler and show the estimate reached (a preview).
    size: output size: (width, height), `coded` or `source`. start_s, duration_s: part of the clip in seconds.
    verify: compare with the file's check section. force: decode although the base model differs.
    model: folder of the base model; None = where models usually are.
    device: `auto`, `cpu`, `cuda`, `cuda:0,1`; several decode different segments at a time.
    container: output format, whatever the name's ending; None = from the name, `y4m` on a pipe.
    strict: refuse a damaged file; otherwise what is left of it is decoded, and lost frames show the last good one.
    guidance: by how much to exaggerate the caption, for edited ones; 1 = the picture that the file holds.
    realism: 0 = the picture closest to the original, 1 = one with the detail that the model invents (see
        `vovcodec.sampling.realism`); in between a mixture.
    limits: what the file may have and take. approve: asked before more memory or time than that is spent; None = the
        file is then refused.

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
    strict: bool = False
    guidance: float = 1.0
    realism: float = 0.0
    limits: DecodeLimits = DecodeLimits()
    approve: Approve | None = field(default=None, compare=False)

    def __post_init__(self) -> None:
        _check_positive(self, "steps", "duration_s", "threads")
        _check_not_negative(self, "start_s")
        _check_size(self.size)
        _check_guidance(self.guidance)
        check_realism(self.realism)
        if self.realism and self.steps is not None:
            raise UsageError("realism goes on from where the file ends: leave out --steps")
        changes = {"guidance": self.guidance != 1.0, "realism": bool(self.realism), "steps": self.steps is not None}
        changed = next((name for name, given in changes.items() if given), None)
        if changed and self.verify:
            raise UsageError(
                f"with {changed} the picture is another one than the encoder saw: there is nothing to verify"
            )


@dataclass(frozen=True)
class ScaleOptions:
    """Settings of one `scale`: new steering for an existing file, within a byte budget.

    target_bytes: size of the whole new file; None = what the preset of the file's model has.
    method: `atoms` or `importance`. steps: sampler steps of importance sampling; with atoms the bytes decide.
    candidates: of importance sampling at each step, a power of two from 2 to 2^18; fewer where the bytes do not allow
        as many; None = what they allow, at most 2^14, without target_bytes but with steps 2^10.
    model, limits, approve: as in `DecodeOptions`.

    Raises UsageError for values that can never make sense.
    """

    target_bytes: int | None = None
    steps: int | None = None
    candidates: int | None = None
    method: Literal["atoms", "importance"] = "atoms"
    model: Path | None = None
    device: str = "auto"
    force: bool = False
    overwrite: bool = False
    threads: int | None = None
    limits: DecodeLimits = DecodeLimits()
    approve: Approve | None = field(default=None, compare=False)

    def __post_init__(self) -> None:
        _check_positive(self, "target_bytes", "steps", "threads")
        if self.steps is not None and self.method == "atoms":
            raise UsageError("steps go with the method importance; with atoms the bytes decide how many there are")
        if self.candidates is not None:
            if self.method == "atoms":
                raise UsageError("candidates go with the method importance; atoms are chosen among all there are")
            if not 2 <= self.candidates <= 1 << 18 or self.candidates.bit_count() != 1:
                raise UsageError(f"candidates are a power of two from 2 to {1 << 18}, not {self.candidates}")


@dataclass(frozen=True)
class EditOptions:
    """Settings of one `edit`: what to change in a file, and how to render it where the output is media.

    caption: the new text of all segments, `@FILE` or `none`. replacements: (old, new) substitutions in the captions.
    merge: another file whose vectors are added, with merge_weight as the factor on their strength.
    strength: factor on the strength of the file's own vectors. size: new coded (width, height) in pixels.
    n_frames, frame_rate: new number of frames and frames per second.
    keep_structure: part of the steered steps that is kept, 0 to 1; None = all where they still apply to what is shown,
        none after an edit of caption, vectors or size.
    steps, guidance, model, force, container, device, approve: as in `DecodeOptions`, for media. limits: of what is
        read, and of what is rendered.

    Raises UsageError for values that can never make sense, and where nothing is to be changed.
    """

    caption: str | None = None
    replacements: tuple[tuple[str, str], ...] = ()
    merge: Path | str | None = None
    merge_weight: float = 1.0
    strength: float | None = None
    size: tuple[int, int] | None = None
    n_frames: int | None = None
    frame_rate: Fraction | None = None
    keep_structure: float | None = None
    steps: int | None = None
    model: Path | None = None
    device: str = "auto"
    force: bool = False
    overwrite: bool = False
    threads: int | None = None
    container: str | None = None
    guidance: float = 1.0
    limits: DecodeLimits = DecodeLimits()
    approve: Approve | None = field(default=None, compare=False)

    def __post_init__(self) -> None:
        _check_positive(self, "n_frames", "frame_rate", "steps", "threads")
        _check_size(self.size)
        _check_guidance(self.guidance)
        if self.caption is not None and self.replacements:
            raise UsageError("caption and replace exclude each other: the caption is new")
        if any(not old for old, _ in self.replacements):
            raise UsageError("there is nothing to replace before the = sign")
        for name, value in (("strength", self.strength), ("merge_weight", self.merge_weight)):
            if value is not None and not math.isfinite(value):
                raise UsageError(f"{name} must be a number, not {value}")
        if self.merge is not None and round(256 * self.merge_weight) == 0:
            raise UsageError(f"a merge weight of {self.merge_weight:g} merges nothing")
        if self.keep_structure is not None and not 0 <= self.keep_structure <= 1:
            raise UsageError(f"keep_structure must be 0 to 1, not {self.keep_structure:g}")
        others = (self.merge, self.strength, self.size, self.n_frames, self.frame_rate, self.keep_structure)
        if not self.replacements and all(value is None for value in (self.caption, *others)):
            raise UsageError(
                "nothing to change: give --caption, --replace, --merge, --strength, --size, --frames, --fps or "
                "--keep-structure"
            )
