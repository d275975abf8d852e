"""Steering by importance sampling: the candidates and steps that the bytes pay for, and the indices of the chosen."""

from __future__ import annotations

import math

from torch import Tensor

from vovcodec.codec.injection import Injected, LatentEstimate
from vovcodec.codec.plans import importance_plan
from vovcodec.container import CodedIndices, Sampler
from vovcodec.container.indices import pack_indices
from vovcodec.errors import UsageError
from vovcodec.progress import ProgressListener
from vovcodec.sampling.importance import FEW_STEPS, select
from vovcodec.sampling.sampler import Velocity

__all__ = [
    "MOST_STEPS",
    "inject_indices",
    "left_by_indices",
    "log2_candidates_within",
    "steps_within",
    "warn_of_few_steps",
]

# The published range is 2^10 .. 2^18; fewer candidates are what few bytes leave.
MOST_LOG2_CANDIDATES = 18
MOST_STEPS = 1000


def log2_candidates_within(size_bytes: float, n_steps: int, most: int | None = None) -> int:
    """Bits per index so that the n_steps − 1 indices fit into `size_bytes`, at most `most`, by default 18.

    Raises UsageError when there is less than one bit for each.
    """
    if n_steps < 2:
        raise UsageError("importance sampling needs at least 2 steps: the last one carries nothing")
    n_bits = int(8 * size_bytes) // (n_steps - 1)
    if n_bits < 1:
        least = math.ceil((n_steps - 1) / 8)
        raise UsageError(
            f"{size_bytes:.0f} bytes are too few for {n_steps} steps of importance sampling, which take {least} or "
            "more; lower the steps or raise the byte target"
        )
    return min(most or MOST_LOG2_CANDIDATES, n_bits)


def steps_within(payload: float, lengths: list[int], wanted_bits: int, most_bits: int) -> int:
    """Steps of importance sampling, the same for all segments, that use up most of `payload` bytes.

    About 2^wanted_bits candidates at each, but whole bits per index waste less at some step counts than at others.
    lengths: frames per segment, by which the bytes are shared. most_bits: of an index.
    """
    most = max(1, int(8 * payload / len(lengths) / wanted_bits))

    def used(n_indices: int) -> float:
        try:
            return payload - left_by_indices(payload, lengths, n_indices + 1, most_bits)
        except UsageError:
            return 0

    choices = range(min(MOST_STEPS - 1, most), most * 3 // 4, -1)
    return 1 + max(choices or [MOST_STEPS - 1], key=used)


def left_by_indices(payload: float, lengths: list[int], n_steps: int, most_bits: int) -> float:
    """What importance sampling in so many steps leaves of `payload` bytes; lengths, most_bits: as in `steps_within`.

    Raises UsageError where a segment has not a bit for each of its indices.
    """
    frames_left = sum(lengths)
    for length in lengths:
        n_bits = log2_candidates_within(payload * length / frames_left, n_steps, most_bits)
        payload -= math.ceil((n_steps - 1) * n_bits / 8)
        frames_left -= length
    return payload


def inject_indices(
    velocity: Velocity,
    target: Tensor,
    sampler: Sampler,
    index: int,
    *,
    log2_candidates: int,
    estimate: LatentEstimate,
    listener: ProgressListener,
) -> Injected:
    """Importance sampling of segment `index` on the header's time grid, 2^log2_candidates candidates per step."""
    plan = importance_plan(sampler, log2_candidates)
    # The time goes into drawing candidates, not into the network: what to expect is no secret.
    listener.note(f"importance sampling: 2^{log2_candidates} candidates at each of {plan.n_indices} steps")
    listener.stage("steering", sampler.n_steps)
    indices, latents = select(velocity, target, plan, index, on_step=estimate.shown_by(listener))
    coded = CodedIndices(log2_candidates=log2_candidates, indices=pack_indices(indices, log2_candidates))
    return Injected(latents, plan.n_steps, importance=coded)


def warn_of_few_steps(sampler: Sampler, listener: ProgressListener) -> None:
    """Importance sampling makes pictures worse when its steps are few, whatever it costs."""
    if sampler.n_steps <= FEW_STEPS:
        listener.warn(
            f"importance sampling with {sampler.n_steps} steps: the method's own plot shows that {FEW_STEPS} or fewer "
            "make pictures worse than none; take more steps, or atoms"
        )
