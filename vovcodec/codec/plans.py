"""Translation between what a file says and what the sampler takes; shared by all verbs."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction

from vovcodec.backbone.catalog import flow_shift
from vovcodec.container import TRELLIS_MEMORY, Adaptation, CodedAtoms, Sampler, Segment, StreamHeader
from vovcodec.errors import FormatError
from vovcodec.presets import Preset
from vovcodec.sampling.camera import Camera
from vovcodec.sampling.importance import ImportancePlan
from vovcodec.sampling.schedule import ETA_UNIT, ratio_to_q, shift_to_q8, start_to_q
from vovcodec.sampling.steering import SteeringPlan

__all__ = [
    "adaptation_of_preset",
    "camera_of_atoms",
    "coded_atoms",
    "frame_rate_of",
    "importance_plan",
    "plan_of_preset",
    "plan_of_segment",
    "sampler_of_preset",
    "scene_plan_of_preset",
    "scene_plan_of_segment",
    "shift_q8_of_preset",
]

# Names in the container ↔ names in sampling.
_CODEBOOKS = {"trellis": "trellis", "hadamard": "hadamard", "cyclic-shift": "cyclic"}


def plan_of_segment(header: StreamHeader, segment: Segment) -> SteeringPlan:
    """The decoder's plan for a segment on a signal-to-noise grid, steered or not; without what comes before it where
    there is a picture of the scene (`scene_plan_of_segment`).

    Raises FormatError for combinations that the format allows and this decoder does not know.
    """
    sampler, atoms, generation = header.sampler, segment.atoms, segment.generation
    if sampler.schedule != "snr":
        raise FormatError("steering on a shifted time grid is not supported by this version; update vovcodec")
    plan = SteeringPlan(seed=sampler.seed, snr_start_q=sampler.snr_start_q, snr_ratio_q=sampler.snr_ratio_q)
    if generation is not None:
        plan = replace(plan, n_injections=generation.n_injections, free_eta_scale_q=generation.eta_scale_q)
    if atoms is None:
        return plan
    plan = replace(
        plan,
        eta_scale_q=atoms.eta_scale_q,
        codebook=_CODEBOOKS[atoms.codebook],
        memory=atoms.memory,
        active_channels=atoms.active_channels,
        counts=atoms.counts,
        last_q=atoms.last_q,
    )
    n_scene = atoms.scene_injections
    if not n_scene:
        return plan
    before, counts = atoms.counts[:n_scene], atoms.counts[n_scene:]
    return replace(plan, snr_start_q=atoms.clip_start_q, before=before, counts=counts)


def scene_plan_of_segment(header: StreamHeader, segment: Segment) -> SteeringPlan | None:
    """The decoder's plan for the picture of the segment's scene; None where it has none."""
    atoms = segment.atoms
    if atoms is None or not atoms.scene_injections:
        return None
    return replace(
        plan_of_segment(header, segment),
        snr_start_q=header.sampler.snr_start_q,
        snr_ratio_q=atoms.scene_ratio_q,
        before=(),
        counts=atoms.counts[: atoms.scene_injections],
        last_q=atoms.scene_last_q if atoms.has_scene_and_clip else atoms.last_q,
    )


def camera_of_atoms(atoms: CodedAtoms | None) -> Camera | None:
    """How the camera moves over the picture of a segment's scene; None where it stands still or there is none."""
    if atoms is None or not atoms.camera_path:
        return None
    return Camera(
        path=atoms.camera_path,
        step_q=atoms.camera_step_q,
        margin=(atoms.margin_x, atoms.margin_y),
        crop=(atoms.crop_left, atoms.crop_right, atoms.crop_top, atoms.crop_bottom),
    )


