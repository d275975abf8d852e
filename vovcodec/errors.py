"""Typed errors. Only the command-line root turns them into exit codes and one-line messages.

Every message says what is wrong and, where there is one, what to do about it.
"""

from __future__ import annotations

__all__ = [
    "FormatError",
    "Interrupted",
    "MediaError",
    "ModelError",
    "OutputExistsError",
    "UsageError",
    "VovError",
    "name_input",
    "portable",
]


class VovError(Exception):
    """Base of everything this package raises on purpose. Exit code 1 unless a subclass says otherwise."""

    exit_code = 1


class UsageError(VovError, ValueError):
    """An option, preset or combination of them makes no sense (exit code 2)."""

    exit_code = 2


class MediaError(VovError):
    """The input clip or image is missing, unreadable or unusable, or an output cannot be written (exit code 3)."""

    exit_code = 3


class FormatError(VovError):
    """A `.vov` file is damaged, truncated, hostile or too new (exit code 4). One subclass per way it can be bad."""

    exit_code = 4


class ModelError(VovError):
    """A base model or device is missing, mismatched or out of memory (exit code 5)."""

    exit_code = 5


class OutputExistsError(VovError, FileExistsError):
    """The output exists and overwriting was not allowed (exit code 6)."""

    exit_code = 6


class Interrupted(VovError):
    """Stopped by the user or a signal; the message says what is kept (exit code 130).

    options: what the same command needs besides to go on.
    """

    exit_code = 130
    options: tuple[str, ...] = ()


def name_input(error: VovError, name: object) -> None:
    """Puts the name of the file that an error is about before its message, unless it is there already."""
    if not str(error).startswith(f"{name}: "):
        error.args = (f"{name}: {error}",)


def portable(error: VovError) -> VovError:
    """The same message as an error of this module, which can be sent to another process."""
    kind = next(each for each in type(error).__mro__ if each.__module__ == __name__)
    return kind(str(error))
