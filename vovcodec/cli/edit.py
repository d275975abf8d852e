"""`vov edit`: flags → EditOptions → codec. Each option carries the name of its field in EditOptions."""

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
from vovcodec.codec.options import EditOptions
from vovcodec.errors import UsageError

__all__ = ["command"]

_content = functools.partial(arg.grouped_option, "Content")
_picture = functools.partial(arg.grouped_option, "Picture and time")
_media = functools.partial(arg.grouped_option, "Where the output is media")
_replacement = arg.Parsed(arg.parse_replacement, "A=B")
_merge = arg.Parsed(arg.parse_merge, "OTHER.vov[:W]")


@click.command(cls=arg.GroupedCommand, short_help="Change a file's caption, strength, size; merge two files.")
@click.argument("source", metavar="IN.vov")
@click.option("-o", "--output", required=True, metavar="OUT", help="A .vov file, or media by its ending; - for a pipe.")
@_content("--caption", metavar="TEXT|@FILE|none", help="A new caption.")
@_content("--replace", "replacements", type=_replacement, multiple=True, help="In the caption; may be repeated.")
@_content("--strength", type=arg.Parsed(arg.parse_factor, "X"), help="Factor on what the vector changes; 0 drops it.")
@_content("--merge", type=_merge, help="Add another file's vector, times W, and its caption.")
@_content("--keep-structure", type=click.FloatRange(0, 1), metavar="0..1", help="Part of the steered steps to keep.")
@_picture("--size", type=arg.Parsed(arg.parse_size, "WxH"), help="New coded size.")
@_picture("--frames", "n_frames", type=click.IntRange(1), metavar="N", help="New number of frames.")
@_picture("--fps", "frame_rate", type=arg.Parsed(arg.parse_frame_rate, "R"), help="New rate: 25, 30000/1001.")
@_media("--container", metavar="FORMAT", help="The format, whatever the ending: mp4, y4m, png.")
@_media("--steps", type=click.IntRange(1), metavar="N", help="Stop after N sampler steps: a preview.")
@_media("--guidance", type=float, default=1.0, metavar="G", help="Exaggerate the caption: 3 to 8; 1 does not.")
@_media("--model", type=click.Path(path_type=Path), metavar="DIR", help="Folder of the base model.")
@_media("--force", is_flag=True, help="Render although the base model differs.")
@arg.limit_option
@arg.running_options
def command(source: str, output: str, merge: tuple[str, float] | None, running: arg.Running, **settings: Any) -> None:
    """Change what a .vov file is made of, without the original.

    Into a .vov file this is instant and needs no model; into a video or an image the result is rendered at once.
    """
    if merge is not None:
        settings |= {"merge": check_source(merge[0]), "merge_weight": merge[1]}
    options = EditOptions(**settings, device=running.device, threads=running.threads, approve=ask_to_go_on)
    checked_source = check_source(source)
    if merge is not None and is_pipe(merge[0]) and is_pipe(source):
        raise UsageError("only one of the two files can come from standard input")
    target, may_overwrite = check_target(output, checked_source, running.overwrite, running.never_overwrite)
    if merge is not None and not is_pipe(target) and target.exists() and target.samefile(Path(merge[0])):
        raise UsageError(f"{output} is both input and output")
    options = dataclasses.replace(options, overwrite=may_overwrite)
    with open_progress(running) as listener:
        from vovcodec.codec.edit import edit

        report = edit(checked_source, target, options, listener)
    print_report(report, running, data_on_stdout=is_pipe(output))
