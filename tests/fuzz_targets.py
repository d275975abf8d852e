"""What is fuzzed: every place where foreign bytes are interpreted, each as a function of bytes.

A target returns the name of what came out ("valid", or the error's type and the place that raised it) and raises for
everything that must not happen: an error of another type, a message of several lines where one is promised, a file
that reads but cannot be written again, symbols or atoms out of their bounds.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import tempfile
from collections.abc import Callable

from vovcodec.codec.inspect import summary
from vovcodec.container import Limits, VovFile, describe, describe_lines, parse, serialize
from vovcodec.container.indices import unpack_indices
from vovcodec.entropy.positions import decode_atoms
from vovcodec.entropy.symbols import MAX_SYMBOL, decode_symbols
from vovcodec.errors import FormatError, UsageError
from vovcodec.presets import load_preset, resolve
from vovcodec.sampling.schedule import ancestral_etas, snr_grid, time_grid

__all__ = ["TARGETS"]

# Small, so that what would merely take long does not hide what goes wrong.
LIMITS = Limits(max_expanded_bytes=4 * 2**20)
LONGEST_VECTOR, MOST_ATOMS, MOST_POSITIONS = 2048, 1024, 1 << 22


def outcome(error: Exception) -> str:
    """Type of an error and the line that raised it: what tells one way of being bad from another."""
    trace = error.__traceback__
    while trace.tb_next is not None:
        trace = trace.tb_next
    return f"{type(error).__name__} {os.path.basename(trace.tb_frame.f_code.co_filename)}:{trace.tb_lineno}"


def read_file(data: bytes) -> str:
    """A `.vov` file: strict reading, tolerant reading, writing again, showing, decoding all that is coded."""
    try:
        stream = parse(data, limits=LIMITS)
    except FormatError as error:
        assert str(error), "an error without a message"
        assert "\n" not in str(error), "a message of several lines"
        with contextlib.suppress(FormatError):
            damaged = parse(data, tolerant=True, limits=LIMITS)
            json.dumps(describe(damaged))
            decode_payloads(damaged)
        return outcome(error)
    assert parse(serialize(stream), limits=LIMITS) == stream, "it reads back differently"
    json.dumps(describe(stream))
    assert all(describe_lines(stream))
    summary(stream)
    return decode_payloads(stream)


def decode_payloads(stream: VovFile) -> str:
    """Symbols, atoms (for latents of 64 channels at strides 4 and 8), indices and times of every segment."""
    found = []
    for segment in stream.segments:
        try:
            check_segment(stream, segment)
            found.append("valid")
        except FormatError as error:
            assert str(error)
            assert "\n" not in str(error)
            found.append(outcome(error))
    return " ".join(dict.fromkeys(found))


def check_segment(stream: VovFile, segment) -> None:
    """Everything that a decoder would derive from one segment before it asks the network."""
    header, atoms, vector = stream.header, segment.atoms, segment.vector
    sampler = header.sampler
    if vector is not None and header.adaptation.vector_length <= LONGEST_VECTOR:
        check_symbols(vector.model, vector.words, header.adaptation.vector_length)
    if segment.importance is not None and sampler.n_steps is not None:
        unpack_indices(segment.importance.indices, sampler.n_steps - 1, segment.importance.log2_candidates)
    times = time_grid(sampler.n_steps, sampler.shift_q8) if sampler.n_steps else None
    if atoms is not None:
        shape = (1, 64, 1 + (segment.n_frames - 1) // 4, header.coded_height // 8, header.coded_width // 8)
        n_positions = atoms.n_positions(shape)
        if sum(atoms.counts) <= MOST_ATOMS and n_positions <= MOST_POSITIONS:
            check_atoms(atoms.words, list(atoms.counts), n_positions)
        if times is None:
            times = snr_grid(sampler.snr_start_q, sampler.snr_ratio_q, len(atoms.counts), atoms.last_q)
            assert all(0 <= eta <= 1 for eta in ancestral_etas(times, atoms.eta_scale_q))
    if times is not None:
        assert times[0] == 1 and times[-1] == 0, times
        assert all(math.isfinite(t) and 0 <= t <= 1 for t in times)


def check_symbols(model: bytes, words: bytes, n: int) -> None:
    """Symbols are as many as asked for and within the format's bounds."""
    symbols = decode_symbols(model, words, n)
    assert symbols.shape == (n,)
    assert n == 0 or abs(symbols).max() <= MAX_SYMBOL


def check_atoms(words: bytes, counts: list[int], n_positions: int) -> None:
    """Positions of every step rise strictly within their bounds, and every one has a sign."""
    for count, (positions, signs) in zip(counts, decode_atoms(words, counts, n_positions), strict=True):
        assert len(positions) == len(signs) == count
        assert count == 0 or (positions[0] >= 0 and positions[-1] < n_positions)
        assert (positions[1:] > positions[:-1]).all()
        assert (abs(signs) == 1).all()


def read_symbols(data: bytes) -> str:
    """The symbol decoder alone: two bytes of length, one for the model's size, the model, the words."""
    n = int.from_bytes(data[:2], "big") % LONGEST_VECTOR
    words_start = 3 + (data[2] % 5 if len(data) > 2 else 0)
    try:
        check_symbols(data[3:words_start], data[words_start:], n)
    except FormatError as error:
        return outcome(error)
    return "valid"


def read_atoms(data: bytes) -> str:
    """The atom decoder alone: three bytes for N, one for the number of counts, two for each count, the words."""
    n_positions = int.from_bytes(data[:3], "big") % (MOST_POSITIONS + 1)
    n_counts = data[3] % 16 if len(data) > 3 else 0
    counts = [int.from_bytes(data[4 + 2 * i : 6 + 2 * i], "big") % (MOST_ATOMS // 4) for i in range(n_counts)]
    try:
        check_atoms(data[4 + 2 * n_counts :], counts, n_positions)
    except FormatError as error:
        return outcome(error)
    return "valid"


def read_preset(data: bytes) -> str:
    """The preset loader, and the settings of every effort and of one that the preset may lack."""
    with tempfile.NamedTemporaryFile(suffix=".yaml", dir=_memory_folder()) as file:
        file.write(data)
        file.flush()
        try:
            preset = load_preset(file.name)
            for effort in (*preset.efforts, "fast"):
                resolve(preset, {}, effort)
        except UsageError as error:
            assert str(error)
            parts = (problem.partition(": ") for problem in getattr(error, "problems", []))
            kinds = {" ".join(reason.split()[:3]) for path, _, reason in parts if " " not in path}
            return " ".join((outcome(error), *sorted(kinds)[:3]))
    return "valid"


def _memory_folder() -> str | None:
    return "/dev/shm" if os.path.isdir("/dev/shm") else None


TARGETS: dict[str, Callable[[bytes], str]] = {
    "file": read_file,
    "symbols": read_symbols,
    "atoms": read_atoms,
    "preset": read_preset,
}
