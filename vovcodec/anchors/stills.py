"""WebP and AVIF through Pillow.

AVIF is coded 4:4:4 with `tune=psnr` at libaom's slowest speed: on three Kodak pictures at 192x128 that is 0.4 to 1 dB
better at equal bytes than 4:2:0, and `tune=psnr` reaches half the bytes of libavif's own default at quality 0. Lossy
WebP has 4:2:0 only.
"""

from __future__ import annotations

import io
from collections.abc import Callable

import numpy as np
from PIL import Image, features

from vovcodec.anchors.anchor import Anchor, Coded
from vovcodec.errors import MediaError
from vovcodec.media.faults import explained

__all__ = ["AVIF", "WEBP"]

_AVIF_OPTIONS = {"speed": 0, "subsampling": "4:4:4", "max_threads": 1, "codec": "aom", "advanced": {"tune": "psnr"}}


def _run_webp(frames: np.ndarray, quality: float) -> Coded:
    return _code("webp", frames, quality, {"format": "WEBP", "quality": quality, "method": 6}, _webp_payload)


def _run_avif(frames: np.ndarray, quality: float) -> Coded:
    options = {"format": "AVIF", "quality": int(quality), **_AVIF_OPTIONS}
    return _code("avif", frames, quality, options, _avif_payload)


def _code(name: str, frames: np.ndarray, quality: float, options: dict, payload: Callable[[bytes], int]) -> Coded:
    buffer = io.BytesIO()
    with explained(f"{name} at quality {quality:g}"):
        Image.fromarray(frames[0]).save(buffer, **options)
    data = buffer.getvalue()

    def decode() -> np.ndarray:
        with explained(f"{name} decoder"), Image.open(io.BytesIO(data)) as image:
            return np.asarray(image.convert("RGB"))[None]

    return Coded(name, quality, payload(data), len(data), (data,), decode)


def _webp_payload(data: bytes) -> int:
    """Bytes of the image chunk without its header: RIFF size WEBP, then chunks of name, size, content."""
    for name, start, size in _chunks(data, 12, "little", name_first=True):
        if name in (b"VP8 ", b"VP8L"):
            return min(size, len(data) - start)
    raise MediaError("webp: no image chunk in the file")


def _avif_payload(data: bytes) -> int:
    """Bytes of media data: the coded picture alone, without the boxes that describe it."""
    for name, _, size in _chunks(data, 0, "big", name_first=False):
        if name == b"mdat":
            return size - 8
    raise MediaError("avif: no media data in the file")


def _chunks(data: bytes, position: int, order: str, *, name_first: bool):
    """(name, start of content, size as stored) of each chunk; a box (name last) counts its own header in its size."""
    while position + 8 <= len(data):
        first, second = data[position : position + 4], data[position + 4 : position + 8]
        name, size = (first, int.from_bytes(second, order)) if name_first else (second, int.from_bytes(first, order))
        yield name, position + 8, size
        position += 8 + size + size % 2 if name_first else max(size, 8)


def _lacking(feature: str):
    return lambda: "" if features.check(feature) else f"this build of Pillow has no {feature.upper()}"


WEBP = Anchor(
    name="webp",
    title="WebP",
    scale="quality",
    qualities=tuple(quarters / 4 for quarters in range(401)),
    stills_only=True,
    run=_run_webp,
    missing=_lacking("webp"),
)
AVIF = Anchor(
    name="avif",
    title="AVIF",
    scale="quality",
    qualities=tuple(map(float, range(101))),
    stills_only=True,
    run=_run_avif,
    missing=_lacking("avif"),
)
