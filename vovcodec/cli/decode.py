"""`vov decode`: flags → DecodeOptions → codec. Each option carries the name of its field in DecodeOptions."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

import click

from vovcodec.cli import arguments as arg
from vovcodec.cli.progress import open_progress
from vovcodec.cli.report import print_report
from vovcodec.cli.targets import check_source, check_target, is_pipe
from vovcodec.codec.options import DecodeOptions

__all__ = ["command"]

_picture = functools.partial(arg.grouped_option, "Picture and time")
_running = functools.partial(arg.grouped_option, "Running")
_time = arg.Parsed(arg.parse_time, "T")
_size = arg.Parsed(arg.parse_output_size, "WxH|coded|source")


@click.command(cls=arg.GroupedCommand, short_help="Decode a .vov file into a video or an image.")
@click.argument("source", metavar="IN.vov")
@click.option("-o", "--output", required=True, metavar="OUT", help="Its ending decides the format; - for a pipe.")
@click.option("--container", metavar="FORMAT", help="The format where no ending tells: mp4, y4m, png.")
@_picture("--size", type=_size, default="source", help="Output size; default source.")
@_picture("--ss", "start_s", type=_time, help="Start: 2.5 or 1:02.5.")
@_picture("-t", "duration_s", type=_time, help="Duration.")
@_picture("--steps", type=click.IntRange(1), metavar="N", help="Sampler steps instead of the file's own.")
@_running("--verify", is_flag=True, help="Compare with what the encoder saw and report the drift.")
@_running("--model", type=click.Path(path_type=Path), metavar="DIR", help="Folder of the base model.")
@_running("--force", is_flag=True, help="Decode although the base model differs.")
@arg.running_options
def command(source: str, output: str, running: arg.Running, **settings: Any) -> None:
    """Decode a .vov file into a video, an image or a numbered sequence (frames/%05d.png).

    IN.vov is a file, or - for a pipe.
    """
    checked_source = check_source(source)
    target, may_overwrite = check_target(output, checked_source, running.overwrite, running.never_overwrite)
    options = DecodeOptions(**settings, device=running.device, threads=running.threads, overwrite=may_overwrite)
    with open_progress(running) as listener:
        from vovcodec.codec.decode import decode

        report = decode(checked_source, target, options, listener)
    print_report(report, running, data_on_stdout=is_pipe(output))
