"""What an edit does to a stream: plain data in, plain data out; no model, no torch.

The updates of the model that a segment ends up with are

    ΔW = X·Σ_i s_i·ΔW(θ_i) + w·Σ_j t_j·ΔW(θ_j)

with the vectors θ_i and strengths s_i of the edited file, X its new factor (`strengthened`), and the vectors θ_j,
strengths t_j and weight w of a merged one (`merged`). Strengths are stored in 1/256 and a product is rounded to the
nearest, once, here: decoders take what is stored.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from fractions import Fraction

from vovcodec.codec.captions import check_caption
from vovcodec.codec.truncate import needed_geometry
from vovcodec.container import Adaptation, Segment, StreamHeader, VectorUpdate, VovFile
from vovcodec.container.compressed import pack_history
from vovcodec.container.errors import BadHistory
from vovcodec.container.layout import CODED_SIDE_MAX, MERGED_VECTORS_MAX, padded_frames
from vovcodec.errors import ModelError, UsageError
from vovcodec.media.geometry import require_multiples

__all__ = [
    "joined_captions",
    "merged",
    "partner_of",
    "recaptioned",
    "remembered",
    "replaced",
    "resized",
    "retimed",
    "strengthened",
]


def recaptioned(stream: VovFile, captions: Sequence[str]) -> VovFile:
    """The stream with one caption per segment; the commonest is the shared one. Raises UsageError."""
    for caption in set(captions):
        check_caption(caption)
    shared = Counter(captions).most_common(1)[0][0]
    segments = tuple(
        replace(segment, caption=None if caption == shared else caption)
        for segment, caption in zip(stream.segments, captions, strict=True)
    )
    return replace(stream, caption=shared or None, segments=segments)


def replaced(stream: VovFile, old: str, new: str) -> VovFile:
    """The stream with `old` substituted by `new` in all captions. Raises UsageError where none contains it."""
    captions = [stream.caption_of(segment) for segment in stream.segments]
    if not any(old in caption for caption in captions):
        found = ", ".join(repr(caption) for caption in dict.fromkeys(captions))
        raise UsageError(f"{old!r} is not in the caption: {found[:500]}")
    return recaptioned(stream, [caption.replace(old, new) for caption in captions])


def _scaled(adaptation: Adaptation, factor: float) -> Adaptation:
    strength_q8 = round(adaptation.strength_q8 * factor)
    if not -32768 <= strength_q8 <= 32767:
        raise UsageError(
            f"strength {adaptation.strength:g} times {factor:g} is outside of -128 to 127.99, which a file can hold"
        )
    return replace(adaptation, strength_q8=strength_q8)


def _scaled_updates(updates: Sequence[VectorUpdate], factor: float) -> tuple[VectorUpdate, ...]:
    """Without those of strength 0: they do nothing."""
    scaled = (replace(update, adaptation=_scaled(update.adaptation, factor)) for update in updates)
    return tuple(update for update in scaled if update.adaptation.strength_q8)


def strengthened(stream: VovFile, factor: float) -> VovFile:
    """The stream with the strength of every vector times `factor`; a vector that comes to strength 0 is dropped.

    Raises UsageError for strengths that a file cannot hold, and where there is no vector.
    """
    adaptation = stream.header.adaptation
    if not any(segment.updates(adaptation) for segment in stream.segments):
        raise UsageError(
            "the file has no vector whose strength could be changed; vov encode --split 10:90 gives one, with any "
            "effort but instant"
        )
    if adaptation is not None:
        adaptation = _scaled(adaptation, factor)
        adaptation = adaptation if adaptation.strength_q8 else None
    segments = tuple(
        replace(
            segment,
            vector=segment.vector if adaptation else None,
            merged=_scaled_updates(segment.merged, factor),
        )
        for segment in stream.segments
    )
    return replace(stream, header=replace(stream.header, adaptation=adaptation), segments=segments)


def merged(stream: VovFile, other: VovFile, weight: float, name: str) -> VovFile:
    """The stream with the vectors of `other` added, those of segment i to segment i (see `partner_of`).

    Raises ModelError for files of different models, UsageError where a strength or their number is out of range.
    """
    ours, theirs = stream.header, other.header
    if (ours.backbone_id, ours.fingerprint) != (theirs.backbone_id, theirs.fingerprint):
        raise ModelError(
            f"the file is made for {ours.backbone_id} {ours.fingerprint.hex()}, {name} for {theirs.backbone_id} "
            f"{theirs.fingerprint.hex()}: only vectors for the same model can be merged"
        )
    segments = []
    for segment in stream.segments:
        added = _scaled_updates(partner_of(segment, other).updates(theirs.adaptation), weight)
        if len(segment.merged) + len(added) > MERGED_VECTORS_MAX:
            n_vectors = len(segment.updates(ours.adaptation)) + len(added)
            raise UsageError(f"{n_vectors} vectors in one file are too many, at most {MERGED_VECTORS_MAX} are merged")
        segments.append(replace(segment, merged=(*segment.merged, *added)))
    return replace(stream, segments=tuple(segments))


def partner_of(segment: Segment, other: VovFile) -> Segment:
    """The segment of another file that goes with one of ours: the same number; where it has fewer, its last one."""
    return other.segments[min(segment.index, len(other.segments) - 1)]


def joined_captions(stream: VovFile, other: VovFile) -> list[str]:
    """For every segment of `stream` the text "ours, theirs"; only one where both are the same or one is empty."""
    pairs = ((stream.caption_of(each), other.caption_of(partner_of(each, other))) for each in stream.segments)
    return [", ".join(dict.fromkeys(filter(None, pair))) for pair in pairs]


def resized(stream: VovFile, width: int, height: int) -> VovFile:
    """The stream at another coded size in pixels, which is also what it decodes to. Steering stays; it does not apply.

    Raises UsageError for sizes that the model cannot have, ModelError where that cannot be told.
    """
    multiple = needed_geometry(stream.header).size_multiple
    require_multiples((width, height), multiple, CODED_SIDE_MAX, f"{stream.header.backbone_id} makes")
    size = {"coded_width": width, "coded_height": height, "source_width": width, "source_height": height}
    square = {"sample_aspect_num": 1, "sample_aspect_den": 1}
    return replace(stream, header=replace(stream.header, **size, **square))


def retimed(stream: VovFile, n_frames: int | None, frame_rate: Fraction | None) -> VovFile:
    """The stream with another number of frames, another rate, or both.

    Segments that begin later are dropped; the last one left takes what remains, up to what the model can make at once.

    Raises UsageError for what model or file cannot have, ModelError where that cannot be told.
    """
    header = stream.header
    is_still = not header.frame_rate_num
    if is_still and (frame_rate is None) != (n_frames is None):
        raise UsageError("the file is a still: to make a clip of it, give --frames and --fps together")
    if frame_rate is not None:
        header = replace(header, frame_rate_num=frame_rate.numerator, frame_rate_den=frame_rate.denominator)
    if n_frames is None:
        return replace(stream, header=header)
    segments = [segment for segment in stream.segments if segment.first_frame < n_frames]
    last = segments[-1]
    max_frames = needed_geometry(header).max_frames
    if padded_frames(n_frames - last.first_frame) > max(max_frames, padded_frames(last.n_frames)):
        raise UsageError(
            f"{n_frames} frames are too many: {header.backbone_id} makes at most {max_frames} at once, this file "
            f"{last.first_frame + max_frames}"
        )
    segments[-1] = replace(last, n_frames=n_frames - last.first_frame)
    header = replace(
        header, n_frames=n_frames, n_segments=len(segments), segment_frames=_segment_frames(header, segments)
    )
    return replace(stream, header=header, segments=tuple(segments))


def _segment_frames(header: StreamHeader, segments: Sequence[Segment]) -> int:
    longest = max(padded_frames(segment.n_frames) for segment in segments)
    return longest if len(segments) == 1 else max(longest, header.segment_frames)


def remembered(stream: VovFile, entries: Sequence[dict]) -> VovFile:
    """The stream with further entries of its history; the oldest go where a file cannot hold all."""
    history = (*stream.history, *entries)
    while True:
        try:
            pack_history(history)
        except BadHistory:
            history = history[1:]
        else:
            return replace(stream, history=history)
