"""Bit strings, most significant bit first (FORMAT.md, section 3)."""

from __future__ import annotations

from vovcodec.container.errors import FETCH_AGAIN, BadLength, NonCanonical

__all__ = ["BitCounter", "BitReader", "BitWriter", "leb128"]


class BitWriter:
    """Collects unsigned integers as bits; the first bit put is the most significant bit of the first byte."""

    def __init__(self) -> None:
        self._bytes = bytearray()
        self._pending = 0
        self._n_pending = 0

    def put(self, value: int, n_bits: int) -> None:
        """Append `value` (0 <= value < 2**n_bits) as `n_bits` bits."""
        if value < 0 or value >> n_bits:
            raise ValueError(f"{value} does not fit in {n_bits} bits")
        self._pending = (self._pending << n_bits) | value
        self._n_pending += n_bits
        if self._n_pending >= 64:  # hand whole bytes over, so that long lists stay linear
            rest = self._n_pending % 8
            n_whole = self._n_pending // 8
            self._bytes += (self._pending >> rest).to_bytes(n_whole, "big")
            self._pending &= (1 << rest) - 1
            self._n_pending = rest

    def to_bytes(self) -> bytes:
        """All bits so far, padded with zero bits to a whole byte."""
        n_whole = (self._n_pending + 7) // 8
        return bytes(self._bytes) + (self._pending << (n_whole * 8 - self._n_pending)).to_bytes(n_whole, "big")


class BitCounter:
    """Takes the place of a `BitWriter` where only the number of bits matters: `n_bits`."""

    def __init__(self) -> None:
        self.n_bits = 0

    def put(self, value: int, n_bits: int) -> None:
        """Count `n_bits`."""
        self.n_bits += n_bits


class BitReader:
    """Reads what `BitWriter` wrote. Asking for more bits than there are raises `BadLength` naming `section`."""

    def __init__(self, data: bytes | memoryview, section: str) -> None:
        self._data = data
        self._n_bits = len(data) * 8
        self._position = 0
        self.section = section

    def get(self, n_bits: int) -> int:
        """The next `n_bits` bits as an unsigned integer."""
        end = self._position + n_bits
        if end > self._n_bits:
            raise BadLength(f"{self.section}: fields run past the end of the section; {FETCH_AGAIN}")
        first, last = self._position >> 3, (end + 7) >> 3
        word = int.from_bytes(self._data[first:last], "big")
        self._position = end
        return (word >> (last * 8 - end)) & ((1 << n_bits) - 1)

    def align(self) -> int:
        """Skip the padding to the next byte and return that byte's offset; `NonCanonical` if a padding bit is set."""
        if self.get(-self._position % 8):
            raise NonCanonical(f"{self.section}: a padding bit is not zero; {FETCH_AGAIN}")
        return self._position >> 3


def leb128(value: int) -> bytes:
    """Unsigned LEB128 in its shortest form: 7 bits per byte, least significant first, high bit = more follows."""
    out = bytearray()
    while value > 0x7F:
        out.append(0x80 | value & 0x7F)
        value >>= 7
    out.append(value)
    return bytes(out)
