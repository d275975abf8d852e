"""`decode`: `.vov` in, media out."""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import torch

from vovcodec.backbone.memory import free_memory_bytes
from vovcodec.backbone.registry import pick_device
from vovcodec.codec.check import LEAST_AGREEMENT_DB
from vovcodec.codec.decode_worker import DecodedSegment, Drawing, make_segment_decoder, segment_decoder
from vovcodec.codec.devices import listed_devices, threads_per_worker
from vovcodec.codec.limits import decode_cost, require_affordable, require_within
from vovcodec.codec.losses import Concealer, spans
from vovcodec.codec.measure import n_evaluations_of, n_realism_steps, peak_memory_bytes
from vovcodec.codec.models import BackboneCache, announce_needs
from vovcodec.codec.options import DecodeOptions
from vovcodec.codec.plans import frame_rate_of
from vovcodec.codec.pool import DevicePool
from vovcodec.codec.regenerate import load_matching_backbone
from vovcodec.codec.reports import DecodeReport
from vovcodec.codec.sound import track_of
from vovcodec.container import Segment, StreamHeader, VovFile, read_vov
from vovcodec.errors import FormatError, MediaError, UsageError, name_input
from vovcodec.media import cut_notice, cut_track, open_writer, resize_frames
from vovcodec.progress import ProgressListener, SilentListener

__all__ = ["decode", "decode_stream"]


def decode(
    source: Path | str,
    target: Path | str,
    options: DecodeOptions | None = None,
    listener: ProgressListener | None = None,
    backbones: BackboneCache | None = None,
) -> DecodeReport:
    """Regenerate a clip or picture from a file and the public base model.

    Args:
        source: path of a `.vov` file, or "-" for standard input.
        target: path, `frames/%05d.png`, or "-" for standard output.
        options: see `DecodeOptions`; None = all defaults.
        listener: receives progress; None = nobody.
        backbones: where the base model is kept between calls; None = it is loaded anew.

    A damaged file is decoded as far as it goes, and the report says what was lost; see `DecodeOptions.strict`.

    Raises UsageError, MediaError, FormatError, ModelError, OutputExistsError.
    """
    started = time.monotonic()
    options, listener = options or DecodeOptions(), listener or SilentListener()
    stream = read_vov(sys.stdin.buffer if str(source) == "-" else Path(source), tolerant=not options.strict)
    try:
        report = decode_stream(stream, target, options, listener, backbones)
    except FormatError as error:
        if str(source) != "-":
            name_input(error, source)
        raise
    return replace(report, decode_s=time.monotonic() - started)


def decode_stream(
    stream: VovFile,
    target: Path | str,
    options: DecodeOptions,
    listener: ProgressListener,
    backbones: BackboneCache | None = None,
) -> DecodeReport:
    """`decode` of a file that has been read."""
    started = time.monotonic()
    if options.threads:
        torch.set_num_threads(options.threads)
    require_within(stream, options.limits)
    header = stream.header
    first, last = _frame_range(header, options)
    if options.duration_s and not header.frame_rate_num:
        listener.note("without effect on a still: -t")
    wanted = list(spans(stream, first, last))
    segments = [segment for segment, _, _ in wanted if segment is not None]
    if not segments:
        raise _why_nothing_is_left(stream)
    width, height = _output_size(header, options)
    longest = max(header.sampler.steps_of(segment) for segment in segments)
    if options.steps and options.steps > longest:
        raise UsageError(f"this file decodes in {longest} steps; --steps takes fewer, for a preview")
    if options.steps and options.steps < longest:
        listener.note(f"a preview: {options.steps} of {longest} steps, which shows less than the file holds")
    n_steps = sum(min(options.steps or longest, header.sampler.steps_of(segment)) for segment in segments)
    guided = {s.index for s in segments if options.guidance != 1.0 and stream.caption_of(s)}
    if options.guidance != 1.0 and not guided:
        listener.note("the file has no caption, so guidance changes nothing")
    if options.realism:
        n_more = [n_realism_steps(header, segment) for segment in segments]
        n_steps += sum(n_more)
        if not all(n_more):
            which = "some segments" if any(n_more) else "the file"
            listener.note(f"realism changes nothing in {which}: nothing is left there for the sampler to go on from")
    track, rate = track_of(stream, listener), frame_rate_of(header)
    if track and rate and last == header.n_frames:
        notice = cut_notice(last / rate, Fraction(track.end, track.sample_rate))
        if notice:
            listener.note(notice)
    devices = [pick_device(name) for name in listed_devices(options.device)][: len(segments)]
    require_affordable(
        decode_cost(header, segments, steps=options.steps, guided=guided, realism=options.realism),
        options.limits,
        device=devices[0],
        n_workers=len(devices),
        free_bytes=_free_per_worker(devices),
        n_threads=threads_per_worker(devices, options.threads),
        approve=options.approve,
    )
    announce_needs(
        header.backbone_id,
        header.precision,
        devices,
        listener,
        remedies=("use a device with more memory",),
        n_frames=max(segment.n_frames for segment in segments),
        width=header.coded_width,
        height=header.coded_height,
    )
    # Open the output before the model: a name that cannot be written shows at once.
    writer = open_writer(
        target,
        width=width,
        height=height,
        frame_rate=rate,
        sample_aspect=Fraction(header.sample_aspect_num, header.sample_aspect_den),
        colour_matrix=header.colour_matrix,
        colour_primaries=header.colour_primaries,
        colour_transfer=header.colour_transfer,
        container=options.container,
        overwrite=options.overwrite,
        sound=cut_track(track, first / rate, (last - first) / rate) if track and rate else None,
        n_frames=last - first,
    )
    drifts: list[float] = []
    concealer = Concealer(stream, width, height)
    try:
        with closing(_decoded(stream, segments, devices, n_steps, options, listener, backbones)) as decoded:
            for segment, begin, end in wanted:
                result = None if segment is None else next(decoded)
                if isinstance(result, FormatError) and (options.strict or len(segments) == 1):
                    raise result
                if result is None or isinstance(result, FormatError):
                    for frame in concealer.conceal(begin, end, result):
                        writer.write(frame)
                    continue
                frames, drift = result
                if drift is not None:
                    drifts.append(drift)
                for frame in frames[begin - segment.first_frame : end - segment.first_frame]:
                    writer.write(concealer.show(resize_frames(frame, width, height)))
        writer.close()
    except BaseException:
        writer.abort()
        raise
    for notice in writer.notices:
        listener.note(notice)
    for line in concealer.lines:
        listener.warn(line)
    if options.verify:
        _report_drift(stream, drifts, listener)
    stored = [s.check.psnr_db for s in segments if s.check]
    return DecodeReport(
        output=str(target),
        n_frames=writer.n_written,
        size=(width, height),
        frame_rate=rate,
        decode_s=time.monotonic() - started,
        n_network_evaluations=sum(
            n_evaluations_of(header, segment, options.steps, is_guided=segment.index in guided, realism=options.realism)
            for segment in segments
        ),
        peak_memory_bytes=peak_memory_bytes(),
        verify_psnr_db=min(stored) if options.verify and stored else None,
        drift_db=min(drifts) if drifts else None,
        damage=tuple(concealer.lines),
    )


