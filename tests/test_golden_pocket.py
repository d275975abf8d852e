"""A real file made with the shipped weights: it must decode, here and in every later version.

Made with: vov encode coffee.png -o v0.3-pocket.vov --effort fast --bytes 300 --caption "…", from scikit-image's
`coffee.png` (CC0) at 96x64.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np

from vovcodec.codec.decode import decode
from vovcodec.codec.options import DecodeOptions
from vovcodec.codec.plans import plan_of_segment
from vovcodec.codec.regenerate import segment_atoms, theta_of
from vovcodec.container import read_vov

GOLDEN = Path(__file__).parent / "golden" / "v0.3-pocket.vov"
SHAPE = (1, 64, 1, 8, 12)


def test_everything_that_is_parsed_is_exact():
    stream = read_vov(GOLDEN)
    segment = stream.segments[0]
    digest = hashlib.sha256(theta_of(*segment.updates(stream.header.adaptation)).tobytes())
    for positions, signs in segment_atoms(stream.header, segment, SHAPE):
        digest.update(positions.astype("<i8").tobytes() + signs.tobytes())
    digest.update(np.array(plan_of_segment(stream.header, segment).times).tobytes())
    assert digest.hexdigest() == "df6617e225ffca46f463223cc540492cc1e86e504860bc3e60b55320a2c726cd"


def test_the_picture_is_what_the_encoder_saw(tmp_path):
    report = decode(GOLDEN, tmp_path / "out.png", DecodeOptions(verify=True))
    assert (report.n_frames, report.size) == (1, (96, 64))
    assert report.drift_db >= 40
