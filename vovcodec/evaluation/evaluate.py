"""The table of `vov eval`: decoded files against a reference, next to classic codecs at the same bytes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path

import numpy as np

from vovcodec.anchors import Coded, RateSearch, find_anchor
from vovcodec.codec.options import Approve, DecodeLimits, check_realism
from vovcodec.errors import UsageError
from vovcodec.evaluation.measures import Measure, load_measures
from vovcodec.evaluation.pictures import Pictures, read_media, read_pictures, resized
from vovcodec.progress import ProgressListener

__all__ = ["Evaluation", "EvaluationOptions", "Row", "evaluate"]


@dataclass(frozen=True)
class EvaluationOptions:
    """What to measure.

    metrics: names of `measures.MEASURES` besides PSNR, SSIM and MS-SSIM. against: names of `anchors.ANCHORS`.
    size: (width, height) at which everything is compared; `coded` = that of the first distorted file, `source` = that
    of the reference. Anchors code frames of that size. n_frames: at most so many. weights: folder for learned metrics.
    device, threads, realism, limits, approve: for decoding `.vov` files, as in `DecodeOptions`.

    Raises UsageError for a realism that makes no sense.
    """

    metrics: tuple[str, ...] = ()
    against: tuple[str, ...] = ()
    size: tuple[int, int] | str = "coded"
    n_frames: int | None = None
    weights: Path | None = None
    device: str = "auto"
    threads: int | None = None
    realism: float = 0.0
    limits: DecodeLimits = field(default_factory=DecodeLimits)
    approve: Approve | None = field(default=None, compare=False)

    def __post_init__(self) -> None:
        check_realism(self.realism)


@dataclass(frozen=True)
class Row:
    """One line.

    codec: `vov`, `media` or an anchor's name. setting: the anchor's quality, e.g. `CRF 46.2`; `(floor)` is added where
    it cannot do with less; of a decoded file its realism, where it is not 0. size_bytes: the whole file, for anchors
    the payload; file_bytes: the anchor's whole file. target_bytes: what the anchor was to stay within. bpp: bits per
    pixel compared, frames × width × height. values: by the key of the measure.
    """

    name: str
    codec: str
    setting: str
    size_bytes: int | None
    file_bytes: int | None
    target_bytes: int | None
    bpp: float | None
    values: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Evaluation:
    """All rows. size: (width, height) in pixels, n_frames: of what was compared. measures: the columns, in order."""

    reference: str
    size: tuple[int, int]
    n_frames: int
    frame_rate: Fraction
    measures: tuple[Measure, ...]
    rows: tuple[Row, ...]


def evaluate(
    reference: Path | str, distorted: Sequence[Path | str], options: EvaluationOptions, listener: ProgressListener
) -> Evaluation:
    """Measure every distorted file, and every anchor at the bytes of each of them and at its floor.

    Everything is compared frame by frame from the first one, over the frames that all files have.
    Raises UsageError, MediaError, FormatError, ModelError.
    """
    functions = load_measures(options.metrics, options.weights)
    anchors = [find_anchor(name) for name in dict.fromkeys(options.against)]
    decoding = {name: getattr(options, name) for name in ("device", "threads", "realism", "limits", "approve")}
    files = [read_pictures(source, listener, n_frames=options.n_frames, **decoding) for source in distorted]
    original = read_media(reference, n_frames=max(len(each.frames) for each in files))
    n_frames = min(len(each.frames) for each in [*files, original])
    are_whole = [each.is_whole and len(each.frames) == n_frames for each in files]
    for each, is_whole in zip(files, are_whole, strict=True):
        if anchors and not (is_whole and each.size_bytes is not None):
            raise UsageError(f"{each.name}: its bytes cannot be matched: give a file, and compare all of its frames")
    width, height = _size(options.size, files[0], original)
    frames = resized(original.frames[:n_frames], (width, height))
    n_pixels = n_frames * width * height
    rows: list[Row] = []

    def measured(decoded: np.ndarray) -> dict[str, float]:
        values = {}
        for measure, function in functions:
            values[measure.key] = function(frames, decoded)
            listener.advance()
        return values

    listener.stage("measuring", len(functions) * len(files))
    for each, is_whole in zip(files, are_whole, strict=True):
        if not is_whole:
            listener.warn(f"{each.name}: only the first {n_frames} of its frames are compared")
        if each.frame_rate != original.frame_rate:
            rates = f"{float(each.frame_rate):.4g} and {float(original.frame_rate):.4g} per second"
            listener.warn(f"{each.name}: another frame rate than the reference's ({rates}); frames are paired in order")
        bpp = 8 * each.size_bytes / n_pixels if is_whole and each.size_bytes is not None else None
        values = measured(resized(each.frames[:n_frames], (width, height)))
        codec = "vov" if each.is_vov else "media"
        setting = f"realism {options.realism:g}" if each.is_vov and options.realism else ""
        rows.append(Row(each.name, codec, setting, each.size_bytes, None, None, bpp, values))

    for anchor in anchors:
        search = RateSearch(anchor, frames)
        targets = sorted({each.size_bytes for each in files})
        listener.stage(f"coding with {anchor.name}", len(targets) + 1)
        found: list[tuple[int | None, Coded]] = [(None, search.floor())]
        listener.advance()
        for target in targets:
            coded = search.within(target)
            listener.advance()
            if coded is None:
                floor = search.floor().payload_bytes
                listener.note(f"{anchor.name} cannot do with {target} bytes: its least is {floor}")
            elif coded is search.floor():
                found[0] = (target, coded)
            else:
                found.append((target, coded))
        listener.stage("measuring", len(functions) * len(found))
        for target, coded in found:
            setting = f"{anchor.scale} {coded.quality:g}" + (" (floor)" if coded is search.floor() else "")
            bpp, values = 8 * coded.payload_bytes / n_pixels, measured(coded.decode())
            rows.append(
                Row(anchor.title, anchor.name, setting, coded.payload_bytes, coded.file_bytes, target, bpp, values)
            )
    measures = tuple(measure for measure, _ in functions)
    return Evaluation(str(reference), (width, height), n_frames, original.frame_rate, measures, tuple(rows))


def _size(wanted: tuple[int, int] | str, first: Pictures, reference: Pictures) -> tuple[int, int]:
    if isinstance(wanted, tuple):
        return wanted
    height, width = (reference if wanted == "source" else first).frames.shape[1:3]
    return width, height
