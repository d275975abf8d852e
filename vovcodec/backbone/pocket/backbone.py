"""The embedded model as a backbone. Weights are stored in bfloat16 and computed with in float32."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from vovcodec.backbone.fingerprint import fingerprint_folder
from vovcodec.backbone.linears import wan_linears
from vovcodec.backbone.pocket.precondition import network_input, precondition
from vovcodec.backbone.protocol import LatentGeometry
from vovcodec.errors import ModelError

__all__ = ["WEIGHTS_DIR", "PocketBackbone"]

WEIGHTS_DIR = Path(__file__).parent / "weights"
_COMPONENTS = ("transformer", "vae", "text_encoder")
_MAX_CAPTION_TOKENS = 64


class PocketBackbone:
    """See `protocol.Backbone`. `folder` is a model folder in diffusers' layout, by default the shipped one."""

    id = "pocket"

    def __init__(self, folder: Path | None = None, device: str = "cpu", precision: str = "float32") -> None:
        from diffusers import WanTransformer3DModel
        from transformers import UMT5EncoderModel

        from vovcodec.backbone.pocket.block_transform import BlockTransformAutoencoder

        folder = Path(folder) if folder else WEIGHTS_DIR
        if not (folder / "model_index.json").is_file():
            raise ModelError(f"no embedded model in {folder}; reinstall the package or pass a folder made by `vov pretrain`")
        self.fingerprint = fingerprint_folder(folder, _COMPONENTS)
        self.revision = ""
        self.precision = precision
        self.device = torch.device(device)
        self._dtype = {"float32": torch.float32, "bfloat16": torch.bfloat16}[precision]
        load = {"torch_dtype": torch.float32, "use_safetensors": True, "local_files_only": True, "low_cpu_mem_usage": True}
        self.vae = BlockTransformAutoencoder.from_pretrained(folder / "vae", **load)
        self.transformer = WanTransformer3DModel.from_pretrained(folder / "transformer", **load)
        self._text_encoder = UMT5EncoderModel.from_pretrained(
            folder / "text_encoder", dtype=torch.float32, use_safetensors=True, local_files_only=True
        )
        for module in (self.vae, self.transformer, self._text_encoder):
            module.to(self.device).eval().requires_grad_(False)
        self.geometry = LatentGeometry(
            time_stride=4, space_stride=8, size_multiple=16, channels=self.vae.config.latent_channels, max_frames=129
        )

    @torch.no_grad()
    def to_latents(self, frames: np.ndarray) -> Tensor:
        """See `protocol.Backbone.to_latents`."""
        x = torch.from_numpy(np.ascontiguousarray(frames)).to(self.device).permute(3, 0, 1, 2)[None]
        return self.vae.encode(x.float() / 127.5 - 1.0)

    @torch.no_grad()
    def to_frames(self, latents: Tensor) -> np.ndarray:
        """See `protocol.Backbone.to_frames`."""
        x = self.vae.decode(latents.float())[0].permute(1, 2, 3, 0)
        return ((x + 1.0) * 127.5).round_().clamp_(0, 255).to(torch.uint8).cpu().numpy()

    @torch.no_grad()
    def embed_caption(self, caption: str) -> Tensor:
        """See `protocol.Backbone.embed_caption`. Tokens are UTF-8 bytes as ByT5 numbers them, at most 64; the rest of
        the 64 positions is zero."""
        tokens = [byte + 3 for byte in caption.encode()[: _MAX_CAPTION_TOKENS - 1]] + [1]
        embedding = torch.zeros(1, _MAX_CAPTION_TOKENS, self._text_encoder.config.d_model, device=self.device)
        # The encoder's attention is masked in training, so leaving the padding out gives the same values.
        ids = torch.tensor([tokens], device=self.device)
        embedding[:, : len(tokens)] = self._text_encoder(ids).last_hidden_state
        return embedding

    def velocity(self, x_t: Tensor, t: float | Tensor, condition: Tensor) -> Tensor:
        """See `protocol.Backbone.velocity`; v = (x_t − x̂₀)/t with the preconditioned x̂₀ of precondition.py."""
        times = torch.as_tensor(t, dtype=torch.float32, device=self.device).reshape(-1).expand(len(x_t))
        coefficients = precondition(times, self.vae.channel_std(x_t.shape[2]))
        with torch.autocast(self.device.type, self._dtype, enabled=self._dtype != torch.float32):
            prediction = self.transformer(
                hidden_states=network_input(x_t, coefficients),
                timestep=1000 * times,
                encoder_hidden_states=condition.expand(len(x_t), -1, -1),
                return_dict=False,
            )[0]
        clean = coefficients.c_skip * x_t + coefficients.c_out * prediction.float()
        return (x_t - clean) / times.clamp_min(1e-4).view(-1, 1, 1, 1, 1)

    def adaptable_linears(self, targets: str, last_blocks: int) -> list[tuple[str, nn.Linear]]:
        """See `protocol.Backbone.adaptable_linears`."""
        return wan_linears(self.transformer, targets, last_blocks)

    def channel_std(self, n_latent_frames: int) -> Tensor:
        """Standard deviation of every latent channel on the training set, [1, C, T, 1, 1]."""
        return self.vae.channel_std(n_latent_frames)

    def score_weights(self, n_latent_frames: int) -> Tensor | None:
        """None: the block transform is orthonormal, so latent errors are pixel errors."""
        return None
