"""`encode`: media in, `.vov` out. The whole codec in one straight line, one segment after the other."""

from __future__ import annotations

import functools
import hashlib
import json
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import torch

from vovcodec import __version__
from vovcodec.backbone.catalog import model_facts
from vovcodec.backbone.protocol import Backbone
from vovcodec.backbone.registry import pick_device
from vovcodec.codec.accounting import (
    QualityMean,
    blank_atoms,
    blank_check,
    blank_indices,
    blank_vector,
    note_spare_bytes,
    payload_budget,
    payload_size,
)
from vovcodec.codec.budget import target_file_bytes, with_parts
from vovcodec.codec.captions import require_captioner, resolve_caption
from vovcodec.codec.devices import device_of_rank, listed_devices, process_rank, threads_per_worker
from vovcodec.codec.finished import FinishedSegment, keep_segment, kept_segment
from vovcodec.codec.header import chosen_size, new_header
from vovcodec.codec.importance import warn_of_few_steps
from vovcodec.codec.measure import peak_memory_bytes, section_sizes
from vovcodec.codec.models import BackboneCache, announce_needs, load_preset_backbone, require_model
from vovcodec.codec.options import EncodeOptions
from vovcodec.codec.output import require_writable
from vovcodec.codec.plans import plan_of_preset
from vovcodec.codec.pool import DevicePool
from vovcodec.codec.reports import EncodeReport
from vovcodec.codec.segment_worker import SegmentTask, make_segment_encoder, segment_encoder
from vovcodec.codec.sound import kept_sound, less_sound, sound_bytes, sound_wish
from vovcodec.codec.spans import planned_segments
from vovcodec.codec.spool import FrameSpool
from vovcodec.codec.writing import write_checked
from vovcodec.container import VERSION, AudioTrack, Segment, VovFile
from vovcodec.errors import Interrupted, MediaError, OutputExistsError, UsageError
from vovcodec.fitting.checkpoint import StateFolder, default_state_root
from vovcodec.fitting.ranks import Ranks, joined_ranks
from vovcodec.media import CutDetector, MediaInfo, open_frames, pad_frames, resize_frames
from vovcodec.presets import Preset, load_preset, resolve
from vovcodec.progress import ProgressListener, SilentListener

__all__ = ["encode"]

_CAPTION_FRAMES = 64  # for a captioner; so that memory does not grow with the clip


def encode(
    source: Path | str,
    target: Path | str,
    options: EncodeOptions | None = None,
    listener: ProgressListener | None = None,
    backbones: BackboneCache | None = None,
    *,
    together: bool = False,
) -> EncodeReport:
    """Encode a clip or picture and report what came out.

    Args:
        source: path, `frames/%05d.png`, or "-" for standard input.
        target: path of the `.vov` file, or "-" for standard output.
        options: see `EncodeOptions`; None = all defaults.
        listener: receives progress; None = nobody.
        backbones: where the base model is kept between calls; None = it is loaded anew.
        together: for the processes of one `torchrun`, each of which calls this with the same arguments: they fit every
            vector together, the first one writes and reports progress.

    Raises UsageError, MediaError, ModelError, OutputExistsError, and Interrupted when stopped with its state kept.
    """
    options, listener = options or EncodeOptions(), listener or SilentListener()
    rank, size = process_rank() if together else (0, 1)
    if size > 1:
        if str(source) == "-":
            raise UsageError("several processes cannot read one standard input: name a file that all of them can read")
        options = replace(options, device=device_of_rank(options.device))
        listener = SilentListener() if rank else listener
    with joined_ranks(rank, size, options.device) as ranks:
        return _encode(source, target, options, listener, ranks, backbones)


