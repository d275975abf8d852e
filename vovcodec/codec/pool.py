"""Worker processes, one per device, that do the same kind of work on different segments.

Each worker makes its tool once (it loads the model) and applies it to one task after another. Results come in the order
of the tasks. A worker that fails or disappears ends the others, which get a moment to keep their state.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import threading
import time
import traceback
from collections.abc import Callable, Iterable, Iterator, Sequence
from multiprocessing.connection import Connection, wait
from types import TracebackType
from typing import Any

from vovcodec.errors import ModelError, VovError, portable
from vovcodec.progress import ProgressListener, SilentListener

__all__ = ["DevicePool", "Tool"]

Tool = Callable[[Any, ProgressListener], Any]
"""What a worker applies to every task: (task, listener) → result. Tasks and results travel between processes."""

_GRACE_S = 20.0


class DevicePool:
    """A context manager: worker processes, one per name in `devices`; leaving it stops them.

    Args:
        devices: one name per worker; the same name may occur more than once.
        make_tool: a function of a module, called in the worker as make_tool(device, *arguments), returns its `Tool`.
        listener: receives the workers' notes and warnings (their own progress is not passed on).
    """

    def __init__(
        self,
        devices: Sequence[str],
        make_tool: Callable[..., Tool],
        arguments: tuple[Any, ...],
        listener: ProgressListener,
    ) -> None:
        self._devices, self._make_tool, self._arguments, self._listener = devices, make_tool, arguments, listener
        self._workers: list[_Worker] = []

    def __enter__(self) -> DevicePool:
        # A fork would inherit threads and CUDA contexts, which do not survive it.
        context = multiprocessing.get_context("spawn")
        try:
            for device in self._devices:
                self._workers.append(_Worker(context, device, self._make_tool, self._arguments))
        except BaseException:
            self._stop()
            raise
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._stop()

    def map(self, tasks: Iterable[Any], on_result: Callable[[int, Any], None] | None = None) -> Iterator[Any]:
        """The results of all tasks, in their order; `on_result(number, result)` sees each as soon as it is there.

        A task is taken from `tasks` when a worker is free for it.

        Raises what a worker raised if it is a VovError, RuntimeError with its traceback for anything else, ModelError
        when one disappeared.
        """
        waiting = enumerate(tasks)
        done: dict[int, Any] = {}
        n_yielded = 0
        for worker in self._workers:
            worker.give(waiting)
        while busy := {worker.link: worker for worker in self._workers if worker.number is not None}:
            for link in wait(list(busy)):
                worker = busy[link]
                what, content = worker.receive()
                if what == "result":
                    done[worker.number] = content
                    if on_result is not None:
                        on_result(worker.number, content)
                    worker.give(waiting)
                elif what == "error":
                    raise content
                elif what == "crash":
                    raise RuntimeError(f"the worker on {worker.device} failed:\n{content}")
                else:
                    getattr(self._listener, what)(content)
            while n_yielded in done:
                yield done.pop(n_yielded)
                n_yielded += 1

    def _stop(self) -> None:
        for worker in self._workers:
            worker.process.terminate()
        deadline = time.monotonic() + _GRACE_S
        for worker in self._workers:
            worker.process.join(max(0.0, deadline - time.monotonic()))
            if worker.process.is_alive():
                worker.process.kill()
                worker.process.join()
            worker.link.close()


class _Worker:
    """One worker process as its parent sees it. number: of the task in hand, None when idle."""

    def __init__(self, context: Any, device: str, make_tool: Callable[..., Tool], arguments: tuple[Any, ...]) -> None:
        self.device, self.number = device, None
        self.link, theirs = context.Pipe()
        # A daemon ends with its parent.
        self.process = context.Process(target=_work, args=(theirs, device, make_tool, arguments), daemon=True)
        self.process.start()
        theirs.close()  # so that the end of the process is the end of the pipe

    def give(self, waiting: Iterator[tuple[int, Any]]) -> None:
        """The next task, if there is one."""
        self.number, task = next(waiting, (None, None))
        if self.number is not None:
            with contextlib.suppress(BrokenPipeError):  # `receive` finds out why
                self.link.send(task)

    def receive(self) -> tuple[str, Any]:
        """(kind, content) of the next message. Raises ModelError when the process has ended."""
        try:
            return self.link.recv()
        except (EOFError, OSError):
            self.process.join()
            code = self.process.exitcode or 0
            how = f"was ended by {signal.Signals(-code).name}" if code < 0 else f"ended with exit code {code}"
            hint = "; memory may have run out" if code == -signal.SIGKILL else ""
            raise ModelError(
                f"the worker on {self.device} (process {self.process.pid}) {how}{hint}; finished segments and "
                "unfinished fits are kept: run the same command again to continue"
            ) from None


class _Relay(SilentListener):
    """Passes notes and warnings on to the parent's listener."""

    def __init__(self, link: Connection) -> None:
        self._link = link

    def note(self, message: str) -> None:
        self._link.send(("note", message))

    def warn(self, message: str) -> None:
        self._link.send(("warn", message))


def _work(link: Connection, device: str, make_tool: Callable[..., Tool], arguments: tuple[Any, ...]) -> None:
    """A worker's whole life: until its parent ends it or closes the pipe."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group; the parent decides
    signal.signal(signal.SIGTERM, _interrupt)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    try:
        tool = None
        while True:
            task = link.recv()
            tool = tool or make_tool(device, *arguments)
            link.send(("result", tool(task, _Relay(link))))
    except VovError as error:
        link.send(("error", portable(error)))
    except (KeyboardInterrupt, EOFError, BrokenPipeError):
        pass  # asked to stop, or nobody is there any more
    except BaseException:
        with contextlib.suppress(OSError):
            link.send(("crash", traceback.format_exc()))


def _end_with_parent() -> None:
    """A parent that was killed outright cannot stop its workers."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os.kill(os.getpid(), signal.SIGTERM)


def _interrupt(number: int, frame: object) -> None:
    raise KeyboardInterrupt
