"""`decode`: `.vov` in, media out."""

from __future__ import annotations

import math
import sys
import time
from fractions import Fraction
from pathlib import Path

import torch

from vovcodec.backbone.memory import free_memory_bytes
from vovcodec.backbone.registry import pick_device
from vovcodec.codec.check import LEAST_AGREEMENT_DB, drift_db
from vovcodec.codec.limits import decode_cost, require_affordable, require_within
from vovcodec.codec.measure import peak_memory_bytes
from vovcodec.codec.models import memory_notice
from vovcodec.codec.options import DecodeOptions, DecodeReport
from vovcodec.codec.plans import frame_rate_of, n_coded_frames_of, n_evaluations_of
from vovcodec.codec.regenerate import load_matching_backbone, make_adapter, regenerate_latents
from vovcodec.container import StreamHeader, VovFile, read_vov
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
    require_within(stream, options.limits)
    header = stream.header
    first, last = _frame_range(header, options)
    wanted = [s for s in stream.segments if s.first_frame < last and s.first_frame + s.n_frames > first]
    width, height = _output_size(header, options)
    longest = max(n_evaluations_of(header, segment) for segment in wanted)
    if options.steps and options.steps > longest:
        raise UsageError(f"this file decodes in {longest} steps; --steps takes fewer, for a preview")
    n_total = sum(min(options.steps or longest, n_evaluations_of(header, segment)) for segment in wanted)
    device = pick_device(options.device)
    require_affordable(
        decode_cost(header, wanted, steps=options.steps),
        options.limits,
        device=device,
        free_bytes=free_memory_bytes(device),
        n_threads=options.threads,
        approve=options.approve,
    )
    n_frames = max(segment.n_frames for segment in wanted)
    size = {"n_frames": n_frames, "width": header.coded_width, "height": header.coded_height}
    if needed := memory_notice(header.backbone_id, header.precision, device, **size):
        listener.note(needed)
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
        backbone = load_matching_backbone(header, device=device, force=options.force)
        adapter = make_adapter(backbone, header.adaptation) if header.adaptation else None
        listener.stage("decoding", n_total)
        n_written = 0
        for segment in wanted:
            latents = regenerate_latents(
                backbone,
                header,
                segment,
                stream.caption_of(segment),
                adapter,
                n_coded_frames=n_coded_frames_of(segment, backbone.geometry.time_stride),
                n_evaluations=options.steps,
                on_step=lambda t, x_t, clean: listener.advance(),
            )
            frames = backbone.to_frames(latents)[: segment.n_frames]
            if options.verify and segment.check is not None:
                drift = drift_db(frames, segment.check)
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


def _report_drift(stream: VovFile, drifts: list[float], listener: ProgressListener) -> None:
    if not drifts:
        listener.warn("the file carries no check section: nothing to verify")
    elif min(drifts) < LEAST_AGREEMENT_DB:
        listener.warn(
            f"the decoded frames differ from what the encoder saw (thumbnail PSNR {min(drifts):.1f} dB, expected "
            f"{LEAST_AGREEMENT_DB:g} or more): another model, precision or a fault"
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
