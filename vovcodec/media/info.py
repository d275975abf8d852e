"""What is known about a clip or an image before its frames are read."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction

__all__ = ["UNEVEN_TIMES", "VARIABLE_RATE", "MediaInfo", "note_once"]

VARIABLE_RATE = (
    "the frame rate is variable, on average {:.4g} per second; "
    "every frame is kept at that rate unless another rate is asked for"
)
UNEVEN_TIMES = (
    "frames are less even in time than the file says; every frame is kept, at {0:.4g} per second, and --fps {0:.4g} "
    "keeps the times instead"
)


@dataclass(frozen=True)
class MediaInfo:
    """One clip or image, as its frames are delivered: upright, RGB.

    kind               'video' or 'image'
    width, height      pixels of the upright frame (after rotation); not stretched by `sample_aspect`
    frame_rate         frames per second, exact; 0 for an image
    n_frames           frames in the file where the file says so exactly, else None; 1 for an image
    duration_s         seconds where known, else None; 0.0 for an image
    rotation           degrees clockwise by which the stored picture was turned to be upright: 0, 90, 180, 270
    sample_aspect      width of a pixel over its height, upright; 1 when the file does not say
    pixel_format       of the stored picture: FFmpeg's name for video, Pillow's mode for images
    bit_depth          bits per component of the stored picture
    has_alpha          the stored picture has transparency (it is flattened, see `colour.flatten`)
    colour_matrix, colour_primaries, colour_transfer
                       ITU-T H.273 code points of the stored picture; 2 = unspecified, matrix 0 = RGB
    colour_range       'limited', 'full' or 'unspecified'
    has_audio          there is at least one audio stream
    codec, container   FFmpeg's or Pillow's names, for display
    """

    kind: str
    width: int
    height: int
    frame_rate: Fraction
    n_frames: int | None
    duration_s: float | None
    rotation: int
    sample_aspect: Fraction
    pixel_format: str
    bit_depth: int
    has_alpha: bool
    colour_matrix: int
    colour_primaries: int
    colour_transfer: int
    colour_range: str
    has_audio: bool
    codec: str
    container: str


def note_once(notices: list[str], line: str) -> None:
    """Appends a line that is not there yet: frames of one file lose the same things."""
    if line not in notices:
        notices.append(line)
