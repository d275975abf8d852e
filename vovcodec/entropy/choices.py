"""How what steering chose is written: a trellis' path bits as they are, positions and signs range-coded."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from vovcodec.entropy.errors import BadCodedAtoms
from vovcodec.entropy.positions import coded_atoms_bits, decode_atoms, encode_atoms

__all__ = ["Choice", "Choices", "choices_bits", "decode_choices", "encode_choices", "same_choices"]

Choice = np.ndarray | tuple[np.ndarray, np.ndarray]
"""Of one injection: path bits uint8 [b] of a trellis, or sorted positions int64 [M] and signs int8 [M]."""

Choices = list[Choice]


def encode_choices(codebook: str, choices: Sequence[Choice], n_positions: int) -> bytes:
    """The bytes of all injections together; `n_positions`: atoms that an injection offers."""
    if codebook != "trellis":
        return encode_atoms(choices, n_positions)
    return np.packbits(np.concatenate([np.zeros(0, dtype=np.uint8), *choices])).tobytes()


def decode_choices(codebook: str, words: bytes, counts: Sequence[int], n_positions: int) -> Choices:
    """What `encode_choices` wrote, for `counts` bits or atoms per injection. Raises BadCodedAtoms."""
    if codebook != "trellis":
        return decode_atoms(words, counts, n_positions)
    total = sum(counts)
    if len(words) != -(-total // 8):
        raise BadCodedAtoms(f"{total} path bits take {-(-total // 8)} bytes, not {len(words)}")
    if any(count > n_positions for count in counts):
        raise BadCodedAtoms(f"a path of {max(counts)} bits needs as many atoms, and there are {n_positions}")
    bits = np.unpackbits(np.frombuffer(words, dtype=np.uint8))
    if bits[total:].any():
        raise BadCodedAtoms("a bit after the last path bit is not zero")
    return np.split(bits[:total], np.cumsum(counts)[:-1]) if counts else []


def choices_bits(codebook: str, counts: Sequence[int], n_positions: int) -> float:
    """Bits that `encode_choices` needs for such counts, at most; a path fills whole bytes."""
    return 8.0 * -(-sum(counts) // 8) if codebook == "trellis" else coded_atoms_bits(counts, n_positions)


def same_choices(a: Choices, b: Choices) -> bool:
    """Whether two lists hold the same choices."""
    return len(a) == len(b) and all(
        all(map(np.array_equal, x, y)) if isinstance(x, tuple) else np.array_equal(x, y)
        for x, y in zip(a, b, strict=True)
    )
