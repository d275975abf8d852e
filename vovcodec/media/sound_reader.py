"""The sound of a clip as packets to keep, from the packets that the clip's demuxer meets on its way to the frames."""

from __future__ import annotations

from collections import deque
from fractions import Fraction

import av

from vovcodec.container.audio import AudioTrack
from vovcodec.errors import UsageError
from vovcodec.media.sound import SoundWish, cut_track
from vovcodec.media.sound_tracks import CopiedTrack, OpusTrack

__all__ = ["SoundReader"]

# Codecs whose packets at least Matroska takes as they are.
_COPYABLE = ("opus", "aac", "mp3", "vorbis", "flac", "ac3", "eac3", "alac")
_LEAD_S = 1  # packets so much before the part that is wanted are kept for the decoder to warm up


class SoundReader:
    """Keeps the packets of one sound stream (wish "copy"), or makes Opus of so many bits per second of them.

    end_s: where what has come so far ends, from the start of the source.

    Give it every packet with `add`, say with `begin` which moment becomes time 0, and end with `finish`. Packets that
    come before `begin` wait, so the memory it takes grows with the result only.

    Raises UsageError when the stream cannot be copied.
    """

    def __init__(self, stream: av.AudioStream, base_s: Fraction, wish: SoundWish, notices: list[str]):
        """base_s: the time stamp of the source that counts as its start."""
        self.stream, self._base_s, self._notices = stream, base_s, notices
        self._waiting: deque[av.Packet] = deque()
        self._begin_s: Fraction | None = None
        self._latest_s = self._expected_s = self.end_s = Fraction(0)
        self._has_ended = False
        codec = stream.codec_context.codec.canonical_name
        if wish == "copy" and codec not in _COPYABLE:
            raise UsageError(f"the sound is {codec}, which cannot be copied; give --audio a rate such as 16k")
        if wish == "copy" and codec == "aac" and not stream.codec_context.extradata:
            raise UsageError("AAC of a transport stream cannot be copied; give --audio a rate such as 16k")
        self._track = CopiedTrack(stream, codec) if wish == "copy" else OpusTrack(stream, wish, notices)

    def expect(self, time_s: Fraction, *, jumped: bool) -> None:
        """What ends well before `time_s` will not be wanted. jumped: the demuxer has gone to another place."""
        self._expected_s = time_s
        kept = [] if jumped else [packet for packet in self._waiting if self._reaches(packet, time_s)]
        self._waiting = deque(kept)

    def add(self, packet: av.Packet) -> None:
        """The next packet of the stream; an empty one ends it."""
        if self._has_ended:
            return
        self._has_ended = not packet.size
        if packet.pts is not None:
            self._latest_s = packet.pts * packet.time_base - self._base_s
            self.end_s = max(self.end_s, self._latest_s + (packet.duration or 0) * packet.time_base)
        if self._begin_s is not None:
            self._take(packet)
        elif self._reaches(packet, self._expected_s):
            self._waiting.append(packet)

    def begin(self, time_s: Fraction) -> None:
        """`time_s` from the start of the source becomes time 0."""
        self._begin_s = time_s
        while self._waiting:
            self._take(self._waiting.popleft())

    def is_past(self, time_s: Fraction) -> bool:
        """Whether all packets have come that begin before `time_s` from the start of the source."""
        return self._has_ended or self._latest_s > time_s

    def finish(self, length_s: Fraction) -> AudioTrack | None:
        """The sound of `length_s` from time 0 on; None with a notice where there is none."""
        track = self._track.finish() if self._begin_s is not None else None
        track = track and cut_track(track, Fraction(0), length_s)
        if track is None:
            self._notices.append("there is no sound in this part")
        return track

    def _reaches(self, packet: av.Packet, time_s: Fraction) -> bool:
        if packet.pts is None:
            return True
        return (packet.pts + (packet.duration or 0)) * packet.time_base - self._base_s >= time_s - _LEAD_S

    def _take(self, packet: av.Packet) -> None:
        if self._reaches(packet, self._begin_s):
            self._track.take(packet, self._base_s + self._begin_s)
