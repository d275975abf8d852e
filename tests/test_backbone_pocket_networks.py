"""The embedded model's transformer and text encoder against diffusers' and transformers'; how networks are kept."""

from __future__ import annotations

import copy
import json
import os
import shutil
import subprocess
import sys
import threading
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from tiny_models import save_tiny_pocket
from torch import Tensor

from vovcodec.backbone.pocket.backbone import WEIGHTS_DIR, PocketBackbone
from vovcodec.backbone.pocket.clips import ClipNetwork
from vovcodec.backbone.pocket.detail import DetailNetwork
from vovcodec.backbone.pocket.stored import StoredNetwork
from vovcodec.backbone.pocket.text_encoder import TextEncoder
from vovcodec.backbone.pocket.transformer import WanTransformer
from vovcodec.errors import ModelError


@pytest.fixture(scope="module", params=["shipped", "tiny"])
def folder(request, tmp_path_factory) -> Path:
    return WEIGHTS_DIR if request.param == "shipped" else save_tiny_pocket(tmp_path_factory.mktemp("tiny"))


@pytest.fixture(scope="module")
def transformers_of(folder):
    """Ours, and that of diffusers."""
    from diffusers import WanTransformer3DModel

    ours = WanTransformer.from_pretrained(folder / "transformer")
    return ours, WanTransformer3DModel.from_pretrained(folder / "transformer", torch_dtype=torch.float32)


def inputs(network: WanTransformer, shape: tuple[int, int, int], n_samples: int) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(n_samples, network.config.in_channels, *shape, generator=generator)
    times = 1000 * torch.rand(n_samples, generator=generator)
    return x, times, torch.randn(n_samples, 5, network.config.text_dim, generator=generator)


def theirs_of(network: torch.nn.Module, x: Tensor, times: Tensor, caption: Tensor) -> Tensor:
    return network(hidden_states=x, timestep=times, encoder_hidden_states=caption, return_dict=False)[0]


@pytest.mark.parametrize("shape", [(1, 2, 2), (1, 10, 4), (5, 4, 6)])
@pytest.mark.parametrize("n_samples", [1, 3])
def test_the_transformer_computes_what_diffusers_does(transformers_of, shape, n_samples):
    ours, theirs = transformers_of
    given = inputs(ours, shape, n_samples)
    with torch.no_grad():
        expected = theirs_of(theirs, *given)
        assert (ours(*given) - expected).abs().max() <= 2e-5 * expected.abs().max()


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_gradients_are_those_of_diffusers(transformers_of, precision):
    ours, theirs = (copy.deepcopy(network).requires_grad_(True) for network in transformers_of)
    given = inputs(ours, (2, 4, 4), 2)
    for network, function in ((ours, ours), (theirs, lambda *g: theirs_of(theirs, *g))):
        with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bfloat16"):
            function(*given).float().square().mean().backward()
        assert all(p.grad is not None for p in network.parameters())
    expected = dict(theirs.named_parameters())
    # In the same order, too: states of optimisers count parameters.
    assert list(expected) == [name for name, _ in ours.named_parameters()]
    tolerance = 1e-4 if precision == "float32" else 0.05
    for name, parameter in ours.named_parameters():
        wanted = expected[name].grad
        assert (parameter.grad - wanted).norm() <= tolerance * wanted.norm() + 1e-9, name


