"""Objectives that fitting was compared with; `fitting.objective.TrajectoryObjective` needs fewer evaluations.

Both depend on what the fit does meanwhile, so a fit with them cannot resume: for tables only.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from torch import Tensor

from vovcodec.fitting.objective import TrajectoryObjective
from vovcodec.sampling.sampler import Velocity, advance, estimate, sample

__all__ = ["OnPolicyObjective", "SamplerObjective"]


@dataclass
class SamplerObjective:
    """Squared error of what the decoder ends with, back-propagated through all steps of its ODE sampler.

    L = mean((x̂₀ − x₀)²) / scale. Memory grows with the steps: all their activations are kept.

    Args:
        target: x₀, float32 [1, C, T, h, w].
        noise: x₁, the decoder's own.
        times: of the sampler, from 1 to 0.
        scale: the error before the fit.
    """

    target: Tensor
    noise: Tensor
    times: list[float]
    scale: float
    period: int = 1

    @property
    def evaluations(self) -> int:
        """Network passes per optimiser step: the sampler's."""
        return len(self.times) - 1

    def losses(self, velocity: Velocity, iteration: int, numbers: Sequence[int] | None = None) -> Iterator[Tensor]:
        """See `fitting.objective.Objective.losses`; one part, whatever `numbers` says."""
        x_t = self.noise
        for t, t_next in itertools.pairwise(self.times):
            clean = estimate(velocity, x_t, t, is_last=False)
            if t_next > 0:
                x_t = advance(x_t, clean, t, t_next, 0.0, None)
        yield (clean - self.target).square().mean() / self.scale


@dataclass
class OnPolicyObjective(TrajectoryObjective):
    """A trajectory objective whose states are those that the sampler visits with the vector as it is at the time.

    They are traced anew, without gradient, before the first and after every `rounds` rounds.

    Args:
        times: of the sampler, from 1 to 0. The states given are its first ones; the first of them is the noise.
    """

    times: Sequence[float] = ()
    rounds: int = 4

    def losses(self, velocity: Velocity, iteration: int, numbers: Sequence[int] | None = None) -> Iterator[Tensor]:
        """See `fitting.objective.Objective.losses`."""
        if iteration % (self.rounds * self.period) == 0:
            visited: list[tuple[Tensor, float]] = []

            def visit(t: float, x_t: Tensor, clean: Tensor) -> None:
                visited.append((x_t, t))

            sample(velocity, self.states[0][0], list(self.times), [], None, visit)
            self.states = visited
        yield from super().losses(velocity, iteration, numbers)
