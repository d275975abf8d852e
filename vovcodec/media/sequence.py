"""Numbered image sequences: `frames/%05d.png`, read and named."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

import numpy as np

from vovcodec.errors import MediaError, UsageError
from vovcodec.media.faults import explained
from vovcodec.media.info import MediaInfo

__all__ = ["SequenceSource", "is_pattern", "is_sequence", "numbered_files", "numbered_name"]

# %d, %5d or %05d in the last part of the path, once.
_NUMBER = re.compile(r"%0?(\d*)d")


def is_pattern(path: str) -> bool:
    """Whether the file name of a path holds a printf number."""
    return len(_NUMBER.findall(Path(path).name)) == 1


def is_sequence(source: str) -> bool:
    """Whether a name to read from is a pattern; a file that has this very name is that file."""
    return is_pattern(source) and not os.path.lexists(source)


def numbered_name(pattern: str, number: int) -> str:
    """The file name (without folder) of one frame. Other per cent signs stand for themselves."""
    return _NUMBER.sub(lambda match: f"{number:0{match.group(1) or 1}d}", Path(pattern).name)


def numbered_files(pattern: str) -> dict[int, Path]:
    """number → path of the files that the pattern names, in the order of their numbers.

    A file counts if writing its number with the pattern gives its name back: `%05d.png` does not mean `7.png`.
    """
    folder = Path(pattern).parent
    if not folder.is_dir():
        raise MediaError(f"{pattern}: no such folder: {folder}")
    before, after = re.split(_NUMBER.pattern.replace("(", "(?:"), Path(pattern).name)
    name = re.compile(re.escape(before) + r"(\d+)" + re.escape(after))
    with explained(pattern):
        found = {int(match.group(1)): file for file in folder.iterdir() if (match := name.fullmatch(file.name))}
    return {n: file for n, file in sorted(found.items()) if numbered_name(pattern, n) == file.name}


class SequenceSource:
    """A video whose frames are images: all of one size, in the order of their numbers, whatever the first one is."""

    is_variable, sound = False, None

    def __init__(self, pattern: str, frame_rate: Fraction):
        from vovcodec.media.source import open_source

        if frame_rate <= 0:
            raise UsageError(f"an image sequence needs a frame rate above 0, not {frame_rate}")
        self._open, self._pattern = open_source, pattern
        files = numbered_files(pattern)
        if not files:
            raise MediaError(f"{pattern}: no file matches")
        self._files, self._rate = list(files.values()), frame_rate
        numbers = list(files)
        self.notices: list[str] = []
        n_missing = numbers[-1] - numbers[0] + 1 - len(numbers)
        if n_missing:
            gap = next(number for number in range(numbers[0], numbers[-1]) if number not in files)
            what = f"{n_missing} have no file, {gap} is the first" if n_missing > 1 else f"{gap} has no file"
            self.notices.append(f"of the numbers {numbers[0]} to {numbers[-1]}, {what}")
        first = self._image(self._files[0])
        self.notices += first.notices
        self.info = MediaInfo(
            **(
                vars(first.info)
                | {
                    "kind": "video",
                    "frame_rate": frame_rate,
                    "n_frames": len(numbers),
                    "duration_s": float(len(numbers) / frame_rate),
                    "container": "image sequence",
                }
            )
        )

    def _image(self, file: Path):
        image = self._open(str(file))
        if image.info.kind != "image":
            image.close()
            raise MediaError(f"{file}: a frame of a sequence has to be a single image")
        return image

    def pictures(self, start_s: Fraction) -> Iterator[tuple[Fraction, Path]]:
        for index, file in enumerate(self._files):
            yield index / self._rate, file

    def shown_s(self, picture: Path) -> Fraction:
        return 1 / self._rate

    def to_rgb(self, picture: Path) -> np.ndarray:
        image = self._image(picture)
        (frame,) = (image.to_rgb(page) for _, page in image.pictures(Fraction(0)))
        image.close()
        if frame.shape != (self.info.height, self.info.width, 3):
            raise MediaError(
                f"{picture}: is {frame.shape[1]}x{frame.shape[0]}, "
                f"but the sequence began with {self.info.width}x{self.info.height}"
            )
        return frame

    def close(self) -> None:
        pass
