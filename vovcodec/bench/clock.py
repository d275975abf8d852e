"""Seconds and memory of repeated work, on the processor or a CUDA device."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass

import torch

from vovcodec.codec.measure import peak_memory_bytes
from vovcodec.progress import SilentListener

__all__ = ["WARM_UP", "Clock", "Figures", "timed"]

WARM_UP = 2


@dataclass(frozen=True)
class Figures:
    """Median seconds by the clock and on the processor, peak memory in MB; and how it was measured."""

    wall_s: float
    cpu_s: float
    peak_mb: float
    checkpointing: str = "none"
    note: str = ""


class Clock(SilentListener):
    """Takes the time of steps; a progress listener, whose units are the steps of a fit."""

    def __init__(self, device: str) -> None:
        self._device, self._times = device, []
        if device.startswith("cuda"):
            torch.cuda.reset_peak_memory_stats(device)

    def stage(self, name: str, n_units: int, done: int = 0) -> None:
        self.start()

    def advance(self, n_units: int = 1, **figures: float) -> None:
        self.stop()
        self.start()

    def start(self) -> None:
        """A step begins; everything before it is finished."""
        self._synchronize()
        self._started = time.perf_counter(), time.process_time()

    def stop(self) -> None:
        """A step ends when the device has done it."""
        self._synchronize()
        self._times.append((time.perf_counter() - self._started[0], time.process_time() - self._started[1]))

    def figures(self, warm_up: int = WARM_UP, **more: str) -> Figures:
        """Medians after the first `warm_up` steps; on a device the peak since this clock was made."""
        wall, cpu = (statistics.median(column) for column in zip(*self._times[warm_up:], strict=True))
        is_cuda = self._device.startswith("cuda")
        peak = torch.cuda.max_memory_allocated(self._device) if is_cuda else peak_memory_bytes()
        return Figures(wall, cpu, peak / 1e6, **more)

    def _synchronize(self) -> None:
        if self._device.startswith("cuda"):
            torch.cuda.synchronize(self._device)


def timed(step: Callable[[], object], device: str, steps: int, *, warm_up: int = WARM_UP, **more: str) -> Figures:
    """`step` run `warm_up` times and then `steps` times, with the clock on; `more`: other fields of `Figures`."""
    clock = Clock(device)
    for _ in range(warm_up + steps):
        clock.start()
        step()
        clock.stop()
    return clock.figures(warm_up, **more)
