"""Each way a file or a value can be bad has its own error, whose line names section, field and bounds."""

from __future__ import annotations

import dataclasses
import zlib
from pathlib import Path

import container_samples as samples
import numpy as np
import pytest

from vovcodec.container import (
    Adaptation,
    CodedAtoms,
    CodedVector,
    Generation,
    RawSection,
    Sampler,
    SegmentCheck,
    VectorUpdate,
    VovFile,
    parse,
    read_vov,
    serialize,
)
from vovcodec.container import errors as err
from vovcodec.container.bits import leb128
from vovcodec.container.framing import checksum
from vovcodec.container.layout import BLOBS


def section(type_: int, payload: bytes) -> bytes:
    framed = bytes([type_]) + leb128(len(payload)) + payload
    return framed + checksum(type_, framed)


def with_segment(**changes: object) -> VovFile:
    content = samples.steering_only()
    return dataclasses.replace(content, segments=(dataclasses.replace(content.segments[0], **changes),))


GOOD = serialize(samples.steering_only())
HEAD = parse(GOOD).layout[1].offset  # where the first segment starts
MANY = serialize(samples.three_segments())
UPDATE = VectorUpdate(adaptation=Adaptation(vector_length=9), vector=CodedVector(step_size_q=1, model=b"", words=b""))
MERGED = serialize(with_segment(merged=(UPDATE,)))[len(GOOD) + 2 : -4]  # the payload of a VECTOR section
FREE = serialize(with_segment(generation=Generation(n_injections=25)))[len(GOOD) + 2 : -4]
PNG = b"\x89PNG\r\n\x1a\n" + bytes(40)
MP4 = b"\0\0\0\x20ftypisom" + bytes(40)


