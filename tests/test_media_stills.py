"""Images of every kind Pillow reads for us, animations and sequences."""

from __future__ import annotations

import io
import struct
import warnings
import zlib
from fractions import Fraction

import av
import numpy as np
import pytest
from PIL import Image, ImageCms

from vovcodec.errors import MediaError, UsageError
from vovcodec.media import open_frames, probe

COLOURS = np.array([[200, 40, 30], [20, 180, 60], [30, 50, 220], [128, 128, 128]], np.uint8)
BARS = np.repeat(np.repeat(COLOURS[None], 16, axis=1), 16, axis=0)  # [16, 64, 3]


def read(source):
    with open_frames(source) as reader:
        (frame,) = list(reader)
    return frame, reader


@pytest.mark.parametrize("kind", ["PNG", "BMP", "TIFF", "PPM", "WEBP"])
def test_exact_formats(tmp_path, kind):
    Image.fromarray(BARS).save(tmp_path / "a.bin", format=kind, **({"lossless": True} if kind == "WEBP" else {}))
    frame, reader = read(tmp_path / "a.bin")  # by content, not by name
    assert (frame == BARS).all()
    info = reader.info
    assert (info.kind, info.frame_rate, info.n_frames, info.duration_s, info.codec) == (
        "image",
        0,
        1,
        0.0,
        kind.lower(),
    )
    assert (info.width, info.height, info.colour_matrix, info.colour_range) == (64, 16, 0, "full")


@pytest.mark.parametrize("kind", ["JPEG", "JPEG2000", "AVIF"])
def test_lossy_formats(tmp_path, kind):
    options = {"JPEG": {"quality": 95, "subsampling": 0}, "AVIF": {"quality": 95, "subsampling": "4:4:4"}}
    Image.fromarray(BARS).save(tmp_path / "a.bin", format=kind, **options.get(kind, {}))
    assert np.abs(read(tmp_path / "a.bin")[0].astype(int) - BARS).mean() < 2


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation(tmp_path, orientation):
    upright = np.arange(6, dtype=np.uint8).reshape(2, 3) * 40
    stored = {
        1: upright, 2: upright[:, ::-1], 3: upright[::-1, ::-1], 4: upright[::-1],
        5: upright.T, 6: np.rot90(upright, 1), 7: upright[::-1, ::-1].T, 8: np.rot90(upright, 3),
    }[orientation]  # fmt: skip
    exif = Image.Exif()
    exif[0x0112] = orientation
    picture = np.ascontiguousarray(np.stack([stored] * 3, axis=-1))
    Image.fromarray(picture).save(tmp_path / "a.png", exif=exif)
    frame, reader = read(tmp_path / "a.png")
    assert (frame[..., 0] == upright).all()
    degrees = {3: 180, 4: 180, 5: 90, 6: 90, 7: 270, 8: 270}.get(orientation, 0)
    assert reader.info.rotation == degrees
    said = " ".join(reader.notices)
    assert (f"by {degrees} degrees" in said) == bool(degrees) and ("mirrored" in said) == (orientation in (2, 4, 5, 7))
    assert bool(reader.notices) == (orientation != 1)


def test_colours_of_16_bits_are_reduced_with_a_notice(tmp_path):
    """Pillow has no mode for them: a PNG is written by hand."""
    levels = np.array([0, 255, 32768, 65535], dtype=">u2")
    row = np.stack([levels, levels[::-1], levels], axis=-1).astype(">u2").tobytes()

    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    header = struct.pack(">IIBBBBB", 4, 2, 16, 2, 0, 0, 0)
    png = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress((b"\0" + row) * 2))
    (tmp_path / "a.png").write_bytes(png + chunk(b"IEND", b""))
    frame, reader = read(tmp_path / "a.png")
    assert reader.info.bit_depth == 16 and reader.notices == ["16 bits per component are reduced to 8"]
    assert np.abs(frame[0, :, 0].astype(int) - [0, 1, 128, 255]).max() <= 1