@pytest.mark.parametrize("n_tokens", [1, 12, 64, 200])
def test_the_text_encoder_computes_what_transformers_does(folder, n_tokens):
    from transformers import UMT5EncoderModel

    ours = TextEncoder.from_pretrained(folder / "text_encoder")
    theirs = UMT5EncoderModel.from_pretrained(folder / "text_encoder", dtype=torch.float32)
    generator = torch.Generator().manual_seed(n_tokens)
    ids = torch.randint(1, 384, (2, n_tokens), generator=generator)
    mask = torch.ones_like(ids)
    mask[1, (n_tokens + 1) // 2 :] = 0
    with torch.no_grad():
        for given in (None, mask):
            expected = theirs(ids, attention_mask=given).last_hidden_state
            seen = (mask if given is not None else torch.ones_like(mask)).bool()
            assert (ours(ids, given) - expected)[seen].abs().max() <= 1e-5 * expected.abs().max()


def test_other_libraries_read_what_is_written(tmp_path):
    from diffusers import WanTransformer3DModel
    from transformers import UMT5EncoderModel

    torch.manual_seed(0)
    sizes = {"num_attention_heads": 2, "attention_head_dim": 12, "ffn_dim": 20, "num_layers": 2, "freq_dim": 8}
    # With an ε that shows.
    transformer = WanTransformer(in_channels=7, out_channels=6, text_dim=16, eps=0.1, **sizes)
    text = TextEncoder(d_model=16, d_kv=4, d_ff=24, num_layers=3, num_heads=2, layer_norm_epsilon=0.1)
    transformer.save_pretrained(tmp_path / "transformer")
    text.save_pretrained(tmp_path / "text")
    theirs, missing = WanTransformer3DModel.from_pretrained(tmp_path / "transformer", output_loading_info=True)
    assert not any(missing.values())
    their_text = UMT5EncoderModel.from_pretrained(tmp_path / "text")
    for network, folder in ((transformer, "transformer"), (text, "text")):
        written = json.loads((tmp_path / folder / "config.json").read_text())
        assert network.CONSTANT.items() <= written.items()
    given = inputs(transformer, (3, 4, 2), 2)
    ids = torch.tensor([[7, 60, 300, 1]])
    with torch.no_grad():
        assert torch.allclose(transformer(*given), theirs_of(theirs, *given), atol=1e-5)
        assert torch.allclose(text(ids), their_text(ids).last_hidden_state, atol=1e-5)


def test_initial_weights_spread_as_those_of_the_libraries():
    from diffusers import WanTransformer3DModel
    from transformers import UMT5Config, UMT5EncoderModel

    torch.manual_seed(0)
    text = {"d_model": 96, "d_kv": 64, "d_ff": 320, "num_layers": 1, "num_heads": 2}
    sizes = {"in_channels": 17, "out_channels": 16, "text_dim": 96, "num_layers": 1, "ffn_dim": 128, "freq_dim": 64}
    pairs = [
        (TextEncoder(**text), UMT5EncoderModel(UMT5Config(vocab_size=384, **text))),
        (WanTransformer(**sizes), WanTransformer3DModel(num_attention_heads=4, attention_head_dim=64, **sizes)),
    ]
    for ours, theirs in pairs:
        expected = dict(theirs.named_parameters())
        for name, parameter in ours.named_parameters():
            if parameter.numel() > 1000:
                assert abs(parameter.std() / expected[name].std() - 1) < 0.15, name


def test_weights_in_one_byte_are_within_half_a_step(tmp_path):
    torch.manual_seed(0)
    network = ClipNetwork(widths=(8, 8, 8), blocks=(1, 1, 1))
    network.spectrum.normal_()
    network.save_pretrained(tmp_path, as_bytes=True)
    again = ClipNetwork.from_pretrained(tmp_path)
    assert again.config.widths == (8, 8, 8) and torch.equal(again.spectrum, network.spectrum)
    for (name, a), b in zip(network.named_parameters(), again.parameters(), strict=True):
        if a.dim() < 2:
            assert torch.equal(a, b), name
        else:
            step = a.flatten(1).abs().amax(1) / 127
            assert ((a - b).flatten(1).abs().amax(1) <= 0.501 * step + 1e-12).all(), name
    plain = tmp_path / "plain"
    network.save_pretrained(plain)
    assert torch.equal(ClipNetwork.from_pretrained(plain).proj_in.weight, network.proj_in.weight)
    size = (tmp_path / "diffusion_pytorch_model.safetensors").stat().st_size
    assert size < 0.45 * (plain / "diffusion_pytorch_model.safetensors").stat().st_size


def test_loading_leaves_the_random_numbers_alone():
    torch.manual_seed(3)
    expected = torch.rand(4)
    torch.manual_seed(3)
    DetailNetwork.from_pretrained(WEIGHTS_DIR / "detail")
    assert torch.equal(torch.rand(4), expected)


class _TwoAtOnce(StoredNetwork):
    """While it is made, another thread makes a larger one."""

    def __init__(self, width: int = 4) -> None:
        super().__init__()
        self.layer = torch.nn.Linear(width, width)
        self.others = []
        thread = threading.Thread(target=lambda: self.others.append(torch.nn.Linear(100, 100).weight.detach()))
        thread.start()
        thread.join()


def test_networks_of_other_threads_are_left_alone(tmp_path):
    _TwoAtOnce().save_pretrained(tmp_path)
    [weight] = _TwoAtOnce.from_pretrained(tmp_path).others
    assert weight.device.type == "cpu" and weight.shape == (100, 100)


def changed_config(folder: Path, **fields) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | fields))


