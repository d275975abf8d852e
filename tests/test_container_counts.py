"""The grid of atom counts: values, inverse, runs of usual steps, and what the fields make of it."""

from __future__ import annotations

import dataclasses
import itertools
import random

import container_samples as samples
import pytest

from vovcodec.container import (
    CodedAtoms,
    Generation,
    Sampler,
    Segment,
    count_of_index,
    index_of_count,
    parse,
    serialize,
)
from vovcodec.container.bits import BitReader, BitWriter
from vovcodec.container.counts import (
    ATOMS_MAX,
    K_MAX,
    Phases,
    counts_bits,
    largest_index,
    usual_step,
    with_implied_last,
)
from vovcodec.container.errors import FieldOutOfRange, NonCanonical
from vovcodec.container.framing import DEFAULT_LIMITS, Budget
from vovcodec.container.layout import SEGMENT_FIELDS

GRID = [count_of_index(k) for k in range(K_MAX + 1)]
RATIO_Q = {1: 24, 2: 48}  # usual step → ratio
PLAIN = Phases(snr_ratio_q=48)
FIELD = next(field for field in SEGMENT_FIELDS if field.names == ("atoms.counts",))


def test_grid_values() -> None:
    assert GRID[:20] == [0, 1, 2, 3, 4, 5, 6, 7, 8, 10, 12, 14, 16, 20, 24, 28, 32, 40, 48, 56]
    assert GRID[-1] == 458_752 <= ATOMS_MAX < 524_288  # the value after the last
    assert all(low < high <= max(low + 1, 1.25 * low) for low, high in itertools.pairwise(GRID))


def test_index_is_the_largest_that_does_not_exceed() -> None:
    for count in (*range(5000), *GRID, *(m - 1 for m in GRID[1:]), 2**40):
        k = index_of_count(count)
        assert GRID[k] <= count
        assert k == K_MAX or count < GRID[k + 1]


@pytest.mark.parametrize("bad", [-1, K_MAX + 1])
def test_indices_and_counts_out_of_range(bad: int) -> None:
    with pytest.raises(ValueError, match="must be 0"):
        count_of_index(bad)
    with pytest.raises(ValueError, match="0 or more"):
        index_of_count(-1)


def values_of(codebook: str, phases: Phases) -> dict:
    header = samples.header(sampler=dataclasses.replace(samples.SNR_SAMPLER, snr_ratio_q=phases.snr_ratio_q))
    return {
        "header": header,
        "has_atoms": True,
        "atoms.codebook": codebook,
        "atoms.scene_injections": phases.n_scene,
        "atoms.scene_ratio_q": phases.scene_ratio_q,
    }


def put(counts: tuple[int, ...], codebook: str = "hadamard", n_words: int = 0, phases: Phases = PLAIN) -> BitWriter:
    out = BitWriter()
    values = values_of(codebook, phases) | {"atoms.counts": counts, "atoms.words_size": n_words}
    FIELD.put(out, values, "test")
    return out


def get(data: bytes, codebook: str = "hadamard", phases: Phases = PLAIN) -> tuple[int | None, ...]:
    values = values_of(codebook, phases) | {"budget": Budget(DEFAULT_LIMITS)}
    FIELD.get(BitReader(data, "test"), values)
    return values["atoms.counts"]


def bits_of(indices: list[int], phases: Phases = PLAIN) -> int:
    """What such counts cost besides a last one of 5."""
    return counts_bits((*(GRID[k] for k in indices), 5), "hadamard", phases)


@pytest.mark.parametrize("step", [1, 2])
def test_every_step_is_stored(step: int) -> None:
    phases = Phases(snr_ratio_q=RATIO_Q[step])
    for previous in range(0, K_MAX - 8, 3):
        for k in range(62):
            counts = (1, GRID[previous], GRID[k], 5)
            if previous < 64:
                assert get(put(counts, phases=phases).to_bytes(), phases=phases) == counts


