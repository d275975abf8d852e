"""What an edit leaves of a file's steering, and how the sampler goes on after it.

Steering ends where the bytes ended, and there the sampler stops: the model's estimate is the picture. Cut shorter, that
estimate is a blur. So whatever is kept of the steered steps after an edit, the sampler then generates the rest of the
way, with pseudo-random noise on the same grid (FORMAT.md, "Times").
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from vovcodec.codec.truncate import AtomCutter, needed_geometry
from vovcodec.container import Generation, Segment, StreamHeader, VovFile
from vovcodec.container.counts import INJECTIONS_MAX
from vovcodec.container.indices import pack_indices, unpack_indices
from vovcodec.container.layout import padded_frames
from vovcodec.errors import UsageError
from vovcodec.sampling.schedule import full_grid_injections

__all__ = ["Kept", "keep_steering"]


@dataclass(frozen=True)
class Kept:
    """The stream, and how many steered steps its longest segment had and has now. drops_motion: pictures of scenes
    were kept as far as was asked for, what moves before them was not."""

    stream: VovFile
    n_before: int
    n_after: int
    drops_motion: bool


def keep_steering(before: VovFile, edited: VovFile, *, is_new_content: bool, share: float | None) -> Kept:
    """`edited`, with what is to be kept of the steering that `before` had.

    Args:
        before: the file as it was; `edited` has its first segments, perhaps at another size or length.
        is_new_content: caption or vectors were changed: by default nothing is kept.
        share: keep the first so many of the steered steps, 0 to 1, rounded to whole ones.

    Raises UsageError for a share of steering that does not apply to the new size or length, ModelError where the size
    of the latents cannot be told, FormatError for damaged atoms or indices.
    """
    old, new = before.header, edited.header
    is_resized = (old.coded_width, old.coded_height) != (new.coded_width, new.coded_height)
    segments, n_before, n_after, drops_motion = [], 0, 0, False
    for was, segment in zip(before.segments, edited.segments, strict=False):
        is_as_long = padded_frames(was.n_frames) == padded_frames(segment.n_frames)
        # A single frame has no scene: what it is steered to is the frame.
        is_reshaped = is_resized or not (is_as_long or (segment.n_frames > 1 and _holds_for_any_length(was)))
        if is_reshaped and share:
            raise UsageError("steering belongs to one size and length: leave out --keep-structure")
        n_steered = _n_steered(old, was)
        n_kept = n_steered
        if share is not None or is_reshaped or is_new_content:
            n_kept = math.floor((share or 0.0) * n_steered + 0.5)
            if was.atoms is not None and was.atoms.scene_injections:
                # What goes on, goes on in the picture: from there on everything would move with the new content.
                drops_motion = drops_motion or n_kept > was.atoms.scene_injections
                n_kept = min(n_kept, was.atoms.scene_injections)
            segment = _generating(_cut(segment, before.header, n_kept), new)
        if was.n_frames != segment.n_frames:
            segment = replace(segment, check=None)
        segments.append(segment)
        n_before, n_after = max(n_before, n_steered), max(n_after, n_kept)
    if any(segment.generation for segment in segments):
        new = replace(new, sampler=replace(new.sampler, sampler_id="eta"))
    return Kept(replace(edited, header=new, segments=tuple(segments)), n_before, n_after, drops_motion)


def _holds_for_any_length(segment: Segment) -> bool:
    """Whether all that it shows is one picture, before a camera that stands still."""
    atoms = segment.atoms
    return bool(atoms and atoms.scene_injections and not atoms.has_scene_and_clip and not atoms.camera_path)


def _n_steered(header: StreamHeader, segment: Segment) -> int:
    if segment.importance is not None:
        return (header.sampler.n_steps or 1) - 1
    return len(segment.atoms.counts) if segment.atoms else 0


def _cut(segment: Segment, header: StreamHeader, n_kept: int) -> Segment:
    """The first steered steps. Importance sampling goes on by itself: candidate 0 is as random as any other."""
    coded = segment.importance
    if coded is not None and n_kept:
        n_indices = _n_steered(header, segment)
        indices = unpack_indices(coded.indices, n_indices, coded.log2_candidates)
        indices = [*indices[:n_kept], *[0] * (n_indices - n_kept)]
        coded = replace(coded, indices=pack_indices(indices, coded.log2_candidates))
        return replace(segment, importance=coded)
    if segment.atoms is not None and 0 < n_kept < len(segment.atoms.counts):
        return AtomCutter(segment, header, needed_geometry(header)).cut(n_kept)
    return segment if n_kept else replace(segment, atoms=None, importance=None)


def _generating(segment: Segment, header: StreamHeader) -> Segment:
    """Without the check, which no longer holds, and with a sampler that goes on to the end."""
    sampler, generation = header.sampler, None
    if sampler.schedule == "snr":
        atoms = segment.atoms
        ratio_q = atoms.scene_ratio_q if atoms and atoms.scene_injections else sampler.snr_ratio_q
        n_injections = full_grid_injections(sampler.snr_start_q, ratio_q, INJECTIONS_MAX)
        if n_injections > (len(segment.atoms.counts) if segment.atoms else 0):
            generation = Generation(n_injections=n_injections)
    return replace(segment, check=None, generation=generation)
