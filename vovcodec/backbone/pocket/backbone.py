"""The embedded model as a backbone. Weights are stored in bfloat16 and computed with in float32."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vovcodec.backbone.fingerprint import fingerprint_folder
from vovcodec.backbone.geometry import POCKET_COMPONENTS, POCKET_WEIGHTS, TOKEN_PHASES, pocket_geometry, token_phases
from vovcodec.backbone.linears import wan_linears
from vovcodec.backbone.pixels import to_uint8
from vovcodec.backbone.pocket.block_transform import BlockTransformAutoencoder
from vovcodec.backbone.pocket.clips import MOST_NOISE, MOST_NOISE_LAST, ClipNetwork
from vovcodec.backbone.pocket.completion import LITTLE_NOISE
from vovcodec.backbone.pocket.detail import DetailNetwork
from vovcodec.backbone.pocket.pictures import PictureNetwork
from vovcodec.backbone.pocket.precondition import network_input, precondition
from vovcodec.backbone.pocket.scene import PocketScene
from vovcodec.backbone.pocket.text_encoder import TextEncoder
from vovcodec.backbone.pocket.transformer import WanTransformer
from vovcodec.errors import ModelError

__all__ = ["WEIGHTS_DIR", "PocketBackbone"]

WEIGHTS_DIR = POCKET_WEIGHTS
_MAX_CAPTION_TOKENS = 64
Phases = tuple[tuple[int, int], ...]
_DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}


class PocketBackbone:
    """See `protocol.Backbone`. `folder` is a model folder in diffusers' layout, by default the shipped one.

    Raises ModelError when it is missing or damaged, or for a precision other than float32 and bfloat16.
    """

    id = "pocket"

    def __init__(self, folder: Path | None = None, device: str = "cpu", precision: str = "float32") -> None:
        folder = Path(folder) if folder else WEIGHTS_DIR
        if not (folder / "model_index.json").is_file():
            raise ModelError(
                f"no embedded model in {folder}; reinstall the package or name a folder made by vov pretrain"
            )
        self.fingerprint = fingerprint_folder(folder, POCKET_COMPONENTS)
        self.revision = ""
        self.precision = precision
        self.device = torch.device(device)
        if precision not in _DTYPES:
            raise ModelError(f"pocket computes in {' or '.join(_DTYPES)}, not in {precision}")
        self._dtype = _DTYPES[precision]
        try:
            self.vae = BlockTransformAutoencoder.from_pretrained(folder / "vae")
            self.transformer = WanTransformer.from_pretrained(folder / "transformer")
            self._detail = DetailNetwork.from_pretrained(folder / "detail")
            self._pictures = PictureNetwork.from_pretrained(folder / "pictures")
            self._clips = ClipNetwork.from_pretrained(folder / "clips")
            self._text_encoder = TextEncoder.from_pretrained(folder / "text_encoder")
        except ModelError as error:
            raise ModelError(f"the model in {folder} is damaged: {error}") from error
        for module in (self.vae, self.transformer, self._detail, self._pictures, self._clips, self._text_encoder):
            module.to(self.device).eval().requires_grad_(False)
        self._clips.to(memory_format=torch.channels_last)
        self.geometry = pocket_geometry()
        self.scene = PocketScene(self._pictures, self._clips)

    @torch.no_grad()
    def to_latents(self, frames: np.ndarray) -> Tensor:
        """See `protocol.Backbone.to_latents`. A single frame has the space of pictures.py, several have that of
        clips.py."""
        x = torch.from_numpy(np.ascontiguousarray(frames)).to(self.device).permute(3, 0, 1, 2)[None]
        space = self._pictures if len(frames) == 1 else self._clips
        return space.encode(x.float() / 127.5 - 1.0)

    @torch.no_grad()
    def to_frames(self, latents: Tensor) -> np.ndarray:
        """See `protocol.Backbone.to_frames`."""
        space = self._pictures if latents.shape[2] == 1 else self._clips
        return to_uint8(space.decode(latents.float())[0].permute(1, 2, 3, 0))

    @torch.no_grad()
    def embed_caption(self, caption: str) -> Tensor:
        """See `protocol.Backbone.embed_caption`. Tokens are UTF-8 bytes as ByT5 numbers them, at most 64; the rest of
        the 64 positions is zero."""
        tokens = [byte + 3 for byte in caption.encode()[: _MAX_CAPTION_TOKENS - 1]] + [1]
        embedding = torch.zeros(1, _MAX_CAPTION_TOKENS, self._text_encoder.config.d_model, device=self.device)
        # The encoder's attention is masked in training, so leaving the padding out gives the same values.
        ids = torch.tensor([tokens], device=self.device)
        embedding[:, : len(tokens)] = self._text_encoder(ids)
        return embedding

    def velocity(self, x_t: Tensor, t: float | Tensor, condition: Tensor) -> Tensor:
        """See `protocol.Backbone.velocity`; v = (x_t − x̂₀)/t. Of clips x̂₀ is the transformer's estimate, which is what
        a vector can change: clips.py's network, three times as costly to differentiate, is left to the sampler."""
        return self._velocity(x_t, t, condition, TOKEN_PHASES[:1], most_noise=None)

    def sampler_velocity(self, x_t: Tensor, t: float, condition: Tensor, *, last: bool) -> Tensor:
        """See `protocol.Backbone.sampler_velocity`: the transformer's estimate is the mean over
        `geometry.token_phases`, positions of the grid of 2×2 tokens on the latents.

        What the network makes of a value depends on where it lies in its token; the errors at the tokens' borders
        differ from phase to phase and mostly average out (bench/results/pocket_token_phases.tsv). Rows and columns that
        are needed beyond the edge are mirrored.
        """
        most_noise = MOST_NOISE_LAST if last else MOST_NOISE
        return self._velocity(x_t, t, condition, token_phases(x_t.shape[2] > 1, last), most_noise=most_noise)

    def _velocity(
        self, x_t: Tensor, t: float | Tensor, condition: Tensor, phases: Phases, *, most_noise: float | None
    ) -> Tensor:
        """`most_noise`: up to which time clips.py's network completes clips; None: never, nor are they averaged along
        their motion."""
        times = torch.as_tensor(t, dtype=torch.float32, device=self.device).reshape(-1).expand(len(x_t))
        is_clip = x_t.shape[2] > 1
        network = self._clips if is_clip else self._pictures
        blocks = network.to_blocks(x_t, times, self.vae)
        clean = network.from_blocks(self._block_estimate(blocks, times, condition, phases), self.vae)
        # A float as it is: rounded to float32, a time at one of the limits below may fall on their other side.
        largest_t = t if isinstance(t, float) else float(times.max())
        if not is_clip or (most_noise is not None and largest_t <= most_noise):
            with self._autocast():
                clean = network(x_t, clean, times)
        if is_clip and most_noise is not None:
            clean = network.along_motion(clean, largest_t, x_t)
        if not is_clip and largest_t <= LITTLE_NOISE:
            clean = network.completed(clean, x_t, times)
        return (x_t - clean) / times.clamp_min(1e-4).view(-1, 1, 1, 1, 1)

    def _block_estimate(self, x_t: Tensor, times: Tensor, condition: Tensor, phases: Phases) -> Tensor:
        """x̂₀ of transformer and detail network in the block transform's latents, by precondition.py."""
        total = torch.zeros_like(x_t)
        for rows, columns in phases:
            padded = F.pad(x_t.flatten(0, 1), (columns, columns, rows, rows), mode="reflect")
            volume = padded.unflatten(0, x_t.shape[:2])
            coefficients = precondition(times, self.vae.channel_std(x_t.shape[2]))
            with self._autocast():
                hidden = network_input(volume, coefficients)
                prediction = self.transformer(hidden, 1000 * times, condition.expand(len(x_t), -1, -1))
                detail = self._detail(hidden, prediction, times)
            moved = coefficients.c_skip * volume + coefficients.c_out * (prediction.float() + detail.float())
            total = total + moved[..., rows : rows + x_t.shape[-2], columns : columns + x_t.shape[-1]]
        return total / len(phases)

    def _autocast(self) -> torch.autocast:
        return torch.autocast(self.device.type, self._dtype, enabled=self._dtype != torch.float32)

    @contextmanager
    def fitting_precision(self) -> Iterator[None]:
        """See `protocol.Backbone.fitting_precision`: bfloat16 on processors that multiply it natively."""
        before = self._dtype
        if self.device.type == "cuda" or torch.cpu._is_avx512_bf16_supported():
            self._dtype = torch.bfloat16
        try:
            with warnings.catch_warnings():
                # Weights stay in float32 under autocast; that one norm is a little slower for it is nobody's concern.
                warnings.filterwarnings("ignore", message="Mismatch dtype between input and weight")
                yield
        finally:
            self._dtype = before

    def adaptable_linears(self, targets: str, last_blocks: int) -> list[tuple[str, nn.Linear]]:
        """See `protocol.Backbone.adaptable_linears`."""
        return wan_linears(self.transformer, targets, last_blocks)
