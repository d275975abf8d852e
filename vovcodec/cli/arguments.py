"""How values are written on the command line, and the options that several commands share.

Parsers take the text of one argument and raise ValueError, which `Parsed` turns into a usage error (exit code 2).
click and not typer: parsing with typer 0.29 loads pydantic and takes 100 ms more, of the 250 ms that `vov info` has.
"""

from __future__ import annotations

import functools
import math
import re
from collections.abc import Callable
from dataclasses import dataclass, fields
from enum import StrEnum
from fractions import Fraction
from typing import Any

import click

from vovcodec.errors import UsageError

__all__ = [
    "GroupedCommand",
    "Parsed",
    "ProgressStyle",
    "Running",
    "grouped_option",
    "limit_option",
    "parse_audio",
    "parse_byte_count",
    "parse_device",
    "parse_factor",
    "parse_frame_rate",
    "parse_limit",
    "parse_merge",
    "parse_output_size",
    "parse_rate",
    "parse_replacement",
    "parse_size",
    "parse_split",
    "parse_time",
    "running_options",
]

_NEVER_OVERWRITE = "Never overwrite: exit code 6; in a folder, skip what exists."
_SUFFIXES = {"": 1, "k": 1000, "m": 1000**2, "g": 1000**3}
_NUMBER = r"(?:\d{1,15}(?:\.\d{0,20})?|\.\d{1,20})(?:e[-+]?\d\d?)?"
_MOST_FRAMES_PER_S = 1000


def parse_rate(text: str) -> float:
    """A positive number with an optional decimal suffix k, M or G: `1.5k` = 1500, `4e-3`."""
    match = re.fullmatch(rf"({_NUMBER})([kKmMgG]?)", text.strip(), re.ASCII)
    if not match or float(match[1]) <= 0:
        raise ValueError(f"{text!r} is not a positive number such as 1500, 1.5k or 2M")
    return float(Fraction(match[1]) * _SUFFIXES[match[2].lower()])


def parse_byte_count(text: str) -> int:
    """A whole number of bytes ≥ 1 with an optional decimal suffix: `1.5k` = 1500."""
    count = parse_rate(text)
    if count < 1:
        raise ValueError(f"{text!r} is less than one byte")
    return int(count)