@pytest.mark.parametrize("position", [0, 1])
def test_the_first_two_counts_of_a_phase_stand_for_themselves_and_end_at_63(position: int) -> None:
    assert largest_index(position) == 63 < largest_index(2) == K_MAX
    counts = [4, 4, 4, 4, 5]
    for begin, phases in ((0, PLAIN), (2, Phases(2, 24, 48))):
        counts[begin + position] = GRID[63]
        assert get(put(tuple(counts), phases=phases).to_bytes(), phases=phases) == tuple(counts)
        counts[begin + position] = GRID[64]
        with pytest.raises(FieldOutOfRange, match=rf"counts\[{begin + position}\] is 131072"):
            put(tuple(counts), phases=phases)
        counts[begin + position] = 4


def test_counts_off_the_grid_are_refused() -> None:
    with pytest.raises(FieldOutOfRange, match=r"counts\[2\] is 9, must be a grid value"):
        put((4, 4, 9, 5))
    assert get(put((4, 4, 10, 9)).to_bytes()) == (4, 4, 10, 9), "the last one is exact"


@pytest.mark.parametrize("usual", [1, 2])
@pytest.mark.parametrize(("more", "bits"), [(-1, 1), (1, 2), (-2, 5), (2, 5), (-3, 5), (3, 5), (-4, 6), (-6, 7)])
def test_what_an_unusual_step_costs(usual: int, more: int, bits: int) -> None:
    phases = Phases(snr_ratio_q=RATIO_Q[usual])
    first = [30, 20]
    assert bits_of([*first, 20 + usual + more], phases) - bits_of(first, phases) == 3 + bits, "an empty run before it"


def test_runs_are_cheap() -> None:
    for length, bits in ((1, 3), (3, 3), (4, 4), (7, 4), (8, 5), (20, 8)):
        ks = [9, *range(10, 11 + 2 * length, 2)]
        assert bits_of(ks) - bits_of(ks[:2]) == bits
    small = Phases(snr_ratio_q=24)
    assert bits_of(list(range(20)), small) < bits_of(list(range(20)))


def test_a_scene_has_a_phase_of_its_own() -> None:
    """A picture alone says so in one bit; what follows begins anew."""
    ks = [10, 4, 5, 6, 7, 8, 9]
    alone, followed = Phases(8, 24, 48), Phases(7, 24, 48)
    assert bits_of(ks, alone) == 7 + 1 + 12 + 4 + 8, "n_scene, the number, two of six bits, a run of five, the last"
    assert bits_of(ks, followed) == 7 + 8 + 12 + 4 + 8
    assert bits_of([*ks, 30, 2, 4, 6], followed) == 7 + 8 + 12 + 4 + 12 + 3 + 8
    with pytest.raises(FieldOutOfRange, match="must be at least 8"):
        put((4, 5), phases=alone)


def test_the_usual_step_follows_the_ratio() -> None:
    assert [usual_step(q) for q in (None, 1, 24, 35, 36, 48, 256)] == [2, 1, 1, 1, 2, 2, 2]


def random_counts(rng: random.Random, usual: int, n: int) -> list[int]:
    ks: list[int] = []
    for i in range(n):
        k = rng.randrange(30) if i < 2 else ks[-1] + usual + rng.choice([0, 0, 0, 0, -1, 1, -2, 3, -9])
        ks.append(min(40, max(0, k)))
    return [GRID[k] for k in ks]


