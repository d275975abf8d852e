"""What decoding one segment takes: bytes of memory and floating-point operations per network evaluation.

Importable without torch; told from the model's facts and the size of the segment alone. Estimates: what each rests on
is said where it stands.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass

from vovcodec.backbone.catalog import CATALOG
from vovcodec.backbone.geometry import POCKET_WEIGHTS, token_phases
from vovcodec.backbone.locate import embedded_folder
from vovcodec.backbone.memory import memory_needed
from vovcodec.errors import ModelError

__all__ = ["CPU_FLOPS_PER_THREAD", "CUDA_FLOPS", "SegmentCost", "segment_cost"]

# The embedded model in float32 on one thread of a server processor with AVX-512: 63 to 78 GFLOP/s at six sizes.
CPU_FLOPS_PER_THREAD = 60e9
# Assumed, not measured: what a data-centre card sustains in bfloat16 on a transformer.
CUDA_FLOPS = 50e12

# Measured with the embedded model at six sizes: interpreter and libraries; per pixel of all coded frames (158 to 265 in
# the autoencoder); per token during an evaluation (27 kB at width 256).
_PROCESS_BYTES = 500_000_000
_POCKET_PER_PIXEL = 270
_POCKET_PER_TOKEN_AND_WIDTH = 120
# The network of pictures or clips: float32 values of its first width at half the size, about eight of them alive.
_OWN_PER_PIXEL_AND_WIDTH = 8 * 4 / 4
# Of a clip: the codebook's keys, order and columns and the latents, 1.5 values per pixel in up to twice as many atoms.
_CLIP_PER_PIXEL = 3 * 40
# Per n² of every axis: its DCT matrix in float32, and that of half the size where colours have it.
_PER_DCT_ENTRY = 5
# Peak of the random assignment, per entry of the low-rank factors: keys, order, indices, scales, float32 factors.
_PER_FACTOR_ENTRY = 40


@dataclass(frozen=True)
class SegmentCost:
    """model_bytes: weights and program, whatever the file asks for. work_bytes: what the segment's size adds at the
    peak. flop: of one network evaluation."""

    model_bytes: int
    work_bytes: int
    flop: float


@dataclass(frozen=True)
class _Transformer:
    """What the estimates need to know of a network; `params` are its weights."""

    params: int
    n_blocks: int
    width: int
    ffn_width: int

    def flop(self, n_tokens: int) -> float:
        """2·P·n for the linear layers and 4·n²·width per block for scores and sums of self-attention."""
        return 2.0 * self.params * n_tokens + 4.0 * self.n_blocks * n_tokens**2 * self.width

    def factor_entries(self, rank: int) -> int:
        """Entries of the low-rank factors when every layer that can be adapted is."""
        return rank * self.n_blocks * (16 * self.width + 2 * (self.width + self.ffn_width))


def segment_cost(
    backbone_id: str, precision: str, *, n_frames: int, width: int, height: int, rank: int = 0
) -> SegmentCost | None:
    """Of decoding `n_frames` frames of a coded size in px with low-rank layers of `rank` (0: none).

    None for a model that this version does not know, or does not have where only its files could tell.
    """
    pixels = n_frames * width * height
    own_flop = 0.0
    if backbone_id == "pocket":
        found = _pocket()
        if found is None:
            return None
        network, pictures, clips, weights_bytes = found
        per_token = _POCKET_PER_TOKEN_AND_WIDTH * network.width
        # Its tokens are 16×16 pixels of the first frame and of every four more.
        tokens = (1 + -(-(n_frames - 1) // 4)) * -(-width // 16) * -(-height // 16)
        model = 4 * weights_bytes  # stored in one byte or two, computed with in four
        own = pictures if n_frames == 1 else clips
        work = per_token * tokens + _POCKET_PER_PIXEL * pixels + round(_OWN_PER_PIXEL_AND_WIDTH * own.width * pixels)
        work += _PER_DCT_ENTRY * (n_frames**2 + width**2 + height**2)
        if n_frames > 1:
            work += _CLIP_PER_PIXEL * pixels
        # Asked once for a step, in which the transformer may be asked more often; of a clip in less than half of them.
        asked = 1 / len(token_phases(is_clip=False, is_last=False)) if n_frames == 1 else 0.5
        own_flop = own.flop_per_pixel * pixels * asked
    elif facts := CATALOG.get(backbone_id):
        params = facts.transformer_params // facts.n_experts
        network = _Transformer(params, facts.n_blocks, facts.width, facts.ffn_width)
        tokens = facts.n_tokens(n_frames, width, height)
        need = memory_needed(facts, precision, n_frames=n_frames, width=width, height=height)
        work = max(need.decode, need.frames_tiled)
        model = max(0, need.to_decode() - work)
    else:
        return None
    return SegmentCost(
        model_bytes=_PROCESS_BYTES + model,
        work_bytes=work + _PER_FACTOR_ENTRY * network.factor_entries(rank),
        flop=network.flop(tokens) + own_flop,
    )


@dataclass(frozen=True)
class _OwnNetwork:
    """Of the embedded model's network of pictures or of clips: width at half the size, operations per pixel."""

    width: int
    flop_per_pixel: float


def _pocket() -> tuple[_Transformer, _OwnNetwork, _OwnNetwork, int] | None:
    """The embedded model at hand, from its configuration, and the size of its files; None where it is missing."""
    try:
        folder = embedded_folder() or POCKET_WEIGHTS
        config, pictures, clips = (
            json.loads((folder / name / "config.json").read_text(encoding="utf-8"))
            for name in ("transformer", "pictures", "clips")
        )
        sizes = {path: path.stat().st_size for path in folder.glob("*/*.safetensors")}
    except (ModelError, OSError, ValueError):
        return None
    # These are stored in two bytes each. Those of the detail network are used at every latent position, four times per
    # token.
    uses = {"transformer": 1, "detail": 4}
    params = sum(uses.get(path.parent.name, 0) * size for path, size in sizes.items()) // 2
    width = config["num_attention_heads"] * config["attention_head_dim"]
    network = _Transformer(params, config["num_layers"], width, config["ffn_dim"])
    of_pictures = _own_network(pictures["widths"], pictures["blocks"])
    of_clips = _own_network(clips["widths"], clips["blocks"], frames_at_last=4)
    return network, of_pictures, of_clips, sum(sizes.values())


def _own_network(widths: Sequence[int], blocks: Sequence[int], frames_at_last: int = 1) -> _OwnNetwork:
    """Blocks of two 3×3 convolutions at 1/2, 1/4, … of the size, on the way down and, but at the last, up again; at the
    last so many frames share a position."""
    flop = 0.0
    for level, (width, n_blocks) in enumerate(zip(widths, blocks, strict=True)):
        n_blocks *= 1 / frames_at_last if level + 1 == len(widths) else 2
        flop += 2.0 * n_blocks * 2 * 9 * width**2 / 4 ** (level + 1)
    return _OwnNetwork(widths[0], flop)
