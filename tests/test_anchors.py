"""Classic codecs as anchors: what is counted, what comes back, how close budgets are met, and that they are mute."""

from __future__ import annotations

import io
import os
import subprocess
import sys
from dataclasses import replace

import av
import numpy as np
import pytest
from PIL import Image

from vovcodec.anchors import ANCHORS, CLIP_ANCHORS, STILL_ANCHORS, Anchor, Coded, RateSearch, clips, find_anchor
from vovcodec.errors import UsageError
from vovcodec.metrics import psnr


def moving_picture(n_frames=5, height=64, width=96):
    """Gratings that drift, with a little fixed grain."""
    y, x = np.mgrid[0:height, 0:width]
    grain = np.random.default_rng(5).normal(0, 4, (height, width, 1))
    frames = [
        np.stack([np.sin((x + 2 * i) / 6) * np.cos(y / 9), np.sin((x - y + i) / 11), np.cos((y + i) / 7)], -1)
        for i in range(n_frames)
    ]
    return (128 + 70 * np.stack(frames) + grain).clip(0, 255).astype(np.uint8)


CLIP = moving_picture()
STILL = CLIP[:1]


def frames_for(name):
    return STILL if name in STILL_ANCHORS else CLIP


@pytest.mark.parametrize("name", ANCHORS)
def test_decoded_frames_resemble_the_source_and_more_bytes_help(name):
    anchor, frames = find_anchor(name), frames_for(name)
    coarse = anchor.encode(frames, anchor.qualities[0])
    fine = anchor.encode(frames, anchor.qualities[len(anchor.qualities) * 3 // 4])
    assert coarse.payload_bytes < fine.payload_bytes
    decoded = fine.decode()
    assert decoded.shape == frames.shape and decoded.dtype == np.uint8
    assert psnr(frames, decoded) > 30 > psnr(frames, coarse.decode())


@pytest.mark.parametrize("name", ANCHORS)
def test_the_same_frames_give_the_same_bytes(name):
    anchor, frames = find_anchor(name), frames_for(name)
    assert anchor.encode(frames, anchor.qualities[9]).data == anchor.encode(frames, anchor.qualities[9]).data


@pytest.mark.parametrize("name", CLIP_ANCHORS)
def test_packets_alone_are_a_stream_that_ffmpeg_reads(name):
    """What is counted is enough to decode: parameter sets are in it, no container is needed."""
    coded = find_anchor(name).encode(CLIP, 50)
    assert coded.payload_bytes == sum(map(len, coded.data)) and coded.file_bytes is None
    format_name = "obu" if name == "svtav1" else "hevc"
    # A raw AV1 stream is cut into frames by the two-byte delimiters that the count leaves out.
    stream = b"".join((b"\x12\x00" if name == "svtav1" else b"") + packet for packet in coded.data)
    with av.open(io.BytesIO(stream), format=format_name) as container:
        pictures = [picture.to_ndarray(format="rgb24") for picture in container.decode(video=0)]
    assert np.stack(pictures).shape == CLIP.shape
    assert psnr(coded.decode(), np.stack(pictures)) > 30


def test_x265_carries_no_greeting_and_delimiters_are_not_counted():
    assert not any(b"x265 (build" in packet for packet in find_anchor("x265").encode(CLIP, 45).data)
    assert not any(packet.startswith(b"\x12\x00") for packet in find_anchor("svtav1").encode(CLIP, 60).data)


@pytest.mark.parametrize("name", CLIP_ANCHORS)
@pytest.mark.parametrize(("height", "width"), [(35, 47), (64, 66), (71, 130)])
def test_any_size_comes_back_as_it_was(name, height, width):
    frames = moving_picture(2, height, width)
    decoded = find_anchor(name).encode(frames, 30).decode()
    assert decoded.shape == frames.shape
    assert psnr(frames, decoded) > 25


def test_stills_count_the_image_inside_the_file():
    webp = find_anchor("webp").encode(STILL, 20)
    # RIFF, size, WEBP, VP8 , size: five words; the content is padded to an even length.
    assert webp.file_bytes == len(webp.data[0]) == 20 + webp.payload_bytes + webp.payload_bytes % 2
    avif = find_anchor("avif").encode(STILL, 20)
    assert avif.file_bytes - 400 < avif.payload_bytes < avif.file_bytes - 100
    payload = avif.data[0][-avif.payload_bytes :]
    # The media data comes last, and it is an AV1 sequence header followed by a frame: a stream of its own.
    context = av.CodecContext.create("libdav1d", "r")
    pictures = context.decode(av.Packet(payload)) + context.decode(None)
    assert [(picture.width, picture.height) for picture in pictures] == [(STILL.shape[2], STILL.shape[1])]


def test_stills_do_not_take_clips():
    with pytest.raises(UsageError, match="one picture"):
        find_anchor("webp").encode(CLIP, 50)


def test_wrong_frames_are_refused():
    with pytest.raises(UsageError, match="uint8"):
        find_anchor("x265").encode(CLIP.astype(np.float32), 40)


def test_unknown_and_missing_codecs_are_named(monkeypatch):
    with pytest.raises(UsageError, match="x265, x265-444, svtav1, webp, avif"):
        find_anchor("x264")
    monkeypatch.setitem(ANCHORS, "x265", replace(ANCHORS["x265"], missing=lambda: "this build has no libx265"))
    with pytest.raises(UsageError, match="cannot compare with x265: this build has no libx265"):
        find_anchor("x265")


@pytest.mark.parametrize("name", ANCHORS)
def test_a_budget_is_met_from_below(name):
    anchor = find_anchor(name)
    search = RateSearch(anchor, frames_for(name))
    floor = search.floor()
    assert floor.quality == anchor.qualities[0]
    assert search.within(floor.payload_bytes - 1) is None
    assert search.within(floor.payload_bytes) is floor
    budget = 2 * floor.payload_bytes
    best = search.within(budget)
    assert 0.85 * budget < best.payload_bytes <= budget < search.next_above(budget).payload_bytes
    assert best.payload_bytes == max(c.payload_bytes for c in search.tried if c.payload_bytes <= budget)


class Pretended:
    """An anchor of given sizes that counts its encodes."""

    def __init__(self, sizes):
        self.n_encodes = 0
        self.sizes = sizes
        self.anchor = Anchor("pretended", "Pretended", "level", tuple(range(len(sizes))), False, self.run, lambda: "")

    def run(self, frames, quality):
        self.n_encodes += 1
        return Coded("pretended", quality, self.sizes[int(quality)], None, (), lambda: frames)


@pytest.mark.parametrize("budget", [100, 101, 457, 1000, 9999])
def test_the_search_finds_the_best_of_a_monotonic_scale_with_few_encodes(budget):
    pretended = Pretended(list(range(100, 1101, 2)))
    search = RateSearch(pretended.anchor, STILL)
    assert search.within(budget).payload_bytes == max(size for size in pretended.sizes if size <= budget)
    assert pretended.n_encodes <= 24
    n_before = pretended.n_encodes
    search.within(budget)
    assert pretended.n_encodes == n_before, "nothing is encoded twice"


def test_the_search_looks_past_a_bump():
    sizes = [100, 200, 300, 420, 395, 399, 500, 600]
    assert RateSearch(Pretended(sizes).anchor, STILL).within(400).payload_bytes == 399


def test_encoders_say_nothing():
    script = (
        "import numpy as np; from vovcodec.anchors import find_anchor\n"
        "frames = np.zeros((2, 64, 64, 3), np.uint8)\n"
        "for name in ('x265', 'svtav1'): find_anchor(name).encode(frames, 50).decode()\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=120, check=True)
    assert (done.stdout, done.stderr) == ("", "")


def test_a_decoded_still_is_what_pillow_reads():
    coded = find_anchor("webp").encode(STILL, 50)
    with Image.open(io.BytesIO(coded.data[0])) as image:
        assert np.array_equal(np.asarray(image.convert("RGB")), coded.decode()[0])


@pytest.mark.skipif(not hasattr(os, "sched_getscheduler"), reason="no such schedulers")
@pytest.mark.parametrize("name", CLIP_ANCHORS)
def test_no_encoder_changes_how_the_process_is_scheduled(name, monkeypatch):
    """SVT-AV1 makes it a real-time one where it may, as root, and the rest of the machine waits."""
    policies = set()
    scaled = clips.PixelScaler.from_rgb

    def watched(*arguments):
        policies.update(map(os.sched_getscheduler, map(int, os.listdir("/proc/self/task"))))
        return scaled(*arguments)

    before = os.sched_getscheduler(0)
    monkeypatch.setattr(clips.PixelScaler, "from_rgb", watched)
    find_anchor(name).encode(CLIP, 50)
    assert policies <= {before} and os.sched_getscheduler(0) == before
