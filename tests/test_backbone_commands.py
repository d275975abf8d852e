"""Every command, as a user types it, on tiny random base models of the real classes: Wan clips and stills, Qwen-Image.

The models lie where a user has them, under their names in $VOVCODEC_MODELS; a preset of the test's own is as small as
they are.
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from huggingface_hub import constants
from PIL import Image
from tiny_models import save_tiny_qwen_image, save_tiny_wan

from vovcodec.backbone.captioner import CAPTIONER_VARIABLE
from vovcodec.backbone.catalog import flow_shift
from vovcodec.backbone.locate import MODELS_VARIABLE
from vovcodec.cli.app import run
from vovcodec.container import read_vov
from vovcodec.presets import list_presets, load_preset, preset_path
from vovcodec.sampling.schedule import REALISM_STEPS

WIDTH, HEIGHT, N_FRAMES = 48, 32, 7  # two segments, the second padded
PRESET = """
description: tiny
backbone: {{id: {id}, precision: bfloat16}}
geometry: {{short_side: 32, multiple: 16, segment_frames: {segment_frames}}}
adaptation: {{vector_length: 64, rank: {rank}}}
sampler: {{steps: 3, shift: 3.0}}
steering: {{method: atoms, snr_start: 0.01, snr_ratio: 3.0}}
fitting: {{stage1: {{steps: 2, lr: 5e-3}}, stage2: {{steps: 2, lr: 5e-3}}}}
rate: {{bytes: 300, still_bytes: 300}}
efforts: {{fast: {{}}}}
"""


@dataclass(frozen=True)
class Case:
    """A model, and media of one kind."""

    backbone_id: str
    is_still: bool

    @property
    def source(self) -> str:
        return "in.png" if self.is_still else "in.y4m"

    @property
    def shown(self) -> str:
        return "out.png" if self.is_still else "out.mkv"


CASES = {
    "wan clip": Case("wan2.1-1.3b", is_still=False),
    "wan still": Case("wan2.1-14b", is_still=True),
    "qwen still": Case("qwen-image", is_still=True),
}


@pytest.fixture(scope="module")
def shelf(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("shelf")
    save_tiny_wan(folder / "wan2.1-1.3b")
    save_tiny_wan(folder / "wan2.1-14b", seed=1)
    save_tiny_qwen_image(folder / "qwen-image")
    return folder


def picture(number: int) -> np.ndarray:
    y, x = np.mgrid[:HEIGHT, :WIDTH]
    return np.stack([4 * x + number, 5 * y + number, 2 * x + 2 * y], axis=-1).clip(0, 255).astype(np.uint8)


def write_source(case: Case, folder: Path) -> None:
    if case.is_still:
        Image.fromarray(picture(0)).save(folder / case.source)
        return
    frames = [b"FRAME\n" + picture(6 * i).transpose(2, 0, 1).tobytes() for i in range(N_FRAMES)]
    header = f"YUV4MPEG2 W{WIDTH} H{HEIGHT} F25:1 Ip A1:1 C444\n".encode()
    (folder / case.source).write_bytes(header + b"".join(frames))


@pytest.fixture(scope="module", params=CASES)
def place(request, shelf, tmp_path_factory):
    """A folder with the media, the preset and the encoded `out.vov`; commands run in it and find the models."""
    case, folder = CASES[request.param], tmp_path_factory.mktemp("place")
    write_source(case, folder)
    segment_frames, rank = (1, 4) if case.backbone_id == "qwen-image" else (5, 1)
    text = PRESET.format(id=case.backbone_id, segment_frames=segment_frames, rank=rank)
    (folder / "tiny.yaml").write_text(text)
    before = os.getcwd()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(folder / "xdg"))
        patch.setenv(MODELS_VARIABLE, str(shelf))
        patch.setattr(constants, "HF_HUB_CACHE", str(folder / "hub"))
        patch.delenv(CAPTIONER_VARIABLE, raising=False)
        os.chdir(folder)
        try:
            code = run([*f"encode {case.source} -o out.vov --preset tiny.yaml --device cpu -q".split(),
                        "--caption", "a dog on a red ramp"])  # fmt: skip
            assert code == 0
            yield case
        finally:
            os.chdir(before)


def vov(capsys, line: str, *more: str):
    """Runs `vov LINE MORE…` with --json; its result. Standard error is given back as text."""
    capsys.readouterr()
    code = run([*line.split(), *more, "--json"])
    out, err = capsys.readouterr()
    assert code == 0, err
    return json.loads(out), err


def test_encode_wrote_both_parts_within_the_bytes(place):
    stream = read_vov(Path("out.vov"))
    assert (stream.header.backbone_id, stream.header.precision) == (place.backbone_id, "bfloat16")
    assert len(stream.segments) == (1 if place.is_still else 2)
    assert all(segment.vector and segment.atoms for segment in stream.segments)
    assert Path("out.vov").stat().st_size <= 300 * len(stream.segments)


def test_decode_says_what_memory_it_takes_and_shows_what_the_encoder_saw(place, capsys):
    report, err = vov(capsys, f"decode out.vov -o {place.shown} --verify -y --device cpu")
    assert report["n_frames"] == (1 if place.is_still else N_FRAMES) and report["size"] == [WIDTH, HEIGHT]
    assert report["drift_db"] in (None, "inf") or report["drift_db"] >= 40
    assert f"{place.backbone_id} in bfloat16 needs about" in err and "free on cpu" in err


def test_decode_with_realism_takes_four_more_steps(place, capsys):
    plain, _ = vov(capsys, f"decode out.vov -o plain-{place.shown} -y --device cpu")
    real, _ = vov(capsys, f"decode out.vov -o real-{place.shown} --realism 1 -y --device cpu")
    n_segments = len(read_vov(Path("out.vov")).segments)
    assert real["n_network_evaluations"] == plain["n_network_evaluations"] + REALISM_STEPS * n_segments
    assert Path(f"real-{place.shown}").read_bytes() != Path(f"plain-{place.shown}").read_bytes()


def test_info_needs_no_model(place, capsys, monkeypatch):
    monkeypatch.setenv(MODELS_VARIABLE, "nowhere")
    report, _ = vov(capsys, "info out.vov --check")
    assert place.backbone_id in json.dumps(report)


def test_scale_spends_more_bytes(place, capsys):
    old = read_vov(Path("out.vov")).segments
    n_bytes = 380 * len(old)
    report, err = vov(capsys, f"scale out.vov --reference {place.source} -o more.vov --bytes {n_bytes} -y --device cpu")
    assert "free on cpu" in err
    assert Path("out.vov").stat().st_size < report["size_bytes"] == Path("more.vov").stat().st_size <= n_bytes
    new = read_vov(Path("more.vov")).segments
    assert [segment.vector for segment in old] == [segment.vector for segment in new]


@pytest.mark.parametrize(
    ("change", "caption"),
    [
        (["--caption", "a panda in snow"], "a panda in snow"),
        (["--replace", "dog=panda"], "a panda on a red ramp"),
        (["--merge", "out.vov:0.5", "--strength", "0.8"], "a dog on a red ramp"),
    ],
)
def test_edit_to_a_file_that_decodes(place, capsys, change, caption):
    report, _ = vov(capsys, "edit out.vov -o edited.vov -y", *change)
    assert report["caption"] == caption
    report, _ = vov(capsys, f"decode edited.vov -o edited-{place.shown} -y --device cpu")
    assert report["n_frames"] == (1 if place.is_still else N_FRAMES)


def test_edit_renders_media_with_guidance(place, capsys):
    line = f"edit out.vov -o rendered-{place.shown} --keep-structure 0.5 --guidance 2 -y --device cpu"
    report, _ = vov(capsys, line, "--caption", "a panda")
    assert report["n_frames"] == (1 if place.is_still else N_FRAMES)
    assert Path(f"rendered-{place.shown}").stat().st_size > 0


def test_eval_measures_the_file_itself(place, capsys):
    report, _ = vov(capsys, f"eval {place.source} out.vov --device cpu")
    assert "psnr" in json.dumps(report)


def test_presets_and_doctor_find_the_model(place, capsys, shelf):
    rows, _ = vov(capsys, "presets")
    found = {row["backbone"]: row["model"] for row in rows if row["usable"]}
    assert found[place.backbone_id] == str(shelf / place.backbone_id)
    report, _ = vov(capsys, "doctor")
    assert report["models"][place.backbone_id] == str(shelf / place.backbone_id)
    assert "hf download" in report["captions"]["auto"]
    assert "fit" in report["would run on cpu"][place.backbone_id]
    assert {"cpu", "cuda"} <= set(report["devices"]) and "captions" in report["caches"]


TINY_EFFORT = """
  tiny:
    adaptation: {vector_length: 64}
    sampler: {steps: 3}
    fitting: {batch: 2, stage1: {steps: 1}, stage2: {steps: 1, warmup_steps: 0}}
