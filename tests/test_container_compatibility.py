"""Old readers and new files, new readers and old files: what sections may be skipped, and which versions are read.

FORMAT.md, section 11. The policy from 1.0 on is played through by letting the reader believe in other versions.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path

import container_samples as samples
import pytest
import second_reader as second

from vovcodec.container import RawSection, parse, read_vov, serialize, write_vov
from vovcodec.container import layout as lay
from vovcodec.container.bits import leb128
from vovcodec.container.errors import ChecksumMismatch, SectionOrder, UnknownCriticalSection, UnsupportedVersion
from vovcodec.container.framing import checksum

UNKNOWN = (RawSection(type=0x90, payload=b"of a later version"), RawSection(type=0xA7, payload=b""))
UNKNOWN_OF_SEGMENT = (RawSection(type=0xD3, payload=samples.pattern(300)),)


def section(type_: int, payload: bytes) -> bytes:
    framed = bytes([type_]) + leb128(len(payload)) + payload
    return framed + checksum(type_, framed)


def newer_file():
    """What a later writer may add without telling: ancillary sections of the stream and of segments."""
    content = samples.three_segments()
    segments = tuple(
        dataclasses.replace(segment, extras=segment.extras + UNKNOWN_OF_SEGMENT) for segment in content.segments
    )
    return dataclasses.replace(content, segments=segments, extras=content.extras + UNKNOWN)


def test_an_old_reader_skips_what_it_may_and_keeps_it(tmp_path: Path):
    data = serialize(newer_file())
    read = parse(data)
    plain = samples.three_segments()
    pairs = zip(read.segments, plain.segments, strict=True)
    segments = tuple(dataclasses.replace(segment, extras=before.extras) for segment, before in pairs)
    without = dataclasses.replace(read, extras=plain.extras, segments=segments)
    assert without == plain, "nothing else is read differently"
    # A program that changes the file hands on what it does not know.
    write_vov(tmp_path / "again.vov", dataclasses.replace(read, caption="another"))
    again = read_vov(tmp_path / "again.vov")
    assert again.extras[-2:] == UNKNOWN and again.segments[1].extras[-1:] == UNKNOWN_OF_SEGMENT


def test_the_second_reader_skips_the_same():
    content = second.read(serialize(newer_file()))
    assert content["extras"][-2:] == [(extra.type, extra.payload) for extra in UNKNOWN]
    assert all(segment["extras"][-1] == (0xD3, samples.pattern(300)) for segment in content["segments"])


@pytest.mark.parametrize("type_", [0x05, 0x3F, 0x40, 0x7F])
def test_an_old_reader_refuses_by_name_what_it_must_not_skip(type_: int):
    data = serialize(samples.steering_only())
    at = parse(data).layout[1].offset
    for changed in (data + section(type_, b"new"), data[:at] + section(type_, b"new") + data[at:]):
        with pytest.raises((UnknownCriticalSection, SectionOrder), match=f"0x{type_:02X}"):
            parse(changed)
        with pytest.raises(second.Refused):
            second.read(changed)


def test_damage_inside_a_skipped_section_is_still_seen():
    data = bytearray(serialize(dataclasses.replace(samples.steering_only(), extras=UNKNOWN)))
    data[-20] ^= 1
    with pytest.raises(ChecksumMismatch):
        parse(bytes(data))


@pytest.mark.parametrize(
    ("reader", "file", "reads"),
    [
        ((1, 0), (1, 0), True),
        ((1, 0), (1, 3), True),  # an old reader and a new file: new content is in sections it may or must not skip
        ((1, 3), (1, 0), True),  # a new reader and an old file
        ((1, 0), (2, 0), False),
        ((2, 0), (1, 9), False),
        ((1, 0), (0, 9), False),
        ((0, 8), (0, 9), False),  # before 1.0 every minor version is a format of its own
        ((0, 9), (1, 0), False),
    ],
)
def test_which_versions_are_read(reader, file, reads, monkeypatch):
    monkeypatch.setattr(lay, "VERSION", file)
    content = newer_file()
    data = serialize(content)
    monkeypatch.setattr(lay, "VERSION", reader)
    if reads:
        assert parse(data) == content
        return
    with pytest.raises(UnsupportedVersion, match=rf"version {file[0]}\.{file[1]}, this program reads {reader[0]}\."):
        parse(data)


def test_a_critical_section_of_a_newer_minor_version_is_refused_by_name(monkeypatch):
    monkeypatch.setattr(lay, "VERSION", (1, 3))
    data = serialize(samples.steering_only()) + section(0x21, b"what 1.3 added")
    monkeypatch.setattr(lay, "VERSION", (1, 0))
    with pytest.raises(UnknownCriticalSection, match=r"0x21.*newer vovcodec"):
        parse(data)


def test_every_golden_file_of_this_version_reads_with_both_readers():
    paths = sorted(samples.GOLDEN.glob("v{}.{}-*.vov".format(*lay.VERSION)))
    assert len(paths) >= 4
    for path in paths:
        assert len(second.read(path.read_bytes())["segments"]) == len(read_vov(path).segments)
