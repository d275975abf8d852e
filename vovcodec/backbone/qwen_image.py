"""Qwen-Image (arXiv 2508.02324), 20 B parameters, stills only, through diffusers' classes.

Conventions are those of diffusers' QwenImagePipeline without guidance: latents packed in 2×2 patches of 64 values,
timestep t in [0, 1], transformer output = ε − x₀, captions inside a chat template whose first 34 tokens are dropped.
"""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vovcodec.backbone.autoencoder import NormalizedAutoencoder
from vovcodec.backbone.caption_cache import CaptionCache
from vovcodec.backbone.catalog import ModelFacts
from vovcodec.backbone.checkpointing import Checkpointing
from vovcodec.backbone.fingerprint import fingerprint_folder
from vovcodec.backbone.linears import qwen_image_linears
from vovcodec.backbone.loading import LoadOptions, borrowed_text_encoder, dtype_of, load_component, load_transformer
from vovcodec.backbone.locate import ModelFolder
from vovcodec.backbone.memory import MemoryNeed, memory_needed, out_of_memory_explained, precision_remedies
from vovcodec.backbone.protocol import LatentGeometry
from vovcodec.errors import ModelError, UsageError

__all__ = ["CAPTION_TOKENS", "QwenImageBackbone", "pack", "unpack"]

CAPTION_TOKENS = 512
_TEMPLATE = (
    "<|im_start|>system\nDescribe the image by detailing the color, shape, size, texture, quantity, text, spatial "
    "relationships of the objects and background:<|im_end|>\n<|im_start|>user\n{}<|im_end|>\n<|im_start|>assistant\n"
)
_TEMPLATE_TOKENS = 34  # of the template before the caption, in the published tokenizer
_TOKENIZER_LIMIT = 1024
_PATCH = 2


def pack(latents: Tensor) -> Tensor:
    """Latents [B, C, 1, h, w] → tokens [B, h/2·w/2, 4C] in row order, each in the order (channel, row, column)."""
    return F.pixel_unshuffle(latents[:, :, 0], _PATCH).flatten(2).transpose(1, 2)


