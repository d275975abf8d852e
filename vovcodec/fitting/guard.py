"""Keeps a fit from running away: back to the best vector so far, at half the learning rate.

A learning rate that suits a short fit may be too high for a long one, whose vector has moved further from the model
that was trained. Watched is the mean distortion over the objective's states.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

__all__ = ["Guard"]

_RUNAWAY = 1.5  # times the least mean distortion
_LEAST_FACTOR = 1 / 64


class Guard:
    """Mean distortion of a fit, the best vector θ [k], and `factor`, what its learning rate is multiplied by.

    period: optimiser steps in which every state of the objective gets its turn; the mean goes about as far back.
    """

    def __init__(self, theta: Tensor) -> None:
        self.best = theta.detach().clone()
        self.factor = 1.0
        self._mean = self._least = math.inf
        self._n_seen = 0

    def has_run_away(self, theta: Tensor, distortion: float, period: int) -> bool:
        """Notes the distortion of a step and θ after it; True when the fit should go back to `best`, at `factor`.

        Not finite counts as run away; once `factor` is below 1/64, going back has not helped: never again.
        """
        self._n_seen += 1
        if self._n_seen == 1:
            # Of one state that need not be like the others; before the first round is over nothing better is known.
            self._mean, self._least = distortion, 2 * distortion
        self._mean += (distortion - self._mean) / min(self._n_seen, 1 + period)
        if self._n_seen >= period and self._mean < self._least:
            self._least = self._mean
            self.best.copy_(theta.detach())
        runs_away = not math.isfinite(distortion) or self._mean > _RUNAWAY * self._least
        if not runs_away or self.factor < _LEAST_FACTOR:
            return False
        self.factor /= 2
        self._mean = self._least
        return True

    def snapshot(self) -> tuple[dict[str, Tensor], dict[str, float]]:
        """Tensors and figures for `restore`."""
        figures = {"mean": self._mean, "least": self._least, "seen": self._n_seen, "factor": self.factor}
        return {"best": self.best.clone()}, figures

    def restore(self, tensors: dict[str, Tensor], figures: dict[str, float]) -> None:
        """Continue where `snapshot` was taken."""
        with torch.no_grad():
            self.best.copy_(tensors["best"])
        self._mean, self._least = float(figures["mean"]), float(figures["least"])
        self._n_seen, self.factor = int(figures["seen"]), float(figures["factor"])
