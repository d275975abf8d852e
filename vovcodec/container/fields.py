"""Declarative fields: one object says how a value is stored, checked, named in errors and documented.

A *code* (`codes.py`) knows how one value becomes bits. A *field* gives a code its name, its condition and its default.
`layout.py` lists the fields of each section; writer, reader, `describe` and FORMAT.md all follow that list.
"""

from __future__ import annotations

import operator
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from vovcodec.container.bits import BitReader, BitWriter
from vovcodec.container.codes import Integer
from vovcodec.container.errors import FieldOutOfRange, NonCanonical

__all__ = ["Field", "Rule", "TableField", "Values", "When"]

MISSING: Any = object()
Values = dict[str, Any]


@dataclass(frozen=True)
class When:
    """A condition on earlier fields, with its wording for FORMAT.md."""

    text: str
    holds: Callable[[Values], bool]


@dataclass(frozen=True)
class Rule:
    """A relation between fields that must hold. `field` is the one an error names."""

    field: str
    text: str
    holds: Callable[[Values], bool]

    def check(self, values: Values, section: str) -> None:
        if not self.holds(values):
            raise FieldOutOfRange(section, self.field, values[self.field], self.text)


@dataclass(frozen=True)
class Field:
    """One value of a section.

    `when`: the field is stored only if the condition holds; otherwise its value is `absent` (if given).
    `default` (a value or a function of the earlier values): one flag bit, 0 = the default, 1 = the value follows.
    """

    name: str
    code: Any
    meaning: str
    unit: str = ""
    when: When | None = None
    absent: Any = MISSING
    default: Any = MISSING
    default_text: str = ""

    def put(self, out: BitWriter, values: Values, section: str) -> None:
        """Check `values[name]` and append it; raises `FieldOutOfRange`."""
        if self.when and not self.when.holds(values):
            if self.absent is not MISSING and values.get(self.name, self.absent) != self.absent:
                unless = f"{self.absent!r} unless {self.when.text}"
                raise FieldOutOfRange(section, self.name, values[self.name], unless)
            return
        value = values.get(self.name, MISSING)
        if value is MISSING:
            raise FieldOutOfRange(section, self.name, None, f"given: {self.code.expected}")
        self.check(value, section)
        if isinstance(self.code, Integer):
            value = values[self.name] = operator.index(value)  # numpy integers overflow in arithmetic
        if self.default is not MISSING:
            stored = value != self.default_of(values)
            out.put(int(stored), 1)
            if not stored:
                return
        self.code.put(out, value)

    def get(self, bits: BitReader, values: Values) -> None:
        """Read into `values[name]`; raises `FieldOutOfRange`, `NonCanonical` or `BadLength`."""
        if self.when and not self.when.holds(values):
            if self.absent is not MISSING:
                values[self.name] = self.absent
            return
        if self.default is not MISSING and not bits.get(1):
            value = self.default_of(values)
        else:
            value = self.code.get(bits)
            if self.default is not MISSING and value == self.default_of(values):
                raise NonCanonical(f"{bits.section}: {self.name} is stored although it has its default value")
        self.check(value, bits.section)
        values[self.name] = value

    def check(self, value: Any, section: str) -> None:
        fixed_default = self.default is not MISSING and not callable(self.default) and value == self.default
        if not fixed_default and not self.code.accepts(value):
            raise FieldOutOfRange(section, self.name, value, self.code.expected)

    def default_of(self, values: Values) -> Any:
        return self.default(values) if callable(self.default) else self.default

    def rows(self) -> list[tuple[str, str, str, str]]:
        """(name, storage, bounds, meaning) as printed in FORMAT.md."""
        storage = self.code.text
        if self.default is not MISSING:
            storage = f"default {self.default_text or repr(self.default)}; else {storage}"
        if self.when:
            storage = f"if {self.when.text}: {storage}"
        unit = f" [{self.unit}]" if self.unit else ""
        return [(self.name, storage, self.code.expected, self.meaning + unit)]

    @property
    def names(self) -> tuple[str, ...]:
        return (self.name,)

    @property
    def units(self) -> tuple[str, ...]:
        return (self.unit,)


@dataclass(frozen=True)
class TableField:
    """Several values at once: u(width) = row of `table`; all ones = the values follow one by one as `explicit`.

    `when`: they are stored only if the condition holds.
    """

    width: int
    table: tuple[tuple[Any, ...], ...]
    explicit: tuple[Field, ...]
    when: When | None = None

    def put(self, out: BitWriter, values: Values, section: str) -> None:
        if self.when and not self.when.holds(values):
            return
        row = tuple(values[name] for name in self.names)
        if row in self.table:
            out.put(self.table.index(row), self.width)
        else:
            out.put((1 << self.width) - 1, self.width)
            for field in self.explicit:
                field.put(out, values, section)

    def get(self, bits: BitReader, values: Values) -> None:
        if self.when and not self.when.holds(values):
            return
        number = bits.get(self.width)
        if number < len(self.table):
            values.update(zip(self.names, self.table[number], strict=True))
            return
        if number != (1 << self.width) - 1:
            reserved = f"a table row 0..{len(self.table) - 1}"
            raise FieldOutOfRange(bits.section, self.names[0], f"reserved row {number}", reserved)
        for field in self.explicit:
            field.get(bits, values)
        if tuple(values[name] for name in self.names) in self.table:
            raise NonCanonical(f"{bits.section}: {', '.join(self.names)} are spelled out although the table has them")

    def rows(self) -> list[tuple[str, str, str, str]]:
        listed = ", ".join(f"{n} = {'/'.join(map(str, row))}" for n, row in enumerate(self.table))
        escape = (1 << self.width) - 1
        condition = f"if {self.when.text}: " if self.when else ""
        storage = f"{condition}u({self.width}): {listed}, {escape} = explicit fields follow"
        head = (" / ".join(self.names), storage, "table", "")
        return [head] + [(f"- {n}", s, b, m) for field in self.explicit for n, s, b, m in field.rows()]

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(field.name for field in self.explicit)

    @property
    def units(self) -> tuple[str, ...]:
        return tuple(field.unit for field in self.explicit)
