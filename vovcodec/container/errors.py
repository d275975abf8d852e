"""One error per way a `.vov` file can be bad. All are `FormatError` (exit code 4) with a one-line message.

A message names the section, the field and its bounds where there are any, and says what to do. The classes are what a
caller (or a test) can tell apart; the text is for the person at the keyboard.
"""

from __future__ import annotations

from vovcodec.errors import FormatError

__all__ = [
    "BadAudio",
    "BadCaption",
    "BadHistory",
    "BadIndex",
    "BadLength",
    "ChecksumMismatch",
    "FieldOutOfRange",
    "FormatError",
    "LimitExceeded",
    "MissingSegment",
    "NonCanonical",
    "NotAVovFile",
    "SectionOrder",
    "TrailingData",
    "TruncatedFile",
    "UnknownCriticalSection",
    "UnsupportedVersion",
]

FETCH_AGAIN = "the file is damaged or comes from a faulty writer; copy it again from its source"


class NotAVovFile(FormatError):
    """The first bytes are not the magic: empty, another format, or mangled by a text-mode copy."""


class UnsupportedVersion(FormatError):
    """The file was written for a format version that this reader does not know."""


class TruncatedFile(FormatError):
    """The file ends before its content does."""


class TrailingData(FormatError):
    """Bytes follow the last section; the sections must cover the file exactly."""


class ChecksumMismatch(FormatError):
    """A section's CRC does not match its bytes."""


class UnknownCriticalSection(FormatError):
    """A section that a decoder must understand has a type that this reader does not know."""


class SectionOrder(FormatError):
    """A known section is missing, repeated or out of order."""


class LimitExceeded(FormatError):
    """A size or count is above the reader's limit; raised before anything of that size is allocated."""


class BadLength(FormatError):
    """A section's fields do not fill its stated length exactly."""


class NonCanonical(FormatError):
    """A value is stored in a longer form than the only permitted one (or a padding bit is not zero)."""


class BadAudio(FormatError):
    """The sound's section does not hold what it says; the picture is not concerned."""


class BadCaption(FormatError):
    """A caption is not UTF-8, not deflate data, or too long."""


class BadHistory(FormatError):
    """The edit history is not compressed UTF-8 JSON lines, or too long."""


class BadIndex(FormatError):
    """The segment index is missing, unreadable, or does not agree with the segments' real places."""


class MissingSegment(FormatError):
    """Tolerant reading only: no trace of this segment was found."""


class FieldOutOfRange(FormatError, ValueError):
    """A field's value is outside its bounds, or contradicts another field.

    `section` and `field` name the place; `value` is what was found, `expected` the bounds as text.
    """

    def __init__(self, section: str, field: str, value: object, expected: str) -> None:
        self.section, self.field, self.value, self.expected = section, field, value, expected
        shown = repr(value)
        if len(shown) > 60:
            shown = shown[:57] + "..."
        super().__init__(f"{section}: {field} is {shown}, must be {expected}")
