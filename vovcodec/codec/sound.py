"""What becomes of a clip's sound: what was asked for, what the byte budget allows, what a file says about it."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from vovcodec.container import AudioTrack, RawSection, VovFile, audio_of, audio_section
from vovcodec.container.bits import leb128
from vovcodec.container.layout import AUDIO, framing_size_min
from vovcodec.errors import FormatError

if TYPE_CHECKING:
    from vovcodec.codec.options import EncodeOptions
    from vovcodec.progress import ProgressListener

__all__ = ["audio_summary", "kept_sound", "less_sound", "sound_bytes", "sound_wish", "track_of"]

DEFAULT_BIT_RATE = 16_000
_MOST_OF_BUDGET = 1 / 3
_MUCH_OF_BUDGET = 1 / 2


def sound_wish(audio: str | None) -> int | str | None:
    """`EncodeOptions.audio` as the reader takes it: None leaves the sound out, "copy", or bits per second."""
    if audio is None:
        return DEFAULT_BIT_RATE
    return {"none": None, "copy": "copy"}[audio] if audio in ("none", "copy") else int(audio)


def kept_sound(
    track: AudioTrack | None, options: EncodeOptions, file_bytes: int | None, listener: ProgressListener
) -> tuple[tuple[RawSection, ...], int | None]:
    """The sections to put into the file, and the size that the whole file may have with them.

    A size that the user gave holds for the whole file: sound that nobody asked for and that takes more than a third of
    it is left out. A size of the preset is meant for the picture: the sound comes on top.
    """
    if track is None:
        return (), file_bytes
    section = audio_section(track)
    size_bytes = sound_bytes((section,))
    if file_bytes is None or not options.has_size_target():
        return (section,), None if file_bytes is None else file_bytes + size_bytes
    if options.audio is None and size_bytes > _MOST_OF_BUDGET * file_bytes:
        keeping = f"--audio {DEFAULT_BIT_RATE // 1000}k"
        listener.note(f"the sound would take {size_bytes} of {file_bytes} bytes and is left out; {keeping} keeps it")
        return (), file_bytes
    if size_bytes > _MUCH_OF_BUDGET * file_bytes:
        lower = "--audio 6k to 16k leaves" if options.audio == "copy" else "a lower --audio leaves"
        listener.warn(f"the sound takes {size_bytes} of {file_bytes} bytes; {lower} more to the picture")
    return (section,), file_bytes


def less_sound(options: EncodeOptions) -> str:
    """What to do for fewer bytes of sound, as the end of a sentence."""
    lower = "code it anew (--audio 6k)" if options.audio == "copy" else "lower --audio (6k is the lowest rate)"
    return f", {lower}, or give --audio none"


def sound_bytes(extras: Iterable[RawSection]) -> int:
    """What the sound among these sections takes in a file, framing included."""
    sizes = [len(section.payload) for section in extras if section.type == AUDIO]
    return sum(size + len(leb128(size)) + framing_size_min(AUDIO) - 1 for size in sizes)


def track_of(stream: VovFile, listener: ProgressListener) -> AudioTrack | None:
    """The sound of a file; None without, and, with a warning, where its section cannot be read."""
    try:
        return audio_of(stream)
    except FormatError as error:
        listener.warn(f"decoded without sound: {error}")
        return None


def audio_summary(stream: VovFile) -> dict[str, Any] | None:
    """What a file says about its sound: codec, sample_rate [1/s], channels, duration_s, bit_rate [bits/s], size_bytes.

    None without sound; only `error` where the section cannot be read.
    """
    try:
        track = audio_of(stream)
    except FormatError as error:
        return {"error": str(error)}
    if track is None:
        return None
    duration_s = (track.end - track.start) / track.sample_rate
    size_bytes = sum(map(len, track.packets))
    return {
        "codec": track.codec,
        "sample_rate": track.sample_rate,
        "channels": track.n_channels,
        "duration_s": duration_s,
        "bit_rate": round(8 * size_bytes / duration_s) if duration_s > 0 else None,
        "size_bytes": size_bytes,
    }
