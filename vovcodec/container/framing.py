"""The file's first bytes and the frame around every section: type, length, payload, CRC (FORMAT.md, section 2)."""

from __future__ import annotations

import binascii
import zlib
from dataclasses import dataclass

from vovcodec.container import layout as lay
from vovcodec.container.errors import (
    FETCH_AGAIN,
    ChecksumMismatch,
    FormatError,
    LimitExceeded,
    NonCanonical,
    NotAVovFile,
    TrailingData,
    TruncatedFile,
    UnsupportedVersion,
)

__all__ = [
    "DEFAULT_LIMITS",
    "START_SIZE",
    "Budget",
    "Frame",
    "Limits",
    "check_prefix",
    "checksum",
    "frame_span",
    "read_frame",
]

START_SIZE = 16  # bytes that tell one kind of file from another
_LENGTH_BYTES_MAX = 5
_WITHOUT_FIRST = lay.MAGIC[1:] + bytes([16 * lay.VERSION[0] + lay.VERSION[1]])


@dataclass(frozen=True, slots=True)
class Limits:
    """What a reader accepts. `max_expanded_bytes` bounds memory beyond the file's own bytes and copies of its blobs."""

    max_file_bytes: int = 2**30
    max_section_bytes: int = 128 * 2**20
    max_expanded_bytes: int = 64 * 2**20


DEFAULT_LIMITS = Limits()


class Budget:
    """Counts memory that a small file could ask for in large amounts (tuples, captions, tiny sections)."""

    def __init__(self, limits: Limits) -> None:
        self._left, self._limit = limits.max_expanded_bytes, limits.max_expanded_bytes

    def charge(self, n_bytes: int, section: str, what: str) -> None:
        """Take `n_bytes` off; `LimitExceeded` when they are used up. Call before allocating."""
        self._left -= n_bytes
        if self._left < 0:
            raise LimitExceeded(
                f"{section}: {what} would take the file's contents above {self._limit} bytes of memory; "
                "raise Limits.max_expanded_bytes if you trust the file"
            )


@dataclass(frozen=True, slots=True)
class Frame:
    """One section in place: `payload` is a view, `start`..`end` its span with framing and CRC."""

    type: int
    payload: memoryview
    start: int
    end: int


def check_prefix(data: memoryview) -> None:
    """Magic and version. Raises `NotAVovFile` (saying what the file looks like), `TruncatedFile`, `UnsupportedVersion`.

    `data` may be only the beginning of a file, at least `START_SIZE` bytes unless the file is shorter.
    """
    start = bytes(data[:START_SIZE])
    if not start:
        raise NotAVovFile("the file is empty; was the copy or download interrupted?")
    if not start.startswith(lay.MAGIC):
        if len(start) < len(lay.MAGIC) and lay.MAGIC.startswith(start):
            raise TruncatedFile(f"the file has only {len(start)} bytes; copy it again from its source")
        raise NotAVovFile(_what_it_looks_like(start))
    if len(start) < lay.PREFIX_SIZE:
        raise TruncatedFile(f"the file has only {len(start)} bytes; copy it again from its source")
    version = divmod(start[len(lay.MAGIC)], 16)
    # Before 1.0 every minor version is a format of its own; from 1.0 on a newer minor version stays readable.
    readable = version == lay.VERSION if lay.VERSION[0] == 0 else version[0] == lay.VERSION[0]
    if not readable:
        raise UnsupportedVersion(
            f"the file has format version {version[0]}.{version[1]}, this program reads {lay.VERSION[0]}."
            f"{lay.VERSION[1]}; use the vovcodec release that wrote it"
        )


def checksum(type_: int, covered: bytes | memoryview) -> bytes:
    """What a section of this type ends with, for all that it covers: CRC-32, or CRC-16 for HEADER."""
    value = binascii.crc_hqx(covered, 0xFFFF) if type_ in lay.SHORT_CRC else zlib.crc32(covered)
    return value.to_bytes(lay.crc_size(type_), "big")


