"""What a `.vov` file holds, for people and for programs; driven by the same field lists as reading and writing."""

from __future__ import annotations

from operator import attrgetter
from typing import Any

from vovcodec.container import layout as lay
from vovcodec.container.model import Segment, StreamHeader, VovFile
from vovcodec.container.reader import parse
from vovcodec.container.writer import serialize

__all__ = ["describe", "describe_lines", "overhead_bytes"]


def _plain(value: Any) -> Any:
    """JSON-ready: bytes as hexadecimal text, tuples as lists."""
    if isinstance(value, bytes):
        return value.hex()
    return [_plain(each) for each in value] if isinstance(value, tuple) else value


def _dump(fields: tuple[Any, ...], source: object) -> dict[str, Any]:
    """Nested values in the order of the field list; what `source` does not have is left out."""
    dump: dict[str, Any] = {}
    for field in fields:
        for name in field.names:
            try:
                value = _plain(attrgetter(name)(source))
            except AttributeError:
                continue
            *group, leaf = name.split(".")
            (dump.setdefault(group[0], {}) if group else dump)[leaf] = value
    return dump


def overhead_bytes(stream: VovFile) -> int:
    """Bytes of the file that are neither caption text, entropy model, words, indices nor sound.

    `stream` must come from the reader (its `layout` is used).
    """
    total = lay.PREFIX_SIZE
    for section in stream.layout:
        content = sum(size for name, size in section.parts if name != "check.thumbnail")
        if section.type == lay.AUDIO:
            content = section.size_bytes - lay.framing_size_min(lay.AUDIO)
        if section.type == lay.CAPTION:
            content = section.size_bytes - lay.framing_size_min(lay.CAPTION) - 1
        total += section.size_bytes - content
    return total


def describe(stream: VovFile) -> dict[str, Any]:
    """Everything in the file but the coded bytes themselves, JSON-ready, with the size of every section.

    A stream that was built rather than read is serialized first to learn its sizes.
    """
    if not stream.layout:
        stream = parse(serialize(stream))
    size_bytes = max(section.offset + section.size_bytes for section in stream.layout)
    return {
        "format_version": "{}.{}".format(*(stream.version or lay.VERSION)),
        "size_bytes": size_bytes,
        "overhead_bytes": overhead_bytes(stream),
        "header": _dump(lay.HEADER_FIELDS, stream.header),
        "caption": stream.caption,
        "segments": [_describe_segment(segment, stream.header) for segment in stream.segments],
        "history": list(stream.history),
        "sections": [
            {
                "name": section.name,
                "segment": section.segment,
                "offset": section.offset,
                "size_bytes": section.size_bytes,
                "parts": dict(section.parts),
            }
            for section in stream.layout
        ],
        "damage": [
            {"segment": number, "error": type(error).__name__, "message": str(error)} for number, error in stream.damage
        ],
    }


def _describe_segment(segment: Segment, header: StreamHeader) -> dict[str, Any]:
    dump = _dump(lay.SEGMENT_FIELDS, segment)
    dump["caption"] = segment.caption
    _add_sizes(dump, lay.BLOBS, segment)
    dump["merged"] = [_dump(lay.VECTOR_FIELDS, update) for update in segment.merged]
    for entry, update in zip(dump["merged"], segment.merged, strict=True):
        _add_sizes(entry, lay.VECTOR_BLOBS, update)
    dump["generation"] = _dump(lay.GENERATION_FIELDS, segment.generation) if segment.generation else None
    dump["n_steps"] = header.sampler.steps_of(segment)
    return dump


def _add_sizes(dump: dict[str, Any], blobs: tuple[lay.Blob, ...], source: object) -> None:
    for blob in blobs:
        part, _, name = blob.name.partition(".")
        if name and getattr(source, part) is not None:
            dump[part][f"{name}_bytes"] = len(getattr(getattr(source, part), name))


def describe_lines(dump: dict[str, Any]) -> list[str]:
    """What `describe` returns for a terminal: one `name  value unit` line per field, grouped under section titles."""
    units = {
        name: unit
        for fields in (lay.HEADER_FIELDS, lay.SEGMENT_FIELDS, lay.GENERATION_FIELDS)
        for field in fields
        for name, unit in zip(field.names, field.units, strict=True)
    }
    lines = [f".vov {dump['format_version']}, {dump['size_bytes']:,} bytes, overhead {dump['overhead_bytes']} bytes"]
    lines += ["header", *_lines(dump["header"], units)]
    if dump["caption"] is not None:
        lines += ["caption", f"  {dump['caption']!r}"]
    for segment in dump["segments"]:
        lines += [f"segment {segment['index']}", *_lines(segment, units)]
    if dump["history"]:
        lines += ["history", *(f"  {entry}" for entry in dump["history"])]
    lines.append("sections")
    for section in dump["sections"]:
        owner = "" if section["segment"] is None else f" of segment {section['segment']}"
        parts = ", ".join(f"{name} {size}" for name, size in section["parts"].items())
        extent = f"offset {section['offset']}, {section['size_bytes']} bytes"
        lines.append(f"  {section['name']}{owner}: {extent}" + (f" ({parts})" if parts else ""))
    for entry in dump["damage"]:
        owner = "file" if entry["segment"] is None else f"segment {entry['segment']}"
        lines.append(f"damage in {owner}: {entry['message']}")
    return lines


def _lines(values: dict[str, Any], units: dict[str, str], prefix: str = "") -> list[str]:
    lines = []
    for name, value in values.items():
        if isinstance(value, dict):
            lines += _lines(value, units, f"{prefix}{name}.")
        elif name == "merged":
            for number, update in enumerate(value, start=1):
                lines += _lines(update, units, f"merged {number} ")
        elif value is not None and value != []:
            unit = "bytes" if name.endswith("_bytes") else units.get(prefix + name, "")
            shown = " ".join(map(str, value)) if isinstance(value, list) else value
            shown = repr(value) if isinstance(value, str) and name == "caption" else shown
            lines.append(f"  {prefix}{name:<{30 - len(prefix)}} {shown}{' ' + unit if unit else ''}")
    return lines
