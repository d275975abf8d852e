"""One measured point of one codec on one clip or picture, and the table they make."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from vovcodec.anchors import Coded, RateSearch
from vovcodec.codec.options import EncodeOptions
from vovcodec.codec.reports import EncodeReport
from vovcodec.evaluation.pictures import read_media, read_pictures, resized
from vovcodec.media import coded_size, probe
from vovcodec.metrics import ms_ssim, psnr, ssim
from vovcodec.presets import load_preset, resolve
from vovcodec.progress import ProgressListener

__all__ = [
    "Item",
    "Point",
    "anchor_points",
    "byte_counts",
    "encode_item",
    "find_items",
    "names",
    "our_point",
    "point_of",
    "read_item",
]

_VIDEO = {".mp4", ".mkv", ".webm", ".mov", ".avi", ".y4m"}
_STILL = {".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff"}


@dataclass(frozen=True)
class Item:
    """A clip or picture at the size at which all codecs code it; frames uint8 [F, H, W, 3]."""

    name: str
    path: Path
    is_still: bool
    frames: np.ndarray

    @property
    def size(self) -> tuple[int, int]:
        """(width, height) in pixels."""
        return self.frames.shape[2], self.frames.shape[1]


@dataclass(frozen=True)
class Point:
    """One row of the table.

    codec: `vov EFFORT`, the anchor's title or a way to steer. setting: quality of the anchor. target_bytes: what it was
    to stay within; None for a floor. size_bytes: what is compared: our whole file, the anchor's payload, the choices of
    a way to steer. file_bytes: the whole file.
    encode_s: seconds, ours with decoding the vector's check included; None for anchors, which are searched for.
    """

    item: str
    kind: str
    size: str
    frames: int
    codec: str
    setting: str
    target_bytes: int | None
    size_bytes: int
    file_bytes: int | None
    psnr_db: float
    ssim: float
    ms_ssim: float
    encode_s: float | None = None
    evaluations: int | None = None

    @property
    def is_of_a_codec(self) -> bool:
        """Ours or another codec's, not that of a way to steer on its own."""
        return self.codec.startswith("vov ") or self.evaluations is None


def find_items(folder: Path, names: Iterable[str] = ()) -> list[Path]:
    """Clips, then pictures, below a folder, by name; where `names` are given, only files whose name contains one."""
    wanted = list(names)
    found = [path for path in sorted(folder.rglob("*")) if path.suffix.lower() in _VIDEO | _STILL]
    found = [path for path in found if not wanted or any(name in path.name for name in wanted)]
    return sorted(found, key=lambda path: path.suffix.lower() in _STILL)


def read_item(path: Path, preset: str, n_frames: int, short_side: int | None) -> Item:
    """The first frames of a file at the coded size that the preset (or another short side) chooses."""
    geometry = resolve(load_preset(preset), {}, None).geometry
    info = probe(path)
    width, height = coded_size(
        info.width, info.height, short_side=short_side or geometry.short_side, multiple=geometry.multiple
    )
    is_still = info.kind == "image"
    frames = read_media(path, n_frames=1 if is_still else n_frames).frames
    return Item(path.stem, path, is_still, resized(frames, (width, height)))


def encode_item(item: Item, target: Path, listener: ProgressListener, **options: Any) -> EncodeReport:
    """What `vov encode` makes of a file, with further fields of EncodeOptions; nothing is resumed. Raises what it does.

    Quality in the report is that of the decoded frames.
    """
    from vovcodec.codec.encode import encode

    n_frames = None if item.is_still else len(item.frames)
    settings = EncodeOptions(size=item.size, n_frames=n_frames, audio="none", resume=False, overwrite=True, **options)
    return encode(item.path, target, settings, listener)


def our_point(
    item: Item, preset: str, effort: str, target_bytes: int, listener: ProgressListener, threads: int | None = None
) -> Point:
    """Encodes to a file and decodes that file, through the functions that `vov encode` and `vov decode` call.

    Raises UsageError where the target cannot be reached.
    """
    with tempfile.TemporaryDirectory(prefix="vov-bench-") as folder:
        target = Path(folder) / "coded.vov"
        started = time.perf_counter()
        report = encode_item(
            item, target, listener, preset=preset, effort=effort, target_bytes=target_bytes, threads=threads
        )
        encode_s = time.perf_counter() - started
        decoded = read_pictures(target, listener, threads=threads)
    assert decoded.size_bytes == report.size_bytes
    size_bytes, spent = report.size_bytes, report.n_network_evaluations
    return point_of(item, f"vov {effort}", "", target_bytes, size_bytes, size_bytes, decoded.frames, encode_s, spent)


def anchor_points(item: Item, search: RateSearch, budgets: Iterable[int]) -> list[Point]:
    """The anchor's floor, its best within each budget that it can meet and the next one above that, fewest bytes first,
    none twice. The ones above, which have no target, let its curve be read at the budget itself."""
    floor = search.floor()
    found: dict[float, tuple[int | None, Coded]] = {floor.quality: (None, floor)}
    for budget in sorted(set(budgets)):
        coded = search.within(budget)
        if coded is None:
            continue
        found.setdefault(coded.quality, (budget, coded))
        above = search.next_above(budget)
        if above is not None and coded.payload_bytes < budget:
            found.setdefault(above.quality, (None, above))
    points = []
    for budget, coded in sorted(found.values(), key=lambda each: each[1].payload_bytes):
        anchor = search.anchor
        setting = f"{anchor.scale} {coded.quality:g}" + (" (floor)" if coded is floor else "")
        frames = coded.decode()
        points.append(point_of(item, anchor.title, setting, budget, coded.payload_bytes, coded.file_bytes, frames))
    return points


def point_of(
    item: Item,
    codec: str,
    setting: str,
    target_bytes: int | None,
    size_bytes: int,
    file_bytes: int | None,
    decoded: np.ndarray,
    encode_s: float | None = None,
    evaluations: int | None = None,
) -> Point:
    """The row of what a codec made of an item; decoded: uint8 frames as those of the item."""
    return Point(
        item=item.name,
        kind="still" if item.is_still else "clip",
        size="{}x{}".format(*item.size),
        frames=len(item.frames),
        codec=codec,
        setting=setting,
        target_bytes=target_bytes,
        size_bytes=size_bytes,
        file_bytes=file_bytes,
        psnr_db=round(psnr(item.frames, decoded), 3),
        ssim=round(ssim(item.frames, decoded), 5),
        ms_ssim=round(ms_ssim(item.frames, decoded), 5),
        encode_s=None if encode_s is None else round(encode_s, 1),
        evaluations=evaluations,
    )


def names(text: str) -> list[str]:
    """`a,b` on a command line → ["a", "b"]."""
    return [each.strip() for each in text.split(",") if each.strip()]


def byte_counts(text: str) -> list[int]:
    """`400,800` on a command line → [400, 800]."""
    return [int(each) for each in names(text)]
