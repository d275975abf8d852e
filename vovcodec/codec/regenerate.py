"""The decoder's half, used by decode, scale and the encoder's own check: file data → adapted model → latents."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch
from torch import Tensor

from vovcodec.adaptation.lowrank import LowRankAdapter
from vovcodec.backbone.protocol import Backbone
from vovcodec.codec.plans import importance_plan, plan_of_segment
from vovcodec.container import Adaptation, Segment, StreamHeader
from vovcodec.container.indices import unpack_indices
from vovcodec.entropy.positions import decode_atoms
from vovcodec.entropy.quantizer import dequantize
from vovcodec.entropy.symbols import decode_symbols
from vovcodec.errors import FormatError, ModelError
from vovcodec.sampling.importance import replay
from vovcodec.sampling.sampler import OnStep, Velocity, initial_noise, sample
from vovcodec.sampling.schedule import time_grid
from vovcodec.sampling.steering import Atoms, follow

__all__ = [
    "adapted_velocity",
    "load_matching_backbone",
    "make_adapter",
    "regenerate_latents",
    "segment_atoms",
    "segment_indices",
]


def load_matching_backbone(header: StreamHeader, *, device: str, force: bool, path=None) -> Backbone:
    """The base model a file was made with.

    Raises ModelError, naming both fingerprints, when the weights at hand differ and `force` is False, FormatError for a
    coded size that this model cannot have.
    """
    from vovcodec.backbone.registry import load_backbone

    backbone = load_backbone(header.backbone_id, path=path, device=device, precision=header.precision)
    if backbone.fingerprint != header.fingerprint and not force:
        raise ModelError(
            f"this file was made with {header.backbone_id} weights {header.fingerprint.hex()}, but the ones here are "
            f"{backbone.fingerprint.hex()}; name the folder of the matching ones with --model, or go on with --force"
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


@contextmanager
def adapted_velocity(
    backbone: Backbone, caption: str, adapter: LowRankAdapter | None, theta: np.ndarray | Tensor | None
) -> Iterator[Velocity]:
    """v(x_t, t) with a caption and, where there is one, a vector θ."""
    condition = backbone.embed_caption(caption)

    def velocity(x_t: Tensor, t: float) -> Tensor:
        return backbone.velocity(x_t, t, condition)

    if adapter is None:
        yield velocity
        return
    with adapter.attached():
        if theta is not None:
            adapter.materialize(torch.as_tensor(theta, dtype=torch.float32, device=backbone.device))
        yield velocity


def segment_theta(header: StreamHeader, segment: Segment) -> np.ndarray | None:
    """θ̂ float32 [k] of a segment, None without a vector."""
    if segment.vector is None:
        return None
    if header.adaptation is None:
        raise FormatError("a segment holds a vector, but the header says nothing about an adaptation")
    symbols = decode_symbols(segment.vector.model, segment.vector.words, header.adaptation.vector_length)
    return dequantize(symbols, segment.vector.step_size_q)


def segment_atoms(header: StreamHeader, segment: Segment, shape: tuple[int, ...]) -> Atoms:
    """Positions and signs of every injection of a segment for latents of `shape`."""
    if segment.atoms is None:
        return []
    plan = plan_of_segment(header, segment)
    return decode_atoms(segment.atoms.words, list(plan.counts), plan.n_positions(shape))


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


def regenerate_latents(
    backbone: Backbone,
    header: StreamHeader,
    segment: Segment,
    caption: str,
    adapter: LowRankAdapter | None,
    *,
    n_coded_frames: int,
    n_evaluations: int | None = None,
    on_step: OnStep | None = None,
) -> Tensor:
    """Latents of one segment, from the file and the model alone.

    Args:
        adapter: made by `make_adapter`; needed when the segment has a vector.
        n_coded_frames: 4n+1 frames to generate.
        n_evaluations: stop after so many network evaluations and return the estimate x̂₀ reached (a preview).
        on_step: called as in `sampler.sample`.
    """
    shape = backbone.geometry.latent_shape(n_coded_frames, header.coded_width, header.coded_height)
    theta = segment_theta(header, segment)
    atoms, indices = segment_atoms(header, segment, shape), segment_indices(header, segment)
    with adapted_velocity(backbone, caption, adapter if theta is not None else None, theta) as velocity:
        if segment.atoms is not None:
            plan = plan_of_segment(header, segment)
            return follow(
                velocity,
                atoms,
                plan,
                segment.index,
                shape,
                backbone.device,
                on_step=on_step,
                n_evaluations=n_evaluations,
            )
        if segment.importance is not None:
            return replay(
                velocity,
                indices,
                importance_plan(header.sampler, segment.importance.log2_candidates),
                segment.index,
                shape,
                backbone.device,
                on_step=on_step,
                n_evaluations=n_evaluations,
            )
        noise = initial_noise(header.sampler.seed, segment.index, shape).to(backbone.device)
        if header.sampler.schedule == "snr":  # nothing was injected: the first estimate is the picture
            times = [1.0, 0.0]
        else:
            times = time_grid(header.sampler.n_steps, header.sampler.shift_q8)
        return sample(velocity, noise, times, [], None, on_step, n_evaluations)
