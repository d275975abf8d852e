"""A fit of a tiny Wan transformer that tests run alone, and as one of several processes:
`python rank_fit.py OUTPUT STATE LOSE_AT`."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

import numpy as np
import torch

from vovcodec.adaptation.lowrank import LowRankAdapter
from vovcodec.backbone.linears import wan_linears
from vovcodec.bench.architectures import random_transformer, random_velocity
from vovcodec.errors import VovError
from vovcodec.fitting.checkpoint import StateFolder
from vovcodec.fitting.fit import FitSettings, FittedVector, StageSettings, fit_vector, initial_vector
from vovcodec.fitting.objective import ReferenceObjective
from vovcodec.fitting.ranks import ALONE, Ranks, joined_ranks
from vovcodec.progress import SilentListener

SETTINGS = FitSettings(StageSettings(8, 0.05), StageSettings(8, 0.03), lambda_=1e-2, warmup_steps=3, target_bytes=14)
BATCH = 5  # not a multiple of the number of processes


def fitted(state: StateFolder | None = None, listener=None, ranks: Ranks = ALONE) -> FittedVector:
    """The vector of a frozen model; the same for every number of processes, but for rounding."""
    torch.manual_seed(0)
    transformer = random_transformer("tiny", "float32", "cpu")
    velocity = random_velocity(transformer, "tiny")
    adapter = LowRankAdapter(
        wan_linears(transformer, "qkvo", 0), rank=1, vector_length=60, seed=1, device=torch.device("cpu")
    )
    target = torch.randn(1, 16, 2, 4, 4, generator=torch.Generator().manual_seed(4))
    with adapter.attached():
        return fit_vector(
            adapter,
            velocity,
            ReferenceObjective(target, seed=0, segment=0, batch=BATCH),
            SETTINGS,
            initial_vector(0, 0, 60) * 5,
            segment=0,
            state=state,
            listener=listener or SilentListener(),
            ranks=ranks,
        )


class LosesThe(SilentListener):
    """Ends this process, as a machine without power would, after so many steps."""

    def __init__(self, n_steps: int) -> None:
        self._left = n_steps * BATCH

    def advance(self, n_units: int = 1, **figures: float) -> None:
        self._left -= n_units
        if self._left == 0:
            os.kill(os.getpid(), signal.SIGKILL)


def main(output: str, state: str, lose_at: str) -> int:
    rank, size = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
    listener = LosesThe(int(lose_at)) if rank == 1 and int(lose_at) else None
    # Only the first process may know where state is kept: other machines do not see its disk.
    folder = StateFolder(Path(state), "job") if rank == 0 else None
    try:
        with joined_ranks(rank, size, "cpu") as ranks:
            vector = fitted(folder, listener, ranks)
            np.save(f"{output}.{rank}.npy", vector.unquantized)
    except VovError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
