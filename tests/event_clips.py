"""Clips of a few frames with sound whose picture and sound have one sharp event, and where that event is found."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import av
import numpy as np

__all__ = ["flash_and_click", "write_event_clip"]

RATE = 25


def write_event_clip(
    path: Path,
    *,
    n_frames: int = RATE,
    event_frame: int = 13,
    codec: str = "aac",
    sample_rate: int = 48000,
    channels: str = "stereo",
    sound_from_s: float = 0.0,
    gap_s: tuple[float, float] | None = None,
    pts: list[int] | None = None,
    size: tuple[int, int] = (64, 48),
) -> Path:
    """Dark frames that turn bright at `event_frame` for four frames; a 10 ms tone begins with the first of them.

    sound_from_s: the sound begins so late. gap_s: no sound packets in this span. pts: times of the frames in 1/RATE s.
    """
    with av.open(str(path), "w") as container:
        video = container.add_stream("libx264", rate=RATE, options={"preset": "ultrafast", "crf": "10", "g": "5"})
        video.codec_context.width, video.codec_context.height = size
        video.codec_context.pix_fmt = "yuv420p"
        audio = container.add_stream(codec, rate=sample_rate)
        audio.codec_context.layout = channels
        n_channels = audio.codec_context.layout.nb_channels
        times = pts or list(range(n_frames))
        n_samples = (times[-1] + 1) * sample_rate // RATE
        sound = np.random.default_rng(0).normal(0, 20, (n_samples, n_channels)).astype(np.int16)
        click = times[event_frame] * sample_rate // RATE
        sound[click : click + sample_rate // 100] = 20000 * np.sin(np.arange(sample_rate // 100) * 0.2)[:, None]
        written = 0
        for index, time in enumerate(times):
            bright = event_frame <= index < event_frame + 4
            picture = av.VideoFrame.from_ndarray(np.full((*size[::-1], 3), 220 if bright else 30, np.uint8))
            picture.pts, picture.time_base = time, Fraction(1, RATE)
            container.mux(video.encode(picture))
            while written < min(n_samples, (time + 1) * sample_rate // RATE):
                block = sound[written : written + 960]
                time_s = written / sample_rate
                if time_s >= sound_from_s and not (gap_s and gap_s[0] <= time_s < gap_s[1]):
                    frame = av.AudioFrame.from_ndarray(block.reshape(1, -1), format="s16", layout=channels)
                    frame.sample_rate, frame.pts, frame.time_base = sample_rate, written, Fraction(1, sample_rate)
                    container.mux(audio.encode(frame))
                written += len(block)
        container.mux(video.encode(None))
        container.mux(audio.encode(None))
    return path


def flash_and_click(path: Path) -> tuple[float, float]:
    """When the picture turns bright and when the tone begins [s], by the time stamps that a player goes by."""
    with av.open(str(path)) as container:
        levels = [(float(f.pts * f.time_base), f.to_ndarray(format="gray").mean()) for f in container.decode(video=0)]
    middle = (max(level for _, level in levels) + min(level for _, level in levels)) / 2
    flash_s = next(time_s for time_s, level in levels if level > middle)
    resampler = av.AudioResampler(format="s16", layout="mono")
    with av.open(str(path)) as container:
        blocks = [(f, np.abs(f.to_ndarray()[0])) for g in container.decode(audio=0) for f in resampler.resample(g)]
    loudest = max(block.max() for _, block in blocks)
    frame, block = next((frame, block) for frame, block in blocks if block.max() > loudest / 3)
    return flash_s, float(frame.pts * frame.time_base) + int(np.argmax(block > loudest / 3)) / frame.sample_rate