def test_grey_palette_and_bilevel(tmp_path):
    for mode in ("L", "P", "1"):
        image = Image.fromarray(BARS).convert(mode)
        image.save(tmp_path / "a.png")
        assert (read(tmp_path / "a.png")[0] == np.array(image.convert("RGB"))).all()


@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_sixteen_bits_are_rounded_with_a_notice(tmp_path, kind):
    levels = np.array([[0, 128, 129, 257, 32896, 65535]], np.uint16)
    Image.fromarray(levels).save(tmp_path / "a.bin", format=kind)
    frame, reader = read(tmp_path / "a.bin")
    assert frame[0, :, 1].tolist() == [0, 0, 1, 1, 128, 255]
    assert reader.info.bit_depth == 16 and "16 bits" in reader.notices[0]


def test_transparency_is_flattened_on_white(tmp_path):
    rgba = np.dstack([BARS, np.full(BARS.shape[:2], 51, np.uint8)])
    Image.fromarray(rgba).save(tmp_path / "a.png")
    frame, reader = read(tmp_path / "a.png")
    assert np.abs(frame - (BARS * 0.2 + 255 * 0.8)).max() <= 0.51
    assert reader.info.has_alpha and "white" in reader.notices[0]
    palette = Image.fromarray(BARS).quantize(4)
    palette.save(tmp_path / "b.png", transparency=palette.getpixel((0, 0)))
    assert (read(tmp_path / "b.png")[0][0, 0] == 255).all()
    opaque = np.dstack([BARS, np.full(BARS.shape[:2], 255, np.uint8)])
    Image.fromarray(opaque).save(tmp_path / "c.png")
    frame, reader = read(tmp_path / "c.png")
    assert (frame == BARS).all() and reader.notices == []


def test_cmyk_and_lab(tmp_path):
    cmyk = np.zeros((16, 16, 4), np.uint8)
    cmyk[..., 0] = 255
    Image.fromarray(cmyk, mode="CMYK").save(tmp_path / "a.jpg", quality=95)
    red, green, blue = read(tmp_path / "a.jpg")[0][8, 8].astype(int)
    assert red < 40 and green > 130 and blue > 130
    lab = ImageCms.profileToProfile(
        Image.fromarray(BARS), ImageCms.createProfile("sRGB"), ImageCms.createProfile("LAB"), outputMode="LAB"
    )
    lab.save(tmp_path / "b.tiff")
    assert np.abs(read(tmp_path / "b.tiff")[0].astype(int) - BARS).max() <= 12  # LAB of 8 bits is coarse


def swapped_profile() -> bytes:
    """An RGB profile whose red and blue primaries are exchanged, and which does not call itself sRGB."""
    data = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    end = 132 + 12 * int.from_bytes(data[128:132], "big")
    table, rest = data[:end], data[end:]
    assert table.count(b"rXYZ") == table.count(b"bXYZ") == 1
    table = table.replace(b"rXYZ", b"____").replace(b"bXYZ", b"rXYZ").replace(b"____", b"bXYZ")
    return table + rest.replace("sRGB".encode("utf-16-be"), "swap".encode("utf-16-be"))


def test_an_embedded_profile_is_converted_to_srgb(tmp_path):
    Image.fromarray(BARS).save(tmp_path / "a.png", icc_profile=swapped_profile())
    frame, reader = read(tmp_path / "a.png")
    assert np.abs(frame.astype(int) - BARS[..., ::-1]).max() <= 4
    assert reader.notices == ["colours are converted to sRGB from the embedded profile swap built-in"]
    rgba = np.dstack([BARS, np.full(BARS.shape[:2], 0, np.uint8)])
    rgba[:, :48, 3] = 255
    Image.fromarray(rgba).save(tmp_path / "b.png", icc_profile=swapped_profile())
    frame = read(tmp_path / "b.png")[0]
    assert np.abs(frame[:, :48].astype(int) - BARS[:, :48, ::-1]).max() <= 4 and (frame[:, 48:] == 255).all()


