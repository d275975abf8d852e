"""The public base models this codec knows: where they come from, under which licence, how big they are.

Plain data without torch, so that presets, `vov doctor` and error messages can use it. Parameter counts were read off
the diffusers and transformers classes at the published configurations; download sizes off the hub's file lists.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from dataclasses import dataclass

__all__ = ["CATALOG", "ModelFacts", "flow_shift", "model_facts"]


@dataclass(frozen=True)
class ModelFacts:
    """One base model.

    repository: on the Hugging Face hub, in diffusers' layout. pipeline: its class in model_index.json.
    backbone: key of its class in `registry`. components: folders with weights that decide what a file decodes to, as
    far as model_index.json names them; they are checked and fingerprinted, others are not.
    licence: SPDX name. download_bytes: of the files this codec reads. *_params: number of weights; the autoencoder is
    kept in float32, the rest in the chosen precision. n_blocks, width, ffn_width: of the transformer.
    time_stride: frames per latent frame after the first, a multiple of 4, as segments in files are 4n + 1 frames long.
    space_stride: pixels per latent value along each side. patch: latent values per token along each side; a token is
    one latent frame long.
    n_experts: transformers that share the time axis (Wan2.2 A14B has one for high and one for low noise).
    max_frames: longest clip it was trained on. shift: see `flow_shift`, of width and height in px.
    """

    id: str
    repository: str
    pipeline: str
    backbone: str
    components: tuple[str, ...]
    licence: str
    download_bytes: int
    transformer_params: int
    text_encoder_params: int
    autoencoder_params: int
    n_blocks: int
    width: int
    ffn_width: int
    time_stride: int
    space_stride: int
    patch: int
    latent_channels: int
    max_frames: int
    shift: Callable[[int, int], float]
    n_experts: int = 1

    def n_tokens(self, n_frames: int, width: int, height: int) -> int:
        """Tokens of a segment of a size in px: what does not fill a latent frame or a patch takes one more."""
        side = self.patch * self.space_stride
        return (1 + -(-(n_frames - 1) // self.time_stride)) * -(-width // side) * -(-height // side)


# Qwen-Image's scheduler configuration: μ grows linearly with the number of image tokens.
_QWEN_TOKENS = (256, 8192)
_QWEN_MU = (0.5, 0.9)
# Between 480p (832×480) and 720p (1280×720), nearer to the smaller in ratio.
_PIXELS_480P = 600_000


def _wan_shift(at_480p: float, at_720p: float, width: int, height: int) -> float:
    return at_480p if width * height <= _PIXELS_480P else at_720p


def _qwen_shift(width: int, height: int) -> float:
    (low, high), (mu_low, mu_high) = _QWEN_TOKENS, _QWEN_MU
    n_tokens = (width // 16) * (height // 16)
    return math.exp(mu_low + (mu_high - mu_low) * (n_tokens - low) / (high - low))


_UMT5_PARAMS = 5_680_910_336
_WAN = {
    "pipeline": "WanPipeline",
    "backbone": "wan",
    "components": ("transformer", "transformer_2", "vae", "text_encoder"),
    "licence": "Apache-2.0",
    "text_encoder_params": _UMT5_PARAMS,
    "time_stride": 4,
    "space_stride": 8,
    "patch": 2,
    "latent_channels": 16,
    "max_frames": 81,
    "shift": functools.partial(_wan_shift, 3.0, 5.0),
}
_WAN_VAE_PARAMS = 126_892_531

CATALOG: dict[str, ModelFacts] = {
    facts.id: facts
    for facts in (
        ModelFacts(
            id="wan2.1-1.3b",
            repository="Wan-AI/Wan2.1-T2V-1.3B-Diffusers",
            download_bytes=28_900_000_000,
            transformer_params=1_418_996_800,
            autoencoder_params=_WAN_VAE_PARAMS,
            n_blocks=30,
            width=1536,
            ffn_width=8960,
            **_WAN,
        ),
        ModelFacts(
            id="wan2.1-14b",
            repository="Wan-AI/Wan2.1-T2V-14B-Diffusers",
            download_bytes=80_400_000_000,
            transformer_params=14_288_491_584,
            autoencoder_params=_WAN_VAE_PARAMS,
            n_blocks=40,
            width=5120,
            ffn_width=13824,
            **_WAN,
        ),
        ModelFacts(
            id="wan2.2-5b",
            repository="Wan-AI/Wan2.2-TI2V-5B-Diffusers",
            download_bytes=34_200_000_000,
            transformer_params=4_999_787_712,
            autoencoder_params=704_688_668,
            n_blocks=30,
            width=3072,
            ffn_width=14336,
            **_WAN
            | {
                "space_stride": 16,
                "latent_channels": 48,
                "max_frames": 121,
                "shift": functools.partial(_wan_shift, 5.0, 5.0),
            },
        ),
        ModelFacts(
            id="wan2.2-14b",
            repository="Wan-AI/Wan2.2-T2V-A14B-Diffusers",
            download_bytes=126_000_000_000,
            transformer_params=2 * 14_288_491_584,
            autoencoder_params=_WAN_VAE_PARAMS,
            n_blocks=40,
            width=5120,
            ffn_width=13824,
            n_experts=2,
            **_WAN,
        ),
        ModelFacts(
            id="qwen-image",
            repository="Qwen/Qwen-Image",
            pipeline="QwenImagePipeline",
            backbone="qwen-image",
            components=("transformer", "vae", "text_encoder"),
            licence="Apache-2.0",
            download_bytes=57_700_000_000,
            transformer_params=20_430_401_088,
            text_encoder_params=8_292_166_656,
            autoencoder_params=126_892_531,
            n_blocks=60,
            width=3072,
            ffn_width=12288,
            time_stride=4,
            space_stride=8,
            patch=2,
            latent_channels=16,
            max_frames=1,
            shift=_qwen_shift,
        ),
    )
}


def model_facts(backbone_id: str) -> ModelFacts | None:
    """Facts of a base model, None for one that is not in the catalogue."""
    return CATALOG.get(backbone_id)


def flow_shift(backbone_id: str, width: int, height: int) -> float:
    """The time shift s a model was published with for pictures of a size in pixels; see `sampling.schedule.time_grid`.

    Wan: 3 at 480p, 5 at 720p (model card, diffusers' WanPipeline). Qwen-Image: s = exp(μ), μ from 0.5 at 256 to 0.9 at
    8192 tokens of 16×16 pixels (its scheduler_config.json with diffusers' `calculate_shift`). Others: 1.
    """
    facts = model_facts(backbone_id)
    return 1.0 if facts is None else facts.shift(width, height)
