"""Sound through the whole codec: what is kept by default, what it costs, and that it stays in step with the picture."""

from __future__ import annotations

import dataclasses
import re
from fractions import Fraction

import pytest
from event_clips import flash_and_click, write_event_clip

from vovcodec.codec.decode import decode
from vovcodec.codec.edit import edit
from vovcodec.codec.encode import encode
from vovcodec.codec.inspect import inspect
from vovcodec.codec.options import DecodeOptions, EditOptions, EncodeOptions, ScaleOptions
from vovcodec.codec.scale import scale
from vovcodec.container import AudioTrack, RawSection, audio_of, audio_section, read_vov, write_vov
from vovcodec.errors import FormatError, UsageError
from vovcodec.progress import SilentListener


class Lines(SilentListener):
    """Keeps what the user would read."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def note(self, message: str) -> None:
        self.lines.append(message)

    warn = note


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    return write_event_clip(tmp_path_factory.mktemp("clips") / "in.mp4")


def coded(source, tmp_path, preset, **options):
    listener = Lines()
    report = encode(source, tmp_path / "out.vov", EncodeOptions(preset=preset, overwrite=True, **options), listener)
    assert sum(report.sections.values()) == report.size_bytes == (tmp_path / "out.vov").stat().st_size
    return report, " ".join(listener.lines)


def test_click_and_flash_come_out_together(source, tmp_path, tiny_preset):
    report, _ = coded(source, tmp_path, tiny_preset, target_bytes=9000)
    assert report.size_bytes <= 9000 and report.sections["audio"] > 500
    for name, options in {
        "whole.mp4": {},
        "whole.webm": {},
        "part.mkv": {"start_s": 0.4, "duration_s": 0.4},
    }.items():
        decode(tmp_path / "out.vov", tmp_path / name, DecodeOptions(**options))
        flash_s, click_s = flash_and_click(tmp_path / name)
        assert abs(click_s - flash_s) <= 0.003
        assert flash_s == pytest.approx(0.52 - options.get("start_s", 0), abs=0.001)


def test_sound_is_kept_by_default_on_top_of_the_presets_bytes(source, tmp_path, tiny_preset):
    silent, _ = coded(source, tmp_path, tiny_preset, audio="none")
    kept, lines = coded(source, tmp_path, tiny_preset)
    assert "audio" not in silent.sections and "mixed down" in lines
    assert kept.size_bytes - silent.size_bytes == pytest.approx(kept.sections["audio"], abs=8)
    found = inspect(tmp_path / "out.vov", verify=True)
    assert found["summary"]["audio"]["codec"] == "opus" and found["summary"]["audio"]["duration_s"] == 1.0
    assert found["check"]["sound packets"] == 17


def test_sound_counts_in_a_given_size(source, tmp_path, tiny_preset):
    report, lines = coded(source, tmp_path, tiny_preset, target_bytes=1500)
    assert "audio" not in report.sections and "is left out; --audio 16k keeps it" in lines
    report, lines = coded(source, tmp_path, tiny_preset, target_bytes=1500, audio="6000")
    assert 300 < report.sections["audio"] < 1200 and 0.97 * 1500 <= report.size_bytes <= 1500
    report, lines = coded(source, tmp_path, tiny_preset, target_bitrate=12000, audio="6000")
    assert report.size_bytes <= 1500
    with pytest.raises(UsageError, match=r"the sound takes \d+, .*at least (\d+); raise.*--audio none") as caught:
        coded(source, tmp_path, tiny_preset, target_bytes=500, audio="16000")
    least = int(str(caught.value).split("at least ")[1].split(";")[0])
    report, lines = coded(source, tmp_path, tiny_preset, target_bytes=least, audio="16000")
    assert report.size_bytes <= least and "lower --audio leaves more" in lines
    (refused,), (warned,) = (re.findall(r"the sound takes (\d+)", text) for text in (str(caught.value), lines))
    assert refused == warned and 0 < int(warned) - report.sections["audio"] < 10


def test_copied_sound_comes_out_as_it_went_in(source, tmp_path, tiny_preset):
    report, _ = coded(source, tmp_path, tiny_preset, audio="copy", target_bytes=20_000)
    track = audio_of(read_vov(tmp_path / "out.vov"))
    assert (track.codec, track.n_channels, report.sections["audio"] > sum(map(len, track.packets))) == ("aac", 2, True)
    listener = Lines()
    decode(tmp_path / "out.vov", tmp_path / "out.webm", DecodeOptions(), listener)
    assert ".webm does not hold aac sound, which is left out" in " ".join(listener.lines)
    decode(tmp_path / "out.vov", tmp_path / "out.mkv", DecodeOptions())
    flash_s, click_s = flash_and_click(tmp_path / "out.mkv")
    assert abs(click_s - flash_s) <= 0.003
    with pytest.raises(UsageError, match=r"raise the target, code it anew \(--audio 6k\), or give --audio none"):
        coded(source, tmp_path, tiny_preset, audio="copy", target_bytes=500)
    size_bytes = report.sections["audio"] + 500  # more than half of it is sound
    assert (
        "; --audio 6k to 16k leaves" in coded(source, tmp_path, tiny_preset, audio="copy", target_bytes=size_bytes)[1]
    )


@pytest.mark.parametrize(
    ("frame_times", "options", "told"),
    [
        ([*range(24), 49], {}, "the sound ends with the picture: 1.00 of 2.00 s"),
        ([*range(24), 49], {"duration_s": 0.8}, None),
        ([*range(24), 49], {"audio": "none"}, None),
        (None, {}, None),
    ],
)
def test_sound_that_outlasts_the_picture_is_told(tmp_path, tiny_preset, frame_times, options, told):
    """All frames of a file that says its rate is constant are kept: the picture is shorter then."""
    clip = write_event_clip(tmp_path / "in.mkv", pts=frame_times)
    _, lines = coded(clip, tmp_path, tiny_preset, **options)
    assert (told in lines) if told else "the sound ends" not in lines


def test_edits_of_time_say_what_becomes_of_the_sound(source, tmp_path, tiny_preset):
    coded(source, tmp_path, tiny_preset)
    track = audio_of(read_vov(tmp_path / "out.vov"))

    def edited(name: str, **options) -> tuple[AudioTrack, str]:
        listener = Lines()
        edit(tmp_path / "out.vov", tmp_path / name, EditOptions(overwrite=True, **options), listener)
        return audio_of(read_vov(tmp_path / name)), " ".join(listener.lines)

    fast, told = edited("fast.vov", frame_rate=Fraction(50))
    assert fast == track and "the sound keeps its time: 1.00 s of it for 0.50 s of picture" in told
    listener = Lines()
    decode(tmp_path / "fast.vov", tmp_path / "fast.mkv", DecodeOptions(), listener)
    assert "the sound ends with the picture: 0.50 of 1.00 s" in listener.lines
    slow, told = edited("slow.vov", frame_rate=Fraction(5))
    assert slow == track and "1.00 s of it for 5.00 s" in told
    short, told = edited("short.vov", n_frames=12)
    assert short.end == 0.48 * 48000 and len(short.packets) == 9 and short.packets == track.packets[:9]
    assert "the sound" not in told
    assert edited("long.vov", n_frames=30)[0] == track
    later = dataclasses.replace(track, start=40_000, pre_skip=0)
    stream = read_vov(tmp_path / "out.vov")
    write_vov(
        tmp_path / "out.vov", dataclasses.replace(stream, extras=(audio_section(later),), layout=()), overwrite=True
    )
    assert edited("none.vov", n_frames=12)[0] is None


def test_scaling_keeps_the_sound(source, tmp_path, tiny_preset):
    coded(source, tmp_path, tiny_preset, target_bytes=4000)
    before = audio_of(read_vov(tmp_path / "out.vov"))
    report = scale(tmp_path / "out.vov", None, tmp_path / "less.vov", ScaleOptions(target_bytes=3000), SilentListener())
    assert report.size_bytes <= 3000 and audio_of(read_vov(tmp_path / "less.vov")) == before
    options = ScaleOptions(target_bytes=5000)
    report = scale(tmp_path / "out.vov", source, tmp_path / "more.vov", options, SilentListener())
    assert report.size_bytes <= 5000 and audio_of(read_vov(tmp_path / "more.vov")) == before


def test_scaling_to_the_presets_bytes_adds_the_sound_to_them_as_encode_does(source, tmp_path, tiny_preset):
    made, _ = coded(source, tmp_path, tiny_preset)
    listener = Lines()
    report = scale(tmp_path / "out.vov", source, tmp_path / "again.vov", ScaleOptions(), listener)
    (aim,) = [line for line in listener.lines if line.startswith("--bytes ")]
    assert int(aim.split()[1].rstrip(",")) - report.sections["audio"] == pytest.approx(1200, abs=300)
    assert report.sections["audio"] == made.sections["audio"]


def test_a_sound_section_that_makes_no_sense_costs_only_the_sound(source, tmp_path, tiny_preset):
    coded(source, tmp_path, tiny_preset)
    stream = read_vov(tmp_path / "out.vov")
    bad = dataclasses.replace(stream, extras=(RawSection(type=0x82, payload=b"\xff" * 40),), layout=())
    write_vov(tmp_path / "bad.vov", bad)
    listener = Lines()
    report = decode(tmp_path / "bad.vov", tmp_path / "out.mp4", DecodeOptions(), listener)
    assert report.n_frames == 25 and "decoded without sound: audio: " in " ".join(listener.lines)
    assert "must be" in inspect(tmp_path / "bad.vov")["summary"]["audio"]["error"]
    with pytest.raises(FormatError, match="damaged"):
        inspect(tmp_path / "bad.vov", verify=True)


def test_silent_inputs_and_rates_that_opus_does_not_have(tmp_path, tiny_preset):
    from PIL import Image

    Image.new("RGB", (64, 48), (90, 120, 30)).save(tmp_path / "in.png")
    report, lines = coded(tmp_path / "in.png", tmp_path, tiny_preset)
    assert "audio" not in report.sections and "sound" not in lines
    assert "no sound to keep" in coded(tmp_path / "in.png", tmp_path, tiny_preset, audio="copy")[1]
    for audio in ("5999", "510001", "loud"):
        with pytest.raises(UsageError, match="6k to 510k"):
            EncodeOptions(audio=audio)
