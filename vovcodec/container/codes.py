"""Codes: how one value becomes bits and which values are allowed (FORMAT.md, section 3).

Every code has `text` (its storage, for FORMAT.md), `expected` (its bounds, for messages), `accepts`, `put` and `get`.
"""

from __future__ import annotations

import operator
from typing import Any

from vovcodec.container.bits import BitReader, BitWriter
from vovcodec.container.errors import FETCH_AGAIN, FieldOutOfRange, NonCanonical

__all__ = ["Bits", "Choice", "Flag", "FourNPlusOne", "Groups", "Integer", "Multiple", "NameOrText", "Raw", "Seed",
           "Text", "get_rice", "put_rice"]  # fmt: skip


def put_rice(out: BitWriter, value: int, k: int) -> None:
    """r(k): ⌊value / 2^k⌋ bits 1, a bit 0, and value mod 2^k in k bits."""
    n_ones = value >> k
    out.put((2 << n_ones) - 2, n_ones + 1)
    out.put(value & ((1 << k) - 1), k)


def get_rice(bits: BitReader, k: int, most: int) -> int:
    """What `put_rice` wrote, 0..most; raises `FieldOutOfRange`."""
    n_ones = 0
    while bits.get(1):
        n_ones += 1
        if n_ones << k > most:
            raise FieldOutOfRange(bits.section, "a number in a Rice code", n_ones << k, f"0..{most}")
    value = n_ones << k | bits.get(k)
    if value > most:
        raise FieldOutOfRange(bits.section, "a number in a Rice code", value, f"0..{most}")
    return value


class Integer:
    """Shared by the integer codes: inclusive bounds `low`..`high`."""

    def __init__(self, low: int, high: int) -> None:
        self.low, self.high = low, high

    @property
    def expected(self) -> str:
        return f"{self.low:,}..{self.high:,}"

    def accepts(self, value: Any) -> bool:
        try:
            return not isinstance(value, bool) and self.low <= operator.index(value) <= self.high
        except TypeError:
            return False


class Bits(Integer):
    """value - low, in a fixed number of bits."""

    def __init__(self, width: int, low: int, high: int) -> None:
        super().__init__(low, high)
        self.width = width
        self.text = f"u({width})" if low == 0 else f"u({width}), value - {low}" if low > 0 else f"u({width}), + {-low}"

    def put(self, out: BitWriter, value: int) -> None:
        out.put(value - self.low, self.width)

    def get(self, bits: BitReader) -> int:
        return bits.get(self.width) + self.low


