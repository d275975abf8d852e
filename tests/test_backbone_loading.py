"""Finding, checking and fingerprinting base models; memory; messages when something is missing."""

from __future__ import annotations

import json
import shutil
from collections import Counter
from dataclasses import replace

import pytest
import torch
from diffusers import AutoencoderKLWan, QwenImageTransformer2DModel, WanTransformer3DModel
from tiny_models import save_tiny_wan
from torch.utils._python_dispatch import TorchDispatchMode

from vovcodec.backbone import fingerprint as fingerprint_module
from vovcodec.backbone.caption_cache import CaptionCache
from vovcodec.backbone.catalog import CATALOG, flow_shift
from vovcodec.backbone.checkpointing import set_checkpointing
from vovcodec.backbone.cost import segment_cost
from vovcodec.backbone.fingerprint import cache_root, fingerprint_folder
from vovcodec.backbone.geometry import known_geometry
from vovcodec.backbone.linears import qwen_image_linears, wan_linears
from vovcodec.backbone.loading import LoadOptions, borrowed_text_encoder
from vovcodec.backbone.locate import MODELS_VARIABLE, locate_model, weight_files
from vovcodec.backbone.memory import (
    choose_checkpointing,
    free_memory_bytes,
    memory_line,
    memory_needed,
    out_of_memory_explained,
)
from vovcodec.backbone.registry import BACKBONES, load_backbone
from vovcodec.bench.architectures import ARCHITECTURES
from vovcodec.errors import ModelError, UsageError

WAN = CATALOG["wan2.1-1.3b"]
COMPONENTS = ("transformer", "vae", "text_encoder")
COMMIT = "0123456789abcdef0123456789abcdef01234567"


@pytest.fixture(scope="module")
def original(tmp_path_factory):
    return save_tiny_wan(tmp_path_factory.mktemp("wan"))


@pytest.fixture(autouse=True)
def own_places(tmp_path, monkeypatch):
    from huggingface_hub import constants

    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.delenv(MODELS_VARIABLE, raising=False)
    monkeypatch.setattr(fingerprint_module, "_remembered", {})


@pytest.fixture
def folder(original, tmp_path):
    return shutil.copytree(original, tmp_path / "copy")


def test_the_fingerprint_is_independent_of_place_and_changes_with_content(original, folder, tmp_path):
    expected = fingerprint_folder(original, COMPONENTS)
    assert len(expected) == 4
    moved = shutil.move(folder, tmp_path / "elsewhere")
    assert fingerprint_folder(moved, COMPONENTS) == expected
    (moved / "README.md").write_text("not part of the model")
    (moved / "transformer" / "variant.fp16.safetensors").write_bytes(b"nor is another variant")
    assert fingerprint_folder(moved, COMPONENTS) == expected
    shard = sorted((moved / "text_encoder").glob("*.safetensors"))[1]
    data = bytearray(shard.read_bytes())
    data[-1] ^= 1
    shard.write_bytes(data)
    assert fingerprint_folder(moved, COMPONENTS) != expected
    other_seed = save_tiny_wan(tmp_path / "seed", seed=1)
    assert fingerprint_folder(other_seed, COMPONENTS) not in (expected, fingerprint_folder(moved, COMPONENTS))


def test_large_files_are_hashed_once(folder, monkeypatch):
    hashed = []
    original_digest = fingerprint_module._file_digest
    monkeypatch.setattr(fingerprint_module, "_file_digest", lambda path: hashed.append(path) or original_digest(path))
    monkeypatch.setattr(fingerprint_module, "_REMEMBER_FROM_BYTES", 1)
    expected = fingerprint_folder(folder, COMPONENTS)
    n_files = len(hashed)
    assert n_files >= 8
    assert fingerprint_folder(folder, COMPONENTS) == expected and len(hashed) == n_files
    monkeypatch.setattr(fingerprint_module, "_remembered", {})  # a new process
    assert fingerprint_folder(folder, COMPONENTS) == expected and len(hashed) == n_files
    changed = sorted((folder / "transformer").glob("*.safetensors"))[0]
    changed.write_bytes(changed.read_bytes()[:-1] + b"\0\1")
    assert fingerprint_folder(folder, COMPONENTS) != expected
    assert hashed[n_files:] == [changed]
    (cache_root() / "digests.json").write_text("{damaged")
    monkeypatch.setattr(fingerprint_module, "_remembered", {})
    fingerprint_folder(folder, COMPONENTS)
    assert len(hashed) == 2 * n_files + 1


