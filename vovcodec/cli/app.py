"""The root of the `vov` command: the list of subcommands, and the only place where errors become exit codes.

Exit codes: 0 ok, 1 internal error, 2 usage, 3 media, 4 bad `.vov`, 5 model or device, 6 output exists,
130 interrupted.
"""

from __future__ import annotations

import contextlib
import functools
import gc
import itertools
import os
import shlex
import signal
import sys
import traceback
from collections.abc import Iterator, Sequence
from importlib import import_module
from pathlib import Path
from typing import NoReturn

import click

from vovcodec.cli.progress import tell
from vovcodec.errors import Interrupted, MediaError, VovError

__all__ = ["COMPLETION_VARIABLE", "main", "root", "run"]

EXIT_INTERNAL_ERROR = 1
EXIT_USAGE = 2
COMPLETION_VARIABLE = "_VOV_COMPLETE"  # set by the scripts of `vov completion`

_LOAD = Path("/proc/loadavg")  # of Linux: three means, "running/all" threads, the latest process

# Subcommand → module of this package that has it as `command`; loaded when it is called or listed.
_COMMANDS = {
    "encode": "encode",
    "decode": "decode",
    "scale": "scale",
    "edit": "edit",
    "eval": "evaluate",
    "info": "info",
    "presets": "presets",
    "doctor": "doctor",
    "completion": "completion",
    "pretrain": "pretrain",
}

# What only prints: a reader may leave before the end.
_TEXT_COMMANDS = {"info", "presets", "doctor", "completion", "-h", "--version"}


