"""Sound packets into a container that FFmpeg writes, as they are: nothing is decoded."""

from __future__ import annotations

import io
import struct
from fractions import Fraction

import av

from vovcodec.container.audio import AudioTrack
from vovcodec.media.sound import packet_times

__all__ = ["SoundMuxer"]

_MATROSKA_NAMES = {
    "opus": "A_OPUS", "aac": "A_AAC", "mp3": "A_MPEG/L3", "vorbis": "A_VORBIS", "flac": "A_FLAC", "ac3": "A_AC3",
    "eac3": "A_EAC3", "alac": "A_ALAC",
}  # fmt: skip


class SoundMuxer:
    """Adds `track` to an output container as a stream of its own."""

    def __init__(self, container: av.container.OutputContainer, track: AudioTrack):
        # PyAV makes streams without an encoder only from those of an input, so a tiny one is made up.
        with av.open(io.BytesIO(_matroska(track)), format="matroska") as template:
            self._stream = container.add_stream_from_template(template.streams.audio[0])
        self._container, self._track, self._times = container, track, packet_times(track)
        self._n_written = 0

    def write_until(self, time_s: Fraction | None) -> None:
        """Muxes the packets that begin before `time_s`, None: all. Called as the picture goes on, to interleave."""
        track = self._track
        limit = None if time_s is None else time_s * track.sample_rate
        while self._n_written < len(track.packets):
            number = self._n_written
            if limit is not None and self._times[number] >= limit:
                return
            packet = av.Packet(track.packets[number])
            packet.stream, packet.time_base = self._stream, Fraction(1, track.sample_rate)
            packet.pts = packet.dts = self._times[number]
            packet.duration, packet.is_keyframe = track.durations[number], True
            self._container.mux(packet)
            self._n_written += 1


def _matroska(track: AudioTrack) -> bytes:
    """A Matroska file (RFC 9559) that holds the track's parameters and its first packet."""
    delay_ns = round(Fraction(track.pre_skip * 10**9, track.sample_rate)) if track.codec == "opus" else 0
    sampling = _element(0xB5, struct.pack(">d", track.sample_rate)) + _element(0x9F, _number(track.n_channels))
    private = _opus_head(track) if track.codec == "opus" else track.config
    entry = [
        _element(0xD7, _number(1)),  # track number
        _element(0x73C5, _number(1)),  # and its unique name
        _element(0x83, _number(2)),  # sound
        _element(0x86, _MATROSKA_NAMES[track.codec].encode()),
        _element(0x63A2, private) if private else b"",
        _element(0x56AA, _number(delay_ns)),
        _element(0xE1, sampling),
    ]
    head = _element(0x4282, b"matroska") + _element(0x4287, _number(4)) + _element(0x4285, _number(2))
    info = _element(0x1549A966, _element(0x2AD7B1, _number(1_000_000)))  # times in milliseconds
    block = _element(0xA3, b"\x81\0\0\x80" + track.packets[0])
    cluster = _element(0x1F43B675, _element(0xE7, _number(0)) + block)
    tracks = _element(0x1654AE6B, _element(0xAE, b"".join(entry)))
    return _element(0x1A45DFA3, head) + _element(0x18538067, info + tracks + cluster)


def _element(name: int, content: bytes) -> bytes:
    """An EBML element (RFC 8794) with its size in eight bytes."""
    return name.to_bytes((name.bit_length() + 7) // 8, "big") + (1 << 56 | len(content)).to_bytes(8, "big") + content


def _number(value: int) -> bytes:
    return value.to_bytes(8, "big")


def _opus_head(track: AudioTrack) -> bytes:
    """The identification header of RFC 7845, 5.1: the one kept, or made for mono and stereo; with our pre-skip."""
    kept = track.config or b"OpusHead\x01" + bytes([track.n_channels]) + b"\0\0" + struct.pack("<I", 48000) + b"\0\0\0"
    return kept[:10] + struct.pack("<H", track.pre_skip) + kept[12:]
