"""One error for each way entropy-coded bytes can be bad. All are FormatErrors."""

from __future__ import annotations

from vovcodec.errors import FormatError

__all__ = ["BadCodedAtoms", "BadCodedSymbols", "BadEntropyModel"]


class BadEntropyModel(FormatError):
    """The description of the symbol distribution is not one the format defines."""


class BadCodedSymbols(FormatError):
    """The coded vector cannot have been written with its entropy model and length."""


class BadCodedAtoms(FormatError):
    """The coded steering atoms cannot have been written with their counts and number of positions."""
