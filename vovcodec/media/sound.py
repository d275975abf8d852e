"""Arithmetic on sound tracks: which packets a part of a clip needs. Samples are counted exactly, nothing is decoded."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction
from itertools import accumulate

from vovcodec.container.audio import AudioTrack

__all__ = ["SoundWish", "cut_notice", "cut_track", "packet_times"]

# What to do with a clip's sound: None leaves it out, "copy" keeps its packets, a number makes Opus of so many bits/s.
SoundWish = int | str | None

# RFC 7845, 4.6: a decoder that starts in the middle has converged after 80 ms.
_OPUS_LEAD = 3840
_PRE_SKIP_MAX = 65535


def cut_notice(length_s: Fraction, sound_s: Fraction) -> str | None:
    """A line about a picture of `length_s` whose sound lasts clearly longer, so that its end is lost; else None."""
    if sound_s - length_s <= max(Fraction(1, 10), length_s / 20):
        return None
    return f"the sound ends with the picture: {float(length_s):.2f} of {float(sound_s):.2f} s"


def packet_times(track: AudioTrack) -> list[int]:
    """When the first sample that each packet decodes to would play, dropped ones included [samples from frame 0]."""
    return list(accumulate(track.durations[:-1], initial=track.start - track.pre_skip))


def cut_track(track: AudioTrack, start_s: Fraction, length_s: Fraction) -> AudioTrack | None:
    """The part from start_s on, for length_s, counted from the part's first frame; None where there is no sound.

    Packets are kept whole. Those before the part that the decoder needs to warm up (80 ms of Opus, one packet of other
    codecs) stay, and `pre_skip` drops what they decode to, so that sound and picture stay together to the sample.
    """
    zero, end = round(start_s * track.sample_rate), round((start_s + length_s) * track.sample_rate)
    times = packet_times(track)
    begin = max(track.start, zero)
    if begin >= min(end, track.end):
        return None
    first = max(number for number, time in enumerate(times) if time <= begin)
    lead = _OPUS_LEAD if track.codec == "opus" else 1
    while first > 0 and begin - times[first] < lead and begin - times[first - 1] <= _PRE_SKIP_MAX:
        first -= 1
    if begin - times[first] > _PRE_SKIP_MAX:  # inside a gap of the source: go on where the sound does
        first += 1
        if first == len(times) or times[first] >= end:
            return None
        begin = times[first]
    last = max(number for number, time in enumerate(times) if time < end)
    durations = list(track.durations[first : last + 1])
    durations[-1] = min(durations[-1], end - times[last])
    return replace(
        track,
        start=begin - zero,
        pre_skip=begin - times[first],
        packets=track.packets[first : last + 1],
        durations=tuple(durations),
    )