class _LazyGroup(click.Group):
    """A group that imports a subcommand's module only when it is needed."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(_COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in _COMMANDS:
            return None
        return import_module(f"vovcodec.cli.{_COMMANDS[cmd_name]}").command


def _print_version(ctx: click.Context, param: click.Parameter, wanted: bool) -> None:
    if wanted:
        from vovcodec import __version__
        from vovcodec.container import VERSION

        print(f"vovcodec {__version__}, format {VERSION[0]}.{VERSION[1]}")
        ctx.exit()


@click.command(cls=_LazyGroup, invoke_without_command=True, context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--version", is_flag=True, is_eager=True, expose_value=False, callback=_print_version,
              help="Program and format version.")  # fmt: skip
@click.pass_context
def root(context: click.Context) -> None:
    """Video and images as a few kilobytes: a small adaptation of a frozen generative model, in a real file.

    vov encode in.mp4 -o out.vov    and back:    vov decode out.vov -o back.mp4
    """
    if context.invoked_subcommand != "encode":
        from vovcodec.codec.devices import process_rank

        if process_rank()[1] > 1:
            raise click.UsageError("only encode runs as several processes: leave torchrun out")
    if context.invoked_subcommand is None:
        print(context.get_help(), file=sys.stderr)
        context.exit(EXIT_USAGE)


def _others_compute() -> bool:
    """Whether other processes compute at this moment: more threads run than this one. False where it is not known."""
    try:
        running, _ = _LOAD.read_text().split()[3].split("/")
        return int(running) > 1
    except (OSError, ValueError, IndexError):
        return False


def main() -> NoReturn:
    """Entry point of the installed command."""
    # Before any library loads: the command speaks for itself, and nothing is fetched behind the user's back.
    for name in ("TRANSFORMERS_VERBOSITY", "DIFFUSERS_VERBOSITY"):
        os.environ.setdefault(name, "error")
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    if "OMP_WAIT_POLICY" not in os.environ and _others_compute():
        # Threads of torch spin while they wait for one another, for long: two stills at a time on two cores took 36 s,
        # one takes 8. Spinning for a moment only they take 11, but a command alone a tenth to a quarter longer.
        os.environ.setdefault("GOMP_SPINCOUNT", "1000")
    if COMPLETION_VARIABLE in os.environ:
        from vovcodec.cli.completion import complete

        sys.exit(complete(root, os.environ[COMPLETION_VARIABLE]))
    _occupy_closed_streams()
    code = run(sys.argv[1:])
    if sys.stdout is not None:
        try:
            sys.stdout.flush()
        except OSError as error:
            code = code or _output_failed(error, sys.argv[1:])
            # What could not be written would make the interpreter's own last flush complain.
            with contextlib.suppress(OSError, ValueError):
                os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    # The interpreter collects garbage once more before it ends: a second where a model's libraries are loaded.
    gc.freeze()
    sys.exit(code)


def _occupy_closed_streams() -> None:
    """A parent may have closed standard streams: the next file opened would then get their number, and whatever is
    written to standard error would land in it."""
    for descriptor in range(3):
        try:
            os.fstat(descriptor)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # takes the lowest free number, which is this one
    if sys.stderr is None:
        sys.stderr = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115 - for as long as the process lives


def run(arguments: Sequence[str]) -> int:
    """Runs one command line (without the program's name) and returns its exit code. Never raises an error."""
    verbose = "-v" in arguments or "--verbose" in arguments
    fail = functools.partial(tell, "error", as_json=_wants_events(arguments))
    try:
        with _signals_interrupt(), root.make_context("vov", list(arguments)) as context:
            root.invoke(context)
        return 0
    except click.exceptions.Exit as stop:
        return stop.exit_code
    except click.ClickException as error:
        where = error.ctx.command_path if getattr(error, "ctx", None) else "vov"
        message = " ".join(error.format_message().split())
        fail(f"{message.rstrip('.')} (see {where} --help)", speaker=where)
        return EXIT_USAGE
    except Interrupted as error:
        again = ["vov", *arguments[:1], *error.options, *arguments[1:]]
        fail(f"{error}\nto continue: {shlex.join(again)}")
        return error.exit_code
    except (KeyboardInterrupt, click.Abort):
        fail("interrupted")
        return Interrupted.exit_code
    except VovError as error:
        fail(str(error))
        return error.exit_code
    except OSError as error:
        if verbose:
            traceback.print_exc()
        return _output_failed(error, arguments)
    except Exception as error:
        if verbose:
            traceback.print_exc()
        hint = "" if verbose else "; rerun with -v for the traceback"
        summary = " ".join(f"{type(error).__name__}: {error}".split())
        fail(f"{summary}\nthis is a bug{hint}")
        return EXIT_INTERNAL_ERROR


def _output_failed(error: OSError, arguments: Sequence[str]) -> int:
    """Files are opened by code that explains its errors: what comes as far as this is standard output as a rule."""
    is_text = "--help" in arguments or (bool(arguments) and arguments[0] in _TEXT_COMMANDS)
    if is_text and isinstance(error, BrokenPipeError):
        return 0  # the reader had enough, as of `cat`
    where = error.filename or "standard output"
    reason = "the other side closed the pipe" if isinstance(error, BrokenPipeError) else error.strerror or error
    tell("error", f"{where}: {reason}", _wants_events(arguments))
    return MediaError.exit_code


def _wants_events(arguments: Sequence[str]) -> bool:
    """Whether standard error is for a program; told here too, because errors come before arguments are understood."""
    return "--progress=json" in arguments or ("--progress", "json") in itertools.pairwise(arguments)


@contextlib.contextmanager
def _signals_interrupt() -> Iterator[None]:
    """Lets SIGTERM, and SIGHUP of a terminal that closes, stop a job the way Ctrl-C does: state kept, exit code 130.

    A SIGHUP that is ignored (nohup) stays so.
    """

    def interrupt(number: int, frame: object) -> NoReturn:
        raise KeyboardInterrupt

    previous = {}
    with contextlib.suppress(ValueError):  # not in the main thread: the host program owns the signals
        for number in (signal.SIGTERM, getattr(signal, "SIGHUP", signal.SIGTERM)):
            if number not in previous and signal.getsignal(number) != signal.SIG_IGN:
                previous[number] = signal.signal(number, interrupt)
    try:
        yield
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
