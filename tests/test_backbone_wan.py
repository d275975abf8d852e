"""The Wan backbone against diffusers' own pipelines, on tiny random models of the real classes."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from tiny_models import save_tiny_wan

from vovcodec.adaptation.lowrank import LowRankAdapter
from vovcodec.backbone.loading import LoadOptions
from vovcodec.backbone.registry import load_backbone
from vovcodec.backbone.wan import clean_caption
from vovcodec.errors import ModelError, UsageError

CAPTION = "  A cat, &amp;amp; a\n dog  "
CLOSE = {"rtol": 1e-4, "atol": 1e-5}


@pytest.fixture(scope="module", autouse=True)
def cache(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return save_tiny_wan(tmp_path_factory.mktemp("wan"))


@pytest.fixture(scope="module")
def backbone(folder):
    return load_backbone("wan2.1-1.3b", path=folder, device="cpu")


@pytest.fixture(scope="module")
def pipeline(folder):
    from diffusers import WanPipeline

    pipeline = WanPipeline.from_pretrained(folder)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def frames(n_frames: int, height: int = 32, width: int = 48) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (n_frames, height, width, 3), dtype=np.uint8)


def recorded_calls(pipeline, **arguments):
    """Runs a pipeline without guidance and returns what its transformers got and gave, and its result."""
    calls = []

    def record(module, _args, inputs, output):
        calls.append((inputs, output[0]))

    transformers = [t for t in (pipeline.transformer, getattr(pipeline, "transformer_2", None)) if t is not None]
    handles = [t.register_forward_hook(record, with_kwargs=True) for t in transformers]
    try:
        result = pipeline(prompt=CAPTION, **arguments)
    finally:
        for handle in handles:
            handle.remove()
    return calls, result


@pytest.mark.parametrize(("n_frames", "n_latent_frames"), [(1, 1), (5, 2), (9, 3)])
def test_geometry_and_shapes_of_stills_and_clips(backbone, n_frames, n_latent_frames):
    source = frames(n_frames)
    latents = backbone.to_latents(source)
    assert latents.shape == (1, 16, n_latent_frames, 4, 6) == backbone.geometry.latent_shape(n_frames, 48, 32)
    assert latents.dtype == torch.float32
    decoded = backbone.to_frames(latents)
    assert decoded.shape == source.shape and decoded.dtype == np.uint8
    assert (backbone.geometry.size_multiple, backbone.geometry.max_frames) == (16, 81)


def test_latents_and_the_noise_path_are_those_of_the_pipeline(backbone, pipeline):
    from diffusers import WanVideoToVideoPipeline

    other = WanVideoToVideoPipeline(
        **{name: getattr(pipeline, name) for name in ("tokenizer", "text_encoder", "transformer", "vae", "scheduler")}
    )
    source = frames(5)
    video = torch.from_numpy(source).permute(3, 0, 1, 2)[None].float() / 127.5 - 1
    other.scheduler.set_timesteps(4)
    timestep = other.scheduler.timesteps[1:2]
    # Same generator, same noise: x_t = (1 − t)·x₀ + t·ε has to hold with our x₀ and t = timestep/1000.
    x_t = other.prepare_latents(
        video, 1, 16, 32, 48, torch.float32, "cpu", torch.Generator().manual_seed(1), None, timestep
    )
    noise = torch.randn(x_t.shape, generator=torch.Generator().manual_seed(1))
    t = timestep.item() / 1000
    torch.testing.assert_close((1 - t) * backbone.to_latents(source) + t * noise, x_t, **CLOSE)


@pytest.mark.parametrize("n_frames", [1, 5])
def test_velocity_captions_and_frames_are_those_of_the_pipeline(backbone, pipeline, n_frames):
    calls, result = recorded_calls(
        pipeline,
        height=32,
        width=48,
        num_frames=n_frames,
        num_inference_steps=3,
        guidance_scale=1.0,
        generator=torch.Generator().manual_seed(0),
        output_type="latent",
    )
    assert len(calls) == 3
    condition = backbone.embed_caption(CAPTION)
    for inputs, output in calls:
        torch.testing.assert_close(condition, inputs["encoder_hidden_states"], **CLOSE)
        t = inputs["timestep"].item() / 1000
        with torch.no_grad():
            torch.testing.assert_close(backbone.velocity(inputs["hidden_states"], t, condition), output, **CLOSE)
    latents = result.frames
    _, shown = recorded_calls(pipeline, height=32, width=48, num_frames=n_frames, num_inference_steps=3,
                              guidance_scale=1.0, generator=torch.Generator().manual_seed(0))  # fmt: skip
    assert np.abs(backbone.to_frames(latents) / 255 - shown.frames[0]).max() < 0.6 / 255


def test_velocity_takes_one_time_per_sample(backbone):
    torch.manual_seed(0)
    x_t = torch.randn(2, 16, 2, 4, 6)
    condition = backbone.embed_caption("")
    with torch.no_grad():
        both = backbone.velocity(x_t, torch.tensor([0.2, 0.9]), condition)
        alone = [backbone.velocity(x_t[i : i + 1], t, condition) for i, t in enumerate((0.2, 0.9))]
    torch.testing.assert_close(both, torch.cat(alone), **CLOSE)
    assert (both[0] - both[1]).abs().max() > 1e-3


def test_captions_are_cleaned_and_padded_with_zeros(backbone):
    assert clean_caption(CAPTION) == "A cat, & a dog"
    condition = backbone.embed_caption("a cat")
    assert condition.shape == (1, 512, 24)
    used = int(condition[0].abs().sum(-1).gt(0).sum())
    assert 3 <= used <= 12 and not condition[0, used:].any()
    assert torch.equal(backbone.embed_caption("a   cat "), condition)
    assert not torch.equal(backbone.embed_caption("a dog"), condition)
    assert backbone.embed_caption("word " * 2000)[0, -1].any(), "a long caption is cut at 512 tokens"


def test_the_text_encoder_is_freed_and_a_caption_embedded_once(folder, monkeypatch):
    from transformers import UMT5EncoderModel

    loads = []
    original = UMT5EncoderModel.from_pretrained.__func__

    def counted(cls, *args, **kwargs):
        loads.append(1)
        return original(cls, *args, **kwargs)

    monkeypatch.setattr(UMT5EncoderModel, "from_pretrained", classmethod(counted))
    first = load_backbone("wan2.1-1.3b", path=folder, device="cpu")
    kept = first.embed_caption("only once")
    again = load_backbone("wan2.1-1.3b", path=folder, device="cpu")
    assert torch.equal(again.embed_caption("only once"), kept)
    assert len(loads) == 1, "the second process finds it on disk"
    assert not [name for name, value in vars(first).items() if isinstance(value, UMT5EncoderModel)]


def test_adaptable_layers_come_in_the_documented_order(backbone):
    names = [name for name, _ in backbone.adaptable_linears("qkvo", 0)]
    block = [f"{a}.{n}" for a in ("attn1", "attn2") for n in ("to_q", "to_k", "to_v", "to_out.0")]
    assert names == [f"blocks.{i}.{name}" for i in range(2) for name in block]
    assert [name for name, _ in backbone.adaptable_linears("qkv", 1)] == [
        f"blocks.1.{name}" for name in block if "to_out" not in name
    ]
    mlp = [name for name, _ in backbone.adaptable_linears("qkvo_mlp", 1)]
    assert mlp == [f"blocks.1.{name}" for name in (*block, "ffn.net.0.proj", "ffn.net.2")]
    assert all(isinstance(layer, torch.nn.Linear) for _, layer in backbone.adaptable_linears("qkvo_mlp", 0))
    with pytest.raises(UsageError, match="qkvo_mlp"):
        backbone.adaptable_linears("all", 0)


def gradient(folder, checkpointing: str, precision: str = "float32") -> tuple[torch.Tensor, object]:
    options = LoadOptions(checkpointing=checkpointing)
    backbone = load_backbone("wan2.1-1.3b", path=folder, device="cpu", precision=precision, options=options)
    layers = backbone.adaptable_linears("qkvo", 0)
    adapter = LowRankAdapter(layers, rank=1, vector_length=64, seed=0, device=torch.device("cpu"))
    torch.manual_seed(0)
    theta = (torch.rand(64) * 0.2 - 0.1).requires_grad_(True)
    x_t = torch.randn(1, 16, 2, 4, 6)
    condition = backbone.embed_caption("a cat")
    with adapter.attached():
        adapter.materialize(theta)
        backbone.velocity(x_t, 0.7, condition).square().mean().backward()
    return theta.grad, backbone


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_gradients_reach_the_vector_and_only_the_vector(folder, precision):
    grad, backbone = gradient(folder, "none", precision)
    assert torch.isfinite(grad).all() and (grad != 0).float().mean() > 0.9
    weights = [p for e in backbone._loaded_experts() for p in e.parameters()]
    assert weights and not any(p.requires_grad or p.grad is not None for p in weights)


@pytest.mark.parametrize("mode", ["attention", "full"])
def test_checkpointing_changes_memory_and_not_the_gradient(folder, mode):
    plain, _ = gradient(folder, "none")
    checkpointed, backbone = gradient(folder, mode)
    torch.testing.assert_close(checkpointed, plain, rtol=1e-4, atol=1e-7)
    assert backbone._loaded_experts()[0].is_gradient_checkpointing


def test_bfloat16_stays_close_and_keeps_its_float32_modules(folder, backbone):
    half = load_backbone("wan2.1-1.3b", path=folder, device="cpu", precision="bfloat16")
    torch.manual_seed(0)
    x_t, condition = torch.randn(1, 16, 2, 4, 6), backbone.embed_caption("a cat")
    with torch.no_grad():
        exact, rounded = (b.velocity(x_t, 0.5, condition) for b in (backbone, half))
    assert rounded.dtype == torch.float32
    assert 0 < (exact - rounded).norm() / exact.norm() < 0.03
    expert = half._loaded_experts()[0]
    assert expert.blocks[0].attn1.to_q.weight.dtype == torch.bfloat16
    assert expert.condition_embedder.time_embedder.linear_1.weight.dtype == torch.float32


def test_wan22_uses_both_transformers(tmp_path):
    from diffusers import WanPipeline

    save_tiny_wan(tmp_path, kind="2.2-14b")
    backbone = load_backbone("wan2.2-14b", path=tmp_path, device="cpu")
    pipeline = WanPipeline.from_pretrained(tmp_path)
    pipeline.set_progress_bar_config(disable=True)
    calls, _ = recorded_calls(
        pipeline, height=32, width=48, num_frames=5, num_inference_steps=4, guidance_scale=1.0, output_type="latent"
    )
    times = [inputs["timestep"].item() / 1000 for inputs, _ in calls]
    assert min(times) < 0.875 <= max(times), "the run has to cross the boundary"
    condition = backbone.embed_caption(CAPTION)
    x_t = torch.cat([inputs["hidden_states"] for inputs, _ in calls])
    with torch.no_grad():
        velocities = backbone.velocity(x_t, torch.tensor(times), condition)
    torch.testing.assert_close(velocities, torch.cat([output for _, output in calls]), **CLOSE)
    names = [name for name, _ in backbone.adaptable_linears("qkv", 1)]
    assert len(names) == 12 and names[6] == "transformer_2.blocks.1.attn1.to_q"


def test_wan22_with_its_own_autoencoder_and_a_time_per_token(tmp_path):
    from diffusers import WanPipeline

    save_tiny_wan(tmp_path, kind="2.2-5b")
    backbone = load_backbone("wan2.2-5b", path=tmp_path, device="cpu")
    assert (backbone.geometry.space_stride, backbone.geometry.size_multiple) == (16, 32)
    latents = backbone.to_latents(frames(5, 32, 64))
    assert latents.shape == (1, 48, 2, 2, 4) == backbone.geometry.latent_shape(5, 64, 32)
    assert backbone.to_frames(latents).shape == (5, 32, 64, 3)
    pipeline = WanPipeline.from_pretrained(tmp_path)
    pipeline.set_progress_bar_config(disable=True)
    calls, _ = recorded_calls(
        pipeline, height=32, width=64, num_frames=5, num_inference_steps=1, guidance_scale=1.0, output_type="latent"
    )
    (inputs, output) = calls[0]
    assert inputs["timestep"].ndim == 2, "diffusers passes one time per token here"
    t = inputs["timestep"][0, 0].item() / 1000
    with torch.no_grad():
        ours = backbone.velocity(inputs["hidden_states"], t, backbone.embed_caption(CAPTION))
    torch.testing.assert_close(ours, output, **CLOSE)


def test_other_precisions_are_refused(folder):
    with pytest.raises(ModelError, match="float32 or bfloat16"):
        load_backbone("wan2.1-1.3b", path=folder, device="cpu", precision="float16")
