"""Damaged and hostile files: a typed error or valid content, never anything else, and never much memory."""

from __future__ import annotations

import contextlib
import dataclasses
import random
import tracemalloc
import zlib

import container_samples as samples
import pytest

from vovcodec.container import Limits, Segment, VovFile, parse, serialize
from vovcodec.container import layout as lay
from vovcodec.container.bits import BitWriter, leb128
from vovcodec.container.errors import (
    BadAudio,
    BadIndex,
    ChecksumMismatch,
    FormatError,
    LimitExceeded,
    MissingSegment,
    TrailingData,
    TruncatedFile,
)
from vovcodec.container.framing import checksum

N_MUTATIONS = 10_500
N_RESIGNED = 4_000


def mutate(data: bytes, rng: random.Random) -> bytes:
    """One to three flips, overwrites, cuts, insertions, deletions or moves."""
    out = bytearray(data)
    for _ in range(rng.choice((1, 1, 1, 2, 3))):
        at = rng.randrange(len(out) or 1)
        kind = rng.randrange(7)
        if kind == 0 and out:
            out[at] ^= 1 << rng.randrange(8)
        elif kind == 1 and out:
            out[at] = rng.choice((0, 1, 0x7F, 0x80, 0xFF, rng.randrange(256)))
        elif kind == 2:
            del out[at:]
        elif kind == 3:
            out[at:at] = rng.randbytes(rng.choice((1, 1, 4, 40)))
        elif kind == 4:
            del out[at : at + rng.choice((1, 1, 4, 40))]
        elif kind == 5:
            out[at:at] = out[at : at + rng.randrange(1, 60)]
        else:
            out += rng.randbytes(rng.randrange(1, 12))
    return bytes(out)


def check_outcome(data: bytes) -> FormatError | None:
    """Strict and tolerant reading both give a `FormatError` with a one-line message, or content that can be written."""
    try:
        content = parse(data)
    except FormatError as error:
        assert str(error)
        assert "\n" not in str(error)
        with contextlib.suppress(FormatError):
            parse(data, tolerant=True)
        return error
    assert parse(serialize(content)) == content
    return None


def test_mutated_files_give_a_typed_error_or_valid_content() -> None:
    rng = random.Random(20_24)
    originals = [serialize(make()) for make in samples.SAMPLES.values()]
    n_errors = 0
    for i in range(N_MUTATIONS):
        original = originals[i % len(originals)]
        data = mutate(original, rng)
        error = check_outcome(data)
        n_errors += error is not None
        # The CRC-32 sees every change this small, so what still reads must be the original.
        assert error is not None or data == original
    assert n_errors > 0.98 * N_MUTATIONS


def section_spans(data: bytes) -> list[tuple[int, int, int]]:
    """(start, payload start, payload end) of the sections of a good file."""
    spans = []
    for section in parse(data).layout:
        end = section.offset + section.size_bytes - lay.crc_size(section.type)
        length_size = next(n for n in range(1, 6) if data[section.offset + n] < 0x80)
        spans.append((section.offset, section.offset + 1 + length_size, end))
    return spans


def resign(data: bytes, start: int, payload: bytes, end: int) -> bytes:
    """The file with another payload in the section at `start` (ending, with its CRC, at `end`) and a valid CRC."""
    framed = data[start : start + 1] + leb128(len(payload)) + payload
    crc = checksum(data[start], (data[:start] if start == lay.PREFIX_SIZE else b"") + framed)
    return data[:start] + framed + crc + data[end:]


def test_payloads_mutated_behind_a_valid_crc_give_a_typed_error_or_valid_content() -> None:
    rng = random.Random(7)
    originals = [serialize(make()) for make in samples.SAMPLES.values()]
    spans = [section_spans(data) for data in originals]
    kinds, n_valid = set(), 0
    for i in range(N_RESIGNED):
        data = originals[i % len(originals)]
        start, payload_start, payload_end = rng.choice(spans[i % len(originals)])
        payload = data[payload_start:payload_end]
        # Mostly in the fields at the front, where the interpretation happens.
        n_front = min(len(payload), 30)
        payload = mutate(payload[:n_front], rng) + payload[n_front:]
        error = check_outcome(resign(data, start, payload, payload_end + lay.crc_size(data[start])))
        kinds.add(type(error).__name__)
        n_valid += error is None
    assert n_valid > 100  # a changed seed or word is another valid file
    assert {"FieldOutOfRange", "NonCanonical", "BadLength", "BadCaption", "BadHistory", "BadIndex"} <= kinds


def test_every_truncation_is_an_error() -> None:
    for make in samples.SAMPLES.values():
        data = serialize(make())
        for size in range(len(data)):
            with pytest.raises(FormatError):
                parse(data[:size])


