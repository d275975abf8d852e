"""Clips through PyAV: pictures with their times, in constant memory, and their conversion to upright RGB."""

from __future__ import annotations

import os
from collections.abc import Iterator
from fractions import Fraction
from itertools import chain
from pathlib import Path
from typing import BinaryIO

import av
import numpy as np
from av.sidedata.sidedata import Type as SideDataType

from vovcodec.errors import MediaError
from vovcodec.media import colour
from vovcodec.media.faults import explained, media_error
from vovcodec.media.info import VARIABLE_RATE, MediaInfo, note_once
from vovcodec.media.sound import SoundWish
from vovcodec.media.sound_reader import SoundReader
from vovcodec.media.yuv import RANGE_FULL, RANGE_LIMITED, RANGE_UNSPECIFIED, PixelScaler

__all__ = ["ClipSource"]

_RANGE_NAMES = {RANGE_UNSPECIFIED: "unspecified", RANGE_LIMITED: "limited", RANGE_FULL: "full"}
# Nearer starts are reached faster by decoding than by seeking.
_SEEK_FROM_S = 1
_SOUND_LEAD_S = 2
_APART_S = 10  # no file keeps sound farther than this behind its picture


class ClipSource:
    """The best video stream of whatever PyAV reads. Times count from the stream's first time stamp.

    file: a path of a regular file, or a binary file object, which needs no seeking. name: for messages.
    sound: what `self.sound` shall make of its sound; see `SoundWish`. The first picture is decoded at once, because
    only a decoded picture says what it is.
    """

    def __init__(self, file: Path | BinaryIO, name: str, sound: SoundWish = None):
        self._name, self.notices = name, []
        is_path = isinstance(file, os.PathLike)
        self._seekable = is_path or (hasattr(file, "seekable") and file.seekable())
        with explained(name):
            # The prefix keeps FFmpeg from reading a protocol into a name such as "concat:a.mp4".
            target = f"file:{Path(file).absolute()}" if is_path else file
            self._container = av.open(target, metadata_errors="replace")
        try:
            self._stream = self._best_stream()
            self._start = Fraction(self._stream.start_time or 0) * (self._stream.time_base or 1)
            self.rate = self._frame_rate()
            self.sound = self._open_sound(sound)
            self._n_decoded = self._n_damaged = 0
            self._rest = self._decoded()
            self._first = next(self._rest, None)
            if self._first is None:
                raise MediaError(f"{name}: frame 0 cannot be decoded, nor any after it")
            self._describe(self._first[1])
            self._note_missing_data(Path(file).stat().st_size if is_path else None)
        except BaseException:
            self._container.close()
            raise

    def _best_stream(self):
        streams = [s for s in self._container.streams.video if not s.disposition & s.disposition.attached_pic]
        if not streams:
            raise MediaError(f"{self._name}: has no video in it")
        stream = self._container.streams.best("video")
        stream = stream if stream in streams else streams[0]
        if stream.codec_context is None:
            raise MediaError(f"{self._name}: this build of FFmpeg has no decoder for its video codec")
        stream.thread_type = "AUTO"
        return stream

    def _open_sound(self, wish: SoundWish) -> SoundReader | None:
        stream = self._container.streams.best("audio") if wish is not None else None
        if stream is None:
            return None
        if stream.codec_context is None:
            self.notices.append("this build of FFmpeg has no decoder for its sound, which is left out")
            return None
        return SoundReader(stream, self._start, wish, self.notices)

    def _frame_rate(self) -> Fraction:
        """The exact rate. The container's average and FFmpeg's guess from the time stamps mostly agree; where they
        differ by less than one frame over the whole clip the guess is meant (Matroska rounds times to milliseconds),
        otherwise the rate is variable and the average keeps the duration right."""
        average, guess = self._stream.average_rate, self._stream.guessed_rate
        rate = average or guess or Fraction(25)
        self.is_variable = False
        if average and guess:
            n_frames = self._stream.frames or float((self._duration_s() or 10) * guess)
            if abs(average - guess) * n_frames < max(average, guess):
                rate = guess
            else:
                self.is_variable = True
                self.notices.append(VARIABLE_RATE.format(float(average)))
        return _usual_rate_near(rate)

    def _duration_s(self) -> Fraction | None:
        stream = self._stream
        if stream.duration and stream.time_base:
            return stream.duration * stream.time_base
        return Fraction(self._container.duration, av.time_base) if self._container.duration else None

    def _describe(self, frame: av.VideoFrame) -> None:
        stream, context, pixels = self._stream, self._stream.codec_context, frame.format
        self._size = frame.width, frame.height
        self._turn = _Turn.of(frame)
        self._has_alpha = any(c.is_alpha for c in pixels.components)
        is_rgb = pixels.is_rgb or pixels.has_palette
        is_grey = len([c for c in pixels.components if not c.is_alpha]) == 1 and not pixels.has_palette
        matrix = int(frame.colorspace)
        if matrix == colour.UNSPECIFIED and context.colorspace is not None:
            matrix = int(context.colorspace)
        colour_range = int(frame.color_range) or int(context.color_range or 0)
        if is_rgb or is_grey or pixels.name.startswith("yuvj"):
            colour_range = colour_range or RANGE_FULL
        self._scaler = PixelScaler(colour.scaler_colorspace(matrix, *self._size), colour_range or RANGE_LIMITED)
        width, height = self._turn.size(*self._size)
        aspect = stream.sample_aspect_ratio or Fraction(1)
        duration_s = self._duration_s()
        # Image formats that Pillow does not read for us (TGA, EXR, DPX, JPEG XL, …) come through FFmpeg's "…_pipe".
        demuxer = self._container.format.name
        kind = "image" if demuxer == "image2" or demuxer.endswith("_pipe") else "video"
        self.info = MediaInfo(
            kind=kind, width=width, height=height, frame_rate=self.rate if kind == "video" else Fraction(0),
            n_frames=stream.frames or None if kind == "video" else 1,
            duration_s=(None if duration_s is None else float(duration_s)) if kind == "video" else 0.0,
            rotation=self._turn.degrees, sample_aspect=1 / aspect if self._turn.transpose else aspect,
            pixel_format=pixels.name, bit_depth=max(c.bits for c in pixels.components), has_alpha=self._has_alpha,
            colour_matrix=colour.MATRIX_RGB if is_rgb else matrix,
            colour_primaries=int(frame.color_primaries), colour_transfer=int(frame.color_trc),
            colour_range=_RANGE_NAMES.get(colour_range, "unspecified"),
            has_audio=bool(self._container.streams.audio),
            codec=context.codec.canonical_name, container=self._container.format.name,
        )  # fmt: skip
        self._note_what_is_lost(frame, is_rgb or is_grey)

    def _note_what_is_lost(self, frame: av.VideoFrame, has_no_matrix: bool) -> None:
        info = self.info
        if info.bit_depth > 8:
            self.notices.append(f"{info.bit_depth} bits per component are reduced to 8")
        if info.colour_transfer in colour.TRANSFERS_HDR:
            curve = colour.TRANSFERS_HDR[info.colour_transfer]
            self.notices.append(f"high dynamic range ({curve}) is kept as it is coded, not tone-mapped")
        if not has_no_matrix and not colour.has_scaler_colorspace(info.colour_matrix):
            self.notices.append(f"colour matrix {info.colour_matrix} (H.273) is not supported; the usual one is used")
        if info.rotation:
            self.notices.append(f"turned upright by {info.rotation} degrees clockwise, as its display matrix says")
        if frame.interlaced_frame:
            self.notices.append("the video is interlaced; both fields stay in one frame")
        if self._stream.metadata.get("alpha_mode") == "1" and not self._has_alpha:
            self.notices.append("transparency is ignored")

    def _note_missing_data(self, size_bytes: int | None) -> None:
        """An MP4 index says where every frame lies: those beyond the end of the file are lost."""
        if size_bytes is None:
            return
        entries = self._stream.index_entries
        n_lost = 0
        for index in range(len(entries) - 1, -1, -1):
            if entries[index].pos + entries[index].size <= size_bytes:
                break
            n_lost += 1
        if n_lost:
            self.notices.append(f"the file is cut short: the last {n_lost} of {len(entries)} frames are missing")

    def pictures(self, start_s: Fraction) -> Iterator[tuple[Fraction, av.VideoFrame]]:
        pictures = chain([self._first], self._rest)
        if self.sound:
            self.sound.expect(start_s, jumped=False)
        if self._seekable and start_s >= _SEEK_FROM_S:
            pictures = self._from(start_s) or pictures
        return pictures

    def read_sound_until(self, time_s: Fraction) -> None:
        """Goes on through the file, without decoding pictures, until the sound up to `time_s` has come."""
        if self.sound.is_past(time_s):
            return
        last_s = time_s + _APART_S + self._start
        for packet in self._packets():
            is_far = packet and packet.pts is not None and packet.pts * packet.time_base > last_s
            if is_far or self.sound.is_past(time_s):
                return

    def _from(self, start_s: Fraction) -> Iterator[tuple[Fraction, av.VideoFrame]] | None:
        """Pictures from a key frame at or before start_s; from the beginning if the index leads too far."""
        base = self._stream.time_base
        # Sound that plays with a picture may lie somewhat before it.
        lead_s = _SOUND_LEAD_S if self.sound else 0
        for target in (max(start_s - lead_s, 0) + self._start, self._start):
            if self.sound:
                self.sound.expect(start_s, jumped=True)
            try:
                self._container.seek(int(target / base), stream=self._stream)
            except (av.FFmpegError, OSError):
                continue
            pictures = self._decoded(starts_at_zero=target == self._start)
            first = next(pictures, None)
            if first is not None and (first[0] <= start_s or target == self._start):
                return chain([first], pictures)
        raise MediaError(f"{self._name}: cannot be read from {float(start_s):g} s on")

    def _decoded(self, starts_at_zero: bool = True) -> Iterator[tuple[Fraction, av.VideoFrame]]:
        """Decodes to the end. Packets that do not decode are skipped and counted; a read error ends the clip."""
        time_s, n_decoded = None, 0
        for packet in self._packets():
            try:
                frames = packet.decode() if packet else self._stream.decode(None)
            except (av.FFmpegError, OSError) as exc:
                self._note_damage(n_decoded, exc)
                continue
            for frame in frames:
                if frame.pts is None:
                    time_s = Fraction(0) if time_s is None else time_s + 1 / self.rate
                else:
                    time_s = frame.pts * frame.time_base - self._start
                n_decoded += 1
                yield time_s, frame
        if self._n_damaged > 1:
            self.notices.append(f"{self._n_damaged} pieces of data in all are damaged and were skipped")
        if time_s is not None:
            self._note_early_end(n_decoded if starts_at_zero else None, time_s + 1 / self.rate)

    def _note_early_end(self, n_decoded: int | None, end_s: Fraction) -> None:
        """Compares what came with what the file announces. MP4 is left out: its edit lists hide frames on purpose, and
        its index has told already (`_note_missing_data`)."""
        if "mp4" in self.info.container:
            return
        duration_s = self._duration_s()
        # The duration may be that of the sound.
        allowed_s = max(Fraction(1), 2 / self.rate) if self.info.has_audio else 2 / self.rate
        if n_decoded is not None and self._stream.frames > n_decoded:
            self.notices.append(f"only {n_decoded} of the {self._stream.frames} frames that are announced can be read")
        elif duration_s is not None and duration_s - end_s >= allowed_s:
            self.notices.append(f"the video ends after {float(end_s):.2f} s of {float(duration_s):.2f} s announced")

    def _packets(self) -> Iterator[av.Packet | None]:
        """Packets of the stream, the last one empty so that the decoder gives what it holds back; after a read error
        (PyAV sends no empty packet then) None stands for it. Those of the sound go to its reader on the way."""
        wanted = [self._stream] if self.sound is None else [self._stream, self.sound.stream]
        try:
            for packet in self._container.demux(wanted):
                if packet.stream_index == self._stream.index:
                    yield packet
                else:
                    self.sound.add(packet)
        except (av.FFmpegError, OSError) as exc:
            self._note_damage(None, exc)
            yield None

    def _note_damage(self, n_decoded: int | None, exc: Exception) -> None:
        if n_decoded is None:
            self.notices.append(str(media_error(exc, "reading ended early")))
            return
        self._n_damaged += 1
        if self._n_damaged == 1:
            self.notices.append(f"the data after frame {n_decoded} is damaged")

    def shown_s(self, picture: av.VideoFrame) -> Fraction:
        return picture.duration * picture.time_base if picture.duration else 1 / self.rate

    def to_rgb(self, picture: av.VideoFrame) -> np.ndarray:
        """Undoes matrix, range, transparency and rotation: uint8 [H, W, 3]."""
        width, height = self._size
        if (picture.width, picture.height) != self._size:
            line = f"the picture size changes; everything is scaled to {width}x{height}"
            note_once(self.notices, line)
        with explained(self._name):
            frame = self._scaler.to_rgb(picture, width, height, self._has_alpha)
        if self._has_alpha:
            if frame[..., 3].min() < 255:
                note_once(self.notices, "transparency is flattened on black")
            frame = colour.flatten(frame, colour.BLACK)
        return self._turn.apply(frame)

    def close(self) -> None:
        self._rest.close()
        self._container.close()


