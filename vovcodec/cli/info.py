"""`vov info`: what is in a `.vov` file, without loading a model."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click

from vovcodec.cli import arguments as arg
from vovcodec.cli.batch import run_each
from vovcodec.cli.report import format_report, format_table, to_plain
from vovcodec.cli.targets import check_source
from vovcodec.errors import FormatError

__all__ = ["command"]


@click.command(cls=arg.GroupedCommand, short_help="Show what is in .vov files; several make a table.")
@click.argument("sources", metavar="IN.vov…", nargs=-1, required=True)
@click.option("--check", is_flag=True, help="Also decode all that is coded (checksums are always verified).")
@arg.limit_option
@click.option("--json", "as_json", is_flag=True, help="Everything as JSON: one object, or a list for several files.")
@click.pass_context
def command(context: click.Context, sources: tuple[str, ...], check: bool, limits: Any, as_json: bool) -> None:
    """Show what is in .vov files; several make a table. IN.vov is a file, or - for a pipe.

    Of a damaged file it shows what can be read, with exit code 4.
    """
    from vovcodec.codec.inspect import inspect

    found: list[dict[str, Any]] = []

    def look(source: str, _: None) -> None:
        found.append(inspect(check_source(source), verify=check, limits=limits))
        content = found[-1]["content"]
        if content["damage"]:
            n_whole, n_segments = len(content["segments"]), content["header"]["n_segments"]
            fault = content["damage"][0]["message"]
            raise FormatError(f"{source}: damaged; {n_whole} of {n_segments} segments can be read: {fault}")

    code = run_each([(source, None) for source in sources], look)
    if as_json:
        objects = [{key: value for key, value in each.items() if key != "lines"} for each in found]
        if objects:
            print(json.dumps(to_plain(objects if len(sources) > 1 else objects[0])))
    elif len(sources) > 1 and found:
        print(_table(found))
    elif found:
        print(_details(found[0]))
    # One bad file does not hide the others, but the exit code tells.
    context.exit(code)


def _details(found: dict[str, Any]) -> str:
    head = f"{found['file']}\n{format_report(found['summary'])}"
    parts = [head, f"decoding\n{format_report(found['decoding'], '  ')}", "\n".join(found["lines"])]
    if "check" in found:
        parts.append("check passed: " + ", ".join(f"{what} {count}" for what, count in found["check"].items()))
    return "\n\n".join(parts)


def _table(found: list[dict[str, Any]]) -> str:
    header = ["file", "bytes", "bpp", "frames", "fps", "source", "coded", "segments", "backbone", "vector", "atoms"]
    header.append("audio")
    rows = []
    for each in found:
        s = each["summary"]
        name = Path(each["file"]).name
        fps = f"{float(s['frame_rate']):.6g}"
        sizes = ["{}x{}".format(*s[key]) for key in ("source_size", "coded_size")]
        audio_bytes = (s["audio"] or {}).get("size_bytes", 0)
        payload = [s["segments"], s["backbone"], s["vector_bytes"], s["atoms_bytes"], audio_bytes]
        rows.append([name, s["size_bytes"], f"{s['bpp']:.5f}", s["n_frames"], fps, *sizes, *payload])
    return format_table(header, rows)
