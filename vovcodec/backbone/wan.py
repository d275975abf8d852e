"""Wan2.1 and Wan2.2 text-to-video models (arXiv 2503.20314) through diffusers' classes; one frame codes a still.

Conventions are those of diffusers' WanPipeline without guidance: timestep 1000·t, transformer output = ε − x₀,
captions cleaned, at most 512 UMT5 tokens, zeros after the last.
"""

from __future__ import annotations

import html
import json
import re
from contextlib import AbstractContextManager, nullcontext

import numpy as np
import torch
from torch import Tensor, nn

from vovcodec.backbone.autoencoder import NormalizedAutoencoder
from vovcodec.backbone.caption_cache import CaptionCache
from vovcodec.backbone.catalog import ModelFacts
from vovcodec.backbone.checkpointing import Checkpointing
from vovcodec.backbone.fingerprint import fingerprint_folder
from vovcodec.backbone.linears import wan_linears
from vovcodec.backbone.loading import LoadOptions, borrowed_text_encoder, dtype_of, load_component, load_transformer
from vovcodec.backbone.locate import ModelFolder
from vovcodec.backbone.memory import MemoryNeed, memory_needed, out_of_memory_explained, precision_remedies
from vovcodec.backbone.protocol import LatentGeometry
from vovcodec.errors import ModelError

__all__ = ["CAPTION_TOKENS", "WanBackbone", "clean_caption"]

CAPTION_TOKENS = 512


def clean_caption(caption: str) -> str:
    """HTML entities resolved twice, runs of white space to one space, ends stripped; as WanPipeline does.

    WanPipeline also repairs mis-decoded text where the package ftfy happens to be installed. Encoder and decoder must
    condition on the same text, so that step is left out.
    """
    return re.sub(r"\s+", " ", html.unescape(html.unescape(caption)).strip()).strip()