def test_profiles_that_do_not_fit_are_left_aside(tmp_path):
    for profile, image in ((b"nonsense", Image.fromarray(BARS)), (swapped_profile(), Image.new("L", (8, 8), 90))):
        image.save(tmp_path / "a.png", icc_profile=profile)
        frame, reader = read(tmp_path / "a.png")
        assert (frame == np.array(image.convert("RGB"))).all()
        assert "ICC profile" in reader.notices[0]


def test_an_srgb_profile_changes_nothing(tmp_path):
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    Image.fromarray(BARS).save(tmp_path / "a.png", icc_profile=profile)
    frame, reader = read(tmp_path / "a.png")
    assert (frame == BARS).all() and reader.notices == []


def test_avif_of_ten_bits_is_reduced_with_a_notice(tmp_path):
    Image.fromarray(BARS).save(tmp_path / "eight.avif", quality=95)
    assert read(tmp_path / "eight.avif")[1].notices == []
    if "libsvtav1" not in av.codecs_available:
        pytest.skip("this build of FFmpeg cannot make one")
    with av.open(str(tmp_path / "ten.avif"), "w", format="avif") as container:
        stream = container.add_stream("libsvtav1", rate=1, options={"preset": "12"})
        stream.codec_context.width = stream.codec_context.height = 64
        stream.codec_context.pix_fmt = "yuv420p10le"
        picture = av.VideoFrame(64, 64, "yuv420p10le")
        for plane in picture.planes:
            plane.update(b"\0\2" * (plane.buffer_size // 2))
        container.mux(stream.encode(picture))
        container.mux(stream.encode(None))
    frame, reader = read(tmp_path / "ten.avif")
    assert reader.info.bit_depth == 10 and "10 bits" in reader.notices[0]
    assert np.abs(frame.astype(int) - 128).max() <= 3


@pytest.mark.parametrize("kind", ["GIF", "PNG", "WEBP"])
def test_animations_are_videos(tmp_path, kind):
    pages = [Image.new("RGB", (32, 24), (level, level, level)) for level in (0, 90, 200, 40)]
    options = {"lossless": True} if kind == "WEBP" else {}
    pages[0].save(
        tmp_path / "a.bin", format=kind, save_all=True, append_images=pages[1:], duration=[40, 40, 40, 40], **options
    )
    with open_frames(tmp_path / "a.bin") as reader:
        levels = [int(frame.mean()) for frame in reader]
    assert levels == [0, 90, 200, 40]
    assert (reader.info.kind, reader.info.frame_rate, reader.info.n_frames) == ("video", 25, 4)
    with open_frames(tmp_path / "a.bin", start_s=0.04, frame_rate=Fraction(50), n_frames=4) as reader:
        assert [int(frame.mean()) for frame in reader] == [90, 200, 200, 40]


@pytest.mark.parametrize("kind", ["PNG", "WEBP"])
@pytest.mark.parametrize("orientation", [1, 3, 6, 7])
def test_animations_have_an_orientation(tmp_path, kind, orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    pages = [Image.fromarray(np.clip(BARS + np.uint8(level), 0, 220)) for level in (0, 30)]
    options = {"lossless": True} if kind == "WEBP" else {}
    pages[0].save(tmp_path / "a.bin", format=kind, save_all=True, append_images=pages[1:], exif=exif, **options)
    upright = {1: BARS, 3: BARS[::-1, ::-1], 6: np.rot90(BARS, 3), 7: BARS.transpose(1, 0, 2)[::-1, ::-1]}[orientation]
    with open_frames(tmp_path / "a.bin") as reader:
        assert (next(iter(reader)) == upright).all()
    assert (reader.info.height, reader.info.width) == upright.shape[:2]
    assert reader.info.rotation == {3: 180, 6: 90, 7: 270}.get(orientation, 0)
    assert any("EXIF orientation" in notice for notice in reader.notices) == (orientation != 1)


def test_animations_of_variable_rate(tmp_path):
    pages = [Image.new("RGB", (32, 24), (level, level, level)) for level in (0, 90, 200)]
    pages[0].save(tmp_path / "a.gif", save_all=True, append_images=pages[1:], duration=[100, 300, 100])
    with open_frames(tmp_path / "a.gif", frame_rate=Fraction(10)) as reader:
        assert [int(frame.mean()) for frame in reader] == [0, 90, 90, 200, 200]
    assert probe(tmp_path / "a.gif").frame_rate == 6


def test_only_the_first_page_of_a_document_is_used(tmp_path):
    pages = [Image.new("RGB", (8, 8), (level, 0, 0)) for level in (10, 20)]
    pages[0].save(tmp_path / "a.tiff", save_all=True, append_images=pages[1:])
    frame, reader = read(tmp_path / "a.tiff")
    assert frame[0, 0, 0] == 10 and "first of 2 pages" in reader.notices[0]


def test_truncated_and_enormous_images(tmp_path):
    buffer = io.BytesIO()
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)).save(buffer, "PNG")
    (tmp_path / "cut.png").write_bytes(buffer.getvalue()[:5000])
    with pytest.raises(MediaError, match=r"cut\.png"):
        open_frames(tmp_path / "cut.png")
    bomb = bytearray(buffer.getvalue())
    bomb[16:24] = (60000).to_bytes(4, "big") * 2
    import zlib

    bomb[29:33] = zlib.crc32(bomb[12:29]).to_bytes(4, "big")
    (tmp_path / "bomb.png").write_bytes(bomb)
    with warnings.catch_warnings(), pytest.raises(MediaError, match="too many pixels"):
        open_frames(tmp_path / "bomb.png")


def test_an_image_has_no_time(tmp_path):
    Image.fromarray(BARS).save(tmp_path / "a.png")
    with open_frames(tmp_path / "a.png", duration_s=1, n_frames=5, frame_rate=Fraction(25)) as reader:
        assert len(list(reader)) == 1 and reader.info.frame_rate == 0
    assert reader.notices == ["without effect on a still: -t, --frames, --fps"]
    with open_frames(tmp_path / "a.png", n_frames=1, start_s=0) as reader:
        assert len(list(reader)) == 1 and reader.notices == []
    with pytest.raises(UsageError, match="single image"):
        open_frames(tmp_path / "a.png", start_s=1)


def test_sequences_go_by_number_and_check_sizes(tmp_path):
    for number in (8, 9, 10, 12):
        Image.new("RGB", (20, 10), (number * 10, 0, 0)).save(tmp_path / f"f{number}.png")
    Image.new("RGB", (20, 10)).save(tmp_path / "f007.png")  # not what %d writes
    with open_frames(tmp_path / "f%d.png") as reader:
        assert [int(frame[0, 0, 0]) for frame in reader] == [80, 90, 100, 120]
    assert reader.notices[0] == "of the numbers 8 to 12, 11 has no file"
    with open_frames(tmp_path / "f%d.png", start_s=0.04, n_frames=2) as reader:
        assert [int(frame[0, 0, 0]) for frame in reader] == [90, 100]
    (tmp_path / "f9.png").unlink()
    with open_frames(tmp_path / "f%d.png") as reader:
        assert reader.notices[0] == "of the numbers 8 to 12, 2 have no file, 9 is the first"
    Image.new("RGB", (21, 10)).save(tmp_path / "f13.png")
    with open_frames(tmp_path / "f%d.png") as reader, pytest.raises(MediaError, match=r"f13\.png: is 21x10"):
        list(reader)
    with pytest.raises(MediaError, match="no file matches"):
        probe(tmp_path / "g%d.png")
    with pytest.raises(MediaError, match="no such folder"):
        probe(tmp_path / "nowhere" / "%d.png")
    Image.new("RGB", (4, 4)).save(tmp_path / "100%d.png")
    assert probe(tmp_path / "100%d.png").kind == "image", "a file of that very name wins over the pattern"
