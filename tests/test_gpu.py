"""On a CUDA device: fits and decodes, files that cross from processor to device, big classes in all their modes."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from tiny_models import save_tiny_wan

from vovcodec.adaptation.lowrank import LowRankAdapter
from vovcodec.backbone.loading import LoadOptions
from vovcodec.backbone.registry import load_backbone
from vovcodec.bench.speed_sides import SIDES, Settings, measure
from vovcodec.codec.decode import decode
from vovcodec.codec.encode import encode
from vovcodec.codec.options import DecodeOptions, EncodeOptions
from vovcodec.container import read_vov

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device here"),
]

DRIFT_DB = 40.0  # what `decode --verify` calls as it should be


@pytest.fixture
def clip(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    y, x = np.mgrid[:128, :192]
    frames = []
    for number in range(17):
        disc = 90 * ((x - 60 - 2 * number) ** 2 + (y - 64) ** 2 < 900)
        plane = np.stack([60 + x // 2 + disc, 200 - y, (x + y) // 2], axis=-1)
        frames.append(b"FRAME\n" + plane.clip(0, 255).astype(np.uint8).transpose(2, 0, 1).tobytes())
    path = tmp_path / "in.y4m"
    path.write_bytes(b"YUV4MPEG2 W192 H128 F25:1 Ip A1:1 C444\n" + b"".join(frames))
    return path


def encoded(clip, name: str, device: str, **options):
    out = clip.parent / f"{name}.vov"
    return out, encode(clip, out, EncodeOptions(device=device, **options))


def drift_db(path, device: str) -> float:
    shown = path.with_suffix(f".{device.replace(':', '')}.y4m")
    return decode(path, shown, DecodeOptions(device=device, verify=True)).drift_db


def test_the_embedded_model_fits_and_decodes_on_the_device(clip):
    coded, report = encoded(clip, "device", "cuda:0")
    assert read_vov(coded).segments[0].vector is not None
    _, on_cpu = encoded(clip, "cpu", "cpu")
    assert report.psnr_db == pytest.approx(on_cpu.psnr_db, abs=0.5)
    assert drift_db(coded, "cuda:0") >= DRIFT_DB


def test_files_cross_between_processor_and_device(clip):
    for here, there in (("cpu", "cuda:0"), ("cuda:0", "cpu")):
        coded, _ = encoded(clip, f"from-{here[:3]}", here)
        assert drift_db(coded, there) >= DRIFT_DB, f"{here} to {there}"


@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="one CUDA device")
def test_segments_spread_over_devices(clip, tmp_path):
    preset = tmp_path / "short.yaml"
    preset.write_text(
        "backbone: {id: pocket}\ngeometry: {segment_frames: 5}\nsteering: {method: atoms, bytes: 300}\n"
        "adaptation: {vector_length: 0}\nrate: {bytes: 400}\nefforts: {fast: {}}\n"
    )
    coded, _ = encoded(clip, "both", "cuda:0,1", preset=preset)
    assert drift_db(coded, "cuda:0") >= DRIFT_DB


@pytest.mark.parametrize("precision", ["bfloat16", "int8-weights"])
@pytest.mark.parametrize("checkpointing", ["none", "attention", "full"])
@pytest.mark.parametrize("compiled", [False, True])
def test_the_gradient_is_the_same_in_every_mode(tmp_path, monkeypatch, precision, checkpointing, compiled):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    folder = save_tiny_wan(tmp_path / "wan")

    def gradient(options: LoadOptions) -> torch.Tensor:
        backbone = load_backbone("wan2.1-1.3b", path=folder, device="cuda:0", precision=precision, options=options)
        linears = backbone.adaptable_linears("qkvo", 0)
        adapter = LowRankAdapter(linears, rank=1, vector_length=32, seed=0, device=backbone.device, offset=True)
        theta = torch.zeros(32, device=backbone.device, requires_grad=True)
        x_t = torch.randn(1, 16, 2, 4, 6, generator=torch.Generator().manual_seed(2)).to(backbone.device)
        with adapter.attached():
            adapter.materialize(theta)
            backbone.velocity(x_t, 0.6, backbone.embed_caption("")).square().mean().backward()
        return theta.grad

    expected = gradient(LoadOptions(checkpointing="none"))
    found = gradient(LoadOptions(checkpointing=checkpointing, compiled=compiled))
    assert torch.nn.functional.cosine_similarity(found, expected, dim=0) > 0.99


@pytest.mark.parametrize("architecture", ["pocket", "wan2.1-1.3b"])
def test_both_sides_of_the_speed_comparison_run(architecture):
    for side in SIDES:
        settings = Settings(architecture, (5, 128, 224), "cuda:0", "bfloat16", "auto", False, 1, None)
        rows = measure(side, settings)
        assert all(row.wall_s > 0 for row in rows), [row.note for row in rows]
