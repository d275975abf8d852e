"""`make demo`: encode a clip, look into the file, decode it, and show what it cost and what is left.

python -m vovcodec.demo [-o FOLDER] [--effort fast] [--preset pocket] [--bytes N]
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import numpy as np
from PIL import Image

from vovcodec.demo.clip import write_clip
from vovcodec.demo.measure import compare, read_frames, run_vov
from vovcodec.errors import VovError
from vovcodec.media import contact_sheet

__all__ = ["demonstrate", "main", "write_sheet"]

_N_COLUMNS = 4


def demonstrate(folder: Path, encode_arguments: list[str]) -> None:
    """Writes source.mp4, clip.vov, decoded.mp4, realism.mp4 and sheet.png into `folder` and prints the figures."""
    folder.mkdir(parents=True, exist_ok=True)
    source, coded = folder / "source.mp4", folder / "clip.vov"
    decoded, realistic = folder / "decoded.mp4", folder / "realism.mp4"
    write_clip(source)
    encoded = _show_and_run("encode", str(source), "-o", str(coded), "-y", *encode_arguments)
    info = _show_and_run("info", str(coded), "--check")
    drawn = _show_and_run("decode", str(coded), "-o", str(decoded), "-y")
    _show_and_run("decode", str(coded), "-o", str(realistic), "--realism", "0.5", "-y")

    reference, distorted, sampled = (read_frames(path) for path in (source, decoded, realistic))
    psnr_db, similarity = compare(reference, distorted)
    size_bytes = coded.stat().st_size
    sheet = folder / "sheet.png"
    sampled_db, sampled_similarity = compare(reference, sampled)
    write_sheet(
        sheet,
        (reference, "source"),
        (distorted, f"decoded from {size_bytes} bytes, {psnr_db:.1f} dB, SSIM {similarity:.3f}"),
        (sampled, f"the same file, --realism 0.5, {sampled_db:.1f} dB, SSIM {sampled_similarity:.3f}"),
    )

    n_frames, height, width = reference.shape[:3]
    figures = {
        "source": f"{width}x{height}, {n_frames} frames",
        "file": f"{size_bytes} bytes, {8 * size_bytes / (n_frames * height * width):.5f} bits per pixel",
        "of that": ", ".join(f"{name} {size}" for name, size in encoded["sections"].items()),
        "checked": ", ".join(f"{name} {count}" for name, count in info["check"].items()),
        "coded size": "{}x{}: PSNR {:.2f} dB, SSIM {:.4f}".format(
            *encoded["coded_size"], encoded["psnr_db"], encoded["ssim"]
        ),
        "source size": f"{width}x{height}: PSNR {psnr_db:.2f} dB, SSIM {similarity:.4f}",
        "encode": f"{encoded['wall_s']:.1f} s, {encoded['peak_memory_bytes'] / 1e9:.2f} GB",
        "decode": f"{drawn['wall_s']:.1f} s, {drawn['peak_memory_bytes'] / 1e9:.2f} GB",
        "look at": f"{sheet}, {decoded}",
    }
    print("\n".join(f"{name:<12} {text}" for name, text in figures.items()))


def write_sheet(path: Path, *clips: tuple[np.ndarray, str]) -> None:
    """A PNG with frames of clips of one length below each other, evenly spread over time; each with its label.

    Frames uint8 [F, H, W, 3].
    """
    n_frames = len(clips[0][0])
    shown = np.linspace(0, n_frames - 1, min(_N_COLUMNS, n_frames)).round().astype(int)
    Image.fromarray(contact_sheet([frames[shown] for frames, _ in clips], [label for _, label in clips])).save(path)


def main(arguments: list[str] | None = None) -> int:
    """The command; returns its exit code."""
    parser = argparse.ArgumentParser(prog="python -m vovcodec.demo", description="Encode and decode a clip.")
    parser.add_argument("-o", "--output", type=Path, default=Path("demo"), help="folder for the results")
    parser.add_argument("--effort", default="fast")
    parser.add_argument("--preset", default="pocket")
    parser.add_argument("--bytes", help="target size of the file")
    options = parser.parse_args(arguments)
    encode_arguments = ["--preset", options.preset, "--effort", options.effort]
    if options.bytes:
        encode_arguments += ["--bytes", options.bytes]
    try:
        demonstrate(options.output, encode_arguments)
    except VovError as error:
        print(f"demo: {error}", file=sys.stderr)
        return error.exit_code
    return 0


def _show_and_run(*arguments: str) -> dict:
    print(f"$ vov {' '.join(arguments)}", flush=True)
    return run_vov(*arguments)


if __name__ == "__main__":
    sys.exit(main())