def _what_it_looks_like(start: bytes) -> str:
    if start.startswith((b"\xc2\x89VOV", b"\xef\xbf\xbdVOV", b"\xe2\x80\xb0VOV", b"?VOV", b"\tVOV", _WITHOUT_FIRST)):
        mangled = "not a .vov file any more: it was copied as text"
        return f"{mangled} (its first byte was changed or lost); copy it in binary mode"
    if start.startswith(b"iVZPVg"):
        return "not a .vov file: it is base64 text of one; decode it first"
    known = (
        (start[4:8] == b"ftyp", "an MP4, MOV or AVIF file"),
        (start.startswith(b"\x89PNG"), "a PNG image"),
        (start.startswith(b"\xff\xd8\xff"), "a JPEG image"),
        (start.startswith(b"\x1aE\xdf\xa3"), "a Matroska or WebM file"),
        (start.startswith(b"GIF8"), "a GIF image"),
        (start.startswith(b"RIFF"), "a WebP, AVI or WAV file"),
        (start.startswith(b"YUV4MPEG2"), "a y4m video"),
        (start.startswith(b"\x1f\x8b"), "a gzip file"),
        (start.startswith(b"PK\x03\x04"), "a zip file"),
        (start.lstrip().lower().startswith((b"<!doctype", b"<html")), "a web page (a failed download?)"),
    )
    for matches, name in known:
        if matches:
            return f"not a .vov file: this is {name}; `vov encode` makes a .vov file from a clip or an image"
    return f"not a .vov file: it starts with {start[:8].hex(' ')} instead of {lay.MAGIC.hex(' ')}"


def frame_span(data: memoryview, start: int, limits: Limits) -> tuple[int, int, int]:
    """(type, payload's offset, payload's length) at `start`, from type and length alone; the CRC is not looked at.

    Raises `TruncatedFile`, `TrailingData` (see `_cut_short`; a zero byte is no section), `NonCanonical` or
    `LimitExceeded`.
    """
    n_left = len(data) - start
    if n_left > 0 and data[start] == 0:
        raise TrailingData(f"a zero byte at offset {start} where a section should start; {FETCH_AGAIN}")
    if n_left < 1 or n_left < lay.framing_size_min(data[start]):
        raise _cut_short(
            data,
            start,
            f"the file ends at offset {len(data)}, inside a section or before one that is due; it was cut short",
        )
    name, length, offset = f"section at offset {start}", 0, start + 1
    for i in range(_LENGTH_BYTES_MAX):
        if offset >= len(data):
            raise _cut_short(data, start, f"{name}: the file ends inside its length; it was cut short or is damaged")
        byte = data[offset]
        offset += 1
        length |= (byte & 0x7F) << (7 * i)
        if byte < 0x80:
            if byte == 0 and i > 0:
                raise NonCanonical(f"{name}: its length is stored in more bytes than it needs; {FETCH_AGAIN}")
            break
    else:
        raise NonCanonical(f"{name}: its length has more than {_LENGTH_BYTES_MAX} bytes; {FETCH_AGAIN}")
    n_left = len(data) - offset
    crc_size = lay.crc_size(data[start])
    if length + crc_size > n_left:
        raise _cut_short(
            data,
            start,
            f"{name} ({lay.section_name(data[start])}): {length + crc_size - n_left} of its "
            f"{offset - start + length + crc_size} bytes are missing; the file was cut short or is damaged",
        )
    if length > limits.max_section_bytes:
        raise LimitExceeded(
            f"{name} has {length} bytes, must be 0..{limits.max_section_bytes}; raise Limits to read it"
        )
    return data[start], offset, length


def _cut_short(data: memoryview, start: int, message: str) -> FormatError:
    """The error for a section that is not all there. One of an unknown type hardly is one: files get bytes added."""
    if start < len(data) and data[start] not in lay.SECTION_NAMES:
        return TrailingData(
            f"the {len(data) - start} bytes from offset {start} on are no section: they were added, or the file is "
            "damaged; copy it again from its source"
        )
    return TruncatedFile(message)


def read_frame(data: memoryview, start: int, limits: Limits, crc_from: int | None = None) -> Frame:
    """The section at `start`, CRC checked (over `crc_from`.. when given, else from its type byte on).

    Raises what `frame_span` raises, and `ChecksumMismatch`.
    """
    type_, offset, length = frame_span(data, start, limits)
    end = offset + length
    crc = checksum(type_, data[start if crc_from is None else crc_from : end])
    stored = bytes(data[end : end + len(crc)])
    if crc != stored:
        name = f"section at offset {start} ({lay.section_name(type_)})"
        raise ChecksumMismatch(
            f"{name}: CRC-{8 * len(crc)} is {stored.hex()}, its bytes give {crc.hex()}; "
            "the file is damaged, copy it again from its source"
        )
    return Frame(type_, data[offset:end], start, end + len(crc))
