"""8-bit weights: what they are, their gradient, their memory, and files made with them."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from tiny_models import save_tiny_qwen_image, save_tiny_wan
from torch import nn

from vovcodec.adaptation.lowrank import LowRankAdapter
from vovcodec.backbone.int8 import Int8Linear, quantize_blocks
from vovcodec.backbone.locate import MODELS_VARIABLE
from vovcodec.backbone.registry import load_backbone
from vovcodec.codec.decode import decode
from vovcodec.codec.encode import encode
from vovcodec.codec.options import DecodeOptions, EncodeOptions
from vovcodec.container import read_vov
from vovcodec.errors import ModelError
from vovcodec.progress import SilentListener

CPU = torch.device("cpu")
PRESET = """
backbone: {id: wan2.1-1.3b, precision: bfloat16}
geometry: {short_side: 32, multiple: 16, segment_frames: 5}
adaptation: {vector_length: 32}
steering: {method: atoms, snr_start: 0.01, snr_ratio: 3.0, bytes: 200}
fitting: {stage1: {steps: 2, lr: 1e-2}, stage2: {steps: 2, lr: 5e-3}}
rate: {bytes: 400}
efforts: {fast: {}}
"""


def linear(bias: bool = True) -> nn.Linear:
    torch.manual_seed(0)
    layer = nn.Linear(24, 10, bias=bias, dtype=torch.bfloat16).requires_grad_(False)
    layer.weight[3] = 0.0
    layer.weight[4] *= 1000.0
    return layer


def dequantized(layer: nn.Linear) -> torch.Tensor:
    """The weights as FORMAT.md section 4 has them."""
    weight = layer.weight.float()
    scale = (weight.abs().amax(1, keepdim=True) / 127).bfloat16().float()
    scale[scale == 0] = 1.0
    return ((weight / scale).round().clamp(-127, 127) * scale).bfloat16()


def test_a_transformer_without_blocks_is_refused():
    with pytest.raises(ModelError, match="a Sequential has no blocks or transformer_blocks"):
        quantize_blocks(nn.Sequential(linear()), CPU)


@pytest.mark.parametrize("bias", [True, False])
def test_product_and_gradient_are_those_of_the_rounded_weights(bias):
    layer = linear(bias)
    small = Int8Linear(layer, CPU)
    rounded = nn.Linear(24, 10, bias=bias, dtype=torch.bfloat16).requires_grad_(False)
    rounded.load_state_dict(layer.state_dict() | {"weight": dequantized(layer)})
    a, b = (torch.randn(2, 5, 24, generator=torch.Generator().manual_seed(1)).bfloat16() for _ in range(2))
    outputs = [module(x.requires_grad_()) for module, x in ((small, a), (rounded, b))]
    for output in outputs:
        output.float().square().sum().backward()
    assert outputs[0].dtype == torch.bfloat16
    assert torch.allclose(*outputs, rtol=1e-2, atol=1e-2) and torch.allclose(a.grad, b.grad, rtol=2e-2, atol=2e-2)
    assert (dequantized(layer).float() - layer.weight).abs().max() <= layer.weight.abs().max() / 127
    assert small.weight.dtype == torch.int8 and not list(small.parameters())


def test_the_backward_pass_keeps_eight_bits_per_weight():
    small, kept = Int8Linear(linear(), CPU), []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: kept.append(t) or t, lambda t: t):
        small(torch.randn(2, 24, dtype=torch.bfloat16, requires_grad=True))
    assert {t.data_ptr() for t in kept} <= {small.weight.data_ptr(), small.scale.data_ptr()}


@pytest.mark.parametrize("model", ["wan2.1-1.3b", "qwen-image"])
def test_every_linear_layer_of_the_blocks_is_quantised_and_adapts(model, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    folder = (save_tiny_wan if model.startswith("wan") else save_tiny_qwen_image)(tmp_path / "model")
    velocities = {}
    for precision in ("bfloat16", "int8-weights"):
        backbone = load_backbone(model, path=folder, device="cpu", precision=precision)
        condition = backbone.embed_caption("a dog")
        x_t = torch.randn(1, 16, 1, 4, 6, generator=torch.Generator().manual_seed(2))
        with torch.no_grad():
            velocities[precision] = backbone.velocity(x_t, 0.6, condition)
    layers = [layer for _, layer in backbone.adaptable_linears("qkvo_mlp", 0)]
    assert layers and all(isinstance(layer, Int8Linear) for layer in layers)
    exact, rounded = velocities.values()
    assert 0 < float((exact - rounded).norm() / exact.norm()) < 0.05
    adapter = LowRankAdapter(
        backbone.adaptable_linears("qkvo", 0), rank=1, vector_length=32, seed=0, device=CPU, offset=True
    )
    theta = torch.zeros(32, requires_grad=True)
    with adapter.attached():
        adapter.materialize(theta)
        backbone.velocity(x_t, 0.6, condition).square().mean().backward()
    assert theta.grad.abs().max() > 0


def test_the_header_says_so_and_the_decoder_follows(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    monkeypatch.setenv(MODELS_VARIABLE, str(tmp_path / "shelf"))
    save_tiny_wan(tmp_path / "shelf" / "wan2.1-1.3b")
    (tmp_path / "tiny.yaml").write_text(PRESET)
    grain = np.random.default_rng(7).integers(0, 256, (5, 3, 32, 48), dtype=np.uint8)
    frames = b"".join(b"FRAME\n" + frame.tobytes() for frame in grain)
    (tmp_path / "in.y4m").write_bytes(b"YUV4MPEG2 W48 H32 F25:1 Ip A1:1 C444\n" + frames)
    options = EncodeOptions(preset=tmp_path / "tiny.yaml", precision="int8-weights", device="cpu")
    encode(tmp_path / "in.y4m", tmp_path / "out.vov", options, SilentListener())
    assert read_vov(tmp_path / "out.vov").header.precision == "int8-weights"
    loaded = []
    real = load_backbone
    monkeypatch.setattr(
        "vovcodec.backbone.registry.load_backbone", lambda *a, **k: loaded.append(k["precision"]) or real(*a, **k)
    )
    report = decode(tmp_path / "out.vov", tmp_path / "out.y4m", DecodeOptions(device="cpu", verify=True))
    assert loaded == ["int8-weights"] and report.drift_db == math.inf
