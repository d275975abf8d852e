"""Side-by-side contact sheets."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from vovcodec.errors import UsageError
from vovcodec.media.geometry import resize_frames

__all__ = ["contact_sheet"]

_GAP = 6
_TEXT = 14
_PAPER, _INK = (24, 24, 24), (235, 235, 235)


def contact_sheet(rows: Sequence[Sequence[np.ndarray]], labels: Sequence[str]) -> np.ndarray:
    """One labelled row of frames per variant, columns aligned: uint8 [H, W, 3].

    rows: lists of uint8 [h, w, 3] frames; every frame is shown at the size of the first one. labels: one line of ASCII
    text per row, shown above it (Pillow's own font has little more).
    Raises UsageError if there is nothing to show or the numbers differ.
    """
    if not rows or not any(len(row) for row in rows):
        raise UsageError("a contact sheet needs at least one frame")
    if len(rows) != len(labels):
        raise UsageError(f"{len(rows)} rows need as many labels, not {len(labels)}")
    height, width = next(row for row in rows if len(row))[0].shape[:2]
    n_columns = max(len(row) for row in rows)
    font = ImageFont.load_default(_TEXT)
    widest_label = max(int(font.getlength(label)) for label in labels)
    band = _TEXT + 2 * _GAP
    sheet = Image.new(
        "RGB",
        (max(n_columns * (width + _GAP), widest_label + _GAP) + _GAP, len(rows) * (height + band) + _GAP),
        _PAPER,
    )
    draw = ImageDraw.Draw(sheet)
    for index, (row, label) in enumerate(zip(rows, labels, strict=True)):
        top = index * (height + band)
        draw.text((_GAP, top + _GAP - 1), label, fill=_INK, font=font)
        for column, frame in enumerate(row):
            cell = resize_frames(np.ascontiguousarray(frame), width, height)
            sheet.paste(Image.fromarray(cell), (_GAP + column * (width + _GAP), top + band))
    return np.array(sheet)