class Groups(Integer):
    """value - low in groups of `width` bits, least significant first, each after a bit that says "more follow".

    With width 7 this is LEB128. Only the shortest form is permitted.
    """

    def __init__(self, width: int, low: int, high: int) -> None:
        super().__init__(low, high)
        self.width = width
        self.n_groups_max = max(1, -(-(high - low).bit_length() // width))
        self.text = f"g({width})" if low == 0 else f"g({width}), value - {low}"

    def put(self, out: BitWriter, value: int) -> None:
        value -= self.low
        while value >> self.width:
            out.put(1 << self.width | value & ((1 << self.width) - 1), self.width + 1)
            value >>= self.width
        out.put(value, self.width + 1)

    def get(self, bits: BitReader) -> int:
        value = 0
        for i in range(self.n_groups_max):
            group = bits.get(self.width + 1)
            value |= (group & ((1 << self.width) - 1)) << (i * self.width)
            if not group >> self.width:
                if group == 0 and i > 0:
                    raise NonCanonical(f"{bits.section}: a number is stored in more groups than it needs")
                return value + self.low
        raise NonCanonical(f"{bits.section}: a number has more than {self.n_groups_max} groups; {FETCH_AGAIN}")


class Seed(Integer):
    """u(3) = number of bytes n (0..4), then n bytes, most significant first, the first of them not zero."""

    text = "seed"

    def __init__(self) -> None:
        super().__init__(0, 2**32 - 1)

    def put(self, out: BitWriter, value: int) -> None:
        n_bytes = (value.bit_length() + 7) // 8
        out.put(n_bytes, 3)
        out.put(value, 8 * n_bytes)

    def get(self, bits: BitReader) -> int:
        n_bytes = bits.get(3)
        if n_bytes > 4:
            raise FieldOutOfRange(bits.section, "number of seed bytes", n_bytes, "0..4")
        value = bits.get(8 * n_bytes)
        if (value.bit_length() + 7) // 8 != n_bytes:
            raise NonCanonical(f"{bits.section}: a seed is stored in more bytes than it needs")
        return value


class Multiple(Integer):
    """A bit: 1 = a multiple of `step`, value/step - 1 follows; 0 = any other value, value - low follows."""

    def __init__(self, step: int, low: int, high: int) -> None:
        super().__init__(low, high)
        self.step = step
        self.short, self.long = (high // step - 1).bit_length(), (high - low).bit_length()
        self.text = f"m({step}): u(1), then u({self.short}), value/{step} - 1, or u({self.long}), value - {low}"

    def put(self, out: BitWriter, value: int) -> None:
        if value % self.step == 0:
            out.put(1, 1)
            out.put(value // self.step - 1, self.short)
        else:
            out.put(0, 1)
            out.put(value - self.low, self.long)

    def get(self, bits: BitReader) -> int:
        if bits.get(1):
            return (bits.get(self.short) + 1) * self.step
        value = bits.get(self.long) + self.low
        if value % self.step == 0:
            raise NonCanonical(f"{bits.section}: a multiple of {self.step} is stored in the long form")
        return value


class FourNPlusOne(Integer):
    """(value - 1) / 4 as groups; the values are 1, 5, 9, ..."""

    def __init__(self, width: int, high: int) -> None:
        super().__init__(1, high)
        self._groups = Groups(width, 0, (high - 1) // 4)
        self.text = f"g({width}), (value - 1) / 4"

    @property
    def expected(self) -> str:
        return f"4n + 1 in {super().expected}"

    def accepts(self, value: Any) -> bool:
        return super().accepts(value) and value % 4 == 1

    def put(self, out: BitWriter, value: int) -> None:
        self._groups.put(out, (value - 1) // 4)

    def get(self, bits: BitReader) -> int:
        return 4 * self._groups.get(bits) + 1


class Flag:
    """One bit."""

    text, expected = "u(1)", "true or false"

    def accepts(self, value: Any) -> bool:
        return isinstance(value, bool)

    def put(self, out: BitWriter, value: bool) -> None:
        out.put(int(value), 1)

    def get(self, bits: BitReader) -> bool:
        return bool(bits.get(1))


class Choice:
    """A registered value by its number. Numbers without a value are reserved and refused."""

    def __init__(self, width: int, choices: dict[int, Any]) -> None:
        self.width, self.choices = width, choices
        self.numbers = {value: number for number, value in choices.items()}
        self.expected = "one of " + ", ".join(str(value) for value in choices.values())
        self.text = f"u({width}): " + ", ".join(f"{number} = {value}" for number, value in choices.items())

    def accepts(self, value: Any) -> bool:
        return not isinstance(value, bool) and isinstance(value, str | int) and value in self.numbers

    def put(self, out: BitWriter, value: Any) -> None:
        out.put(self.numbers[value], self.width)

    def get(self, bits: BitReader) -> Any:
        number = bits.get(self.width)
        return self.choices.get(number, f"reserved number {number}")


class Raw:
    """A fixed number of bytes."""

    def __init__(self, n_bytes: int) -> None:
        self.n_bytes, self.expected, self.text = n_bytes, f"{n_bytes} bytes", f"b({n_bytes})"

    def accepts(self, value: Any) -> bool:
        return isinstance(value, bytes) and len(value) == self.n_bytes

    def put(self, out: BitWriter, value: bytes) -> None:
        out.put(int.from_bytes(value, "big"), 8 * self.n_bytes)

    def get(self, bits: BitReader) -> bytes:
        return bits.get(8 * self.n_bytes).to_bytes(self.n_bytes, "big")


class Text:
    """Length in `width` bits (as length - shortest), then that many printable ASCII bytes (0x21..0x7E)."""

    def __init__(self, width: int, shortest: int, longest: int) -> None:
        self.width, self.shortest, self.longest = width, shortest, longest
        self.expected = f"{shortest}..{longest} printable ASCII characters without spaces"
        self.text = f"u({width}), length - {shortest}, then the characters as b(length)"

    def accepts(self, value: Any) -> bool:
        printable = isinstance(value, str) and all("!" <= character <= "~" for character in value)
        return printable and self.shortest <= len(value) <= self.longest

    def put(self, out: BitWriter, value: str) -> None:
        out.put(len(value) - self.shortest, self.width)
        for byte in value.encode("ascii"):
            out.put(byte, 8)

    def get(self, bits: BitReader) -> str:
        length = bits.get(self.width) + self.shortest
        return bits.get(8 * length).to_bytes(length, "big").decode("latin-1")


class NameOrText:
    """A registered name by its number in `width` bits; all ones = the name itself follows as `Text`."""

    def __init__(self, width: int, names: tuple[str, ...], text: Text) -> None:
        self.width, self.names, self._text, self.expected = width, names, text, text.expected
        self.escape = (1 << width) - 1
        listed = ", ".join(f"{number} = {name}" for number, name in enumerate(names))
        self.text = f"u({width}): {listed}, {self.escape} = any other name follows: {text.text}"

    def accepts(self, value: Any) -> bool:
        return self._text.accepts(value)

    def put(self, out: BitWriter, value: str) -> None:
        if value in self.names:
            out.put(self.names.index(value), self.width)
        else:
            out.put(self.escape, self.width)
            self._text.put(out, value)

    def get(self, bits: BitReader) -> str:
        number = bits.get(self.width)
        if number < len(self.names):
            return self.names[number]
        if number != self.escape:
            raise FieldOutOfRange(bits.section, "number of a registered name", number, f"0..{len(self.names) - 1}")
        name = self._text.get(bits)
        if name in self.names:
            raise NonCanonical(f"{bits.section}: the registered name {name} is spelled out")
        return name
