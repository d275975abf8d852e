"""`vov decode`: flags → DecodeOptions → codec. Each option carries the name of its field in DecodeOptions."""

from __future__ import annotations

import dataclasses
import functools
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from vovcodec.cli import arguments as arg
from vovcodec.cli.batch import is_folder_job, outputs_in, run_each
from vovcodec.cli.progress import open_progress
from vovcodec.cli.report import print_report
from vovcodec.cli.targets import ask_to_go_on, check_source, check_target, is_pipe
from vovcodec.codec.options import DecodeOptions
from vovcodec.container import read_vov
from vovcodec.errors import FormatError, VovError

if TYPE_CHECKING:
    from vovcodec.codec.models import BackboneCache

__all__ = ["command"]

_picture = functools.partial(arg.grouped_option, "Picture and time")
_running = functools.partial(arg.grouped_option, "Running")
_time = arg.Parsed(arg.parse_time, "T")
_size = arg.Parsed(arg.parse_output_size, "WxH|coded|source")


@click.command(cls=arg.GroupedCommand, short_help="Decode a .vov file into a video or an image.")
@click.argument("sources", metavar="IN.vov…", nargs=-1, required=True)
@click.option("-o", "--output", required=True, metavar="OUT|DIR/", help="Its ending decides the format; - for a pipe.")
@click.option("--container", metavar="FORMAT", help="The format, whatever the ending: mp4, y4m, png.")
@_picture("--size", type=_size, default="source", help="Output size; default source.")
@_picture("--ss", "start_s", type=_time, help="Start: 2.5 or 1:02.5.")
@_picture("-t", "duration_s", type=_time, help="Duration.")
@_picture("--steps", type=click.IntRange(1), metavar="N", help="Sampler steps instead of the file's own.")
@_picture("--guidance", type=float, default=1.0, metavar="G", help="Exaggerate the caption: 3 to 8; 1 does not.")
@_picture("--realism", type=float, default=0.0, metavar="R", help="0: closest to the original; 1: natural texture.")
@_running("--verify", is_flag=True, help="Compare with what the encoder saw and report the drift.")
@_running("--model", type=click.Path(path_type=Path), metavar="DIR", help="Folder of the base model.")
@_running("--strict", is_flag=True, help="Refuse a damaged file; else what is left is decoded, exit code 4.")
@_running("--force", is_flag=True, help="Decode although the base model differs.")
@arg.limit_option
@arg.running_options
@click.pass_context
def command(
    context: click.Context,
    sources: tuple[str, ...],
    output: str,
    running: arg.Running,
    **settings: Any,
) -> None:
    """Decode a .vov file into a video, an image or a numbered sequence (frames/%05d.png), or several into a folder.

    IN.vov is a file, or - for a pipe. In a folder, videos become .mp4 and stills .png unless --container says else.
    """
    options = DecodeOptions(
        **settings,
        device=running.device,
        threads=running.threads,
        approve=ask_to_go_on,
    )
    if is_folder_job(sources, output):
        from vovcodec.codec.models import BackboneCache

        backbones = BackboneCache()
        jobs = outputs_in(output, sources, lambda source: _suffix(source, options.container))
        context.exit(run_each(jobs, lambda s, t: _decode(s, t, options, running, backbones), running))
    context.exit(_decode(sources[0], output, options, running))


def _suffix(source: str, container: str | None) -> str:
    if container is not None:
        return f".{container}"
    try:
        return ".mp4" if read_vov(source, tolerant=True).header.frame_rate_num else ".png"
    except VovError:
        return ".mp4"  # decoding it will say what is wrong


def _decode(
    source: str, output: str, options: DecodeOptions, running: arg.Running, backbones: BackboneCache | None = None
) -> int:
    """One file. backbones: given where it is one of several."""
    checked_source = check_source(source)
    target, may_overwrite = check_target(output, checked_source, running.overwrite, running.never_overwrite)
    options = dataclasses.replace(options, overwrite=may_overwrite)
    with open_progress(running, source=source if backbones else None) as listener:
        from vovcodec.codec.decode import decode

        report = decode(checked_source, target, options, listener, backbones)
    print_report(report, running, data_on_stdout=is_pipe(output))
    return FormatError.exit_code if report.damage else 0
