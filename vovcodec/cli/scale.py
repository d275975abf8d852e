"""`vov scale`: new or less steering for an existing file, within a byte budget."""

from __future__ import annotations

import dataclasses
import functools
from pathlib import Path
from typing import Any

import click

from vovcodec.cli import arguments as arg
from vovcodec.cli.progress import open_progress
from vovcodec.cli.report import print_report
from vovcodec.cli.targets import ask_to_go_on, check_source, check_target, is_pipe
from vovcodec.codec.options import ScaleOptions
from vovcodec.errors import UsageError

__all__ = ["command"]

_steering = functools.partial(arg.grouped_option, "Steering")
_running = functools.partial(arg.grouped_option, "Running")
_method = click.Choice(["atoms", "importance"])


@click.command(cls=arg.GroupedCommand, short_help="Add or replace a file's steering, or shorten it.")
@click.argument("source", metavar="IN.vov")
@click.option("--reference", metavar="ORIGINAL", help="What it was encoded from; not needed to make a file smaller.")
@click.option("-o", "--output", required=True, metavar="OUT.vov", help="The .vov file to write, or - for a pipe.")
@_steering("--bytes", "target_bytes", type=arg.Parsed(arg.parse_byte_count, "N"), help="Whole new file: 1500, 1.5k.")
@_steering("--steps", type=click.IntRange(2), metavar="N", help="Sampler steps, with --method importance.")
@_steering("--candidates", type=int, metavar="N", help="At most, at each of these: 2, 4, … 262144; default 16384.")
@_steering("--method", type=_method, default="atoms", help="Signed atoms, or the paper's importance sampling.")
@_running("--model", type=click.Path(path_type=Path), metavar="DIR", help="Folder of the base model.")
@_running("--force", is_flag=True, help="Go on although the base model differs.")
@arg.limit_option
@arg.running_options
def command(source: str, reference: str | None, output: str, running: arg.Running, **settings: Any) -> None:
    """Add or replace a file's steering, seeing the original; without it, drop as much as --bytes asks.

    IN.vov is a file, or - for a pipe.
    """
    options = ScaleOptions(**settings, device=running.device, threads=running.threads, approve=ask_to_go_on)
    if reference is None and options.target_bytes is None:
        raise UsageError("give --reference ORIGINAL to add or replace steering, or --bytes N to drop some of it")
    checked_source = check_source(source)
    checked_reference = None if reference is None else check_source(reference)
    if is_pipe(source) and reference is not None and is_pipe(reference):
        raise UsageError("only one of the .vov file and its reference can come from standard input")
    target, may_overwrite = check_target(output, checked_source, running.overwrite, running.never_overwrite)
    options = dataclasses.replace(options, overwrite=may_overwrite)
    with open_progress(running) as listener:
        from vovcodec.codec.scale import scale

        report = scale(checked_source, checked_reference, target, options, listener)
    print_report(report, running, data_on_stdout=is_pipe(output))