@pytest.mark.parametrize(
    ("component", "fields", "words"),
    [
        ("transformer", {"qk_norm": None}, "qk_norm = None"),
        ("transformer", {"image_dim": 8}, "image_dim = 8"),
        ("transformer", {"num_layers": 1}, "does not hold the tensors"),
        ("transformer", {"ffn_dim": 31}, "does not hold the tensors"),
        ("transformer", {"ffn_dim": 33}, "asks for more"),
        ("transformer", {"ffn_dim": 1_000_000}, "asks for more"),
        ("transformer", {"num_layers": 1_000_000}, "asks for more"),
        ("transformer", {"ffn_dim": 10**9}, "ffn_dim = 10"),
        ("transformer", {"num_attention_heads": "two"}, "num_attention_heads = 'two'"),
        ("transformer", {"num_attention_heads": 0}, "num_attention_heads = 0"),
        ("transformer", {"num_attention_heads": True}, "num_attention_heads = True"),
        ("transformer", {"num_attention_heads": -2, "attention_head_dim": -12}, "-"),
        ("transformer", {"num_attention_heads": 24, "attention_head_dim": 1}, "must be even"),
        ("transformer", {"num_attention_heads": 8, "attention_head_dim": 3}, "must be even"),
        ("transformer", {"freq_dim": 15}, "must be even"),
        ("transformer", {"patch_size": [2, 2]}, "three numbers"),
        ("transformer", {"patch_size": 2}, "must be a list"),
        ("transformer", {"eps": "1e-6"}, "eps = '1e-6'"),
        ("transformer", {"eps": None}, "eps = None"),
        ("transformer", {"eps": float("nan")}, "eps = nan"),
        ("text_encoder", {"feed_forward_proj": "relu"}, "feed_forward_proj = 'relu'"),
        ("text_encoder", {"relative_attention_num_buckets": 8}, "relative_attention_num_buckets = 8"),
        ("text_encoder", {"d_ff": 0}, "d_ff = 0"),
        ("text_encoder", {"layer_norm_epsilon": -1.0}, "layer_norm_epsilon = -1.0"),
        ("detail", {"width": 9}, "asks for more"),
        ("clips", {"widths": [8, 8]}, "damaged"),
        ("clips", {"widths": []}, "damaged"),
        ("clips", {"water_level": -0.5}, "water_level = -0.5"),
        ("clips", {"block_channels": 1 << 20}, "asks for more"),
        ("vae", {"latent_channels": 1 << 20}, "asks for more"),
        ("vae", {"latent_channels": -1}, "latent_channels = -1"),
        ("vae", {"latent_scale": 0.0}, "latent_scale must not be 0"),
    ],
)
def test_settings_that_do_not_fit_are_refused(tmp_path, component, fields, words):
    folder = save_tiny_pocket(tmp_path)
    changed_config(folder / component, **fields)
    with pytest.raises(ModelError, match=words):
        PocketBackbone(folder)


def test_the_class_named_in_the_settings_does_not_matter(tmp_path):
    folder = save_tiny_pocket(tmp_path)
    changed_config(folder / "transformer", _class_name="Another", unknown=[1, 2])
    changed_config(folder / "vae", damping=0)
    PocketBackbone(folder)


@pytest.mark.parametrize("component", ["detail", "transformer"])
@pytest.mark.parametrize("text", ["", "[]", "null", "{", "3"])
def test_broken_settings_are_refused(tmp_path, component, text):
    folder = save_tiny_pocket(tmp_path)
    (folder / component / "config.json").write_text(text)
    with pytest.raises(ModelError, match="damaged"):
        PocketBackbone(folder)