def unpack(tokens: Tensor, height: int, width: int) -> Tensor:
    """Inverse of `pack` for latents of `height` × `width`."""
    patches = tokens.transpose(1, 2).unflatten(2, (height // _PATCH, width // _PATCH))
    return F.pixel_shuffle(patches, _PATCH)[:, :, None]


class QwenImageBackbone:
    """See `protocol.Backbone`. Arguments as for `wan.WanBackbone`."""

    scene = None

    def __init__(
        self, facts: ModelFacts, folder: ModelFolder, device: str, precision: str, options: LoadOptions
    ) -> None:
        from diffusers import AutoencoderKLQwenImage

        self.id, self.revision, self.precision = facts.id, folder.revision, precision
        self.device = torch.device(device)
        self._dtype = dtype_of(precision)
        self._facts, self._folder = facts, folder.path
        self.fingerprint = fingerprint_folder(folder.path, folder.components)
        autoencoder = load_component(AutoencoderKLQwenImage, folder.path / "vae", torch.float32, self.device)
        self._autoencoder = NormalizedAutoencoder(autoencoder, self.device, self._idle)
        stride = autoencoder.spatial_compression_ratio
        self.geometry = LatentGeometry(
            time_stride=4,
            space_stride=stride,
            size_multiple=stride * _PATCH,
            channels=autoencoder.config.z_dim,
            max_frames=facts.max_frames,
        )
        self._transformer: nn.Module | None = None
        self._captions = CaptionCache(self.fingerprint, precision)
        self._checkpointing = Checkpointing(options.checkpointing, self.device)
        self._compiled = options.compiled

    def memory_needed(self, width: int, height: int) -> MemoryNeed:
        """Estimate for pictures of this size; see `memory.memory_needed`."""
        return memory_needed(self._facts, self.precision, n_frames=1, width=width, height=height)

    def to_latents(self, frames: np.ndarray) -> Tensor:
        """See `protocol.Backbone.to_latents`. Raises UsageError for more than one frame."""
        n_frames, height, width, _ = frames.shape
        if n_frames != 1:
            raise UsageError(f"qwen-image codes one frame at a time, not {n_frames}; use a wan preset for clips")
        return self._autoencoder.to_latents(frames, self.memory_needed(width, height))

    def to_frames(self, latents: Tensor) -> np.ndarray:
        """See `protocol.Backbone.to_frames`."""
        return self._autoencoder.to_frames(latents, self._need_of(latents))

    def embed_caption(self, caption: str) -> Tensor:
        """See `protocol.Backbone.embed_caption`; float32 [1, L, D], L ≤ 512, nothing padded."""
        return self._captions.get(caption, self._embed)[None].to(self.device)

    @torch.no_grad()
    def _embed(self, caption: str) -> Tensor:
        from transformers import AutoTokenizer, Qwen2_5_VLForConditionalGeneration

        tokenizer = AutoTokenizer.from_pretrained(self._folder / "tokenizer", local_files_only=True)
        limit = _TOKENIZER_LIMIT + _TEMPLATE_TOKENS
        tokens = tokenizer(_TEMPLATE.format(caption), max_length=limit, truncation=True, return_tensors="pt")
        needed = self.memory_needed(16, 16).text_encoder
        with borrowed_text_encoder(
            Qwen2_5_VLForConditionalGeneration,
            self._folder / "text_encoder",
            self._dtype,
            self.device,
            needed,
            self._idle(),
        ) as encoder:
            output = encoder(
                input_ids=tokens.input_ids.to(self.device),
                attention_mask=tokens.attention_mask.to(self.device),
                output_hidden_states=True,
                logits_to_keep=1,  # the vocabulary's logits are not needed
            )
            return output.hidden_states[-1][0, _TEMPLATE_TOKENS:][:CAPTION_TOKENS].float().cpu()

    def velocity(self, x_t: Tensor, t: float | Tensor, condition: Tensor) -> Tensor:
        """See `protocol.Backbone.velocity`."""
        n, _, _, height, width = x_t.shape
        times = torch.as_tensor(t, dtype=torch.float32, device=self.device).reshape(-1).expand(n)
        transformer = self._loaded_transformer()
        self._checkpointing.prepare(transformer, self._need_of(x_t))
        with out_of_memory_explained("evaluating the transformer", str(self.device), *self._remedies()):
            prediction = transformer(
                hidden_states=pack(x_t).to(self._dtype),
                timestep=times,
                encoder_hidden_states=condition.to(self._dtype).expand(n, -1, -1),
                img_shapes=[[(1, height // _PATCH, width // _PATCH)]] * n,
                return_dict=False,
            )[0]
        return unpack(prediction.float(), height, width)

    def sampler_velocity(self, x_t: Tensor, t: float, condition: Tensor, *, last: bool) -> Tensor:
        """See `protocol.Backbone.sampler_velocity`."""
        return self.velocity(x_t, t, condition)

    def fitting_precision(self) -> AbstractContextManager:
        """See `protocol.Backbone.fitting_precision`: the model's own precision is the fast one already."""
        return nullcontext()

    def adaptable_linears(self, targets: str, last_blocks: int) -> list[tuple[str, nn.Linear]]:
        """See `protocol.Backbone.adaptable_linears`; the image stream's layers."""
        return qwen_image_linears(self._loaded_transformer(), targets, last_blocks)

    def _idle(self) -> list[nn.Module]:
        """What lies on the device while the text encoder or the autoencoder works."""
        return [] if self._transformer is None else [self._transformer]

    def _loaded_transformer(self) -> nn.Module:
        if self._transformer is None:
            from diffusers import QwenImageTransformer2DModel

            folder = self._folder / "transformer"
            transformer = load_transformer(
                QwenImageTransformer2DModel, folder, self.precision, self.device, self._compiled
            )
            if transformer.config.guidance_embeds:
                raise ModelError(f"{folder} is distilled for guidance, which this codec does not use")
            self._transformer = transformer
        return self._transformer

    def _need_of(self, latents: Tensor) -> MemoryNeed:
        stride = self.geometry.space_stride
        return self.memory_needed(stride * latents.shape[4], stride * latents.shape[3])

    def _remedies(self) -> list[str]:
        remedies = ["use a smaller --size", "use a smaller base model"]
        return self._checkpointing.remedies() + precision_remedies(self.precision) + remedies
