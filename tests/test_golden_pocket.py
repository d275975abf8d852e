"""Real files made with the shipped weights: they must decode, here and in every later version.

`v0.12-pocket.vov` was made with: vov encode coffee.png -o v0.12-pocket.vov --effort fast --bytes 300 --caption "a cup
of coffee", from scikit-image's `coffee.png` (CC0) scaled to 96x64; `v0.12-edited.vov` from it with: vov edit
v0.12-pocket.vov --merge v0.12-pocket.vov:-0.25 --strength 1.5 --caption "a bowl of soup" --keep-structure 0.5
"""

from __future__ import annotations

import hashlib
import math
from pathlib import Path

import numpy as np
import pytest

from vovcodec.backbone.geometry import pocket_geometry
from vovcodec.codec.chosen import segment_atoms
from vovcodec.codec.decode import decode
from vovcodec.codec.options import DecodeOptions
from vovcodec.codec.plans import plan_of_segment
from vovcodec.codec.regenerate import theta_of
from vovcodec.container import read_vov

GOLDEN = Path(__file__).parent / "golden" / "v0.12-pocket.vov"
EDITED = GOLDEN.with_name("v0.12-edited.vov")
SHAPE = (1, 192, 1, 8, 12)


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        (GOLDEN, "07477e956217f50bad2c6373a73ce8c0df659e06313fd460d3e69618bc1fab96"),
        (EDITED, "af32884e8bf04b25b7e3a284ea9f08f42d868460e0cb6b9b27348894d8a02f3f"),
    ],
    ids=lambda value: getattr(value, "name", ""),
)
def test_everything_that_is_parsed_is_exact(path, expected):
    stream = read_vov(path)
    segment = stream.segments[0]
    digest = hashlib.sha256()
    for update in segment.updates(stream.header.adaptation):
        digest.update(theta_of(update).tobytes())
    for step, path in enumerate(segment_atoms(stream.header, segment, pocket_geometry())[0]):
        codebook = plan_of_segment(stream.header, segment).make_codebook(0, step, math.prod(SHAPE))
        digest.update(path.tobytes() + codebook.combine(path).astype("<f4").tobytes())
    digest.update(np.array(plan_of_segment(stream.header, segment).times).tobytes())
    assert digest.hexdigest() == expected


def test_what_an_edit_stored():
    before, after = read_vov(GOLDEN), read_vov(EDITED)
    segment = after.segments[0]
    updates = segment.updates(after.header.adaptation)
    assert [update.adaptation.strength for update in updates] == [1.5, -0.25]
    assert {update.vector for update in updates} == {before.segments[0].vector}
    assert segment.atoms.counts == before.segments[0].atoms.counts[: len(segment.atoms.counts)]
    assert (segment.generation.n_injections, segment.check, after.caption) == (42, None, "a bowl of soup")
    assert [entry["edit"] for entry in after.history] == ["strength", "merge", "caption", "keep-structure"]


def test_the_picture_is_what_the_encoder_saw(tmp_path):
    report = decode(GOLDEN, tmp_path / "out.png", DecodeOptions(verify=True))
    assert (report.n_frames, report.size) == (1, (96, 64))
    assert report.drift_db >= 40
