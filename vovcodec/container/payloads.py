"""Section payloads to model objects, driven by the field lists (FORMAT.md, sections 4 to 8)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from vovcodec.container import layout as lay
from vovcodec.container.bits import BitReader
from vovcodec.container.compressed import unpack_caption
from vovcodec.container.counts import with_implied_last
from vovcodec.container.errors import FETCH_AGAIN, BadIndex, BadLength, LimitExceeded
from vovcodec.container.framing import Budget
from vovcodec.container.model import (
    Adaptation,
    CodedAtoms,
    CodedIndices,
    CodedVector,
    Generation,
    Sampler,
    Segment,
    SegmentCheck,
    StreamHeader,
    VectorUpdate,
)

__all__ = [
    "SegmentIndex",
    "read_caption",
    "read_generation",
    "read_header",
    "read_index",
    "read_segment",
    "read_vector",
]

Parts = tuple[tuple[str, int], ...]


def _group(values: dict[str, Any], prefix: str) -> dict[str, Any]:
    """The values named `prefix`.something, without the prefix."""
    return {name.removeprefix(prefix): value for name, value in values.items() if name.startswith(prefix)}


def _end(bits: BitReader, n_bytes: int) -> None:
    """All bytes used, or `BadLength`."""
    n_left = n_bytes - bits.align()
    if n_left:
        raise BadLength(f"{bits.section}: {n_left} bytes follow its last field; {FETCH_AGAIN}")


def read_header(payload: memoryview) -> StreamHeader:
    """The HEADER section's payload. Raises `FieldOutOfRange`, `NonCanonical` or `BadLength`."""
    bits, values = BitReader(payload, "header"), {}
    for field in lay.HEADER_FIELDS:
        field.get(bits, values)
    _end(bits, len(payload))
    for rule in lay.HEADER_RULES:
        rule.check(values, "header")
    adaptation = Adaptation(**_group(values, "adaptation.")) if values.pop("has_adaptation") else None
    plain = {name: value for name, value in values.items() if "." not in name}
    return StreamHeader(**plain, adaptation=adaptation, sampler=Sampler(**_group(values, "sampler.")))


def read_caption(payload: memoryview) -> str:
    """The shared CAPTION section's payload. Raises `BadCaption`, `NonCanonical` or `BadLength`."""
    bits, values = BitReader(payload, "caption"), {}
    for field in lay.CAPTION_FIELDS:
        field.get(bits, values)
    return unpack_caption(values["caption_deflated"], payload[bits.align() :], "caption")


def read_segment(
    payload: memoryview, header: StreamHeader, budget: Budget, number: int | None
) -> tuple[Segment, Parts]:
    """A SEGMENT section's payload, and the stored size of each of its blobs.

    `number` is only for messages, where the place in the file says which segment this must be.
    """
    section = lay.section_name(lay.SEGMENT, number) if number is not None else "segment"
    bits = BitReader(payload, section)
    values: dict[str, Any] = {"header": header, "budget": budget, "n_frames": header.n_frames}
    for field in lay.SEGMENT_FIELDS:
        field.get(bits, values)
    for rule in lay.SEGMENT_RULES:
        rule.check(values, section)
    blobs = _blobs(lay.BLOBS, payload, bits.align(), values, section)
    parts = tuple((name, len(view)) for name, view in blobs.items())
    if values["has_atoms"] and values["atoms.codebook"] == "trellis":
        values["atoms.counts"] = with_implied_last(values["atoms.counts"], len(blobs["atoms.words"]), section)
    if values["has_caption"]:
        caption = unpack_caption(values["caption_deflated"], blobs["caption"], section)
        budget.charge(4 * len(caption), section, "its caption")
    else:
        caption = None
    segment = Segment(
        index=values["index"],
        first_frame=values["first_frame"],
        n_frames=values["n_frames"],
        caption=caption,
        vector=_build(CodedVector, "vector.", values, blobs),
        atoms=_build(CodedAtoms, "atoms.", values, blobs),
        importance=_build(CodedIndices, "importance.", values, blobs),
        check=_build(SegmentCheck, "check.", values, blobs),
    )
    return segment, parts


