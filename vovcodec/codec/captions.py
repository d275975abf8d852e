"""Which caption conditions the model: given, from a file, from a local captioner, or none."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np

from vovcodec.errors import MediaError, UsageError
from vovcodec.progress import ProgressListener

__all__ = ["MAX_CAPTION_BYTES", "check_caption", "require_captioner", "resolve_caption"]

MAX_CAPTION_BYTES = 8192


def require_captioner(option: str | None) -> None:
    """Raises ModelError, saying what to do, where "auto" asks for a captioner and there is none on this machine."""
    if option == "auto":
        from vovcodec.backbone.captioner import find_captioner

        find_captioner()


def resolve_caption(
    option: str | None, frames: Callable[[], np.ndarray], listener: ProgressListener, device: str = "auto"
) -> str:
    """The caption text for an option: None or "none" → empty, "@FILE" → the file's text, "auto" → a local
    vision-language model on `frames()` (uint8 [F, H, W, 3]), run on `device`, anything else → itself.

    Raises UsageError, MediaError (unreadable file), ModelError (no captioner here).
    """
    if option is None or option == "none":
        return ""
    if option == "auto":
        from vovcodec.backbone.captioner import caption_frames

        caption = caption_frames(frames(), device=device)
        listener.note(f"caption: {caption}")
        return caption
    if option.startswith("@"):
        try:
            caption = Path(option[1:]).read_text(encoding="utf-8").strip()
        except (OSError, UnicodeDecodeError) as error:
            reason = getattr(error, "strerror", None) or "it is not UTF-8 text"
            raise MediaError(f"cannot read the caption file {option[1:]}: {reason}") from error
    else:
        caption = option
    return check_caption(caption)


def check_caption(caption: str) -> str:
    """The caption, if a file can hold it. Raises UsageError."""
    try:
        size_bytes = len(caption.encode())
    except UnicodeEncodeError:
        raise UsageError("the caption is not text: it holds bytes that are not UTF-8") from None
    if size_bytes > MAX_CAPTION_BYTES:
        raise UsageError(f"a caption holds at most {MAX_CAPTION_BYTES} bytes, this one has {size_bytes}")
    return caption
