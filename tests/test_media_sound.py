"""Sound tracks: read in step with the picture, cut to the sample, stored, and written in step again."""

from __future__ import annotations

import dataclasses
import io
from fractions import Fraction

import hypothesis
import numpy as np
import pytest
from container_samples import steering_only
from event_clips import RATE, flash_and_click, write_event_clip
from hypothesis import given
from hypothesis import strategies as st

from vovcodec.container import AudioTrack, RawSection, audio_of, audio_section, parse, serialize
from vovcodec.container.errors import BadAudio, FieldOutOfRange
from vovcodec.errors import UsageError
from vovcodec.media import cut_track, open_frames, open_writer
from vovcodec.media.sound import packet_times

TRACK = AudioTrack(packets=tuple(bytes([i]) * (50 + i) for i in range(20)), durations=(2880,) * 19 + (1000,))


def with_sound(*tracks: AudioTrack):
    return dataclasses.replace(steering_only(), extras=tuple(map(audio_section, tracks)))


def read(path, sound=16_000, **options):
    with open_frames(path, sound=sound, **options) as reader:
        frames = list(reader)
        return frames, reader.sound_track(), reader


def write(path, frames, track):
    height, width, _ = frames[0].shape
    with open_writer(path, width=width, height=height, frame_rate=Fraction(RATE), sound=track) as writer:
        for frame in frames:
            writer.write(frame)
    return writer.notices


@pytest.mark.parametrize(
    "track",
    [
        TRACK,
        dataclasses.replace(TRACK, codec="aac", sample_rate=44100, n_channels=6, config=b"\x12\x10", start=10**6),
        dataclasses.replace(TRACK, sample_rate=48000, pre_skip=65535, durations=tuple(range(20))),
        AudioTrack(packets=(b"",), durations=(0,), sample_rate=48000),
    ],
)
def test_a_track_comes_back_from_its_section(track):
    assert audio_of(parse(serialize(with_sound(track)))) == track


@hypothesis.settings(max_examples=60)
@given(st.binary(max_size=80))
def test_any_payload_is_a_track_or_a_clear_error(payload):
    stream = dataclasses.replace(steering_only(), extras=(RawSection(type=0x82, payload=payload),))
    try:
        track = audio_of(stream)
    except BadAudio as error:
        assert "\n" not in str(error)
    else:
        assert audio_of(with_sound(track)) == track


def test_what_cannot_be_a_sound_section_is_refused():
    with pytest.raises(BadAudio, match="2 sections"):
        audio_of(with_sound(TRACK, TRACK))
    with pytest.raises(BadAudio, match="48000"):
        audio_of(with_sound(dataclasses.replace(TRACK, sample_rate=44100)))
    with pytest.raises(FieldOutOfRange, match="pre_skip"):
        audio_section(dataclasses.replace(TRACK, pre_skip=65536))
    assert audio_of(steering_only()) is None


@hypothesis.settings(max_examples=60)
@given(st.integers(0, 60_000), st.integers(1, 60_000), st.sampled_from(["opus", "aac"]), st.integers(0, 5000))
def test_a_cut_keeps_every_sample_in_its_place(start, length, codec, begin):
    """Packet i of the whole decodes to the samples of its span of time; a cut moves time by `start`, nothing else."""
    track = dataclasses.replace(TRACK, codec=codec, start=begin)
    part = cut_track(track, Fraction(start, 48000), Fraction(length, 48000))
    first_audible, end = max(track.start, start), min(track.end, start + length)
    if part is None:
        assert first_audible >= end
        return
    assert (part.start, part.end) == (first_audible - start, end - start)
    places = dict(zip(track.packets, packet_times(track), strict=True))
    assert [places[packet] - start for packet in part.packets] == packet_times(part)
    lead = first_audible - places[part.packets[0]]
    assert lead == part.pre_skip and (part.packets[0] == track.packets[0] or lead >= (3840 if codec == "opus" else 1))


def test_a_cut_inside_a_long_gap_begins_where_the_sound_goes_on():
    gap = dataclasses.replace(TRACK, durations=(2880, 200_000, *TRACK.durations[2:]))
    part = cut_track(gap, Fraction(3), Fraction(5))
    assert part.pre_skip == 0 and part.packets == gap.packets[2:] and part.start == packet_times(gap)[2] - 3 * 48000
    assert cut_track(gap, Fraction(3), Fraction(1)) is None


@pytest.mark.parametrize(
    ("codec", "wish", "start_s"),
    [
        ("aac", 16_000, 0),
        ("aac", "copy", 0.2),
        ("aac", 16_000, 1.02),
        ("libopus", "copy", 1.02),
        ("libmp3lame", "copy", 1.14),
    ],
)
def test_picture_and_sound_stay_together(tmp_path, codec, wish, start_s):
    source = write_event_clip(tmp_path / "in.mkv", n_frames=40, event_frame=32, codec=codec)
    frames, track, _ = read(source, wish, start_s=start_s, duration_s=Fraction(7, 5) - Fraction(start_s))
    assert track.end / track.sample_rate == len(frames) / RATE
    write(tmp_path / "out.mkv", frames, track)
    flash_s, click_s = flash_and_click(tmp_path / "out.mkv")
    assert abs(click_s - flash_s) <= 0.003


