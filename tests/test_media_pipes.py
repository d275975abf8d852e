"""Pipes in both directions, and one clear line for everything that cannot be read."""

from __future__ import annotations

import io
import os
import subprocess
import sys
import threading
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image

import vovcodec
from vovcodec.errors import MediaError
from vovcodec.media import open_frames, open_writer, probe

ROOT = str(Path(vovcodec.__file__).parent.parent)

READ = """
import vovcodec.media as media
with media.open_frames("-") as reader:
    levels = [round(float(frame.mean())) for frame in reader]
print(reader.info.kind, reader.info.frame_rate, [round(level, -1) for level in levels])
"""
WRITE = """
import sys, numpy
from fractions import Fraction
from vovcodec.errors import MediaError
import vovcodec.media as media
n, rate, container = int(sys.argv[1]), Fraction(sys.argv[2]), sys.argv[3] if len(sys.argv) > 3 else None
try:
    with media.open_writer("-", width=50, height=34, frame_rate=rate, container=container) as writer:
        for index in range(n):
            writer.write(numpy.full((34, 50, 3), 10 * (index % 20), numpy.uint8))
except MediaError as exc:
    sys.stderr.write(str(exc))
    import os
    os._exit(3)
"""


def run(code, *arguments, data=b"", folder=None):
    return subprocess.run(
        [sys.executable, "-c", code, *arguments], input=data, capture_output=True, cwd=folder, check=False,
        env=os.environ | {"PYTHONPATH": ROOT},
    )  # fmt: skip


def clip(kind, options=None):
    buffer = io.BytesIO()
    with av.open(buffer, "w", format={"mkv": "matroska"}.get(kind, kind), options=options or {}) as container:
        stream = container.add_stream("libx264", rate=25)
        stream.codec_context.width = stream.codec_context.height = 32
        stream.codec_context.pix_fmt = "yuv420p"
        for index in range(5):
            grey = av.VideoFrame.from_ndarray(np.full((32, 32, 3), 50 * index, np.uint8), format="rgb24")
            container.mux(stream.encode(grey))
        container.mux(stream.encode(None))
    return buffer.getvalue()


@pytest.mark.parametrize("name", ["mkv", "mp4 with the index in front", "mp4 with the index at the end", "png", "gif"])
def test_standard_input(name):
    if name == "png":
        buffer = io.BytesIO()
        Image.new("RGB", (40, 30), (70, 70, 70)).save(buffer, "PNG")
        data, expected = buffer.getvalue(), "image 0 [70]"
    elif name == "gif":
        buffer = io.BytesIO()
        with open_writer(buffer, width=32, height=32, frame_rate=Fraction(25), container="gif") as writer:
            for level in (0, 100, 200):
                writer.write(np.full((32, 32, 3), level, np.uint8))
        data, expected = buffer.getvalue(), "video 25 [0, 100, 200]"
    else:
        data = clip(name[:3], {"movflags": "+frag_keyframe+empty_moov"} if "front" in name else {})
        if "end" in name:
            assert data.index(b"moov") > data.index(b"mdat")
        expected = "video 25 [0, 50, 100, 150, 200]"
    done = run(READ, data=data)
    assert done.stdout.decode().strip() == expected, done.stderr.decode()


def test_named_pipes(tmp_path):
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    data = clip("mkv")
    feeder = threading.Thread(target=lambda: fifo.write_bytes(data))
    feeder.start()
    with open_frames(fifo) as reader:
        assert len(list(reader)) == 5
    feeder.join()


