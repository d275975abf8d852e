"""A base model that the package does not have, added as CONTRIBUTING.md says: LTX-Video's classes, tiny and random.

Its time stride is 8, its space stride 32 and its tokens are single latent values, all unlike those of the others.
"""

from __future__ import annotations

import json
import os
import shutil
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from tiny_models import save_tiny_ltx_video

from vovcodec.backbone import registry
from vovcodec.backbone.catalog import CATALOG, ModelFacts
from vovcodec.backbone.fingerprint import fingerprint_folder
from vovcodec.backbone.linears import block_linears
from vovcodec.backbone.loading import borrowed_text_encoder, dtype_of, load_component, load_transformer
from vovcodec.backbone.locate import MODELS_VARIABLE, locate_model
from vovcodec.backbone.pixels import to_uint8
from vovcodec.backbone.protocol import LatentGeometry
from vovcodec.cli.app import run
from vovcodec.codec.chosen import segment_atoms
from vovcodec.container import read_vov
from vovcodec.errors import ModelError

# Two segments, the second padded. At a time stride of 4 the first would have twice the positions (a power of two).
WIDTH, HEIGHT, N_FRAMES = 160, 64, 21

# 1. What is known of the model without loading it.
FACTS = ModelFacts(
    id="ltx-video",
    repository="Lightricks/LTX-Video",
    pipeline="LTXPipeline",
    backbone="ltx",
    components=("transformer", "vae", "text_encoder"),
    licence="other",
    download_bytes=1_000_000,
    transformer_params=20_000,
    text_encoder_params=10_000,
    autoencoder_params=50_000,
    n_blocks=2,
    width=24,
    ffn_width=96,
    time_stride=8,
    space_stride=32,
    patch=1,
    latent_channels=16,
    max_frames=161,
    shift=lambda width, height: 1.0,
)
TARGETS = {
    "qkvo": tuple(f"{attn}.{name}" for attn in ("attn1", "attn2") for name in ("to_q", "to_k", "to_v", "to_out.0"))
}
PRESET = """
backbone: {id: ltx-video}
geometry: {short_side: 64, multiple: 32, segment_frames: 17}
adaptation: {vector_length: 32, targets: qkvo}
steering: {method: atoms, codebook: hadamard, snr_start: 0.01, snr_ratio: 2.0}
fitting: {stage1: {steps: 1}, stage2: {steps: 1}}
rate: {bytes: 500}
efforts: {fast: {}}
"""


class LtxBackbone:
    """2. The class, see `protocol.Backbone`; its frame rate is that of 25 per second whatever the clip's."""

    scene = None

    def __init__(self, facts, folder, device, precision, options) -> None:
        from diffusers import AutoencoderKLLTXVideo, LTXVideoTransformer3DModel

        self.id, self.revision, self.precision = facts.id, folder.revision, precision
        self.device, self._dtype, self._folder = torch.device(device), dtype_of(precision), folder.path
        self.fingerprint = fingerprint_folder(folder.path, folder.components)
        self._vae = load_component(AutoencoderKLLTXVideo, folder.path / "vae", torch.float32, self.device)
        self._transformer = load_transformer(
            LTXVideoTransformer3DModel, folder.path / "transformer", precision, self.device, options.compiled
        )
        config, stride = self._transformer.config, self._vae.spatial_compression_ratio
        self.geometry = LatentGeometry(
            time_stride=self._vae.temporal_compression_ratio,
            space_stride=stride,
            size_multiple=stride * config.patch_size,
            channels=config.in_channels,
            max_frames=facts.max_frames,
        )

    @torch.no_grad()
    def to_latents(self, frames):
        x = torch.tensor(frames, device=self.device).permute(3, 0, 1, 2)[None].float() / 127.5 - 1.0
        return self._vae.encode(x).latent_dist.mode()

    @torch.no_grad()
    def to_frames(self, latents):
        return to_uint8(self._vae.decode(latents, return_dict=False)[0][0].permute(1, 2, 3, 0))

    @torch.no_grad()
    def embed_caption(self, caption):
        from transformers import AutoTokenizer, T5EncoderModel

        tokenizer = AutoTokenizer.from_pretrained(self._folder / "tokenizer", local_files_only=True)
        tokens = tokenizer(caption, return_tensors="pt").input_ids
        folder = self._folder / "text_encoder"
        with borrowed_text_encoder(T5EncoderModel, folder, self._dtype, self.device, 0, []) as encoder:
            return encoder(tokens).last_hidden_state.float()

    def velocity(self, x_t, t, condition):
        n_frames, height, width = x_t.shape[2:]
        prediction = self._transformer(
            hidden_states=x_t.flatten(2).transpose(1, 2).to(self._dtype),
            encoder_hidden_states=condition.to(self._dtype).expand(len(x_t), -1, -1),
            timestep=1000 * torch.as_tensor(t, dtype=torch.float32).reshape(-1).expand(len(x_t)),
            encoder_attention_mask=torch.ones(len(x_t), condition.shape[1]),
            num_frames=n_frames,
            height=height,
            width=width,
            rope_interpolation_scale=(8 / 25, 32, 32),
            return_dict=False,
        )[0]
        return prediction.float().transpose(1, 2).reshape(x_t.shape)

    def sampler_velocity(self, x_t, t, condition, *, last):
        return self.velocity(x_t, t, condition)

    def fitting_precision(self):
        return nullcontext()

    def adaptable_linears(self, targets, last_blocks):
        return block_linears(self._transformer, "transformer_blocks", TARGETS, targets, last_blocks)