@pytest.mark.parametrize(
    ("data", "error", "words"),
    [
        (b"", err.NotAVovFile, "empty"),
        (MP4, err.NotAVovFile, "MP4"),
        (PNG, err.NotAVovFile, "PNG"),
        (b"<!DOCTYPE html>", err.NotAVovFile, "web page"),
        (b"hello, world", err.NotAVovFile, "starts with 68 65"),
        (GOOD[1:], err.NotAVovFile, "binary mode"),
        (GOOD.decode("latin-1").encode("utf-8"), err.NotAVovFile, "binary mode"),
        (GOOD.decode("utf-8", "replace").encode("utf-8"), err.NotAVovFile, "binary mode"),
        (bytes(b & 0x7F for b in GOOD), err.NotAVovFile, "binary mode"),
        (GOOD[:3], err.TruncatedFile, "only 3 bytes"),
        (GOOD[:4], err.TruncatedFile, "only 4 bytes"),
        (GOOD[:5], err.TruncatedFile, "cut short"),
        (GOOD[:4] + b"\x01" + GOOD[5:], err.UnsupportedVersion, r"version 0\.1, this program reads 0\.12"),
        (GOOD[:4] + b"\x05" + GOOD[5:], err.UnsupportedVersion, r"version 0\.5"),
        (GOOD[:4] + b"\x0d" + GOOD[5:], err.UnsupportedVersion, r"0\.13"),
        (GOOD[:4] + b"\x10" + GOOD[5:], err.UnsupportedVersion, "1.0"),
        (GOOD[:HEAD], err.TruncatedFile, "segment 0 of 1 is missing"),
        (GOOD[:-1], err.TruncatedFile, rf"\(segment\): 1 of its {len(GOOD) - HEAD} bytes are missing"),
        (GOOD[:-1] + b"x", err.ChecksumMismatch, "segment"),
        (GOOD[:12] + b"x" + GOOD[13:], err.ChecksumMismatch, "header"),
        (GOOD + b"\0" * 9, err.TrailingData, "zero byte"),
        (MANY + b"\0", err.TrailingData, "1 bytes follow"),
        (GOOD + section(0x05, b"?"), err.UnknownCriticalSection, "0x05"),
        (GOOD + section(0x45, b"?"), err.UnknownCriticalSection, "0x45"),
        (GOOD + section(0x43, b"?"), err.BadLength, "vector"),
        (GOOD + section(0x44, b"\0"), err.FieldOutOfRange, "segment 0 generation: n_injections is 1, must be more"),
        (GOOD + section(0x44, FREE + b"\0"), err.BadLength, "1 bytes follow"),
        (GOOD + 2 * section(0x44, FREE), err.SectionOrder, "generation"),
        (GOOD + section(0x44, FREE) + section(0x43, b"?"), err.SectionOrder, "vector"),
        (GOOD + section(0xC1, b"") + section(0x44, FREE), err.SectionOrder, "generation"),
        (GOOD[:HEAD] + section(0x44, FREE) + GOOD[HEAD:], err.SectionOrder, "generation"),
        (GOOD + 16 * section(0x43, MERGED), err.FieldOutOfRange, r"number of vector sections is 16, must be 0\.\.15"),
        (GOOD[:HEAD] + section(0x90, b"?") + GOOD[HEAD:], err.SectionOrder, "0x90"),
        (GOOD + section(0x02, b"\0x"), err.SectionOrder, "caption"),
        (GOOD + section(0x04, b"\0x"), err.SectionOrder, "index"),
        (GOOD + GOOD[HEAD:], err.SectionOrder, "segment"),
        (GOOD + 2 * serialize(dataclasses.replace(samples.steering_only(), history=({"a": 1},)))[len(GOOD) :],
         err.SectionOrder, "history"),
        (GOOD + section(0x81, b"\xff\xff"), err.BadHistory, "history"),
        (GOOD[:HEAD] + b"\x03\x80\x00" + GOOD[HEAD + 2 :], err.NonCanonical, "more bytes than it needs"),
        (GOOD[:HEAD] + b"\x03\x80\x80\x80\x80\x80\x00" + GOOD[HEAD + 2 :], err.NonCanonical, "more than 5 bytes"),
        (GOOD[:HEAD] + section(0x02, b"\x80\xff\xff") + GOOD[HEAD:], err.BadCaption, "caption"),
        (GOOD[:HEAD] + section(0x02, b"\x00\xff\xff") + GOOD[HEAD:], err.BadCaption, "caption"),
        (GOOD[:HEAD] + section(0x02, b"\x00" + b"x" * 8193) + GOOD[HEAD:], err.BadCaption, "0..8192"),
        (GOOD[:HEAD] + section(0x02, b"\x01x") + GOOD[HEAD:], err.NonCanonical, "padding"),
        (GOOD[:HEAD] + section(0x02, b"") + GOOD[HEAD:], err.BadLength, "caption"),
        (GOOD[:HEAD] + section(0x03, b"\0\0"), err.BadLength, "1 bytes follow"),
    ],
)  # fmt: skip
def test_bad_files(data: bytes, error: type[Exception], words: str, tmp_path: Path) -> None:
    with pytest.raises(error, match=words) as caught:
        parse(data)
    assert caught.type is error
    assert caught.value.exit_code == 4
    assert "\n" not in str(caught.value)
    path = tmp_path / "bad.vov"
    path.write_bytes(data)
    with pytest.raises(error, match=words) as read:
        read_vov(path)
    assert read.type is error and str(read.value) == f"{path}: {caught.value}"
    assert {**vars(read.value)} == {**vars(caught.value)}, "fields stay"


def test_a_caption_bomb_is_stopped_at_the_cap() -> None:
    bomb = zlib.compressobj(9, zlib.DEFLATED, -15)
    packed = bomb.compress(bytes(10_000_000)) + bomb.flush()
    with pytest.raises(err.BadCaption, match="more than 8192"):
        parse(GOOD[:HEAD] + section(0x02, b"\x80" + packed) + GOOD[HEAD:])
    with pytest.raises(err.BadHistory, match="more than 65536"):
        parse(GOOD + section(0x81, packed))