def test_a_damaged_segment_costs_only_itself() -> None:
    content = samples.three_segments()
    data = serialize(content)
    groups = [s for s in parse(data).layout if s.name == "segment"]
    for lost in range(3):
        middle = groups[lost].offset + groups[lost].size_bytes // 2
        damaged = data[:middle] + bytes([data[middle] ^ 4]) + data[middle + 1 :]
        with pytest.raises(ChecksumMismatch):
            parse(damaged)
        read = parse(damaged, tolerant=True)
        assert read.segments == tuple(s for s in content.segments if s.index != lost)
        assert [number for number, _ in read.damage] == [lost]
        assert isinstance(read.damage[0][1], ChecksumMismatch)
        assert (read.caption, read.extras, read.history) == (content.caption, content.extras, content.history)
        with pytest.raises(FormatError, match="damaged"):
            serialize(read)


@pytest.mark.parametrize("change", [b"", b"xx", b"x" * 300])
def test_lost_or_added_bytes_cost_one_segment(change: bytes) -> None:
    content = samples.three_segments()
    data = serialize(content)
    group = [s for s in parse(data).layout if s.name == "segment"][1]
    middle = group.offset + 20
    read = parse(data[:middle] + change + data[middle + 1 :], tolerant=True)
    assert read.segments == (content.segments[0], content.segments[2])
    assert 1 in [number for number, _ in read.damage]


def test_whole_segments_of_a_cut_file_are_kept() -> None:
    content = samples.three_segments()
    data = serialize(content)
    last = [s for s in parse(data).layout if s.name == "segment"][2]
    cut = data[: last.offset + 3]
    with pytest.raises(TruncatedFile):
        parse(cut)
    read = parse(cut, tolerant=True)
    assert read.segments == content.segments[:2]
    kinds = [(number, type(error)) for number, error in read.damage]
    assert kinds == [(None, BadIndex), (2, TruncatedFile), (None, BadAudio)]
    between = parse(data[: last.offset], tolerant=True)
    assert between.segments == content.segments[:2]
    assert (2, MissingSegment) in [(number, type(error)) for number, error in between.damage]


def test_a_damaged_index_costs_no_segment() -> None:
    content = samples.three_segments()
    data = serialize(content)
    for at in (-1, -6, -10, -14):
        damaged = bytearray(data)
        damaged[at] ^= 0x21
        read = parse(bytes(damaged), tolerant=True)
        assert read.segments == content.segments
        assert [number for number, _ in read.damage][:1] == [None]


def test_a_damaged_shared_caption_is_reported() -> None:
    content = samples.three_segments()
    data = serialize(content)
    caption = next(s for s in parse(data).layout if s.name == "caption")
    damaged = bytearray(data)
    damaged[caption.offset + 4] ^= 1
    read = parse(bytes(damaged), tolerant=True)
    assert read.caption is None
    assert read.segments == content.segments
    assert [(number, type(error)) for number, error in read.damage] == [(None, ChecksumMismatch)]


@pytest.mark.parametrize("added", [b"hello world junk", b"\n", b"h" + bytes(9), b"more" * 40, bytes(5), b"\xc5\x01x"])
@pytest.mark.parametrize("make", [samples.steering_only, samples.three_segments])
def test_bytes_added_to_a_whole_file_cost_nothing(make, added: bytes) -> None:
    content = make()
    data = serialize(content)
    with pytest.raises(FormatError):
        parse(data + added)
    read = parse(data + added, tolerant=True)
    assert read == content
    assert {number for number, _ in read.damage} == {None}
    if len(content.segments) == 1 and added.startswith((b"hello", b"\n", b"\0")):
        assert isinstance(read.damage[0][1], TrailingData)
        assert "cut short" not in str(read.damage[0][1])


def test_what_a_segment_cannot_do_without_is_no_added_bytes() -> None:
    data = serialize(samples.merged())
    for name in ("vector", "generation"):
        section = next(each for each in parse(data).layout if each.name == name)
        for damaged in (data[: section.offset + 5], data[: section.offset + 3] + b"!" + data[section.offset + 4 : -5]):
            read = parse(damaged, tolerant=True)
            assert 0 not in [segment.index for segment in read.segments]
            assert 0 in [number for number, _ in read.damage]


def test_sound_that_damage_took_is_told_once() -> None:
    for make, has_audio, n_told in ((samples.three_segments, True, 1), (samples.merged, False, 0)):
        data = serialize(make())
        last = [s for s in parse(data).layout if s.name == "segment"][-1]
        cuts = [data[: last.offset + 3], data[: last.offset + last.size_bytes], data[: last.offset]]
        for audio in (s for s in parse(data).layout if s.name == "audio"):
            at = audio.offset + 9
            cuts += [data[:at], data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :]]
        for cut in cuts:
            read = parse(cut, tolerant=True)
            assert read.header.has_audio is has_audio
            assert [str(error) for _, error in read.damage].count("the sound is lost") == n_told


def test_a_file_that_kept_no_sound_has_lost_none() -> None:
    content = dataclasses.replace(samples.three_segments(), extras=())
    data = serialize(content)
    middle = parse(data).layout[2].offset + 20
    one = samples.steering_only()
    one = serialize(dataclasses.replace(one, header=dataclasses.replace(one.header, has_audio=True)))
    for damaged in (
        data[:middle] + b"!" + data[middle + 1 :],
        data[:-1] + b"!",
        data + b"junk",
        one + b"h",
        one + b"\0",
    ):
        read = parse(damaged, tolerant=True)
        assert read.damage
        assert "the sound is lost" not in [str(error) for _, error in read.damage]


