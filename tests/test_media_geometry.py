"""Coded sizes, segments, padding, resizing, contact sheets."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vovcodec.errors import UsageError
from vovcodec.media import coded_size, contact_sheet, pad_frames, resize_frames, segment_lengths
from vovcodec.media.geometry import Segment


@pytest.mark.parametrize(
    ("source", "coded"),
    [
        ((416, 240), (208, 128)),
        ((832, 480), (208, 128)),
        ((240, 416), (128, 208)),
        ((176, 144), (160, 128)),
        ((720, 480), (192, 128)),
        ((854, 480), (224, 128)),
        ((120, 120), (128, 128)),  # 112 and 128 keep the aspect equally well: the larger one
        ((64, 48), (64, 48)),  # never enlarged
        ((17, 17), (32, 32)),
        ((3, 1000), (16, 1008)),
    ],
)
def test_coded_sizes_by_the_documented_rule(source, coded):
    assert coded_size(*source, short_side=120, multiple=16) == coded


@given(st.integers(1, 5000), st.integers(1, 5000), st.integers(1, 600), st.sampled_from([1, 8, 16, 32]))
def test_coded_size_is_a_multiple_and_within_limits(width, height, short_side, multiple):
    coded = coded_size(width, height, short_side=short_side, multiple=multiple)
    assert all(side % multiple == 0 and side >= multiple for side in coded)
    assert coded[0] < width + multiple and coded[1] < height + multiple
    turned = coded_size(height, width, short_side=short_side, multiple=multiple)
    assert turned == coded[::-1] or turned[0] * turned[1] == coded[0] * coded[1]


def test_segments_are_contiguous_and_padded_to_4n_plus_1():
    assert segment_lengths(1, 81) == [Segment(0, 1, 1)]
    assert segment_lengths(33, 81) == [Segment(0, 33, 33)]
    assert segment_lengths(164, 81) == [Segment(0, 57, 57), Segment(57, 57, 57), Segment(114, 50, 53)]
    assert segment_lengths(162, 81) == [Segment(0, 81, 81), Segment(81, 81, 81)]
    assert segment_lengths(34, 33) == [Segment(0, 17, 17), Segment(17, 17, 17)]
    for bad in (80, 0, 82):
        with pytest.raises(UsageError, match=r"4n\+1"):
            segment_lengths(10, bad)
    with pytest.raises(UsageError, match="no frames"):
        segment_lengths(0, 81)


@given(st.integers(1, 500), st.integers(0, 30))
def test_segments_cover_every_frame_once(n_frames, n):
    segments = segment_lengths(n_frames, 4 * n + 1)
    assert [f for s in segments for f in range(s.start, s.start + s.n_frames)] == list(range(n_frames))
    assert all(s.n_coded_frames % 4 == 1 and 0 <= s.n_coded_frames - s.n_frames < 4 for s in segments)
    lengths = [s.n_coded_frames for s in segments]
    assert len(lengths) == math.ceil(n_frames / (4 * n + 1)) and max(lengths) <= 4 * n + 1
    assert max(lengths) - min(lengths) <= 4, "no short remainder"


def test_padding_repeats_the_last_frame():
    frames = np.arange(2 * 2 * 2 * 3, dtype=np.uint8).reshape(2, 2, 2, 3)
    padded = pad_frames(frames, 5)
    assert padded.shape[0] == 5 and (padded[:2] == frames).all() and (padded[2:] == frames[1]).all()
    assert pad_frames(frames, 2) is frames
    with pytest.raises(UsageError):
        pad_frames(frames, 1)


def test_resizing_is_antialiased_and_keeps_flat_areas():
    stripes = np.zeros((1, 64, 64, 3), np.uint8)
    stripes[:, :, ::2] = 255
    small = resize_frames(stripes, 16, 16)
    assert small.shape == (1, 16, 16, 3) and np.abs(small.astype(int) - 127).max() <= 25
    flat = np.full((2, 30, 41, 3), 77, np.uint8)
    assert (resize_frames(flat, 83, 59) == 77).all()
    assert resize_frames(flat, 41, 30) is flat
    assert resize_frames(flat[0], 20, 10).shape == (10, 20, 3)


def test_contact_sheet_shows_every_frame_below_its_label():
    rows = [[np.full((20, 30, 3), value, np.uint8) for value in (200, 100)], [np.full((40, 60, 3), 50, np.uint8)]]
    sheet = contact_sheet(rows, ["source", "decoded, 1490 bytes"])
    assert sheet.dtype == np.uint8 and sheet.ndim == 3
    for value, area in ((200, 600), (100, 600), (50, 600)):
        assert (sheet == value).all(axis=-1).sum() >= area
    assert (sheet.max(axis=-1) > 220).sum() > 50, "the labels have to be visible"
    with pytest.raises(UsageError, match="labels"):
        contact_sheet(rows, ["one"])
    with pytest.raises(UsageError, match="at least one frame"):
        contact_sheet([], [])
