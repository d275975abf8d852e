"""Two ways to make a track of a sound stream, packet by packet: keep the packets, or code Opus."""

from __future__ import annotations

from fractions import Fraction
from itertools import pairwise

import av
import numpy as np

from vovcodec.container.audio import AudioTrack

__all__ = ["CopiedTrack", "OpusTrack"]

_OPUS_RATE = 48_000
_OPUS_FRAME = 2880  # 60 ms: the fewest bytes for framing at low rates
_MONO_BELOW = 24_000  # bits per second: two channels sound worse than one below
# Times jitter by the rounding of containers (Matroska: 1 ms); only more than this is a gap or an overlap.
_JITTER_S = Fraction(5, 1000)
_LONGEST_GAP_S = 3600


class CopiedTrack:
    """The packets of a stream of codec `codec` as they are."""

    def __init__(self, stream: av.AudioStream, codec: str):
        context = stream.codec_context
        self._codec, self._n_channels = codec, context.channels
        self._rate = _OPUS_RATE if codec == "opus" else context.sample_rate
        self._frame_size = context.frame_size if codec != "opus" else 0
        # Mono and stereo Opus say all they need in the fields of the track.
        self._config = b"" if codec == "opus" and context.channels <= 2 else bytes(context.extradata or b"")
        self._packets: list[bytes] = []
        self._times: list[int] = []
        self._end = 0

    def take(self, packet: av.Packet, zero_s: Fraction) -> None:
        """The next packet; `zero_s` is the source's time stamp of time 0."""
        if not packet.size or (packet.pts is None and not self._packets):
            return
        time = self._end if packet.pts is None else round((packet.pts * packet.time_base - zero_s) * self._rate)
        if self._packets and abs(time - self._end) < _JITTER_S * self._rate:
            time = self._end
        elif self._packets and time <= self._times[-1]:
            return  # an overlap: what came first stays
        self._times.append(time)
        self._packets.append(bytes(packet))
        duration = self._frame_size or round((packet.duration or 0) * packet.time_base * self._rate)
        self._end = time + max(1, duration)

    def finish(self) -> AudioTrack | None:
        """All of it, None if nothing came."""
        if not self._packets:
            return None
        edges = [*self._times, self._end]
        durations = tuple(after - before for before, after in pairwise(edges))
        # A track begins at 0 or later; what plays before is dropped by `pre_skip`.
        return AudioTrack(
            codec=self._codec,
            sample_rate=self._rate,
            n_channels=self._n_channels,
            start=max(0, edges[0]),
            pre_skip=max(0, -edges[0]),
            config=self._config,
            packets=tuple(self._packets),
            durations=durations,
        )


class OpusTrack:
    """Decoded, brought to 48 kHz and coded anew; gaps become silence, overlaps are dropped."""

    def __init__(self, stream: av.AudioStream, bit_rate: int, notices: list[str]):
        self._notices, self._n_faults = notices, 0
        n_channels = 1 if bit_rate < _MONO_BELOW else min(2, stream.codec_context.channels)
        if stream.codec_context.channels > n_channels:
            self._notices.append(f"{stream.codec_context.channels} channels of sound are mixed down to {n_channels}")
        self._n_channels, layout = n_channels, "mono" if n_channels == 1 else "stereo"
        self._resampler = av.AudioResampler(format="s16", layout=layout, rate=_OPUS_RATE)
        self._encoder = av.CodecContext.create("libopus", "w")
        self._encoder.sample_rate, self._encoder.layout, self._encoder.format = _OPUS_RATE, layout, "s16"
        self._encoder.bit_rate, self._encoder.time_base = bit_rate, Fraction(1, _OPUS_RATE)
        self._encoder.options = {"frame_duration": "60", "vbr": "on", "compression_level": "10"}
        self._start: int | None = None
        self._n_placed = self._n_coded = 0
        self._buffer = np.empty((0, n_channels), np.int16)
        self._packets: list[bytes] = []
        self._zero_s = Fraction(0)

    def take(self, packet: av.Packet, zero_s: Fraction) -> None:
        """As in `CopiedTrack`."""
        self._zero_s = zero_s
        try:
            for frame in packet.decode():
                self._resample(frame)
        except (av.FFmpegError, OSError, ValueError):  # ValueError: the sound changes its form on the way
            self._n_faults += 1

    def finish(self) -> AudioTrack | None:
        """As in `CopiedTrack`."""
        self._resample(None)
        if self._n_faults:
            self._notices.append(f"{self._n_faults} pieces of the sound are damaged and were skipped")
        if self._start is None:
            return None
        if len(self._buffer):
            self._code(self._buffer)
        self._packets += [bytes(packet) for packet in self._encoder.encode(None)]
        pre_skip = int.from_bytes(self._encoder.extradata[10:12], "little")  # RFC 7845, 5.1
        n_packets = -(-(self._n_placed + pre_skip) // _OPUS_FRAME)
        durations = [_OPUS_FRAME] * n_packets
        durations[-1] -= n_packets * _OPUS_FRAME - self._n_placed - pre_skip
        return AudioTrack(
            n_channels=self._n_channels,
            start=self._start,
            pre_skip=pre_skip,
            packets=tuple(self._packets[:n_packets]),
            durations=tuple(durations),
        )

    def _resample(self, frame: av.AudioFrame | None) -> None:
        for each in self._resampler.resample(frame):
            samples = each.to_ndarray().reshape(-1, self._n_channels)
            end = None if self._start is None else self._start + self._n_placed
            time = end or 0
            if each.pts is not None:
                time = round((each.pts * each.time_base - self._zero_s) * _OPUS_RATE)
            self._place(samples, time, end)

    def _place(self, samples: np.ndarray, time: int, end: int | None) -> None:
        """Samples that play from `time` on, after those that end at `end`."""
        if end is None:
            samples, time = samples[max(0, -time) :], max(0, time)
            if not len(samples):
                return
            self._start = end = time
        gap = time - end
        if gap < -_JITTER_S * _OPUS_RATE:
            samples = samples[-gap:]
        elif _JITTER_S * _OPUS_RATE < gap <= _LONGEST_GAP_S * _OPUS_RATE:
            for begin in range(0, gap, _OPUS_RATE):
                self._append(np.zeros((min(_OPUS_RATE, gap - begin), self._n_channels), np.int16))
        self._append(samples)

    def _append(self, samples: np.ndarray) -> None:
        self._n_placed += len(samples)
        self._buffer = np.concatenate([self._buffer, samples])
        while len(self._buffer) >= _OPUS_FRAME:
            self._code(self._buffer[:_OPUS_FRAME])
            self._buffer = self._buffer[_OPUS_FRAME:]

    def _code(self, samples: np.ndarray) -> None:
        layout = "mono" if self._n_channels == 1 else "stereo"
        frame = av.AudioFrame.from_ndarray(np.ascontiguousarray(samples).reshape(1, -1), format="s16", layout=layout)
        frame.sample_rate, frame.pts, frame.time_base = _OPUS_RATE, self._n_coded, Fraction(1, _OPUS_RATE)
        self._n_coded += len(samples)
        self._packets += [bytes(packet) for packet in self._encoder.encode(frame)]