def test_deeply_nested_history_is_refused() -> None:
    packer = zlib.compressobj(9, zlib.DEFLATED, -15)
    packed = packer.compress(b'{"a":' + b"[" * 30_000 + b"]" * 30_000 + b"}") + packer.flush()
    with pytest.raises(err.BadHistory):
        parse(GOOD + section(0x81, packed))


@pytest.mark.parametrize("text", [b'{"a":NaN}', b'{"a":1e999}', b'{"a":"\\ud800"}', b"[1]", b'{"a":1}\n', b""])
def test_history_that_could_not_be_written_again_is_refused(text: bytes) -> None:
    packer = zlib.compressobj(9, zlib.DEFLATED, -15)
    with pytest.raises(err.BadHistory):
        parse(GOOD + section(0x81, packer.compress(text) + packer.flush()))


def test_an_index_that_lies_is_found_out() -> None:
    index = parse(MANY).layout[-1]
    payload = bytearray(MANY[index.offset + 2 : -4])
    found = set()
    for at in range(len(payload)):
        changed = bytearray(payload)
        changed[at] ^= 1
        with pytest.raises(err.FormatError) as caught:
            parse(MANY[: index.offset] + section(0x04, bytes(changed)))
        found.add(caught.type)
    assert err.BadIndex in found


def test_a_missing_index_is_an_error() -> None:
    with pytest.raises(err.TruncatedFile, match="index"):
        parse(MANY[: parse(MANY).layout[-1].offset])


def with_header(**changes: object) -> VovFile:
    return dataclasses.replace(samples.steering_only(), header=samples.header(**changes))


def with_atoms(**changes: object) -> VovFile:
    content = samples.steering_only()
    atoms = dataclasses.replace(content.segments[0].atoms, **changes)
    return dataclasses.replace(content, segments=(dataclasses.replace(content.segments[0], atoms=atoms),))


