"""How long-running work reports to whoever started it, without knowing who that is.

The codec functions call a `ProgressListener`; the command line turns it into a bar, plain lines or JSON lines.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

__all__ = ["OnShare", "ProgressListener", "SilentListener", "stage_in_shares"]

OnShare = Callable[[float], None]
"""Takes the share of some work that is done, 1.0 with the last of it and only then."""

_PARTS = 1000


class ProgressListener(Protocol):
    """Receives the progress of one job. Calls come from one thread, in order."""

    def stage(self, name: str, n_units: int, done: int = 0) -> None:
        """A stage begins: `n_units` units of work, of which `done` were already finished (a resumed job)."""

    def advance(self, n_units: int = 1, **figures: float) -> None:
        """`n_units` more are done; `figures` are current estimates, e.g. `size_bytes=1490, psnr_db=24.1`."""

    def note(self, message: str) -> None:
        """One line the user should see even without a progress bar."""

    def warn(self, message: str) -> None:
        """One line about something that is probably not what the user wanted."""


class SilentListener:
    """Ignores everything."""

    def stage(self, name: str, n_units: int, done: int = 0) -> None:
        pass

    def advance(self, n_units: int = 1, **figures: float) -> None:
        pass

    def note(self, message: str) -> None:
        pass

    def warn(self, message: str) -> None:
        pass


def stage_in_shares(listener: ProgressListener, name: str) -> OnShare:
    """Begins a stage whose units are not known beforehand; what it returns may be given estimates, which it smooths:
    the stage never goes back, and is complete at 1.0 only."""
    listener.stage(name, _PARTS)
    done = 0

    def reached(share: float) -> None:
        nonlocal done
        before, done = done, _PARTS if share >= 1.0 else max(done, min(int(_PARTS * share), _PARTS - 1))
        listener.advance(done - before)

    return reached
