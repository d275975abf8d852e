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

    def n_positions(n_frames: int) -> int:
        return atoms.n_positions(geometry.latent_shape(n_frames, header.coded_width, header.coded_height))

    n_picture, most = n_positions(1), max(atoms.counts[: atoms.scene_injections], default=0)
    if most > n_picture:
        raise BadCodedAtoms(f"a path of {most} bits needs as many atoms, and a picture of the scene has {n_picture}")
    n_own = n_positions(geometry.coded_frames(segment.n_frames))
    return decode_choices(atoms.codebook, atoms.words, atoms.counts, n_own), n_own
