"""The decoder's half, used by decode, scale and the encoder's own check: file data → adapted model → latents."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from vovcodec.adaptation.lowrank import LowRankAdapter
from vovcodec.backbone.catalog import model_facts
from vovcodec.backbone.locate import is_cached_revision
from vovcodec.backbone.protocol import Backbone, Scene
from vovcodec.codec.chosen import segment_atoms
from vovcodec.codec.measure import n_realism_steps
from vovcodec.codec.models import BackboneCache
from vovcodec.codec.plans import camera_of_atoms, importance_plan, plan_of_segment, scene_plan_of_segment
from vovcodec.container import Adaptation, CodedAtoms, Segment, StreamHeader, VectorUpdate
from vovcodec.container.indices import unpack_indices
from vovcodec.entropy.quantizer import dequantize
from vovcodec.entropy.symbols import decode_symbols
from vovcodec.errors import FormatError, ModelError
from vovcodec.sampling.camera import CameraPath
from vovcodec.sampling.importance import ImportancePlan, replay
from vovcodec.sampling.realism import with_realism
from vovcodec.sampling.sampler import OnStep, Velocity, initial_noise, sample
from vovcodec.sampling.scene import SceneVelocity
from vovcodec.sampling.schedule import time_grid
from vovcodec.sampling.steering import SteeringPlan, follow

__all__ = [
    "Adapters",
    "adapted_velocity",
    "load_matching_backbone",
    "make_adapter",
    "regenerate_latents",
    "seen_scene",
    "segment_indices",
    "shown_frames",
    "theta_of",
    "usual_revision",
]


def usual_revision(header: StreamHeader, path: Path | str | None) -> str | None:
    """The revision of the base model that is loaded for a file: its own where the hub's cache has it and no `path` is
    given, else None, the newest there is."""
    facts = model_facts(header.backbone_id)
    is_own = facts is not None and path is None and is_cached_revision(facts, header.backbone_revision)
    return header.backbone_revision if is_own else None


def load_matching_backbone(
    header: StreamHeader, *, device: str, force: bool, path=None, backbones: BackboneCache | None = None
) -> Backbone:
    """The base model a file was made with; `backbones` may have it already.

    Without a `path` the hub's cache is asked for the revision in the header before its newest one.

    Raises ModelError, naming both fingerprints, when the weights at hand differ and `force` is False, FormatError for a
    coded size that this model cannot have.
    """
    load, revision = (backbones or BackboneCache()).load, usual_revision(header, path)
    backbone = load(header.backbone_id, path=path, revision=revision, device=device, precision=header.precision)
    if backbone.fingerprint != header.fingerprint and not force:
        origin = f" (hub revision {header.backbone_revision[:12]})" if header.backbone_revision else ""
        raise ModelError(
            f"this file was made with {header.backbone_id} weights {header.fingerprint.hex()}{origin}, but the ones "
            f"here are {backbone.fingerprint.hex()}; name the folder of the matching ones with --model, or go on with "
            "--force"
        )
    multiple = backbone.geometry.size_multiple
    if header.coded_width % multiple or header.coded_height % multiple:
        size = f"{header.coded_width}x{header.coded_height}"
        raise FormatError(f"the coded size {size} is no multiple of {multiple}, as {header.backbone_id} needs")
    return backbone


def make_adapter(backbone: Backbone, adaptation: Adaptation) -> LowRankAdapter:
    """The low-rank layers a header describes, with its strength."""
    adapter = LowRankAdapter(
        backbone.adaptable_linears(adaptation.targets, adaptation.last_blocks),
        rank=adaptation.rank,
        vector_length=adaptation.vector_length,
        seed=adaptation.projection_seed,
        device=backbone.device,
        offset=adaptation.projection_id == "offset-philox",
    )
    adapter.strength = adaptation.strength
    return adapter


class _SamplerVelocity:
    """v(x_t, t) of a backbone with a caption, as the sampler takes it; `last`: see `sampler.Velocity`.

    With a guidance g other than 1 it is v(empty) + g·(v(caption) − v(empty)) (Ho and Salimans 2022).
    """

    def __init__(self, backbone: Backbone, caption: str, guidance: float) -> None:
        self._backbone, self._guidance = backbone, guidance
        self._condition = backbone.embed_caption(caption)
        self._empty = backbone.embed_caption("") if guidance != 1.0 and caption else None

    def __call__(self, x_t: Tensor, t: float) -> Tensor:
        return self._guided(x_t, t, last=False)

    def last(self, x_t: Tensor, t: float) -> Tensor:
        return self._guided(x_t, t, last=True)

    def _guided(self, x_t: Tensor, t: float, *, last: bool) -> Tensor:
        velocity = self._backbone.sampler_velocity(x_t, t, self._condition, last=last)
        if self._empty is None:
            return velocity
        empty = self._backbone.sampler_velocity(x_t, t, self._empty, last=last)
        return empty + self._guidance * (velocity - empty)


@contextmanager
def adapted_velocity(
    backbone: Backbone,
    caption: str,
    adapter: LowRankAdapter | None,
    theta: np.ndarray | Tensor | None,
    *,
    for_fitting: bool = False,
    guidance: float = 1.0,
) -> Iterator[Velocity]:
    """v(x_t, t) with a caption and, where there is one, a vector θ.

    for_fitting: one network evaluation each, whatever the sampler takes. guidance: see `_SamplerVelocity`.
    """
    if for_fitting:
        condition = backbone.embed_caption(caption)

        def velocity(x_t: Tensor, t: float) -> Tensor:
            return backbone.velocity(x_t, t, condition)

    else:
        velocity = _SamplerVelocity(backbone, caption, guidance)
    if adapter is None:
        yield velocity
        return
    with adapter.attached():
        if theta is not None:
            adapter.materialize(torch.as_tensor(theta, dtype=torch.float32, device=backbone.device))
        yield velocity


def theta_of(update: VectorUpdate) -> np.ndarray:
    """θ̂ float32 [k] of a coded vector."""
    symbols = decode_symbols(update.vector.model, update.vector.words, update.adaptation.vector_length)
    return dequantize(symbols, update.vector.step_size_q)


class Adapters:
    """The low-rank layers for all vectors of a stream, made once and used for every segment."""

    def __init__(self, backbone: Backbone) -> None:
        self._backbone = backbone
        self._made: dict[int, tuple[Adaptation, LowRankAdapter]] = {}

    @contextmanager
    def velocity(
        self, header: StreamHeader, segment: Segment, caption: str, *, guidance: float = 1.0
    ) -> Iterator[Velocity]:
        """v(x_t, t) with a caption and all updates of a segment, ΔW = Σ strength_j·ΔW(θ̂_j) (FORMAT.md, "Projection").

        Raises FormatError for symbols that cannot be decoded.
        """
        with ExitStack() as stack:
            for number, update in enumerate(segment.updates(header.adaptation)):
                adapter = self._adapter(number, update.adaptation)
                stack.enter_context(adapter.attached())
                adapter.materialize(torch.from_numpy(theta_of(update)).to(self._backbone.device))
            yield stack.enter_context(adapted_velocity(self._backbone, caption, None, None, guidance=guidance))

    def _adapter(self, number: int, adaptation: Adaptation) -> LowRankAdapter:
        """That of a segment's vector `number`: two vectors need two sets of factors at the same time.

        Segments nearly always agree; where they do not, it is made anew, so that a file cannot ask for very many.
        """
        layers = replace(adaptation, strength_q8=256)
        made, adapter = self._made.get(number, (None, None))
        if made != layers:
            adapter = make_adapter(self._backbone, adaptation)
            self._made[number] = layers, adapter
        adapter.strength = adaptation.strength
        return adapter


def segment_indices(header: StreamHeader, segment: Segment) -> list[int]:
    """Candidate of every step of a segment with importance sampling; empty for others.

    Raises FormatError for indices of another number, and beside atoms.
    """
    if segment.importance is None:
        return []
    if segment.atoms is not None:
        raise FormatError("a segment has atoms and importance-sampling indices; it can be steered by one of them only")
    plan = importance_plan(header.sampler, segment.importance.log2_candidates)
    return unpack_indices(segment.importance.indices, plan.n_indices, plan.log2_candidates)


def shown_frames(backbone: Backbone, latents: Tensor, atoms: CodedAtoms | None, n_frames: int) -> np.ndarray:
    """The frames of a segment with these `atoms`, uint8 [n_frames, H, W, 3]; a picture of its scene stands for all of
    them, the camera moving over it if it does. Raises FormatError as `regenerate_latents`."""
    if latents.shape[2] == 1 and camera_of_atoms(atoms) is not None:
        stride = backbone.geometry.space_stride
        margin_x, margin_y = atoms.picture_size(0, 0)
        height, width = (stride * n for n in latents.shape[-2:])
        n_coded_frames = backbone.geometry.coded_frames(n_frames)
        return seen_scene(backbone, atoms, n_coded_frames, width - margin_x, height - margin_y).shown(latents, n_frames)
    frames = backbone.to_frames(latents)
    return frames[:n_frames] if len(frames) > 1 else np.repeat(frames, n_frames, axis=0)


def seen_scene(backbone: Backbone, atoms: CodedAtoms, n_coded_frames: int, width: int, height: int) -> Scene:
    """The scene that a segment with these `atoms` rests on, before its camera; width, height: of the frames.

    Raises FormatError for a model that knows no scenes.
    """
    if backbone.scene is None:
        raise FormatError(f"clips that rest on a picture of their scene are nothing that {backbone.id} knows")
    camera = camera_of_atoms(atoms)
    if camera is None:
        return backbone.scene
    return backbone.scene.seen_by(CameraPath(camera, n_coded_frames, width, height, backbone.device))


def regenerate_latents(
    backbone: Backbone,
    header: StreamHeader,
    segment: Segment,
    caption: str,
    adapters: Adapters,
    *,
    n_coded_frames: int,
    n_steps: int | None = None,
    guidance: float = 1.0,
    realism: float = 0.0,
    on_step: OnStep | None = None,
) -> Tensor:
    """Latents of one segment, from the file and the model alone: those of a still where it is nothing but a picture of
    its scene (`shown_frames`).

    Args:
        adapters: of the stream.
        n_coded_frames: 4n+1 frames to generate.
        n_steps: stop after so many steps and return the estimate x̂₀ reached (a preview).
        guidance: by how much to exaggerate the caption; 1 = as the file was made.
        realism: 0 = the mean of what the file can mean, 1 = one such picture (sampling/realism.py); not of a preview.
        on_step: called as in `sampler.sample`.
    """
    shape = backbone.geometry.latent_shape(n_coded_frames, header.coded_width, header.coded_height)
    atoms, indices = segment_atoms(header, segment, backbone.geometry)[0], segment_indices(header, segment)
    state: list[tuple[float, Tensor]] = []

    scene_plan = scene_plan_of_segment(header, segment)
    has_clip = scene_plan is not None and segment.atoms.has_scene_and_clip
    coded_size = header.coded_width, header.coded_height
    needs_scene = has_clip or camera_of_atoms(segment.atoms) is not None
    scene = seen_scene(backbone, segment.atoms, n_coded_frames, *coded_size) if needs_scene else None

    def watch(t: float, x_t: Tensor, clean: Tensor) -> None:
        state[:] = [(t, x_t)]
        if on_step is not None:
            on_step(t, x_t, clean)

    def watch_clip(t: float, x_t: Tensor, clean: Tensor) -> None:
        if t < 1.0:  # where nothing is evaluated
            watch(t, x_t, clean)

    with adapters.velocity(header, segment, caption, guidance=guidance) as velocity:
        plan = _plan(header, segment)
        device = backbone.device
        if scene_plan is not None:
            size = backbone.geometry.latent_shape(1, *segment.atoms.picture_size(*coded_size))
            n_scene = len(scene_plan.counts)
            chosen, moves = atoms[:n_scene], atoms[n_scene:]
            clean = follow(velocity, chosen, scene_plan, segment.index, size, device, on_step=watch, n_steps=n_steps)
            # The clip's first estimate is known and none of the steps, of which the picture had n_scene + 1.
            n_clip = None if n_steps is None else n_steps - n_scene
            if has_clip and (n_clip is None or n_clip > 1):
                standing = scene.standing(clean, n_coded_frames)
                velocity = SceneVelocity(velocity, standing, scene.impose, scene.along_motion)
                clean = follow(velocity, moves, plan, segment.index, shape, device, on_step=watch_clip, n_steps=n_clip)
        elif isinstance(plan, SteeringPlan):
            clean = follow(velocity, atoms, plan, segment.index, shape, device, on_step=watch, n_steps=n_steps)
        elif isinstance(plan, ImportancePlan):
            clean = replay(velocity, indices, plan, segment.index, shape, device, on_step=watch, n_steps=n_steps)
        else:
            noise = initial_noise(header.sampler.seed, segment.index, shape).to(device)
            clean = sample(velocity, noise, plan, [], None, watch, n_steps)
        if not realism or n_steps is not None or not n_realism_steps(header, segment):
            return clean
        t, x_t = state[0]
        return with_realism(velocity, x_t, clean, t, realism, on_step)


def _plan(header: StreamHeader, segment: Segment) -> SteeringPlan | ImportancePlan | list[float]:
    """What the sampler of a segment follows; the times of one without choices. Raises FormatError."""
    sampler = header.sampler
    if sampler.schedule == "snr" or segment.atoms is not None:
        return plan_of_segment(header, segment)  # which refuses atoms on another schedule
    if segment.importance is not None:
        return importance_plan(sampler, segment.importance.log2_candidates)
    return time_grid(sampler.n_steps, sampler.shift_q8)
