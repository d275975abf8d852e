"""The AUDIO section: packets of a sound codec and when they play (FORMAT.md, section 9.1)."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import Any

from vovcodec.container import layout as lay
from vovcodec.container.bits import BitReader, BitWriter
from vovcodec.container.codes import Bits, Choice, Groups
from vovcodec.container.errors import FETCH_AGAIN, BadAudio, FormatError
from vovcodec.container.fields import Field, TableField
from vovcodec.container.model import RawSection, VovFile

__all__ = ["AUDIO_FIELDS", "PACKET_FIELDS", "AudioTrack", "audio_of", "audio_section"]

_SAMPLE_RATES = (48000, 44100, 32000, 24000, 22050, 16000, 8000)
_OPUS_DELAY = 312  # samples that libopus looks ahead
_CODECS = {0: "opus", 1: "aac", 2: "mp3", 3: "vorbis", 4: "flac", 5: "ac3", 6: "eac3", 7: "alac"}


@dataclass(frozen=True, slots=True, kw_only=True)
class AudioTrack:
    """Packets of one codec in order, without gaps between them. Times are in samples of `sample_rate`, from frame 0.

    codec: FFmpeg's name. Decoding all packets gives samples of which the first `pre_skip` are dropped; the next one
    plays at `start`. `durations` say when the next packet's first sample plays, so they span the gaps of the source,
    and the last one ends the sound. `config`: what the codec needs besides, as Matroska has it in CodecPrivate; empty
    for Opus with up to two channels.
    """

    codec: str = "opus"
    sample_rate: int = 48000
    n_channels: int = 1
    start: int = 0
    pre_skip: int = _OPUS_DELAY
    config: bytes = b""
    packets: tuple[bytes, ...]
    durations: tuple[int, ...]

    @property
    def end(self) -> int:
        """When the sound ends."""
        return self.start - self.pre_skip + sum(self.durations)


AUDIO_FIELDS = (
    Field("codec", Choice(4, _CODECS), "what the packets are"),
    TableField(3, tuple((rate,) for rate in _SAMPLE_RATES), (
        Field("sample_rate", Groups(8, 1, 2**20), "samples per second and channel; 48000 for opus", "1/s"),
    )),
    Field("n_channels", Bits(3, 1, 8), "channels"),
    Field("start", Groups(7, 0, 2**40), "when the first sample that is not dropped plays, from frame 0", "samples",
          default=0),
    Field("pre_skip", Bits(16, 0, 65535), "samples to drop from the start of what is decoded", "samples",
          default=_OPUS_DELAY),
    Field("config_size", Groups(7, 1, 65536), "size of the codec's configuration", "bytes", default=0),
    Field("packet_samples", Groups(7, 1, 2**20), "usual duration of a packet", "samples", default=2880),
    Field("n_packets", Groups(7, 1, 2**20), "packets"),
)  # fmt: skip

# n_packets times, after the fields above and without a gap.
PACKET_FIELDS = (
    Field("size", Groups(8, 0, 2**20), "size of the packet", "bytes"),
    Field("duration", Groups(7, 0, 2**40), "from its first sample to that of the next packet", "samples",
          default=lambda values: values["packet_samples"], default_text="packet_samples"),
)  # fmt: skip


def audio_section(track: AudioTrack) -> RawSection:
    """The section to put among a file's `extras`. Raises `FieldOutOfRange` for what cannot be stored."""
    usual = Counter(track.durations).most_common(1)[0][0] if track.durations else 0
    values: dict[str, Any] = {name: getattr(track, name) for name in ("codec", "sample_rate", "n_channels")}
    values |= {"start": track.start, "pre_skip": track.pre_skip, "config_size": len(track.config)}
    values |= {"packet_samples": max(1, usual), "n_packets": len(track.packets)}
    out = BitWriter()
    for field in AUDIO_FIELDS:
        field.put(out, values, "audio")
    for packet, duration in zip(track.packets, track.durations, strict=True):
        for field in PACKET_FIELDS:
            field.put(out, values | {"size": len(packet), "duration": duration}, "audio")
    return RawSection(type=lay.AUDIO, payload=out.to_bytes() + track.config + b"".join(track.packets))


def audio_of(stream: VovFile) -> AudioTrack | None:
    """The sound of a file, None without. Raises `BadAudio` when its section does not say what it should."""
    found = [section for section in stream.extras if section.type == lay.AUDIO]
    if len(found) > 1:
        raise BadAudio(f"audio: {len(found)} sections, must be one; {FETCH_AGAIN}")
    try:
        return _read(found[0].payload) if found else None
    except FormatError as error:
        raise BadAudio(str(error)) from None


def _read(payload: bytes) -> AudioTrack:
    bits = BitReader(payload, "audio")
    values: dict[str, Any] = {}
    for field in AUDIO_FIELDS:
        field.get(bits, values)
    sizes, durations = [], []
    for _ in range(values["n_packets"]):
        for field in PACKET_FIELDS:
            field.get(bits, values)
        sizes.append(values["size"])
        durations.append(values["duration"])
    offset = bits.align()
    config, offset = payload[offset : offset + values["config_size"]], offset + values["config_size"]
    if offset + sum(sizes) != len(payload):
        raise BadAudio(f"audio: its packets do not fill the section exactly; {FETCH_AGAIN}")
    packets = []
    for size in sizes:
        packets.append(payload[offset : offset + size])
        offset += size
    if values["codec"] == "opus" and values["sample_rate"] != 48000:
        raise BadAudio(f"audio: opus has 48000 samples per second, not {values['sample_rate']}; {FETCH_AGAIN}")
    plain = {name: values[name] for name in ("codec", "sample_rate", "n_channels", "start", "pre_skip")}
    return AudioTrack(**plain, config=config, packets=tuple(packets), durations=tuple(durations))
