"""What a picture of the scene gives to clips: the same clips in the same bytes, with and without.

    python -m vovcodec.bench.scenes --media FOLDER --out FILE.tsv [--clips dog,bottles] [--bytes 400,800,1500,3000]
        [--preset pocket] [--effort instant] [--frames 33] [--threads N]

scenes: `joined` is what the encoder does; `apart` the same without joining segments that show one scene, measured
where it does; `none` without pictures, measured where it takes one. `picture` counts the injections that are the
pictures', of `injections` in all.
"""

from __future__ import annotations

import argparse
import functools
import math
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
    """One encode. model: fingerprint of the weights; scenes: see above; quality of the decode."""

    model: str
    effort: str
    item: str
    size: str
    frames: int
    target_bytes: int
    scenes: str
    size_bytes: int
    segments: int
    picture: int
    injections: int
    evaluations: int
    psnr_db: float
    ssim: float


_CHANGES = {
    "joined": {},
    "apart": {"geometry": {"scene_frames": 1}},
    "none": {"steering": {"scene": False}},
}


@contextmanager
def _presets(name: str) -> Iterator[dict[str, Path]]:
    """The preset in each of its three ways."""
    text = preset_path(name).read_text(encoding="utf-8")
    with tempfile.TemporaryDirectory(prefix="vov-scenes-") as folder:
        paths = {}
        for scenes, changes in _CHANGES.items():
            data = yaml.safe_load(text)
            for group, values in changes.items():
                data[group] = data.get(group, {}) | values
            paths[scenes] = Path(folder) / scenes / f"{Path(name).stem}.yaml"
            paths[scenes].parent.mkdir()
            paths[scenes].write_text(yaml.safe_dump(data), encoding="utf-8")
        yield paths


def _row(item: Item, model: str, options: argparse.Namespace, preset: Path, scenes: str, target_bytes: int) -> SceneRow:
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
        scenes,
        report.size_bytes,
        report.segments,
        sum(each.scene_injections for each in atoms),
        sum(len(each.counts) for each in atoms),
        report.n_network_evaluations,
        round(report.psnr_db, 3),
        round(report.ssim, 5),
    )


def _measured(
    table: Table[SceneRow],
    item: Item,
    model: str,
    options: argparse.Namespace,
    presets: dict[str, Path],
    scenes: str,
    target_bytes: int,
) -> SceneRow:
    """The row, from the table where it has been measured."""
    size = "{}x{}".format(*item.size)
    found = table.having(
        effort=options.effort,
        item=item.name,
        size=size,
        frames=len(item.frames),
        target_bytes=target_bytes,
        scenes=scenes,
    )
    if found:
        return found[0]
    row = _row(item, model, options, presets[scenes], scenes, target_bytes)
    table.add(row)
    what = f"{row.segments} segment(s), {row.picture} of {row.injections} injections"
    print(f"{row.item} {row.size_bytes} B, {scenes}: {what}: {row.psnr_db:.2f} dB, SSIM {row.ssim:.3f}", flush=True)
    return row


def _others(first: SceneRow, segment_frames: int) -> list[str]:
    """What else to measure where the encoder did this."""
    apart = ["apart"] if first.segments < math.ceil(first.frames / segment_frames) else []
    return [*apart, "none"] if first.picture else apart


def _work(options: argparse.Namespace) -> int:
    preset = resolve(load_preset(options.preset), {}, options.effort)
    model = backbone_of(preset, options.device).fingerprint.hex()
    table = Table(options.out, SceneRow, model=model)
    with _presets(options.preset) as presets:
        for path in media_paths(options):
            item = read_item(path, options.preset, options.frames, None)
            for target_bytes in () if item.is_still else options.bytes:
                measure = functools.partial(_measured, table, item, model, options, presets)
                for scenes in _others(measure("joined", target_bytes), preset.geometry.segment_frames):
                    measure(scenes, target_bytes)
    return 0


def main(arguments: Sequence[str] | None = None) -> int:
    """The command; returns its exit code."""
    parser = media_parser("scenes", "Clips with and without a picture of their scene.")
    parser.add_argument("--bytes", type=byte_counts, default=[400, 800, 1500, 3000], help="targets")
    parser.add_argument("--effort", default="instant")
    return run("scenes", _work, parser.parse_args(arguments))


if __name__ == "__main__":
    sys.exit(main())
