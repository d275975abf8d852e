"""How long the encoder needs per step to score candidates: all of them at once against one after the other."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

import torch

from vovcodec.sampling.codebook import CyclicShiftCodebook, HadamardCodebook

__all__ = ["WAN_LATENT_VALUES", "ScoringTime", "scoring_lines", "scoring_times"]

WAN_LATENT_VALUES = 16 * 21 * 60 * 104  # 81 frames of 832×480
_REFERENCE_CANDIDATES = 1 << 10
_MEASURED_CANDIDATES = 32


@dataclass(frozen=True)
class ScoringTime:
    """seconds: for one step; setup_s: drawing its codebook, which the decoder has to do too; measured: candidates that
    were really scored."""

    method: str
    n_candidates: int
    measured: int
    seconds: float
    setup_s: float = 0.0


def scoring_times(n_entries: int = WAN_LATENT_VALUES, repeats: int = 3) -> list[ScoringTime]:
    """All rows in one run, best of `repeats`, for latents of `n_entries` values."""
    residual = torch.randn(n_entries, generator=torch.Generator().manual_seed(0))
    rows = []
    for name, kind in (("hadamard", HadamardCodebook), ("cyclic, by FFT", CyclicShiftCodebook)):
        setup_s = _best_s(lambda kind=kind: kind(0, 0, 0, n_entries), 1)
        codebook = kind(0, 0, 0, n_entries)
        seconds = _best_s(lambda codebook=codebook: codebook.scores(residual), repeats)
        rows.append(ScoringTime(name, codebook.n_atoms, codebook.n_atoms, seconds, setup_s))
    seconds = _best_s(lambda: _one_by_one(residual, _MEASURED_CANDIDATES), 1)
    scale = _REFERENCE_CANDIDATES / _MEASURED_CANDIDATES
    rows.append(ScoringTime("one by one", _REFERENCE_CANDIDATES, _MEASURED_CANDIDATES, scale * seconds))
    return rows


def _one_by_one(mean_gap: torch.Tensor, n_candidates: int) -> int:
    """The reference's loop: draw a candidate, both Gaussian log densities, keep the heaviest."""
    generator = torch.Generator().manual_seed(1)
    sigma, best, best_weight = 0.1, 0, -float("inf")
    for number in range(n_candidates):
        offset = sigma * torch.randn(mean_gap.numel(), generator=generator)
        log_weight = float((offset.square().sum() - (offset - mean_gap).square().sum()) / (2 * sigma * sigma))
        if log_weight > best_weight:
            best, best_weight = number, log_weight
    return best


def _best_s(work: Callable[[], object], repeats: int) -> float:
    times = []
    for _ in range(repeats):
        started = time.perf_counter()
        work()
        times.append(time.perf_counter() - started)
    return min(times)


def scoring_lines(rows: list[ScoringTime]) -> list[str]:
    """For people: every row, and how the first two compare with the last."""
    loop = rows[-1]
    lines = []
    for row in rows:
        line = f"{row.method}: {row.n_candidates} candidates in {row.seconds:.3g} s"
        if row.measured != row.n_candidates:
            line += f" (extrapolated from {row.measured})"
        else:
            line += f" (+ {row.setup_s:.3g} s to draw the codebook): {loop.seconds / row.seconds:.0f} times less time"
            line += f" for {row.n_candidates / loop.n_candidates:.0f} times more candidates than one by one"
        lines.append(line)
    return lines
