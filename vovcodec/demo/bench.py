"""`make bench MEDIA="…"`: bytes, quality, time and memory of each file, as TSV on standard output and in a file.

    python -m vovcodec.demo.bench FILE… [-o FOLDER] [--effort instant,fast] [--bytes 800 1500] [--frames 33]
        [--size WxH]

Quality is measured on losslessly written frames at coded size, against the source resized to it.
"""

from __future__ import annotations

import argparse
import itertools
import sys
from pathlib import Path
from typing import Any

from vovcodec.demo.__main__ import write_sheet
from vovcodec.demo.measure import compare, read_frames, run_vov
from vovcodec.errors import VovError
from vovcodec.media import probe

__all__ = ["COLUMNS", "main", "measure"]

COLUMNS = (
    "file", "effort", "coded_size", "frames", "bytes", "bpp", "psnr_db", "ssim",
    "encode_s", "decode_s", "encode_peak_mb", "decode_peak_mb", "evaluations",
)  # fmt: skip


def measure(source: Path, folder: Path, label: str, encode_arguments: list[str]) -> dict[str, Any]:
    """Encodes and decodes one file and returns a row of `COLUMNS`; files go to FOLDER/NAME-LABEL/.

    Times are seconds of wall clock of the whole command; memory is the peak in MB (10^6 bytes).
    """
    home = folder / f"{source.stem}{label}"
    home.mkdir(parents=True, exist_ok=True)
    for stale in home.glob("frame*.png"):
        stale.unlink()
    coded = home / "coded.vov"
    decoded = home / ("frame.png" if probe(source).kind == "image" else "frame%05d.png")
    encoded = run_vov("encode", str(source), "-o", str(coded), "-y", "-q", *encode_arguments)
    drawn = run_vov("decode", str(coded), "-o", str(decoded), "-y", "-q", "--size", "coded")

    distorted = read_frames(decoded)
    reference = read_frames(source, len(distorted))
    psnr_db, similarity = compare(reference, distorted)
    size_bytes = coded.stat().st_size
    quality = f"{size_bytes} bytes, {psnr_db:.2f} dB, SSIM {similarity:.3f}"
    write_sheet(home / "sheet.png", (reference, "source"), (distorted, quality))
    n_frames, height, width = reference.shape[:3]
    cells = (
        source.name,
        encoded["effort"],
        "{1}x{0}".format(*distorted.shape[1:3]),
        n_frames,
        size_bytes,
        f"{8 * size_bytes / (n_frames * height * width):.5f}",
        f"{psnr_db:.2f}",
        f"{similarity:.4f}",
        f"{encoded['wall_s']:.1f}",
        f"{drawn['wall_s']:.1f}",
        round(encoded["peak_memory_bytes"] / 1e6),
        round(drawn["peak_memory_bytes"] / 1e6),
        encoded["n_network_evaluations"],
    )
    return dict(zip(COLUMNS, cells, strict=True))


def main(arguments: list[str] | None = None) -> int:
    """The command; returns its exit code: 0, or that of the last file that failed."""
    parser = argparse.ArgumentParser(prog="python -m vovcodec.demo.bench", description="Measure encode and decode.")
    parser.add_argument("media", nargs="+", type=Path, metavar="FILE", help="videos and images")
    parser.add_argument("-o", "--output", type=Path, default=Path("runs/bench"), help="folder for files and bench.tsv")
    parser.add_argument("--preset", default="pocket")
    parser.add_argument("--effort", type=lambda text: text.split(","), default=["fast"], help="one or several: A,B")
    parser.add_argument("--bytes", nargs="+", default=[None], metavar="N", help="targets; one row each")
    parser.add_argument("--frames", help="at most so many frames")
    parser.add_argument("--size", help="coded size, WxH")
    options = parser.parse_args(arguments)
    common = ["--preset", options.preset]
    for flag in ("frames", "size"):
        if getattr(options, flag):
            common += [f"--{flag}", getattr(options, flag)]

    options.output.mkdir(parents=True, exist_ok=True)
    code = 0
    with (options.output / "bench.tsv").open("w", encoding="utf-8") as table:
        _tell(table, COLUMNS)
        for source in options.media:
            for effort, target in itertools.product(options.effort, options.bytes):
                label = f"-{effort}" + (f"-{target}" if target else "")
                settings = [*common, "--effort", effort, *(["--bytes", target] if target else [])]
                try:
                    row = measure(source, options.output, label, settings)
                except VovError as error:
                    print(f"bench: {source}: {error}", file=sys.stderr)
                    code = error.exit_code
                    continue
                _tell(table, row.values())
    return code


def _tell(table: Any, cells: Any) -> None:
    line = "\t".join(map(str, cells))
    print(line, flush=True)
    print(line, file=table, flush=True)


if __name__ == "__main__":
    sys.exit(main())