def coded_atoms(
    plan: SteeringPlan, words: bytes, scene: SteeringPlan | None = None, camera: Camera | None = None
) -> CodedAtoms:
    """The file's form of a plan and its coded choices.

    scene: the plan of the picture before it, `plan` itself where there is nothing else. camera: how that is seen.
    """
    names = {value: key for key, value in _CODEBOOKS.items()}
    atoms = CodedAtoms(
        codebook=names[plan.codebook],
        memory=plan.memory if plan.codebook == "trellis" else TRELLIS_MEMORY,
        counts=(*plan.before, *plan.counts),
        last_q=plan.last_q,
        eta_scale_q=plan.eta_scale_q,
        active_channels=plan.active_channels,
        words=words,
    )
    if scene is None:
        return atoms
    atoms = replace(atoms, scene_injections=len(scene.counts), scene_ratio_q=scene.snr_ratio_q)
    if camera is not None:
        left, right, top, bottom = camera.crop
        atoms = replace(
            atoms,
            camera_path=camera.path,
            camera_step_q=camera.step_q,
            margin_x=camera.margin[0],
            margin_y=camera.margin[1],
            crop_left=left,
            crop_right=right,
            crop_top=top,
            crop_bottom=bottom,
        )
    if scene is plan:
        return atoms
    return replace(atoms, scene_last_q=scene.last_q, clip_start_q=plan.snr_start_q)


def importance_plan(sampler: Sampler, log2_candidates: int) -> ImportancePlan:
    """The plan of a segment with importance-sampling indices.

    Raises FormatError for a header that such a segment cannot have.
    """
    if sampler.schedule != "shift" or sampler.sampler_id != "eta":
        raise FormatError("importance-sampling indices need the schedule shift and the sampler eta; the file is wrong")
    return ImportancePlan(
        seed=sampler.seed, n_steps=sampler.n_steps, shift_q8=sampler.shift_q8, log2_candidates=log2_candidates
    )


def plan_of_preset(preset: Preset, *, is_still: bool) -> SteeringPlan:
    """The encoder's plan before the number of atoms is known."""
    steering = preset.steering
    snr_ratio = steering.still_snr_ratio if is_still and steering.still_snr_ratio else steering.snr_ratio
    return SteeringPlan(
        seed=preset.sampler.seed,
        snr_start_q=start_to_q(steering.snr_start),
        snr_ratio_q=ratio_to_q(snr_ratio),
        eta_scale_q=round(ETA_UNIT * steering.eta_scale),
        codebook=steering.codebook,
        memory=steering.memory,
        active_channels=steering.active_channels,
    )


def scene_plan_of_preset(preset: Preset, plan: SteeringPlan) -> SteeringPlan:
    """The encoder's plan for the picture of a clip's scene, beside `plan`, the clip's."""
    steering = preset.steering
    return replace(plan, snr_ratio_q=ratio_to_q(steering.still_snr_ratio or steering.snr_ratio), is_scene=True)


def adaptation_of_preset(preset: Preset) -> Adaptation | None:
    """What a header says about vectors of these settings; None where they ask for none."""
    chosen = preset.adaptation
    if not chosen.vector_length:
        return None
    return Adaptation(
        projection_id=chosen.projection,
        projection_seed=preset.sampler.seed,
        rank=chosen.rank,
        targets=chosen.targets,
        last_blocks=chosen.last_blocks or 0,
        vector_length=chosen.vector_length,
    )


def shift_q8_of_preset(preset: Preset, backbone_id: str, size: tuple[int, int], *, is_still: bool) -> int:
    """The header's flow shift, in 1/256: the preset's, else what the model was published with for the coded `size`."""
    sampler = preset.sampler
    shift = sampler.still_shift if is_still and sampler.still_shift else sampler.shift
    return shift_to_q8(flow_shift(backbone_id, *size) if shift is None else shift)


def sampler_of_preset(preset: Preset, backbone_id: str, size: tuple[int, int], *, is_still: bool) -> Sampler:
    """The header's sampler: a signal-to-noise grid for atoms, a shifted time grid otherwise.

    size: coded width and height in px.
    """
    sampler = preset.sampler
    if preset.steering.method == "atoms":
        plan = plan_of_preset(preset, is_still=is_still)
        return Sampler(
            sampler_id="eta",
            seed=sampler.seed,
            schedule="snr",
            snr_start_q=plan.snr_start_q,
            snr_ratio_q=plan.snr_ratio_q,
        )
    sampler_id = "eta" if preset.steering.method == "importance" else "ode"
    shift_q8 = shift_q8_of_preset(preset, backbone_id, size, is_still=is_still)
    return Sampler(sampler_id=sampler_id, seed=sampler.seed, n_steps=sampler.steps, shift_q8=shift_q8)


def frame_rate_of(header: StreamHeader) -> Fraction:
    """Frames per second, exact; 0 for a still."""
    return Fraction(header.frame_rate_num, header.frame_rate_den)
