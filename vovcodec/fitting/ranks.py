"""Several processes that fit one vector together, through torch.distributed.

Every process (rank) evaluates its share of the states of an optimiser step; gradients are summed, so that all take the
same step. The processes are started and told about one another by `torchrun`, on one machine or several.
"""

from __future__ import annotations

import datetime
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import TypeVar

import torch
from torch import Tensor

from vovcodec.errors import ModelError, VovError, portable

__all__ = ["ALONE", "Ranks", "joined_ranks"]

_TO_MEET = datetime.timedelta(minutes=5)
# A process that ends closes its connections and is noticed at once; this is for one that hangs.
_TO_ANSWER = datetime.timedelta(hours=2)
_Result = TypeVar("_Result")


class Ranks:
    """Process number `rank` of `size` equal ones. With a size of 1 nothing is communicated."""

    def __init__(self, rank: int = 0, size: int = 1) -> None:
        self.rank, self.size = rank, size

    @property
    def is_first(self) -> bool:
        """The first process reads and keeps state, writes the file and talks to the user."""
        return self.rank == 0

    def share_of(self, n: int) -> range:
        """Which of n equal pieces of work are this process's."""
        return range(self.rank, n, self.size)

    def sum_gradients(self, parameters: Iterable[Tensor], figure: Tensor) -> float:
        """Replaces every gradient by its sum over all processes; returns the sum of the scalar `figure`.

        Raises ModelError when another process is lost.
        """
        if self.size == 1:
            return float(figure)
        total = figure.detach().double().cpu()
        gradients = [p.grad for p in parameters if p.grad is not None]
        flat = torch.cat([gradient.reshape(-1) for gradient in gradients])
        with self._peers():
            # First through main memory: a lost process shows here as an error, on a device it would as a hang.
            torch.distributed.all_reduce(total)
            torch.distributed.all_reduce(flat)
        for gradient, summed in zip(gradients, flat.split([g.numel() for g in gradients]), strict=True):
            gradient.copy_(summed.view_as(gradient))
        return float(total)

    def first(self, work: Callable[[], _Result]) -> _Result:
        """What `work` returns, or raises as a VovError, in the first process; the others do not call it."""
        if self.size == 1:
            return work()
        outcome: list = [None, None]
        if self.is_first:
            try:
                outcome[0] = work()
            except VovError as error:
                outcome[1] = portable(error)
        with self._peers():
            torch.distributed.broadcast_object_list(outcome)
        if outcome[1] is not None:
            raise outcome[1]
        return outcome[0]

    @contextmanager
    def _peers(self) -> Iterator[None]:
        try:
            yield
        except RuntimeError as error:  # torch's DistError and what gloo raises
            raise ModelError(
                f"process {self.rank} of {self.size} lost the others: one of them ended or cannot be reached; the work "
                "so far is kept: start all of them again to continue"
            ) from error


ALONE = Ranks()


@contextmanager
def joined_ranks(rank: int, size: int, device: str) -> Iterator[Ranks]:
    """The group of all `size` processes, as the environment variables of `torchrun` describe it.

    Raises ModelError when the others cannot be reached.
    """
    if size == 1:
        yield ALONE
        return
    is_cuda = device.startswith("cuda")
    if is_cuda:
        torch.cuda.set_device(device)
    try:
        store, _, _ = next(torch.distributed.rendezvous("env://", rank, size, timeout=_TO_MEET))
        torch.distributed.init_process_group(
            "cpu:gloo,cuda:nccl" if is_cuda else "gloo", store=store, rank=rank, world_size=size, timeout=_TO_ANSWER
        )
    except (RuntimeError, ValueError) as error:
        reason = " ".join(str(error).split())
        raise ModelError(f"process {rank} of {size} cannot join the others: {reason}; use torchrun") from error
    yield Ranks(rank, size)
    # Only after success: a group that lost a member may wait for it for ever.
    torch.distributed.destroy_process_group()