def _encode(
    source: Path | str,
    target: Path | str,
    options: EncodeOptions,
    listener: ProgressListener,
    ranks: Ranks,
    backbones: BackboneCache | None,
) -> EncodeReport:
    started = time.monotonic()
    devices = [pick_device(name) for name in listed_devices(options.device)]
    if options.threads:
        torch.set_num_threads(options.threads)
    preset = resolve(load_preset(options.preset), options.preset_overrides(), options.effort)
    ranks.first(functools.partial(require_writable, target, overwrite=options.overwrite))
    ranks.first(functools.partial(require_captioner, options.caption))
    chosen = preset.backbone
    ranks.first(functools.partial(require_model, chosen.id, chosen.path, chosen.revision))
    if options.split is not None and options.split[0] and not preset.adaptation.vector_length:
        raise UsageError(
            f"effort {options.effort} fits no vector that a split could give bytes to; take another --effort"
        )
    if preset.fitting.objective == "reference" and options.has_size_target():
        listener.note("the size takes the place of the published λ: stage 2 is not that of the paper")
    if preset.rate.lambda_ is not None:
        stage2 = replace(preset.fitting.stage2, lambda_=preset.rate.lambda_)
        preset = replace(preset, fitting=replace(preset.fitting, stage2=stage2))
    preset = with_parts(preset)
    reader = open_frames(
        source,
        start_s=options.start_s,
        duration_s=options.duration_s,
        n_frames=options.n_frames,
        frame_rate=options.frame_rate,
        sound=sound_wish(options.audio),
    )
    with reader:
        info = reader.info
        width, height = chosen_size(info, preset, options)
        detector = CutDetector()
        with FrameSpool(width, height) as spool:
            for frame in reader:
                resized = resize_frames(frame, width, height)
                spool.append(resized)
                detector.add(resized)
            track = reader.sound_track()
            if (info.width, info.height) != (width, height):
                listener.note(f"{info.width}x{info.height} is coded at {width}x{height}; the decoder scales it back")
            if options.audio not in (None, "none") and not info.has_audio:
                listener.note("the input has no sound to keep")
            for notice in reader.notices:
                listener.note(notice)
            _announce(preset, devices, spool, listener)
            # Several devices are the workers' own: here the model only tells what it is.
            backbone = load_preset_backbone(preset, devices[0] if len(devices) == 1 else "cpu", backbones)
            caption = ranks.first(
                lambda: resolve_caption(options.caption, lambda: spool.sample(_CAPTION_FRAMES), listener, devices[0])
            )
            job = _Job(
                options, preset, backbone, info, spool, detector.cuts(), track, caption, listener, devices, ranks
            )
            stream, quality, n_evaluations = job.run()
            try:
                stream = ranks.first(lambda: write_checked(target, stream, overwrite=options.overwrite))
            except (MediaError, OutputExistsError) as error:
                raise type(error)(f"{error}; {job.kept} for the same command with another output") from None
            if ranks.is_first:
                job.state.discard()
    sections = section_sizes(stream)
    size_bytes = sum(sections.values())
    if preset.steering.method == "atoms":
        note_spare_bytes(listener, size_bytes, job.file_bytes)
    return EncodeReport(
        output=str(target),
        size_bytes=size_bytes,
        sections=sections,
        bpp=8 * size_bytes / (info.width * info.height * stream.header.n_frames),
        psnr_db=quality.psnr_db,
        ssim=quality.ssim,
        n_frames=stream.header.n_frames,
        source_size=(info.width, info.height),
        coded_size=(width, height),
        frame_rate=info.frame_rate,
        preset=preset.name,
        effort=options.effort,
        backbone=backbone.id,
        n_network_evaluations=n_evaluations,
        encode_s=time.monotonic() - started,
        peak_memory_bytes=peak_memory_bytes(),
        segments=len(stream.segments),
        caption=caption,
    )


def _announce(preset: Preset, devices: list[str], spool: FrameSpool, listener: ProgressListener) -> None:
    """What the encode needs, and a wish that cannot be met, before the model is loaded."""
    chosen = preset.backbone
    compiles = model_facts(chosen.id) is not None and all(device.startswith("cuda") for device in devices)
    if chosen.compile and not compiles:
        listener.note("--compile acts on the big models on CUDA only: not used")
    announce_needs(
        chosen.id,
        chosen.precision,
        devices,
        listener,
        fits=preset.adaptation.vector_length > 0,
        remedies=("use a smaller --size", "use shorter segments"),
        n_frames=min(preset.geometry.segment_frames, spool.n_frames),
        width=spool.width,
        height=spool.height,
    )


