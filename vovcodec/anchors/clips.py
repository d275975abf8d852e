"""x265 and SVT-AV1 through PyAV, as elementary streams: no container is written.

SVT-AV1 codes 8-bit 4:2:0 (10 bits are up to 0.15 dB worse), x265 that or 4:4:4, with `tune=psnr`. On seven clips of 33
frames with a short side of 128, in 3000 bytes, the tune gains 0.1 to 0.3 dB of RGB PSNR at the same SSIM, and 4:4:4
another 0 to 0.4 dB; where there are hardly enough bytes for a clip, 4:2:0 is better.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import av
import numpy as np

from vovcodec.anchors.anchor import Anchor, Coded
from vovcodec.errors import MediaError
from vovcodec.media.faults import explained
from vovcodec.media.yuv import RANGE_LIMITED, PixelScaler

__all__ = ["SVT_AV1", "X265", "X265_444"]

_BT709 = 1
# Sides are padded to this by repeating the border, which costs next to nothing: x265 corrupts its heap at some smaller
# sizes (48x34 and 48x40 in version 4.2), and odd sizes do not exist in 4:2:0.
_SIZE_MULTIPLE, _LEAST_SIDE = 8, 64
# A rate only moves the default distance of key frames, which short clips do not reach. Frames carry no times here.
_FRAME_RATE = Fraction(30)
# An AV1 temporal delimiter: two bytes per frame that containers leave out.
_TEMPORAL_DELIMITER = b"\x12\x00"

# info: no greeting of two kilobytes in the stream. One thread and no wavefronts: fewer bytes, and the same ones always.
_X265_PARAMETERS = "log-level=none:info=0:frame-threads=1:pools=none:wpp=0"


def _x265_options(crf: float) -> dict[str, str]:
    return {"preset": "slow", "tune": "psnr", "crf": f"{crf:g}", "x265-params": _X265_PARAMETERS}


def _svt_av1_options(crf: float) -> dict[str, str]:
    # FFmpeg's own option ends at whole numbers up to 63; the library takes quarters up to 70.
    return {"preset": "4", "svtav1-params": f"lp=1:crf={crf:g}"}


def _run_x265(frames: np.ndarray, crf: float) -> Coded:
    return _code("x265", "libx265", "hevc", _x265_options(crf), frames, crf)


def _run_x265_444(frames: np.ndarray, crf: float) -> Coded:
    return _code("x265-444", "libx265", "hevc", _x265_options(crf), frames, crf, "yuv444p")


def _run_svt_av1(frames: np.ndarray, crf: float) -> Coded:
    # The library writes to standard error by itself; 1 leaves only errors. It reads this when it is opened first.
    os.environ.setdefault("SVT_LOG", "1")
    return _code("svtav1", "libsvtav1", "libdav1d", _svt_av1_options(crf), frames, crf)


def _code(
    name: str,
    encoder: str,
    decoder: str,
    options: dict[str, str],
    frames: np.ndarray,
    crf: float,
    pixel_format: str = "yuv420p",
) -> Coded:
    height, width = frames.shape[1:3]
    with explained(f"{name} at {width}x{height}, CRF {crf:g}"):
        packets = _encode(encoder, options, _padded(frames), pixel_format)
    if encoder == "libsvtav1":
        packets = [packet.removeprefix(_TEMPORAL_DELIMITER) for packet in packets]

    def decode() -> np.ndarray:
        with explained(f"{name} decoder"):
            decoded = _decode(decoder, packets)
        if len(decoded) != len(frames):
            raise MediaError(f"{name}: {len(decoded)} frames came back from {len(frames)}")
        return decoded[:, :height, :width]

    return Coded(name, crf, sum(map(len, packets)), None, tuple(packets), decode)


def _padded(frames: np.ndarray) -> np.ndarray:
    missing = [max(_LEAST_SIDE, -(-side // _SIZE_MULTIPLE) * _SIZE_MULTIPLE) - side for side in frames.shape[1:3]]
    return np.pad(frames, [(0, 0), (0, missing[0]), (0, missing[1]), (0, 0)], mode="edge") if any(missing) else frames


def _encode(encoder: str, options: dict[str, str], frames: np.ndarray, pixel_format: str) -> list[bytes]:
    scaler = PixelScaler(_BT709, RANGE_LIMITED)
    context = av.CodecContext.create(encoder, "w")
    context.height, context.width = frames.shape[1:3]
    context.pix_fmt = pixel_format
    context.framerate, context.time_base = _FRAME_RATE, 1 / _FRAME_RATE
    context.thread_count = 1
    context.options = options
    with _priority_kept():
        context.open()
    packets: list[av.Packet] = []
    for number, frame in enumerate(frames):
        picture = scaler.from_rgb(frame, pixel_format)
        picture.pts, picture.time_base = number, 1 / _FRAME_RATE
        packets += context.encode(picture)
    packets += context.encode(None)
    return [bytes(packet) for packet in packets]


@contextmanager
def _priority_kept() -> Iterator[None]:
    """Whatever is started inside, all threads of this process are scheduled as before.

    Where it may, as root, SVT-AV1 makes the calling thread and its own real-time ones of the highest priority, for
    good: as long as they compute, every other program on the machine stands still.
    """
    threads = Path("/proc/self/task")
    if not (hasattr(os, "sched_getscheduler") and threads.is_dir()):
        yield
        return
    before = os.sched_getscheduler(0), os.sched_getparam(0)
    try:
        yield
    finally:
        for thread in map(int, os.listdir(threads)):
            with suppress(OSError):  # it may have ended, or not be ours to change
                if os.sched_getscheduler(thread) != before[0]:
                    os.sched_setscheduler(thread, *before)


def _decode(decoder: str, packets: Sequence[bytes]) -> np.ndarray:
    scaler = PixelScaler(_BT709, RANGE_LIMITED)
    context = av.CodecContext.create(decoder, "r")
    context.thread_count = 1
    frames = []
    for packet in [*map(av.Packet, packets), None]:
        frames += [scaler.to_rgb(picture, picture.width, picture.height, False) for picture in context.decode(packet)]
    return np.stack(frames)


def _lacking(*codecs: str):
    def missing() -> str:
        absent = [codec for codec in codecs if codec not in av.codecs_available]
        return f"this build of PyAV has no {' and no '.join(absent)}" if absent else ""

    return missing


X265 = Anchor(
    name="x265",
    title="x265 slow",
    scale="CRF",
    qualities=tuple(tenths / 10 for tenths in range(510, -1, -1)),
    stills_only=False,
    run=_run_x265,
    missing=_lacking("libx265", "hevc"),
)
X265_444 = replace(X265, name="x265-444", title="x265 slow 4:4:4", run=_run_x265_444)
SVT_AV1 = Anchor(
    name="svtav1",
    title="SVT-AV1 preset 4",
    scale="CRF",
    qualities=tuple(quarters / 4 for quarters in range(280, 3, -1)),
    stills_only=False,
    run=_run_svt_av1,
    missing=_lacking("libsvtav1", "libdav1d"),
)
