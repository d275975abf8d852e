"""Several inputs in one command: what each output is called, and going on after a failure."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from vovcodec.cli.arguments import ProgressStyle, Running
from vovcodec.cli.progress import tell
from vovcodec.cli.targets import existing_outputs, is_pipe, names_sequence
from vovcodec.errors import Interrupted, MediaError, UsageError, VovError

__all__ = ["is_folder_job", "outputs_in", "run_each"]


def is_folder_job(sources: Sequence[str], output: str) -> bool:
    """Whether the outputs go into a folder: one that exists, or a name with a slash at its end.

    Raises UsageError when several inputs are given and the output is one file.
    """
    if output.endswith("/") or (Path(output).is_dir() and not is_pipe(output)):
        return True
    if len(sources) > 1:
        name = "out" if is_pipe(output) else output
        raise UsageError(f"{len(sources)} inputs need a folder for their outputs: -o {name}/")
    return False


def outputs_in(folder: str, sources: Sequence[str], suffix_of: Callable[[str], str]) -> list[tuple[str, str]]:
    """(input, output) for every input: its name in the folder, with another suffix. Folders are made.

    A numbered sequence `clip/%05d.png` is called after its folder. Raises UsageError for inputs that would share an
    output, MediaError when the folder cannot be made.
    """
    jobs: dict[str, str] = {}
    for source in sources:
        if is_pipe(source):
            raise UsageError("outputs in a folder are called after their inputs, and standard input has no name")
        path = Path(source)
        stem = (path.parent.name or "frames") if names_sequence(source) else path.stem
        target = str(Path(folder) / f"{stem}{suffix_of(source)}")
        if target in jobs:
            raise UsageError(f"{jobs[target]} and {source} would both become {target}")
        jobs[target] = source
    try:
        Path(folder).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise MediaError(f"cannot make the folder {folder}: {error.strerror}") from error
    return [(source, target) for target, source in jobs.items()]


def run_each(
    jobs: Iterable[tuple[str, str | None]],
    work: Callable[[str, str | None], int | None],
    running: Running | None = None,
) -> int:
    """Calls `work(input, output)` for each job and returns the exit code of the first one that failed, else 0.

    `work` returns None or an exit code. Errors become one line each and do not stop the rest. With `-n`, jobs whose
    output exists are left out. The outputs are what matters: an OSError of standard output, where the reports go, is
    raised when all jobs are done.
    """
    first_failure, unprinted = 0, None
    as_json = running is not None and running.progress is ProgressStyle.json
    for source, target in jobs:
        if running and running.never_overwrite and target and existing_outputs(Path(target)):
            tell("note", f"{target} exists: skipped", as_json, source)
            continue
        try:
            code = work(source, target) or 0
        except Interrupted as error:
            # What the jobs before wrote is not to be made again, nor to be an error. An output that was to be replaced
            # would be left out.
            if running and target and not (running.overwrite or running.never_overwrite or Path(target).exists()):
                error.options = ("-n",)
            raise
        except VovError as error:
            tell("error", str(error), as_json, source)
            code = error.exit_code
        except OSError as error:
            unprinted = unprinted or error
            continue
        first_failure = first_failure or code
    if unprinted is not None:
        raise unprinted
    return first_failure
