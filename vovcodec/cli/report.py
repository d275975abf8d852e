"""Results on standard output: aligned text for people, JSON for programs."""

from __future__ import annotations

import contextlib
import json
import math
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from fractions import Fraction
from pathlib import Path
from typing import Any, TextIO

from vovcodec.cli.arguments import Running

__all__ = ["format_mapping", "format_report", "format_table", "print_report", "to_plain"]

# Human words and units for report fields; a field that is not here is shown under its own name.
_LABELS = {
    "size_bytes": ("size", "{:,} bytes"),
    "psnr_db": ("PSNR", "{:.2f} dB"),
    "worst_psnr_db": ("PSNR of the worst segment", "{:.2f} dB"),
    "ssim": ("SSIM", "{:.4f}"),
    "bpp": ("bits per pixel", "{:.5f}"),
    "n_frames": ("frames", "{}"),
    "n_network_evaluations": ("network evaluations", "{:,}"),
    "tflop_per_evaluation": ("each about", "{:.3g} TFLOP"),
    "encode_s": ("encode time", "{:.1f} s"),
    "decode_s": ("decode time", "{:.1f} s"),
    "scale_s": ("scale time", "{:.1f} s"),
    "verify_psnr_db": ("PSNR at the encoder", "{:.2f} dB"),
    "drift_db": ("drift", "{:.2f} dB"),
}


def print_report(report: Any, running: Running, *, data_on_stdout: bool) -> None:
    """Prints a report dataclass on standard output.

    When the data itself went there, the report goes to standard error, unless that is to be quiet.
    """
    if data_on_stdout and running.quiet:
        return
    stream: TextIO = sys.stderr if data_on_stdout else sys.stdout
    content = asdict(report)
    if running.as_json:
        text = json.dumps(to_plain(content))
    else:
        text = format_report(content)
    # A log that nobody reads or whose disk is full does not make the data on standard output any worse.
    with contextlib.suppress(OSError) if data_on_stdout else contextlib.nullcontext():
        print(text, file=stream, flush=True)


def format_report(content: Mapping[str, Any], indent: str = "") -> str:
    """The fields of a report in words and units, one per line; empty ones are left out."""
    return format_mapping(dict(_human(name, value) for name, value in content.items() if _is_shown(value)), indent)


def to_plain(value: Any) -> Any:
    """JSON-ready data: fractions as `30000/1001`, bytes as hex, paths as text, tuples as lists, infinity as `inf`."""
    if isinstance(value, Mapping):
        return {str(key): to_plain(each) for key, each in value.items()}
    if isinstance(value, (list, tuple)):
        return [to_plain(each) for each in value]
    if isinstance(value, (bytes, bytearray)):
        return bytes(value).hex()
    if isinstance(value, (Fraction, Path)):
        return str(value)
    if hasattr(value, "item"):  # a numpy scalar
        value = value.item()
    if isinstance(value, float) and not math.isfinite(value):  # JSON has no word for it
        return str(value)
    return value


def format_mapping(content: Mapping[str, Any], indent: str = "") -> str:
    """`key  value` lines with the values aligned; nested mappings and lists of mappings are indented."""
    lines: list[str] = []
    width = max((len(str(key)) for key, value in content.items() if not _is_nested(value)), default=0)
    for key, value in content.items():
        if isinstance(value, Mapping):
            lines += [f"{indent}{key}", format_mapping(value, indent + "  ")]
        elif _is_nested(value):
            for number, each in enumerate(value):
                lines += [f"{indent}{key} {number}", format_mapping(each, indent + "  ")]
        else:
            lines.append(f"{indent}{key!s:<{width}}  {_text(value)}".rstrip())
    return "\n".join(line for line in lines if line)


def format_table(header: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    """Columns aligned: numbers to the right, the rest to the left."""
    body = [[_text(cell) for cell in row] for row in rows]
    columns = list(zip(header, *body, strict=True))
    widths = [max(map(len, column)) for column in columns]
    is_number = [bool(body) and all(_looks_numeric(cell) for cell in column[1:]) for column in columns]
    lines = [
        "  ".join(
            cell.rjust(w) if right else cell.ljust(w) for cell, w, right in zip(row, widths, is_number, strict=True)
        ).rstrip()
        for row in [list(header), *body]
    ]
    return "\n".join(lines)


def _human(name: str, value: Any) -> tuple[str, Any]:
    if name in ("peak_memory_bytes", "memory_bytes"):
        return "peak memory", f"{value / 1e9:.2f} GB"
    if name == "hours_on_this_cpu":
        return "time on this CPU", f"about {value:.1f} hours" if value >= 1 else f"about {3600 * value:.0f} s"
    if name == "frame_rate":
        return "frame rate", f"{float(value):.6g} fps" if value else "still image"
    if name == "sections":
        return "bytes", "  ".join(f"{section} {size}" for section, size in value.items())
    if name == "audio":
        return "audio", _sound_text(value)
    if name in _LABELS:
        label, pattern = _LABELS[name]
        return label, pattern.format(value)
    return name.replace("_", " "), value


def _sound_text(audio: Mapping[str, Any]) -> str:
    if "error" in audio:
        return f"cannot be read ({audio['error']})"
    channels = {1: "mono", 2: "stereo"}.get(audio["channels"], f"{audio['channels']} channels")
    rate = "" if audio["bit_rate"] is None else f", {audio['bit_rate'] / 1000:.1f} kbit/s"
    return f"{audio['codec']} {channels}, {audio['duration_s']:.2f} s{rate}, {audio['size_bytes']:,} bytes"


def _is_shown(value: Any) -> bool:
    return value is not None and value not in ("", {}, ())


def _is_nested(value: Any) -> bool:
    is_list_of_mappings = isinstance(value, (list, tuple)) and any(isinstance(each, Mapping) for each in value)
    return isinstance(value, Mapping) or is_list_of_mappings


def _text(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if value is None:
        return "-"
    if isinstance(value, float):
        return f"{value:.6g}"
    if isinstance(value, tuple) and len(value) == 2 and all(isinstance(each, int) for each in value):
        return f"{value[0]}x{value[1]}"
    if isinstance(value, (list, tuple)):
        return ", ".join(_text(each) for each in value)
    if isinstance(value, (bytes, bytearray)):
        return bytes(value).hex()
    return str(value)


def _looks_numeric(cell: str) -> bool:
    return cell.replace(",", "").replace(".", "", 1).lstrip("-").isdigit() or cell == "-"
