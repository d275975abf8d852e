"""Neighbouring segments that rest on one picture are joined: by which rule (codec/spans.py), by which errors that are
expected (codec/expected.py), and whole files on a tiny model of the real classes.

`left_by` is written from the text of expected.py alone, in NumPy and float64, and `by_the_rule` from that of spans.py.
"""

from __future__ import annotations

import json
import math
import random
from dataclasses import replace
from itertools import pairwise
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from test_camera import filmed, has_camera, watched
from test_codec_roundtrip import clip, frames_of
from test_scenes import PRESET, Progress, encoded, pictures_of, preferring, shown, stands_still, tiny_home
from tiny_clips import write_clip

from vovcodec.backbone.geometry import pocket_geometry
from vovcodec.cli.app import run
from vovcodec.codec import encode as encode_module
from vovcodec.codec import scene as scene_module
from vovcodec.codec import segment as segment_module
from vovcodec.codec import spans as spans_module
from vovcodec.codec.edit import edit
from vovcodec.codec.expected import PEAK, expected_db, expected_scene_error
from vovcodec.codec.inspect import inspect
from vovcodec.codec.measure import n_evaluations_of
from vovcodec.codec.options import EditOptions, ScaleOptions
from vovcodec.codec.scale import scale
from vovcodec.codec.scene import may_rest_on_scenes
from vovcodec.codec.sound import sound_bytes
from vovcodec.codec.spans import joined_segments
from vovcodec.container import RawSection, layout, read_vov
from vovcodec.container.counts import count_of_index
from vovcodec.entropy.choices import choices_bits
from vovcodec.errors import Interrupted, UsageError
from vovcodec.media import segment_lengths
from vovcodec.media.geometry import Segment
from vovcodec.metrics import psnr
from vovcodec.presets import load_preset, resolve
from vovcodec.progress import SilentListener
from vovcodec.sampling.steering import SteeringPlan

WIDTH, HEIGHT, FULL = 48, 32, 9
JOINING = PRESET.replace("scene_frames: 9", "scene_frames: 45") + """
  apart: {geometry: {scene_frames: 9}}
  less: {geometry: {scene_frames: 7}}
  at20: {geometry: {scene_frames: 20}}
  at21: {geometry: {scene_frames: 21}}
  multiplier: {rate: {bytes: null, lambda: 0.004}}
  shared: {adaptation: {vector_length: 16}, rate: {split: [0.5, 0.5]}}
"""  # fmt: skip
CLIPS = {"still": 400, "noisy": 700, "slow": 500, "pan": 600}
WHOLE = {"still": [(0, 27)], "noisy": [(0, 18), (18, 9), (27, 18)], "slow": [(0, 27)], "pan": [(0, 27)]}


def spans_of(segments) -> list[tuple[int, int]]:
    """Of segments of a clip, or the path of a file: where they begin, and how many frames they have."""
    if not isinstance(segments, list):
        return [(segment.first_frame, segment.n_frames) for segment in read_vov(segments).segments]
    return [(segment.start, segment.n_frames) for segment in segments]


# --- how a clip is cut ---------------------------------------------------------------------------------------------


@given(st.integers(1, 200), st.integers(1, 5), st.integers(0, 5), st.lists(st.integers(0, 210), max_size=5))
@example(6, 4, 1, [])  # the shortest rest there is
@example(23, 4, 1, [11])
def test_segments_of_a_scene_are_few_and_of_even_lengths(n_frames, stride, n_strides, cuts):
    most, cuts = stride * n_strides + 1, sorted(cuts)
    segments = segment_lengths(n_frames, most, stride, cuts)
    assert [f for s in segments for f in range(s.start, s.start + s.n_frames)] == list(range(n_frames))
    assert all(0 <= s.n_coded_frames - s.n_frames < stride and s.n_coded_frames <= most for s in segments)
    assert all((s.n_coded_frames - 1) % stride == 0 for s in segments)
    begins = [0]
    for cut in cuts:
        if most > 2 * stride and 2 * stride < cut - begins[-1] and 2 * stride < n_frames - cut:
            begins.append(cut)
    for begin, end in pairwise([*begins, n_frames]):
        scene = [s for s in segments if begin <= s.start < end]
        assert scene[0].start == begin and len(scene) == math.ceil((end - begin) / most)
        assert all(s.n_frames == s.n_coded_frames for s in scene[:-1]), "only the last one takes what is left"
        lengths = [s.n_coded_frames for s in scene]
        assert max(lengths) - min(lengths) <= stride


# --- the error that is expected ------------------------------------------------------------------------------------

COLOURS = np.array([[0.299, 0.587, 0.114], [-0.169, -0.331, 0.5], [0.5, -0.419, -0.081]])
COEFFICIENT_BYTES = 0.75
FOUR_DB = 10**0.4
END = PEAK * 10**-4.3  # of a picture that is steered to the end


def dct(n: int) -> np.ndarray:
    f, k = np.arange(n), np.arange(n)[:, None]
    matrix = np.cos(np.pi * k * (2 * f + 1) / (2 * n)) * math.sqrt(2 / n)
    matrix[0] = n**-0.5
    return matrix


def powers_of(frames: np.ndarray) -> np.ndarray:
    """Squares of all coefficients, the largest first."""
    n, height, width = frames.shape[:3]
    found = []
    for y in range(0, height, 16):
        for x in range(0, width, 16):
            block = frames[:, y : y + 16, x : x + 16].astype(np.float64) @ COLOURS.T
            found.append(np.einsum("tf,yh,xw,fhwc->tyxc", dct(n), dct(16), dct(16), block))
    return np.sort(np.square(found).ravel())[::-1]