def test_standard_output_is_y4m_for_video_and_png_for_images(tmp_path):
    done = run(WRITE, "7", "30000/1001", folder=tmp_path)
    assert done.returncode == 0 and done.stdout.startswith(b"YUV4MPEG2 W50 H34 F30000:1001 ")
    assert len(done.stdout) == done.stdout.index(b"\n") + 1 + 7 * (6 + 50 * 34 * 3 // 2)
    again = run(READ, data=done.stdout)
    assert again.stdout.decode().strip() == f"video 30000/1001 {[10 * i for i in range(7)]}"
    done = run(WRITE, "1", "0", folder=tmp_path)
    assert Image.open(io.BytesIO(done.stdout)).format == "PNG"
    assert not list(tmp_path.iterdir()), "never a file called -"


@pytest.mark.parametrize("container", ["mp4", "mkv"])
def test_other_containers_on_standard_output(container):
    done = run(WRITE, "4", "25", container)
    assert run(READ, data=done.stdout).stdout.decode().startswith("video 25 [0, 1"), done.stderr.decode()


def test_a_reader_that_goes_away_is_one_clear_line():
    process = subprocess.Popen(
        [sys.executable, "-c", WRITE, "200", "25"], stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        env=os.environ | {"PYTHONPATH": ROOT},
    )  # fmt: skip
    process.stdout.read(10)
    process.stdout.close()
    message = process.stderr.read().decode()
    process.stderr.close()
    assert process.wait() == 3
    assert message.endswith("the other side closed the pipe") and "\n" not in message


def audio_only(path):
    with av.open(str(path), "w", format="wav") as container:
        stream = container.add_stream("pcm_s16le", rate=8000)
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 800), np.int16), format="s16", layout="mono")
        frame.rate = 8000
        container.mux(stream.encode(frame))


def test_every_unusable_input_is_one_clear_line(tmp_path):
    (tmp_path / "empty.mp4").touch()
    (tmp_path / "text.mp4").write_text("once upon a time, there was no video here: ünïcode\n" * 200)
    (tmp_path / "list.m3u8").write_text("#EXTM3U\n#EXTINF:1,\nhttp://localhost/a.ts\n")
    (tmp_path / "random.mp4").write_bytes(np.random.default_rng(0).bytes(20000))
    (tmp_path / "no_index.mp4").write_bytes(clip("mp4")[:300])
    audio_only(tmp_path / "sound.wav")
    for name, reason in {
        "missing.mp4": "no such file",
        ".": "is a folder",
        "empty.mp4": "is empty",
        "text.mp4": "is text",
        "list.m3u8": "is text",
        "random.mp4": "not a video or image format",
        "no_index.mp4": "cut short",
        "sound.wav": "has no video",
        "%05d.png": "no file matches",
        "x" * 300: "name is too long",
    }.items():
        with pytest.raises(MediaError, match=reason) as raised:
            probe(tmp_path / name)
        assert "\n" not in str(raised.value) and str(raised.value).startswith(str(tmp_path))


def test_unusable_pipes_name_the_pipe():
    for data, reason in ((b"", "is empty"), (b"hello\n" * 2000, "is text"), (bytes(9000), "not a video")):
        with pytest.raises(MediaError, match=reason) as raised:
            open_frames(io.BytesIO(data))
        assert str(raised.value).startswith("input stream: ")


def test_permission_denied(tmp_path, monkeypatch):
    (tmp_path / "a.png").touch()

    def refuse(path, *arguments):
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(Path, "open", refuse)  # chmod would not stop root
    with pytest.raises(MediaError, match=r"a\.png: permission denied"):
        probe(tmp_path / "a.png")


def test_a_codec_without_decoder_and_names_that_look_like_urls(tmp_path):
    (tmp_path / "a.mp4").write_bytes(clip("mp4").replace(b"avc1", b"zzzz"))
    with pytest.raises(MediaError, match="no decoder for its video codec"):
        probe(tmp_path / "a.mp4")
    for name in ("http://localhost:9/a.mp4", "concat:a.mp4|b.mp4"):
        with pytest.raises(MediaError, match="no such file"):
            probe(name)


def test_importing_the_room_loads_nothing_heavy():
    done = run("import sys, vovcodec.media; print([m for m in ('av', 'PIL', 'numpy', 'torch') if m in sys.modules])")
    assert done.stdout.decode().strip() == "[]", done.stderr.decode()
