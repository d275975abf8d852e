"""How values are written on the command line."""

from __future__ import annotations

from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vovcodec.cli import arguments as arg

PARSERS = [
    arg.parse_audio,
    arg.parse_byte_count,
    arg.parse_device,
    arg.parse_factor,
    arg.parse_frame_rate,
    arg.parse_output_size,
    arg.parse_rate,
    arg.parse_replacement,
    arg.parse_size,
    arg.parse_split,
    arg.parse_time,
]


@pytest.mark.parametrize(
    ("parser", "text", "expected"),
    [
        (arg.parse_byte_count, "1500", 1500),
        (arg.parse_byte_count, "1.5k", 1500),
        (arg.parse_byte_count, "2M", 2_000_000),
        (arg.parse_byte_count, "1.001K", 1001),  # 1.001 * 1000 is 1000.9999… in floats
        (arg.parse_rate, "6k", 6000.0),
        (arg.parse_rate, ".25", 0.25),
        (arg.parse_rate, "4e-3", 0.004),
        (arg.parse_frame_rate, "30000/1001", Fraction(30000, 1001)),
        (arg.parse_frame_rate, "29.97", Fraction(2997, 100)),
        (arg.parse_frame_rate, str(30000 / 1001), Fraction(30000, 1001)),
        (arg.parse_frame_rate, str(24000 / 1001), Fraction(24000, 1001)),
        (arg.parse_frame_rate, "2.5e1", 25),
        (arg.parse_time, "2.5", 2.5),
        (arg.parse_time, "90", 90.0),
        (arg.parse_time, "1:02.5", 62.5),
        (arg.parse_time, "1:00:02.5", 3602.5),
        (arg.parse_time, "0", 0.0),
        (arg.parse_size, "416x240", (416, 240)),
        (arg.parse_output_size, "coded", "coded"),
        (arg.parse_output_size, "8X6", (8, 6)),
        (arg.parse_factor, "-1.5e-1", -0.15),
        (arg.parse_replacement, "dog=panda", ("dog", "panda")),
        (arg.parse_replacement, "a =", ("a ", "")),
        (arg.parse_replacement, "a=b=c", ("a", "b=c")),
        (arg.parse_merge, "b.vov", ("b.vov", 1.0)),
        (arg.parse_merge, "x:1/b.VOV:-.5", ("x:1/b.VOV", -0.5)),
        (arg.parse_merge, "c:b.vov", ("c:b.vov", 1.0)),
        (arg.parse_split, "3:1", (0.75, 0.25)),
        (arg.parse_split, "0:1", (0.0, 1.0)),
        (arg.parse_audio, "none", "none"),
        (arg.parse_audio, "6k", "6000"),
        (arg.parse_device, "cuda:0,1", "cuda:0,1"),
    ],
)
def test_what_is_accepted(parser, text, expected):
    assert parser(text) == expected


@given(st.floats(1e-3, 1000))
def test_a_file_can_hold_every_frame_rate(rate):
    parsed = arg.parse_frame_rate(str(rate))
    assert max(parsed.numerator, parsed.denominator) < 2**32 and parsed == pytest.approx(rate, rel=1e-9)


@pytest.mark.parametrize(
    ("parser", "texts"),
    [
        (arg.parse_byte_count, ["", "0", "-1", "0.5", "1.5kb", "1e999", "nan", "١", "9" * 5000]),
        (arg.parse_frame_rate, ["0", "-25", "30/0", "9" * 5000, "fast", "1001", "nan", "inf", "1e99999999", "1e-99"]),
        (arg.parse_time, ["", "-1", "1:60", "1:2:3:4", "1:75:00", "abc", ":5", "9" * 5000 + ":00:00"]),
        (arg.parse_size, ["416", "0x240", "416x", "-1x2", "416x240x3", "999999x1"]),
        (arg.parse_output_size, ["original"]),
        (arg.parse_split, ["1", "0:0", "-1:2", "1:2:3", "a:b", "nan:1", "inf:1"]),
        (arg.parse_factor, ["", "nan", "-inf", "1e999", "half"]),
        (arg.parse_replacement, ["", "dog", "=dog"]),
        (arg.parse_merge, ["b.vov:", "b.vov:half", "b.vov:nan"]),
        (arg.parse_audio, ["loud", "0"]),
        (arg.parse_device, ["gpu", "cuda:", "cuda:a", "CPU", "mps"]),
    ],
)
def test_what_is_refused(parser, texts):
    for text in texts:
        with pytest.raises(ValueError):
            parser(text)


@given(st.sampled_from(PARSERS), st.text(alphabet="0123456789.:x/kM-+e ncopdu", max_size=12))
def test_any_text_parses_or_is_refused(parser, text):
    try:
        parser(text)
    except ValueError as error:
        assert repr(text) in str(error)
