"""Keeps stage 1 of a fit from running away: back to the best vector so far, at half the learning rate.

A learning rate that suits a short fit may be too high for a long one, whose vector has moved further from the model
that was trained. In stage 2 the distortion rises by intention.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

__all__ = ["Guard"]

_RUNAWAY = 1.5  # times the least distortion of a round
_LEAST_FACTOR = 1 / 64


class Guard:
    """The best vector θ [k] of a fit so far and `factor`, what θ's learning rate is multiplied by.

    Compared are sums over whole rounds, in which every state of the objective has its turn: single states differ by far
    more than a fit that runs away.
    """

    def __init__(self, theta: Tensor) -> None:
        self.best = theta.detach().clone()
        self.factor = 1.0
        self._least, self._sum, self._n_seen = math.inf, 0.0, 0

    def has_run_away(self, theta: Tensor, distortion: float, period: int) -> bool:
        """Notes a distortion and the θ that it was measured at; True when the fit should go back to `best`.

        period: optimiser steps of a round. A distortion that is not finite counts as run away. Once `factor` is below
        1/64 going back has not helped: never again.
        """
        self._sum += distortion
        self._n_seen += 1
        runs_away = not math.isfinite(self._sum) or self._sum > _RUNAWAY * self._least
        if not runs_away and self._n_seen == period:
            if self._sum < self._least:
                self._least = self._sum
                self.best.copy_(theta.detach())
            self._sum, self._n_seen = 0.0, 0
        if not runs_away or self.factor < _LEAST_FACTOR:
            return False
        self.factor /= 2
        self._sum, self._n_seen = 0.0, 0
        return True

    def snapshot(self) -> tuple[dict[str, Tensor], dict[str, float]]:
        """Tensors, not copied, and figures for `restore`."""
        figures = {"least": self._least, "sum": self._sum, "seen": self._n_seen, "factor": self.factor}
        return {"best": self.best}, figures

    def restore(self, tensors: dict[str, Tensor], figures: dict[str, float]) -> None:
        """Continue where `snapshot` was taken."""
        with torch.no_grad():
            self.best.copy_(tensors["best"])
        self._least, self._sum = float(figures["least"]), float(figures["sum"])
        self._n_seen, self.factor = int(figures["seen"]), float(figures["factor"])
