"""Writes the test vectors of the exact streams and the entropy coder. Running it again is a change of the format.

python tests/vectors/make_vectors.py   (from the project root; needs nothing but the package)
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import numpy as np

from vovcodec.adaptation.projection import BalancedProjection
from vovcodec.entropy.positions import encode_atoms
from vovcodec.entropy.quantizer import dequantize, step_size
from vovcodec.entropy.symbols import encode_symbols
from vovcodec.sampling.codebook import make_codebook
from vovcodec.sampling.noise import Purpose, Stream, normal, permutation, raw_u64, signs, uniform_int
from vovcodec.sampling.schedule import ancestral_etas, snr_grid, time_grid
from vovcodec.sampling.steering import SteeringPlan
from vovcodec.sampling.trellis import TrellisCodebook

HERE = Path(__file__).parent


def sha256(array: np.ndarray, dtype: str) -> str:
    return hashlib.sha256(np.ascontiguousarray(array).astype(dtype).tobytes()).hexdigest()


def noise_vectors() -> list[dict]:
    cases = []
    for seed, purpose, indices in [(0, 1, ()), (7, 2, (0, 3)), (4294967295, 5, (1, 2, 3, 4294967295)), (1, 16, ())]:
        stream = Stream(seed, purpose, indices)
        cases.append(
            {
                "seed": seed,
                "purpose": purpose,
                "indices": list(indices),
                "raw_u64": [f"{raw:016x}" for raw in raw_u64(stream, 6).tolist()],
                "signs": signs(stream, 12).tolist(),
                "normal_times_4096": (normal(stream, 8) * 4096).astype(int).tolist(),
                "normal_100003_sha256": sha256(normal(stream, 100003) * 4096, "<i2"),
                "permutation_10": permutation(stream, 10).tolist(),
                "permutation_100003_sha256": sha256(permutation(stream, 100003), "<i8"),
                "uniform_int_1000": uniform_int(stream, 6, 1000).tolist(),
            }
        )
    return cases


def projection_vectors() -> list[dict]:
    cases = []
    for n_entries, vector_length, seed in [(10, 4, 0), (12, 12, 3), (73728, 4096, 1), (100003, 1000, 4294967295)]:
        projection = BalancedProjection(n_entries, vector_length, seed)
        cases.append(
            {
                "n_entries": n_entries,
                "vector_length": vector_length,
                "seed": seed,
                "index_start": projection.index[:10].tolist(),
                "scale_start_hex": [float(s).hex() for s in projection.scale[:10]],
                "index_sha256": sha256(projection.index, "<i4"),
                "scale_sha256": sha256(projection.scale, "<f4"),
                "order_sha256": sha256(projection.order, "<i8"),
            }
        )
    return cases


def step_size_vectors() -> list[dict]:
    symbols = np.array([-128, -1, 0, 1, 7, 128])
    return [
        {
            "step_size_q": q,
            "step_size_hex": step_size(q).hex(),
            "symbols": symbols.tolist(),
            "dequantized_hex": [float(v).hex() for v in dequantize(symbols, q)],
        }
        for q in (0, 1, 2, 1024, 2047, 2048, 2049, 12345, 20000, 65535)
    ]


def gaussian_symbols(seed: int, n: int, spread: float) -> np.ndarray:
    """Symbols of a Gaussian of standard deviation `spread`, from the exact streams."""
    return np.rint(normal(Stream(seed, Purpose.VECTOR_START), n) * np.float32(spread)).astype(np.int32)


def symbol_vectors() -> list[dict]:
    cases = {
        "one symbol": np.array([3]),
        "all zero": np.zeros(50, dtype=int),
        "narrow": gaussian_symbols(1, 300, 0.5),
        "wide": gaussian_symbols(2, 400, 3.0),
        "skewed, adaptive": np.maximum(gaussian_symbols(3, 900, 2.0), -1) + 1,
        "reach 1": np.array([0, 0, 1, -200, 150, 0, 0, 2] * 4),
        "limits": np.array([-1024, 1024, 0, 0]),
    }
    vectors = []
    for name, symbols in cases.items():
        model, words = encode_symbols(symbols)
        vectors.append({"name": name, "symbols": symbols.tolist(), "model": model.hex(), "words": words.hex()})
    return vectors


def atom_vectors() -> list[dict]:
    cases = {
        "none": (100, [0, 0]),
        "one": (1, [1]),
        "few": (159744, [1, 2, 3, 0, 5]),
        "many in one step": (4096, [300]),
        "dense": (64, [64, 63, 40, 1]),
        "large N": ((1 << 24) - 1, [2, 9]),
    }
    vectors = []
    for name, (n_positions, counts) in cases.items():
        steps = []
        for step, count in enumerate(counts):
            stream = Stream(len(name), Purpose.STEP_SIGNS, (0, step))
            order = permutation(stream, n_positions) if n_positions < 1 << 20 else uniform_int(stream, 99, n_positions)
            steps.append((np.sort(order[:count]), signs(stream, count)))
        vectors.append(
            {
                "name": name,
                "n_positions": n_positions,
                "steps": [[[int(p), int(s)] for p, s in zip(*atoms, strict=True)] for atoms in steps],
                "words": encode_atoms(steps, n_positions).hex(),
            }
        )
    clustered = [(np.arange(5, 505), np.ones(500, dtype=np.int8))]
    vectors.append(
        {
            "name": "clustered, with escapes",
            "n_positions": 100000,
            "steps": [[[int(p), 1] for p in clustered[0][0]]],
            "words": encode_atoms(clustered, 100000).hex(),
        }
    )
    return vectors


def steering_vectors() -> dict[str, list[dict]]:
    grids = []
    for start_q, ratio_q, n_injections, last_q, eta_scale_q in [
        (72, 48, 5, 16, 200),
        (72, 48, 5, 3, 200),
        (0, 255, 3, 1, 250),
        (255, 1, 1, 9, 77),
        (40, 16, 0, 16, 200),
    ]:
        times = snr_grid(start_q, ratio_q, n_injections, last_q)
        grids.append(
            {
                "snr_start_q": start_q,
                "snr_ratio_q": ratio_q,
                "n_injections": n_injections,
                "last_q": last_q,
                "eta_scale_q": eta_scale_q,
                "times_hex": [t.hex() for t in times],
                "etas_hex": [eta.hex() for eta in ancestral_etas(times, eta_scale_q)],
            }
        )
    time_grids = [
        {"n_steps": n, "shift_q8": shift_q8, "times_hex": [t.hex() for t in time_grid(n, shift_q8)]}
        for n, shift_q8 in [(1, 256), (4, 2048), (7, 100), (10, 768)]
    ]
    sums = []
    for codebook, address, n_entries, n_atoms in [
        ("hadamard", (0, 0, 0), 64, 3),
        ("hadamard", (7, 1, 2), 2100, 40),
        ("hadamard", (4294967295, 3, 9), 20000, 700),
        ("cyclic", (0, 0, 0), 64, 3),
        ("cyclic", (7, 1, 2), 2100, 40),
    ]:
        book = make_codebook(codebook, *address, n_entries)
        stream = Stream(1, Purpose.STEP_SIGNS, (n_entries,))
        positions = np.sort(permutation(stream, book.n_atoms)[:n_atoms])
        atom_signs = signs(stream, n_atoms)
        z = book.combine(positions, atom_signs)
        sums.append(
            {
                "codebook": codebook,
                **dict(zip(("seed", "segment", "step"), address, strict=True)),
                "n_entries": n_entries,
                "positions": positions.tolist(),
                "signs": atom_signs.tolist(),
                "start_hex": [float(value).hex() for value in z[:4]],
                "sha256": sha256(z, "<f4"),
            }
        )
    paths = []
    for address, n_entries, n_bits, memory in [
        ((0, 0, 0), 64, 9, 3),
        ((7, 1, 2), 2100, 300, 12),
        ((5, 0, 3), 999, 1, 16),
    ]:
        path = (signs(Stream(2, Purpose.STEP_SIGNS, (n_bits,)), n_bits) < 0).astype(np.uint8)
        z = TrellisCodebook(*address, n_entries, memory).combine(path)
        paths.append(
            {
                **dict(zip(("seed", "segment", "step"), address, strict=True)),
                "n_entries": n_entries,
                "n_bits": n_bits,
                "memory": memory,
                "path_hex": np.packbits(path).tobytes().hex(),
                "start_hex": [float(value).hex() for value in z[:4]],
                "sha256": sha256(z, "<f4"),
            }
        )
    generations = []
    for n_steered, last_q, n_injections, free_eta_scale_q in [
        (0, 16, 6, 100),
        (3, 16, 7, 0),
        (3, 5, 7, 100),
        (1, 9, 2, 50),
    ]:
        plan = SteeringPlan(
            seed=0,
            snr_start_q=72,
            snr_ratio_q=48,
            counts=(1,) * n_steered,
            last_q=last_q,
            n_injections=n_injections,
            free_eta_scale_q=free_eta_scale_q,
        )
        generations.append(
            {
                "n_steered": n_steered,
                "last_q": last_q,
                "n_injections": n_injections,
                "free_eta_scale_q": free_eta_scale_q,
                "times_hex": [t.hex() for t in plan.times],
                "etas_hex": [eta.hex() for eta in plan.etas],
            }
        )
    return {
        "grids": grids,
        "generations": generations,
        "time_grids": time_grids,
        "sums": sums,
        "trellis": paths,
    }


if __name__ == "__main__":
    groups = []
    for group, group_cases in steering_vectors().items():
        listed = ",\n".join(json.dumps(case) for case in group_cases)
        groups.append(f'"{group}": [\n{listed}\n]')
    (HERE / "steering.json").write_text("{" + ",\n".join(groups) + "}\n")
    for file_name, make in {
        "noise.json": noise_vectors,
        "projection.json": projection_vectors,
        "step_size.json": step_size_vectors,
        "symbols.json": symbol_vectors,
        "atoms.json": atom_vectors,
    }.items():
        lines = ",\n".join(json.dumps(case) for case in make())
        (HERE / file_name).write_text(f"[\n{lines}\n]\n")
