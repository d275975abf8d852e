"""The packed indices of importance sampling (FORMAT.md, 6.3)."""

from __future__ import annotations

from collections.abc import Sequence

from vovcodec.container.errors import BadLength, NonCanonical

__all__ = ["pack_indices", "unpack_indices"]


def pack_indices(indices: Sequence[int], log2_candidates: int) -> bytes:
    """`log2_candidates` bits each, most significant first, one after the other; zero bits fill the last byte.

    Raises ValueError for an index that does not fit.
    """
    packed = 0
    for index in indices:
        if not 0 <= index < 1 << log2_candidates:
            raise ValueError(f"an index of {log2_candidates} bits is 0..{(1 << log2_candidates) - 1}, not {index}")
        packed = packed << log2_candidates | index
    n_bits = len(indices) * log2_candidates
    n_bytes = -(-n_bits // 8)
    return (packed << (8 * n_bytes - n_bits)).to_bytes(n_bytes, "big")


def unpack_indices(data: bytes, n_indices: int, log2_candidates: int) -> list[int]:
    """What `pack_indices` packed. Raises `BadLength` for another size, `NonCanonical` for padding that is not zero."""
    n_bits = n_indices * log2_candidates
    n_bytes = -(-n_bits // 8)
    if len(data) != n_bytes:
        raise BadLength(f"{n_indices} indices of {log2_candidates} bits take {n_bytes} bytes, here are {len(data)}")
    packed = int.from_bytes(data, "big")
    padding = 8 * n_bytes - n_bits
    if packed & ((1 << padding) - 1):
        raise NonCanonical("the bits after the last importance-sampling index must be zero")
    packed >>= padding
    mask = (1 << log2_candidates) - 1
    return [packed >> shift & mask for shift in range(n_bits - log2_candidates, -1, -log2_candidates)]
