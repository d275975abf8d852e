"""Frames of a clip or image one by one: selection and resampling in time."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import replace
from fractions import Fraction
from typing import BinaryIO

import numpy as np

from vovcodec.container.audio import AudioTrack
from vovcodec.errors import MediaError, UsageError
from vovcodec.media.info import UNEVEN_TIMES, MediaInfo, note_once
from vovcodec.media.sound import SoundWish, cut_notice
from vovcodec.media.source import PictureSource, open_source

__all__ = ["DEFAULT_SEQUENCE_RATE", "FrameReader", "open_frames", "probe"]

DEFAULT_SEQUENCE_RATE = Fraction(25)
_SOUND_DELAY_S = Fraction(1, 2)


def probe(source: str | os.PathLike | BinaryIO, *, sequence_rate: Fraction = DEFAULT_SEQUENCE_RATE) -> MediaInfo:
    """What is known about a source without reading its frames. A pipe is used up by it.

    sequence_rate: frames per second of a numbered sequence. Raises MediaError.
    """
    opened = open_source(source, sequence_rate=sequence_rate)
    opened.close()
    return opened.info


def open_frames(
    source: str | os.PathLike | BinaryIO,
    *,
    start_s: float | Fraction | None = None,
    duration_s: float | Fraction | None = None,
    n_frames: int | None = None,
    frame_rate: Fraction | None = None,
    sound: SoundWish = None,
) -> FrameReader:
    """Opens anything PyAV or Pillow reads, '-' for standard input, a binary file object or `frames/%05d.png`.

    start_s, duration_s  select by time stamps, each rounded to the nearest frame of the source
    n_frames             at most so many frames are delivered
    frame_rate           resample: frame k is the source frame nearest in time to start_s + k/frame_rate, so frames are
                         dropped or repeated. For a numbered sequence, which has no rate of its own, it is the rate.
                         A clip of variable rate that has sound is brought to its average rate without being asked, or
                         picture and sound would part.
    sound                "copy" or bits per second: what `FrameReader.sound_track` returns
    Raises MediaError (source), UsageError (arguments).
    """
    for name, value, least in (("start", start_s, 0), ("duration", duration_s, None), ("frame rate", frame_rate, None)):
        if value is not None and not (value >= 0 if least == 0 else value > 0):
            raise UsageError(f"the {name} has to be {'0 or more' if least == 0 else 'above 0'}, not {value}")
    if n_frames is not None and n_frames < 1:
        raise UsageError(f"the number of frames has to be at least 1, not {n_frames}")
    opened = open_source(source, sequence_rate=frame_rate or DEFAULT_SEQUENCE_RATE, sound=sound)
    try:
        return FrameReader(opened, _exact(start_s), _exact(duration_s), n_frames, frame_rate)
    except BaseException:
        opened.close()
        raise


def _exact(seconds: float | Fraction | None) -> Fraction | None:
    return None if seconds is None else Fraction(seconds).limit_denominator(1_000_000)


class FrameReader:
    """Iterates once over upright RGB uint8 [H, W, 3] frames; a context manager that closes the source.

    info       as delivered: `frame_rate` after resampling; `n_frames` is None if a selection makes it unsure
    notices    lines about what was lost or odd; grows while frames are read
    """

    def __init__(
        self,
        source: PictureSource,
        start_s: Fraction | None,
        duration_s: Fraction | None,
        n_frames: int | None,
        frame_rate: Fraction | None,
    ):
        self._source, self.notices = source, source.notices
        info = source.info
        if info.kind == "image":
            if start_s:
                raise UsageError("a single image has no start time")
            # Options for many inputs, of which some are stills, do no harm.
            wishes = {"-t": duration_s, "--frames": (n_frames or 1) > 1, "--fps": frame_rate}
            without_effect = [flag for flag, wish in wishes.items() if wish]
            if without_effect:
                self.notices.append(f"without effect on a still: {', '.join(without_effect)}")
            duration_s = frame_rate = None
        if source.is_variable and info.has_audio and frame_rate is None:
            frame_rate = info.frame_rate
            self.notices.append("frames are dropped or repeated to keep that rate, so that the sound stays in sync")
        self._start_s, self._duration_s, self._n_frames = start_s or Fraction(0), duration_s, n_frames
        # A file may say that its rate is constant where it is not: what is asked for is done by time.
        self._rate = frame_rate
        selected = bool(start_s or duration_s or n_frames or self._rate)
        self.info: MediaInfo = replace(
            info,
            frame_rate=self._rate or info.frame_rate,
            n_frames=None if selected and info.kind == "video" else info.n_frames,
        )
        self._n_delivered, self._frames = 0, self._read()

    def _read(self) -> Iterator[np.ndarray]:
        chosen = self._selected() if self._rate is None else self._resampled()
        last_picture, frame = None, None
        for picture in chosen:
            if picture is not last_picture or frame is None:
                frame, last_picture = self._source.to_rgb(picture), picture
            self._n_delivered += 1
            yield frame
            if self._n_delivered == self._n_frames:
                return
        if not self._n_delivered:
            raise MediaError(f"there is no frame at {float(self._start_s):g} s: the clip ends before")

    def _selected(self) -> Iterator:
        """Pictures with start − h ≤ t < start + duration − h, h = half a frame: the nearest frames at both ends."""
        info = self._source.info
        half_s = 1 / (2 * info.frame_rate) if info.frame_rate else Fraction(0)
        end_s = None if self._duration_s is None else self._start_s + self._duration_s - half_s
        n_selected = 0
        for time_s, picture in self._source.pictures(self._start_s):
            if time_s < self._start_s - half_s:
                continue
            # A duration shorter than half a frame still selects the nearest one.
            if end_s is not None and time_s >= end_s and n_selected:
                return
            if not n_selected:
                self._begin_sound(time_s)
            expected_s = self._first_s + n_selected / info.frame_rate if info.frame_rate else time_s
            if abs(time_s - expected_s) > 3 * half_s and not self._source.is_variable:
                note_once(self.notices, UNEVEN_TIMES.format(float(info.frame_rate)))
            n_selected += 1
            yield picture

    def _resampled(self) -> Iterator:
        """Frame k shows the picture nearest to start + k/rate, while that is inside the clip."""
        n_wanted = None if self._duration_s is None else max(1, round(self._duration_s * self._rate))
        pictures = self._source.pictures(self._start_s)
        previous = None
        n_emitted = 0
        self._begin_sound(self._start_s)
        for time_s, picture in pictures:
            while previous is not None:
                wanted_s = self._start_s + n_emitted / self._rate
                if n_emitted == n_wanted or wanted_s >= (previous[0] + time_s) / 2:
                    break
                yield previous[1]
                n_emitted += 1
            if n_emitted == n_wanted:
                return
            previous = (time_s, picture)
        if previous is None:
            return
        # The last picture ends somewhat earlier here, so that rounded time stamps do not make one frame more of it.
        shown_s = self._source.shown_s(previous[1])
        end_s = previous[0] + shown_s - min(shown_s, 1 / self._rate) / 2
        while n_emitted != n_wanted and self._start_s + n_emitted / self._rate < end_s:
            yield previous[1]
            n_emitted += 1

    def _begin_sound(self, time_s: Fraction) -> None:
        """The first frame shows what the source shows at `time_s`; the sound begins with it."""
        self._first_s = time_s
        if self._source.sound:
            self._source.sound.begin(time_s)

    def sound_track(self) -> AudioTrack | None:
        """The sound of exactly the frames delivered; None without any, or if none was wished for. To be called once,
        after the last frame that is wanted."""
        sound = self._source.sound
        if sound is None or not self._n_delivered:
            return None
        length_s = self._n_delivered / self.info.frame_rate
        # Decoders give sound somewhat after the packet it came in.
        self._source.read_sound_until(self._first_s + length_s + _SOUND_DELAY_S)
        track = sound.finish(length_s)
        # Whoever asked for a part knows that the sound goes on after it.
        if track is not None and self._duration_s is None and self._n_delivered != self._n_frames:
            notice = cut_notice(length_s, sound.end_s - self._first_s)
            self.notices += [notice] if notice else []
        return track

    def __iter__(self) -> Iterator[np.ndarray]:
        return self._frames

    def __next__(self) -> np.ndarray:
        return next(self._frames)

    def close(self) -> None:
        self._frames.close()
        self._source.close()

    def __enter__(self) -> FrameReader:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()
