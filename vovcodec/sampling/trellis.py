"""Trellis-coded steering: one path of signed Hadamard atoms, found by the Viterbi algorithm.

Of P atoms with scores s (inner products with the residual, which the transform's random signs and columns make
Gaussian) the best few, coded by their positions, spend about 2 bits for each nat of Kullback-Leibler divergence they
buy, where 1/ln 2 = 1.44 would do (rate-distortion theory of a Gaussian source at a low rate). A random tree code comes
close to that bound, and a trellis makes its search linear in the length (Viterbi 1967; for source coding: Gray 1990,
"Source Coding Theory", chapter 6).

A step with b path bits divides its P atoms into b groups of L = ⌊P/b⌋. Bit i, together with the m bits before it (zero
before the first), is a word w_i of m + 1 bits; a fixed pseudo-random table maps w_i to one atom of group i and a sign.
The injected noise is the sum of the b chosen atoms, scaled to unit mean square. The encoder finds the bits with the
largest Σ sign·s over the 2^m states; the decoder reads them as they are: a step costs exactly b bits, no coder needed.

Measured, divergence bought over bits spent (1 = the bound): 0.85 for m = 8, 0.90 for m = 12, 0.92 for m = 14 at
200 and more bits, against 0.66-0.78 of the best signed positions (python -m vovcodec.bench.code_efficiency).
"""

from __future__ import annotations

import math
from functools import lru_cache

import numpy as np
from torch import Tensor

from vovcodec.sampling.codebook import HadamardCodebook
from vovcodec.sampling.noise import Purpose, Stream, raw_u64

__all__ = ["MAX_PATH_ATOMS", "TrellisCodebook", "best_path", "bits_to_reach", "mean_reach", "path_words"]

MAX_PATH_ATOMS = 1 << 26
_BLOCK_BITS = 24  # log₂ of (states × steps between two moments at which the search commits itself): bounds its memory
_BLOCK_LEAST = 512
_EFFICIENCY = 0.91


@lru_cache(maxsize=4)
def _labels(seed: int, memory: int) -> tuple[np.ndarray, np.ndarray]:
    """For every word 0 .. 2^(m+1) − 1: the 32-bit number that picks an atom of a group, and a sign."""
    raw = raw_u64(Stream(seed, Purpose.TRELLIS_LABELS), 2 << memory)
    return raw >> np.uint64(32), (1 - 2 * (raw & np.uint64(1)).astype(np.int8)).astype(np.int8)


def path_words(path: np.ndarray, memory: int) -> np.ndarray:
    """w_i = Σ_j path[i − j]·2^j, j = 0 .. m: int64 [b] from bits uint8 [b]."""
    words = np.zeros(path.size, dtype=np.int64)
    for j in range(min(memory + 1, path.size)):
        words[j:] += path[: path.size - j].astype(np.int64) << j
    return words


def best_path(scores: np.ndarray, atoms: np.ndarray, signs: np.ndarray, memory: int) -> tuple[np.ndarray, float]:
    """The bits that maximise Σ_i signs[w_i]·scores[i, atoms[w_i]] over all paths from state 0.

    Args:
        scores: float32 [b, L], a row per bit.
        atoms, signs: the labels of the 2^(m+1) words: column int64, ±1.
        memory: m.

    Returns:
        Bits uint8 [b] and the sum. The search commits itself to the best state after every 4096 bits with memory
        12, 1024 with 14, 512 with more.
    """
    n_states = 1 << memory
    bits = np.empty(len(scores), dtype=np.uint8)
    state, total = 0, 0.0
    # Scores and their negatives side by side: a label picks atom and sign with one index.
    signed = np.concatenate([scores, -scores], axis=1)
    labels = atoms + np.where(signs < 0, scores.shape[1], 0)
    reached = np.empty(2 * n_states, dtype=np.float32)
    through_lower, through_upper = reached[:n_states], reached[n_states:]
    n_steps = max(_BLOCK_LEAST, 1 << (_BLOCK_BITS - memory))
    for first in range(0, len(scores), n_steps):
        block = signed[first : first + n_steps]
        metric = np.full(n_states, -np.inf, dtype=np.float32)
        metric[state] = 0.0
        # from_upper[i, s']: the state before s' had its highest bit set.
        from_upper = np.empty((len(block), n_states), dtype=bool)
        for i, row in enumerate(block):
            np.take(row, labels, out=reached, mode="clip")  # "clip" writes to `out` directly
            by_state = reached.reshape(2, -1, 2)
            by_state += metric.reshape(2, -1, 1)
            np.greater(through_upper, through_lower, out=from_upper[i])
            np.maximum(through_lower, through_upper, out=metric)
        end = state = int(metric.argmax())
        total += float(metric[end])
        for i in range(len(block) - 1, -1, -1):
            bits[first + i] = end & 1
            end = (end >> 1) | int(from_upper[i, end]) << (memory - 1)
    return bits, total


class TrellisCodebook:
    """One step's trellis over vectors of `n_entries` values.

    memory: m, 1 .. 16; the search takes time in proportion to 2^m, decoding does not.
    """

    def __init__(self, stream_seed: int, segment: int, step: int, n_entries: int, memory: int) -> None:
        self._atoms = HadamardCodebook(stream_seed, segment, step, n_entries)
        self._seed, self._memory = stream_seed, memory
        self.n_atoms = self._atoms.n_atoms

    def scores(self, residual: Tensor) -> Tensor:
        """Inner products of a residual [N] with every atom, float32 [P], up to one positive factor."""
        return self._atoms.scores(residual)

    def _group_labels(self, n_bits: int) -> tuple[np.ndarray, np.ndarray]:
        numbers, signs = _labels(self._seed, self._memory)
        length = np.uint64(self.n_atoms // n_bits)
        return (numbers * length >> np.uint64(32)).astype(np.int64), signs

    def search(self, scores: np.ndarray, n_bits: int) -> tuple[np.ndarray, float]:
        """The best path of `n_bits` bits, uint8, and Σ of its signed scores."""
        length = self.n_atoms // n_bits
        atoms, signs = self._group_labels(n_bits)
        return best_path(scores[: n_bits * length].reshape(n_bits, length), atoms, signs, self._memory)

    def combine(self, path: np.ndarray) -> np.ndarray:
        """The noise of a path, float32 [N] of unit mean square; exact on every machine."""
        atoms, signs = self._group_labels(path.size)
        words = path_words(path, self._memory)
        positions = np.arange(path.size) * (self.n_atoms // path.size) + atoms[words]
        return self._atoms.combine(positions, signs[words])


def mean_reach(n_bits: float, n_atoms: int) -> float:
    """⟨z, r⟩/‖r‖ that a path of so many bits has on the average: √(e·P·(1 − 4^(−b/P))).

    A Gaussian source at R = b/P bits per value can be correlated with its code up to 1 − 4^(−R) (Shannon); e is the
    part of it that trellises of 2^10 .. 2^14 states attain.
    """
    return math.sqrt(_EFFICIENCY * n_atoms * (1 - 4 ** (-n_bits / n_atoms)))


def bits_to_reach(reach: float, n_atoms: int) -> float:
    """The inverse of `mean_reach`; infinite where no path reaches so far."""
    missing = 1 - reach * reach / (_EFFICIENCY * n_atoms)
    return -n_atoms / 2 * math.log2(missing) if missing > 0 else math.inf
