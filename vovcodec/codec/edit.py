"""`edit`: another caption, strength, mixture, size or rate for a file, without its original."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

from vovcodec.codec import rewrite
from vovcodec.codec.captions import resolve_caption
from vovcodec.codec.inspect import summary
from vovcodec.codec.keep import Kept, keep_steering
from vovcodec.codec.limits import require_within
from vovcodec.codec.measure import section_sizes
from vovcodec.codec.options import DecodeOptions, EditOptions
from vovcodec.codec.output import require_writable
from vovcodec.codec.reports import DecodeReport, EditReport
from vovcodec.codec.writing import write_checked
from vovcodec.container import VovFile, audio_of, audio_section, parse, read_vov, serialize
from vovcodec.container.layout import AUDIO
from vovcodec.errors import FormatError, UsageError
from vovcodec.media import cut_track
from vovcodec.progress import ProgressListener, SilentListener

__all__ = ["edit", "edited", "makes_vov"]


def makes_vov(target: Path | str, container: str | None) -> bool:
    """Whether an output is a `.vov` file rather than media: by its ending; a pipe unless `container` says otherwise."""
    return container is None if str(target) == "-" else Path(target).suffix.lower() == ".vov"


def edit(
    source: Path | str,
    target: Path | str,
    options: EditOptions,
    listener: ProgressListener | None = None,
) -> EditReport | DecodeReport:
    """Change what conditions a file's picture, and write it as a `.vov` file (no model needed) or as media.

    Args:
        source: path of a `.vov` file, or "-" for standard input.
        target: path of the new `.vov` file or of a video or image, or "-" for standard output.
        options: see `EditOptions`.
        listener: receives notes and progress; None = nobody.

    Raises UsageError, MediaError, FormatError, ModelError, OutputExistsError.
    """
    listener = listener or SilentListener()
    to_vov = makes_vov(target, options.container)
    if to_vov:
        if options.steps or options.container or options.guidance != 1.0:
            raise UsageError("steps, guidance and container go with a video or an image as output")
        require_writable(target, overwrite=options.overwrite)
    stream = edited(_read(source, options), options, listener)
    if to_vov:
        return _report(target, write_checked(target, stream, overwrite=options.overwrite))
    from vovcodec.codec.decode import decode_stream  # loads torch

    rendering = DecodeOptions(
        steps=options.steps,
        guidance=options.guidance,
        model=options.model,
        device=options.device,
        force=options.force,
        overwrite=options.overwrite,
        threads=options.threads,
        container=options.container,
        limits=options.limits,
        approve=options.approve,
    )
    # As a file would say it, so that nothing is shown that no file can hold.
    return decode_stream(parse(serialize(stream)), target, rendering, listener)


def _read(source: Path | str, options: EditOptions) -> VovFile:
    stream = read_vov(sys.stdin.buffer if str(source) == "-" else Path(source))
    require_within(stream, options.limits)
    return stream


def edited(stream: VovFile, options: EditOptions, listener: ProgressListener) -> VovFile:
    """The stream as `options` want it. Strength comes before the merge, whose weight is that of the other file alone.

    Raises as `edit` does.
    """
    before, history = stream, []
    captions: list[str] | None = None
    if options.strength is not None:
        stream = rewrite.strengthened(stream, options.strength)
        history.append({"edit": "strength", "by": options.strength})
    if options.merge is not None:
        name = Path(options.merge).name.encode("utf-8", "replace").decode()
        other = _read(options.merge, options)
        stream = rewrite.merged(stream, other, options.merge_weight, name)
        captions = rewrite.joined_captions(stream, other)
        history.append({"edit": "merge", "name": name, "weight": options.merge_weight})
        if not any(segment.updates(other.header.adaptation) for segment in other.segments):
            listener.note(f"{name} has no vector (vov encode --split 10:90): it can lend its caption only")
    if options.caption is not None:
        caption = resolve_caption(options.caption, _no_frames, listener)
        captions = [caption] * len(stream.segments)
        history.append({"edit": "caption", "to": caption})
    if captions is not None:
        stream = rewrite.recaptioned(stream, captions)
    for old, new in options.replacements:
        stream = rewrite.replaced(stream, old, new)
        history.append({"edit": "replace", "from": old, "to": new})
    is_new_content = bool(history)
    if options.size is not None:
        stream = rewrite.resized(stream, *options.size)
        history.append({"edit": "size", "to": list(options.size)})
    if options.n_frames is not None or options.frame_rate is not None:
        stream = rewrite.retimed(stream, options.n_frames, options.frame_rate)
        stream = _fit_sound(before, stream, options, listener.note)
        if options.n_frames is not None:
            history.append({"edit": "frames", "to": options.n_frames})
        if options.frame_rate is not None:
            history.append({"edit": "fps", "to": str(options.frame_rate)})
    if stream == before and options.keep_structure is None:
        listener.note("nothing changes: the file already is as it is wanted")
        return replace(before, layout=(), version=None)
    if options.keep_structure is not None:
        history.append({"edit": "keep-structure", "to": options.keep_structure})
    kept = keep_steering(before, stream, is_new_content=is_new_content, share=options.keep_structure)
    _tell(kept, options, listener.note)
    return replace(rewrite.remembered(kept.stream, history), layout=(), version=None)


def _fit_sound(before: VovFile, stream: VovFile, options: EditOptions, note: Callable[[str], None]) -> VovFile:
    """With fewer frames, without the sound that no decoder would play any more. Another rate changes no sound."""
    try:
        track = audio_of(stream)
    except FormatError:  # a decoder goes without it
        return stream
    if track is None:
        return stream
    was, now = before.header, stream.header
    rate, sound_s = Fraction(now.frame_rate_num, now.frame_rate_den), Fraction(track.end, track.sample_rate)
    if options.n_frames is not None and options.n_frames / rate < sound_s:
        track = cut_track(track, Fraction(0), options.n_frames / rate)
        sections = {AUDIO: () if track is None else (audio_section(track),)}
        extras = [kept for each in stream.extras for kept in sections.get(each.type, (each,))]
        stream = replace(stream, extras=tuple(extras))
        sound_s = Fraction(track.end, track.sample_rate) if track else Fraction(0)
    if track is not None and rate != Fraction(was.frame_rate_num, was.frame_rate_den):
        picture_s = float(now.n_frames / rate)
        note(f"the sound keeps its time: {float(sound_s):.2f} s of it for {picture_s:.2f} s of picture")
    return stream


def _no_frames():
    raise UsageError("a .vov file has no frames to describe: give the caption as text")


def _tell(kept: Kept, options: EditOptions, note: Callable[[str], None]) -> None:
    """What became of the steering, where the user might not expect it."""
    n_before, n_after, stream = kept.n_before, kept.n_after, kept.stream
    if kept.drops_motion:
        note("the picture of the scene is kept, what moves in front of it is dropped")
    if n_before and not n_after and options.keep_structure is None:
        if options.size is None and options.n_frames is None:
            hint = "--keep-structure 0.5 keeps the first half"
        else:
            hint = "it does not apply to another size or length"
        note(f"the steering towards the original ({n_before} steps) is dropped; {hint}")
    elif options.keep_structure and not n_before:
        note("the file has no steering that could be kept")
    has_vector = any(segment.updates(stream.header.adaptation) for segment in stream.segments)
    if not n_after and not has_vector:
        note("neither a vector nor steering is left: the picture comes from the caption alone")


def _report(target: Path | str, written: VovFile) -> EditReport:
    sections, told = section_sizes(written), summary(written)
    names = ("size_bytes", "n_frames", "coded_size", "frame_rate", "segments", "vectors", "strengths", "steps", "edits",
             "caption")  # fmt: skip
    return EditReport(output=str(target), sections=sections, **{name: told[name] for name in names})
