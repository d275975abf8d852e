"""Images and animations through Pillow: PNG, JPEG, WebP, BMP, TIFF, AVIF, PNM, JPEG 2000; GIF, APNG, animated WebP."""

from __future__ import annotations

import io
from collections.abc import Iterator
from fractions import Fraction
from itertools import accumulate
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps, ImageSequence

from vovcodec.media import colour
from vovcodec.media.faults import explained
from vovcodec.media.info import VARIABLE_RATE, MediaInfo, note_once
from vovcodec.media.profiles import to_srgb

__all__ = ["AnimationSource", "StillSource", "image_to_rgb", "open_image"]

# Named, so that Pillow never tries formats that run other programs (EPS) or have no magic number (TGA). MPO is JPEG.
FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "TIFF", "GIF", "AVIF", "PPM", "JPEG2000")
# Formats whose further pictures are moments in time. Those of TIFF are pages, those of MPO are views.
_ANIMATED = ("GIF", "PNG", "WEBP", "AVIF")

_GIF_TICK_S = Fraction(1, 100)
# What browsers and FFmpeg do with a delay of 0 or 1 hundredth of a second.
_DEFAULT_DELAY_S = Fraction(1, 10)
_SHORTEST_DELAY_S = Fraction(2, 100)

_BIT_DEPTHS = {"1": 1, "I;16": 16, "I;16B": 16, "I;16L": 16, "I": 32, "F": 32}
_CAME_UPRIGHT_BY = {3: 180, 4: 180, 5: 90, 6: 90, 7: 270, 8: 270}  # EXIF orientation → degrees clockwise
_MIRRORED = {2, 4, 5, 7}
_EXIF_ORIENTATION = 0x0112


def open_image(file: Path | io.BytesIO, name: str) -> StillSource | AnimationSource:
    """Opens a path or bytes in memory; more than one moment in it makes an animation, which is a video."""
    with explained(name):
        image = Image.open(file, formats=FORMATS)
        if image.format == "AVIF":
            image.info["bit_depth"] = _avif_bit_depth(image.fp)
        if image.format in _ANIMATED and getattr(image, "n_frames", 1) > 1:
            return AnimationSource(image, name)
        return StillSource(image, name)


class StillSource:
    """One image. Its only picture is at time 0."""

    is_variable, sound = False, None

    def __init__(self, image: Image.Image, name: str):
        self.notices: list[str] = []
        pixel_format, bit_depth, has_alpha = image.mode, bit_depth_of(image), has_alpha_in(image)
        image.info["bit_depth"] = bit_depth  # looking for EXIF data may load a PNG, which then no longer tells
        turned = _turned_upright(image, self.notices)
        n_pages = getattr(image, "n_frames", 1) if image.format == "TIFF" else 1
        with explained(name), image:
            self._frame = image_to_rgb(image, self.notices)
        if n_pages > 1:
            self.notices.append(f"only the first of {n_pages} pages is used")
        height, width = self._frame.shape[:2]
        self.info = MediaInfo(
            kind="image", width=width, height=height, frame_rate=Fraction(0), n_frames=1, duration_s=0.0,
            rotation=turned, sample_aspect=Fraction(1),
            pixel_format=pixel_format, bit_depth=bit_depth, has_alpha=has_alpha, **RGB_TAGS,
            has_audio=False, codec=image.format.lower(), container=image.format.lower(),
        )  # fmt: skip

    def pictures(self, start_s: Fraction) -> Iterator[tuple[Fraction, np.ndarray]]:
        yield Fraction(0), self._frame

    def shown_s(self, picture: np.ndarray) -> Fraction:
        return Fraction(0)

    def to_rgb(self, picture: np.ndarray) -> np.ndarray:
        return picture

    def close(self) -> None:
        pass


class AnimationSource:
    """An animated GIF, PNG, WebP or AVIF. Pillow composes the pictures; their delays give the times."""

    sound = None

    def __init__(self, image: Image.Image, name: str):
        self._image, self._name, self.notices = image, name, []
        with explained(name):
            self._delays_s = self._readable_delays_s()
            image.seek(0)
        duration_s = sum(self._delays_s)
        rate, self.is_variable = rate_of_delays(self._delays_s)
        if self.is_variable:
            self.notices.append(VARIABLE_RATE.format(float(rate)))
        bit_depth = bit_depth_of(image)  # looking for EXIF data may load a PNG, which then no longer tells
        turned = _turned_upright(image, self.notices)
        width, height = image.size if turned in (0, 180) else image.size[::-1]
        self.info = MediaInfo(
            kind="video", width=width, height=height,
            frame_rate=rate, n_frames=len(self._delays_s), duration_s=float(duration_s),
            rotation=turned, sample_aspect=Fraction(1), pixel_format=image.mode, bit_depth=bit_depth,
            has_alpha=has_alpha_in(image), **RGB_TAGS,
            has_audio=False, codec=image.format.lower(), container=image.format.lower(),
        )  # fmt: skip

    def _readable_delays_s(self) -> list[Fraction]:
        """Delays of the frames up to the first one that does not decode, which only decoding can tell."""
        delays_s = []
        try:
            for frame in ImageSequence.Iterator(self._image):
                frame.load()
                delays_s.append(_delay_s(frame))
        except Exception as exc:
            if not delays_s:
                raise
            self.notices.append(f"only {len(delays_s)} frames can be read: {exc}")
        return delays_s

    def pictures(self, start_s: Fraction) -> Iterator[tuple[Fraction, int]]:
        time_s = Fraction(0)
        for number, delay_s in enumerate(self._delays_s):
            yield time_s, number
            time_s += delay_s

    def shown_s(self, picture: int) -> Fraction:
        return self._delays_s[picture]

    def to_rgb(self, picture: int) -> np.ndarray:
        with explained(f"{self._name}: frame {picture}"):
            self._image.seek(picture)
            return image_to_rgb(self._image, self.notices)

    def close(self) -> None:
        self._image.close()