def test_settings_are_read_from_short_regular_files_only(tmp_path):
    folder = save_tiny_pocket(tmp_path)
    config = folder / "detail" / "config.json"
    config.write_text(config.read_text() + " " * (1 << 16))
    with pytest.raises(ModelError, match="too long"):
        DetailNetwork.from_pretrained(config.parent)
    config.unlink()
    os.mkfifo(config)
    with pytest.raises(ModelError, match="no file"):
        DetailNetwork.from_pretrained(config.parent)


def changed_weights(folder: Path, **tensors: Tensor | None) -> None:
    path = folder / "diffusion_pytorch_model.safetensors"
    kept = load_file(path) | tensors
    save_file({name: tensor for name, tensor in kept.items() if tensor is not None}, path)


@pytest.mark.parametrize(
    ("tensors", "words"),
    [
        ({"proj_out.bias": torch.zeros(24, dtype=torch.int8)}, "scales do not belong"),
        ({"proj_out.bias": torch.zeros(24, dtype=torch.complex64)}, "proj_out.bias holds C64"),
        ({"proj_out.bias": torch.zeros(24, dtype=torch.int64)}, "proj_out.bias holds I64"),
        ({"proj_out.weight": torch.zeros(24, 8, dtype=torch.int8)}, "scales do not belong"),
        ({"proj_out.weight.scale": torch.ones(24)}, "scales do not belong"),
        ({"ghost.scale": torch.ones(1)}, "scales do not belong"),
        (
            {"ghost": torch.zeros(1, 50, dtype=torch.int8), "ghost.scale": torch.ones(600)},
            "scales do not belong",
        ),
        ({"ghost": torch.zeros(2)}, "does not hold the tensors"),
        ({"proj_out.weight": None}, "asks for more"),
        ({"proj_out.weight": torch.zeros(8, 24)}, "does not hold the tensors"),
    ],
)
def test_weights_that_do_not_fit_are_refused(tmp_path, tensors, words):
    folder = save_tiny_pocket(tmp_path)
    changed_weights(folder / "detail", **tensors)
    with pytest.raises(ModelError, match=words):
        PocketBackbone(folder)


def test_weights_in_several_files_are_refused(tmp_path):
    """The fingerprint would be that of the shards."""
    folder = save_tiny_pocket(tmp_path)
    shutil.copy(folder / "detail" / "diffusion_pytorch_model.safetensors", folder / "detail" / "shard.safetensors")
    index = {"weight_map": {"proj_out.bias": "shard.safetensors"}}
    (folder / "detail" / "diffusion_pytorch_model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(ModelError, match="weights in one file"):
        PocketBackbone(folder)
    other = save_tiny_pocket(tmp_path / "other")
    weights = other / "text_encoder" / "model.safetensors"
    shutil.copy(weights, weights.with_name("diffusion_pytorch_model.safetensors"))
    with pytest.raises(ModelError, match="weights in one file"):
        PocketBackbone(other)


def test_what_is_kept_of_a_grid_can_be_differentiated_with():
    network = WanTransformer(num_layers=1, in_channels=5, out_channels=4)
    given = inputs(network, (2, 6, 10), 1)
    with torch.inference_mode():
        network(*given)
    network(*given).sum().backward()
    assert network.blocks[0].attn1.to_q.weight.grad is not None


def test_networks_in_other_memory_formats_are_saved(tmp_path):
    network = ClipNetwork(widths=(8, 8, 8), blocks=(1, 1, 1)).to(memory_format=torch.channels_last)
    with torch.no_grad():
        network.proj_out.weight.zero_()
    for as_bytes in (False, True):
        network.save_pretrained(tmp_path, as_bytes=as_bytes)
        again = ClipNetwork.from_pretrained(tmp_path)
        assert torch.equal(again.proj_out.weight, network.proj_out.weight)
        assert torch.allclose(again.proj_in.weight, network.proj_in.weight, atol=0.01)


def test_the_embedded_model_needs_no_library_of_models():
    script = (
        "import sys; from vovcodec.backbone.pocket.backbone import PocketBackbone;"
        "PocketBackbone().embed_caption('a dog');"
        "print([name for name in ('diffusers', 'transformers', 'scipy', 'torch._dynamo') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
