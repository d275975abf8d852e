"""Clips: colour, rotation, selection and resampling in time, damage."""

from __future__ import annotations

import os
from fractions import Fraction

import av
import numpy as np
import pytest

from vovcodec.errors import MediaError, UsageError
from vovcodec.media import open_frames, probe

COEFFICIENTS = {1: (0.2126, 0.0722), 5: (0.299, 0.114), 6: (0.299, 0.114), 9: (0.2627, 0.0593)}
COLOURS = np.array([[200, 40, 30], [20, 180, 60], [30, 50, 220], [128, 128, 128], [255, 255, 255], [0, 0, 0]])


def encode(path, pictures, codec="ffv1", rate=Fraction(25), prepare=None, pts=None, **attributes):
    """Writes av.VideoFrames as they are."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=rate)
        context = stream.codec_context
        context.width, context.height = pictures[0].width, pictures[0].height
        context.pix_fmt = pictures[0].format.name
        for name, value in attributes.items():
            setattr(context, name, value)
        if prepare:
            prepare(stream)
        for index, picture in enumerate(pictures):
            picture.pts, picture.time_base = pts[index] if pts else index, 1 / rate
            container.mux(stream.encode(picture))
        container.mux(stream.encode(None))


def flat_ycc(matrix, is_full, bits=8):
    """COLOURS as vertical bars in YCbCr planes [3, 16, 96], by the equations of H.273 section 8.3."""
    kr, kb = COEFFICIENTS[matrix]
    r, g, b = (COLOURS / 255).T
    y = kr * r + (1 - kr - kb) * g + kb * b
    planes = np.stack([y, (b - y) / (2 * (1 - kb)), (r - y) / (2 * (1 - kr))])
    scale = 2 ** (bits - 8)
    if is_full:
        stored = planes * (2**bits - 1) + np.array([[0], [128], [128]]) * scale
    else:
        stored = (planes * np.array([[219], [224], [224]]) + np.array([[16], [128], [128]])) * scale
    bars = np.repeat(np.rint(stored), 16, axis=1)
    return np.ascontiguousarray(np.repeat(bars[:, None], 16, axis=1)).clip(0, 2**bits - 1)


def numbered_clip(path, n_frames=40, **options):
    """Frame i is a flat grey of level 20 + 5·i."""
    pictures = [
        av.VideoFrame.from_ndarray(np.full((32, 48, 3), 20 + 5 * i, np.uint8), format="rgb24") for i in range(n_frames)
    ]
    encode(path, [p.reformat(format="bgr0") for p in pictures], **options)


def numbers(source, **options):
    with open_frames(source, **options) as reader:
        return [round((float(frame.mean()) - 20) / 5) for frame in reader], reader


@pytest.mark.parametrize("matrix", [1, 6, 9, 2])
@pytest.mark.parametrize("colour_range", [1, 2, 0])
def test_matrix_and_range_come_from_the_tags(tmp_path, matrix, colour_range):
    planes = flat_ycc(6 if matrix == 2 else matrix, colour_range == 2).astype(np.uint8)
    picture = av.VideoFrame.from_ndarray(planes, format="yuv444p")
    encode(tmp_path / "a.mkv", [picture], colorspace=matrix, color_range=colour_range)
    with open_frames(tmp_path / "a.mkv") as reader:
        bars = next(reader)[8, 8::16]
    assert np.abs(bars.astype(int) - COLOURS).max() <= 2
    assert reader.info.colour_matrix == matrix
    assert reader.info.colour_range == ("unspecified", "limited", "full")[colour_range]


def test_without_a_tag_large_pictures_are_bt709(tmp_path):
    planes = np.tile(flat_ycc(1, False).astype(np.uint8), (1, 1, 14))
    encode(tmp_path / "wide.mkv", [av.VideoFrame.from_ndarray(planes, format="yuv444p")])
    with open_frames(tmp_path / "wide.mkv") as reader:
        assert np.abs(next(reader)[8, 8:96:16].astype(int) - COLOURS).max() <= 2


def test_ten_bits_are_reduced_with_a_notice(tmp_path):
    picture = av.VideoFrame(96, 16, "yuv444p10le")
    for plane, values in zip(picture.planes, flat_ycc(6, False, bits=10).astype("<u2"), strict=True):
        padded = np.zeros((16, plane.line_size // 2), "<u2")
        padded[:, :96] = values
        plane.update(padded.tobytes())
    encode(tmp_path / "a.mkv", [picture])
    with open_frames(tmp_path / "a.mkv") as reader:
        assert np.abs(next(reader)[8, 8::16].astype(int) - COLOURS).max() <= 2
    assert reader.info.bit_depth == 10 and "10 bits" in reader.notices[0]


def test_alpha_is_flattened_on_black_with_a_notice(tmp_path):
    rgba = np.zeros((16, 32, 4), np.uint8)
    rgba[..., :3], rgba[:, :16, 3], rgba[:, 16:, 3] = (200, 100, 50), 255, 51
    picture = av.VideoFrame.from_ndarray(rgba, format="rgba").reformat(format="bgra")
    encode(tmp_path / "a.mkv", [picture])
    with open_frames(tmp_path / "a.mkv") as reader:
        frame = next(reader)
    assert reader.info.has_alpha and "black" in reader.notices[-1]
    assert tuple(frame[8, 4]) == (200, 100, 50) and tuple(frame[8, 28]) == (40, 20, 10)


CORNERS = np.zeros((32, 48, 3), np.uint8)
CORNERS[:16, :24], CORNERS[:16, 24:], CORNERS[16:, :24] = 240, 160, 80  # the fourth corner is black


@pytest.mark.parametrize(
    ("counter_clockwise", "mirrored", "expected", "degrees"),
    [
        (0, False, CORNERS, 0),
        (90, False, np.rot90(CORNERS, 1), 270),
        (180, False, np.rot90(CORNERS, 2), 180),
        (270, False, np.rot90(CORNERS, 3), 90),
        (0, True, CORNERS[:, ::-1], 0),
    ],
)
def test_rotation_and_mirroring_are_applied(tmp_path, counter_clockwise, mirrored, expected, degrees):
    picture = av.VideoFrame.from_ndarray(CORNERS, format="rgb24").reformat(format="yuv420p")
    encode(
        tmp_path / "a.mp4", [picture] * 3, codec="libx264",
        prepare=lambda stream: stream.set_display_rotation(counter_clockwise, hflip=mirrored),
        sample_aspect_ratio=Fraction(4, 3),
    )  # fmt: skip
    with open_frames(tmp_path / "a.mp4") as reader:
        frame = next(reader)
    assert frame.flags.c_contiguous
    assert (reader.info.height, reader.info.width) == frame.shape[:2] == expected.shape[:2]
    assert np.median(np.abs(frame.astype(int) - expected)) <= 6
    assert reader.info.rotation == degrees
    assert any(f"by {degrees} degrees" in notice for notice in reader.notices) == bool(degrees)
    assert reader.info.sample_aspect == (Fraction(3, 4) if degrees in (90, 270) else Fraction(4, 3))


@pytest.mark.parametrize("kind", ["mp4", "mkv"])
def test_selection_by_time(tmp_path, kind):
    codec = "libx264rgb" if kind == "mp4" else "ffv1"
    numbered_clip(tmp_path / f"a.{kind}", 45, codec=codec)
    path = tmp_path / f"a.{kind}"
    assert numbers(path)[0] == list(range(45))
    assert numbers(path, start_s=0.2)[0] == list(range(5, 45))
    assert numbers(path, start_s=0.2, duration_s=0.4)[0] == list(range(5, 15))
    assert numbers(path, start_s=Fraction(6, 5), n_frames=4)[0] == [30, 31, 32, 33]  # far enough for a seek
    assert numbers(path, start_s=1.215, duration_s=0.001)[0] == [30]
    with pytest.raises(MediaError, match="no frame at 9 s"):
        numbers(path, start_s=9)
    for wrong in ({"start_s": -1}, {"duration_s": 0}, {"n_frames": 0}, {"frame_rate": Fraction(0)}):
        with pytest.raises(UsageError):
            open_frames(path, **wrong)


def test_resampling_drops_and_repeats_the_nearest_frames(tmp_path):
    path = tmp_path / "a.mkv"
    numbered_clip(path, 10)
    assert numbers(path, frame_rate=Fraction(50))[0] == [i // 2 + i % 2 for i in range(19)] + [9]
    assert numbers(path, frame_rate=Fraction(25, 2))[0] == [0, 2, 4, 6, 8]
    assert numbers(path, frame_rate=Fraction(10))[0] == [0, 3, 5, 8]
    assert numbers(path, frame_rate=Fraction(25, 2), start_s=0.12, duration_s=0.16)[0] == [3, 5]
    same, reader = numbers(path, frame_rate=Fraction(25))
    assert same == list(range(10)) and reader.info.frame_rate == 25


def test_variable_frame_rates(tmp_path):
    path = tmp_path / "a.mp4"
    numbered_clip(path, 8, codec="libx264rgb", pts=[0, 1, 2, 3, 10, 11, 12, 13])
    every_frame, reader = numbers(path)
    assert every_frame == list(range(8))
    assert any("variable" in notice for notice in reader.notices)
    assert reader.info.frame_rate == Fraction(8 * 25, 14)  # the duration stays right
    assert numbers(path, frame_rate=Fraction(25))[0] == [0, 1, 2, 3, 3, 3, 3, 4, 4, 4, 4, 5, 6, 7]


@pytest.mark.parametrize("kind", ["mkv", "mp4"])
def test_rates_rounded_by_the_container_are_recovered(tmp_path, kind):
    pictures = [av.VideoFrame(32, 32, "yuv420p") for _ in range(5)]
    for rate in (Fraction(30000, 1001), Fraction(24000, 1001), Fraction(179, 6), Fraction(60), Fraction(7, 2)):
        encode(tmp_path / f"a.{kind}", pictures, "libx264", rate=rate)
        assert probe(tmp_path / f"a.{kind}").frame_rate == rate


def test_info_of_a_clip(tmp_path):
    numbered_clip(tmp_path / "a.mkv", 10, rate=Fraction(30000, 1001))
    info = probe(tmp_path / "a.mkv")
    assert (info.kind, info.width, info.height, info.codec) == ("video", 48, 32, "ffv1")
    assert info.duration_s == pytest.approx(10 * 1001 / 30000, abs=0.002)
    assert (info.rotation, info.sample_aspect, info.bit_depth, info.has_alpha, info.has_audio) == (
        0,
        1,
        8,
        False,
        False,
    )
    assert info.colour_matrix == 0


@pytest.mark.parametrize("kind", ["mp4", "mkv", "avi"])
def test_a_file_that_was_cut_short_gives_what_it_has_and_says_so(tmp_path, kind):
    path = tmp_path / f"whole.{kind}"
    noise = np.random.default_rng(0).integers(0, 256, (30, 48, 64, 3), dtype=np.uint8)
    pictures = [av.VideoFrame.from_ndarray(frame, format="rgb24").reformat(format="yuv420p") for frame in noise]
    with av.open(str(path), "w", options={"movflags": "+faststart"} if kind == "mp4" else {}) as container:
        stream = container.add_stream("mpeg4" if kind == "avi" else "libx264", rate=25)
        stream.codec_context.width, stream.codec_context.height = 64, 48
        stream.codec_context.pix_fmt = "yuv420p"
        for picture in pictures:
            container.mux(stream.encode(picture))
        container.mux(stream.encode(None))
    data = path.read_bytes()
    cut = tmp_path / f"cut.{kind}"
    cut.write_bytes(data[: len(data) * 6 // 10])
    with open_frames(cut) as reader:
        n_frames = sum(1 for _ in reader)
    assert 5 <= n_frames < 30
    assert any("cut short" in n or "announced" in n for n in reader.notices)
    damaged = bytearray(data)
    damaged[len(data) // 2 : len(data) // 2 + 4000] = os.urandom(4000)
    (tmp_path / f"damaged.{kind}").write_bytes(damaged)
    with open_frames(tmp_path / f"damaged.{kind}") as reader:
        assert sum(1 for _ in reader) >= 5


def test_frames_are_made_one_by_one(tmp_path):
    numbered_clip(tmp_path / "a.mkv", 40)
    with open_frames(tmp_path / "a.mkv") as reader:
        converted, original = [], reader._source.to_rgb
        reader._source.to_rgb = lambda picture: converted.append(picture.pts) or original(picture)
        next(reader)
        next(reader)
    assert len(converted) == 2


def test_image_formats_that_only_ffmpeg_reads(tmp_path):
    frame = np.random.default_rng(0).integers(0, 256, (20, 30, 3), dtype=np.uint8)
    context = av.CodecContext.create("targa", "w")
    context.width, context.height, context.pix_fmt, context.time_base = 30, 20, "bgr24", Fraction(1, 25)
    picture = av.VideoFrame.from_ndarray(frame, format="rgb24").reformat(format="bgr24")
    (tmp_path / "a.tga").write_bytes(b"".join(bytes(p) for p in context.encode(picture)))
    with open_frames(tmp_path / "a.tga") as reader:
        assert (np.stack(list(reader)) == frame).all()
    assert (reader.info.kind, reader.info.frame_rate, reader.info.n_frames) == ("image", 0, 1)


UNEVEN = [0, 2, 4, 5, 11, 12, 20, 22, 24, 45, 47, 49]  # of twenty-fifths of a second


def test_uneven_times_in_a_file_of_constant_rate(tmp_path):
    """Matroska says how long a frame lasts whatever its time stamps say."""
    numbered_clip(tmp_path / "a.mkv", 12, pts=UNEVEN)
    with open_frames(tmp_path / "a.mkv") as reader:
        assert len(list(reader)) == 12 and reader.info.frame_rate == 25
        assert [notice for notice in reader.notices if "--fps 25" in notice] == reader.notices != []
    with open_frames(tmp_path / "a.mkv", frame_rate=Fraction(25)) as reader:
        shown = [round((int(frame[0, 0, 0]) - 20) / 5) for frame in reader]
    assert shown[:6] == [0, 0, 1, 1, 2, 3] or shown[:6] == [0, 1, 1, 2, 2, 3]
    assert len(shown) == 50 and [shown[time] for time in UNEVEN] == list(range(12))


def test_even_times_are_left_alone(tmp_path):
    for rate in (Fraction(25), Fraction(30000, 1001), Fraction(60000, 1001)):
        numbered_clip(tmp_path / "a.mkv", 30, rate=rate)
        for frame_rate in (None, rate):
            with open_frames(tmp_path / "a.mkv", frame_rate=frame_rate) as reader:
                assert [round((int(frame[0, 0, 0]) - 20) / 5) for frame in reader] == list(range(30))
                assert reader.info.frame_rate == rate and not reader.notices
