"""What steering chose, from a file's bytes and the shape of its latents; no model."""

from __future__ import annotations

from vovcodec.backbone.geometry import LatentGeometry
from vovcodec.container import Segment, StreamHeader
from vovcodec.entropy.choices import Choices, decode_choices
from vovcodec.entropy.errors import BadCodedAtoms

__all__ = ["segment_atoms"]


def segment_atoms(header: StreamHeader, segment: Segment, geometry: LatentGeometry) -> tuple[Choices, int]:
    """The choices of every injection of a segment, and how many atoms those of its latents have.

    Raises BadCodedAtoms for what cannot have been chosen.
    """
    atoms = segment.atoms
    if atoms is None:
        return [], 0

    def n_positions(n_frames: int, size: tuple[int, int]) -> int:
        return atoms.n_positions(geometry.latent_shape(n_frames, *size))

    coded_size = header.coded_width, header.coded_height
    n_own = n_positions(geometry.coded_frames(segment.n_frames), coded_size)
    n_scene = atoms.scene_injections
    if not n_scene:
        return decode_choices(atoms.codebook, atoms.words, atoms.counts, n_own), n_own
    # A picture that a camera moves over may have more than the clip.
    n_picture = n_positions(1, atoms.picture_size(*coded_size))
    for counts, n_atoms in ((atoms.counts[:n_scene], n_picture), (atoms.counts[n_scene:], n_own)):
        if max(counts, default=0) > n_atoms:
            raise BadCodedAtoms(f"a path of {max(counts)} bits needs as many atoms, and there are {n_atoms}")
    n_most = max(n_own, n_picture)
    return decode_choices(atoms.codebook, atoms.words, atoms.counts, n_most), n_most