class WanBackbone:
    """See `protocol.Backbone`.

    The transformer is loaded when it is first needed, the text encoder only while a new caption is embedded. Wan2.2
    A14B has two transformers: `transformer` for times t ≥ boundary_ratio, `transformer_2` below.

    Args:
        facts: which model it claims to be. folder: its complete model folder.
        device, precision: "float32", "bfloat16" or "int8-weights" (see int8.py). options: see `LoadOptions`.
    """

    scene = None

    def __init__(
        self, facts: ModelFacts, folder: ModelFolder, device: str, precision: str, options: LoadOptions
    ) -> None:
        from diffusers import AutoencoderKLWan

        self.id, self.revision, self.precision = facts.id, folder.revision, precision
        self.device = torch.device(device)
        self._dtype = dtype_of(precision)
        self._facts, self._folder = facts, folder.path
        self.fingerprint = fingerprint_folder(folder.path, folder.components)
        self._boundary: float | None = folder.index.get("boundary_ratio")
        self._expert_names = ["transformer"]
        if "transformer_2" in folder.components:
            if self._boundary is None:
                raise ModelError(f"{folder.path} has two transformers but no boundary_ratio in model_index.json")
            self._expert_names.append("transformer_2")
        self._experts: list[nn.Module] = []
        autoencoder = load_component(AutoencoderKLWan, folder.path / "vae", torch.float32, self.device)
        self._autoencoder = NormalizedAutoencoder(autoencoder, self.device, lambda: self._experts)
        config = json.loads((folder.path / "transformer" / "config.json").read_text(encoding="utf-8"))
        if config.get("image_dim") and config.get("in_channels") != autoencoder.config.z_dim:
            raise ModelError(f"{folder.path} is an image-to-video model; the codec needs a text-to-video one")
        stride = autoencoder.config.scale_factor_spatial
        self.geometry = LatentGeometry(
            time_stride=autoencoder.config.scale_factor_temporal,
            space_stride=stride,
            size_multiple=stride * config["patch_size"][1],
            channels=autoencoder.config.z_dim,
            max_frames=facts.max_frames,
        )
        self._captions = CaptionCache(self.fingerprint, precision)
        self._checkpointing = Checkpointing(options.checkpointing, self.device)
        self._compiled = options.compiled

    def memory_needed(self, n_frames: int, width: int, height: int) -> MemoryNeed:
        """Estimate for segments of this size; see `memory.memory_needed`."""
        return memory_needed(self._facts, self.precision, n_frames=n_frames, width=width, height=height)

    def to_latents(self, frames: np.ndarray) -> Tensor:
        """See `protocol.Backbone.to_latents`."""
        n_frames, height, width, _ = frames.shape
        return self._autoencoder.to_latents(frames, self.memory_needed(n_frames, width, height))

    def to_frames(self, latents: Tensor) -> np.ndarray:
        """See `protocol.Backbone.to_frames`."""
        return self._autoencoder.to_frames(latents, self._need_of(latents))

    def embed_caption(self, caption: str) -> Tensor:
        """See `protocol.Backbone.embed_caption`; float32 [1, 512, D], zeros after the last token."""
        known = self._captions.get(clean_caption(caption), self._embed)
        padded = torch.zeros(1, CAPTION_TOKENS, known.shape[-1], device=self.device)
        padded[0, : len(known)] = known
        return padded

    @torch.no_grad()
    def _embed(self, caption: str) -> Tensor:
        """[L, D] without padding: UMT5's attention is masked, so leaving the padding out gives the same values."""
        from transformers import AutoTokenizer, UMT5EncoderModel

        tokenizer = AutoTokenizer.from_pretrained(self._folder / "tokenizer", local_files_only=True)
        tokens = tokenizer(caption, max_length=CAPTION_TOKENS, truncation=True, return_tensors="pt")
        needed = self.memory_needed(1, 16, 16).text_encoder
        with borrowed_text_encoder(
            UMT5EncoderModel, self._folder / "text_encoder", self._dtype, self.device, needed, self._experts
        ) as encoder:
            hidden = encoder(tokens.input_ids.to(self.device), tokens.attention_mask.to(self.device)).last_hidden_state
            return hidden[0].float().cpu()

    def velocity(self, x_t: Tensor, t: float | Tensor, condition: Tensor) -> Tensor:
        """See `protocol.Backbone.velocity`."""
        times = torch.as_tensor(t, dtype=torch.float32, device=self.device).reshape(-1).expand(len(x_t))
        chosen = self._chosen_experts(times)
        if len(set(chosen)) > 1:  # times on both sides of the boundary
            parts = [self.velocity(x_t[i : i + 1], times[i], condition) for i in range(len(x_t))]
            return torch.cat(parts)
        expert = self._loaded_experts()[chosen[0]]
        self._checkpointing.prepare(expert, self._need_of(x_t))
        with out_of_memory_explained("evaluating the transformer", str(self.device), *self._remedies()):
            prediction = expert(
                hidden_states=x_t.to(self._dtype),
                # One time for all tokens. Wan2.2 TI2V's one time per token matters for a given first frame only.
                timestep=1000 * times,
                encoder_hidden_states=condition.to(self._dtype).expand(len(x_t), -1, -1),
                return_dict=False,
            )[0]
        return prediction.float()

    def sampler_velocity(self, x_t: Tensor, t: float, condition: Tensor, *, last: bool) -> Tensor:
        """See `protocol.Backbone.sampler_velocity`."""
        return self.velocity(x_t, t, condition)

    def fitting_precision(self) -> AbstractContextManager:
        """See `protocol.Backbone.fitting_precision`: the model's own precision is the fast one already."""
        return nullcontext()

    def adaptable_linears(self, targets: str, last_blocks: int) -> list[tuple[str, nn.Linear]]:
        """See `protocol.Backbone.adaptable_linears`; the second transformer's layers follow the first's."""
        first, *rest = self._loaded_experts()
        layers = wan_linears(first, targets, last_blocks)
        for expert in rest:
            layers += [(f"transformer_2.{name}", layer) for name, layer in wan_linears(expert, targets, last_blocks)]
        return layers

    def _chosen_experts(self, times: Tensor) -> list[int]:
        if len(self._expert_names) == 1:
            return [0]
        return [0 if time >= self._boundary else 1 for time in times.tolist()]

    def _loaded_experts(self) -> list[nn.Module]:
        if not self._experts:
            from diffusers import WanTransformer3DModel

            for name in self._expert_names:
                folder = self._folder / name
                expert = load_transformer(WanTransformer3DModel, folder, self.precision, self.device, self._compiled)
                self._experts.append(expert)
        return self._experts

    def _need_of(self, latents: Tensor) -> MemoryNeed:
        n_latent_frames, height, width = latents.shape[2:]
        stride = self.geometry.space_stride
        n_frames = 1 + self.geometry.time_stride * (n_latent_frames - 1)
        return self.memory_needed(n_frames, stride * width, stride * height)

    def _remedies(self) -> list[str]:
        remedies = ["use a smaller --size", "use shorter segments (geometry.segment_frames in the preset)"]
        return self._checkpointing.remedies() + precision_remedies(self.precision) + remedies
