"""Several processes that fit one vector: the same vector as one process, and what happens when one is lost."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import rank_fit

from vovcodec.errors import UsageError
from vovcodec.fitting.checkpoint import StateFolder
from vovcodec.fitting.ranks import ALONE, Ranks, joined_ranks

SCRIPT = Path(rank_fit.__file__)
ROOT = SCRIPT.parent.parent


def run_ranks(output: Path, state: Path, lose_at: int = 0, size: int = 2) -> list[tuple[int, str]]:
    """(exit code, standard error) of every process."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    group = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "WORLD_SIZE": str(size)}
    group["OMP_NUM_THREADS"] = "1"
    processes = [
        subprocess.Popen(
            [sys.executable, str(SCRIPT), str(output), str(state), str(lose_at)],
            env=os.environ | group | {"RANK": str(rank), "PYTHONPATH": str(ROOT)},
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(size)
    ]
    try:
        errors = [process.communicate(timeout=120)[1] for process in processes]
    finally:
        for process in processes:
            process.kill()
    return [(process.returncode, error) for process, error in zip(processes, errors, strict=True)]


@pytest.mark.slow  # four processes that import torch and wait for one another
def test_two_processes_fit_what_one_does_and_survive_the_loss_of_one(tmp_path):
    alone = rank_fit.fitted().unquantized
    first, second = run_ranks(tmp_path / "lost", tmp_path / "state", lose_at=11)
    assert second[0] == -9
    assert first[0] == 5, first
    assert "process 0 of 2 lost the others" in first[1] and "start all of them again" in first[1]
    assert "Traceback" not in first[1]
    kept = StateFolder(tmp_path / "state", "job").read_fit(0)
    assert kept is not None and kept[1]["iteration"] in (10, 11)
    # The same command again continues, in two processes, from what the first one kept.
    assert [code for code, _ in run_ranks(tmp_path / "theta", tmp_path / "state")] == [0, 0]
    vectors = [np.load(tmp_path / f"theta.{rank}.npy") for rank in (0, 1)]
    assert np.array_equal(*vectors), "all take the same steps"
    assert np.linalg.norm(vectors[0] - alone) <= 1e-4 * np.linalg.norm(alone)


def test_shares_cover_everything_once():
    for n in (0, 1, 5, 8):
        shares = [list(Ranks(rank, 3).share_of(n)) for rank in range(3)]
        assert sorted(number for share in shares for number in share) == list(range(n))
        assert max(map(len, shares)) - min(map(len, shares)) <= 1


def test_more_processes_than_states_are_refused():
    with pytest.raises(UsageError, match=r"6 processes cannot share 5 state\(s\).*--batch to 6"):
        rank_fit.fitted(ranks=Ranks(0, 6))


def test_one_process_needs_no_group():
    with joined_ranks(0, 1, "cuda:7") as ranks:
        assert ranks is ALONE and ranks.is_first and ranks.first(lambda: 3) == 3
