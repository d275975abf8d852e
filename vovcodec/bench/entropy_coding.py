"""Size and speed of the symbol and atom coders, as TSV on standard output.

    python -m vovcodec.bench.entropy_coding

Sizes: coded bytes, model included, against the empirical entropy of the same symbols (for atoms against
Σ log₂ C(N, M) + M). Times: the best of seven runs, in milliseconds, one thread.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from typing import Any

import numpy as np

from vovcodec.entropy.positions import decode_atoms, encode_atoms
from vovcodec.entropy.symbols import decode_symbols, encode_symbols

__all__ = ["main"]

_LENGTHS = (256, 1024, 4096, 131072)
# Scale in symbols of Laplace and Gaussian laws with about 1, 2 and 3 bits of entropy.
_LAWS = {"laplace": (0.3, 0.68, 1.48), "gauss": (0.43, 0.92, 1.93)}
_ATOMS = (("33 frames 208x128", 239616, [200] * 20), ("81 frames 832x480", 2096640, [400] * 20))


def _best_ms(work: Callable[[], Any], n_runs: int = 7) -> tuple[float, Any]:
    times = []
    for _ in range(n_runs):
        started = time.perf_counter()
        result = work()
        times.append(time.perf_counter() - started)
    return 1e3 * min(times), result


def _entropy_bytes(symbols: np.ndarray) -> float:
    counts = np.unique(symbols, return_counts=True)[1]
    return float(-(counts * np.log2(counts / counts.sum())).sum() / 8)


def main() -> int:
    """The command; returns its exit code."""
    rng = np.random.default_rng(3)
    print("what\tlaw\tentropy_bytes\tcoded_bytes\tover_percent\tencode_ms\tdecode_ms")
    for n in _LENGTHS:
        for law, scales in _LAWS.items():
            for scale in scales:
                draws = rng.laplace(size=n) if law == "laplace" else rng.normal(size=n)
                symbols = np.rint(draws * scale).astype(np.int32)
                encode_ms, (model, words) = _best_ms(lambda s=symbols: encode_symbols(s))
                decode_ms, again = _best_ms(lambda m=model, w=words, n=n: decode_symbols(m, w, n))
                if not np.array_equal(again, symbols):
                    raise AssertionError("symbols do not come back")
                _row(
                    f"{n} symbols",
                    f"{law} {scale}",
                    _entropy_bytes(symbols),
                    len(model) + len(words),
                    encode_ms,
                    decode_ms,
                )
    for name, n_positions, counts in _ATOMS:
        steps = [
            (np.sort(rng.choice(n_positions, m, replace=False)), rng.choice(np.array([-1, 1], np.int8), m))
            for m in counts
        ]
        encode_ms, words = _best_ms(lambda s=steps, n=n_positions: encode_atoms(s, n))
        decode_ms, _ = _best_ms(lambda w=words, c=counts, n=n_positions: decode_atoms(w, c, n))
        exact = sum(
            (math.lgamma(n_positions + 1) - math.lgamma(m + 1) - math.lgamma(n_positions - m + 1)) / math.log(2) + m
            for m in counts
        )
        _row(f"{sum(counts)} atoms", name, exact / 8, len(words), encode_ms, decode_ms)
    return 0


def _row(what: str, law: str, entropy_bytes: float, coded_bytes: int, encode_ms: float, decode_ms: float) -> None:
    over = 100 * (coded_bytes / entropy_bytes - 1)
    print(f"{what}\t{law}\t{entropy_bytes:.1f}\t{coded_bytes}\t{over:.2f}\t{encode_ms:.2f}\t{decode_ms:.2f}")


if __name__ == "__main__":
    raise SystemExit(main())