def _decoded(
    stream: VovFile,
    segments: list[Segment],
    devices: list[str],
    n_steps: int,
    options: DecodeOptions,
    listener: ProgressListener,
    backbones: BackboneCache | None,
) -> Iterator[DecodedSegment]:
    """The segments' frames, in their order; with several devices several segments are in work."""
    header = stream.header
    tasks = [(segment, stream.caption_of(segment)) for segment in segments]
    drawing = Drawing(options.steps, options.verify, options.guidance, options.realism)
    if len(devices) == 1:
        backbone = load_matching_backbone(
            header, device=devices[0], force=options.force, path=options.model, backbones=backbones
        )
        decode_one = segment_decoder(backbone, header, drawing)
        listener.stage("decoding", n_steps)
        for task in tasks:
            yield decode_one(task, listener)
        return
    threads = threads_per_worker(devices, options.threads)
    arguments = (header, options.model, options.force, drawing, threads)
    listener.stage("decoding segments", len(tasks))
    with DevicePool(devices, make_segment_decoder, arguments, listener) as pool:
        yield from pool.map(tasks, lambda number, result: listener.advance())


def _free_per_worker(devices: Sequence[str]) -> int | None:
    """Bytes of memory that are free for each worker, where there is least; None where that cannot be told."""
    free = {device: free_memory_bytes(device) for device in devices}
    return min((size // devices.count(device) for device, size in free.items() if size is not None), default=None)


def _why_nothing_is_left(stream: VovFile) -> FormatError:
    """The first fault of a file none of whose wanted segments is whole."""
    error = min(stream.damage, key=lambda fault: fault[0] is None)[1]
    if stream.header.n_segments == 1:
        return error
    return FormatError(f"no segment that is needed can be read: {error}")


def _report_drift(stream: VovFile, drifts: list[float], listener: ProgressListener) -> None:
    if not drifts:
        listener.warn("the file carries no check section: nothing to verify")
    elif min(drifts) < LEAST_AGREEMENT_DB:
        listener.warn(
            f"the decoded frames differ from what the encoder saw (thumbnail PSNR {min(drifts):.1f} dB, expected "
            f"{LEAST_AGREEMENT_DB:g} or more): another model, precision or a fault"
        )
    elif math.isinf(min(drifts)):
        listener.note("verified: the thumbnails agree")


def _frame_range(header: StreamHeader, options: DecodeOptions) -> tuple[int, int]:
    """Frames [first, last) that the options ask for."""
    rate = frame_rate_of(header)
    if not rate:
        if options.start_s:
            raise UsageError("a still has no time: leave out --ss")
        return 0, 1
    first = round((options.start_s or 0) * rate)
    last = header.n_frames if options.duration_s is None else first + max(1, round(options.duration_s * rate))
    if first >= header.n_frames:
        last_s = float((header.n_frames - 1) / rate)
        raise MediaError(f"there is no frame at {options.start_s:g} s: the last one is at {last_s:.4g} s")
    return first, min(last, header.n_frames)


def _output_size(header: StreamHeader, options: DecodeOptions) -> tuple[int, int]:
    if options.size == "coded":
        return header.coded_width, header.coded_height
    if options.size == "source":
        return header.source_width, header.source_height
    return options.size
