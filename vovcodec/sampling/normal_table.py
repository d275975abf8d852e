"""The table of 65,536 normal quantiles that turns 16-bit integers into Gaussians on every machine alike.

FORMAT.md, "Normal table": entry i is Phi^-1((i + 0.5) / 65536), rounded to a multiple of 2^-12. Only the upper half
(i = 32768 .. 65535) is shipped, because entry 65535 - i is exactly minus entry i. The file holds the zlib-compressed
first differences of the half table as little-endian int16; the digest is that of the half table itself, so that it
does not depend on the compressor.

`python -m vovcodec.sampling.normal_table` rebuilds the file and prints the digest.
"""

from __future__ import annotations

import hashlib
import zlib
from functools import lru_cache
from pathlib import Path
from statistics import NormalDist

import numpy as np

from vovcodec.errors import VovError

__all__ = ["GRID_BITS", "TABLE_SHA256", "build_half_table", "half_table", "normal_table"]

GRID_BITS = 12
N_HALF = 32768
TABLE_FILE = Path(__file__).with_name("normal_table.bin")
TABLE_SHA256 = "2c80abe71f046094d7f8d8597d31e370cd0ee003c451a7b83d2f7f7f0bee4fe0"


def build_half_table() -> np.ndarray:
    """Compute the upper half of the table from the standard library's quantile function.

    round(2^12 * Phi^-1((i + 0.5) / 65536)), i = 32768 .. 65535. No entry lies within 1e-5 grid units of a rounding tie
    while the quantile function is good to about 1e-11 of them, so any sound implementation gives the same integers.

    Returns:
        int16 [32768], 0 .. 17715, non-decreasing, in units of 2^-12 standard deviations.
    """
    inverse_cdf = NormalDist().inv_cdf
    quantiles = np.array([inverse_cdf((i + 0.5) / 65536) for i in range(N_HALF, 2 * N_HALF)])
    return np.rint(quantiles * (1 << GRID_BITS)).astype(np.int16)


def pack_half_table(half: np.ndarray) -> bytes:
    """The file's bytes for a half table: zlib over little-endian int16 first differences (the first one from 0)."""
    return zlib.compress(np.diff(half, prepend=np.int16(0)).astype("<i2").tobytes(), 9)


def digest(half: np.ndarray) -> str:
    """SHA-256 (hex) of the half table as 65,536 bytes of little-endian int16."""
    return hashlib.sha256(half.astype("<i2").tobytes()).hexdigest()


@lru_cache(maxsize=1)
def half_table() -> np.ndarray:
    """Read and check the shipped half table, int16 [32768]. Raises VovError when the file is missing or altered."""
    try:
        differences = np.frombuffer(zlib.decompress(TABLE_FILE.read_bytes()), dtype="<i2")
    except (OSError, zlib.error, ValueError) as error:
        raise VovError(f"the normal table {TABLE_FILE.name} cannot be read; reinstall vovcodec ({error})") from error
    half = np.cumsum(differences, dtype=np.int64).astype(np.int16)
    if digest(half) != TABLE_SHA256:
        raise VovError(f"the normal table {TABLE_FILE.name} is damaged; reinstall vovcodec")
    return half


@lru_cache(maxsize=1)
def normal_table() -> np.ndarray:
    """The whole table, float32 [65536], read-only; every entry is an integer times 2^-12, hence exact."""
    upper = half_table().astype(np.float32) / np.float32(1 << GRID_BITS)
    table = np.concatenate([-upper[::-1], upper])
    table.setflags(write=False)
    return table


if __name__ == "__main__":
    rebuilt = build_half_table()
    TABLE_FILE.write_bytes(pack_half_table(rebuilt))
    print(digest(rebuilt))
