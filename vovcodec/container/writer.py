"""`VovFile` to bytes (FORMAT.md, sections 2 to 10). Every value is checked before it is stored."""

from __future__ import annotations

from collections.abc import Iterable
from operator import attrgetter
from types import SimpleNamespace
from typing import Any

from vovcodec.container import layout as lay
from vovcodec.container.bits import BitCounter, BitWriter, leb128
from vovcodec.container.compressed import pack_caption, pack_history
from vovcodec.container.errors import FieldOutOfRange, LimitExceeded
from vovcodec.container.framing import checksum
from vovcodec.container.model import CodedAtoms, RawSection, Segment, StreamHeader, VovFile

__all__ = ["scene_bits", "segment_padding_bits", "serialize"]


def serialize(stream: VovFile) -> bytes:
    """The file as bytes.

    Raises `FieldOutOfRange` (or `BadCaption`, `BadHistory`, `LimitExceeded`) naming what cannot be stored. The result
    is a function of `stream` alone, except that compressed text may differ between zlib builds.
    """
    _check_segments(stream)
    prefix = lay.MAGIC + bytes([16 * lay.VERSION[0] + lay.VERSION[1]])
    out = bytearray(prefix)
    out += _section(lay.HEADER, _header_payload(stream.header), crc_of=prefix)
    if stream.caption is not None:
        deflated, stored = pack_caption(stream.caption, "caption")
        out += _section(lay.CAPTION, _fields(lay.CAPTION_FIELDS, {"caption_deflated": deflated}, "caption") + stored)
    first_offset, group_sizes = len(out), []
    for segment in stream.segments:
        start = len(out)
        out += _section(lay.SEGMENT, _segment_payload(segment, stream.header))
        out += _critical_sections(segment, stream.header)
        out += _raw_sections(segment.extras, lay.ANCILLARY | lay.OF_SEGMENT, f"segment {segment.index}")
        group_sizes.append(len(out) - start)
    tail_start = len(out)
    if stream.history:
        out += _section(lay.HISTORY, pack_history(stream.history))
    out += _raw_sections(stream.extras, lay.ANCILLARY, "file")
    if len(stream.segments) > 1:
        out += _index_section(stream, first_offset, group_sizes, len(out) - tail_start)
    return bytes(out)


def _section(type_: int, payload: bytes, crc_of: bytes = b"") -> bytes:
    """Type, length, payload, CRC. The header's CRC also covers the file's first bytes, given as `crc_of`."""
    framed = bytes([type_]) + leb128(len(payload)) + payload
    return framed + checksum(type_, crc_of + framed)


def _fields(fields: Iterable[Any], values: dict[str, Any], section: str) -> bytes:
    out = BitWriter()
    for field in fields:
        field.put(out, values, section)
    return out.to_bytes()


def _values_of(fields: Iterable[Any], source: object) -> dict[str, Any]:
    """Dotted names to values, for those names that `source` has."""
    values = {}
    for field in fields:
        for name in field.names:
            try:
                values[name] = attrgetter(name)(source)
            except AttributeError:
                continue  # an absent group (None) or a size, which the caller fills in
    return values


def _header_payload(header: StreamHeader) -> bytes:
    values = _values_of(lay.HEADER_FIELDS, header)
    values["has_adaptation"] = header.adaptation is not None
    payload = _fields(lay.HEADER_FIELDS, values, "header")
    for rule in lay.HEADER_RULES:
        rule.check(values, "header")
    return payload


def segment_padding_bits(segment: Segment, header: StreamHeader) -> int:
    """Zero bits between the fields of a SEGMENT section and its blobs: 0 to 7. Raises as `serialize`."""
    out = BitCounter()
    _put_segment(out, segment, header)
    return -out.n_bits % 8


def scene_bits(atoms: CodedAtoms) -> int:
    """What a file says about the picture of a scene besides the counts [bits]; 0 without one."""
    out = BitCounter()
    if not atoms.scene_injections:
        return 0
    values = _values_of(lay.SEGMENT_FIELDS, SimpleNamespace(atoms=atoms)) | {"has_atoms": True}
    for field in lay.SCENE_FIELDS:
        field.put(out, values, "atoms")
    return out.n_bits


def _segment_payload(segment: Segment, header: StreamHeader) -> bytes:
    out = BitWriter()
    contents = _put_segment(out, segment, header)
    return out.to_bytes() + contents


def _put_segment(out: BitWriter | BitCounter, segment: Segment, header: StreamHeader) -> bytes:
    """Append the fields; returns the blobs that follow them."""
    section = lay.section_name(lay.SEGMENT, segment.index)
    values = _values_of(lay.SEGMENT_FIELDS, segment)
    values["header"] = header
    contents: dict[str, bytes] = {}
    for blob in lay.BLOBS:
        values[blob.present] = getattr(segment, blob.present.removeprefix("has_")) is not None
        if not values[blob.present]:
            continue
        if blob.name == "caption":
            values["caption_deflated"], content = pack_caption(segment.caption or "", section)
        else:
            content = attrgetter(blob.name)(segment)
        contents[blob.name] = _checked_blob(blob, content, section)
        values[blob.size] = len(content)
    for field in lay.SEGMENT_FIELDS:
        field.put(out, values, section)
    for rule in lay.SEGMENT_RULES:
        rule.check(values, section)
    return b"".join(contents.values())


