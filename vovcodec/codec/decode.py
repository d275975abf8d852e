"""`decode`: `.vov` in, media out."""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

import numpy as np
import torch

from vovcodec.backbone.registry import pick_device
from vovcodec.codec.decode_worker import make_segment_decoder, segment_decoder
from vovcodec.codec.devices import listed_devices, threads_per_worker
from vovcodec.codec.measure import peak_memory_bytes
from vovcodec.codec.options import DecodeOptions, DecodeReport
from vovcodec.codec.plans import frame_rate_of, n_evaluations_of
from vovcodec.codec.pool import DevicePool
from vovcodec.codec.regenerate import load_matching_backbone
from vovcodec.container import Segment, StreamHeader, VovFile, read_vov
from vovcodec.errors import UsageError
from vovcodec.media import open_writer, resize_frames
from vovcodec.progress import ProgressListener, SilentListener

__all__ = ["decode"]


def decode(
    source: Path | str,
    target: Path | str,
    options: DecodeOptions | None = None,
    listener: ProgressListener | None = None,
) -> DecodeReport:
    """Regenerate a clip or picture from a file and the public base model.

    Args:
        source: path of a `.vov` file, or "-" for standard input.
        target: path, `frames/%05d.png`, or "-" for standard output.
        options: see `DecodeOptions`; None = all defaults.
        listener: receives progress; None = nobody.

    Raises UsageError, MediaError, FormatError, ModelError, OutputExistsError.
    """
    started = time.monotonic()
    options, listener = options or DecodeOptions(), listener or SilentListener()
    if options.threads:
        torch.set_num_threads(options.threads)
    stream = read_vov(sys.stdin.buffer if str(source) == "-" else Path(source))
    header = stream.header
    first, last = _frame_range(header, options)
    wanted = [s for s in stream.segments if s.first_frame < last and s.first_frame + s.n_frames > first]
    width, height = _output_size(header, options)
    longest = max(n_evaluations_of(header, segment) for segment in wanted)
    if options.steps and options.steps > longest:
        raise UsageError(f"this file decodes in {longest} steps; --steps takes fewer, for a preview")
    n_total = sum(min(options.steps or longest, n_evaluations_of(header, segment)) for segment in wanted)
    # Open the output before the model: a name that cannot be written shows at once.
    writer = open_writer(
        target,
        width=width,
        height=height,
        frame_rate=frame_rate_of(header),
        sample_aspect=Fraction(header.sample_aspect_num, header.sample_aspect_den),
        colour_matrix=header.colour_matrix,
        colour_primaries=header.colour_primaries,
        colour_transfer=header.colour_transfer,
        container=options.container,
        overwrite=options.overwrite,
    )
    drifts: list[float] = []
    try:
        n_written = 0
        for segment, (frames, drift) in zip(wanted, _decoded(stream, wanted, n_total, options, listener), strict=True):
            if drift is not None:
                drifts.append(drift)
            for number, frame in enumerate(frames, start=segment.first_frame):
                if first <= number < last:
                    writer.write(resize_frames(frame, width, height))
                    n_written += 1
        writer.close()
    except BaseException:
        writer.abort()
        raise
    for notice in writer.notices:
        listener.note(notice)
    if options.verify:
        _report_drift(stream, drifts, listener)
    stored = [s.check.psnr_q / 256 for s in wanted if s.check]
    return DecodeReport(
        output=str(target),
        n_frames=n_written,
        size=(width, height),
        frame_rate=frame_rate_of(header),
        decode_s=time.monotonic() - started,
        n_network_evaluations=n_total,
        peak_memory_bytes=peak_memory_bytes(),
        verify_psnr_db=min(stored) if options.verify and stored else None,
        drift_db=min(drifts) if drifts else None,
    )


def _decoded(
    stream: VovFile, wanted: list[Segment], n_total: int, options: DecodeOptions, listener: ProgressListener
) -> Iterator[tuple[np.ndarray, float | None]]:
    """Frames and drift of the wanted segments, in their order; with several devices several are in work."""
    tasks = [(segment, stream.caption_of(segment)) for segment in wanted]
    devices = [pick_device(name) for name in listed_devices(options.device)][: len(tasks)]
    if len(devices) == 1:
        backbone = load_matching_backbone(stream.header, device=devices[0], force=options.force, path=options.model)
        decode_one = segment_decoder(backbone, stream.header, options.steps, options.verify)
        listener.stage("decoding", n_total)
        for task in tasks:
            yield decode_one(task, listener)
        return
    threads = threads_per_worker(devices, options.threads)
    arguments = (stream.header, options.model, options.force, options.steps, options.verify, threads)
    listener.stage("decoding segments", len(tasks))
    with DevicePool(devices, make_segment_decoder, arguments, listener) as pool:
        yield from pool.map(tasks, lambda number, result: listener.advance())


def _report_drift(stream: VovFile, drifts: list[float], listener: ProgressListener) -> None:
    if not drifts:
        listener.warn("the file carries no check section: nothing to verify")
    elif min(drifts) < 40.0:
        listener.warn(
            f"the decoded frames differ from what the encoder saw (thumbnail PSNR {min(drifts):.1f} dB, expected 40 or "
            "more): another model, precision or a fault"
        )
    elif math.isinf(min(drifts)):
        listener.note("verified: the thumbnails are equal")


def _frame_range(header: StreamHeader, options: DecodeOptions) -> tuple[int, int]:
    """Frames [first, last) that the options ask for."""
    rate = frame_rate_of(header)
    if not rate:
        if options.start_s or options.duration_s:
            raise UsageError("a still has no time: leave out --ss and -t")
        return 0, 1
    first = round((options.start_s or 0) * rate)
    last = header.n_frames if options.duration_s is None else first + max(1, round(options.duration_s * rate))
    if first >= header.n_frames:
        raise UsageError(f"the clip ends at {float(header.n_frames / rate):.2f} s, before --ss {options.start_s:g}")
    return first, min(last, header.n_frames)


def _output_size(header: StreamHeader, options: DecodeOptions) -> tuple[int, int]:
    if options.size == "coded":
        return header.coded_width, header.coded_height
    if options.size == "source":
        return header.source_width, header.source_height
    return options.size
