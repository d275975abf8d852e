"""`vov eval`: quality of decoded files, next to classic codecs at the same bytes."""

from __future__ import annotations

import functools
import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from vovcodec.cli import arguments as arg
from vovcodec.cli.progress import open_progress
from vovcodec.cli.report import format_table, to_plain
from vovcodec.cli.targets import ask_to_go_on, check_source, check_target, is_pipe
from vovcodec.errors import UsageError

if TYPE_CHECKING:
    from vovcodec.evaluation.evaluate import Evaluation

__all__ = ["command"]

_what = functools.partial(arg.grouped_option, "What to measure")
_size = arg.Parsed(arg.parse_output_size, "WxH|coded|source")


def _parse_names(text: str) -> tuple[str, ...]:
    """Names separated by commas."""
    return tuple(name.strip().lower() for name in text.split(",") if name.strip())


@click.command(cls=arg.GroupedCommand, short_help="Measure decoded files against the original and other codecs.")
@click.argument("reference", metavar="REFERENCE")
@click.argument("distorted", metavar="DISTORTED…", nargs=-1, required=True)
@_what("--metrics", type=arg.Parsed(_parse_names, "A,B"), default=(),
       help="Besides PSNR, SSIM, MS-SSIM: lpips, lpips-alex, dists, fvd.")  # fmt: skip
@_what("--weights", type=click.Path(path_type=Path, file_okay=False), metavar="DIR", help="Weights of those.")
@_what("--against", type=arg.Parsed(_parse_names, "A,B"), default=(),
       help="Code the same frames at the same bytes: x265, svtav1, webp, avif.")  # fmt: skip
@_what("--size", type=_size, default="coded", help="Size compared at; default that of the first DISTORTED.")
@_what("--realism", type=float, default=0.0, metavar="R", help="Of decoded .vov files, 0 to 1; see vov decode.")
@_what("--frames", "n_frames", type=click.IntRange(1), metavar="N", help="At most N frames.")
@_what("--plot", metavar="FILE.png", help="Also draw quality over bytes (needs matplotlib).")
@arg.limit_option
@arg.running_options
def command(
    reference: str, distorted: tuple[str, ...], plot: str | None, running: arg.Running, **settings: Any
) -> None:
    """Measure decoded files against the original, and other codecs at the same bytes.

    DISTORTED are .vov files, which are decoded on the way, videos, images or numbered sequences. Bytes are those of the
    whole file; for the other codecs only the coded pictures are counted, no container. bpp is bits per pixel compared,
    not per pixel of the source.
    """
    sources = [check_source(source) for source in (reference, *distorted)]
    if sum(map(is_pipe, sources)) > 1:
        raise UsageError("only one of the files can come from standard input")
    from vovcodec.evaluation.evaluate import EvaluationOptions, evaluate

    target = None
    if plot is not None:
        from vovcodec.evaluation.plot import require_matplotlib

        if is_pipe(plot):
            raise UsageError("the plot needs a file name: standard output is for the table")
        require_matplotlib()
        target, _ = check_target(plot, sources[0], running.overwrite, running.never_overwrite)
    options = EvaluationOptions(**settings, device=running.device, threads=running.threads, approve=ask_to_go_on)
    with open_progress(running) as listener:
        evaluation = evaluate(sources[0], sources[1:], options, listener)
    if target is not None:
        from vovcodec.evaluation.plot import write_plot

        write_plot(evaluation, target)
    print(json.dumps(_as_json(evaluation)) if running.as_json else _as_text(evaluation), flush=True)


def _as_json(evaluation: Evaluation) -> dict[str, Any]:
    """Plain data; the measures of a row stand beside its other fields."""
    rows = [asdict(row) for row in evaluation.rows]
    for row in rows:
        row.update(row.pop("values"))
    return to_plain(
        {
            "reference": evaluation.reference,
            "size": evaluation.size,
            "n_frames": evaluation.n_frames,
            "frame_rate": evaluation.frame_rate,
            "rows": rows,
        }
    )


def _as_text(evaluation: Evaluation) -> str:
    width, height = evaluation.size
    what = "1 frame" if evaluation.n_frames == 1 else f"{evaluation.n_frames} frames"
    # Not the source's pixels, as elsewhere.
    header = ["", "setting", "bytes", f"bpp at {width}x{height}", *(measure.title for measure in evaluation.measures)]
    lines = [
        [
            row.name,
            row.setting,
            "-" if row.size_bytes is None else str(row.size_bytes),
            "-" if row.bpp is None else f"{row.bpp:.5f}",
            *(f"{row.values[measure.key]:.{measure.decimals}f}" for measure in evaluation.measures),
        ]
        for row in evaluation.rows
    ]
    return f"{evaluation.reference}, {what} of {width}x{height}\n{format_table(header, lines)}"
