"""`vov encode`: flags → EncodeOptions → codec. Each option carries the name of its field in EncodeOptions."""

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
from vovcodec.cli.targets import check_source, check_target, is_pipe
from vovcodec.codec.devices import process_rank
from vovcodec.codec.options import EncodeOptions
from vovcodec.errors import UsageError

if TYPE_CHECKING:
    from vovcodec.codec.models import BackboneCache

__all__ = ["command"]

# Names that are surely a slip for an encoded file.
_MEDIA_SUFFIXES = {".mp4", ".mkv", ".webm", ".mov", ".avi", ".gif", ".y4m", ".png", ".jpg", ".jpeg", ".webp"}

_model = functools.partial(arg.grouped_option, "Model")
_picture = functools.partial(arg.grouped_option, "Picture, time and sound")
_rate = functools.partial(arg.grouped_option, "Rate (one of --bytes, --bitrate, --bpp, --lambda)")
_running = functools.partial(arg.grouped_option, "Running")
_precision = click.Choice(["float32", "bfloat16", "int8-weights"])
_time = arg.Parsed(arg.parse_time, "T")


@click.command(cls=arg.GroupedCommand, short_help="Encode a video or an image into a .vov file.")
@click.argument("sources", metavar="IN…", nargs=-1, required=True)
@click.option("-o", "--output", required=True, metavar="OUT.vov|DIR/", help="The .vov file, a folder, or - for a pipe.")
@_model("--preset", default="pocket", show_default=True, metavar="NAME|FILE.yaml", help="See vov presets.")
@_model("--model", type=click.Path(path_type=Path), metavar="DIR", help="Folder of the base model.")
@_model("--effort", default="fast", show_default=True, metavar="EFFORT", help="instant, fast, medium, slow or paper.")
@_model("--caption", metavar="TEXT|@FILE|auto|none", help="What the clip shows.")
@_picture("--size", type=arg.Parsed(arg.parse_size, "WxH"), help="Coded size; default from the preset.")
@_picture("--fps", "frame_rate", type=arg.Parsed(arg.parse_frame_rate, "R"), help="Resample: 25, 30000/1001.")
@_picture("--ss", "start_s", type=_time, help="Start: 2.5 or 1:02.5.")
@_picture("-t", "duration_s", type=_time, help="Duration.")
@_picture("--frames", "n_frames", type=click.IntRange(1), metavar="N", help="At most N frames.")
@_picture("--audio", type=arg.Parsed(arg.parse_audio, "RATE|copy|none"), help="Opus of RATE, the input's packets; 16k.")
@_rate("--bytes", "target_bytes", type=arg.Parsed(arg.parse_byte_count, "N"), help="Whole file: 1500, 1.5k.")
@_rate("--bitrate", "target_bitrate", type=arg.Parsed(arg.parse_rate, "R"), help="Bits per second: 6k, 1M.")
@_rate("--bpp", "target_bpp", type=arg.Parsed(arg.parse_rate, "X"), help="Bits per source pixel.")
@_rate("--lambda", "lambda_", type=arg.Parsed(arg.parse_rate, "L"), help="Fixed rate-distortion multiplier.")
@_rate("--split", type=arg.Parsed(arg.parse_split, "V:S"), help="Shares of vector and steering: 70:30.")
@_model("--precision", type=_precision, help="Of the model's weights; default from the preset.")
@_running("--compile", "compiled", is_flag=True, default=None, help="Compile the model's blocks (CUDA).")
@_running("--batch", type=click.IntRange(1), metavar="N", help="States per step of the fit; shared by torchrun.")
@_running("--seed", type=click.IntRange(0), metavar="N", help="Of the decoder's noise.")
@_running("--resume/--no-resume", default=True, help="Continue an interrupted encode; on by default.")
@_running("--state-dir", type=click.Path(path_type=Path), metavar="DIR", help="Where interrupted encodes are kept.")
@arg.running_options
@click.pass_context
def command(
    context: click.Context, sources: tuple[str, ...], output: str, running: arg.Running, **settings: Any
) -> None:
    """Encode a video or an image into a .vov file, or several into a folder.

    IN is a video, an image, a numbered sequence (frames/%05d.png) or - for a pipe.
    """
    options = EncodeOptions(**settings, device=running.device, threads=running.threads)
    from vovcodec.presets import load_preset, resolve

    # Read here too, so that a slip in a preset or a flag shows before the model loads.
    resolve(load_preset(options.preset), options.preset_overrides(), options.effort)
    if is_folder_job(sources, output):
        jobs = outputs_in(output, sources, lambda source: ".vov")
        from vovcodec.codec.models import BackboneCache

        backbones = BackboneCache()
        context.exit(run_each(jobs, lambda s, t: _encode(s, t, options, running, backbones), running))
    _encode(sources[0], output, options, running)


def _encode(
    source: str, output: str, options: EncodeOptions, running: arg.Running, backbones: BackboneCache | None = None
) -> None:
    """One file. backbones: given where it is one of several."""
    checked_source = check_source(source)
    if not is_pipe(output) and Path(output).suffix.lower() in _MEDIA_SUFFIXES:
        raise UsageError(f"encode writes a .vov file: name the output {Path(output).with_suffix('.vov')}")
    rank, _ = process_rank()
    if rank == 0:  # the only process that writes and reports
        target, may_overwrite = check_target(output, checked_source, running.overwrite, running.never_overwrite)
        options = dataclasses.replace(options, overwrite=may_overwrite)
    else:
        target = output
    with open_progress(running, source=source if backbones else None) as listener:
        from vovcodec.codec.encode import encode

        report = encode(checked_source, target, options, listener, backbones, together=True)
    if rank == 0:
        print_report(report, running, data_on_stdout=is_pipe(output))
