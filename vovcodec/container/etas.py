"""The noise share η of each step, stored as an arithmetic grid (FORMAT.md, section 6.2)."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from vovcodec.container.bits import BitReader, BitWriter
from vovcodec.container.codes import Bits
from vovcodec.container.errors import FieldOutOfRange, NonCanonical
from vovcodec.container.fields import Values, When

__all__ = ["EtaField"]

_BYTE = Bits(8, 0, 255)


def _grid(eta_q: tuple[int, ...]) -> tuple[int, int, int]:
    """(smallest value, spacing, bits per step): the coarsest grid that holds every entry."""
    low = min(eta_q)
    spacing = math.gcd(*(value - low for value in eta_q)) or 1
    return low, spacing, ((max(eta_q) - low) // spacing).bit_length()


@dataclass(frozen=True)
class EtaField:
    """`eta_q`: u(1) = 0: one value for all steps, u(8); 1: one per step as low + spacing·u.

    Then: low u(8), spacing - 1 u(8), bits per step w u(4) (0..8), and n_steps times u(w). Because the grid is the
    coarsest one, an encoder that tries 8 equally spaced values per step pays 3 bits for each.
    """

    name: str
    when: When

    @property
    def names(self) -> tuple[str, ...]:
        return (self.name,)

    units = ("1/255",)

    def put(self, out: BitWriter, values: Values, section: str) -> None:
        if not self.when.holds(values):
            return
        eta_q, n_steps = values[self.name], values["header"].sampler.n_steps
        fits = isinstance(eta_q, tuple) and len(eta_q) in (1, n_steps) and all(map(_BYTE.accepts, eta_q))
        if not fits:
            raise FieldOutOfRange(section, self.name, eta_q, f"a tuple of 1 or {n_steps} integers 0..255")
        out.put(int(len(eta_q) > 1), 1)
        if len(eta_q) == 1:
            out.put(int(eta_q[0]), 8)
            return
        low, spacing, n_bits = _grid(tuple(map(int, eta_q)))
        out.put(low, 8)
        out.put(spacing - 1, 8)
        out.put(n_bits, 4)
        for value in eta_q:
            out.put((int(value) - low) // spacing, n_bits)

    def get(self, bits: BitReader, values: Values) -> None:
        if not self.when.holds(values):
            return
        n_steps = values["header"].sampler.n_steps
        if not bits.get(1):
            values[self.name] = (bits.get(8),)
            return
        low, spacing, n_bits = bits.get(8), bits.get(8) + 1, bits.get(4)
        if n_bits > 8:
            raise FieldOutOfRange(bits.section, f"bits per entry of {self.name}", n_bits, "0..8")
        # Eight bytes per entry in memory for as little as nothing in the file: charge before building the tuple.
        values["budget"].charge(8 * n_steps, bits.section, self.name)
        eta_q: Any = tuple(low + spacing * bits.get(n_bits) for _ in range(n_steps))
        if max(eta_q) > 255:
            raise FieldOutOfRange(bits.section, self.name, max(eta_q), "0..255")
        if n_steps == 1 or _grid(eta_q) != (low, spacing, n_bits):
            raise NonCanonical(f"{bits.section}: {self.name} is not stored on its coarsest grid")
        values[self.name] = eta_q

    def rows(self) -> list[tuple[str, str, str, str]]:
        storage = f"if {self.when.text}: see 6.2"
        return [(self.name, storage, "1 or n_steps integers 0..255", "noise share of each step [1/255]")]
