"""How the bytes of a file are best divided between vector and atoms: quality for several shares at several byte counts.

    python -m vovcodec.bench.split --media FOLDER --out FILE.tsv [--clips dog,kodim23] [--bytes 800,1500,3000]
        [--still-bytes 500,1000] [--shares 0,4,10,25,50] [--effort fast] [--bits 2] [--exact] [--frames 33]
        [--threads N]

The fit is that of the effort; the vector has as many entries as get --bits bits each from its share. With --exact each
file is made once more with a vector that is fitted by stage 1 alone, in as many steps as both stages have, and takes
eight bits an entry; the bytes that are more are not counted: the difference is what coding the vector costs.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean

from vovcodec.bench.command import backbone_of, media_parser, media_paths, run
from vovcodec.bench.points import Item, byte_counts, encode_item, names, read_item
from vovcodec.bench.preset_text import setting_path, with_values
from vovcodec.bench.table import Table
from vovcodec.codec.reports import EncodeReport
from vovcodec.errors import UsageError
from vovcodec.presets import Preset, load_preset, preset_path, resolve
from vovcodec.progress import SilentListener

__all__ = ["SplitRow", "main"]

_LEAST_ENTRIES = 32
_MODEL_BYTES = 3


@dataclass(frozen=True)
class SplitRow:
    """One encode. share_percent: of the payload, meant for the vector; the other bytes are what came out.

    psnr_exact_db: of the same atoms bytes (or up to a hundredth more) beside a vector that is as good as not quantised.
    """

    model: str
    item: str
    kind: str
    size: str
    frames: int
    effort: str
    target_bytes: int
    share_percent: float
    vector_length: int
    vector_bytes: int
    atoms_bytes: int
    size_bytes: int
    psnr_db: float
    ssim: float
    evaluations: int
    encode_s: float
    psnr_exact_db: float | None = None


def _measure(
    item: Item, preset: Preset, model: str, target: int, share: float, folder: Path, options: argparse.Namespace
) -> SplitRow:
    entries = max(_LEAST_ENTRIES, round(share / 100 * target * 8 / options.bits)) if share else 0
    path = folder / preset_path(options.preset).name
    text = preset_path(options.preset).read_text(encoding="utf-8")

    def encoded(target_bytes: int, vector_share: float, values: dict[str, int]) -> EncodeReport:
        paths = {setting_path(preset, options.effort, name): value for name, value in values.items()}
        path.write_text(with_values(text, paths), encoding="utf-8")
        return encode_item(
            item,
            folder / "coded.vov",
            SilentListener(),
            preset=path,
            effort=options.effort,
            target_bytes=target_bytes,
            split=(vector_share, 1 - vector_share),
            device=options.device,
            threads=options.threads,
        )

    length = {"adaptation.vector_length": entries}
    report = encoded(target, share / 100, length)
    exact = None
    if options.exact and share:
        fitting = resolve(preset, {}, options.effort).fitting
        stages = {"fitting.stage1.steps": fitting.stage1.steps + fitting.stage2.steps, "fitting.stage2.steps": 0}
        atoms, vector = report.sections["atoms"], entries + _MODEL_BYTES
        overhead = report.size_bytes - atoms - report.sections["vector"]
        exact = encoded(overhead + atoms + vector, vector / (atoms + vector), length | stages)
    return SplitRow(
        model,
        item.name,
        "still" if item.is_still else "clip",
        "{}x{}".format(*item.size),
        len(item.frames),
        options.effort,
        target,
        share,
        entries,
        report.sections.get("vector", 0),
        report.sections.get("atoms", 0),
        report.size_bytes,
        round(report.psnr_db, 3),
        round(report.ssim, 5),
        report.n_network_evaluations,
        round(report.encode_s, 1),
        exact and round(exact.psnr_db, 3),
    )


def _work(options: argparse.Namespace) -> int:
    paths = media_paths(options)
    preset = load_preset(options.preset)
    settings = resolve(preset, {}, options.effort)
    if settings.steering.method != "atoms":
        raise UsageError(f"effort {options.effort} of preset {preset.name} does not steer with atoms")
    model = backbone_of(settings, options.device).fingerprint.hex()
    table = Table(options.out, SplitRow, model=model)
    with tempfile.TemporaryDirectory(prefix="vov-split-") as name:
        for path in paths:
            item = read_item(path, options.preset, options.frames, None)
            for target in options.still_bytes if item.is_still else options.bytes:
                for share in options.shares:
                    key = {"item": item.name, "size": "{}x{}".format(*item.size), "frames": len(item.frames)}
                    key |= {"effort": options.effort, "target_bytes": target, "share_percent": share}
                    if table.having(**key):
                        continue
                    try:
                        row = _measure(item, preset, model, target, share, Path(name), options)
                    except UsageError as error:
                        print(f"{item.name}: {target} bytes, {share:g} %: {error}", file=sys.stderr)
                        continue
                    table.add(row)
                    print(
                        f"{row.item}: {row.size_bytes} B, {share:g} % meant for the vector ({row.vector_bytes} B): "
                        f"{row.psnr_db:.2f} dB, SSIM {row.ssim:.3f}, {row.evaluations} evaluations",
                        file=sys.stderr,
                        flush=True,
                    )
    print(_means(table.rows))
    return 0


def _means(rows: Sequence[SplitRow]) -> str:
    """Per kind and target, the mean gain over no vector at all."""
    lines = []
    for kind, effort, target in sorted({(row.kind, row.effort, row.target_bytes) for row in rows}):
        here = [row for row in rows if (row.kind, row.effort, row.target_bytes) == (kind, effort, target)]
        without = {row.item: row for row in here if row.share_percent == 0}
        for share in sorted({row.share_percent for row in here}):
            pairs = [(row, without[row.item]) for row in here if row.share_percent == share and row.item in without]
            if pairs:
                gain = fmean(row.psnr_db - base.psnr_db for row, base in pairs)
                similarity = fmean(row.ssim - base.ssim for row, base in pairs)
                lines.append(
                    f"{kind} {effort} {target} bytes, {share:g} % vector: {gain:+.2f} dB, SSIM {similarity:+.4f}, "
                    f"{len(pairs)} file{'s' * (len(pairs) > 1)}"
                )
            costs = [
                row.psnr_exact_db - row.psnr_db for row in here if row.share_percent == share and row.psnr_exact_db
            ]
            if costs:
                lines.append(f"  coding the vector costs {fmean(costs):+.2f} dB, at most {max(costs):+.2f}")
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> int:
    """The command; returns its exit code."""
    parser = media_parser("split", "Bytes for the vector against bytes for the atoms.")
    parser.add_argument("--bytes", type=byte_counts, default=[800, 1500, 3000], help="targets for clips")
    parser.add_argument("--still-bytes", type=byte_counts, default=[500, 1000], help="targets for pictures")
    parser.add_argument(
        "--shares", type=lambda text: [float(each) for each in names(text)], default=[0.0, 4.0, 10.0, 25.0, 50.0],
        help="of the vector, in percent",
    )  # fmt: skip
    parser.add_argument("--effort", default="fast", help="of the preset")
    parser.add_argument("--exact", action="store_true", help="also a vector that is as good as not quantised")
    parser.add_argument("--bits", type=float, default=2.0, help="per entry of the vector")
    return run("split", _work, parser.parse_args(arguments))


if __name__ == "__main__":
    sys.exit(main())
