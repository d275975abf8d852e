"""Embedded ICC profiles: everything becomes sRGB."""

from __future__ import annotations

import io

from PIL import Image, ImageChops, ImageCms

from vovcodec.media.info import note_once

__all__ = ["to_srgb"]


def to_srgb(image: Image.Image, profile: bytes | None, notices: list[str]) -> Image.Image:
    """Converts from the embedded ICC profile to sRGB, with a notice where that changes a colour.

    profile: as it lies in the file; None leaves everything but LAB as it is. One that cannot be used is left aside with
    a notice.
    """
    source = None
    if profile:
        try:
            source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
            space = source.profile.xcolor_space.strip()
        except (ImageCms.PyCMSError, OSError, TypeError, ValueError):
            note_once(notices, "the damaged ICC profile is ignored")
            source = None
    if source is None and image.mode == "LAB":
        source, space = ImageCms.createProfile("LAB"), "Lab"
    if source is None:
        return image
    working = {"RGB": "RGB", "GRAY": "L", "CMYK": "CMYK", "Lab": "LAB"}.get(space)
    picture = image.convert("RGB") if image.mode == "RGBA" else image
    if working == "L" and picture.mode == "RGB":  # a grey image with alpha, or a grey palette, carrying a grey profile
        picture = picture.convert("L")
    if picture.mode == "RGB" and _is_srgb(source):
        return picture
    try:
        if working != picture.mode:
            raise ImageCms.PyCMSError(f"profile for {space}, image is {picture.mode}")
        converted = ImageCms.profileToProfile(
            picture, source, ImageCms.createProfile("sRGB"), outputMode="RGB",
            renderingIntent=ImageCms.Intent.RELATIVE_COLORIMETRIC, flags=ImageCms.Flags.BLACKPOINTCOMPENSATION,
        )  # fmt: skip
    except (ImageCms.PyCMSError, OSError, ValueError):
        note_once(notices, f"the ICC profile does not fit the image ({picture.mode}) and is ignored")
        return image
    if ImageChops.difference(converted, picture.convert("RGB")).getbbox():
        name = _name(source) or "without a name"
        note_once(notices, f"colours are converted to sRGB from the embedded profile {name}")
    return converted


def _is_srgb(profile: ImageCms.ImageCmsProfile) -> bool:
    """Whether the profile calls itself sRGB: converting would only add rounding."""
    return _name(profile).lower().startswith("srgb")


def _name(profile: ImageCms.ImageCmsProfile) -> str:
    try:
        return " ".join(ImageCms.getProfileDescription(profile).split())
    except (AttributeError, ImageCms.PyCMSError):
        return ""
