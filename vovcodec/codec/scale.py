"""`scale`: another amount of steering for an existing file. Without the original it can only become less."""

from __future__ import annotations

import sys
import time
from pathlib import Path

from vovcodec.codec.limits import require_within
from vovcodec.codec.measure import peak_memory_bytes, section_sizes
from vovcodec.codec.options import ScaleOptions
from vovcodec.codec.output import require_writable
from vovcodec.codec.reports import ScaleReport
from vovcodec.codec.truncate import truncated
from vovcodec.codec.writing import write_checked
from vovcodec.container import read_vov
from vovcodec.errors import UsageError
from vovcodec.progress import ProgressListener, SilentListener

__all__ = ["scale"]


def scale(
    source: Path | str,
    reference: Path | str | None,
    target: Path | str,
    options: ScaleOptions | None = None,
    listener: ProgressListener | None = None,
) -> ScaleReport:
    """Add, replace or shorten the steering of a `.vov` file; caption and vector stay.

    With a reference, every segment is steered towards it anew within the byte target. Without one, injections are
    dropped until the file is small enough, which takes no model.

    Args:
        source: path of a `.vov` file, or "-" for standard input.
        reference: what `source` was encoded from (path, `frames/%05d.png`, or "-"); None to drop injections.
        target: path of the new file, or "-" for standard output.
        options: see `ScaleOptions`; None = all defaults.
        listener: receives progress; None = nobody.

    Raises UsageError, MediaError, FormatError, ModelError, OutputExistsError.
    """
    started = time.monotonic()
    options, listener = options or ScaleOptions(), listener or SilentListener()
    if reference is None and options.target_bytes is None:
        raise UsageError("without a reference steering can only be dropped: say with --bytes how small")
    require_writable(target, overwrite=options.overwrite)
    stream = read_vov(sys.stdin.buffer if str(source) == "-" else Path(source))
    require_within(stream, options.limits)
    psnr_db = ssim = None
    n_evaluations = 0
    if reference is None:
        scaled = truncated(stream, options.target_bytes)
    else:
        from vovcodec.codec.resteer import resteer  # loads torch

        scaled, quality, n_evaluations, target_bytes = resteer(stream, reference, options, listener)
        psnr_db, ssim = quality.psnr_db, quality.ssim
    written = write_checked(target, scaled, overwrite=options.overwrite)
    sections, header = section_sizes(written), written.header
    size_bytes = sum(sections.values())
    if reference is not None and options.method == "atoms":
        from vovcodec.codec.accounting import note_spare_bytes

        note_spare_bytes(listener, size_bytes, target_bytes)
    return ScaleReport(
        output=str(target),
        size_bytes=size_bytes,
        sections=sections,
        bpp=8 * size_bytes / (header.source_width * header.source_height * header.n_frames),
        psnr_db=psnr_db,
        ssim=ssim,
        n_frames=header.n_frames,
        n_network_evaluations=n_evaluations,
        scale_s=time.monotonic() - started,
        peak_memory_bytes=peak_memory_bytes(),
    )
