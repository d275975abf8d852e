"""How inputs are made: from good ones, by changes that know the layers, so that the deep ones are reached too.

Checksums would stop nearly every change of a `.vov` file at the first layer. So most changes are made inside a
section, or to the parsed content, and the checksums (and the index) are made anew.
"""

from __future__ import annotations

import dataclasses
import json
import random
import zlib
from pathlib import Path

import container_samples as samples

from vovcodec.container import VovFile, parse, serialize
from vovcodec.container.bits import leb128
from vovcodec.container.errors import FormatError
from vovcodec.container.framing import checksum
from vovcodec.container.layout import PREFIX_SIZE, crc_size

__all__ = ["corpus", "mutate"]

HERE = Path(__file__).parent
INTERESTING = (0, 1, 2, 3, 4, 5, 7, 8, 15, 16, 31, 33, 63, 64, 72, 127, 128, 200, 255, 256, 257, 777, 1000, 4096, 8191,
               8192, 16384, 32768, 65533, 65535, 65536, 131072, 500_000, 2**20, 2**24, 2**31, 2**32 - 1)  # fmt: skip
REGISTERED = ("none", "ode", "eta", "snr", "shift", "qkv", "cyclic-shift", "trellis", "hadamard", "offset-philox")
WORDS = ("backbone", "id", "pocket", "efforts", "fast", "rate", "bytes", "null", "~", "1e400", ".nan", "-1", "0x10",
         "1:30", "2020-01-01", "!!binary ", "!!set ", "!!python/name:os.system ", "&a", "*a", "<<: ", "? ", "[", "]",
         "{", "}", ": ", "\n", "\n  ", "---\n", "...", "'", '"', "|\n", "\t", "#", "9" * 5000, "[" * 500)  # fmt: skip


