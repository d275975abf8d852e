"""Which device or devices a job runs on, and whether it is one of several processes. Importable without torch."""

from __future__ import annotations

import os

from vovcodec.errors import UsageError

__all__ = ["device_of_rank", "listed_devices", "process_rank", "require_one_device", "threads_per_worker"]


def listed_devices(text: str) -> list[str]:
    """`cuda:0,1` → cuda:0 and cuda:1; `cpu,cpu` → the processor twice; anything else is one device."""
    kind, colon, numbers = text.partition(":")
    if colon and "," in numbers:
        return [f"{kind}:{number}" for number in numbers.split(",")]
    return text.split(",")


def require_one_device(text: str, command: str) -> str:
    """The device, for commands that use one. Raises UsageError for a list."""
    if len(listed_devices(text)) > 1:
        raise UsageError(f"{command} works on one device, not on {text}")
    return text


def threads_per_worker(devices: list[str], threads: int | None) -> int:
    """Processor threads of each worker: as asked, else all of them shared by the workers that compute on it."""
    return threads or max(1, (os.cpu_count() or 1) // max(1, devices.count("cpu")))


def process_rank() -> tuple[int, int]:
    """(number of this process, how many there are), as `torchrun` tells in the environment; (0, 1) without it."""
    try:
        rank, size = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
    except (KeyError, ValueError):
        return 0, 1
    return (rank, size) if "MASTER_ADDR" in os.environ and 0 <= rank < size else (0, 1)


def device_of_rank(text: str) -> str:
    """The device of one of several processes: of a list the one with its number on this machine; "auto" likewise, where
    there is CUDA."""
    local = int(os.environ.get("LOCAL_RANK", "0"))
    devices = listed_devices(text)
    if len(devices) > 1:
        if local >= len(devices):
            raise UsageError(f"--device {text} names too few devices for process {local} of this machine")
        return devices[local]
    if text not in ("auto", "cuda"):
        return text
    import torch

    return f"cuda:{local}" if text == "cuda" or torch.cuda.is_available() else "cpu"
