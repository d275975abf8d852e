"""The Qwen-Image backbone against diffusers' own pipelines, on a tiny random model of the real classes."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from tiny_models import save_tiny_qwen_image

from vovcodec.adaptation.lowrank import LowRankAdapter
from vovcodec.backbone.loading import LoadOptions
from vovcodec.backbone.qwen_image import pack, unpack
from vovcodec.backbone.registry import load_backbone
from vovcodec.errors import UsageError

CAPTION = "A red {barn} under snow"
CLOSE = {"rtol": 1e-4, "atol": 1e-5}


@pytest.fixture(scope="module", autouse=True)
def cache(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return save_tiny_qwen_image(tmp_path_factory.mktemp("qwen"))


@pytest.fixture(scope="module")
def backbone(folder):
    return load_backbone("qwen-image", path=folder, device="cpu")


@pytest.fixture(scope="module")
def pipeline(folder):
    from diffusers import QwenImagePipeline

    pipeline = QwenImagePipeline.from_pretrained(folder)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


@pytest.fixture
def picture() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (1, 32, 48, 3), dtype=np.uint8)


def test_latents_are_those_of_the_pipeline(backbone, pipeline, picture):
    from diffusers import QwenImageEditPipeline

    latents = backbone.to_latents(picture)
    assert latents.shape == (1, 16, 1, 4, 6) == backbone.geometry.latent_shape(1, 48, 32)
    image = torch.from_numpy(picture).permute(3, 0, 1, 2)[None].float() / 127.5 - 1
    host = SimpleNamespace(vae=pipeline.vae, latent_channels=16)
    with torch.no_grad():
        expected = QwenImageEditPipeline._encode_vae_image(host, image, None)
    torch.testing.assert_close(latents, expected, **CLOSE)
    assert backbone.to_frames(latents).shape == picture.shape


def test_packing_is_that_of_the_pipeline(pipeline):
    latents = torch.arange(2 * 16 * 4 * 6.0).view(2, 16, 1, 4, 6)
    packed = pack(latents)
    assert torch.equal(packed, pipeline._pack_latents(latents, 2, 16, 4, 6))
    assert torch.equal(unpack(packed, 4, 6), latents)


@pytest.mark.parametrize("caption", [CAPTION, "", "long " * 300])
def test_velocity_captions_and_frames_are_those_of_the_pipeline(backbone, pipeline, caption):
    calls = []

    def record(module, _args, inputs, output):
        calls.append((inputs, output[0]))

    handle = pipeline.transformer.register_forward_hook(record, with_kwargs=True)
    arguments = {"prompt": caption, "height": 32, "width": 48, "num_inference_steps": 2, "true_cfg_scale": 1.0}
    latents = pipeline(**arguments, generator=torch.Generator().manual_seed(0), output_type="latent").images
    handle.remove()
    condition = backbone.embed_caption(caption)
    assert len(calls) == 2 and condition.shape[1] <= 512
    for inputs, output in calls:
        torch.testing.assert_close(condition, inputs["encoder_hidden_states"], **CLOSE)
        assert inputs["encoder_hidden_states_mask"] is None
        x_t = unpack(inputs["hidden_states"], 4, 6)
        with torch.no_grad():
            ours = backbone.velocity(x_t, inputs["timestep"].item(), condition)
        torch.testing.assert_close(ours, unpack(output, 4, 6), **CLOSE)
    shown = pipeline(**arguments, generator=torch.Generator().manual_seed(0), output_type="np").images
    assert np.abs(backbone.to_frames(unpack(latents, 4, 6)) / 255 - shown).max() < 0.6 / 255


def test_adaptable_layers_are_the_image_streams_in_the_documented_order(backbone):
    names = [name for name, _ in backbone.adaptable_linears("qkvo", 0)]
    block = ["attn.to_q", "attn.to_k", "attn.to_v", "attn.to_out.0"]
    assert names == [f"transformer_blocks.{i}.{name}" for i in range(2) for name in block]
    assert len(backbone.adaptable_linears("qkv", 1)) == 3
    mlp = [name for name, _ in backbone.adaptable_linears("qkvo_mlp", 1)]
    assert mlp[-2:] == ["transformer_blocks.1.img_mlp.net.0.proj", "transformer_blocks.1.img_mlp.net.2"]


def loss_and_gradient(folder, mode: str, shift: float = 0.0, direction: torch.Tensor | None = None):
    """Loss at θ + shift·direction and its gradient; also checks that no weight got one."""
    backbone = load_backbone("qwen-image", path=folder, device="cpu", options=LoadOptions(checkpointing=mode))
    layers = backbone.adaptable_linears("qkvo", 0)
    adapter = LowRankAdapter(layers, rank=2, vector_length=64, seed=0, device=torch.device("cpu"))
    torch.manual_seed(0)
    theta = torch.rand(64) - 0.5
    x_t, target = torch.randn(2, 16, 1, 4, 6), torch.randn(2, 16, 1, 4, 6)
    theta = (theta if direction is None else theta + shift * direction).requires_grad_(True)
    with adapter.attached():
        adapter.materialize(theta)
        velocity = backbone.velocity(x_t, torch.tensor([0.3, 0.8]), backbone.embed_caption("a cat"))
        loss = (velocity - target).square().mean()
        loss.backward()
    assert not any(p.requires_grad or p.grad is not None for p in backbone._loaded_transformer().parameters())
    return loss.item(), theta.grad


def test_gradients_reach_the_vector_and_only_the_vector(folder):
    _, gradient = loss_and_gradient(folder, "none")
    assert torch.isfinite(gradient).all() and (gradient != 0).float().mean() > 0.9
    direction = gradient / gradient.norm()
    (ahead, _), (behind, _) = (loss_and_gradient(folder, "none", shift, direction) for shift in (0.1, -0.1))
    assert (ahead - behind) / 0.2 == pytest.approx(gradient.norm().item(), rel=0.05)


@pytest.mark.parametrize("mode", ["attention", "full"])
def test_checkpointing_changes_memory_and_not_the_gradient(folder, mode):
    _, plain = loss_and_gradient(folder, "none")
    _, checkpointed = loss_and_gradient(folder, mode)
    torch.testing.assert_close(checkpointed, plain, rtol=1e-4, atol=1e-9)


def test_clips_are_refused(backbone, picture):
    with pytest.raises(UsageError, match="one frame at a time"):
        backbone.to_latents(np.repeat(picture, 5, axis=0))
    assert backbone.geometry.max_frames == 1
