"""Times and noise fractions: what a decoder derives from a few integers."""

from __future__ import annotations

import itertools
import json
import math
from pathlib import Path

import pytest

from vovcodec.errors import UsageError
from vovcodec.sampling.schedule import (
    LAST_UNIT,
    ancestral_etas,
    ratio_to_q,
    shift_to_q8,
    snr_grid,
    snr_of,
    start_to_q,
    time_grid,
    time_of,
)

VECTORS = json.loads((Path(__file__).parent / "vectors" / "steering.json").read_text())


@pytest.mark.parametrize("n_steps", [1, 2, 7, 50])
@pytest.mark.parametrize("shift_q8", [1, 256, 768, 2048])
def test_time_grid_is_the_shifted_uniform_grid(n_steps, shift_q8):
    times = time_grid(n_steps, shift_q8)
    assert (len(times), times[0], times[-1]) == (n_steps + 1, 1.0, 0.0)
    assert all(t > t_next for t, t_next in itertools.pairwise(times))
    shift = shift_q8 / 256
    expected = [shift * u / (1 + (shift - 1) * u) for u in (1 - i / n_steps for i in range(n_steps + 1))]
    assert times == pytest.approx(expected, rel=1e-13, abs=1e-15)


def test_an_unshifted_grid_is_rounded_once():
    assert time_grid(10, 256) == [(10 - i) / 10 for i in range(11)]


@pytest.mark.parametrize(("n_steps", "shift_q8"), [(0, 256), (3, 0)])
def test_impossible_grids_are_refused(n_steps, shift_q8):
    with pytest.raises(UsageError):
        time_grid(n_steps, shift_q8)


def test_snr_and_time_are_inverse():
    for t in (1.0, 0.99, 0.5, 0.02):
        assert time_of(snr_of(t)) == pytest.approx(t, rel=1e-14)


def test_stored_integers_are_nearest_and_bounded():
    assert start_to_q(2.0**-9) == 72 and start_to_q(1.0) == 0 and start_to_q(1e-30) == 255 and start_to_q(4.0) == 0
    assert ratio_to_q(1.75) == 48 and ratio_to_q(1.0) == 1 and ratio_to_q(100.0) == 255
    assert shift_to_q8(3.0) == 768 and shift_to_q8(1e-9) == 1


@pytest.mark.parametrize("n_injections", [0, 1, 2, 9])
def test_snr_grid_is_a_geometric_progression(n_injections):
    times = snr_grid(72, 48, n_injections)
    assert (len(times), times[0], times[-1]) == (n_injections + 2, 1.0, 0.0)
    snrs = [snr_of(t) for t in times[1:-1]]
    assert snrs == pytest.approx([2**-9 * 1.75**i for i in range(n_injections)], rel=1e-12)


@pytest.mark.parametrize("n_injections", [1, 2, 9])
def test_the_last_injection_may_be_part_of_a_step(n_injections):
    whole = snr_grid(72, 48, n_injections)
    shares = [snr_grid(72, 48, n_injections, last_q) for last_q in range(1, LAST_UNIT + 1)]
    assert shares[-1] == whole
    for last_q, times in enumerate(shares, start=1):
        assert times[:-2] == whole[:-2]
        assert snr_of(times[-2]) == pytest.approx(snr_of(whole[-2]) * 1.75 ** (last_q / 16 - 1), rel=1e-12)


def test_every_grid_the_format_allows_decreases():
    for start_q, ratio_q, last_q in itertools.product((0, 1, 255), (1, 255), (1, 16)):
        times = snr_grid(start_q, ratio_q, 12, last_q)
        assert all(t > t_next for t, t_next in itertools.pairwise(times)), (start_q, ratio_q, last_q)


def test_ancestral_etas_follow_their_formula():
    times = snr_grid(40, 100, 6, 5)
    etas = ancestral_etas(times, 200)
    assert len(etas) == 6, "one per injection: the last step injects nothing"
    assert etas[0] == 1.0, "from pure noise everything is drawn anew"
    for eta, (t, t_next) in zip(etas, itertools.pairwise(times[:-1]), strict=True):
        # Posterior variance of x_t' given x_t and x_0, over the variance of its noise (Ho et al. 2020, eq. 7).
        assert eta == pytest.approx(math.sqrt(1 - snr_of(t) / snr_of(t_next)), rel=1e-12)
    assert ancestral_etas(times, 100)[1:] == pytest.approx([0.5 * eta for eta in etas[1:]])
    assert max(ancestral_etas(times, 250)) == 1.0, "never more than all of the noise"
    assert ancestral_etas([1.0, 0.0], 200) == []


@pytest.mark.parametrize("case", VECTORS["grids"], ids=str)
def test_vectors_of_times_and_etas(case):
    times = snr_grid(case["snr_start_q"], case["snr_ratio_q"], case["n_injections"], case["last_q"])
    assert [t.hex() for t in times] == case["times_hex"]
    assert [eta.hex() for eta in ancestral_etas(times, case["eta_scale_q"])] == case["etas_hex"]


@pytest.mark.parametrize("case", VECTORS["time_grids"], ids=str)
def test_vectors_of_shifted_times(case):
    assert [t.hex() for t in time_grid(case["n_steps"], case["shift_q8"])] == case["times_hex"]
