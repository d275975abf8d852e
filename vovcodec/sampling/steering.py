"""Steering: noise injected by the sampler carries information about the original.

At each injection the encoder, which knows x₀, looks for atoms of the step's codebook that point along the weighted
residual r = w·(x₀ − x̂₀), keeps the M with the largest |score| and their signs, and injects their normalised sum as z.
The decoder rebuilds the same z from positions and signs. Rate: log2 C(N, M) + M bits per step. See DESIGN notes in
FORMAT.md, "Steering".
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import numpy as np
import torch
from torch import Tensor

from vovcodec.sampling.codebook import make_codebook
from vovcodec.sampling.sampler import Velocity, initial_noise, sample
from vovcodec.sampling.schedule import atom_counts, noise_fractions, time_grid

__all__ = ["Atoms", "SteeringPlan", "follow", "steer"]

Atoms = list[tuple[np.ndarray, np.ndarray]]
"""Per injection: sorted positions int64 [M] and signs int8 [M]."""


@dataclass(frozen=True)
class SteeringPlan:
    """Everything besides the atoms that both sides need; all integers, all in the file.

    `active_channels`: atoms live on the first so many latent channels only (0 = all); the other channels keep ε̂.
    """

    n_steps: int
    shift_q8: int
    seed: int
    n_atoms_total: int = 0
    ramp_q: int = 128
    eta_q: tuple[int, ...] = (100,)
    codebook: str = "hadamard"
    active_channels: int = 0
    n_steps_kept: int | None = field(default=None)

    @property
    def counts(self) -> list[int]:
        """Atoms of each injection that the file holds (a truncated file holds a prefix)."""
        counts = atom_counts(self.n_atoms_total, self.n_steps - 1, self.ramp_q)
        return counts if self.n_steps_kept is None else counts[: self.n_steps_kept]

    @property
    def etas(self) -> list[float]:
        """η of each injection; 0 where no atoms are left."""
        etas = noise_fractions(self.eta_q, self.n_steps - 1)
        kept = self.counts
        return [eta if i < len(kept) and kept[i] else 0.0 for i, eta in enumerate(etas)]

    def with_atoms(self, n_atoms_total: int) -> SteeringPlan:
        """The same plan with another number of atoms."""
        return replace(self, n_atoms_total=n_atoms_total)

    def n_entries(self, shape: tuple[int, ...]) -> int:
        """N: latent values the atoms act on, for latents of `shape` [1, C, T, h, w]."""
        channels = self.active_channels or shape[1]
        return min(channels, shape[1]) * shape[2] * shape[3] * shape[4]

    def n_positions(self, shape: tuple[int, ...]) -> int:
        """Number of atoms a step offers, the alphabet of the coded positions."""
        n = self.n_entries(shape)
        return n if self.codebook == "cyclic" else 1 << max(0, (n - 1).bit_length())


def steer(
    velocity: Velocity,
    target: Tensor,
    plan: SteeringPlan,
    segment: int,
    *,
    weights: Tensor | None = None,
    on_step=None,
) -> tuple[Atoms, Tensor]:
    """Encoder: sample towards `target` and return the chosen atoms and the final latents.

    Args:
        velocity: the adapted model.
        target: x₀, float32 [1, C, T, h, w].
        plan: steps, times, counts; its `counts` must be those the file will hold.
        segment: number of the segment, part of every random stream's address.
        weights: importance of each latent value for the score, broadcastable to `target` (None = all equal).
            Encoder only: the decoder does not need them.
        on_step: as in `sampler.sample`.
    """
    shape = tuple(target.shape)
    counts = plan.counts
    n = plan.n_entries(shape)
    chosen: Atoms = [(np.zeros(0, np.int64), np.zeros(0, np.int8)) for _ in counts]

    def choose(step: int, clean: Tensor):
        codebook = make_codebook(plan.codebook, plan.seed, segment, step, n)
        residual = target - clean
        if weights is not None:
            residual = residual * weights
        scores = codebook.scores(residual.reshape(-1)[:n])
        top = torch.topk(scores.abs(), counts[step]).indices.sort().values
        positions = top.cpu().numpy().astype(np.int64)
        atom_signs = np.where(scores[top].cpu().numpy() < 0, -1, 1).astype(np.int8)
        chosen[step] = (positions, atom_signs)
        return codebook.combine(positions, atom_signs)

    latents = sample(
        velocity,
        initial_noise(plan.seed, segment, shape).to(target.device),
        time_grid(plan.n_steps, plan.shift_q8),
        plan.etas,
        choose,
        on_step,
    )
    return chosen, latents


def follow(
    velocity: Velocity,
    atoms: Atoms,
    plan: SteeringPlan,
    segment: int,
    shape: tuple[int, ...],
    device,
    on_step=None,
    n_evaluations: int | None = None,
) -> Tensor:
    """Decoder: replay the atoms of `steer`; the same latents up to the network's floating-point differences."""
    n = plan.n_entries(shape)

    def choose(step: int, clean: Tensor):
        positions, atom_signs = atoms[step]
        return make_codebook(plan.codebook, plan.seed, segment, step, n).combine(positions, atom_signs)

    return sample(
        velocity,
        initial_noise(plan.seed, segment, shape).to(device),
        time_grid(plan.n_steps, plan.shift_q8),
        plan.etas,
        choose,
        on_step,
        n_evaluations,
    )
