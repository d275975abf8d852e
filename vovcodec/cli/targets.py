"""Checks on input and output names, made before anything slow is loaded."""

from __future__ import annotations

import sys
from pathlib import Path

from vovcodec.errors import MediaError, OutputExistsError, UsageError

__all__ = ["ask", "ask_to_go_on", "check_source", "check_target", "existing_outputs", "is_pipe", "names_sequence"]


def is_pipe(name: str | Path) -> bool:
    """`-` stands for standard input or output."""
    return str(name) == "-"


def ask(question: str) -> bool:
    """Whether a person at a terminal says yes; False where there is nobody to ask."""
    # A pipe on standard input is the input, so nobody can answer a question there.
    if sys.stdin is None or not (sys.stdin.isatty() and sys.stderr.isatty()):
        return False
    print(f"{question} [y/N] ", end="", file=sys.stderr, flush=True)
    return sys.stdin.readline().strip().lower() in ("y", "yes")


def ask_to_go_on(cost: str) -> bool:
    """`ask` about what a decode takes: an `options.Approve`."""
    return ask(f"{cost}. Go on?")


def check_source(source: str) -> Path | str:
    """The input as a Path, or `-`. Raises MediaError when it is not there.

    A printf-style pattern (`%05d.png`) is left to the reader.
    """
    if is_pipe(source):
        if sys.stdin is None:
            raise MediaError("-: standard input is closed")
        return "-"
    path = Path(source)
    if not path.exists() and not names_sequence(source):
        raise MediaError(f"{source}: no such file")
    return path


def names_sequence(source: str) -> bool:
    """Whether an input is a printf-style pattern (`%05d.png`), and no file of that name."""
    if "%" not in Path(source).name:  # the media package takes a while to load
        return False
    from vovcodec.media.sequence import is_sequence

    return is_sequence(source)


def check_target(target: str, source: str | Path, overwrite: bool, never: bool) -> tuple[Path | str, bool]:
    """The output as a Path (or `-`) and whether it may be overwritten.

    `-y` overwrites, `-n` refuses; otherwise a person at a terminal is asked, and anything else is refused.
    Raises UsageError for a target that makes no sense, MediaError for a missing folder, OutputExistsError.
    """
    if overwrite and never:
        raise UsageError("-y and -n exclude each other")
    if is_pipe(target):
        if sys.stdout is None:
            raise MediaError("-o -: standard output is closed")
        if sys.stdout.isatty():
            raise UsageError("-o - writes binary data to standard output, which is a terminal: redirect or pipe it")
        return "-", overwrite
    path = Path(target)
    if path.is_dir():
        raise UsageError(f"{target} is a folder: name a file in it")
    if not path.parent.is_dir():
        raise MediaError(f"cannot write {target}: folder {path.parent} does not exist")
    if not is_pipe(source) and path.exists() and Path(source).exists() and path.samefile(source):
        raise UsageError(f"{target} is both input and output")
    found = existing_outputs(path)
    if not found or overwrite:
        return path, overwrite
    if not never and ask(f"{found[0]} exists. Overwrite?"):
        return path, True
    raise OutputExistsError(f"{found[0]} exists" + ("" if never else "; -y overwrites it"))


def existing_outputs(path: Path) -> list[Path]:
    """Files that writing to `path` would replace: itself, or every frame that a `%05d` pattern names; no devices."""
    if "%" in path.name:
        from vovcodec.media.sequence import is_pattern, numbered_files

        if is_pattern(str(path)):
            return list(numbered_files(str(path)).values())
    return [path] if path.is_file() else []
