"""Encode and decode end to end on tiny random base models of the real classes: Wan clips and stills, Qwen-Image."""

from __future__ import annotations

import re
import shutil

import numpy as np
import pytest
from PIL import Image
from tiny_models import save_tiny_captioner, save_tiny_qwen_image, save_tiny_wan

from vovcodec.backbone.captioner import CAPTIONER_VARIABLE
from vovcodec.backbone.locate import MODELS_VARIABLE
from vovcodec.codec.decode import decode
from vovcodec.codec.encode import encode
from vovcodec.codec.models import model_report, model_status
from vovcodec.codec.options import DecodeOptions, EncodeOptions
from vovcodec.container import read_vov
from vovcodec.errors import ModelError, UsageError
from vovcodec.progress import SilentListener

WIDTH, HEIGHT = 48, 32
PRESET = """
description: tiny
backbone: {{id: {id}, path: "{path}", precision: {precision}}}
geometry: {{short_side: 32, multiple: 16, segment_frames: {segment_frames}}}
adaptation: {{vector_length: 64, rank: {rank}}}
sampler: {{steps: 3, shift: 3.0}}
steering: {{method: atoms}}
fitting: {{stage1: {{steps: 2, lr: 5e-3}}, stage2: {{steps: 2, lr: 5e-3}}}}
rate: {{bytes: 400, still_bytes: 400}}
efforts: {{fast: {{}}}}
"""


@pytest.fixture(autouse=True)
def own_places(tmp_path, monkeypatch):
    from huggingface_hub import constants

    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.delenv(MODELS_VARIABLE, raising=False)


@pytest.fixture(scope="module")
def wan(tmp_path_factory):
    return save_tiny_wan(tmp_path_factory.mktemp("wan"))


@pytest.fixture(scope="module")
def qwen(tmp_path_factory):
    return save_tiny_qwen_image(tmp_path_factory.mktemp("qwen"))


def picture(number: int = 0) -> np.ndarray:
    y, x = np.mgrid[:HEIGHT, :WIDTH]
    return np.stack([4 * x + number, 5 * y + number, 2 * x + 2 * y], axis=-1).clip(0, 255).astype(np.uint8)


def write_still(path) -> None:
    Image.fromarray(picture()).save(path)


def write_clip(path, n_frames: int) -> None:
    header = f"YUV4MPEG2 W{WIDTH} H{HEIGHT} F25:1 Ip A1:1 C444\n".encode()
    planes = [b"FRAME\n" + picture(6 * i).transpose(2, 0, 1).tobytes() for i in range(n_frames)]
    path.write_bytes(header + b"".join(planes))


def write_preset(folder, model, backbone_id: str, segment_frames: int = 5, precision: str = "float32", rank: int = 1):
    path = folder / "tiny.yaml"
    path.write_text(
        PRESET.format(id=backbone_id, path=model, segment_frames=segment_frames, precision=precision, rank=rank)
    )
    return path


def shelve(model, folder, name: str, monkeypatch) -> None:
    """Puts a copy where the decoder looks: it is not told the encoder's path."""
    shutil.copytree(model, folder / "shelf" / name)
    monkeypatch.setenv(MODELS_VARIABLE, str(folder / "shelf"))


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_a_clip_through_wan_and_a_model_moved_to_another_folder(wan, tmp_path, monkeypatch, precision):
    source, coded, shown = (tmp_path / name for name in ("in.y4m", "out.vov", "out.y4m"))
    write_clip(source, 7)  # two segments, the second padded
    options = EncodeOptions(preset=write_preset(tmp_path, wan, "wan2.1-1.3b", precision=precision), caption="a ramp")
    report = encode(source, coded, options, SilentListener())
    assert (report.n_frames, report.segments, report.coded_size) == (7, 2, (WIDTH, HEIGHT))
    assert coded.stat().st_size == report.size_bytes <= 800
    header = read_vov(coded).header
    assert (header.backbone_id, header.precision, header.backbone_revision) == ("wan2.1-1.3b", precision, "")
    assert report.sections["vector"] > 0 and report.sections["atoms"] > 0
    with pytest.raises(ModelError, match="not on this machine"):
        decode(coded, shown, DecodeOptions(), SilentListener())
    shelve(wan, tmp_path, "wan2.1-1.3b", monkeypatch)
    decoded = decode(coded, shown, DecodeOptions(verify=True), SilentListener())
    assert (decoded.n_frames, decoded.size) == (7, (WIDTH, HEIGHT))
    assert decoded.drift_db >= 40, "the decoder sees what the encoder saw"