def _checked_blob(blob: lay.Blob, content: Any, section: str) -> bytes:
    if not isinstance(content, bytes):
        raise FieldOutOfRange(section, blob.name, type(content).__name__, "bytes")
    if len(content) > blob.size_max:
        raise LimitExceeded(f"{section}: {blob.name} has {len(content)} bytes, must be 0..{blob.size_max}")
    return content


def _critical_sections(segment: Segment, header: StreamHeader) -> bytes:
    """Further vectors of a segment and how its sampler goes on."""
    section = lay.section_name(lay.VECTOR, segment.index)
    n_merged = len(segment.merged)
    if n_merged > lay.MERGED_VECTORS_MAX:
        raise FieldOutOfRange(section, "number of vector sections", n_merged, f"0..{lay.MERGED_VECTORS_MAX}")
    out = b""
    for update in segment.merged:
        if update.vector is None or update.adaptation is None:
            raise FieldOutOfRange(section, "vector and adaptation", None, "given")
        values = _values_of(lay.VECTOR_FIELDS, update)
        contents = b""
        for blob in lay.VECTOR_BLOBS:
            content = _checked_blob(blob, attrgetter(blob.name)(update), section)
            values[blob.size] = len(content)
            contents += content
        out += _section(lay.VECTOR, _fields(lay.VECTOR_FIELDS, values, section) + contents)
    if segment.generation is not None:
        section = lay.section_name(lay.GENERATION, segment.index)
        values = _values_of(lay.GENERATION_FIELDS, segment.generation)
        values |= lay.generation_values(header, segment.atoms)
        payload = _fields(lay.GENERATION_FIELDS, values, section)
        for rule in lay.GENERATION_RULES:
            rule.check(values, section)
        out += _section(lay.GENERATION, payload)
    return out


def _raw_sections(extras: Iterable[RawSection], high_bits: int, owner: str) -> bytes:
    out = b""
    for extra in extras:
        own = extra.type & 0xC0 == high_bits and 0 <= extra.type <= 0xFF and extra.type != lay.HISTORY
        if not own:
            allowed = f"{high_bits:#x}..{high_bits + 0x3F:#x}, other than the history's {lay.HISTORY:#x}"
            raise FieldOutOfRange(owner, "type of an extra section", extra.type, allowed)
        if not isinstance(extra.payload, bytes):
            raise FieldOutOfRange(owner, "payload of an extra section", type(extra.payload).__name__, "bytes")
        out += _section(extra.type, extra.payload)
    return out


def _index_section(stream: VovFile, first_offset: int, group_sizes: list[int], tail_size: int) -> bytes:
    values: dict[str, Any] = {"header": stream.header, "first_offset": first_offset, "tail_size": tail_size}
    out = BitWriter()
    for field in lay.INDEX_HEAD:
        field.put(out, values, "index")
    for segment, group_size in zip(stream.segments, group_sizes, strict=True):
        entry = {"header": stream.header, "group_size": group_size, "n_frames": segment.n_frames}
        for field in lay.INDEX_ENTRY:
            field.put(out, entry, "index")
    for field in lay.INDEX_TAIL:
        field.put(out, values, "index")
    payload_size = len(out.to_bytes()) + lay.INDEX_TRAILER_SIZE
    section_size = 1 + len(leb128(payload_size)) + payload_size + lay.CRC_SIZE
    return _section(lay.INDEX, out.to_bytes() + section_size.to_bytes(lay.INDEX_TRAILER_SIZE, "big"))


def _check_segments(stream: VovFile) -> None:
    """Relations between segments; the field lists check everything inside one."""
    header, n_segments = stream.header, len(stream.segments)
    if stream.damage:
        raise FieldOutOfRange("file", "damage", len(stream.damage), "empty: a damaged file cannot be written again")
    if header.n_segments != n_segments:
        raise FieldOutOfRange("header", "n_segments", header.n_segments, f"{n_segments}, the segments given")
    first_frame = 0
    for number, segment in enumerate(stream.segments):
        section = lay.section_name(lay.SEGMENT, number)
        if segment.index != number:
            raise FieldOutOfRange(section, "index", segment.index, str(number))
        if segment.first_frame != first_frame:
            raise FieldOutOfRange(section, "first_frame", segment.first_frame, f"{first_frame}, where the last ended")
        first_frame += int(segment.n_frames)  # numpy integers overflow
    if first_frame != header.n_frames:
        raise FieldOutOfRange("header", "n_frames", header.n_frames, f"{first_frame}, the sum over the segments")