def test_what_counts_cost_is_what_they_take() -> None:
    rng = random.Random(3)
    for _ in range(400):
        n_scene = rng.choice([0, 0, 1, 2, 3, 12])
        scene_step, step = rng.choice([1, 2]), rng.choice([1, 2])
        phases = Phases(n_scene, RATIO_Q[scene_step], RATIO_Q[step])
        counts = random_counts(rng, scene_step, n_scene)
        counts += random_counts(rng, step, rng.randrange(20) if n_scene else rng.randrange(1, 20))
        counts = (*counts[:-1], rng.randrange(3000))
        for codebook in ("hadamard", "trellis"):
            out = put(counts, codebook, -(-sum(counts) // 8), phases)
            spent = counts_bits(counts, codebook, phases) - (7 if n_scene else 0)
            assert len(out.to_bytes()) == -(-spent // 8)
            read = get(out.to_bytes(), codebook, phases)
            whole_bytes = codebook == "trellis" and sum(counts) % 8 == 0
            assert read == ((*counts[:-1], None) if whole_bytes else counts)
            if codebook == "trellis":
                assert with_implied_last(read, -(-sum(counts) // 8), "test") == counts


def test_an_implied_last_count_has_its_one_spelling_and_its_bounds() -> None:
    assert with_implied_last((20, None), 5, "test") == (20, 20)
    assert with_implied_last((20, None), 3, "test") == (20, 4)
    with pytest.raises(FieldOutOfRange, match=r"last of atoms\.counts is -4"):
        with_implied_last((20, None), 2, "test")
    with pytest.raises(FieldOutOfRange, match=r"last of atoms\.counts is 500004"):
        with_implied_last((4, None), 62_501, "test")
    with pytest.raises(NonCanonical, match="follows from"):
        with_implied_last((20, 4), 3, "test")


def stored(*parts: tuple[int, int]) -> bytes:
    """(value, bits) one after the other, and zeros."""
    out = BitWriter()
    for value, n_bits in (*parts, (0, 40)):
        out.put(value, n_bits)
    return out.to_bytes()


FOUR = ((3, 7), (4, 6), (1, 6), (0, 3))  # four counts, the first two with k = 4 and 1; an empty run


@pytest.mark.parametrize(
    "parts",
    [
        pytest.param((*FOUR, (0b11, 2), (0b1010, 4)), id="below 0"),
        pytest.param(((9, 7), (1, 6), (63, 6), (0b1001, 4)), id="a run above the largest"),
    ],
)
def test_indices_off_the_grid_are_refused(parts) -> None:
    with pytest.raises(FieldOutOfRange, match=r"index in atoms\.counts"):
        get(stored(*parts))


@pytest.mark.parametrize(
    "parts",
    [
        pytest.param(((3, 7), (4, 6), (1, 6), (0b010, 3)), id="a run beyond its phase"),
        pytest.param((*FOUR, (0b11, 2), (2**36 - 1, 36)), id="a step beyond all indices"),
        pytest.param(((3, 7), (4, 6), (1, 6), (2**40 - 1, 40)), id="a run without end"),
    ],
)
def test_numbers_out_of_bounds_are_refused(parts) -> None:
    with pytest.raises(FieldOutOfRange, match="a number in a Rice code"):
        get(stored(*parts))


def test_a_sum_above_the_cap_is_refused_when_read() -> None:
    last = ATOMS_MAX - 3
    groups = (0x80 | last & 0x7F, 0x80 | last >> 7 & 0x7F, last >> 14)
    with pytest.raises(FieldOutOfRange, match=r"sum of atoms\.counts is 500001"):
        get(stored((1, 7), (4, 6), *((group, 8) for group in groups)))
    assert get(put((4, ATOMS_MAX - 4)).to_bytes()) == (4, ATOMS_MAX - 4)


def test_any_prefix_of_the_counts_can_be_stored() -> None:
    """Which is how a file is made smaller."""
    content = samples.steering_only()
    segment = content.segments[0]
    sizes = []
    for n in range(1, len(samples.COUNTS) + 1):
        atoms = dataclasses.replace(segment.atoms, counts=samples.COUNTS[:n])
        shorter = dataclasses.replace(content, segments=(dataclasses.replace(segment, atoms=atoms),))
        data = serialize(shorter)
        assert parse(data) == shorter
        sizes.append(len(data))
    assert sizes == sorted(sizes)


def test_evaluations_follow_from_schedule_and_counts() -> None:
    atoms = CodedAtoms(counts=(1, 2, 3), words=b"")
    steered, plain = Segment(index=0, n_frames=1, atoms=atoms), Segment(index=0, n_frames=1)
    free = dataclasses.replace(steered, generation=Generation(n_injections=25))
    assert [samples.SNR_SAMPLER.steps_of(segment) for segment in (steered, plain, free)] == [4, 1, 26]
    assert Sampler(n_steps=9, shift_q8=256).steps_of(steered) == 9
