"""A small file that asks for very much is refused, or asked about, before anything is spent."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import container_samples as samples
import pytest
import torch

from vovcodec.backbone.cost import segment_cost
from vovcodec.cli import targets
from vovcodec.cli.app import run
from vovcodec.codec import segment as segment_module
from vovcodec.codec.limits import DecodeCost, decode_cost, require_affordable, require_within
from vovcodec.codec.models import announce_needs
from vovcodec.codec.options import DecodeLimits
from vovcodec.container import layout as lay
from vovcodec.container import read_vov, write_vov
from vovcodec.container.counts import ATOMS_MAX
from vovcodec.container.errors import LimitExceeded
from vovcodec.errors import ModelError
from vovcodec.progress import SilentListener

GOLDEN = Path(__file__).parent / "golden"


@pytest.fixture
def hostile(tmp_path) -> Path:
    """A valid file of about 100 bytes: one segment of 65,533 frames of 8192x8192 pixels."""
    stream = samples.steering_only()
    header = samples.header(coded_width=8192, coded_height=8192, n_frames=65_533, segment_frames=65_533)
    segment = dataclasses.replace(stream.segments[0], n_frames=65_533)
    path = tmp_path / "hostile.vov"
    assert write_vov(path, dataclasses.replace(stream, header=header, segments=(segment,))) < 120
    return path


def no_model(monkeypatch) -> None:
    """Loading the model ends with exit code 5."""

    def load(*args, **kwargs):
        raise ModelError("not here")

    for command in ("decode", "resteer"):
        monkeypatch.setattr(f"vovcodec.codec.{command}.load_matching_backbone", load)


def test_a_hostile_header_is_refused_before_anything_is_spent(hostile, tmp_path, monkeypatch, capsys):
    no_model(monkeypatch)
    out = tmp_path / "out.mp4"
    assert run(["decode", str(hostile), "-o", str(out), "--size", "64x64"]) == 4
    err = capsys.readouterr().err
    assert err.count("\n") == 1 and "GiB are free" in err and "--limit memory=" in err
    # Memory is no matter any more; time is.
    assert run(["decode", str(hostile), "-o", str(out), "--size", "64x64", "--limit", "memory=9000000G"]) == 4
    err = capsys.readouterr().err
    assert err.count("\n") == 1 and "hours (16 network evaluations)" in err and "--limit hours=" in err
    assert sorted(path.name for path in tmp_path.iterdir()) == ["hostile.vov"]


def test_scale_and_a_rendering_edit_refuse_it_too(hostile, tmp_path, monkeypatch, capsys):
    no_model(monkeypatch)
    original = tmp_path / "original.y4m"
    original.write_bytes(b"YUV4MPEG2 W16 H16 F25:1 C444\n")
    scaling = ["scale", str(hostile), "-o", str(tmp_path / "out.vov"), "--reference", str(original)]
    for command in (scaling, ["edit", str(hostile), "-o", str(tmp_path / "out.mp4"), "--caption", "x"]):
        assert run([*command, "--limit", "memory=9000000G"]) == 4
        err = capsys.readouterr().err.splitlines()[-1]
        assert "hours (" in err and "--limit hours=" in err
    assert sorted(path.name for path in tmp_path.iterdir()) == ["hostile.vov", "original.y4m"]


def test_at_a_terminal_one_is_asked(hostile, tmp_path, monkeypatch, capsys):
    questions = []
    monkeypatch.setattr("vovcodec.cli.targets.ask", lambda question: not questions.append(question))
    no_model(monkeypatch)
    command = ["decode", str(hostile), "-o", str(tmp_path / "out.mp4"), "--size", "64x64", "--limit", "memory=1G"]
    assert run(command) == 5
    assert len(questions) == 1 and "GiB of memory, 0.9 GiB are allowed. Go on?" in questions[0]
    capsys.readouterr()


def test_nobody_is_asked_without_a_terminal(monkeypatch):
    assert targets.ask("Really?") is False
    monkeypatch.setattr("sys.stdin.isatty", lambda: True, raising=False)
    assert targets.ask("Really?") is False


@pytest.mark.parametrize(
    ("limit", "file"),
    [
        ("side=1279", "steering"),
        ("frames=32", "steering"),
        ("segments=2", "segments"),
        ("caption=9", "steering"),
        ("vector=1023", "vector"),
        ("vector=2047", "merged"),
        ("atoms=2432", "steering"),
        ("evaluations=15", "steering"),
    ],
)
def test_every_count_can_be_limited(limit, file, tmp_path, capsys):
    path = GOLDEN / f"v0.12-{file}.vov"
    assert run(["info", str(path), "--limit", limit]) == 4
    assert run(["decode", str(path), "-o", str(tmp_path / "out.mp4"), "--limit", limit]) == 4
    assert run(["scale", str(path), "-o", str(tmp_path / "out.vov"), "--bytes", "999", "--limit", limit]) == 4
    for output in ("out.vov", "out.mp4"):
        assert run(["edit", str(path), "-o", str(tmp_path / output), "--caption", "x", "--limit", limit]) == 4
    assert list(tmp_path.iterdir()) == []
    name, value = limit.split("=")
    for line in capsys.readouterr().err.splitlines():
        assert f"{name}: the file has " in line and f"--limit {name}={int(value) + 1}" in line
    assert run(["info", str(path), "--limit", f"{name}={int(value) + 1}", "--limit", "hours=1"]) == 0


def test_without_flags_the_formats_own_bounds_hold():
    limits = DecodeLimits()
    fields = [each for field in lay.HEADER_FIELDS for each in getattr(field, "explicit", (field,))]
    codes = {field.name: field.code for field in fields}
    assert (limits.side, limits.vector) == (codes["source_width"].high, codes["adaptation.vector_length"].high)
    assert (limits.frames, limits.segments) == (lay.FRAMES_MAX, lay.SEGMENTS_MAX)
    assert (limits.caption, limits.atoms) == (lay.CAPTION_BYTES_MAX, ATOMS_MAX)
    for path in GOLDEN.glob("*.vov"):
        require_within(read_vov(path), limits)


@pytest.mark.parametrize("text", ["frames", "frames=", "frames=-1", "pixels=3", "hours=nan", "=5"])
def test_a_limit_that_is_none_is_a_usage_error(text):
    assert run(["info", str(GOLDEN / "v0.12-vector.vov"), "--limit", text]) == 2


def test_info_says_what_decoding_takes(capsys):
    path = GOLDEN / "v0.12-pocket.vov"
    assert run(["info", str(path)]) == 0
    out, stream = capsys.readouterr().out, read_vov(path)
    n_evaluations = 2 * stream.header.sampler.steps_of(stream.segments[0]) + 2  # four in the last step
    for words in (f"network evaluations  {n_evaluations}", "peak memory", "TFLOP", "time on this CPU"):
        assert words in out
    # Of an unknown model only the evaluations are known.
    assert run(["info", str(GOLDEN / "v0.12-segments.vov")]) == 0
    out = capsys.readouterr().out
    assert "network evaluations  15" in out and "TFLOP" not in out


def test_cost_grows_with_what_the_file_asks_for():
    def cost(**changes):
        size = {"n_frames": 33, "width": 224, "height": 128} | changes
        return segment_cost("wan2.1-1.3b", "bfloat16", **size)

    small = cost()
    for change in ({"n_frames": 81}, {"width": 832}, {"height": 480}):
        assert cost(**change).flop > 2 * small.flop and cost(**change).work_bytes > small.work_bytes
    assert cost(rank=256).work_bytes > small.work_bytes + 10e9
    assert cost(n_frames=81).model_bytes == pytest.approx(small.model_bytes, rel=0.2)
    # 2·P·n for 33 frames is 9 latent frames of 14 by 8 patches.
    assert small.flop > 2 * 1_418_996_800 * 9 * 14 * 8
    assert segment_cost("somebody/else", "float32", n_frames=1, width=64, height=64) is None


def test_the_estimate_of_the_embedded_model_holds_for_a_measured_decode():
    """224x128, 33 frames: 1148 MB at the peak. 21.6 GFLOP of a transformer's evaluation, and in every second one 63 of
    the network of clips."""
    cost = segment_cost("pocket", "float32", n_frames=33, width=224, height=128)
    assert 1.1e9 < cost.model_bytes + cost.work_bytes < 1.4e9
    assert 40e9 < cost.flop < 70e9


def test_a_picture_is_charged_for_the_network_of_its_pixels():
    small, large = (
        segment_cost("pocket", "float32", n_frames=1, width=w, height=h) for w, h in ((192, 128), (384, 256))
    )
    # 2.4 GFLOP in the transformer and the detail network, half of the 8.3 in 3×3 convolutions: two evaluations a step.
    assert 5e9 < small.flop < 9e9
    assert 3.9 < large.flop / small.flop < 5 and large.work_bytes > 3.9 * small.work_bytes


def test_long_axes_are_charged_for_their_transforms():
    """Of a still of 8192x16 pixels the matrices are 270 of 740 MB that a decode takes at the peak."""
    square, wide, high, long = (
        segment_cost("pocket", "float32", n_frames=n, width=w, height=h).work_bytes
        for n, w, h in ((1, 512, 256), (1, 8192, 16), (1, 16, 8192), (65_533, 16, 16))
    )
    assert min(wide, high) - square > 4 * 8192**2 - 4 * 512**2
    of_pixels = segment_cost("pocket", "float32", n_frames=129, width=16, height=16).work_bytes / 129
    assert long - 65_533 * of_pixels > 4 * 65_533**2 - 1e9


def test_only_the_part_that_is_decoded_counts():
    stream = samples.three_segments()
    stream = dataclasses.replace(stream, header=dataclasses.replace(stream.header, backbone_id="wan2.1-1.3b"))
    whole = decode_cost(stream.header, stream.segments)
    part = decode_cost(stream.header, stream.segments[2:])
    preview = decode_cost(stream.header, stream.segments, steps=2)
    assert (whole.n_evaluations, part.n_evaluations, preview.n_evaluations) == (15, 5, 6)
    assert part.flop < whole.flop / 5 and preview.flop == pytest.approx(whole.flop * 2 / 5)
    assert part.work_bytes < whole.work_bytes


def test_merged_vectors_take_memory_too():
    stream = samples.merged()
    alone = [dataclasses.replace(segment, merged=()) for segment in stream.segments]
    assert decode_cost(stream.header, stream.segments).work_bytes > decode_cost(stream.header, alone).work_bytes


def test_what_is_affordable_passes_in_silence():
    cost = DecodeCost(n_evaluations=15, model_bytes=10**9, work_bytes=10**9, flop=3.6e15)

    def refused(**changes):
        settings = {"device": "cpu", "free_bytes": None, "n_threads": 1} | changes
        limits = DecodeLimits(**{name: settings.pop(name) for name in ("memory", "hours") if name in settings})
        try:
            require_affordable(cost, limits, **settings)
        except LimitExceeded:
            return True
        return False

    assert not refused()
    # The model is the user's own choice: without a limit only the work has to fit.
    assert not refused(free_bytes=10**9) and refused(free_bytes=10**9 - 1)
    assert not refused(memory=2 * 10**9) and refused(memory=2 * 10**9 - 1)
    # 3.6 PFLOP at 60 GFLOP/s and thread are 16.7 hours.
    assert refused(hours=16) and not refused(hours=17) and not refused(hours=9, n_threads=2)
    assert refused(hours=8, n_workers=2) and not refused(hours=9, n_workers=2)
    assert not refused(hours=1, device="cuda:0")
    assert not refused(memory=1, approve=lambda line: True) and refused(memory=1, approve=lambda line: False)


def test_memory_is_announced_for_hub_models_only(monkeypatch):
    monkeypatch.setattr("vovcodec.backbone.memory.free_memory_bytes", lambda device: 12 << 30)

    def told(backbone_id: str, **settings) -> tuple[list[str], list[str]]:
        said = Said()
        size = {"n_frames": 33, "width": 832, "height": 480}
        announce_needs(backbone_id, "bfloat16", ["cpu", "cpu"], said, remedies=("pray",), **settings, **size)
        return said.notes, said.warnings

    (need,), warnings = told("wan2.1-1.3b")
    assert "to decode" in need and not warnings
    _, (warning,) = told("wan2.1-14b", fits=True)
    assert "not fit on cpu: " in warning and "int8-weights, or pray" in warning
    assert told("pocket") == ([], [])


class Said(SilentListener):
    def __init__(self) -> None:
        self.notes, self.warnings = [], []

    def note(self, message: str) -> None:
        self.notes.append(message)

    def warn(self, message: str) -> None:
        self.warnings.append(message)


def test_running_out_of_memory_in_a_fit_says_what_helps(monkeypatch):
    def fail(*args, **kwargs):
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(segment_module, "fit_vector", fail)
    with pytest.raises(ModelError, match=r"while fitting the vector.*--effort instant"):
        encode_tiny()


def encode_tiny() -> None:
    """One segment of 16x16 pixels through the real `encode_segment` with a backbone that is not used."""
    import numpy as np

    from vovcodec.backbone.pocket.backbone import PocketBackbone
    from vovcodec.codec.plans import sampler_of_preset
    from vovcodec.codec.regenerate import make_adapter
    from vovcodec.container import Adaptation
    from vovcodec.presets import load_preset, resolve

    preset = resolve(load_preset("pocket"), {}, "fast")
    backbone = PocketBackbone()
    segment_module.encode_segment(
        backbone,
        preset,
        sampler_of_preset(preset, "pocket", (32, 32), is_still=True),
        make_adapter(backbone, Adaptation(vector_length=64)),
        "",
        np.full((1, 32, 32, 3), 90, dtype=np.uint8),
        index=0,
        first_frame=0,
        n_frames=1,
        payload_bytes=200.0,
        state=None,
        listener=SilentListener(),
    )
