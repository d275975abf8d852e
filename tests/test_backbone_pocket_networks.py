"""The embedded model's transformer and text encoder against diffusers' and transformers'; how networks are kept."""

from __future__ import annotations

import copy
import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from tiny_models import save_tiny_pocket
from torch import Tensor

from vovcodec.backbone.pocket.backbone import WEIGHTS_DIR, PocketBackbone
from vovcodec.backbone.pocket.clips import ClipNetwork
from vovcodec.backbone.pocket.detail import DetailNetwork
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
    assert set(expected) == set(dict(ours.named_parameters()))
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
    transformer = WanTransformer(in_channels=7, out_channels=6, text_dim=16, **sizes)
    text = TextEncoder(d_model=16, d_kv=4, d_ff=24, num_layers=3, num_heads=2)
    transformer.save_pretrained(tmp_path / "transformer")
    text.save_pretrained(tmp_path / "text")
    theirs, missing = WanTransformer3DModel.from_pretrained(tmp_path / "transformer", output_loading_info=True)
    assert not any(missing.values())
    their_text = UMT5EncoderModel.from_pretrained(tmp_path / "text")
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


def changed_config(folder: Path, **fields) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | fields))


@pytest.mark.parametrize(
    ("component", "fields", "words"),
    [
        ("transformer", {"qk_norm": None}, "qk_norm = None"),
        ("transformer", {"image_dim": 8}, "image_dim = 8"),
        ("transformer", {"num_layers": 1}, "does not hold the tensors"),
        ("transformer", {"ffn_dim": 33}, "does not hold the tensors"),
        ("transformer", {"num_attention_heads": "two"}, "damaged"),
        ("transformer", {"num_attention_heads": 0}, "damaged"),
        ("text_encoder", {"feed_forward_proj": "relu"}, "feed_forward_proj = 'relu'"),
        ("text_encoder", {"relative_attention_num_buckets": 8}, "relative_attention_num_buckets = 8"),
        ("detail", {"width": 9}, "does not hold the tensors"),
        ("clips", {"widths": [8, 8]}, "damaged"),
        ("vae", {"latent_channels": -1}, "damaged"),
    ],
)
def test_settings_that_do_not_fit_are_refused(tmp_path, component, fields, words):
    folder = save_tiny_pocket(tmp_path)
    changed_config(folder / component, **fields)
    with pytest.raises(ModelError, match=words):
        PocketBackbone(folder)


@pytest.mark.parametrize("text", ["", "[]", "null", "{", "3"])
def test_broken_settings_are_refused(tmp_path, text):
    folder = save_tiny_pocket(tmp_path)
    (folder / "detail" / "config.json").write_text(text)
    with pytest.raises(ModelError, match="damaged"):
        PocketBackbone(folder)


def test_the_embedded_model_needs_no_library_of_models():
    script = (
        "import sys; from vovcodec.backbone.pocket.backbone import PocketBackbone;"
        "PocketBackbone().embed_caption('a dog');"
        "print([name for name in ('diffusers', 'transformers', 'scipy', 'torch._dynamo') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
