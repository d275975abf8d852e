"""What the commands of this room share: common flags, quiet libraries, the model of a preset, errors to exit codes."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from vovcodec.bench.points import find_items, names
from vovcodec.errors import UsageError, VovError

if TYPE_CHECKING:
    from vovcodec.backbone.protocol import Backbone
    from vovcodec.presets import Preset

__all__ = ["backbone_of", "media_parser", "media_paths", "run"]


def media_parser(module: str, description: str, *, frames: int = 33) -> argparse.ArgumentParser:
    """A parser with the flags of every command that measures a folder of clips and pictures."""
    parser = argparse.ArgumentParser(prog=f"python -m vovcodec.bench.{module}", description=description)
    parser.add_argument("--media", type=Path, help="folder with clips and pictures, searched through")
    parser.add_argument("--out", type=Path, help="the table, TSV; rows that it has already are not measured again")
    parser.add_argument("--clips", type=names, default=[], help="only files whose names contain one of these")
    parser.add_argument("--frames", type=int, default=frames, help="of each clip")
    parser.add_argument("--preset", default="pocket")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--threads", type=int, help="CPU threads")
    return parser


def media_paths(options: argparse.Namespace) -> list[Path]:
    """The files that --media and --clips name. Raises UsageError when there are none, or no --out."""
    if options.media is None or options.out is None:
        raise UsageError("give --media FOLDER and --out FILE.tsv")
    paths = find_items(options.media, options.clips)
    if not paths:
        raise UsageError(f"{options.media}: no clips or pictures of these names in it")
    return paths


def backbone_of(preset: Preset, device: str) -> Backbone:
    """The model that a preset names. Raises ModelError."""
    from vovcodec.backbone.registry import load_backbone

    settings = preset.backbone
    return load_backbone(
        settings.id, path=settings.path, revision=settings.revision, device=device, precision=settings.precision
    )


def run(module: str, work: Callable[[argparse.Namespace], int], options: argparse.Namespace) -> int:
    """`work(options)` with the number of threads asked for; the exit code, also of errors, which are told."""
    # As the command does: libraries neither fetch anything nor draw progress bars of their own.
    for name in ("HF_HUB_OFFLINE", "HF_HUB_DISABLE_PROGRESS_BARS"):
        os.environ.setdefault(name, "1")
    import torch

    if options.threads:
        torch.set_num_threads(options.threads)
    try:
        return work(options)
    except VovError as error:
        print(f"{module}: {error}", file=sys.stderr)
        return error.exit_code
