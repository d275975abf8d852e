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
from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor

from vovcodec.codec.inspect import summary
from vovcodec.codec.plans import camera_of_atoms, plan_of_segment, scene_plan_of_segment
from vovcodec.container import Limits, VovFile, audio_of, describe, describe_lines, parse, serialize
from vovcodec.container.indices import unpack_indices
from vovcodec.container.layout import padded_frames
from vovcodec.entropy.choices import Choices, decode_choices
from vovcodec.entropy.symbols import MAX_SYMBOL, decode_symbols
from vovcodec.errors import FormatError, UsageError
from vovcodec.presets import load_preset, resolve
from vovcodec.sampling.camera import CameraPath
from vovcodec.sampling.schedule import time_grid
from vovcodec.sampling.steering import SteeringPlan

__all__ = ["TARGETS"]

# Small, so that what would merely take long does not hide what goes wrong.
LIMITS = Limits(max_expanded_bytes=4 * 2**20)
LONGEST_VECTOR, MOST_ATOMS, MOST_POSITIONS = 2048, 1024, 1 << 22
MOST_ENTRIES, MOST_NOISES = 1 << 14, 3
LONGEST_PATH = 257


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
            summary(damaged)
            decode_payloads(damaged)
        return outcome(error)
    assert parse(serialize(stream), limits=LIMITS) == stream, "it reads back differently"
    description = describe(stream)
    json.dumps(description)
    assert all(describe_lines(description))
    summary(stream)
    return decode_payloads(stream)


def decode_payloads(stream: VovFile) -> str:
    """The sound; of every segment symbols, what steering chose (for latents of 64 channels at strides 4 and 8),
    indices and times."""
    found = []
    with contextlib.suppress(FormatError):
        track = audio_of(stream)
        assert track is None or len(track.packets) == len(track.durations) > 0
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
    header, atoms, sampler = stream.header, segment.atoms, stream.header.sampler
    for update in segment.updates(header.adaptation):
        if update.adaptation.vector_length <= LONGEST_VECTOR:
            check_symbols(update.vector.model, update.vector.words, update.adaptation.vector_length)
    if segment.importance is not None and sampler.n_steps is not None:
        unpack_indices(segment.importance.indices, sampler.n_steps - 1, segment.importance.log2_candidates)
    shape = (1, 64, 1 + (segment.n_frames - 1) // 4, header.coded_height // 8, header.coded_width // 8)
    choices = None
    if atoms is not None and sum(atoms.counts) <= MOST_ATOMS and atoms.n_positions(shape) <= MOST_POSITIONS:
        choices = check_choices(atoms.codebook, atoms.words, atoms.counts, atoms.n_positions(shape))
    if sampler.schedule == "shift":
        check_times(time_grid(sampler.n_steps, sampler.shift_q8))
        return
    plan = plan_of_segment(header, segment)
    scene = scene_plan_of_segment(header, segment)
    for each in (scene, plan) if scene else (plan,):
        check_times(each.times)
        assert all(0 <= eta <= 1 for eta in each.etas)
    camera = camera_of_atoms(atoms)
    if camera is not None and segment.n_frames <= LONGEST_PATH:
        check_maps(
            CameraPath(camera, padded_frames(segment.n_frames), header.coded_width, header.coded_height, "cpu").linear
        )
    if choices is not None:
        n_scene = len(scene.counts) if scene else 0
        check_noises(plan, choices[n_scene:], segment.index, plan.n_entries(shape))


def check_maps(linear: Tensor) -> None:
    """Every frame sees a part of the picture that it can be brought back to."""
    assert bool(linear.isfinite().all())
    assert float(torch.linalg.inv(linear).abs().max()) <= 5


def check_times(times: list[float]) -> None:
    """From 1 to 0, all finite."""
    assert times[0] == 1 and times[-1] == 0, times
    assert all(math.isfinite(t) and 0 <= t <= 1 for t in times)


def check_symbols(model: bytes, words: bytes, n: int) -> None:
    """Symbols are as many as asked for and within the format's bounds."""
    symbols = decode_symbols(model, words, n)
    assert symbols.shape == (n,)
    assert n == 0 or abs(symbols).max() <= MAX_SYMBOL


def check_choices(codebook: str, words: bytes, counts: Sequence[int], n_positions: int) -> Choices:
    """Path bits are bits; positions of every step rise strictly within their bounds, and every one has a sign."""
    choices = decode_choices(codebook, words, counts, n_positions)
    for count, choice in zip(counts, choices, strict=True):
        if codebook == "trellis":
            assert len(choice) == count and (choice <= 1).all()
            continue
        positions, signs = choice
        assert len(positions) == len(signs) == count
        assert count == 0 or (positions[0] >= 0 and positions[-1] < n_positions)
        assert (positions[1:] > positions[:-1]).all()
        assert (abs(signs) == 1).all()
    return choices


def check_noises(plan: SteeringPlan, choices: Choices, segment: int, n_entries: int) -> None:
    """What the first few injections add is zero or has unit mean square."""
    if n_entries > MOST_ENTRIES:
        return
    for step in [step for step, count in enumerate(plan.counts) if count][:MOST_NOISES]:
        choice, book = choices[step], plan.make_codebook(segment, step, n_entries)
        noise = book.combine(*choice) if isinstance(choice, tuple) else book.combine(choice)
        assert noise.shape == (n_entries,)
        assert not noise.any() or abs(np.square(noise, dtype=np.float64).mean() - 1) < 1e-5


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
        check_choices("hadamard", data[4 + 2 * n_counts :], counts, n_positions)
    except FormatError as error:
        return outcome(error)
    return "valid"


def read_path(data: bytes) -> str:
    """The trellis alone: three bytes for N, one for the memory, one for the number of counts, two each, the words."""
    n_entries = 1 + (int.from_bytes(data[:3], "big") - 1) % MOST_ENTRIES
    memory = 1 + data[3] % 16 if len(data) > 3 else 12
    n_counts = data[4] % 16 if len(data) > 4 else 0
    counts = tuple(int.from_bytes(data[5 + 2 * i : 7 + 2 * i], "big") for i in range(n_counts))
    plan = SteeringPlan(seed=1, snr_start_q=72, snr_ratio_q=48, memory=memory, counts=counts)
    n_positions = plan.n_positions((1, 1, 1, 1, n_entries))
    try:
        choices = check_choices(plan.codebook, data[5 + 2 * n_counts :], counts, n_positions)
    except FormatError as error:
        return outcome(error)
    check_noises(plan, choices, 0, n_entries)
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
    "path": read_path,
    "preset": read_preset,
}
