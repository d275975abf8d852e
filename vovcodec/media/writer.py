"""Which writer a target means: by extension, by `container`, or by '-' for standard output."""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import suppress
from fractions import Fraction
from pathlib import Path
from typing import BinaryIO, Protocol

import numpy as np

from vovcodec.container.audio import AudioTrack
from vovcodec.errors import MediaError, UsageError
from vovcodec.media import colour
from vovcodec.media.faults import explained
from vovcodec.media.output import FileOutput, FolderOutput, StreamOutput, open_output
from vovcodec.media.sequence import is_pattern

__all__ = ["CLIP_CONTAINERS", "IMAGE_CONTAINERS", "FrameWriter", "open_writer"]

CLIP_CONTAINERS = ("mp4", "m4v", "mov", "mkv", "webm", "avi", "gif", "y4m")
IMAGE_CONTAINERS = ("png", "jpg", "jpeg", "webp", "bmp", "tif", "tiff", "avif")


class Encoder(Protocol):
    """What a FrameWriter drives. Errors of PyAV, Pillow and the system may pass; the FrameWriter explains them."""

    notices: list[str]

    def add(self, frame: np.ndarray) -> None:
        """Appends a uint8 [H, W, 3] frame of the right size."""

    def finish(self) -> None:
        """Writes everything that is left. Called once, after at least one frame."""

    def release(self) -> None:
        """Gives up: closes files so that they can be removed."""


class FrameWriter:
    """Takes upright RGB uint8 [H, W, 3] frames. A context manager: closes at the end, aborts on an exception."""

    def __init__(self, encoder: Encoder, output: FileOutput | FolderOutput | StreamOutput, width: int, height: int):
        self._encoder, self._output, self._shape = encoder, output, (height, width, 3)
        self.notices = encoder.notices
        self.n_written, self._is_open = 0, True

    def write(self, frame: np.ndarray) -> None:
        """Appends one frame. Raises UsageError for a wrong shape or dtype, MediaError when it cannot be written."""
        if frame.dtype != np.uint8 or frame.shape != self._shape:
            raise UsageError(f"expected a uint8 frame {list(self._shape)}, not {frame.dtype} {list(frame.shape)}")
        with explained(self._output.name):
            self._encoder.add(frame)
        self.n_written += 1

    def close(self) -> None:
        """Completes the output and gives it its name. Raises MediaError; no half file is left behind then."""
        if not self._is_open:
            return
        try:
            with explained(self._output.name):
                if not self.n_written:
                    raise MediaError(f"{self._output.name}: there was no frame to write")
                self._encoder.finish()
                self._output.commit()
        except BaseException:
            self.abort()
            raise
        self._is_open = False

    def abort(self) -> None:
        """Removes whatever was written to disk. Does nothing after `close`."""
        if not self._is_open:
            return
        self._is_open = False
        with suppress(Exception):  # the file is thrown away; what closing it complains about does not matter
            self._encoder.release()
        self._output.discard()

    def __enter__(self) -> FrameWriter:
        return self

    def __exit__(self, exc_type: type | None, *exc_info: object) -> None:
        self.abort() if exc_type else self.close()


