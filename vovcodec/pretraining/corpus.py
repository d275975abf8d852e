"""Reads a folder of photographs and clips into memory for pre-training.

Layout of the folder (every part optional):

    captions.tsv          file name relative to the folder, TAB, caption
    images/*.jpg|png      photographs
    clips/*.mp4|mkv|webm  single-shot clips
    *.zip                 JPEG/PNG photographs, `captions.tsv` inside maps class folder or file to caption

Everything is kept as uint8 RGB. A fixed fraction, chosen by a hash of the file name, is held out for validation,
so that the split never depends on the order of files or on a seed.
"""

from __future__ import annotations

import hashlib
import io
import zipfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from vovcodec.errors import MediaError

__all__ = ["Corpus", "Item", "load_corpus"]

IMAGE_SUFFIXES = {".jpg", ".jpeg", ".png", ".webp"}
CLIP_SUFFIXES = {".mp4", ".mkv", ".webm", ".mov"}


@dataclass(frozen=True)
class Item:
    """One photograph (F = 1) or clip: `frames` uint8 [F, H, W, 3], its caption and the name it came from."""

    name: str
    frames: np.ndarray
    caption: str


@dataclass(frozen=True)
class Corpus:
    """The training and held-out items, photographs and clips apart."""

    images: list[Item]
    clips: list[Item]
    held_out_images: list[Item]
    held_out_clips: list[Item]

    def held_out(self) -> Corpus:
        """What to validate on, as a corpus of its own; the training items where there are too few to hold any out."""
        images, clips = self.held_out_images, self.held_out_clips
        return Corpus(images, clips, [], []) if images or clips else Corpus(self.images, self.clips, [], [])

    def summary(self) -> str:
        """One line for logs and the model card."""
        n_frames = sum(len(c.frames) for c in self.clips)
        return (
            f"{len(self.images)} photographs and {len(self.clips)} clips ({n_frames} frames) for training, "
            f"{len(self.held_out_images)} photographs and {len(self.held_out_clips)} clips held out"
        )


def _held_out(name: str, fraction: float) -> bool:
    """A file is held out when the first 32 bits of the SHA-256 of its name fall below `fraction`."""
    return int.from_bytes(hashlib.sha256(name.encode()).digest()[:4], "big") < fraction * 2**32


def _read_captions(text: str) -> dict[str, str]:
    pairs = (line.rstrip("\n").split("\t", 1) for line in text.splitlines() if "\t" in line)
    return {name: caption.strip() for name, caption in pairs}


def _image_frames(stream) -> np.ndarray:
    from PIL import Image

    try:
        return np.asarray(Image.open(stream).convert("RGB"))[None]
    except (OSError, ValueError, SyntaxError) as error:
        raise MediaError(f"cannot read a photograph of the corpus: {error}") from error


def _clip_frames(path: Path, max_frames: int) -> np.ndarray:
    import av

    frames = []
    try:
        with av.open(str(path)) as container:
            for frame in container.decode(video=0):
                frames.append(frame.to_ndarray(format="rgb24"))
                if len(frames) == max_frames:
                    break
    except (av.FFmpegError, IndexError) as error:
        raise MediaError(f"cannot read {path}: {error}") from error
    if not frames:
        raise MediaError(f"{path} holds no frames")
    return np.stack(frames)


def load_corpus(folder: Path, *, held_out_fraction: float = 0.03, max_clip_frames: int = 300) -> Corpus:
    """Read `folder` as described in the module's docstring.

    Clips use a held-out fraction three times as large, because there are few of them.
    Raises MediaError when the folder holds too few photographs and clips, or one that cannot be read.
    """
    folder = Path(folder)
    table = folder / "captions.tsv"
    captions = _read_captions(table.read_text(encoding="utf-8")) if table.is_file() else {}
    images: list[Item] = []
    clips: list[Item] = []
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        if path.suffix.lower() in IMAGE_SUFFIXES:
            images.append(Item(name, _image_frames(path), captions.get(name, "")))
        elif path.suffix.lower() in CLIP_SUFFIXES:
            clips.append(Item(name, _clip_frames(path, max_clip_frames), captions.get(name, "")))
        elif path.suffix.lower() == ".zip":
            with zipfile.ZipFile(path) as archive:
                members = sorted(archive.namelist())
                inner = next((m for m in members if m.endswith("captions.tsv")), None)
                labels = _read_captions(archive.read(inner).decode("utf-8")) if inner else {}
                for member in members:
                    if Path(member).suffix.lower() not in IMAGE_SUFFIXES:
                        continue
                    caption = labels.get(member) or labels.get(Path(member).parent.name, "")
                    images.append(Item(f"{name}/{member}", _image_frames(io.BytesIO(archive.read(member))), caption))
    if not images and not clips:
        raise MediaError(f"{folder} holds no photographs or clips to train on")

    def split(items: list[Item], fraction: float) -> tuple[list[Item], list[Item]]:
        return [i for i in items if not _held_out(i.name, fraction)], [i for i in items if _held_out(i.name, fraction)]

    train_images, held_images = split(images, held_out_fraction)
    train_clips, held_clips = split(clips, 3 * held_out_fraction)
    if not train_images and not train_clips:
        raise MediaError(f"{folder} holds too few photographs and clips: all are held out for validation")
    return Corpus(train_images, train_clips, held_images, held_clips)