@pytest.fixture(scope="module", autouse=True)
def place(tmp_path_factory):
    """Registered, with its folder where a user has it; commands run beside a clip."""
    folder = tmp_path_factory.mktemp("ltx")
    save_tiny_ltx_video(folder / "shelf" / FACTS.id)
    y, x = np.mgrid[:HEIGHT, :WIDTH]
    frames = [np.stack([2 * x + 3 * i, 3 * y, x + y], axis=0).clip(0, 255).astype(np.uint8) for i in range(N_FRAMES)]
    header = f"YUV4MPEG2 W{WIDTH} H{HEIGHT} F25:1 Ip A1:1 C444\n".encode()
    (folder / "in.y4m").write_bytes(header + b"".join(b"FRAME\n" + frame.tobytes() for frame in frames))
    before = os.getcwd()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(folder / "xdg"))
        patch.setenv(MODELS_VARIABLE, str(folder / "shelf"))
        patch.setitem(CATALOG, FACTS.id, FACTS)
        patch.setitem(registry.CLASSES, FACTS.backbone, (__name__, "LtxBackbone"))  # 3. its line in the registry
        os.chdir(folder)
        try:
            yield folder
        finally:
            os.chdir(before)


def vov(capsys, line: str):
    capsys.readouterr()
    code = run([*line.split(), "--json"])
    out, err = capsys.readouterr()
    assert code == 0, err
    return json.loads(out)


def test_encode_decode_check_and_shorten(capsys):
    """Shortening goes by the catalogue's geometry alone: what it keeps is what was there, and decodes."""
    Path("tiny.yaml").write_text(PRESET)  # 4. its preset
    report = vov(capsys, "encode in.y4m -o out.vov --preset tiny.yaml --caption ramp --device cpu -y")
    assert (report["n_frames"], report["segments"], report["coded_size"]) == (N_FRAMES, 2, [WIDTH, HEIGHT])
    decoded = vov(capsys, "decode out.vov -o out.y4m --verify -y --device cpu")
    assert decoded["n_frames"] == N_FRAMES and (decoded["drift_db"] in (None, "inf") or decoded["drift_db"] >= 40)
    checked = vov(capsys, "info out.vov --check")["check"]
    before = read_vov(Path("out.vov"))
    assert checked["atoms"] == sum(sum(segment.atoms.counts) for segment in before.segments)
    vov(capsys, f"scale out.vov -o less.vov --bytes {report['size_bytes'] - 60} -y")
    vov(capsys, "info less.vov --check")
    after = read_vov(Path("less.vov"))
    geometry = registry.load_backbone(FACTS.id, device="cpu").geometry
    for old, new in zip(before.segments, after.segments, strict=True):
        kept = len(new.atoms.counts)
        assert 0 < kept <= len(old.atoms.counts)
        whole, part = (segment_atoms(s.header, each, geometry)[0] for s, each in ((before, old), (after, new)))
        assert all(np.array_equal(a, b) for x, y in zip(whole, part, strict=False) for a, b in zip(x, y, strict=True))
    assert sum(len(s.atoms.counts) for s in after.segments) < sum(len(s.atoms.counts) for s in before.segments)
    assert vov(capsys, "decode less.vov -o less.y4m -y --device cpu")["n_frames"] == N_FRAMES


def test_a_segment_has_a_length_of_the_models_stride(capsys):
    Path("short.yaml").write_text(PRESET.replace("segment_frames: 17", "segment_frames: 13"))
    assert run(["encode", "in.y4m", "-o", "no.vov", "--preset", "short.yaml", "--device", "cpu"]) == 2
    assert "8n+1 frames, not 13" in capsys.readouterr().err


def test_components_of_the_entry_are_checked_and_fingerprinted(place, tmp_path):
    model = shutil.copytree(place / "shelf" / FACTS.id, tmp_path / "model")
    wider = replace(FACTS, components=(*FACTS.components, "text_encoder_2"))
    assert locate_model(wider, path=model).components == FACTS.components, "the index does not name it"
    index = json.loads((model / "model_index.json").read_text())
    index["text_encoder_2"] = index["text_encoder"]
    (model / "model_index.json").write_text(json.dumps(index))
    assert locate_model(FACTS, path=model).components == FACTS.components
    with pytest.raises(ModelError, match=r"lacks text_encoder_2/config\.json"):
        locate_model(wider, path=model)
    shutil.copytree(model / "text_encoder", model / "text_encoder_2")
    assert locate_model(wider, path=model).components == wider.components
