"""New steering for a file whose original is at hand, under the model as its vector adapts it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch

from vovcodec.backbone.memory import free_memory_bytes
from vovcodec.backbone.protocol import Backbone
from vovcodec.backbone.registry import pick_device
from vovcodec.codec.accounting import (
    QualityMean,
    blank_atoms,
    blank_check,
    blank_indices,
    payload_budget,
    payload_size,
)
from vovcodec.codec.budget import target_file_bytes, with_parts
from vovcodec.codec.check import drift_db
from vovcodec.codec.devices import require_one_device
from vovcodec.codec.importance import (
    MOST_STEPS,
    inject_indices,
    left_by_indices,
    log2_candidates_within,
    steps_within,
    warn_of_few_steps,
)
from vovcodec.codec.injection import (
    CodedSegment,
    LatentEstimate,
    finished_segment,
    inject_atoms,
)
from vovcodec.codec.limits import require_affordable, steering_cost
from vovcodec.codec.models import announce_needs, require_model
from vovcodec.codec.options import EncodeOptions, ScaleOptions
from vovcodec.codec.plans import (
    frame_rate_of,
    plan_of_preset,
    plan_of_segment,
    scene_plan_of_preset,
    shift_q8_of_preset,
)
from vovcodec.codec.regenerate import Adapters, load_matching_backbone, usual_revision
from vovcodec.codec.scene import inject_scene
from vovcodec.codec.sound import sound_bytes
from vovcodec.codec.spool import FrameSpool
from vovcodec.container import Sampler, Segment, StreamHeader, VovFile
from vovcodec.errors import MediaError
from vovcodec.media import open_frames, pad_frames, resize_frames
from vovcodec.presets import Preset, list_presets, load_preset, preset_digest, resolve
from vovcodec.progress import ProgressListener
from vovcodec.sampling.schedule import LEAST_STEERED_TIME, full_grid_injections
from vovcodec.sampling.steering import MAX_INJECTIONS, SteeringPlan

__all__ = ["preset_of_header", "read_reference", "resteer"]

_LOG2_CANDIDATES = 10  # the fewest of the published range: by far the best quality per candidate drawn
_MOST_LOG2_CANDIDATES = 14  # unless more are asked for: time doubles with every bit
_UNLIKE_DB = 20.0  # thumbnails of original and decoded picture are nearer to each other even at the lowest rates


def resteer(
    stream: VovFile, reference: Path | str, options: ScaleOptions, listener: ProgressListener
) -> tuple[VovFile, QualityMean, int, int | None]:
    """The stream with new steering in every segment, its quality, the network evaluations spent, and the size of the
    file that was aimed at; None where none was.

    Raises UsageError (too few bytes), MediaError (the reference does not fit the file), ModelError, FormatError, and
    LimitExceeded when it could take more than `options.limits` allow.
    """
    if options.threads:
        torch.set_num_threads(options.threads)
    header = stream.header
    device = pick_device(require_one_device(options.device, "scale"))
    require_model(header.backbone_id, options.model, usual_revision(header, options.model))
    preset = _without_new_scenes(preset_of_header(header), stream)
    require_affordable(
        steering_cost(header, stream.segments, *_most_steps(header, stream.segments, preset, options)),
        options.limits,
        device=device,
        free_bytes=free_memory_bytes(device),
        n_threads=options.threads,
        approve=options.approve,
        doing="steering",
    )
    announce_needs(
        header.backbone_id,
        header.precision,
        [device],
        listener,
        remedies=("use a device with more memory",),
        n_frames=max(segment.n_frames for segment in stream.segments),
        width=header.coded_width,
        height=header.coded_height,
    )
    with FrameSpool(header.coded_width, header.coded_height) as spool:
        read_reference(reference, header, spool, listener)
        backbone = load_matching_backbone(header, device=device, force=options.force, path=options.model)
        job = _Job(stream, preset, backbone, spool, options, listener)
        return *job.run(), job.file_bytes


def _most_steps(
    header: StreamHeader, segments: Sequence[Segment], preset: Preset, options: ScaleOptions
) -> tuple[int, int]:
    """Steps of the sampler that new steering can take, however many bytes there are: of a segment, and of a picture of
    its scene before that."""
    if options.method == "importance":
        return options.steps or MOST_STEPS, 0
    grid = header.sampler if header.sampler.schedule == "snr" else _own_plan(header, preset)

    def most(ratio_q: int) -> int:
        return 1 + full_grid_injections(grid.snr_start_q, ratio_q, MAX_INJECTIONS, LEAST_STEERED_TIME)

    if header.backbone_id != "pocket" or not preset.steering.scene:
        return most(grid.snr_ratio_q), 0
    pictures = [each.atoms.scene_ratio_q for each in segments if each.atoms and each.atoms.scene_injections]
    finest = min(pictures, default=scene_plan_of_preset(preset, _own_plan(header, preset)).snr_ratio_q)
    return most(grid.snr_ratio_q), most(finest)


def _own_plan(header: StreamHeader, preset: Preset) -> SteeringPlan:
    return plan_of_preset(preset, is_still=header.frame_rate_num == 0)


def preset_of_header(header: StreamHeader) -> Preset:
    """The shipped preset, at the right effort, that a file was made with; else the first one for its model.

    Its steering settings stand in for what a file without steering does not say.
    """
    presets = [load_preset(name) for name in list_presets()]
    of_model = [preset for preset in presets if preset.backbone.id == header.backbone_id]
    for preset in of_model:
        for effort in (None, *preset.efforts):
            settings = resolve(preset, {"sampler": {"seed": header.sampler.seed}}, effort)
            for used in (settings, with_parts(settings)):
                if preset_digest(used) == header.preset_digest:
                    return used
    return resolve((of_model or presets)[0], {}, None)


def read_reference(reference: Path | str, header: StreamHeader, spool: FrameSpool, listener: ProgressListener) -> None:
    """The file's frames, from the original, at coded size, exactly as `encode` made them.

    A file does not say where in its source it began, so the first frames are taken; a reference of another frame rate
    is resampled to the file's, as `encode --fps` does.

    Raises MediaError where the reference cannot be the original.
    """
    rate, is_still = frame_rate_of(header), not header.frame_rate_num
    limits = {} if is_still else {"n_frames": header.n_frames}
    reader = open_frames(reference, **limits)
    if (reader.info.kind == "image") != is_still:
        reader.close()
        kinds = ("a still", "a video") if is_still else ("a video", "a still")
        raise MediaError(f"the file holds {kinds[0]}, the reference {reference} is {kinds[1]}")
    if not is_still and reader.info.frame_rate != rate:
        reader.close()
        has = f"the reference has {float(reader.info.frame_rate):.6g} frames per second, the file {float(rate):.6g}"
        if str(reference) == "-":
            raise MediaError(f"{has}; a pipe cannot be read again to resample it: name a file")
        listener.note(f"{has}: resampled, as encode --fps does")
        reader = open_frames(reference, frame_rate=rate, **limits)
    with reader:
        info = reader.info
        if (info.width, info.height) != (header.source_width, header.source_height):
            raise MediaError(
                f"the reference is {info.width}x{info.height}, the file was made from "
                f"{header.source_width}x{header.source_height}: it is not the original"
            )
        for frame in reader:
            spool.append(resize_frames(frame, spool.width, spool.height))
        for notice in reader.notices:
            listener.note(notice)
    if spool.n_frames < header.n_frames:
        raise MediaError(
            f"the reference has only {spool.n_frames} frames, the file {header.n_frames}: it is not the original (if "
            "only a part of it was encoded, the reference must begin where that part begins)"
        )


def _without_new_scenes(preset: Preset, stream: VovFile) -> Preset:
    """A file of settings that are not known here rests on pictures of scenes only if it did before."""
    has_scenes = any(segment.atoms and segment.atoms.scene_injections for segment in stream.segments)
    if has_scenes or preset_digest(preset) == stream.header.preset_digest:
        return preset
    return replace(preset, steering=replace(preset.steering, scene=False))


class _Job:
    """One scale: everything that holds for all segments."""

    def __init__(
        self,
        stream: VovFile,
        preset: Preset,
        backbone: Backbone,
        spool: FrameSpool,
        options: ScaleOptions,
        listener: ProgressListener,
    ) -> None:
        self.stream, self.preset, self.backbone, self.spool = stream, preset, backbone, spool
        self.options, self.listener = options, listener
        self.adapters = Adapters(backbone)
        self.file_bytes = self._file_bytes()
        # Bits per index: those aimed at, and the most that are taken.
        asked_bits = options.candidates.bit_length() - 1 if options.candidates else None
        self.wanted_bits, self.most_bits = asked_bits or _LOG2_CANDIDATES, asked_bits or _MOST_LOG2_CANDIDATES
        # The grid of importance sampling depends on the bytes and takes some in the header: start from a likely one.
        self.header = self._header(options.steps or 100)
        self.payload = self._payload()
        lengths = [each.n_frames for each in stream.segments]
        if options.method == "importance" and options.steps is None and self.payload is not None:
            self.header = self._header(steps_within(self.payload, lengths, self.wanted_bits, self.most_bits))
            self.payload = self._payload()
        if options.method == "importance":
            warn_of_few_steps(self.header.sampler, listener)
            if self.payload is not None:
                # Too few bytes for any segment are refused before the first one has taken its time.
                left_by_indices(self.payload, lengths, self.header.sampler.n_steps, self.most_bits)

    def _file_bytes(self) -> int | None:
        options, header = self.options, self.stream.header
        if options.target_bytes is not None:
            return options.target_bytes
        if options.method == "importance" and options.steps is not None:
            return None  # as many candidates as are asked for, else 2^10, at each of the steps
        chosen = target_file_bytes(
            EncodeOptions(),
            self.preset,
            n_frames=header.n_frames,
            frame_rate=float(frame_rate_of(header)),
            source_pixels=header.source_width * header.source_height,
        )
        if chosen is not None:
            chosen += sound_bytes(self.stream.extras)  # as in encode: the preset's size is meant for the picture
            self.listener.note(f"--bytes {chosen}, as preset {self.preset.name} has it")
        return chosen

    def _header(self, n_steps: int) -> StreamHeader:
        """The header with the new sampler. Seeds stay: the vector was fitted on their noise."""
        header, preset = self.stream.header, self.preset
        old = header.sampler
        if self.options.method == "importance":
            is_still, size = not header.frame_rate_num, (header.coded_width, header.coded_height)
            own_shift_q8 = shift_q8_of_preset(preset, header.backbone_id, size, is_still=is_still)
            shift_q8 = old.shift_q8 if old.schedule == "shift" else own_shift_q8
            sampler = Sampler(
                sampler_id="eta", noise_id=old.noise_id, seed=old.seed, n_steps=n_steps, shift_q8=shift_q8
            )
        elif old.schedule == "snr":
            sampler = replace(old, sampler_id="eta")
        else:
            plan = _own_plan(header, preset)
            sampler = Sampler(
                sampler_id="eta",
                noise_id=old.noise_id,
                seed=old.seed,
                schedule="snr",
                snr_start_q=plan.snr_start_q,
                snr_ratio_q=plan.snr_ratio_q,
            )
        # With --force the weights at hand are others than the file's: what is steered now decodes with these.
        return replace(header, sampler=sampler, fingerprint=self.backbone.fingerprint)

    def _plan(self, segment: Segment) -> SteeringPlan:
        """The header's grid; the rest as the segment had it before, else from the preset."""
        old, new = self.stream.header.sampler, self.header.sampler
        if segment.atoms is not None and old.schedule == "snr":
            plan = plan_of_segment(self.stream.header, segment)
            return replace(plan, snr_start_q=old.snr_start_q, counts=(), before=(), last_q=16, n_injections=0)
        plan = _own_plan(self.stream.header, self.preset)
        return replace(plan, seed=new.seed, snr_start_q=new.snr_start_q, snr_ratio_q=new.snr_ratio_q)

    def _preset_of_picture(self, segment: Segment) -> Preset:
        """The preset, with the grid that a picture of the segment's scene had before."""
        atoms, steering = segment.atoms, self.preset.steering
        if atoms is None or not atoms.scene_injections:
            return self.preset
        return replace(self.preset, steering=replace(steering, still_snr_ratio=1 + atoms.scene_ratio_q / 64))

    def _payload(self) -> float | None:
        """What the file's size leaves for the steering of all segments."""
        if self.file_bytes is None:
            return None
        steers = self.options.method == "atoms"

        def stream_with(size_bytes: int) -> VovFile:
            blanks = tuple(
                replace(
                    segment,
                    atoms=blank_atoms(self._plan(segment), size_bytes) if steers else None,
                    importance=None if steers else blank_indices(size_bytes),
                    check=blank_check(),
                    generation=None,
                )
                for segment in self.stream.segments
            )
            return replace(self.stream, header=self.header, segments=blanks, layout=())

        return payload_budget(stream_with, self.file_bytes, len(self.stream.segments))

    def run(self) -> tuple[VovFile, QualityMean, int]:
        """All segments, one after the other; what one leaves over goes to the next."""
        finished: list[Segment] = []
        quality, n_evaluations, left = QualityMean(), 0, self.payload
        for segment in self.stream.segments:
            if len(self.stream.segments) > 1:
                self.listener.note(f"segment {segment.index + 1} of {len(self.stream.segments)}")
            frames_left = self.header.n_frames - segment.first_frame
            share = None if left is None else left * segment.n_frames / frames_left
            coded = self._steer(segment, share)
            kept = {name: getattr(segment, name) for name in ("caption", "merged", "extras")}
            finished.append(replace(coded.segment, **kept))
            quality.add(segment, coded.psnr_db, coded.ssim)
            n_evaluations += coded.n_evaluations
            if left is not None:
                left -= payload_size(replace(coded.segment, vector=None), self.header.sampler)
        stream = replace(self.stream, header=self.header, segments=tuple(finished), layout=())
        return stream, quality, n_evaluations

    def _steer(self, segment: Segment, size_bytes: float | None) -> CodedSegment:
        backbone, listener = self.backbone, self.listener
        original = self.spool.read(segment.first_frame, segment.n_frames)
        if segment.check is not None:
            likeness = drift_db(original, segment.check)
            if likeness is not None and likeness < _UNLIKE_DB:
                listener.warn(
                    f"the reference does not look like what the file shows (thumbnails {likeness:.0f} dB apart): is it "
                    "the original, and does it begin where the file does?"
                )
        frames = pad_frames(original, backbone.geometry.coded_frames(segment.n_frames))
        target = backbone.to_latents(frames)
        estimate = LatentEstimate(frames, target)
        caption = self.stream.caption_of(segment)
        sampler = self.header.sampler
        n_evaluations = 0
        with self.adapters.velocity(self.stream.header, segment, caption) as velocity:
            if self.options.method == "atoms":
                wanted = float(self.preset.steering.bytes) if size_bytes is None else size_bytes
                plan, index = self._plan(segment), segment.index
                arguments = (backbone, self._preset_of_picture(segment), velocity, frames, target, plan, index)
                injected, n_evaluations = inject_scene(
                    *arguments, size_bytes=wanted, listener=listener, on_step=estimate.shown_by(listener, 0)
                )
                if injected is None:
                    injected = inject_atoms(
                        velocity,
                        target,
                        plan,
                        index,
                        size_bytes=wanted,
                        reach=self.preset.steering.reach,
                        estimate=estimate,
                        listener=listener,
                    )
            else:
                n_bits = self.wanted_bits
                if size_bytes is not None:
                    n_bits = log2_candidates_within(size_bytes, sampler.n_steps, self.most_bits)
                injected = inject_indices(
                    velocity,
                    target,
                    sampler,
                    segment.index,
                    log2_candidates=n_bits,
                    estimate=estimate,
                    listener=listener,
                )
        return finished_segment(
            backbone,
            injected,
            original,
            index=segment.index,
            first_frame=segment.first_frame,
            vector=segment.vector,
            n_evaluations=n_evaluations,
        )