@pytest.mark.parametrize("kind", ["mp4", "mkv", "webm", "stream"])
def test_every_container_that_holds_sound_keeps_it_in_step(tmp_path, kind):
    frames, track, _ = read(write_event_clip(tmp_path / "in.mp4", sample_rate=44100), start_s=0.2)
    part = cut_track(track, Fraction(4, RATE), Fraction(12, RATE))
    assert part.pre_skip > 3840, "the decoder warms up before the cut"
    out = tmp_path / f"out.{kind}"
    if kind == "stream":
        buffer = io.BytesIO()
        with open_writer(buffer, width=64, height=48, frame_rate=RATE, container="mp4", sound=part) as writer:
            for frame in frames[4:16]:
                writer.write(frame)
        out.write_bytes(buffer.getvalue())
    else:
        assert write(out, frames[4:16], part) == []
    flash_s, click_s = flash_and_click(out)
    assert abs(click_s - flash_s) <= 0.003


def test_outputs_that_cannot_hold_the_sound_say_so(tmp_path):
    frames, opus, _ = read(write_event_clip(tmp_path / "in.mp4"))
    aac = read(tmp_path / "in.mp4", "copy")[1]
    for name, track in (("a.y4m", opus), ("%05d.png", opus), ("a.gif", opus), ("a.mov", opus), ("a.webm", aac)):
        notices = " ".join(write(tmp_path / name, frames[:2], track))
        assert f"does not hold {track.codec} sound, which is left out; .mp4" in notices


def test_sound_that_begins_late_or_pauses_keeps_its_time(tmp_path):
    late = write_event_clip(tmp_path / "late.mkv", sound_from_s=0.4, codec="pcm_s16le")
    frames, track, _ = read(late)
    assert track.start == pytest.approx(0.4 * 48000, abs=2) and track.end == 48000
    write(tmp_path / "a.mkv", frames, track)
    flash_s, click_s = flash_and_click(tmp_path / "a.mkv")
    assert abs(click_s - flash_s) <= 0.003
    for wish, codec in ((16_000, "pcm_s16le"), ("copy", "libopus")):
        pause = write_event_clip(tmp_path / "pause.mkv", gap_s=(0.1, 0.4), codec=codec)
        frames, track, _ = read(pause, wish)
        write(tmp_path / f"{wish}.mkv", frames, track)
        flash_s, click_s = flash_and_click(tmp_path / f"{wish}.mkv")
        assert abs(click_s - flash_s) <= 0.003


def test_sound_of_pipes_and_after_the_last_frame(tmp_path):
    data = write_event_clip(tmp_path / "in.mkv").read_bytes()
    frames, track, _ = read(io.BytesIO(data), n_frames=20)
    assert len(frames) == 20 and track.end == 20 * 48000 // RATE
    assert track.packets == read(tmp_path / "in.mkv", n_frames=20)[1].packets


def test_a_variable_rate_becomes_constant_where_there_is_sound(tmp_path):
    times = [*range(12), 20, 21, 22, 23, 24, 25, 26, 27, 28]
    source = write_event_clip(tmp_path / "in.mp4", pts=times, event_frame=14)
    frames, _, reader = read(source)
    assert any("sound stays in sync" in notice for notice in reader.notices)
    bright = next(index for index, frame in enumerate(frames) if frame.mean() > 125)
    assert bright / reader.info.frame_rate == pytest.approx(22 / RATE, abs=0.6 / reader.info.frame_rate)


def test_channels_and_streams_that_cannot_be_kept(tmp_path):
    source = write_event_clip(tmp_path / "in.mkv", codec="pcm_s16le")
    assert read(source, 16_000)[1].n_channels == 1 and read(source, 32_000)[1].n_channels == 2
    assert "mixed down to 1" in read(source, 16_000)[2].notices[0]
    with pytest.raises(UsageError, match=r"pcm_s16le, which cannot be copied; give --audio a rate"):
        read(source, "copy")
    ts = write_event_clip(tmp_path / "in.ts")
    with pytest.raises(UsageError, match="transport stream"):
        read(ts, "copy")
    assert read(ts)[1].end == 48000
    assert read(source, None)[1] is None


def test_damaged_sound_does_not_stop_the_picture(tmp_path):
    data = bytearray(write_event_clip(tmp_path / "in.mkv").read_bytes())
    rng = np.random.default_rng(1)
    for place in rng.integers(len(data) // 2, len(data) - 600, 30):
        data[place] ^= 0x55
    (tmp_path / "bad.mkv").write_bytes(data)
    frames, _, _ = read(tmp_path / "bad.mkv")
    assert len(frames) > 5