def test_strides_and_patches_of_a_model_decide_positions_memory_and_cost(monkeypatch, folder):
    other = replace(WAN, id="other", time_stride=8, space_stride=32, patch=1)
    monkeypatch.setitem(CATALOG, other.id, other)
    geometry = known_geometry(other.id, b"")
    assert (geometry.coded_frames(10), geometry.size_multiple) == (17, 32)
    assert geometry.latent_shape(17, 96, 64) == (1, 16, 3, 2, 3)
    size = {"n_frames": 17, "width": 96, "height": 64}
    assert (other.n_tokens(**size), WAN.n_tokens(**size)) == (3 * 2 * 3, 5 * 4 * 6)
    assert memory_needed(other, **size).decode * 120 == memory_needed(WAN, **size).decode * 18
    assert segment_cost(other.id, "bfloat16", **size).flop < segment_cost(WAN.id, "bfloat16", **size).flop / 6
    with pytest.raises(ModelError, match="in another way than other"):
        load_backbone(other.id, path=folder, device="cpu")


def test_a_model_is_found_in_the_users_folder_and_in_the_hubs_cache(folder, tmp_path, monkeypatch):
    with pytest.raises(ModelError, match="not on this machine"):
        locate_model(WAN)
    repository = tmp_path / "hub" / "models--Wan-AI--Wan2.1-T2V-1.3B-Diffusers"
    (repository / "refs").mkdir(parents=True)
    (repository / "refs" / "main").write_text(COMMIT)
    shutil.copytree(folder, repository / "snapshots" / COMMIT)
    found = locate_model(WAN)
    assert (found.path, found.revision) == (repository / "snapshots" / COMMIT, COMMIT)
    assert locate_model(WAN, revision=COMMIT).revision == COMMIT
    with pytest.raises(ModelError, match="at revision v9"):
        locate_model(WAN, revision="v9")
    for name in ("wan2.1-1.3b", "Wan2.1-T2V-1.3B-Diffusers"):
        shelf = tmp_path / name / "shelf"
        shutil.copytree(folder, shelf / name)
        monkeypatch.setenv(MODELS_VARIABLE, str(shelf))
        assert locate_model(WAN).path == shelf / name
        assert locate_model(WAN).revision == ""
    by_repository = load_backbone(WAN.repository, device="cpu")
    assert by_repository.id == "wan2.1-1.3b"


def test_what_is_missing_is_said_in_one_line(folder, tmp_path):
    def message(**arguments) -> str:
        with pytest.raises(ModelError) as caught:
            load_backbone("wan2.1-1.3b", device="cpu", **arguments)
        text = str(caught.value)
        assert "\n" not in text
        return text

    absent = message()
    for part in (
        "hf download Wan-AI/Wan2.1-T2V-1.3B-Diffusers",
        "Apache-2.0",
        "29 GB",
        "GiB of device memory",
        "$VOVCODEC_MODELS",
        "path",
    ):
        assert part in absent
    assert "no folder" in message(path=tmp_path / "nowhere")
    assert "no model_index.json" in message(path=tmp_path)
    shard = sorted((folder / "transformer").glob("*.safetensors"))[-1]
    kept = shard.read_bytes()
    shard.write_bytes(kept[:100])
    with pytest.raises(ModelError, match="cannot load"):
        load_backbone("wan2.1-1.3b", path=folder, device="cpu").adaptable_linears("qkvo", 0)
    shard.unlink()
    assert shard.name in message(path=folder)
    shard.write_bytes(kept)
    shutil.rmtree(folder / "text_encoder")
    assert "text_encoder/config.json" in message(path=folder)
    (folder / "vae" / "diffusion_pytorch_model.safetensors").unlink()
    assert "vae holds no safetensors" in message(path=folder)
    shutil.rmtree(folder / "tokenizer")
    index = json.loads((folder / "model_index.json").read_text())
    (folder / "model_index.json").write_text(json.dumps(index | {"_class_name": "FluxPipeline"}))
    assert "holds a FluxPipeline" in message(path=folder)
    (folder / "model_index.json").write_text("{")
    assert "damaged" in message(path=folder)