def open_writer(
    target: str | os.PathLike | BinaryIO,
    *,
    width: int,
    height: int,
    frame_rate: Fraction,
    sample_aspect: Fraction | None = None,
    colour_matrix: int = colour.UNSPECIFIED,
    colour_primaries: int = colour.UNSPECIFIED,
    colour_transfer: int = colour.UNSPECIFIED,
    container: str | None = None,
    quality: int | None = None,
    overwrite: bool = False,
    sound: AudioTrack | None = None,
    n_frames: int | None = None,
) -> FrameWriter:
    """Opens an output for frames of width × height.

    target          path, `frames/%05d.png` (numbers start at 1), '-' for standard output (y4m, or png for an image),
                    or a binary file object
    frame_rate      frames per second, exact; 0 for an image
    sample_aspect   width of a pixel over its height
    colour_*        H.273 code points of the frames; the matrix is applied and tagged (limited range). Unspecified:
                    BT.709 primaries and transfer, matrix by `colour.default_matrix`
    container       instead of the extension: one of CLIP_CONTAINERS or IMAGE_CONTAINERS
    quality         the encoder's own scale: CRF for mp4, mov, mkv, webm (lower is better); 1…100 for jpg, webp, avif
    overwrite       False: an existing output raises OutputExistsError
    sound           plays from the first frame on; a notice tells where the output cannot hold it
    n_frames        how many will come, if known: a single one of a video fits into an image

    Raises UsageError (what the target cannot hold), OutputExistsError, MediaError.
    """
    if frame_rate < 0:
        raise UsageError("writing needs a frame rate above 0, or 0 for an image")
    if width < 1 or height < 1:
        raise UsageError(f"frames have to be at least 1x1, not {width}x{height}")
    is_path = not hasattr(target, "write")
    name = str(os.fspath(target) if is_path else getattr(target, "name", "output stream"))
    kind = _container_of(name, container, is_image=frame_rate == 0, is_path=is_path)
    if kind in IMAGE_CONTAINERS:
        from vovcodec.media.still_encoder import StillEncoder, open_sequence

        if is_path and is_pattern(name):
            writer = FrameWriter(*open_sequence(name, kind, quality, overwrite), width, height)
            writer.notices += _without_sound(kind, sound)
            return writer
        if frame_rate and n_frames != 1:
            raise UsageError(_several_frames_in_an_image(name, kind))
        return _writer(target, overwrite, width, height, lambda output: StillEncoder(output, kind, quality))
    if not frame_rate:
        raise UsageError(f"{name}: an image cannot be written as .{kind}; use .png, .jpg, .webp, .bmp, .tiff or .avif")
    frame_rate, sample_aspect = Fraction(frame_rate), Fraction(sample_aspect or 1)
    if kind == "y4m":
        from vovcodec.media.y4m_encoder import Y4mEncoder

        writer = _writer(
            target, overwrite, width, height,
            lambda output: Y4mEncoder(output, width, height, frame_rate, sample_aspect),
        )  # fmt: skip
        writer.notices += _without_sound(kind, sound)
        return writer
    from vovcodec.media.clip_encoder import ClipEncoder

    tags = (colour_matrix, colour_primaries, colour_transfer)
    return _writer(
        target, overwrite, width, height,
        lambda output: ClipEncoder(output, kind, width, height, frame_rate, sample_aspect, tags, quality, sound),
    )  # fmt: skip


def _without_sound(kind: str, sound: AudioTrack | None) -> list[str]:
    if sound is None:
        return []
    from vovcodec.media.clip_encoder import no_sound_in

    return [no_sound_in(kind, sound.codec)]


def _writer(
    target: str | os.PathLike | BinaryIO,
    overwrite: bool,
    width: int,
    height: int,
    encoder_for: Callable[[FileOutput | StreamOutput], Encoder],
) -> FrameWriter:
    output = open_output(target, overwrite)
    try:
        with explained(output.name):
            return FrameWriter(encoder_for(output), output, width, height)
    except BaseException:
        output.discard()
        raise


def _container_of(name: str, container: str | None, is_image: bool, is_path: bool) -> str:
    known = CLIP_CONTAINERS + IMAGE_CONTAINERS
    if container is not None:
        kind = container.lower().lstrip(".")
        if kind not in known:
            raise UsageError(f"unknown container {container!r}; known: {', '.join(known)}")
        return kind
    if name == "-" or not is_path:
        return "png" if is_image else "y4m"
    kind = Path(name).suffix.lower().lstrip(".")
    if kind in known:
        return kind
    reason = f"cannot write .{kind} files" if kind else "the name has no extension that says what to write"
    raise UsageError(f"{name}: {reason}; known: {', '.join(known)}")


def _several_frames_in_an_image(name: str, kind: str) -> str:
    pattern = f"{Path(name).stem}-%05d.{kind}" if name != "-" else f"%05d.{kind}"
    folder = "" if str(Path(name).parent) == "." else f"{Path(name).parent}/"
    return f"{name}: a video does not fit into one image; write a numbered sequence such as {folder}{pattern}"
