"""What a picture of the scene gives to clips that stand still: the same clips in the same bytes, with and without.

    python -m vovcodec.bench.scenes --media FOLDER --out FILE.tsv [--clips dog,bottles] [--bytes 400,800,1500,3000]
        [--preset pocket] [--effort instant] [--frames 33] [--threads N]

`picture` counts the injections that are the picture's, of `injections` in all, 0 where the encoder found no scene; such
clips are measured once.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import yaml

from vovcodec.bench.command import backbone_of, media_parser, media_paths, run
from vovcodec.bench.points import Item, byte_counts, encode_item, read_item
from vovcodec.bench.table import Table
from vovcodec.container import read_vov
from vovcodec.presets import load_preset, preset_path, resolve
from vovcodec.progress import SilentListener

__all__ = ["SceneRow", "main"]


@dataclass(frozen=True)
class SceneRow:
    """One encode. model: fingerprint of the weights; scene: whether it may rest on a picture; quality of the decode."""

    model: str
    effort: str
    item: str
    size: str
    frames: int
    target_bytes: int
    scene: bool
    size_bytes: int
    picture: int
    injections: int
    evaluations: int
    psnr_db: float
    ssim: float


@contextmanager
def _preset_without_scenes(name: str) -> Iterator[Path]:
    data = yaml.safe_load(preset_path(name).read_text(encoding="utf-8"))
    data["steering"]["scene"] = False
    with tempfile.TemporaryDirectory(prefix="vov-scenes-") as folder:
        path = Path(folder) / f"{Path(name).stem}.yaml"
        path.write_text(yaml.safe_dump(data), encoding="utf-8")
        yield path


def _row(item: Item, model: str, options: argparse.Namespace, preset: str, target_bytes: int) -> SceneRow:
    with tempfile.TemporaryDirectory(prefix="vov-scenes-") as folder:
        coded = Path(folder) / "coded.vov"
        settings = {"effort": options.effort, "threads": options.threads, "device": options.device}
        report = encode_item(item, coded, SilentListener(), preset=preset, target_bytes=target_bytes, **settings)
        atoms = [segment.atoms for segment in read_vov(coded).segments if segment.atoms]
    return SceneRow(
        model,
        options.effort,
        item.name,
        "{}x{}".format(*item.size),
        len(item.frames),
        target_bytes,
        preset == options.preset,
        report.size_bytes,
        sum(each.scene_injections for each in atoms),
        sum(len(each.counts) for each in atoms),
        report.n_network_evaluations,
        round(report.psnr_db, 3),
        round(report.ssim, 5),
    )


def _work(options: argparse.Namespace) -> int:
    model = backbone_of(resolve(load_preset(options.preset), {}, options.effort), options.device).fingerprint.hex()
    table = Table(options.out, SceneRow, model=model)
    with _preset_without_scenes(options.preset) as plain:
        for path in media_paths(options):
            item = read_item(path, options.preset, options.frames, None)
            for target_bytes in () if item.is_still else options.bytes:
                size = "{}x{}".format(*item.size)
                key = {"effort": options.effort, "item": item.name, "size": size, "frames": len(item.frames)}
                for preset in (options.preset, str(plain)):
                    is_allowed = preset == options.preset
                    found = table.having(target_bytes=target_bytes, scene=is_allowed, **key)
                    if not found:
                        row = _row(item, model, options, preset, target_bytes)
                        table.add(row)
                        which = f"{row.picture} of {row.injections} injections" if is_allowed else "no scenes"
                        print(f"{row.item} {row.size_bytes} B, {which}: {row.psnr_db:.2f} dB, SSIM {row.ssim:.3f}",
                              flush=True)  # fmt: skip
                        found = [row]
                    if is_allowed and not found[0].picture:
                        break
    return 0


def main(arguments: Sequence[str] | None = None) -> int:
    """The command; returns its exit code."""
    parser = media_parser("scenes", "Clips with and without a picture of their scene.")
    parser.add_argument("--bytes", type=byte_counts, default=[400, 800, 1500, 3000], help="targets")
    parser.add_argument("--effort", default="instant")
    return run("scenes", _work, parser.parse_args(arguments))


if __name__ == "__main__":
    sys.exit(main())
