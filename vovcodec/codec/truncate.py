"""A steered file made smaller by dropping its last injections: no network, no original."""

from __future__ import annotations

from dataclasses import replace

from vovcodec.backbone.geometry import LatentGeometry, known_geometry
from vovcodec.codec.chosen import segment_atoms
from vovcodec.container import CodedAtoms, Generation, Segment, StreamHeader, VovFile, serialize
from vovcodec.container.counts import INJECTIONS_MAX
from vovcodec.entropy.choices import encode_choices
from vovcodec.errors import ModelError, UsageError
from vovcodec.sampling.schedule import full_grid_injections

__all__ = ["AtomCutter", "needed_geometry", "truncated"]


class AtomCutter:
    """One segment at every length; `n_injections` as it is, 0 = without atoms. Raises FormatError for damaged atoms."""

    def __init__(self, segment: Segment, header: StreamHeader, geometry: LatentGeometry) -> None:
        self._segment, self._made, self._sampler = segment, {}, header.sampler
        atoms = segment.atoms
        self.n_injections = len(atoms.counts) if atoms else 0
        if atoms:
            self._chosen, self._n_positions = segment_atoms(header, segment, geometry)

    def cut(self, n_injections: int) -> Segment:
        """The first so many injections. The check goes, since the picture is another one."""
        if n_injections >= self.n_injections:
            return self._segment
        if n_injections not in self._made:
            atoms = None
            if n_injections:
                kept = self._chosen[:n_injections]
                words = encode_choices(self._segment.atoms.codebook, kept, self._n_positions)
                atoms = self._segment.atoms.cut(n_injections, words)
            self._made[n_injections] = replace(
                self._segment, atoms=atoms, generation=self._generation(atoms), check=None
            )
        return self._made[n_injections]

    def _generation(self, atoms: CodedAtoms | None) -> Generation | None:
        """How the sampler goes on; without the picture of a scene on the clip's grid, which may have fewer steps."""
        generation, before, sampler = self._segment.generation, self._segment.atoms, self._sampler
        if generation is None or atoms is not None or not before.scene_injections:
            return generation
        n_injections = full_grid_injections(sampler.snr_start_q, sampler.snr_ratio_q, INJECTIONS_MAX)
        return replace(generation, n_injections=n_injections)


def needed_geometry(header: StreamHeader) -> LatentGeometry:
    """How the file's model maps frames to latents, without loading it. Raises ModelError where that cannot be told."""
    geometry = known_geometry(header.backbone_id, header.fingerprint)
    if geometry is None:
        raise ModelError(
            f"the model {header.backbone_id} {header.fingerprint.hex()} is not the one here, so the size of its "
            "latents is unknown; set $VOVCODEC_MODELS to where it is"
        )
    return geometry


def truncated(stream: VovFile, target_bytes: int) -> VovFile:
    """The stream with as many injections as fit into a file of `target_bytes`.

    All segments keep equally many, the first ones perhaps one more. Injections are dropped whole, so the result may be
    well below the target.

    Raises UsageError when there is nothing to drop, no need to, or not enough; ModelError when the size of the latents
    cannot be told; FormatError for damaged atoms.
    """
    header = stream.header
    if not any(segment.atoms for segment in stream.segments):
        raise UsageError("this file has no atoms that could be dropped; give --reference ORIGINAL to steer it anew")
    size_bytes = len(serialize(stream))
    if size_bytes <= target_bytes:
        raise UsageError(f"the file has {size_bytes} bytes already; to make it better, give --reference ORIGINAL")
    geometry = needed_geometry(header)
    cutters = [AtomCutter(segment, header, geometry) for segment in stream.segments]

    def cut(kept: list[int]) -> VovFile:
        segments = tuple(cutter.cut(n) for cutter, n in zip(cutters, kept, strict=True))
        return replace(stream, segments=segments, layout=())

    n_segments = len(cutters)

    def kept(n_all: int) -> list[int]:
        """Injections of every segment, `n_all` of them together."""
        each, n_more = divmod(n_all, n_segments)
        return [each + (number < n_more) for number in range(n_segments)]

    least, too_many = 0, n_segments * max(cutter.n_injections for cutter in cutters)
    bare = len(serialize(cut(kept(0))))
    if bare > target_bytes:
        raise UsageError(f"{target_bytes} bytes are too few: without any steering the file still has {bare}")
    while too_many - least > 1:
        middle = (least + too_many) // 2
        fits = len(serialize(cut(kept(middle)))) <= target_bytes
        least, too_many = (middle, too_many) if fits else (least, middle)
    return cut(kept(least))