def left_by(frames: np.ndarray, n_coefficients: int) -> float:
    powers = powers_of(frames)
    return float(powers[n_coefficients:].sum() / len(powers))


def grain(seed: int, n: int, width: int = 32, height: int = 16, scale: float = 40.0) -> np.ndarray:
    """Random frames, correlated as frames are, in grey levels."""
    rng = np.random.default_rng(seed)
    coarse = rng.normal(size=(n, height // 8, width // 8, 3)).repeat(8, axis=1).repeat(8, axis=2)
    return (128 + scale * (coarse + 0.2 * rng.normal(size=(n, height, width, 3)))).astype(np.float32)


@pytest.mark.parametrize(("n", "width", "height"), [(1, 16, 16), (2, 16, 16), (5, 32, 16), (3, 48, 32)])
@pytest.mark.parametrize("n_coefficients", [0, 1, 7, 40, 300])
def test_what_is_expected_of_a_clip_is_what_the_largest_coefficients_leave(n, width, height, n_coefficients):
    frames = grain(n, n, width, height).clip(0, 255).astype(np.uint8)
    wanted = 10 * math.log10(PEAK / left_by(frames, n_coefficients)) - 4
    assert expected_db(frames, COEFFICIENT_BYTES * n_coefficients) == pytest.approx(wanted, abs=1e-3)


@pytest.mark.parametrize("n_frames", [1, 5])
@pytest.mark.parametrize("n_known", range(6))
def test_what_is_expected_of_one_grey_is_exact(n_frames, n_known):
    """A coefficient for each of the six blocks. Of the colours only luma has any of it."""
    frames = np.full((n_frames, 32, 48, 3), 100, np.uint8)
    left = 100**2 / 3 * (6 - n_known) / 6
    size_bytes = COEFFICIENT_BYTES * n_known
    assert expected_db(frames, size_bytes) == pytest.approx(10 * math.log10(PEAK / left) - 4, abs=1e-4)
    for shown_frames in (frames, frames[:1]):
        error = expected_scene_error(frames, frames[:1].astype(np.float32), shown_frames, size_bytes)
        assert error == pytest.approx(left + END, rel=1e-4), "nothing moves: all of the bytes are the picture's"


def test_nothing_is_left_of_one_colour_once_it_is_known():
    frames = np.full((5, 32, 48, 3), 0, np.uint8) + np.array([200, 60, 10], np.uint8)
    picture = frames[:1].astype(np.float32)
    y, cb, cr = COLOURS @ [200, 60, 10]
    nothing = (y**2 + cb**2 + cr**2) / 3
    assert expected_scene_error(frames, picture, frames, 0.0) == pytest.approx(nothing + END, rel=1e-4)
    assert expected_scene_error(frames, picture, frames, -20.0) == pytest.approx(nothing + END, rel=1e-4), "a long path"
    assert expected_scene_error(frames, picture, frames, 18 * COEFFICIENT_BYTES) == pytest.approx(END, abs=1e-3)
    assert expected_scene_error(frames, picture, frames, 1e6) == END and expected_db(frames, 1e6) > 100


@pytest.mark.parametrize("n_blocks", [200, 240, 500])
def test_of_large_frames_a_part_stands_for_all(n_blocks):
    frames = np.full((1, 16, 16 * n_blocks, 3), 90, np.uint8)
    for n_known in (0, n_blocks // 4, n_blocks // 2):
        wanted = 10 * math.log10(PEAK / (90**2 / 3 * (1 - n_known / n_blocks))) - 4
        assert expected_db(frames, COEFFICIENT_BYTES * n_known) == pytest.approx(wanted, abs=0.05)


def one_coefficient(value: float, n: int, k: int, row: int, column: int) -> np.ndarray:
    """A grey clip of one block with this coefficient of luma and no other."""
    clip_of_one = value * np.einsum("f,h,w->fhw", dct(n)[k], dct(16)[row], dct(16)[column])
    return clip_of_one[..., None].repeat(3, axis=-1).astype(np.float32)


def test_picture_and_clip_share_the_bytes_as_is_best():
    """By hand: a picture of two coefficients, what moves of one, and bytes for none to three of these."""
    picture = 100 + one_coefficient(160, 1, 0, 0, 3)
    moving = one_coefficient(math.sqrt(512_000), 2, 1, 2, 0)
    frames = picture + moving
    assert float(np.square(moving).mean()) == pytest.approx(1000)
    one_missed, dark = 160**2 / 768, 100**2 / 3
    for n_coefficients, wanted in (
        (0, dark + one_missed + FOUR_DB / 3 * 1000),
        (1, one_missed + FOUR_DB / 3 * 1000),
        (2, one_missed),
        (3, 0.0),
    ):
        error = expected_scene_error(frames, picture, picture, COEFFICIENT_BYTES * n_coefficients)
        assert error == pytest.approx(wanted + END, rel=1e-3, abs=0.01)


def test_what_moves_little_is_left_out():
    """It is worth less than any of the picture's coefficients that it would take the bytes of."""
    picture, n_coefficients = grain(1, 1), 80
    frames = picture + grain(2, 3, scale=0.5) - 128
    of_picture, moving = left_by(picture, n_coefficients), float(np.square(frames - picture).mean())
    assert moving < left_by(picture, round(0.92 * n_coefficients)) - of_picture
    error = expected_scene_error(frames, picture, picture, COEFFICIENT_BYTES * n_coefficients)
    assert error == pytest.approx(of_picture + moving + END, rel=1e-4) and moving > 1e-3 * error


def test_noise_that_is_sharp_enough_hardly_gains_by_bytes():
    """Bytes for the picture's only coefficient and for the larger of two that move; the other one leaves so many dB."""
    picture = 100 + np.zeros((1, 16, 16, 3), np.float32)
    for left_db, wanted_db in ((30.0, 30.0), (50.0, 36 + 0.35 * 14)):
        left = PEAK * 10 ** (-left_db / 10) / FOUR_DB
        small = one_coefficient(math.sqrt(left * 2 * 768), 2, 1, 1, 1)
        moving = one_coefficient(math.sqrt(1e7), 2, 1, 2, 0) + small
        error = expected_scene_error(picture + moving, picture, picture, 2 * COEFFICIENT_BYTES)
        assert error == pytest.approx(PEAK * 10 ** (-wanted_db / 10) + END, rel=0.01)


@settings(max_examples=40)
@given(st.integers(0, 10**6), st.integers(1, 4), st.floats(0, 60), st.floats(-5, 400), st.floats(-5, 400))
def test_more_bytes_never_leave_more(seed, n, swing, some, others):
    few, many = sorted((some, others))
    picture = grain(seed, 1)
    frames = picture + grain(seed + 1, n, scale=swing) - 128
    assert expected_db(frames, few) <= expected_db(frames, many)
    few_left, many_left = (expected_scene_error(frames, picture, picture, size) for size in (few, many))
    assert many_left <= few_left
    known = round(max(few, 0.0) / COEFFICIENT_BYTES)
    most = left_by(picture, known) + float(np.square(frames - picture).mean()) + END
    assert few_left <= most * (1 + 1e-5)


@settings(max_examples=25)
@given(st.integers(0, 10**6), st.integers(1, 4), st.floats(0, 60), st.integers(0, 300))
def test_no_split_of_the_bytes_is_better_than_the_best(seed, n, swing, n_coefficients):
    picture = grain(seed, 1)
    frames = picture + grain(seed + 1, n, scale=swing) - 128
    most = float(np.square(frames - picture).mean())
    of_picture, of_moving = (
        np.append(np.cumsum(powers[::-1])[::-1] / len(powers), 0)
        for powers in (powers_of(picture), powers_of(frames - picture))
    )
    known = np.arange(n_coefficients + 2)  # both shares may be rounded up
    left = of_picture[known.clip(0, len(of_picture) - 1)]
    moving = np.minimum(most, FOUR_DB * of_moving[(n_coefficients + 1 - known).clip(0, len(of_moving) - 1)])
    found = expected_scene_error(frames, picture, picture, COEFFICIENT_BYTES * n_coefficients)
    assert float((left + moving).min()) * (1 - 1e-5) - 1e-4 <= found


def test_what_was_missed_may_be_given_once_for_all_frames_or_for_each():
    picture = grain(3, 1)
    frames = picture + grain(4, 3, scale=10) - 128
    one, each = (expected_scene_error(frames, picture, s, 60.0) for s in (picture, picture.repeat(3, axis=0)))
    assert one == each > 0


# --- the rule ------------------------------------------------------------------------------------------------------


def cut(lengths: list[int]) -> list[Segment]:
    starts = np.cumsum([0, *lengths[:-1]]).tolist()
    return [Segment(s, n, pocket_geometry().coded_frames(n)) for s, n in zip(starts, lengths, strict=True)]


class Decision:
    """`joined_segments` of a clip whose frames are their numbers, with errors that are given: of (first frame, number
    of frames), None where such a span does not rest on a picture."""

    def __init__(self, errors, path_bytes: float = 0.0) -> None:
        self.errors, self.path_bytes = errors, path_bytes
        self.asked: dict[tuple[int, int], float] = {}
        self.spent: dict[tuple[int, int], float] = {}
        self.longest = 0

    def span(self, frames: np.ndarray) -> tuple[int, int]:
        first, last = int(frames[0, 0, 0, 0]), int(frames[-1, 0, 0, 0])
        numbers = [*range(first, last + 1)]
        padded = numbers + [last] * (pocket_geometry().coded_frames(len(numbers)) - len(numbers))
        assert frames[:, 0, 0, 0].tolist() == padded and frames.dtype == np.uint8, "as they are coded"
        self.longest = max(self.longest, len(frames))
        return first, len(numbers)

    def view(self, backbone, frames, size_bytes):
        span = self.span(frames)
        self.asked[span] = size_bytes
        if self.errors(*span) is None:
            return None
        picture = torch.tensor([-1.0, 0.0, 1.0])[None, :, None, None].expand(1, 3, *frames.shape[1:3])
        return SimpleNamespace(picture=picture, shown=np.float32([7.0]), path_bytes=self.path_bytes)

    def error(self, frames, picture, shown_frames, size_bytes):
        assert picture.shape == (1, *frames.shape[1:]) and (picture == [0.0, 127.5, 255.0]).all(), "in grey levels"
        assert shown_frames == [7.0], "what the view shows"
        self.spent[self.span(frames)] = size_bytes
        return self.errors(*self.span(frames))

    def of(self, segments: list[Segment], most_frames: int = 129, size_bytes: float = 900.0, listener=None):
        n_frames = sum(segment.n_frames for segment in segments)

        def read(start: int, n: int) -> np.ndarray:
            assert 0 <= start < start + n <= n_frames
            return np.arange(start, start + n, dtype=np.uint8)[:, None, None, None].repeat(3, 3).repeat(2, 1)

        backbone = SimpleNamespace(geometry=pocket_geometry())
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(spans_module, "best_view", self.view)
            patch.setattr(spans_module, "expected_scene_error", self.error)
            return joined_segments(backbone, read, segments, size_bytes, most_frames, listener or SilentListener())


def by_table(errors: dict[tuple[int, int], float]):
    return lambda start, n: errors.get((start, n))


def by_the_rule(segments: list[Segment], errors, most_frames: int) -> list[Segment]:
    """From left to right: one more is joined where it, all that it is joined to, and all together rest on a picture,
    they are not too long together, and the error summed over the frames does not rise."""

    def union(group: list[Segment]) -> Segment:
        n = sum(segment.n_frames for segment in group)
        return Segment(group[0].start, n, math.ceil((n - 1) / 4) * 4 + 1)

    def total(segment: Segment) -> float | None:
        error = errors(segment.start, segment.n_frames)
        return None if error is None else segment.n_frames * error

    groups: list[list[Segment]] = []
    for segment in segments:
        group = [*groups[-1], segment] if groups else []
        known = group and None not in (*map(total, group), total(union(group)))
        if known and union(group).n_coded_frames <= most_frames and total(union(group)) <= sum(map(total, group)):
            groups[-1] = group
        else:
            groups.append([segment])
    return [group[0] if len(group) == 1 else union(group) for group in groups]


@given(
    st.lists(st.integers(1, 9), min_size=1, max_size=8),
    st.integers(0, 10**9),
    st.sampled_from((5, 9, 13, 20, 21, 30, 129)),
    st.sampled_from((0.0, 0.1, 0.4)),
)
def test_segments_are_joined_by_the_rule_and_no_other(lengths, seed, most_frames, n_lost):
    """Errors are whole numbers: sums are exact, and equal ones are frequent."""

    def errors(start: int, n: int) -> float | None:
        rng = random.Random(f"{seed} {start} {n}")
        return None if rng.random() < n_lost else float(rng.randrange(4))

    segments = cut(lengths)
    decision = Decision(errors)
    found = decision.of(segments, most_frames)
    assert found == by_the_rule(segments, errors, most_frames)
    assert decision.longest <= max(most_frames, *(s.n_coded_frames for s in segments)), "what is too long is not tried"
    assert segments == cut(lengths), "the given ones are left as they are"


def test_the_error_may_be_the_same_but_no_larger():
    apart = {(0, 9): 4.0, (9, 5): 2.0}  # 46 in all
    for error, wanted in ((46 / 14 - 1e-9, [(0, 14)]), (46 / 14 + 1e-9, [(0, 9), (9, 5)])):
        assert spans_of(Decision(by_table({**apart, (0, 14): error})).of(cut([9, 5]))) == wanted
    assert spans_of(Decision(by_table({(0, 8): 1.0, (8, 8): 1.0, (0, 16): 1.0})).of(cut([8, 8]))) == [(0, 16)]


def test_of_three_in_a_row_the_errors_apart_count():
    errors = {(0, 9): 4.0, (9, 9): 1.0, (18, 9): 1.0, (0, 18): 1.0}
    for error, wanted in ((2.0, [(0, 27)]), (2.01, [(0, 18), (18, 9)])):
        assert spans_of(Decision(by_table({**errors, (0, 27): error})).of(cut([9, 9, 9]))) == wanted
    errors[0, 18] = 2.51  # one with the next is no gain: there is no third to be asked for
    decision = Decision(by_table({**errors, (0, 27): 0.0, (9, 18): 1.1}))
    assert spans_of(decision.of(cut([9, 9, 9]))) == [(0, 9), (9, 9), (18, 9)]
    assert (0, 27) not in decision.asked


def test_what_was_not_joined_begins_a_new_sum():
    errors = {(0, 9): 100.0, (9, 9): 1.0, (18, 9): 1.0, (27, 9): 1.0, (0, 18): 99.0, (9, 18): 1.0, (9, 27): 1.0}
    assert spans_of(Decision(by_table(errors)).of(cut([9, 9, 9, 9]))) == [(0, 9), (9, 27)]
    errors[9, 27] = 1.1
    assert spans_of(Decision(by_table(errors)).of(cut([9, 9, 9, 9]))) == [(0, 9), (9, 18), (27, 9)]


@pytest.mark.parametrize("lost", [(0, 9), (9, 9), (18, 9), (0, 18), (9, 18), (0, 27)])
def test_nothing_is_joined_over_what_rests_on_no_picture(lost):
    wanted = {
        (0, 9): [(0, 9), (9, 18)], (9, 9): [(0, 9), (9, 9), (18, 9)], (18, 9): [(0, 18), (18, 9)],
        (0, 18): [(0, 9), (9, 18)], (9, 18): [(0, 27)], (0, 27): [(0, 18), (18, 9)],
    }[lost]  # fmt: skip
    decision = Decision(lambda start, n: None if (start, n) == lost else 0.0)
    assert spans_of(decision.of(cut([9, 9, 9]))) == wanted


@pytest.mark.parametrize(
    ("lengths", "most_frames", "wanted"),
    [
        ([9, 9, 9], 20, [9, 9, 9]), ([9, 9, 9], 21, [18, 9]), ([9, 9, 9, 9], 21, [18, 18]), ([9, 9, 9], 28, [18, 9]),
        ([9, 9, 9], 29, [27]), ([9, 8], 17, [17]), ([9, 8], 16, [9, 8]), ([9, 9], 9, [9, 9]), ([5, 1], 9, [6]),
        ([5, 5, 1], 10, [5, 6]), ([5, 5, 1], 13, [11]), ([1, 1, 1, 1, 1, 1], 5, [5, 1]), ([1], 129, [1]),
    ],
)  # fmt: skip
def test_as_many_are_joined_as_coded_frames_allow(lengths, most_frames, wanted):
    found = Decision(lambda start, n: 1.0).of(cut(lengths), most_frames)
    assert [segment.n_frames for segment in found] == wanted
    assert found == cut(wanted), "without gaps, coded in as many frames as their number asks for"


def test_frames_of_many_pixels_are_joined_in_shorter_ones(monkeypatch):
    for n_values, wanted in ((2 * 21, [18, 9]), (2 * 21 - 1, [9, 9, 9]), (2 * 29, [27])):
        monkeypatch.setattr(spans_module, "_MOST_VALUES", n_values)  # of frames of two pixels
        found = Decision(lambda start, n: 1.0).of(cut([9, 9, 9]))
        assert [segment.n_frames for segment in found] == wanted


def test_bytes_are_shared_by_frames_and_paths_are_paid_for():
    decision = Decision(lambda start, n: 1.0, path_bytes=11.0)
    lengths, listener = [9, 9, 5, 3], Progress()
    decision.of(cut(lengths), size_bytes=800.0, listener=listener)
    per_frame = {round(size_bytes / n, 6) for (_, n), size_bytes in decision.asked.items()}
    assert len(per_frame) == 1 and {(0, 9), (23, 3), (0, 26)} <= decision.asked.keys()
    assert 0.8 * 800 < 26 * per_frame.pop() < 800, "a header is in the file too"
    assert decision.spent == {span: pytest.approx(size - 11) for span, size in decision.asked.items()}
    assert listener.announced == listener.advanced == len(lengths)


@pytest.mark.parametrize("size_bytes", [-50.0, 0.0, 1.0])
def test_too_few_bytes_are_no_reason_to_stumble(size_bytes):
    still = np.repeat(grain(0, 1).clip(0, 255).astype(np.uint8), 18, axis=0)
    backbone = SimpleNamespace(geometry=pocket_geometry(), scene=None)
    found = joined_segments(backbone, lambda s, n: still[s : s + n], cut([9, 9]), size_bytes, 129, SilentListener())
    assert spans_of(found) == [(0, 18)]


# --- how much of the picture a clip rests on -------------------------------------------------------------------------


def plan_of(counts) -> SteeringPlan:
    return SteeringPlan(seed=0, snr_start_q=60, snr_ratio_q=24, counts=counts, is_scene=True)


def bits_of(counts) -> float:
    return choices_bits("trellis", counts, 0) + plan_of(counts).counts_bits(counts)


def one_after_the_other(counts, better_db, size_bytes: float) -> int | None:
    """The first injection with which the picture has its share (the text of scene.py)."""
    for n in range(1, len(counts)):
        share = min(0.9, max(0.45, 0.82 - 0.028 * better_db(n)))
        if bits_of(counts[:n]) >= 8 * size_bytes * share:
            return n
    return len(counts) - 1 if bits_of(counts[:-1]) >= 8 * size_bytes * 0.45 else None


@st.composite
def pictures(draw, least: int):
    """Counts as steering has them, the last one of any size; 10·log₁₀ E/D after each; and the bytes."""
    steps = draw(st.lists(st.integers(0, 3), min_size=1, max_size=25))
    grid = [count_of_index(min(least + int(k), 60)) for k in np.cumsum(steps)]
    counts = (*grid, draw(st.integers(1, grid[-1])))
    decibels = st.floats(-30, 30, allow_nan=False)
    gains = sorted(draw(st.lists(decibels, min_size=len(counts) + 1, max_size=len(counts) + 1)))
    return counts, gains, draw(st.floats(0.1, 3.0)) * bits_of(counts) / 8


# Counts below 17 may take a few bits less than those before: the last one is free where it fills a byte.
@settings(max_examples=200)
@given(pictures(least=13))
def test_the_search_finds_what_going_through_all_finds(picture):
    counts, gains, size_bytes = picture
    asked = []

    def better_db(n: int) -> float:
        asked.append(n)
        return gains[n]

    found = scene_module._injections_of_picture(plan_of(counts), better_db, size_bytes)
    assert found == one_after_the_other(counts, gains.__getitem__, size_bytes)
    assert len(asked) <= len(counts).bit_length(), "each of them is a picture that has to be decoded"
    assert all(1 <= n < len(counts) for n in asked)


@settings(max_examples=200)
@given(pictures(least=1))
def test_what_is_found_is_enough_and_one_less_is_not(picture):
    counts, gains, size_bytes = picture

    def is_enough(n: int) -> bool:
        share = min(0.9, max(0.45, 0.82 - 0.028 * gains[n]))
        return bits_of(counts[:n]) >= 8 * size_bytes * share

    found = scene_module._injections_of_picture(plan_of(counts), gains.__getitem__, size_bytes)
    if found is None:
        assert bits_of(counts[:-1]) < 8 * size_bytes * 0.45
        return
    assert found == 1 or not is_enough(found - 1)
    assert is_enough(found) or (found == len(counts) - 1 and bits_of(counts[:-1]) >= 8 * size_bytes * 0.45)


def test_a_picture_that_ends_before_its_share():
    counts = (32, 40, 48, 9)
    bits = bits_of(counts[:3])
    worst = [-30.0] * 5  # asks for nine tenths
    assert scene_module._injections_of_picture(plan_of(counts), worst.__getitem__, bits / 8 / 0.46) == 3, (
        "most of it at least"
    )
    assert scene_module._injections_of_picture(plan_of(counts), worst.__getitem__, bits / 8 / 0.44) is None
    assert scene_module._injections_of_picture(plan_of((32,)), worst.__getitem__, 10.0) is None


# --- whole files ---------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """A folder with the tiny model, which is loaded once for all, and clips: nothing moves, noise between two parts
    in which nothing moves, slow waves, a camera that pans. Of each also a file, what encoding reported, and the frames
    that it saw."""
    folder = tmp_path_factory.mktemp("spans")
    with tiny_home(folder, JOINING) as found:
        found.seen = {}
        noise = np.random.default_rng(5).integers(0, 256, (FULL, HEIGHT, WIDTH, 3)).astype(np.uint8)
        frames = {
            "still": still(27), "noisy": np.concatenate([still(18), noise, still(18)]),
            "slow": frames_of(clip(folder, 27, WIDTH, HEIGHT, speed=0.1, noise=10)),
            "pan": filmed("pan", 27, WIDTH, HEIGHT)[0],
        }  # fmt: skip
        for name, size_bytes in CLIPS.items():
            found.sources[name] = write_clip(folder / f"{name}.y4m", frames[name])
            found.files[name], found.seen[name] = folder / f"{name}.vov", []
            with likely(name), watched(found.seen[name]):
                found.reports[name] = encoded(found, found.files[name], found.sources[name], size_bytes)
        yield found


def still(n_frames: int, width: int = WIDTH, height: int = HEIGHT) -> np.ndarray:
    return np.repeat(grain(9, 1, width, height).clip(0, 255).astype(np.uint8), n_frames, axis=0)


def likely(name: str):
    """Of slow waves the encoder codes a picture and what moves; of all others whatever it likes."""
    return preferring("moves") if name == "slow" else pytest.MonkeyPatch.context()


NAMES = pytest.mark.parametrize("name", CLIPS)


@NAMES
def test_what_rests_on_one_picture_becomes_one_segment_and_decodes_to_what_the_encoder_saw(home, tmp_path, name, calls):
    path, report = home.files[name], home.reports[name]
    assert spans_of(path) == WHOLE[name]
    header = read_vov(path).header
    assert report.segments == header.n_segments == len(WHOLE[name])
    assert 0.97 * CLIPS[name] <= report.size_bytes == path.stat().st_size <= CLIPS[name]
    assert header.segment_frames == {"noisy": 21}.get(name, 29)
    assert [n > 0 for n in pictures_of(path)] == ([True, False, True] if name == "noisy" else [True])
    assert has_camera(path) == [name == "pan"] * len(WHOLE[name])
    frames, decoded = shown(path, tmp_path, verify=True)
    assert np.array_equal(frames, np.concatenate(home.seen[name])) and decoded.drift_db == math.inf
    assert psnr(frames_of(home.sources[name]), frames) == pytest.approx(report.psnr_db, abs=1e-6)
    n_evaluations = sum(n_evaluations_of(header, segment) for segment in read_vov(path).segments)
    assert decoded.n_network_evaluations == len(calls) == n_evaluations
    assert stands_still(frames[:18]) == (name in ("still", "noisy"))


@pytest.mark.parametrize("name", ["still", "pan"])
def test_joining_shows_more_in_as_many_bytes(home, tmp_path, name):
    report = encoded(home, tmp_path / "apart.vov", home.sources[name], CLIPS[name], "apart")
    assert spans_of(tmp_path / "apart.vov") == [(0, 9), (9, 9), (18, 9)] and all(pictures_of(tmp_path / "apart.vov"))
    assert report.psnr_db + 1 < home.reports[name].psnr_db


@pytest.mark.parametrize(
    ("name", "targets"),
    [("still", (150, 901)), ("noisy", (402,)), ("slow", (201, 777)), ("pan", (255,))],
)
def test_byte_targets_are_met_from_below(home, tmp_path, name, targets):
    for target_bytes in targets:
        with likely(name):
            report = encoded(home, tmp_path / "out.vov", home.sources[name], target_bytes)
        assert 0.97 * target_bytes <= report.size_bytes == (tmp_path / "out.vov").stat().st_size <= target_bytes
        assert report.segments < len(frames_of(home.sources[name])) // FULL


def test_a_file_that_is_too_small_apart_can_be_made(home, tmp_path):
    source = write_clip(tmp_path / "in.y4m", still(27, 16, 16))
    with pytest.raises(UsageError, match="3 segment"):
        encoded(home, tmp_path / "out.vov", source, 110, "apart", size=(16, 16))
    report = encoded(home, tmp_path / "out.vov", source, 110, size=(16, 16))
    assert report.segments == 1 and 0.97 * 110 <= report.size_bytes <= 110


def refused(*inputs):
    raise AssertionError("no frame has to be looked at")


@pytest.mark.parametrize("effort", ["apart", "less", "none", "hadamard", "channels", "shared", "multiplier", "lambda"])
def test_settings_that_join_nothing_look_for_nothing(home, tmp_path, monkeypatch, effort):
    monkeypatch.setattr(spans_module, "joined_segments", refused)
    source, target = write_clip(tmp_path / "in.y4m", still(11, 16, 16)), tmp_path / "out.vov"
    if effort == "lambda":
        encoded(home, target, source, None, size=(16, 16), lambda_=0.004)
    else:
        encoded(home, target, source, None if effort == "multiplier" else 230, effort, size=(16, 16))
    assert spans_of(target) == [(0, 9), (9, 2)]
    with pytest.raises(AssertionError, match="no frame"):
        encoded(home, target, source, 230, size=(16, 16))


def test_a_picture_gets_no_bytes_of_the_sound(home, tmp_path, monkeypatch):
    sound, asked = RawSection(type=layout.AUDIO, payload=bytes(50)), []
    monkeypatch.setattr(encode_module, "kept_sound", lambda track, options, file_bytes, _: ((sound,), file_bytes))

    def stopping(backbone, read, segments, size_bytes, most_frames, listener):
        asked.append((read(2, 7).shape, spans_of(segments), size_bytes, most_frames))
        raise KeyboardInterrupt

    monkeypatch.setattr(spans_module, "joined_segments", stopping)
    source = write_clip(tmp_path / "in.y4m", still(11, 16, 16))
    with pytest.raises((KeyboardInterrupt, Interrupted)):
        encoded(home, tmp_path / "out.vov", source, 230, size=(16, 16))
    assert asked == [((7, 16, 16, 3), [(0, 9), (9, 2)], 230 - sound_bytes([sound]), 45)]
    assert 50 < sound_bytes([sound]) < 60


def test_a_single_segment_or_a_still_is_not_looked_at(home, tmp_path, monkeypatch):
    monkeypatch.setattr(spans_module, "joined_segments", refused)
    for n_frames in (1, FULL):
        source = write_clip(tmp_path / f"{n_frames}.y4m", still(n_frames, 16, 16))
        assert encoded(home, tmp_path / "out.vov", source, 150, size=(16, 16)).segments == 1


def test_which_settings_may_rest_on_pictures(home, monkeypatch):
    preset = load_preset(home.folder / "tiny.yaml")
    may = {name: may_rest_on_scenes(home.backbone, resolve(preset, {}, name)) for name in preset.efforts}
    assert {name for name, it_may in may.items() if not it_may} == {"none", "hadamard", "channels", "shared"}
    monkeypatch.setattr(home.backbone, "scene", None)
    assert not may_rest_on_scenes(home.backbone, resolve(preset, {}, "fast"))


@pytest.mark.parametrize(
    ("effort", "max_frames", "wanted"),
    [
        ("at20", 129, [9, 9, 9]), ("at21", 129, [18, 9]), ("fast", 21, [18, 9]), ("fast", 9, [9, 9, 9]),
        ("short", 9, [5, 5, 5, 5, 7]), ("fast", 5, [5, 5, 5, 5, 5, 2]),
    ],
)  # fmt: skip
def test_no_segment_is_longer_than_preset_and_model_allow(home, tmp_path, monkeypatch, effort, max_frames, wanted):
    monkeypatch.setattr(home.backbone, "geometry", replace(pocket_geometry(), max_frames=max_frames))
    source = write_clip(tmp_path / "in.y4m", still(27, 16, 16))
    encoded(home, tmp_path / "out.vov", source, 400, effort, size=(16, 16))
    assert [n_frames for _, n_frames in spans_of(tmp_path / "out.vov")] == wanted


@pytest.mark.parametrize("n_frames", [6, 11])
def test_a_last_segment_of_one_frame(home, tmp_path, n_frames):
    """It always rests on a picture, itself: whether on that of the others is the question."""
    frames, target = still(n_frames), tmp_path / "out.vov"
    assert segment_lengths(n_frames, 5)[-1] == Segment(n_frames - 1, 1, 1)
    encoded(home, target, write_clip(tmp_path / "same.y4m", frames), 240, "short")
    assert spans_of(target) == [(0, n_frames)]
    seen, other = [], frames.copy()
    other[-1] = 255 - other[-1]
    with watched(seen):
        report = encoded(home, target, write_clip(tmp_path / "other.y4m", other), 240, "short")
    assert spans_of(target) == [(0, n_frames - 1), (n_frames - 1, 1)]
    again, decoded = shown(target, tmp_path, verify=True)
    assert np.array_equal(again, np.concatenate(seen)) and decoded.drift_db == math.inf
    assert 0.97 * 240 <= report.size_bytes <= 240


def test_two_scenes_are_not_made_one(home, tmp_path):
    """Where scenes begin is found where the file is large enough to have them apart."""
    frames = np.concatenate([still(18), 255 - still(18)])
    encoded(home, tmp_path / "out.vov", write_clip(tmp_path / "in.y4m", frames), 900)
    assert spans_of(tmp_path / "out.vov") == [(0, 18), (18, 18)] and all(pictures_of(tmp_path / "out.vov"))


# --- stopped and taken up again --------------------------------------------------------------------------------------


class StoppedAtScenes(Progress):
    """Stops at the second segment that is looked at."""

    def stage(self, name, n_units, done=0):
        self.is_looking = name == "looking for scenes"
        super().stage(name, n_units, done)

    def advance(self, n_units=1, **figures):
        if self.is_looking and self.advanced:
            raise KeyboardInterrupt
        super().advance(n_units, **figures)


def test_an_encode_that_is_taken_up_again_gives_the_same_file(home, tmp_path, monkeypatch):
    states, target = tmp_path / "states", tmp_path / "out.vov"
    settings = {"resume": True, "state_dir": states}
    with pytest.raises((KeyboardInterrupt, Interrupted)):
        encoded(home, target, home.sources["noisy"], CLIPS["noisy"], listener=StoppedAtScenes(), **settings)
    with pytest.raises(Interrupted, match="kept"):
        listener = Progress(stop_at="segment 2 of 3")
        encoded(home, target, home.sources["noisy"], CLIPS["noisy"], listener=listener, **settings)
    assert len(list(states.rglob("*.part"))) == 1 and not target.exists()
    made, inject_scene = [], segment_module.inject_scene

    def watching(*inputs, **named):
        made.append((inputs[6], len(inputs[3])))
        return inject_scene(*inputs, **named)

    monkeypatch.setattr(segment_module, "inject_scene", watching)
    report = encoded(home, target, home.sources["noisy"], CLIPS["noisy"], **settings)
    assert made == [(1, 9), (2, 21)], "the first one, of two, was kept"
    assert target.read_bytes() == home.files["noisy"].read_bytes()
    assert report.psnr_db == pytest.approx(home.reports["noisy"].psnr_db)
    assert report.n_network_evaluations == home.reports["noisy"].n_network_evaluations
    assert not any(states.rglob("*.*"))


def test_what_was_kept_of_other_segments_is_not_taken(home, tmp_path, monkeypatch):
    """As many of them, and the longest as long: nothing else of the file's header differs."""
    common = (home.sources["noisy"], CLIPS["noisy"])
    states = {"resume": True, "state_dir": tmp_path / "states"}
    with pytest.raises(Interrupted):
        encoded(home, tmp_path / "out.vov", *common, listener=Progress(stop_at="segment 2 of 3"), **states)
    others = [Segment(0, 9, 9), Segment(9, 18, 21), Segment(27, 18, 21)]
    monkeypatch.setattr(spans_module, "joined_segments", lambda *inputs: others)
    encoded(home, tmp_path / "again.vov", *common, **states)
    encoded(home, tmp_path / "anew.vov", *common)
    assert spans_of(tmp_path / "again.vov") == spans_of(others)
    assert (tmp_path / "again.vov").read_bytes() == (tmp_path / "anew.vov").read_bytes()


# --- what is made of them --------------------------------------------------------------------------------------------


@NAMES
def test_a_part_of_a_joined_segment(home, tmp_path, name, calls):
    whole, stream = np.concatenate(home.seen[name]), read_vov(home.files[name])
    for first, n_frames, numbers in ((10, 3, [0]), (16, 4, [0, 1]), (len(whole) - 10, 99, [-1])):
        calls.clear()
        part, _ = shown(home.files[name], tmp_path, start_s=first / 25, duration_s=n_frames / 25)
        assert np.array_equal(part, whole[first : first + n_frames])
        touched = [stream.segments[i] for i in numbers[: len(stream.segments)]]
        assert len(calls) == sum(n_evaluations_of(stream.header, segment) for segment in touched)


@pytest.mark.parametrize(("name", "scenes", "cameras"), [("still", 1, None), ("noisy", 2, None), ("pan", 1, 1)])
def test_info_tells_of_one_scene(home, capsys, name, scenes, cameras):
    assert run(["info", str(home.files[name]), "--json"]) == 0
    told = json.loads(capsys.readouterr().out)["summary"]
    n_frames = len(np.concatenate(home.seen[name]))
    assert (told["scenes"], told["cameras"], told["n_frames"]) == (scenes, cameras, n_frames)
    assert told["segments"] == len(WHOLE[name]) and told["size_bytes"] == home.files[name].stat().st_size
    assert inspect(home.files[name], verify=True)["check"]["segments"] == len(WHOLE[name])


@NAMES
def test_frames_are_taken_off_and_added(home, tmp_path, name):
    """Of a segment that stays as long as coded the atoms hold on, and segments go that begin later."""
    whole, atoms = np.concatenate(home.seen[name]), [s.atoms for s in read_vov(home.files[name]).segments]
    for n_frames, n_segments in {"noisy": {46: 3, 48: 3, 18: 1, 27: 2}}.get(name, {26: 1, 29: 1}).items():
        target = tmp_path / f"{n_frames}.vov"
        edit(home.files[name], target, EditOptions(n_frames=n_frames))
        assert [segment.atoms for segment in read_vov(target).segments] == atoms[:n_segments]
        frames, _ = shown(target, tmp_path)
        n_known = min(n_frames, len(whole))
        assert len(frames) == n_frames and np.array_equal(frames[:n_known], whole[:n_known])
    begin = WHOLE[name][-1][0]
    edit(home.files[name], tmp_path / "long.vov", EditOptions(n_frames=begin + 129))
    assert spans_of(tmp_path / "long.vov") == [*WHOLE[name][:-1], (begin, 129)]
    with pytest.raises(UsageError, match=f"{begin + 130} frames are too many: pocket makes at most 129 at once"):
        edit(home.files[name], tmp_path / "longer.vov", EditOptions(n_frames=begin + 130))


@NAMES
def test_a_new_caption_goes_on_in_every_segment(home, tmp_path, name, calls):
    edit(home.files[name], tmp_path / "out.vov", EditOptions(caption="a dog", keep_structure=0.6))
    after = read_vov(tmp_path / "out.vov")
    assert spans_of(tmp_path / "out.vov") == WHOLE[name] and all(segment.generation for segment in after.segments)
    frames, report = shown(tmp_path / "out.vov", tmp_path)
    assert report.n_network_evaluations == len(calls) == sum(n_evaluations_of(after.header, s) for s in after.segments)
    assert frames.shape == np.concatenate(home.seen[name]).shape
    assert stands_still(frames[:18]) == (name != "pan"), "what moved went with the steps that were not kept"


@NAMES
def test_a_joined_file_is_steered_anew(home, tmp_path, name):
    common = (home.files[name], home.sources[name])
    with likely(name):
        same, more = (ScaleOptions(target_bytes=n, device="cpu") for n in (CLIPS[name], CLIPS[name] + 111))
        scale(*common, tmp_path / "same.vov", same, SilentListener())
        report = scale(*common, tmp_path / "more.vov", more, SilentListener())
    assert (tmp_path / "same.vov").read_bytes() == home.files[name].read_bytes()
    assert 0.97 * (CLIPS[name] + 111) <= report.size_bytes <= CLIPS[name] + 111
    assert spans_of(tmp_path / "more.vov") == WHOLE[name]
    assert shown(tmp_path / "more.vov", tmp_path, verify=True)[1].drift_db == math.inf