def test_a_still_through_wan(wan, tmp_path, monkeypatch):
    source, coded, shown = (tmp_path / name for name in ("in.png", "out.vov", "out.png"))
    write_still(source)
    options = EncodeOptions(preset=write_preset(tmp_path, wan, "wan2.1-14b"))
    report = encode(source, coded, options, SilentListener())
    assert (report.n_frames, report.segments) == (1, 1)
    shelve(wan, tmp_path, "wan2.1-14b", monkeypatch)
    decoded = decode(coded, shown, DecodeOptions(verify=True), SilentListener())
    assert decoded.drift_db >= 40
    assert Image.open(shown).size == (WIDTH, HEIGHT)


def test_a_still_through_qwen_image_with_an_automatic_caption(qwen, tmp_path, monkeypatch):
    source, coded, shown = (tmp_path / name for name in ("in.png", "out.vov", "out.png"))
    write_still(source)
    monkeypatch.setenv(CAPTIONER_VARIABLE, str(save_tiny_captioner(tmp_path / "captioner")))
    preset = write_preset(tmp_path, qwen, "qwen-image", segment_frames=1, rank=4)
    # The tiny captioner babbles: room for its words, too.
    options = EncodeOptions(preset=preset, caption="auto", target_bytes=1500)
    report = encode(source, coded, options, SilentListener())
    assert report.caption and read_vov(coded).caption == report.caption
    shelve(qwen, tmp_path, "Qwen-Image", monkeypatch)
    decoded = decode(coded, shown, DecodeOptions(verify=True), SilentListener())
    assert decoded.drift_db >= 40
    assert Image.open(shown).size == (WIDTH, HEIGHT)


def test_other_weights_are_refused_with_both_fingerprints(wan, tmp_path, monkeypatch):
    source, coded, shown = (tmp_path / name for name in ("in.png", "out.vov", "out.png"))
    write_still(source)
    encode(source, coded, EncodeOptions(preset=write_preset(tmp_path, wan, "wan2.1-1.3b")), SilentListener())
    shelve(save_tiny_wan(tmp_path / "other", seed=1), tmp_path, "wan2.1-1.3b", monkeypatch)
    with pytest.raises(ModelError) as caught:
        decode(coded, shown, DecodeOptions(), SilentListener())
    assert read_vov(coded).header.fingerprint.hex() in str(caught.value)
    named = re.findall(r"\bweights ([0-9a-f]{8})\b|\bare ([0-9a-f]{8})\b", str(caught.value))
    assert len({a or b for a, b in named}) == 2
    assert not shown.exists()
    decode(coded, shown, DecodeOptions(force=True), SilentListener())
    assert shown.exists()