@pytest.mark.parametrize(
    "shards", [[], [5], ["a.safetensors", 5], [None], ["../a.safetensors"], ["/a.safetensors"], ["b\\a"], [".."], [""]]
)
def test_an_index_names_files_of_its_own_folder(tmp_path, shards):
    component = tmp_path / "vae"
    component.mkdir()
    for place in (component, tmp_path):
        (place / "a.safetensors").write_bytes(b"")
    index = {"weight_map": {str(number): name for number, name in enumerate(shards)}}
    (component / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(ModelError, match="is damaged; download it again"):
        weight_files(component)
    index["weight_map"] = {"tensor": "a.safetensors"}
    (component / "model.safetensors.index.json").write_text(json.dumps(index))
    assert weight_files(component) == [component / "a.safetensors"]


def test_a_missing_tokenizer_is_noticed_at_once(folder):
    shutil.rmtree(folder / "tokenizer")
    with pytest.raises(ModelError, match="tokenizer"):
        locate_model(WAN, path=folder)


def test_unknown_names_are_refused():
    with pytest.raises(ModelError, match=r"wan2\.1-14b"):
        load_backbone("wan3")
    assert {"pocket", "wan2.1-1.3b", "wan2.1-14b", "qwen-image"} <= set(BACKBONES)
    with pytest.raises(UsageError, match="attention"):
        LoadOptions(checkpointing="some")


def test_nothing_is_downloaded(monkeypatch):
    import huggingface_hub

    asked = []

    def snapshot_download(repository, **arguments):
        asked.append(arguments["local_files_only"])
        raise huggingface_hub.errors.LocalEntryNotFoundError("none")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot_download)
    with pytest.raises(ModelError):
        locate_model(WAN)
    assert asked == [True]


