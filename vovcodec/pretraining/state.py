"""What a stage of pre-training keeps in its run folder, to continue from and for the stages after it."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from vovcodec.errors import UsageError

__all__ = ["assign", "read_state", "write_state"]


def read_state(path: Path, start: list[int], device: str = "cpu") -> dict[str, Any]:
    """What `write_state` wrote, tensors on `device`.

    start: steps of the stages before. Raises UsageError when the stage started from other ones.
    """
    state = torch.load(path, map_location=device, weights_only=True)
    if state["start"] != start:
        raise UsageError(f"{path} started from other weights than its folder holds now; delete it to train anew")
    return state


def write_state(state: dict[str, Any], path: Path) -> None:
    """Numbers, lists and tensors of a stage; a reader never sees half of them."""
    temporary = path.with_suffix(".tmp")
    torch.save(state, temporary)
    temporary.replace(path)


@torch.no_grad()
def assign(parameters: Iterable[Tensor], values: Iterable[Tensor]) -> None:
    """Copies values into parameters, one by one and of equal shapes."""
    for parameter, value in zip(parameters, values, strict=True):
        parameter.copy_(value)
