"""The generated parts of FORMAT.md: field tables and the worked example. Nothing imports this but tests and people.

python -m vovcodec.container.spec FILE.vov    # prints them, the example made from FILE.vov
"""

from __future__ import annotations

import sys
import textwrap
from pathlib import Path
from typing import Any

from vovcodec.container import layout as lay
from vovcodec.container.audio import AUDIO_FIELDS, PACKET_FIELDS
from vovcodec.container.bits import BitReader
from vovcodec.container.framing import DEFAULT_LIMITS, Budget, read_frame
from vovcodec.container.payloads import read_header

__all__ = ["field_table", "rule_list", "worked_example"]

_EXAMPLE_WIDTH = 24  # bytes of a blob that are shown


def field_table(fields: tuple[Any, ...]) -> str:
    """A Markdown table of a field list, in the order of storage."""
    lines = ["| field | storage | bounds | meaning |", "|---|---|---|---|"]
    for field in fields:
        for name, storage, bounds, meaning in field.rows():
            lines.append(f"| {name} | {storage} | {bounds} | {meaning} |")
    return "\n".join(lines)


def rule_list(rules: tuple[Any, ...]) -> str:
    """The relations between fields as a Markdown list."""
    return "\n".join(f"- {rule.field} MUST be {rule.text}." for rule in rules)


class _TracingReader(BitReader):
    """Remembers the bits since the last `take`."""

    def __init__(self, data: memoryview, section: str) -> None:
        super().__init__(data, section)
        self._trace = ""

    def get(self, n_bits: int) -> int:
        value = super().get(n_bits)
        self._trace += f"{value:0{n_bits}b}" if n_bits else ""
        return value

    def take(self) -> str:
        trace, self._trace = self._trace, ""
        return trace


def _trace_fields(bits: _TracingReader, fields: tuple[Any, ...], values: dict[str, Any]) -> list[str]:
    lines = []
    for field in fields:
        field.get(bits, values)
        trace = bits.take()
        if not trace:
            continue
        shown = [values[name] for name in field.names]
        text = "/".join(value.hex() if isinstance(value, bytes) else str(value) for value in shown)
        for i, piece in enumerate(textwrap.wrap(trace, 40)):
            lines.append(f"    {piece:<41} {' / '.join(field.names)} = {text}" if i == 0 else f"    {piece}")
    return lines


def worked_example(data: bytes) -> str:
    """A single-segment file without ancillary sections, byte by byte and bit by bit."""
    view = memoryview(data)
    lines = [
        f"{0:04x}  {data[:4].hex(' ')}  magic",
        f"{4:04x}  {data[4:5].hex()}  version {data[4] >> 4}.{data[4] & 15}",
    ]
    header_frame = read_frame(view, lay.PREFIX_SIZE, DEFAULT_LIMITS, crc_from=0)
    segment_frame = read_frame(view, header_frame.end, DEFAULT_LIMITS)
    header = read_header(header_frame.payload)
    budget = Budget(DEFAULT_LIMITS)
    for frame, name, fields, values in (
        (header_frame, "HEADER", lay.HEADER_FIELDS, {}),
        (
            segment_frame,
            "SEGMENT",
            lay.SEGMENT_FIELDS,
            {"header": header, "budget": budget, "n_frames": header.n_frames},
        ),
    ):
        crc_at = frame.end - lay.crc_size(frame.type)
        payload_offset = crc_at - len(frame.payload)
        framing = data[frame.start : payload_offset]
        lines.append(f"{frame.start:04x}  {framing.hex(' ')}  type {name}, length {len(frame.payload)}")
        bits = _TracingReader(frame.payload, name)
        traced = _trace_fields(bits, fields, values)
        n_bytes = bits.align()
        padding = bits.take()
        lines += _hex_lines(payload_offset, bytes(frame.payload[:n_bytes]), "fields")
        lines += traced
        if padding:
            lines.append(f"    {padding:<41} padding")
        offset = n_bytes
        for blob in lay.BLOBS if name == "SEGMENT" else ():
            if values[blob.present]:
                size = values.get(blob.size, len(frame.payload) - offset)
                lines += _hex_lines(payload_offset + offset, bytes(frame.payload[offset : offset + size]), blob.name)
                offset += size
        crc = data[crc_at : frame.end]
        covered = "bytes 0000" if name == "HEADER" else f"bytes {frame.start:04x}"
        lines.append(f"{crc_at:04x}  {crc.hex(' ')}  CRC-{8 * len(crc)} of {covered}..{crc_at - 1:04x}")
    return "\n".join(lines)


def _hex_lines(offset: int, content: bytes, label: str) -> list[str]:
    rows = [content[i : i + _EXAMPLE_WIDTH] for i in range(0, len(content), _EXAMPLE_WIDTH)] or [b""]
    lines = [f"{offset:04x}  {label}, {len(content)} bytes"]
    return lines + [f"      {row.hex(' ')}" for row in rows if row]


if __name__ == "__main__":
    for fields in (lay.HEADER_FIELDS, lay.CAPTION_FIELDS, lay.SEGMENT_FIELDS, lay.VECTOR_FIELDS,
                   lay.GENERATION_FIELDS, lay.INDEX_HEAD, lay.INDEX_ENTRY, lay.INDEX_TAIL, AUDIO_FIELDS,
                   PACKET_FIELDS):  # fmt: skip
        print(field_table(fields), end="\n\n")
    for rules in (lay.HEADER_RULES, lay.SEGMENT_RULES, lay.GENERATION_RULES):
        print(rule_list(rules), end="\n\n")
    print(worked_example(Path(sys.argv[1]).read_bytes()))
