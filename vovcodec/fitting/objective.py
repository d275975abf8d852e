"""What a fit minimises. Every objective is a sequence of (x_t, t) states with the clean latents as common answer.

A batch is a sum over states that are evaluated, and back-propagated by the fit, one after the other: a batch of 64
takes the memory of one, and several processes can share its states.

The loss of a state is the squared error of the clean estimate, L = mean((x̂₀ − x₀)²) with x̂₀ = x_t − t·v, which equals
t²·mean((v − v*)²) for the flow-matching target v* = (x_t − x₀)/t (= ε − x₀ on the straight path).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from vovcodec.sampling.noise import Purpose, Stream, normal, permutation, raw_u64
from vovcodec.sampling.sampler import Velocity, initial_noise

__all__ = ["Objective", "ReferenceObjective", "TrajectoryObjective", "straight_path"]

_STEADY_TIMES = 32


class Objective(Protocol):
    """Supplies the loss of one optimiser step, in `evaluations` parts of one network pass each."""

    evaluations: int
    period: int
    """Optimiser steps over which the mean loss is steady."""

    def losses(self, velocity: Velocity, iteration: int, numbers: Sequence[int] | None = None) -> Iterator[Tensor]:
        """The scalar parts `numbers` of the loss of optimiser step `iteration`, by default all; they sum to it.

        A pure function of the arguments, so that a fit can resume. Nothing keeps a part once it is yielded.
        """
        ...


@dataclass
class ReferenceObjective:
    """The published recipe: fresh noise and uniform times (arXiv 2603.07615; Lipman et al. 2023, eq. 23).

    L = mean over the batch of mean((v(x_t, t) − (ε − x₀))²), ε ~ N(0, 1), t ~ U[0, 1].

    Args:
        target: x₀, float32 [1, C, T, h, w].
        seed, segment: address of the random streams.
        batch: noise and time samples per step.
    """

    target: Tensor
    seed: int
    segment: int
    batch: int = 1

    @property
    def evaluations(self) -> int:
        """Network passes per optimiser step."""
        return self.batch

    @property
    def period(self) -> int:
        """Optimiser steps in which times are spread over their range well enough."""
        return -(-_STEADY_TIMES // self.batch)

    def losses(self, velocity: Velocity, iteration: int, numbers: Sequence[int] | None = None) -> Iterator[Tensor]:
        """See `Objective.losses`."""
        times = raw_u64(Stream(self.seed, Purpose.FITTING_TIME, (self.segment, iteration)), self.batch)
        for number in range(self.batch) if numbers is None else numbers:
            t = (float(times[number] >> 11) + 0.5) / (1 << 53)
            stream = Stream(self.seed, Purpose.FITTING_NOISE, (self.segment, iteration, number))
            noise = torch.from_numpy(normal(stream, tuple(self.target.shape))).to(self.target.device)
            x_t = (1 - t) * self.target + t * noise
            yield (velocity(x_t, t) - (noise - self.target)).square().mean() / self.batch


@dataclass
class TrajectoryObjective:
    """Squared error of x̂₀ at the states the decoder visits, each relative to its error before the fit.

    L = mean over the batch of mean((x̂₀(x_i, t_i) − x₀)²) / L_i⁰. States are visited in rounds, each round a fresh
    permutation, so that every state gets its turn.

    Args:
        target: x₀, float32 [1, C, T, h, w].
        states: (x_t, t) in decoding order.
        scales: L_i⁰ of every state.
        seed, segment: address of the random streams. batch: states per step.
    """

    target: Tensor
    states: list[tuple[Tensor, float]]
    scales: list[float]
    seed: int
    segment: int
    batch: int = 1

    @property
    def evaluations(self) -> int:
        """Network passes per optimiser step."""
        return self.batch

    @property
    def period(self) -> int:
        """Optimiser steps in which every state gets its turn."""
        return -(-len(self.states) // self.batch)

    def losses(self, velocity: Velocity, iteration: int, numbers: Sequence[int] | None = None) -> Iterator[Tensor]:
        """See `Objective.losses`."""
        for number in range(self.batch) if numbers is None else numbers:
            turn, place = divmod(iteration * self.batch + number, len(self.states))
            order = permutation(Stream(self.seed, Purpose.FITTING_TIME, (self.segment, turn)), len(self.states))
            chosen = int(order[place])
            x_t, t = self.states[chosen]
            yield (x_t - t * velocity(x_t, t) - self.target).square().mean() / (self.scales[chosen] * self.batch)


def straight_path(target: Tensor, times: list[float], seed: int, segment: int) -> list[tuple[Tensor, float]]:
    """States (1 − t)·x₀ + t·ε at the decoder's times with the decoder's own noise ε, for fits without steering."""
    noise = initial_noise(seed, segment, tuple(target.shape)).to(target.device)
    return [((1 - t) * target + t * noise, t) for t in times if t > 0]