def peak_bytes(data: bytes, limits: Limits | None = None) -> tuple[int, FormatError | None]:
    tracemalloc.start()
    error = None
    try:
        parse(data, limits=limits or Limits())
    except FormatError as caught:
        error = caught
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return peak, error


def test_claimed_lengths_allocate_nothing() -> None:
    data = serialize(samples.steering_only())
    for type_ in (0x01, 0x02, 0x03, 0x04, 0x81, 0x82, 0xC0, 0xFF):
        for claimed in (2**20, 2**28, 2**31, 2**35 - 1):
            for prefix in (data[:10], data[:41], data):
                peak, error = peak_bytes(prefix + bytes([type_]) + leb128(claimed) + b"\1" * 100)
                assert isinstance(error, FormatError)
                assert peak < 2**20


def many_segments(n_segments: int, caption: str, counts: tuple[int, ...]) -> VovFile:
    one = samples.steering_only(0, counts)
    sampler = dataclasses.replace(one.header.sampler, snr_ratio_q=1)
    head = samples.header(n_segments=n_segments, n_frames=n_segments, segment_frames=1, sampler=sampler)
    segments = (
        Segment(index=i, first_frame=i, n_frames=1, caption=caption, atoms=one.segments[0].atoms)
        for i in range(n_segments)
    )
    return VovFile(head, tuple(segments))


@pytest.mark.parametrize(
    ("caption", "counts"), [("dog " * 2000, (9,)), ("", (4, 28) + (192,) * 998)], ids=["captions", "counts"]
)
def test_contents_that_expand_are_stopped(caption: str, counts: tuple[int, ...]) -> None:
    """8 KiB captions of 30 bytes and 1000 counts of 4 bits: a few MB of file would become hundreds of MB."""
    n_segments = 60
    unit = serialize(many_segments(n_segments, caption, counts))
    limits = Limits(max_expanded_bytes=300_000)
    peak, error = peak_bytes(unit, limits)
    assert isinstance(error, LimitExceeded)
    assert peak < 2 * limits.max_expanded_bytes
    assert peak_bytes(unit)[1] is None


SMALL_BUDGET = Limits(max_expanded_bytes=4 * 2**20)


def test_very_many_tiny_sections_are_stopped() -> None:
    good = serialize(samples.steering_only())
    framed = bytes([0x90, 0])
    tiny = framed + checksum(0x90, framed)
    peak, error = peak_bytes(good + tiny * 10_000, SMALL_BUDGET)
    assert isinstance(error, LimitExceeded)
    assert peak < 1.5 * SMALL_BUDGET.max_expanded_bytes


def test_very_many_tiny_segments_are_stopped() -> None:
    peak, error = peak_bytes(serialize(many_segments(4_000, "a caption", (1, 2, 3, 4))), SMALL_BUDGET)
    assert isinstance(error, LimitExceeded)
    assert peak < 1.5 * SMALL_BUDGET.max_expanded_bytes


@pytest.mark.slow
def test_the_largest_permitted_number_of_segments_stays_below_100_mb() -> None:
    data = serialize(many_segments(32_768, "a caption", (1, 2, 3, 4)))
    peak, error = peak_bytes(data)
    assert error is None
    assert peak < 100e6


def test_an_index_of_overlapping_segments_costs_linear_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """200 groups of 8 bytes whose sections all claim the same 60,000 bytes: nothing outside a group may be read."""
    n_segments, group, filler = 200, b"\x03" + leb128(60_000) + bytes(4), samples.pattern(60_000)
    good = serialize(many_segments(n_segments, "", (9,)))
    layout = parse(good).layout
    head = good[: layout[1].offset]
    values = {
        "header": parse(good).header,
        "first_offset": len(head),
        "tail_size": len(filler),
        "group_size": len(group),
    }
    values |= {"group_size": len(group), "n_frames": 1}
    out = BitWriter()
    for field in (*lay.INDEX_HEAD, *lay.INDEX_ENTRY * n_segments, *lay.INDEX_TAIL):
        field.put(out, values, "index")
    payload = out.to_bytes()
    size = 1 + len(leb128(len(payload) + 4)) + len(payload) + 4 + 4
    before = head + group * n_segments + filler
    framed = bytes([lay.INDEX]) + leb128(len(payload) + 4) + payload + size.to_bytes(4, "big")
    data = before + framed + zlib.crc32(framed).to_bytes(4, "big")

    crc32, n_bytes = zlib.crc32, []
    monkeypatch.setattr(zlib, "crc32", lambda content, *start: n_bytes.append(len(content)) or crc32(content, *start))
    read = parse(data, tolerant=True)
    assert sum(n_bytes) < 2 * len(data)
    assert not read.segments
    assert {number for number, _ in read.damage} >= set(range(n_segments))