def parse_frame_rate(text: str) -> Fraction:
    """Frames per second: `25`, `29.97` (= 2997/100) or `30000/1001`, which `29.97002997002997` is taken for.

    The nearest fraction with a numerator and a denominator that a file can hold, below 2³².
    """
    match = re.fullmatch(rf"{_NUMBER}|\d{{1,15}}/0*[1-9]\d{{0,14}}", text.strip(), re.ASCII)
    frame_rate = Fraction(match[0] if match else 0).limit_denominator((2**32 - 1) // _MOST_FRAMES_PER_S)
    if not 0 < frame_rate <= _MOST_FRAMES_PER_S:
        raise ValueError(f"{text!r} is not a frame rate such as 25, 29.97 or 30000/1001")
    return frame_rate


def parse_time(text: str) -> float:
    """A time in seconds ≥ 0: `62.5`, `1:02.5` or `0:01:02.5`."""
    match = re.fullmatch(r"(?:(?:(\d{1,4}):)?([0-5]?\d):)?(\d{1,9}(?:\.\d*)?|\.\d+)", text.strip(), re.ASCII)
    if not match or (match[2] is not None and float(match[3]) >= 60):
        raise ValueError(f"{text!r} is not a time such as 2.5, 1:02.5 or 0:01:02.5")
    return int(match[1] or 0) * 3600 + int(match[2] or 0) * 60 + float(match[3])


def parse_size(text: str) -> tuple[int, int]:
    """(width, height) in pixels from `416x240`."""
    match = re.fullmatch(r"([1-9]\d{0,4})[xX×]([1-9]\d{0,4})", text.strip(), re.ASCII)
    if not match:
        raise ValueError(f"{text!r} is not a size such as 416x240")
    return int(match[1]), int(match[2])


def parse_output_size(text: str) -> tuple[int, int] | str:
    """A size, or the words `coded` (what the model drew) or `source` (what went in)."""
    return text if text in ("coded", "source") else parse_size(text)


def parse_split(text: str) -> tuple[float, float]:
    """Shares (vector, steering) summing to 1 from `70:30` or `0.7:0.3`."""
    try:
        vector, steering = (float(part) for part in text.split(":"))
    except ValueError:
        vector = steering = -1.0
    total = vector + steering
    if min(vector, steering) < 0 or not 0 < total < math.inf:
        raise ValueError(f"{text!r} is not vector:steering such as 70:30")
    return vector / total, 1 - vector / total


def parse_factor(text: str) -> float:
    """Any finite number: `0.5`, `-1`, `1e-2`."""
    try:
        factor = float(text)
    except ValueError:
        factor = math.nan
    if not math.isfinite(factor):
        raise ValueError(f"{text!r} is not a number such as 0.5 or -1")
    return factor


def parse_replacement(text: str) -> tuple[str, str]:
    """(A, B) from `A=B`: the first `=` divides, B may be empty."""
    old, divider, new = text.partition("=")
    if not old or not divider:
        raise ValueError(f"{text!r} is not A=B such as dog=panda")
    return old, new


def parse_merge(text: str) -> tuple[str, float]:
    """(name, weight) from `other.vov` (weight 1) or `other.vov:0.5`."""
    name, colon, weight = text.rpartition(":")
    if not colon or not name.lower().endswith(".vov"):
        return text, 1.0
    return name, parse_factor(weight)


def parse_audio(text: str) -> str:
    """`none`, `copy`, or a bit rate in bits per second, returned as text: `6k` → `6000`."""
    return text if text in ("none", "copy") else str(int(parse_rate(text)))


def parse_device(text: str) -> str:
    """`auto`, `cpu`, `cuda`, or `cuda:0,1` (`cpu,cpu`: two workers). Only the spelling is checked, torch not asked."""
    if not re.fullmatch(r"auto|cpu(,cpu)*|cuda(:\d{1,3}(,\d{1,3})*)?", text, re.ASCII):
        raise ValueError(f"{text!r} is not one of auto, cpu, cuda, cuda:0,1")
    return text


def parse_limit(text: str) -> tuple[str, float]:
    """(name, value) from `frames=1000`, `memory=8G`, `hours=0.5`; the names are the fields of `DecodeLimits`."""
    from vovcodec.codec.options import DecodeLimits

    names = [each.name for each in fields(DecodeLimits)]
    name, _, value = text.partition("=")
    if name not in names:
        raise ValueError(f"{text!r} is not NAME=VALUE with a name of {', '.join(names)}")
    number = parse_rate(value)
    return name, number if name == "hours" else int(number)


class Parsed(click.ParamType):
    """A click type from a parser and the name shown in the help."""

    def __init__(self, parser: Callable[[str], Any], name: str) -> None:
        self.name, self._parser = name, parser

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """The parsed value; defaults that are not text pass."""
        if not isinstance(value, str):
            return value
        try:
            return self._parser(value)
        except ValueError as error:
            self.fail(str(error), param, ctx)

    def get_metavar(self, param: click.Parameter, ctx: click.Context | None = None) -> str:
        """The name as it is written, not in capitals."""
        return self.name


class _GroupedOption(click.Option):
    group = "Options"


def grouped_option(group: str, *declarations: str, **settings: Any) -> Callable[[Any], Any]:
    """`click.option` that a `GroupedCommand` lists under the heading `group`."""
    return click.option(*declarations, cls=type("Option", (_GroupedOption,), {"group": group}), **settings)


class GroupedCommand(click.Command):
    """A command whose help lists its options under headings, in the order in which these first appear."""

    def invoke(self, ctx: click.Context) -> Any:
        """Errors of the codec call options by the names of their fields: here they are written as they were given."""
        try:
            return super().invoke(ctx)
        except UsageError as error:
            flags = {each.name: each.opts[0] for each in self.params if "_" in (each.name or "")}
            error.args = (re.sub(r"[a-z]+_\w*", lambda name: flags.get(name[0], name[0]), str(error)),)
            raise

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Writes one section per heading."""
        groups: dict[str, list[tuple[str, str]]] = {}
        options = [each for each in self.get_params(ctx) if isinstance(each, click.Option)]
        for parameter in options:
            record = parameter.get_help_record(ctx)
            if record is not None:
                groups.setdefault(getattr(parameter, "group", "Options"), []).append(record)
        for heading, records in groups.items():
            with formatter.section(heading):
                formatter.write_dl(records)


def _decode_limits(context: click.Context, parameter: click.Parameter, given: tuple[tuple[str, float], ...]):
    from vovcodec.codec.options import DecodeLimits

    return DecodeLimits(**dict(given))


def limit_option(function: Callable[..., Any]) -> Callable[..., Any]:
    """Adds `--limit`, which may be given several times; the command receives them as `limits`, a `DecodeLimits`."""
    return grouped_option(
        "Running",
        "--limit",
        "limits",
        type=Parsed(parse_limit, "NAME=N"),
        multiple=True,
        callback=_decode_limits,
        help="Refuse files above it: memory=8G, hours=2, frames, side, segments, vector, atoms, evaluations, caption.",
    )(function)


class ProgressStyle(StrEnum):
    """How progress is shown on standard error."""

    auto = "auto"
    bar = "bar"
    plain = "plain"
    json = "json"


@dataclass(frozen=True)
class Running:
    """The flags about how a command runs rather than what it makes."""

    device: str
    threads: int | None
    overwrite: bool
    never_overwrite: bool
    progress: ProgressStyle
    quiet: bool
    verbose: bool
    as_json: bool


def running_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """Adds the options of `Running` to a command, which receives them as one argument `running`."""

    @functools.wraps(function)
    def command(**given: Any) -> Any:
        settings = {each.name: given.pop(each.name) for each in fields(Running)}
        settings["progress"] = ProgressStyle(settings["progress"])
        return function(running=Running(**settings), **given)

    option = functools.partial(grouped_option, "Running")
    for add in reversed(
        [
            option("--device", type=Parsed(parse_device, "DEVICE"), default="auto", help="auto, cpu, cuda, cuda:0,1."),
            option("--threads", type=click.IntRange(1), metavar="N", help="CPU threads; default all."),
            option("-y", "--overwrite", is_flag=True, help="Overwrite the output without asking."),
            option("-n", "--no-overwrite", "never_overwrite", is_flag=True, help=_NEVER_OVERWRITE),
            option(
                "--progress",
                type=click.Choice([style.value for style in ProgressStyle]),
                default=ProgressStyle.auto.value,
                help="On stderr; auto: a bar on a terminal, else plain lines.",
            ),
            option("-q", "--quiet", is_flag=True, help="Only warnings and errors on stderr."),
            option("-v", "--verbose", is_flag=True, help="More progress; tracebacks of internal errors."),
            option("--json", "as_json", is_flag=True, help="The result as JSON on stdout."),
        ]
    ):
        command = add(command)
    return command
