"""What a header need not spell out: rows of its tables, and what the model in the package usually has (FORMAT.md, 4).

Rows keep their places and nothing is taken away once a version is released.
"""

from __future__ import annotations

from vovcodec.container.fields import Values

__all__ = ["BACKBONES", "COLOURS", "FRAME_RATES", "POCKET_FINGERPRINT", "SOURCE_SIZES", "default_fingerprint",
           "usual_coded_size"]  # fmt: skip

POCKET_FINGERPRINT = bytes.fromhex("9006877a")  # of the embedded model's weights: with others, a new minor version
_POCKET_SHORT_SIDE, _POCKET_MULTIPLE = 128, 16  # of its usual coded size [px]
SOURCE_SIZES = (
    (1920, 1080), (1080, 1920), (1280, 720), (720, 1280), (3840, 2160), (2160, 3840), (2560, 1440), (4096, 2160),
    (960, 540), (854, 480), (852, 480), (848, 480), (832, 480), (480, 832), (640, 360), (360, 640), (426, 240),
    (416, 240), (1440, 1080), (1024, 768), (640, 480), (320, 240), (720, 480), (720, 576), (352, 288), (176, 144),
    (768, 512), (512, 768), (1024, 1024), (512, 512), (256, 256),
)  # fmt: skip
FRAME_RATES = (
    (0, 1), (24000, 1001), (24, 1), (25, 1), (30000, 1001), (30, 1), (50, 1), (60000, 1001), (60, 1),
    (10, 1), (12, 1), (15, 1), (16, 1), (20, 1), (120, 1),
)  # fmt: skip
# matrix, primaries, transfer, range: untagged; BT.709 video; untagged video range; BT.601 with 625 and 525 lines;
# JPEG as FFmpeg reports it; sRGB.
COLOURS = ((2, 2, 2, 0), (1, 1, 1, 1), (2, 2, 2, 1), (5, 5, 6, 1), (6, 6, 6, 1), (5, 2, 2, 2), (0, 1, 13, 2))
BACKBONES = ("pocket", "wan2.1-1.3b", "wan2.1-14b", "qwen-image")


def default_fingerprint(values: Values) -> bytes | None:
    """The weights that come with the package. Of other models: no default."""
    return POCKET_FINGERPRINT if values["backbone_id"] == "pocket" else None


def usual_coded_size(values: Values) -> tuple[int, int]:
    """FORMAT.md, 4.1: the embedded model's usual size for the source, other models' is the source's own [px].

    The long side is the multiple of 16 with the least change of aspect, in integers.
    """
    width, height = int(values["source_width"]), int(values["source_height"])  # numpy integers overflow
    short, long = sorted((width, height))
    if values["backbone_id"] != "pocket" or short < _POCKET_SHORT_SIDE:
        return width, height
    below = _POCKET_SHORT_SIDE * long // (short * _POCKET_MULTIPLE) * _POCKET_MULTIPLE
    above = below + _POCKET_MULTIPLE
    usual = below if (_POCKET_SHORT_SIDE * long) ** 2 < below * above * short**2 else above
    return (usual, _POCKET_SHORT_SIDE) if width >= height else (_POCKET_SHORT_SIDE, usual)
