"""The grid of atom counts: values, inverse, reach, and what the fields make of it."""

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
    reachable_counts,
    serialize,
)
from vovcodec.container.bits import BitReader, BitWriter
from vovcodec.container.counts import ATOMS_MAX, K_MAX, START_INDEX, counts_bits, with_implied_last
from vovcodec.container.errors import FieldOutOfRange, NonCanonical
from vovcodec.container.framing import DEFAULT_LIMITS, Budget
from vovcodec.container.layout import SEGMENT_FIELDS

GRID = [count_of_index(k) for k in range(K_MAX + 1)]
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


def test_reach() -> None:
    assert list(reachable_counts()) == list(range(16)) == list(reachable_counts(START_INDEX))
    assert list(reachable_counts(0)) == list(range(12))
    assert list(reachable_counts(40)) == list(range(36, 52))
    assert list(reachable_counts(K_MAX)) == [67, 68, 69, 70, 71]


def put(counts: tuple[int, ...], codebook: str = "hadamard", n_words: int = 0) -> bytes:
    out = BitWriter()
    values = {"has_atoms": True, "atoms.codebook": codebook, "atoms.counts": counts, "atoms.words_size": n_words}
    FIELD.put(out, values, "test")
    return out.to_bytes()


def get(data: bytes, codebook: str = "hadamard") -> tuple[int | None, ...]:
    values = {"has_atoms": True, "atoms.codebook": codebook, "budget": Budget(DEFAULT_LIMITS)}
    FIELD.get(BitReader(data, "test"), values)
    return values["atoms.counts"]


def test_every_step_in_reach_is_stored_and_no_other() -> None:
    for previous in reachable_counts():
        for k in range(START_INDEX + 35):
            counts = (GRID[previous], GRID[k], 5)
            if k in reachable_counts(previous):
                assert get(put(counts)) == counts
            else:
                with pytest.raises(FieldOutOfRange, match=r"counts\[1\]"):
                    put(counts)


@pytest.mark.parametrize(("step", "bits"), [(2, 1), (1, 2), (0, 6), (3, 6), (-4, 6), (11, 6)])
def test_the_usual_steps_are_short(step: int, bits: int) -> None:
    count = count_of_index(START_INDEX + step)
    assert counts_bits((count, 5), "hadamard") - counts_bits((5,), "hadamard") == bits


def test_what_counts_cost_is_what_they_take() -> None:
    rng = random.Random(3)
    for _ in range(300):
        counts, index = [], START_INDEX
        for _ in range(rng.randrange(40)):
            index = rng.choice([k for k in reachable_counts(index) if k < 30])
            counts.append(count_of_index(index))
        counts = (*counts, rng.randrange(3000))
        for codebook in ("hadamard", "trellis"):
            data = put(counts, codebook, -(-sum(counts) // 8))
            assert len(data) == -(-counts_bits(counts, codebook) // 8)
            read = get(data, codebook)
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


@pytest.mark.parametrize("steps", [(0, 0), (15,) * 5 + (15, 6)], ids=["below 0", "above the largest"])
def test_indices_off_the_grid_are_refused(steps: tuple[int, ...]) -> None:
    """Step - 4 from index 4 gives 0, another - 4 is off the grid; 4 + 6 * 11 + 2 is one too many."""
    out = BitWriter()
    out.put(len(steps), 6)
    for step in steps:
        out.put(0b11 if step != 6 else 0, 2 if step != 6 else 1)
        if step != 6:
            out.put(step, 4)
    out.put(0, 8)
    with pytest.raises(FieldOutOfRange, match=r"index in atoms\.counts"):
        get(out.to_bytes())


@pytest.mark.parametrize("step", [1, 2])
def test_a_short_step_in_the_long_form_is_refused(step: int) -> None:
    out = BitWriter()
    out.put(1, 6)
    out.put(0b11, 2)
    out.put(step + 4, 4)
    out.put(0, 8)
    with pytest.raises(NonCanonical, match="long form"):
        get(out.to_bytes())


def test_a_sum_above_the_cap_is_refused_when_read() -> None:
    out = BitWriter()
    out.put(1, 6)
    out.put(0b11, 2)
    out.put(4, 4)  # 4 atoms, then
    for group in (0x80 | (ATOMS_MAX - 3) & 0x7F, 0x80 | ATOMS_MAX - 3 >> 7 & 0x7F, ATOMS_MAX - 3 >> 14):
        out.put(group, 8)
    with pytest.raises(FieldOutOfRange, match=r"sum of atoms\.counts is 500001"):
        get(out.to_bytes())
    assert get(put((4, ATOMS_MAX - 4))) == (4, ATOMS_MAX - 4)


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