def corpus(target: str) -> list[bytes]:
    """Good inputs of a target to start from."""
    vectors = HERE / "vectors"
    if target == "file":
        golden = [path.read_bytes() for path in sorted(samples.GOLDEN.glob("*.vov"))]
        return golden + [serialize(make()) for make in (*samples.SAMPLES.values(), plain_shift, decodable)]
    if target == "symbols":
        cases = json.loads((vectors / "symbols.json").read_text())
        return [
            len(case["symbols"]).to_bytes(2, "big") + bytes([len(case["model"]) // 2])
            + bytes.fromhex(case["model"] + case["words"])
            for case in cases
        ]  # fmt: skip
    if target == "path":
        cases = json.loads((vectors / "steering.json").read_text())["trellis"]
        return [
            case["n_entries"].to_bytes(3, "big") + bytes([case["memory"] - 1, 1])
            + case["n_bits"].to_bytes(2, "big") + bytes.fromhex(case["path_hex"])
            for case in cases
        ]  # fmt: skip
    if target == "atoms":
        cases = json.loads((vectors / "atoms.json").read_text())
        return [
            case["n_positions"].to_bytes(3, "big") + bytes([len(case["steps"])])
            + b"".join(len(step).to_bytes(2, "big") for step in case["steps"]) + bytes.fromhex(case["words"])
            for case in cases
        ]  # fmt: skip
    shipped = sorted((HERE.parent / "presets").glob("*.yaml"))
    short = [path.read_text(encoding="utf-8").partition("\nefforts:")[0] for path in shipped]
    efforts = "\nefforts: {fast: {}, slow: {description: more, adaptation: {rank: 2}}}\n"
    return [(text + efforts).encode() for text in ("backbone: {id: pocket}\nrate: {bytes: 900}", *short)]


def decodable() -> VovFile:
    """A file whose vector and atoms are real ones, so that changes of other fields meet them."""
    symbols = json.loads((HERE / "vectors" / "symbols.json").read_text())[2]
    atoms = next(case for case in json.loads((HERE / "vectors" / "atoms.json").read_text()) if case["name"] == "few")
    stream = samples.steering_only()
    header = samples.header(
        coded_width=208,
        coded_height=96,
        adaptation=samples.Adaptation(vector_length=len(symbols["symbols"])),
    )
    vector = samples.CodedVector(
        step_size_q=9000, model=bytes.fromhex(symbols["model"]), words=bytes.fromhex(symbols["words"])
    )
    counts = tuple(len(step) for step in atoms["steps"])
    coded = dataclasses.replace(stream.segments[0].atoms, counts=counts, words=bytes.fromhex(atoms["words"]))
    return VovFile(header, (dataclasses.replace(stream.segments[0], vector=vector, atoms=coded),))


def plain_shift() -> VovFile:
    """A still without anything but importance-sampling indices."""
    sampler = samples.Sampler(sampler_id="eta", n_steps=5, shift_q8=512)
    header = samples.header(frame_rate_num=0, frame_rate_den=1, n_frames=1, segment_frames=1, sampler=sampler)
    indices = samples.CodedIndices(log2_candidates=10, indices=b"\x01\x02\x03\x04\x05")
    return VovFile(header, (samples.Segment(index=0, n_frames=1, importance=indices),))


def mutate(target: str, data: bytes, other: bytes, rng: random.Random) -> bytes:
    """Another input, made of `data` and perhaps a piece of `other`."""
    if target == "preset":
        return _text_changed(data, rng) if rng.random() < 0.8 else _bytes_changed(data, other, rng)
    if target == "file":
        kind = rng.random()
        if kind < 0.45:
            return _sections_changed(data, other, rng)
        if kind < 0.8:
            return _content_changed(data, rng)
    return _bytes_changed(data, other, rng)


def _bytes_changed(data: bytes, other: bytes, rng: random.Random) -> bytes:
    """One to four flips, overwrites, cuts, insertions, deletions, repetitions or pieces of the other input."""
    out = bytearray(data)
    for _ in range(rng.choice((1, 1, 1, 2, 3, 4))):
        at = rng.randrange(len(out) or 1)
        if rng.random() < 0.5:
            at = min(at, rng.randrange(40))  # fields are at the front
        kind = rng.randrange(9)
        if kind <= 1 and out:
            out[at] ^= 1 << rng.randrange(8)
        elif kind == 2 and out:
            out[at] = rng.choice((0, 1, 0x7F, 0x80, 0xFF, rng.randrange(256)))
        elif kind == 3:
            del out[at:]
        elif kind == 4:
            out[at:at] = rng.randbytes(rng.choice((1, 1, 4, 40)))
        elif kind == 5:
            del out[at : at + rng.choice((1, 1, 4, 40))]
        elif kind == 6:
            out[at:at] = out[at : at + rng.randrange(1, 60)]
        elif kind == 7:
            start = rng.randrange(len(other) or 1)
            out[at : at + rng.randrange(20)] = other[start : start + rng.randrange(60)]
        else:
            number = rng.choice(INTERESTING)
            out[at : at + 4] = number.to_bytes(rng.choice((4, 5)), rng.choice(("big", "little")))
    return bytes(out)


def _text_changed(data: bytes, rng: random.Random) -> bytes:
    """Words of YAML put in, lines dropped, repeated, indented or swapped."""
    lines = data.decode("utf-8", "replace").split("\n")
    for _ in range(rng.choice((1, 1, 2, 3))):
        at = rng.randrange(len(lines))
        kind = rng.randrange(7)
        if kind == 0:
            del lines[at]
            lines = lines or [""]
        elif kind == 1:
            lines.insert(at, lines[rng.randrange(len(lines))])
        elif kind == 2:
            lines[at] = "  " * rng.randrange(3) + lines[at].lstrip(rng.choice(" \t"))
        elif kind == 3:
            name, colon, _ = lines[at].partition(":")
            lines[at] = f"{name}{colon} {rng.choice(WORDS)}"
        elif kind == 4:
            lines[at] = f"{rng.choice(WORDS)}: {rng.choice(WORDS)}"
        else:
            cut = rng.randrange(len(lines[at]) + 1)
            lines[at] = lines[at][:cut] + rng.choice(WORDS) + lines[at][cut + rng.randrange(4) :]
    return "\n".join(lines).encode("utf-8", "surrogatepass")


# --- .vov files ----------------------------------------------------------------------------------------------------


def _split(data: bytes) -> tuple[bytes, list[tuple[int, bytes]]]:
    """The first five bytes and (type, payload) of what looks like sections, however wrong they are."""
    sections, at = [], PREFIX_SIZE
    while at < len(data) and len(sections) < 64:
        type_, length, shift, at = data[at], 0, 0, at + 1
        while at < len(data):
            length |= (data[at] & 0x7F) << shift
            shift, at = shift + 7, at + 1
            if data[at - 1] < 0x80 or shift > 28:
                break
        sections.append((type_, data[at : at + length]))
        at += length + crc_size(type_)
    return data[:PREFIX_SIZE], sections


def _joined(prefix: bytes, sections: list[tuple[int, bytes]], rng: random.Random) -> bytes:
    """Sections with right checksums; where there is an index, mostly with its own size put right."""
    out = bytearray(prefix)
    for number, (type_, payload) in enumerate(sections):
        if type_ == 4 and len(payload) >= 4 and rng.random() < 0.8:
            size = 1 + len(leb128(len(payload))) + len(payload) + 4
            payload = payload[:-4] + size.to_bytes(4, "big")
        framed = bytes([type_]) + leb128(len(payload)) + payload
        out += framed + checksum(type_, (prefix if number == 0 else b"") + framed)
    return bytes(out)


def _sections_changed(data: bytes, other: bytes, rng: random.Random) -> bytes:
    """Payloads changed, sections dropped, repeated, moved, retyped or taken from another file; then signed again."""
    prefix, sections = _split(data)
    if not sections:
        return _bytes_changed(data, other, rng)
    for _ in range(rng.choice((1, 1, 2, 3))):
        at = rng.randrange(len(sections))
        type_, payload = sections[at]
        kind = rng.randrange(12)
        if kind <= 5:
            n_front = min(len(payload), rng.choice((4, 12, 30, 200)))
            sections[at] = (type_, _bytes_changed(payload[:n_front], other, rng) + payload[n_front:])
        elif kind == 6 and len(sections) > 1:
            del sections[at]
        elif kind == 7:
            sections.insert(rng.randrange(len(sections) + 1), (type_, payload))
        elif kind == 8:
            sections[at] = (rng.choice((0, 1, 2, 3, 4, 5, 0x43, 0x44, 0x45, 0x81, 0x82, 0x90, 0xC5, 0xFF)), payload)
        elif kind == 9:
            sections.insert(rng.randrange(len(sections) + 1), (rng.randrange(1, 256), rng.randbytes(rng.randrange(9))))
        elif kind == 10:
            _, theirs = _split(other)
            if theirs:
                sections.insert(rng.randrange(len(sections) + 1), rng.choice(theirs))
        else:
            sections[at] = (type_, _compressed(rng))
    return _joined(prefix, sections, rng)


def _compressed(rng: random.Random) -> bytes:
    """Deflate data of something: text, a bomb, JSON lines; with or without the flag bit of a caption before it."""
    text = rng.choice((b"a dog " * 9, bytes(100_000), b'{"a":1}\n{"b":[2]}', b'{"a":NaN}', b"\xff\xfe", b"[" * 3000))
    packer = zlib.compressobj(9, zlib.DEFLATED, -15)
    return rng.choice((b"", b"\x80", b"\x00")) + packer.compress(text) + packer.flush()


def _content_changed(data: bytes, rng: random.Random) -> bytes:
    """One to three values of the parsed content replaced, where the writer allows it; coded bytes are damaged as well.

    Lengths, index and checksums are right afterwards, so that what is wrong is deep inside.
    """
    try:
        stream = parse(data)
    except FormatError:
        return _sections_changed(data, data, rng)
    for _ in range(rng.choice((1, 1, 2, 3))):
        changed = _one_value_changed(stream, rng)
        try:
            serialize(changed)
        except (FormatError, ValueError):
            continue
        stream = changed
    return serialize(stream)


def _one_value_changed(stream: VovFile, rng: random.Random) -> VovFile:
    if rng.random() < 0.4 or not stream.segments:
        return dataclasses.replace(stream, header=_changed(stream.header, rng), layout=())
    if stream.extras and rng.random() < 0.2:
        return dataclasses.replace(stream, extras=_one_changed(stream.extras, rng), layout=())
    return dataclasses.replace(stream, segments=_one_changed(stream.segments, rng), layout=())


def _one_changed(parts: tuple, rng: random.Random) -> tuple:
    """Dataclasses, one of them changed."""
    at = rng.randrange(len(parts))
    return (*parts[:at], _changed(parts[at], rng), *parts[at + 1 :])


def _changed(part, rng: random.Random):
    """A dataclass with one of its values, or of the values inside them, replaced."""
    field = rng.choice(dataclasses.fields(part))
    value = getattr(part, field.name)
    if dataclasses.is_dataclass(value):
        value = None if rng.random() < 0.1 else _changed(value, rng)
    elif isinstance(value, bool):
        value = not value
    elif isinstance(value, int):
        value = rng.choice((value + 1, value - 1, value * 2, *INTERESTING))
    elif isinstance(value, bytes):
        value = _bytes_changed(value, value, rng)
    elif isinstance(value, str):
        value = rng.choice(("", "x", value + "x", *REGISTERED, "é森"))
    elif isinstance(value, tuple) and value and isinstance(value[0], int):
        counts = list(value)
        counts[rng.randrange(len(counts))] = rng.choice(INTERESTING)
        value = tuple(counts[: rng.randrange(1, len(counts) + 1)])
    elif isinstance(value, tuple) and value and dataclasses.is_dataclass(value[0]):
        value = _one_changed(value, rng) if rng.random() < 0.8 else value * rng.choice((0, 2, 9))
    return dataclasses.replace(part, **{field.name: value})