"""


@pytest.mark.parametrize("name", [name for name in list_presets() if name != "pocket"])
def test_every_shipped_preset_codes(shelf, tmp_path, monkeypatch, capsys, name):
    """With its own settings, but a vector as short and a fit as brief as the tiny models ask for."""
    preset = load_preset(name)
    case = Case(preset.backbone.id, is_still=preset.geometry.segment_frames == 1)
    (tmp_path / f"{name}.yaml").write_text(preset_path(name).read_text() + TINY_EFFORT)
    write_source(case, tmp_path)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    monkeypatch.setenv(MODELS_VARIABLE, str(shelf))
    line = f"encode {case.source} -o out.vov --preset {name}.yaml --effort tiny --device cpu"
    # The published recipe has no byte target; the others' are for a thousand times as many pixels.
    report, err = vov(capsys, line, *([] if name.startswith("paper") else ["--bytes", "500"]))
    assert f"{case.backbone_id} in bfloat16 needs about" in err
    header = read_vov(Path("out.vov")).header
    chosen = (header.adaptation.rank, header.adaptation.targets, header.adaptation.vector_length)
    assert chosen == (preset.adaptation.rank, preset.adaptation.targets, 64)
    if preset.steering.method == "none":
        shift = flow_shift(case.backbone_id, WIDTH, HEIGHT)
        assert (header.sampler.schedule, header.sampler.shift_q8) == ("shift", round(256 * shift))
    assert "vector" in report["sections"] and ("atoms" in report["sections"]) == (preset.steering.method == "atoms")
    report, _ = vov(capsys, f"decode out.vov -o {case.shown} --verify --device cpu")
    assert report["drift_db"] in (None, "inf") or report["drift_db"] >= 40