def test_published_shifts():
    assert flow_shift("wan2.1-1.3b", 832, 480) == flow_shift("wan2.1-14b", 480, 832) == 3.0
    assert flow_shift("wan2.1-14b", 1280, 720) == 5.0
    assert flow_shift("pocket", 208, 128) == 1.0
    # exp(0.5 … 0.9), as diffusers computes it for Qwen-Image.
    from diffusers.pipelines.qwenimage.pipeline_qwenimage import calculate_shift

    for side in (256, 1024, 1328):
        mu = calculate_shift((side // 16) ** 2, 256, 8192, 0.5, 0.9)
        assert torch.tensor(mu).exp().item() == pytest.approx(flow_shift("qwen-image", side, side))


def count(model: torch.nn.Module) -> int:
    return sum(p.numel() for p in model.parameters())


def n_factor_entries(layers) -> int:
    return sum(layer.in_features + layer.out_features for _, layer in layers)


@pytest.mark.parametrize(("name", "published"), [("wan2.1-1.3b", 737_280), ("wan2.1-14b", 3_276_800)])
def test_the_full_size_wan_architectures(name, published):
    """Without memory: weights as counted in the catalogue, and the factor entries D of rank 1 that the paper names."""
    with torch.device("meta"):
        wan = WanTransformer3DModel(**ARCHITECTURES[name])
        assert count(AutoencoderKLWan()) == CATALOG[name].autoencoder_params
    assert count(wan) == CATALOG[name].transformer_params
    assert n_factor_entries(wan_linears(wan, "qkvo", 0)) == published
    assert n_factor_entries(wan_linears(wan, "qkvo", 5)) == published * 5 // CATALOG[name].n_blocks


def test_the_full_size_qwen_image_and_wan22_architectures():
    with torch.device("meta"):
        qwen = QwenImageTransformer2DModel()
        small = WanTransformer3DModel(
            num_attention_heads=24, in_channels=48, out_channels=48, ffn_dim=14336, num_layers=30
        )
    assert count(qwen) == CATALOG["qwen-image"].transformer_params
    assert n_factor_entries(qwen_image_linears(qwen, "qkvo", 0)) == 60 * 4 * (3072 + 3072)
    assert count(small) == CATALOG["wan2.2-5b"].transformer_params
    assert CATALOG["wan2.2-14b"].transformer_params == 2 * CATALOG["wan2.1-14b"].transformer_params


def test_memory_estimates_are_ordered_and_choose_the_checkpointing(monkeypatch):
    need = memory_needed(WAN)
    assert need.fit["full"] < need.fit["attention"] < need.fit["none"]
    # DESIGN section 9: keeping the attention outputs costs 3 GB at 81×480×832.
    assert (need.fit["attention"] - need.fit["full"]) / 1e9 == pytest.approx(3.0, rel=0.05)
    assert need.text_encoder == 2 * 5_680_910_336 and need.frames_tiled < need.frames
    assert memory_needed(WAN, "float32").weights > 1.8 * need.weights
    small = memory_needed(WAN, "int8-weights")
    assert small.weights < 0.6 * need.weights and small.fit == need.fit and small.text_encoder == need.text_encoder
    assert memory_needed(WAN, n_frames=1).fit["none"] < need.fit["none"] / 15
    free = {"none": 200e9, "attention": 30e9, "full": 5e9}
    assert {mode: choose_checkpointing(need, int(size)) for mode, size in free.items()} == {m: m for m in free}
    line = memory_line(WAN, "bfloat16", "cpu")
    assert "wan2.1-1.3b in bfloat16 needs about" in line and "free on cpu" in line
    assert free_memory_bytes("cpu") > 1 << 20


@pytest.mark.parametrize(
    "error", [torch.OutOfMemoryError("CUDA out of memory"), MemoryError(), RuntimeError("can't allocate memory: 8 EB")]
)
def test_running_out_of_memory_names_the_options(error):
    with (
        pytest.raises(ModelError, match=r"out of memory on cpu while testing .*use a smaller --size, or wait"),
        out_of_memory_explained("testing", "cpu", "use a smaller --size", "wait"),
    ):
        raise error
    with pytest.raises(KeyError), out_of_memory_explained("testing", "cpu"):
        raise KeyError("something else")


def test_out_of_memory_in_the_transformer_is_a_model_error(folder, monkeypatch):
    backbone = load_backbone("wan2.1-1.3b", path=folder, device="cpu")
    condition = backbone.embed_caption("")
    expert = backbone._loaded_experts()[0]

    def fail(*args, **kwargs):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 8 EiB")

    monkeypatch.setattr(expert, "forward", fail)
    with pytest.raises(ModelError, match=r"evaluating the transformer.*checkpointing to full.*bfloat16.*--size.*seg"):
        backbone.velocity(torch.zeros(1, 16, 1, 4, 6), 0.5, condition)
    with torch.no_grad(), pytest.raises(ModelError) as caught:
        backbone.velocity(torch.zeros(1, 16, 1, 4, 6), 0.5, condition)
    assert "checkpointing" not in str(caught.value), "a decoder keeps no activations"


def test_the_autoencoder_tiles_where_it_has_to(folder, monkeypatch):
    import numpy as np

    from vovcodec.backbone import autoencoder

    frames = np.zeros((1, 32, 32, 3), np.uint8)
    for free, expected in ((1 << 50, False), (1 << 20, True)):
        backbone = load_backbone("wan2.1-1.3b", path=folder, device="cpu")
        monkeypatch.setattr(autoencoder, "free_memory_bytes", lambda device, free=free: free)
        backbone.to_latents(frames)
        assert backbone._autoencoder.network.use_tiling is expected


def test_the_autoencoder_tries_again_with_tiles(folder, monkeypatch):
    import numpy as np

    backbone = load_backbone("wan2.1-1.3b", path=folder, device="cpu")
    network = backbone._autoencoder.network
    encode, tried = network.encode, []

    def short_of_memory(x, survives: bool):
        tried.append(network.use_tiling)
        if not (survives and network.use_tiling):
            raise torch.OutOfMemoryError("CUDA out of memory")
        return encode(x)

    frames = np.zeros((1, 32, 32, 3), np.uint8)
    monkeypatch.setattr(network, "encode", lambda x: short_of_memory(x, survives=True))
    assert backbone.to_latents(frames).shape == (1, 16, 1, 4, 4)
    assert tried == [False, True]
    monkeypatch.setattr(network, "encode", lambda x: short_of_memory(x, survives=False))
    with pytest.raises(ModelError, match=r"encoding frames.*--size.*segment_frames"):
        backbone.to_latents(frames)


def test_the_transformer_makes_room_where_not_even_tiles_fit(folder, monkeypatch):
    import numpy as np

    backbone = load_backbone("wan2.1-1.3b", path=folder, device="cpu")
    autoencoder, expert = backbone._autoencoder, backbone._loaded_experts()[0]
    monkeypatch.setattr(autoencoder, "_idle", lambda: backbone._experts)  # as it is on a CUDA device
    places, encode, tried = ["cuda"], autoencoder.network.encode, []
    monkeypatch.setattr(expert, "to", lambda place: places.append(str(place)))

    def short_of_memory(x):
        tried.append((autoencoder.network.use_tiling, places[-1]))
        if len(tried) < 3:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return encode(x)

    monkeypatch.setattr(autoencoder.network, "encode", short_of_memory)
    frames = np.zeros((1, 32, 32, 3), np.uint8)
    assert backbone.to_latents(frames).shape == (1, 16, 1, 4, 4)
    assert tried == [(False, "cuda"), (True, "cuda"), (True, "cpu")] and places == ["cuda", "cpu", "cpu"]
    tried.clear()
    monkeypatch.setattr(autoencoder.network, "encode", lambda x: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        backbone.to_latents(frames)


class CountAttention(TorchDispatchMode):
    """Counts self-attention kernels: those with as many keys as queries."""

    def __init__(self) -> None:
        super().__init__()
        self.calls = Counter()

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        name = function.name()
        if "scaled_dot_product" in name and "backward" not in name:
            same = args[0].shape[-2] == args[1].shape[-2]
            self.calls["self" if same else "cross"] += 1
        return function(*args, **(kwargs or {}))


@pytest.mark.parametrize(("mode", "expected"), [("none", (2, 2)), ("attention", (2, 4)), ("full", (4, 4))])
def test_attention_checkpointing_keeps_self_attention(original, mode, expected):
    transformer = WanTransformer3DModel.from_pretrained(original / "transformer").requires_grad_(False)
    set_checkpointing(transformer, mode)
    x_t = torch.randn(1, 16, 2, 8, 8, requires_grad=True)
    arguments = {"timestep": torch.tensor([500.0]), "encoder_hidden_states": torch.randn(1, 7, 24)}
    with CountAttention() as counter:
        transformer(hidden_states=x_t, **arguments, return_dict=False)[0].square().sum().backward()
    assert (counter.calls["self"], counter.calls["cross"]) == expected


def test_idle_modules_make_room_for_the_text_encoder(original, monkeypatch):
    from transformers import UMT5EncoderModel

    from vovcodec.backbone import loading

    moves = []

    class Idle(torch.nn.Linear):
        def to(self, place):
            moves.append(str(place))
            return self

    # A CUDA device by name only: what moves is decided before anything is put there.
    monkeypatch.setattr(loading, "load_component", lambda *args: torch.nn.Identity())
    monkeypatch.setattr(torch.cuda, "empty_cache", lambda: None)
    for free, expected in ((100, ["cpu", "cuda:0"]), (10_000, [])):
        moves.clear()
        monkeypatch.setattr(loading, "free_memory_bytes", lambda device, free=free: free)
        idle = [Idle(1, 1)]
        arguments = (UMT5EncoderModel, original / "text_encoder", torch.float32, torch.device("cuda:0"), 1000, idle)
        with borrowed_text_encoder(*arguments) as encoder:
            assert isinstance(encoder, torch.nn.Identity) and moves == expected[:1]
        assert moves == expected


def test_the_caption_cache_survives_damage_and_tells_models_apart():
    embedded = []

    def embed(caption: str) -> torch.Tensor:
        embedded.append(caption)
        return torch.full((2, 3), float(len(embedded)))

    def cache(fingerprint: bytes = b"12345678", precision: str = "float32") -> CaptionCache:
        return CaptionCache(fingerprint, precision)

    first = cache().get("x", embed)
    assert torch.equal(cache().get("x", embed), first) and len(embedded) == 1
    cache(precision="bfloat16").get("x", embed)
    cache(b"87654321").get("x", embed)
    cache().get("y", embed)
    assert len(embedded) == 4
    for path in (cache_root() / "captions").glob("*"):
        path.write_bytes(b"damaged")
    cache().get("x", embed)
    assert len(embedded) == 5