def with_sampler(**changes: object) -> VovFile:
    """Of the other schedule, the fields of the usual one are None."""
    other = {"snr_start_q": None, "snr_ratio_q": None} if changes.get("schedule") == "shift" else {}
    return with_header(sampler=dataclasses.replace(samples.SNR_SAMPLER, **(other | changes)))


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (with_header(source_width=0), r"header: source_width is 0, must be 1\.\.16,384"),
        (with_header(source_height=16385), "source_height"),
        (with_header(coded_width=7), r"coded_width is 7, must be 8\.\.8,192"),
        (with_header(coded_height=True), "coded_height"),
        (with_header(coded_height=120.0), "coded_height"),
        (with_header(n_frames=0), "n_frames"),
        (with_header(n_frames=32), "n_frames"),
        (with_header(frame_rate_num=0, frame_rate_den=1), "n_frames is 33, must be 1 unless"),
        (with_header(frame_rate_num=0), r"frame_rate_num is 0, must be 1\.\."),
        (with_header(frame_rate_den=0), "frame_rate_den"),
        (with_header(segment_frames=34), r"segment_frames is 34, must be 4n \+ 1"),
        (with_header(segment_frames=29), "n_frames"),
        (with_header(n_segments=2), "n_segments"),
        (with_header(colour_range=3), "colour_range"),
        (with_header(colour_matrix=256), "colour_matrix"),
        (with_header(rotation=45), "rotation is 45, must be one of 0, 90, 180, 270"),
        (with_header(sample_aspect_den=0), "sample_aspect_den"),
        (with_header(has_audio=1), "has_audio"),
        (with_header(backbone_id=""), "backbone_id"),
        (with_header(backbone_id="x" * 33), "backbone_id"),
        (with_header(backbone_id="ünïcode"), "backbone_id"),
        (with_header(backbone_revision="a b"), "backbone_revision"),
        (with_header(fingerprint=bytes(7)), "fingerprint"),
        (with_header(precision="float8"), "precision is 'float8', must be one of float32"),
        (with_sampler(schedule="shift", n_steps=0), r"sampler\.n_steps is 0, must be 1\.\.1,000"),
        (with_sampler(schedule="shift", n_steps=20, shift_q8=0), "shift_q8"),
        (with_sampler(schedule="shift", n_steps=20), "shift_q8 is None"),
        (with_sampler(schedule="shift", n_steps=20, shift_q8=256, snr_start_q=60, snr_ratio_q=None),
         "snr_start_q is 60, must be None unless schedule is snr"),
        (with_sampler(schedule="shift", n_steps=20, shift_q8=256),
         r"atoms\.last_q is 11, must be 16 unless has_atoms and schedule is snr"),
        (with_sampler(schedule="log"), "schedule is 'log', must be one of shift, snr"),
        (with_sampler(sampler_id="ode"), "has_atoms is True, must be false unless sampler_id is eta"),
        (with_sampler(n_steps=20), "n_steps is 20, must be None unless schedule is shift"),
        (with_sampler(snr_start_q=256), "snr_start_q"),
        (with_sampler(snr_start_q=None), "snr_start_q is None"),
        (with_sampler(snr_ratio_q=0), r"snr_ratio_q is 0, must be 1\.\.256"),
        (with_sampler(snr_ratio_q=256, seed=2**32), "seed"),
        (with_header(sampler=None), "sampler"),
        (with_header(adaptation=Adaptation(vector_length=0)), "vector_length"),
        (with_header(adaptation=Adaptation(vector_length=9, rank=257)), "rank"),
        (with_header(adaptation=Adaptation(vector_length=9, targets="all")), "targets"),
        (with_header(adaptation=Adaptation(vector_length=9, strength_q8=40000)), "strength_q8"),
        (with_atoms(codebook="fourier"), "codebook"),
        (with_atoms(counts=()), r"counts is \(\), must be 1\.\.1,000 integers 0\.\.500,000"),
        (with_atoms(counts=[4]), r"counts is \[4\]"),
        (with_atoms(counts=(4, -1)), "counts"),
        (with_atoms(counts=(4.0,)), "counts"),
        (with_atoms(counts=(4,) * 1001), "counts"),
        (with_atoms(counts=(500_001,)), "counts"),
        (with_atoms(counts=(4, 28, 192, 1280, 8192, 57344, 458_752, 1)), r"sum of atoms\.counts is 525793"),
        (with_atoms(counts=(9, 9)), r"counts\[0\] is 9, must be a grid value 0\.\.114,688"),
        (with_atoms(counts=(4, 131_072, 1)), r"counts\[1\] is 131072, must be a grid value 0\.\.114,688"),
        (with_atoms(counts=(24, 10, 33, 1)), r"counts\[2\] is 33, must be a grid value 0\.\.458,752"),
        (with_atoms(counts=(4,) * 80), r"counts is \(4, 4.*, must be at most n_steps - 1 numbers"),
        (with_atoms(last_q=0), "last_q"),
        (with_atoms(last_q=17), r"last_q is 17, must be 1\.\.16"),
        (with_atoms(eta_scale_q=256), "eta_scale_q"),
        (with_atoms(active_channels=-1), "active_channels"),
        (with_atoms(words="text"), "words"),
        (with_segment(index=1), "index"),
        (with_segment(first_frame=1), "first_frame"),
        (with_segment(n_frames=32), "n_frames"),
        (with_segment(vector=CodedVector(step_size_q=1, model=b"", words=b"")), "has_vector"),
        (with_segment(check=SegmentCheck(psnr_q=1024)), "psnr_q"),
        (with_segment(check=SegmentCheck(psnr_q=1, thumbnail_width=15, thumbnail_height=15)), None),
        (with_segment(check=SegmentCheck(psnr_q=1, thumbnail_width=16)), "thumbnail_width"),
        (with_segment(check=SegmentCheck(psnr_q=1, thumbnail=bytes(65))), "thumbnail"),
        (with_segment(generation=Generation(n_injections=14)), "n_injections is 14, must be more than counts has"),
        (with_segment(generation=Generation(n_injections=1001)), r"n_injections is 1001, must be 1\.\.1,000"),
        (with_segment(generation=Generation(n_injections=80)), r"80, must be so few \(m\) that"),
        (with_segment(generation=Generation(n_injections=20, eta_scale_q=256)), "eta_scale_q"),
        (dataclasses.replace(samples.vector_only(), segments=(dataclasses.replace(
            samples.vector_only().segments[0], generation=Generation(n_injections=20)),)), "unless schedule is snr"),
        (with_segment(merged=(UPDATE,) * 16), r"segment 0 vector: number of vector sections is 16, must be 0\.\.15"),
        (with_segment(merged=(dataclasses.replace(UPDATE, adaptation=Adaptation(vector_length=0)),)), "vector_length"),
        (with_segment(merged=(dataclasses.replace(UPDATE, vector=CodedVector(step_size_q=0, model="", words=b"")),)),
         "vector.model is 'str', must be bytes"),
        (with_segment(caption="x" * 8193), r"0\.\.8192"),
        (with_segment(caption="\ud800"), "surrogate"),
        (with_segment(caption=b"bytes"), "text"),
        (with_segment(extras=(RawSection(type=0x90, payload=b""),)), "type of an extra"),
        (dataclasses.replace(samples.steering_only(), extras=(RawSection(type=0x81, payload=b""),)), "0x81"),
        (dataclasses.replace(samples.steering_only(), extras=(RawSection(type=0xC1, payload=b""),)), "type of an"),
        (dataclasses.replace(samples.steering_only(), history=({"a": {1}},)), "JSON"),
        (dataclasses.replace(samples.steering_only(), history=("text",)), "object"),
        (dataclasses.replace(samples.steering_only(), history=({"a": "x" * 70_000},)), r"0\.\.65536"),
        (dataclasses.replace(samples.steering_only(), segments=()), "n_segments"),
    ],
)  # fmt: skip
def test_bad_values_are_refused_before_anything_is_written(content: VovFile, words: str | None) -> None:
    if words is None:  # a thumbnail may be smaller than its sides say
        assert parse(serialize(content)) == content
        return
    with pytest.raises(err.FormatError, match=words) as caught:
        serialize(content)
    assert "\n" not in str(caught.value)


