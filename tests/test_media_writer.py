"""Every kind of output is read back: size, rate, number of frames, colours; nothing is left behind on failure."""

from __future__ import annotations

import io
import math
import os
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from vovcodec.errors import MediaError, OutputExistsError, UsageError
from vovcodec.media import open_frames, open_writer, probe


def smooth_frame(index: int = 0, width: int = 80, height: int = 48) -> np.ndarray:
    y, x = np.mgrid[0:height, 0:width]
    planes = [x * 200 / width + index, y * 220 / height, 230 - x * 90 / width - y * 90 / height + index]
    return np.clip(np.stack(planes, axis=-1), 0, 255).astype(np.uint8)


def names_in(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def write(target, n_frames=6, frame_rate=Fraction(25), width=80, height=48, **options):
    frames = np.stack([smooth_frame(3 * index, width, height) for index in range(n_frames)])
    with open_writer(target, width=width, height=height, frame_rate=frame_rate, **options) as writer:
        for frame in frames:
            writer.write(frame)
    return frames


def read(source, **options):
    with open_frames(source, **options) as reader:
        return np.stack(list(reader)), reader


def psnr_db(a, b):
    return -10 * math.log10(max(((a.astype(float) - b) ** 2).mean(), 1e-9) / 255**2)


@pytest.mark.parametrize("kind", ["mp4", "mov", "mkv", "webm", "avi", "y4m"])
@pytest.mark.parametrize(
    ("rate", "n_frames"), [(Fraction(30000, 1001), 7), (Fraction(25, 2), 1), (Fraction(24000, 1001), 2)]
)
def test_clips_keep_rate_count_and_colours(tmp_path, kind, rate, n_frames):
    frames = write(tmp_path / f"clip.{kind}", n_frames, rate)
    decoded, reader = read(tmp_path / f"clip.{kind}")
    assert reader.info.frame_rate == rate
    assert decoded.shape == frames.shape
    assert psnr_db(decoded, frames) > 40
    assert reader.notices == []
    assert names_in(tmp_path) == [f"clip.{kind}"]


@pytest.mark.parametrize("kind", ["mp4", "mkv", "webm", "avi", "y4m", "gif", "png", "jpg", "webp", "bmp", "tiff"])
def test_odd_sizes_survive(tmp_path, kind):
    is_image = kind in ("png", "jpg", "webp", "bmp", "tiff")
    n_frames, rate = (1, Fraction(0)) if is_image else (3, Fraction(10))
    frames = write(tmp_path / f"odd.{kind}", n_frames, rate, width=37, height=23)
    decoded, reader = read(tmp_path / f"odd.{kind}")
    assert decoded.shape == frames.shape
    assert psnr_db(decoded, frames) > (30 if kind == "gif" else 36)
    assert reader.info.kind == ("image" if is_image else "video")


@pytest.mark.parametrize("kind", ["png", "bmp", "tiff"])
def test_lossless_images_are_exact(tmp_path, kind):
    frames = write(tmp_path / f"still.{kind}", 1, Fraction(0))
    assert (read(tmp_path / f"still.{kind}")[0] == frames).all()


@pytest.mark.parametrize("rate", [10, 25, 30, 50, Fraction(25, 2)])
def test_gif_keeps_count_and_rates_it_can_express(tmp_path, rate):
    target = tmp_path / "clip.gif"
    with open_writer(target, width=80, height=48, frame_rate=Fraction(rate)) as writer:
        for index in (0, 1, 1, 1, 9, 9, 20):  # repeated frames must not be merged
            writer.write(smooth_frame(index))
    decoded, reader = read(target)
    assert (len(decoded), reader.info.frame_rate, reader.info.n_frames) == (7, rate, 7)
    assert psnr_db(decoded[-1], smooth_frame(20)) > 30
    with pytest.raises(UsageError, match="at most 50"):
        open_writer(tmp_path / "fast.gif", width=8, height=8, frame_rate=Fraction(60))
    assert names_in(tmp_path) == ["clip.gif"]


@pytest.mark.parametrize("kind", ["mp4", "mkv", "avi", "y4m"])
def test_pixel_aspect_survives(tmp_path, kind):
    write(tmp_path / f"clip.{kind}", 3, sample_aspect=Fraction(16, 11))
    assert probe(tmp_path / f"clip.{kind}").sample_aspect == Fraction(16, 11)


def test_containers_that_lose_the_pixel_aspect_say_so(tmp_path):
    with open_writer(
        tmp_path / "a.webm", width=80, height=48, frame_rate=Fraction(25), sample_aspect=Fraction(16, 11)
    ) as writer:
        writer.write(smooth_frame())
    assert any("16/11" in notice for notice in writer.notices)


@pytest.mark.parametrize("kind", ["mp4", "mkv", "webm"])
@pytest.mark.parametrize("matrix", [1, 6, 9])
def test_colour_tags_are_applied_and_written(tmp_path, kind, matrix):
    first = write(tmp_path / f"a.{kind}", 2, colour_matrix=matrix, colour_primaries=9, colour_transfer=14)
    info = probe(tmp_path / f"a.{kind}")
    assert info.colour_matrix == matrix or (matrix, info.colour_matrix) == (6, 5)  # VP9 has one code for both
    assert (info.colour_primaries, info.colour_transfer, info.colour_range) == (9, 14, "limited")
    assert psnr_db(read(tmp_path / f"a.{kind}")[0], first) > 40


def test_quality_trades_size(tmp_path):
    write(tmp_path / "fine.mp4", quality=5)
    write(tmp_path / "coarse.mp4", quality=45)
    assert (tmp_path / "coarse.mp4").stat().st_size < (tmp_path / "fine.mp4").stat().st_size
    with pytest.raises(UsageError, match="1 to 100"):
        open_writer(tmp_path / "x.jpg", width=8, height=8, frame_rate=Fraction(0), quality=0)


@pytest.mark.parametrize("kind", ["png", "jpg"])
def test_numbered_sequences(tmp_path, kind):
    pattern = tmp_path / "frames" / f"%03d.{kind}"  # the folder is made
    frames = write(pattern, 4)
    assert names_in(pattern.parent) == [f"{n:03d}.{kind}" for n in (1, 2, 3, 4)]
    decoded, reader = read(pattern)
    assert (reader.info.kind, reader.info.frame_rate, reader.info.n_frames) == ("video", 25, 4)
    assert psnr_db(decoded, frames) > 36
    assert read(pattern, frame_rate=Fraction(30000, 1001))[1].info.frame_rate == Fraction(30000, 1001)
    with pytest.raises(OutputExistsError):
        write(pattern, 2)
    with open_writer(pattern, width=80, height=48, frame_rate=Fraction(25), overwrite=True) as writer:
        writer.write(frames[3])
    assert "above 1" in writer.notices[0]
    assert names_in(tmp_path) == ["frames"]


def test_an_existing_file_is_kept_unless_overwriting_is_allowed(tmp_path):
    target = tmp_path / "a.png"
    target.write_bytes(b"mine")
    with pytest.raises(OutputExistsError, match="exists already"):
        open_writer(target, width=8, height=8, frame_rate=Fraction(0))
    assert target.read_bytes() == b"mine"
    writer = open_writer(target, width=80, height=48, frame_rate=Fraction(0), overwrite=True)
    writer.write(smooth_frame())
    assert target.read_bytes() == b"mine", "the target may only change on close"
    writer.close()
    assert Image.open(target).size == (80, 48)


def test_a_symbolic_link_stays_one(tmp_path):
    (tmp_path / "real.png").touch()
    (tmp_path / "link.png").symlink_to(tmp_path / "real.png")
    write(tmp_path / "link.png", 1, Fraction(0), overwrite=True)
    assert (tmp_path / "link.png").is_symlink() and (tmp_path / "real.png").stat().st_size > 0


@pytest.mark.parametrize("name", ["a.mp4", "a.gif", "a.y4m", "a.png", "f/%d.png"])
def test_abort_leaves_nothing(tmp_path, name):
    rate = Fraction(0) if name == "a.png" else Fraction(25)
    (tmp_path / "f").mkdir()
    with (
        pytest.raises(RuntimeError, match="stop"),
        open_writer(tmp_path / name, width=80, height=48, frame_rate=rate) as writer,
    ):
        writer.write(smooth_frame())
        raise RuntimeError("stop")
    writer.abort()
    with (
        pytest.raises(MediaError, match="no frame to write"),
        open_writer(tmp_path / name, width=80, height=48, frame_rate=rate),
    ):
        pass
    assert names_in(tmp_path) == ["f"] and names_in(tmp_path / "f") == []


def test_what_does_not_fit_together(tmp_path):
    size = {"width": 8, "height": 8}
    with pytest.raises(UsageError, match=r"clip-%05d\.png"):
        open_writer(tmp_path / "clip.png", frame_rate=Fraction(25), **size)
    with pytest.raises(UsageError, match=r"image cannot be written as \.mp4"):
        open_writer(tmp_path / "clip.mp4", frame_rate=Fraction(0), **size)
    with pytest.raises(UsageError, match="known: mp4"):
        open_writer(tmp_path / "clip.xyz", frame_rate=Fraction(25), **size)
    with pytest.raises(UsageError, match="no extension"):
        open_writer(tmp_path / "clip", frame_rate=Fraction(25), **size)
    with pytest.raises(UsageError, match="unknown container"):
        open_writer("-", frame_rate=Fraction(25), container="xyz", **size)
    with pytest.raises(UsageError, match="frame rate"):
        open_writer(tmp_path / "clip.mp4", frame_rate=Fraction(-1), **size)
    with pytest.raises(MediaError, match="no such folder"):
        open_writer(tmp_path / "nowhere" / "clip.mp4", frame_rate=Fraction(25), **size)
    (tmp_path / "folder.mp4").mkdir()
    with pytest.raises(MediaError, match="is a folder"):
        open_writer(tmp_path / "folder.mp4", frame_rate=Fraction(25), **size)
    writer = open_writer(tmp_path / "one.png", frame_rate=Fraction(0), **size)
    with pytest.raises(UsageError, match="uint8 frame"):
        writer.write(np.zeros((8, 9, 3), np.uint8))
    writer.write(np.zeros((8, 8, 3), np.uint8))
    with pytest.raises(UsageError, match="%05d"):
        writer.write(np.zeros((8, 8, 3), np.uint8))
    writer.abort()
    assert names_in(tmp_path) == ["folder.mp4"]


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
@pytest.mark.parametrize("kind", ["y4m", "mp4", "png"])
def test_a_full_disk_is_one_clear_line(kind):
    with pytest.raises(MediaError, match="/dev/full: no space left"):
        write("/dev/full", 1 if kind == "png" else 20, Fraction(0 if kind == "png" else 25), container=kind)


def test_devices_are_written_to_and_not_replaced():
    write(os.devnull, 2, container="mp4")
    assert not Path(os.devnull).is_file()


@pytest.mark.parametrize("kind", ["mp4", "mkv", "webm", "y4m", "gif"])
def test_file_objects(kind):
    buffer = io.BytesIO()
    frames = write(buffer, 4, container=kind)
    assert not buffer.closed
    buffer.seek(0)
    decoded, reader = read(buffer)
    assert decoded.shape == frames.shape and reader.info.frame_rate == 25


def test_a_single_frame_of_a_video_fits_into_an_image(tmp_path):
    frame = smooth_frame()
    options = {"width": 80, "height": 48, "frame_rate": Fraction(25), "n_frames": 1}
    with open_writer(tmp_path / "a.png", **options) as writer:
        writer.write(frame)
    assert (read(tmp_path / "a.png")[0][0] == frame).all()
    for n_frames in (2, None):
        with pytest.raises(UsageError, match="does not fit into one image"):
            open_writer(tmp_path / "b.png", width=8, height=8, frame_rate=Fraction(25), n_frames=n_frames)
    assert names_in(tmp_path) == ["a.png"]