def _turned_upright(image: Image.Image, notices: list[str]) -> int:
    """Degrees clockwise by which `image_to_rgb` turns the image as its EXIF orientation says, noted in `notices`."""
    orientation = image.getexif().get(_EXIF_ORIENTATION, 1)
    turned = _CAME_UPRIGHT_BY.get(orientation, 0)
    changes = [f"turned upright by {turned} degrees clockwise"] if turned else []
    changes += ["mirrored"] if orientation in _MIRRORED else []
    if changes:
        notices.append(f"{' and '.join(changes)}, as its EXIF orientation says")
    return turned


# How the frames are tagged: Pillow has undone the YCbCr of JPEG, WebP and AVIF, and a profile has become sRGB.
RGB_TAGS = {
    "colour_matrix": colour.MATRIX_RGB,
    "colour_primaries": colour.PRIMARIES_BT709,
    "colour_transfer": colour.TRANSFER_SRGB,
    "colour_range": "full",
}


def image_to_rgb(image: Image.Image, notices: list[str]) -> np.ndarray:
    """The upright 8-bit sRGB frame of a Pillow image: uint8 [H, W, 3]. What was lost on the way goes to `notices`.

    EXIF orientation is applied; an embedded ICC profile is converted to sRGB; CMYK, LAB, YCbCr, palettes, grey and
    bilevel images become RGB; 16 bits are reduced to 8 by rounding; transparency is flattened on white.
    """
    profile = image.info.get("icc_profile")
    if bit_depth_of(image) > 8:
        note_once(notices, f"{bit_depth_of(image)} bits per component are reduced to 8")
    image = ImageOps.exif_transpose(image)
    image = _to_8_bits(image)
    alpha = None
    if has_alpha_in(image):
        image = image.convert("RGBA")
        alpha = np.asarray(image)[..., 3]
    elif image.mode in ("P", "1", "HSV", "YCbCr"):
        image = image.convert("RGB")
    image = to_srgb(image, profile, notices)
    frame = np.array(image.convert("RGB"))
    if alpha is not None and alpha.min() < 255:
        note_once(notices, "transparency is flattened on white")
        frame = colour.flatten(np.dstack([frame, alpha]), colour.WHITE)
    return frame


def has_alpha_in(image: Image.Image) -> bool:
    """Whether the image has an alpha channel or a transparent colour."""
    return image.mode in ("RGBA", "LA", "PA", "RGBa", "La") or "transparency" in image.info


def bit_depth_of(image: Image.Image) -> int:
    """Bits per component in the file: Pillow already reads 16-bit colour as 8, but its decoder's arguments tell."""
    if "bit_depth" in image.info:
        return image.info["bit_depth"]
    for tile in getattr(image, "tile", ()):
        arguments = tile[3] if isinstance(tile[3], tuple) else (tile[3],)
        if any(isinstance(argument, str) and ";16" in argument for argument in arguments):
            return 16
    return _BIT_DEPTHS.get(image.mode, 8)


def _avif_bit_depth(file: io.BufferedIOBase) -> int:
    """From the configuration box (AV1 in ISO base media files, 2.3.3): Pillow delivers 8 bits and keeps quiet."""
    file.seek(0)
    head = file.read(4096)
    place = head.find(b"av1C") + 6
    if place < 6 or place >= len(head):
        return 8
    is_high, is_twelve = head[place] & 0x40, head[place] & 0x20
    return 12 if is_twelve else 10 if is_high else 8


def _to_8_bits(image: Image.Image) -> Image.Image:
    """Grey images of 16 bits, 32 bits or float as mode L. Float is taken as 0…1, 32-bit integers as 16-bit ones."""
    if image.mode == "F":
        levels = np.nan_to_num(np.asarray(image, dtype=np.float64)) * 255
    elif image.mode.startswith("I"):
        levels = np.asarray(image).astype(np.float64) / 257
    else:
        return image
    return Image.fromarray(np.clip(np.rint(levels), 0, 255).astype(np.uint8))


def _delay_s(frame: Image.Image) -> Fraction:
    delay_s = Fraction(frame.info.get("duration", 0)).limit_denominator(1000) / 1000
    return delay_s if delay_s >= _SHORTEST_DELAY_S else _DEFAULT_DELAY_S


def rate_of_delays(delays_s: list[Fraction]) -> tuple[Fraction, bool]:
    """Frames per second of an animation, and whether it is variable.

    Equal delays d give 1/d exactly. GIF counts in hundredths of a second, so 30 frames per second become delays of
    3, 4, 3, 3, 4, …: delays that differ by no more than that are taken for a constant rate, a usual one if it explains
    every time stamp. Otherwise it is the number of frames over their whole duration.
    """
    if len(set(delays_s)) == 1:
        return 1 / delays_s[0], False
    times_s = list(accumulate(delays_s, initial=Fraction(0)))[:-1]
    for rate in (30, 24, 60, 48, 15, 12, 40, 16, 18, 14):
        if all(abs(time_s - Fraction(number, rate)) <= _GIF_TICK_S / 2 for number, time_s in enumerate(times_s)):
            return Fraction(rate), False
    return len(delays_s) / sum(delays_s), max(delays_s) - min(delays_s) > _GIF_TICK_S