def test_sizes_above_the_caps_are_refused() -> None:
    caps = {blob.name: blob.size_max for blob in BLOBS}
    with pytest.raises(err.LimitExceeded, match=r"atoms\.words"):
        serialize(with_atoms(words=bytes(caps["atoms.words"] + 1)))
    content = samples.vector_only()
    vector = dataclasses.replace(content.segments[0].vector, model=bytes(4097))
    with pytest.raises(err.LimitExceeded, match=r"vector\.model has 4097 bytes, must be 0\.\.4096"):
        serialize(dataclasses.replace(content, segments=(dataclasses.replace(content.segments[0], vector=vector),)))


def test_numpy_integers_are_stored_as_integers() -> None:
    head = samples.header(source_width=np.int32(1280), n_frames=np.uint8(33), sampler=Sampler(
        sampler_id="eta", n_steps=np.int64(20), seed=np.uint32(2**32 - 1), shift_q8=np.int16(1280)))  # fmt: skip
    counts = (np.uint8(8), np.uint8(56), np.uint8(224), np.int32(100_000))  # a sum of bytes would overflow
    atoms = CodedAtoms(counts=counts, eta_scale_q=np.uint8(199), words=b"w")
    segment = dataclasses.replace(samples.steering_only().segments[0], atoms=atoms)
    read = parse(serialize(VovFile(head, (segment,))))
    assert read.header.sampler.seed == 2**32 - 1
    assert type(read.header.source_width) is int
    assert read.segments[0].atoms.counts == (8, 56, 224, 100_000)
    assert {type(count) for count in read.segments[0].atoms.counts} == {int}