def _usual_rate_near(rate: Fraction) -> Fraction:
    """n or n·1000/1001 if that is within 10 millionths: containers that store rounded times return 19001/634."""
    for scale in (Fraction(1), Fraction(1000, 1001)):
        usual = round(rate / scale) * scale
        if usual and abs(rate - usual) < usual / 100_000:
            return usual
    return rate


class _Turn:
    """The display matrix of a frame as a transposition followed by mirrorings.

    The matrix maps a stored point (p, q) to (a·p + c·q, b·p + d·q) on the screen; a…d are the first two entries of its
    first two rows in 16.16 fixed point (ISO/IEC 14496-12, 6.2.2). Angles between right angles go to the nearest one.
    """

    def __init__(self, a: int = 1, b: int = 0, c: int = 0, d: int = 1):
        self.transpose = abs(b) > abs(a)
        self.mirror_x = (c if self.transpose else a) < 0
        self.mirror_y = (b if self.transpose else d) < 0

    @classmethod
    def of(cls, frame: av.VideoFrame) -> _Turn:
        try:
            matrix = frame.side_data.get(SideDataType.DISPLAYMATRIX)
        except ValueError:  # PyAV stumbles over side data newer than itself; its own angle is counter-clockwise
            quarters = round(-frame.rotation / 90) % 4
            return cls(*((1, 0, 0, 1), (0, 1, -1, 0), (-1, 0, 0, -1), (0, -1, 1, 0))[quarters])
        if matrix is None:
            return cls()
        entries = np.frombuffer(bytes(matrix), dtype=np.int32)
        return cls(*(int(entries[index]) for index in (0, 1, 3, 4)))

    @property
    def degrees(self) -> int:
        """Clockwise rotation; a mirrored picture counts as the rotation of its columns."""
        return {(0, 0): 0, (0, 1): 180, (1, 0): 90, (1, 1): 270}[self.transpose, self.mirror_y]

    def size(self, width: int, height: int) -> tuple[int, int]:
        return (height, width) if self.transpose else (width, height)

    def apply(self, frame: np.ndarray) -> np.ndarray:
        if self.transpose:
            frame = frame.transpose(1, 0, 2)
        if self.mirror_x:
            frame = frame[:, ::-1]
        if self.mirror_y:
            frame = frame[::-1]
        return np.ascontiguousarray(frame)