class _Job:
    """One encode: everything that holds for all of its segments."""

    def __init__(
        self,
        options: EncodeOptions,
        preset: Preset,
        backbone: Backbone,
        info: MediaInfo,
        spool: FrameSpool,
        cuts: list[int],
        track: AudioTrack | None,
        caption: str,
        listener: ProgressListener,
        devices: list[str],
        ranks: Ranks,
    ) -> None:
        self.options, self.devices, self.ranks = options, devices, ranks
        self.preset, self.backbone, self.spool = preset, backbone, spool
        self.caption, self.listener = caption, listener
        multiple = backbone.geometry.size_multiple
        if spool.width % multiple or spool.height % multiple:
            raise UsageError(
                f"{backbone.id} codes multiples of {multiple} pixels, not {spool.width}x{spool.height}: set "
                f"the preset's geometry.multiple to {multiple}"
            )
        self.plan = plan_of_preset(preset, is_still=info.kind == "image")
        file_bytes = target_file_bytes(
            options,
            preset,
            n_frames=spool.n_frames,
            frame_rate=float(info.frame_rate),
            source_pixels=info.width * info.height,
        )
        self.extras, self.file_bytes = kept_sound(track, options, file_bytes, listener)
        picture_bytes = None if self.file_bytes is None else self.file_bytes - sound_bytes(self.extras)
        self.segments = ranks.first(
            functools.partial(planned_segments, backbone, preset, spool, cuts, picture_bytes, listener)
        )
        self.header = new_header(info, preset, backbone, spool, self.segments)
        # Whatever is kept, the first process keeps.
        resume = options.resume or not ranks.is_first
        self.state = StateFolder(options.state_dir or default_state_root(), self._digest(), resume=resume)

    def _digest(self) -> str:
        """Names the job: frames and everything else that the result depends on."""
        settings = {
            "header": repr(self.header),
            "segments": repr(self.segments),
            "preset": repr(self.preset),
            "bytes": self.file_bytes,
            "caption": self.caption,
            "sound": hashlib.sha256(b"".join(section.payload for section in self.extras)).hexdigest(),
            "version": (VERSION, __version__),
        }
        text = json.dumps(settings, sort_keys=True).encode()
        return hashlib.sha256(self.spool.digest() + text).hexdigest()[:32]

    def run(self) -> tuple[VovFile, QualityMean, int]:
        """All segments → the stream, its quality, network evaluations."""
        finished: list[Segment] = []
        quality, n_evaluations = QualityMean(), 0
        if self.preset.steering.method == "importance":
            warn_of_few_steps(self.header.sampler, self.listener)
        coded = self._one_by_one() if len(self.devices) == 1 else self._on_several_devices()
        try:
            for segment, psnr_db, ssim, evaluations in coded:
                finished.append(segment)
                quality.add(segment, psnr_db, ssim)
                n_evaluations += evaluations
        except KeyboardInterrupt:
            raise Interrupted(f"stopped; {self.kept}") from None
        stream = VovFile(self.header, tuple(finished), self.caption or None, self.extras)
        return stream, quality, n_evaluations

    def _one_by_one(self) -> Iterator[FinishedSegment]:
        """(segment, PSNR, SSIM, evaluations) of each; the bytes that one leaves over go to the next."""
        encode_one = segment_encoder(self.backbone, self.preset, self.header, self.caption, self.state, self.ranks)
        payload_left = self._payload_bytes()
        for number, span in enumerate(self.segments):
            frames_left = self.spool.n_frames - span.start
            share = None if payload_left is None else payload_left * span.n_frames / frames_left
            if len(self.segments) > 1:
                self.listener.note(f"segment {number + 1} of {len(self.segments)}")
            result = self.ranks.first(functools.partial(self._kept, number))
            if result is None:
                mine = encode_one(self._task(number, share), self.listener)
                # Every process has steered by itself, with rounding errors of its own: the first one's counts.
                result = self.ranks.first(lambda mine=mine: mine)
                if self.ranks.is_first:
                    keep_segment(self.state, self.header, result)
            if payload_left is not None:
                payload_left -= payload_size(result[0], self.header.sampler)
            yield result

    def _on_several_devices(self) -> Iterator[FinishedSegment]:
        """As `_one_by_one`, spread over worker processes; a segment's share of the bytes is fixed by its length."""
        kept = {number: self._kept(number) for number in range(len(self.segments))}
        todo = [number for number, result in kept.items() if result is None]
        devices = self.devices[: len(todo)]
        if len(devices) < len(self.devices):
            self.listener.note(f"{len(todo)} segment(s) to encode: {len(devices)} of {len(self.devices)} devices work")
        payload = self._payload_bytes()
        shares = [None if payload is None else payload * s.n_frames / self.spool.n_frames for s in self.segments]
        self.listener.stage("encoding segments", len(self.segments), len(self.segments) - len(todo))

        def finish(number: int, result: FinishedSegment) -> None:
            keep_segment(self.state, self.header, result)
            self.listener.advance(1, psnr_db=result[1])

        threads = threads_per_worker(devices, self.options.threads)
        arguments = (self.preset, self.header, self.caption, self.state.path, threads)
        with DevicePool(devices, make_segment_encoder, arguments, self.listener) as pool:
            results = pool.map((self._task(number, shares[number]) for number in todo), finish)
            for result in kept.values():
                yield next(results) if result is None else result

    def _task(self, number: int, payload_bytes: float | None) -> SegmentTask:
        span = self.segments[number]
        frames = pad_frames(self.spool.read(span.start, span.n_frames), span.n_coded_frames)
        return SegmentTask(number, span.start, span.n_frames, frames, payload_bytes)

    @property
    def kept(self) -> str:
        """Whether an encode that cannot go on can be continued, in words."""
        if self.state.problem:
            return f"nothing is kept: {self.state.problem}"
        return "nothing is kept: no segment is finished" if self.state.is_empty else "the work so far is kept"

    def _kept(self, number: int) -> FinishedSegment | None:
        return kept_segment(self.state, number, self.segments[number].start)

    def _payload_bytes(self) -> float | None:
        """What the file's target leaves for vectors and atoms of all segments.

        Raises UsageError when the target is below what an empty file needs.
        """
        if self.file_bytes is None:
            return None
        method = self.preset.steering.method

        def stream_with(size_bytes: int) -> VovFile:
            blanks = tuple(
                Segment(
                    index=number,
                    first_frame=span.start,
                    n_frames=span.n_frames,
                    vector=blank_vector(size_bytes) if self.header.adaptation else None,
                    atoms=blank_atoms(self.plan, size_bytes) if method == "atoms" else None,
                    importance=blank_indices(size_bytes) if method == "importance" else None,
                    check=blank_check(),
                )
                for number, span in enumerate(self.segments)
            )
            return VovFile(self.header, blanks, self.caption or None, self.extras)

        n_blanks = (bool(self.header.adaptation) + (method != "none")) * len(self.segments)
        return payload_budget(stream_with, self.file_bytes, n_blanks, less_sound(self.options))