def test_the_revision_in_the_header_is_asked_for_before_the_newest_one(wan, tmp_path, monkeypatch):
    """The hub's cache holds two commits: the one the file was made with, and a newer one that main names."""
    repository = tmp_path / "hub" / "models--Wan-AI--Wan2.1-T2V-1.3B-Diffusers"
    old, new = ("a" * 40, wan), ("b" * 40, save_tiny_wan(tmp_path / "other", seed=1))
    for commit, model in (old, new):
        shutil.copytree(model, repository / "snapshots" / commit)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text(new[0])
    preset = write_preset(tmp_path, wan, "wan2.1-1.3b")
    preset.write_text(preset.read_text().replace(f'path: "{wan}"', f"revision: {old[0]}"))
    source, coded, shown = (tmp_path / name for name in ("in.png", "out.vov", "out.png"))
    write_still(source)
    encode(source, coded, EncodeOptions(preset=preset), SilentListener())
    assert read_vov(coded).header.backbone_revision == old[0]
    assert decode(coded, shown, DecodeOptions(verify=True), SilentListener()).drift_db >= 40
    shutil.rmtree(repository / "snapshots" / old[0])
    with pytest.raises(ModelError, match=r"hub revision aaaaaaaaaaaa"):
        decode(coded, shown, DecodeOptions(overwrite=True), SilentListener())


@pytest.mark.parametrize(("name", "kind", "multiple"), [("wan2.2-14b", "2.2-14b", 16), ("wan2.2-5b", "2.2-5b", 32)])
def test_wan22_codes_too(tmp_path, monkeypatch, name, kind, multiple):
    """Two transformers that share the time axis, and the autoencoder with 48 channels at a stride of 16."""
    monkeypatch.setenv(MODELS_VARIABLE, str(tmp_path / "shelf"))
    model = save_tiny_wan(tmp_path / "shelf" / name, kind=kind)
    source, coded, shown = (tmp_path / each for each in ("in.y4m", "out.vov", "out.y4m"))
    write_clip(source, 5)
    preset = write_preset(tmp_path, model, name)
    options = EncodeOptions(preset=preset, size=(64, 32), target_bytes=800)
    if multiple == 32:
        with pytest.raises(UsageError, match=r"multiples of 32 pixels, not 48x32: set .*geometry.multiple to 32"):
            encode(source, coded, EncodeOptions(preset=preset), SilentListener())
    encode(source, coded, options, SilentListener())
    decoded = decode(coded, shown, DecodeOptions(verify=True), SilentListener())
    assert (decoded.n_frames, decoded.size) == (5, (WIDTH, HEIGHT)) and decoded.drift_db >= 40


def test_without_a_captioner_an_automatic_caption_fails_before_anything_is_loaded(wan, tmp_path, monkeypatch):
    monkeypatch.delenv(CAPTIONER_VARIABLE, raising=False)
    monkeypatch.setattr("vovcodec.codec.encode.load_preset_backbone", lambda *arguments: pytest.fail("loaded"))
    write_still(tmp_path / "in.png")
    options = EncodeOptions(preset=write_preset(tmp_path, wan, "wan2.1-1.3b"), caption="auto")
    with pytest.raises(ModelError) as caught:
        encode(tmp_path / "in.png", tmp_path / "out.vov", options, SilentListener())
    for part in ("hf download Qwen/Qwen2.5-VL", f"${CAPTIONER_VARIABLE}", "--caption TEXT"):
        assert part in str(caught.value)


def test_status_and_memory_of_the_hub_models(wan, tmp_path, monkeypatch):
    usable, reason = model_status("wan2.1-1.3b")
    assert not usable and "hf download" in reason
    assert model_status("wan2.1-1.3b", wan) == (True, str(wan))
    shelve(wan, tmp_path, "wan2.1-14b", monkeypatch)
    assert model_status("wan2.1-14b") == (True, str(tmp_path / "shelf" / "wan2.1-14b"))
    assert model_status("wan3")[0] is False
    monkeypatch.setattr("vovcodec.backbone.memory.free_memory_bytes", lambda device: 40 << 30)
    report = model_report("cpu")
    assert report["wan2.1-14b"][0] == str(tmp_path / "shelf" / "wan2.1-14b")
    assert "hf download Qwen/Qwen-Image" in report["qwen-image"][0]
    assert report["wan2.1-1.3b"][1].count(" fits") == 4, "both precisions, both ways"
    assert report["qwen-image"][1].count(" does not fit") == 2, "41 GB of weights, half of it in 8 bits"
