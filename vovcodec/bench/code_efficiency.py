"""What a byte of steering buys: Kullback-Leibler divergence per bit, of path bits and of signed positions.

    python -m vovcodec.bench.code_efficiency [--out FILE.tsv]

A code word z of b bits that reaches ⟨z, r⟩/‖r‖ = ρ along a residual r buys ρ²/2 nats; no code buys more than b·ln 2.
Residuals are Gaussian, which is what the transform's random signs and columns make of any.
"""

from __future__ import annotations

import argparse
import math
import time
from dataclasses import asdict, dataclass, fields
from pathlib import Path

import numpy as np
import torch

from vovcodec.entropy.positions import coded_atoms_bits
from vovcodec.sampling.codebook import HadamardCodebook
from vovcodec.sampling.trellis import TrellisCodebook

__all__ = ["Efficiency", "main", "path_efficiency", "position_efficiency"]


@dataclass(frozen=True)
class Efficiency:
    """One row, mean of `n_residuals`. n_entries: latent values; search_s: of one step, scores not counted."""

    code: str
    n_entries: int
    bits: float
    efficiency: float
    search_s: float
    n_residuals: int


def _unit_residual(n_entries: int, seed: int) -> torch.Tensor:
    residual = torch.randn(n_entries, generator=torch.Generator().manual_seed(seed))
    return residual / residual.norm()


def path_efficiency(n_entries: int, n_bits: int, memory: int, n_residuals: int) -> Efficiency:
    """Of the trellis with 2^memory states."""
    gained, spent = [], 0.0
    for seed in range(n_residuals):
        residual, book = _unit_residual(n_entries, seed), TrellisCodebook(seed, 0, 0, n_entries, memory)
        scores = book.scores(residual).numpy()
        before = time.perf_counter()
        path, _ = book.search(scores, n_bits)
        spent += time.perf_counter() - before
        reach = float(book.combine(path) @ residual.numpy())
        gained.append(reach**2 / (2 * math.log(2) * n_bits))
    return Efficiency(
        f"trellis, 2^{memory} states", n_entries, n_bits, float(np.mean(gained)), spent / n_residuals, n_residuals
    )


def position_efficiency(n_entries: int, n_bits: float, n_residuals: int) -> Efficiency:
    """Of the best signed Hadamard atoms, as many as the bits allow."""
    book = HadamardCodebook(0, 0, 0, n_entries)
    n_atoms = max(m for m in range(1, math.ceil(n_bits)) if coded_atoms_bits([m], book.n_atoms) <= n_bits)
    bits, gained, spent = coded_atoms_bits([n_atoms], book.n_atoms), [], 0.0
    for seed in range(n_residuals):
        residual, book = _unit_residual(n_entries, seed), HadamardCodebook(seed, 0, 0, n_entries)
        scores = book.scores(residual)
        before = time.perf_counter()
        top = torch.topk(scores.abs(), n_atoms).indices
        spent += time.perf_counter() - before
        order = top.sort().values
        z = book.combine(order.numpy(), scores[order].sign().numpy().astype(np.int8))
        gained.append(float(z @ residual.numpy()) ** 2 / (2 * math.log(2) * bits))
    return Efficiency("signed positions", n_entries, bits, float(np.mean(gained)), spent / n_residuals, n_residuals)


def main(arguments: list[str] | None = None) -> int:
    """Print the table; write it as TSV where asked for."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, help="TSV file")
    parser.add_argument("--entries", type=int, nargs="+", default=[64 * 16 * 24, 64 * 9 * 16 * 26], metavar="N")
    parser.add_argument("--bits", type=int, nargs="+", default=[40, 200, 1000], metavar="B")
    parser.add_argument("--memory", type=int, nargs="+", default=[8, 10, 12, 14], metavar="M")
    parser.add_argument("--residuals", type=int, default=6)
    options = parser.parse_args(arguments)
    rows = []
    for n_entries in options.entries:
        for n_bits in options.bits:
            rows.append(position_efficiency(n_entries, n_bits, options.residuals))
            rows += [path_efficiency(n_entries, n_bits, memory, options.residuals) for memory in options.memory]
            for row in rows[-1 - len(options.memory) :]:
                size = f"N {row.n_entries:7} {row.bits:6.0f} bits"
                print(f"{row.code:20} {size}: {row.efficiency:.3f}  {row.search_s:.3f} s")
    if options.out:
        lines = ["\t".join(f.name for f in fields(Efficiency))]
        lines += [
            "\t".join(f"{v:.4g}" if isinstance(v, float) else str(v) for v in asdict(row).values()) for row in rows
        ]
        options.out.write_text("\n".join(lines) + "\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