def read_vector(payload: memoryview, section: str) -> tuple[VectorUpdate, Parts]:
    """A VECTOR section's payload, and the stored size of each of its blobs."""
    bits, values = BitReader(payload, section), {"has_vector": True}
    for field in lay.VECTOR_FIELDS:
        field.get(bits, values)
    blobs = _blobs(lay.VECTOR_BLOBS, payload, bits.align(), values, section)
    vector = _build(CodedVector, "vector.", values, blobs)
    update = VectorUpdate(adaptation=Adaptation(**_group(values, "adaptation.")), vector=vector)
    return update, tuple((name, len(view)) for name, view in blobs.items())


def read_generation(payload: memoryview, header: StreamHeader, atoms: CodedAtoms | None, section: str) -> Generation:
    """A GENERATION section's payload; `atoms`: of its segment."""
    bits = BitReader(payload, section)
    values: dict[str, Any] = lay.generation_values(header, atoms)
    for field in lay.GENERATION_FIELDS:
        field.get(bits, values)
    _end(bits, len(payload))
    for rule in lay.GENERATION_RULES:
        rule.check(values, section)
    return Generation(n_injections=values["n_injections"], eta_scale_q=values["eta_scale_q"])


def _blobs(
    expected: tuple[lay.Blob, ...], payload: memoryview, offset: int, values: dict[str, Any], section: str
) -> dict[str, memoryview]:
    """The blobs' views. A size that is not stored is the rest of the payload; all must cover it exactly."""
    blobs: dict[str, memoryview] = {}
    n_left = len(payload) - offset
    for blob in expected:
        if not values[blob.present]:
            continue
        size = values.get(blob.size, n_left)  # only the last blob's size is ever left out
        if size > n_left:
            raise BadLength(
                f"{section}: {blob.name} should have {size} bytes, the section has only {n_left} more; {FETCH_AGAIN}"
            )
        if size > blob.size_max:
            raise LimitExceeded(f"{section}: {blob.name} has {size} bytes, must be 0..{blob.size_max}; {FETCH_AGAIN}")
        blobs[blob.name] = payload[offset : offset + size]
        offset += size
        n_left -= size
    if n_left:
        raise BadLength(f"{section}: {n_left} bytes follow its last part; {FETCH_AGAIN}")
    return blobs


def _build(cls: type, prefix: str, values: dict[str, Any], blobs: dict[str, memoryview]) -> Any:
    """A part of a segment from its fields and blobs, or None if it is absent. Sizes are implied by the blobs."""
    if not values["has_" + prefix.removesuffix(".")]:
        return None
    arguments = {name: value for name, value in _group(values, prefix).items() if not name.endswith("_size")}
    contents = {name: bytes(view) for name, view in _group(blobs, prefix).items()}
    return cls(**arguments, **contents)


@dataclass(frozen=True, slots=True)
class SegmentIndex:
    """The INDEX section: where each segment's group of sections lies and how many frames it covers."""

    first_offset: int
    group_sizes: list[int]
    n_frames: list[int]
    tail_size: int
    section_size: int

    def check_span(self, offset: int) -> None:
        """`BadIndex` unless the groups and the tail end exactly where the INDEX section starts."""
        end = self.first_offset + sum(self.group_sizes) + self.tail_size
        if end != offset:
            raise BadIndex(f"index: it accounts for {end} bytes before it but stands at {offset}; {FETCH_AGAIN}")


def read_index(payload: memoryview, section_size: int, header: StreamHeader, budget: Budget) -> SegmentIndex:
    """The INDEX section's payload. Raises `BadIndex`, `FieldOutOfRange`, `NonCanonical` or `BadLength`."""
    bits, values = BitReader(payload, "index"), {"header": header}
    for field in lay.INDEX_HEAD:
        field.get(bits, values)
    budget.charge(80 * header.n_segments, "index", "its entries")
    group_sizes, n_frames = [], []
    for _ in range(header.n_segments):
        for field in lay.INDEX_ENTRY:
            field.get(bits, values)
        group_sizes.append(values["group_size"])
        n_frames.append(values["n_frames"])
    for field in lay.INDEX_TAIL:
        field.get(bits, values)
    bits.align()
    stated = bits.get(8 * lay.INDEX_TRAILER_SIZE)
    _end(bits, len(payload))
    if stated != section_size:
        raise BadIndex(f"index: it says that it has {stated} bytes but has {section_size}; {FETCH_AGAIN}")
    return SegmentIndex(values["first_offset"], group_sizes, n_frames, values["tail_size"], section_size)
