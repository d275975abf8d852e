"""Structured codebooks: every candidate scored at once, any few of them summed exactly.

A step's codebook is a large set of N-dimensional vectors ("atoms") that both sides can build from the step's exact
random stream. The encoder needs the inner product of a residual with *all* atoms; the decoder needs the signed sum
of a few. Both are one fast transform:

- `HadamardCodebook`: rows of the Walsh-Hadamard matrix H of the next power of two P ≥ N, restricted to N pseudo-random
  columns and multiplied by pseudo-random signs. Scores: one transform, P·log2 P additions. A sum of rows is computed
  on integers. (The first N columns would not do: with N just above P/2, rows i and i + P/2 nearly coincide.)
- `CyclicShiftCodebook`: all cyclic shifts of one fixed-point Gaussian. Scores: one circular cross-correlation by FFT.
  The decoder adds shifted integer vectors, since a floating-point FFT is not the same everywhere.

Decoder outputs are exact: integers up to the final normalisation, which is a division in float64 rounded to float32.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from vovcodec.sampling.noise import Purpose, Stream, normal, permutation, signs

__all__ = ["Codebook", "CyclicShiftCodebook", "HadamardCodebook", "make_codebook", "walsh_hadamard"]

NORMAL_UNIT = 4096  # the normal table's fixed-point grid is 2^-12


class Codebook(Protocol):
    """One step's codebook over vectors of `n_entries` values, offering `n_atoms` ≥ 1 atoms."""

    n_entries: int
    n_atoms: int

    def scores(self, residual: Tensor) -> Tensor:
        """Inner products of a residual [N] with every atom, float32 [n_atoms], up to one positive factor."""
        ...

    def combine(self, positions: np.ndarray, atom_signs: np.ndarray) -> np.ndarray:
        """Signed sum of atoms scaled to unit mean square, float32 [N]; exact on every machine."""
        ...


def walsh_hadamard(x: Tensor) -> Tensor:
    """Unnormalised Walsh-Hadamard transform of a vector whose length is a power of two (natural order).

    H_P = H_2 ⊗ … ⊗ H_2. Applied as products with small Hadamard matrices, six levels at a time; on integer-valued
    float32 input the result is exact while sums stay below 2^24.
    """
    n = x.numel()
    levels = n.bit_length() - 1
    out = x.reshape(-1)
    while levels > 0:
        step = min(6, levels)
        size = 1 << step
        # View as [size, n/size], transform the leading axis, and move it to the back: after all levels each axis has
        # been transformed once and the order is the natural one again.
        out = (_small_hadamard(size, x.dtype, x.device) @ out.reshape(size, -1)).T.reshape(-1)
        levels -= step
    return out


def _small_hadamard(size: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    matrix = torch.ones(1, 1, dtype=dtype, device=device)
    while matrix.shape[0] < size:
        matrix = torch.cat([torch.cat([matrix, matrix], 1), torch.cat([matrix, -matrix], 1)])
    return matrix


def _unit_mean_square(values: np.ndarray) -> np.ndarray:
    """Integers scaled to mean square one: float32(v / sqrt(Σv²/N)), the sum exact in int64, the rest in float64."""
    total = int(np.dot(values, values))
    if total == 0:
        return np.zeros(values.shape, dtype=np.float32)
    return (values / np.sqrt(np.float64(total) / values.size)).astype(np.float32)


@lru_cache(maxsize=2)
def _columns(stream_seed: int, n_atoms: int) -> np.ndarray:
    """The order of columns, one for all steps of a file: new signs alone make a step's atoms independent of another's,
    and sorting millions of numbers for every step would take longer than anything else here."""
    return permutation(Stream(stream_seed, Purpose.COLUMNS), n_atoms)


class HadamardCodebook:
    """Rows of a Hadamard matrix on random columns with random signs; atoms are orthogonal when N = P, N ≤ P < 2N."""

    def __init__(self, stream_seed: int, segment: int, step: int, n_entries: int) -> None:
        self.n_entries = n_entries
        self.n_atoms = 1 << max(0, (n_entries - 1).bit_length())
        self._signs = signs(Stream(stream_seed, Purpose.STEP_SIGNS, (segment, step)), n_entries)
        self._columns = _columns(stream_seed, self.n_atoms)[:n_entries]

    def scores(self, residual: Tensor) -> Tensor:
        """See `Codebook.scores`."""
        padded = torch.zeros(self.n_atoms, dtype=torch.float32, device=residual.device)
        columns = torch.from_numpy(self._columns).to(residual.device)
        padded[columns] = residual.float() * torch.from_numpy(self._signs).to(residual.device)
        return walsh_hadamard(padded)

    def combine(self, positions: np.ndarray, atom_signs: np.ndarray) -> np.ndarray:
        """See `Codebook.combine`. Fewer than 2^24 of them, so that float32 sums of ±1 are exact integers."""
        spectrum = np.zeros(self.n_atoms, dtype=np.float32)
        spectrum[positions] = atom_signs
        total = walsh_hadamard(torch.from_numpy(spectrum)).numpy()[self._columns]
        return _unit_mean_square(total.astype(np.int64) * self._signs)


class CyclicShiftCodebook:
    """All N cyclic shifts of one Gaussian: atom p holds g[(i − p) mod N] at entry i."""

    def __init__(self, stream_seed: int, segment: int, step: int, n_entries: int) -> None:
        self.n_entries = self.n_atoms = n_entries
        self._noise = normal(Stream(stream_seed, Purpose.STEP_NOISE, (segment, step)), n_entries)

    def scores(self, residual: Tensor) -> Tensor:
        """See `Codebook.scores`: circular cross-correlation, irfft(rfft(r)·conj(rfft(g)))."""
        noise = torch.from_numpy(self._noise).to(residual.device)
        product = torch.fft.rfft(residual.float()) * torch.fft.rfft(noise).conj()
        return torch.fft.irfft(product, n=self.n_entries)

    def combine(self, positions: np.ndarray, atom_signs: np.ndarray) -> np.ndarray:
        """See `Codebook.combine`; adds shifted fixed-point integers."""
        fixed = np.rint(self._noise.astype(np.float64) * NORMAL_UNIT).astype(np.int64)
        total = np.zeros(self.n_entries, dtype=np.int64)
        for position, sign in zip(positions.tolist(), atom_signs.tolist(), strict=True):
            total[position:] += sign * fixed[: self.n_entries - position]
            total[:position] += sign * fixed[self.n_entries - position :]
        return _unit_mean_square(total)


def make_codebook(name: str, stream_seed: int, segment: int, step: int, n_entries: int) -> Codebook:
    """The codebook called "hadamard" or "cyclic" for one step of one segment."""
    kinds = {"hadamard": HadamardCodebook, "cyclic": CyclicShiftCodebook}
    return kinds[name](stream_seed, segment, step, n_entries)
