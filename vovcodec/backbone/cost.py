"""What decoding one segment takes: bytes of memory and floating-point operations per network evaluation.

Importable without torch; told from the model's facts and the size of the segment alone. Estimates: what each rests on
is said where it stands.
"""

from __future__ import annotations

import json
from dataclasses import dataclass

from vovcodec.backbone.catalog import CATALOG
from vovcodec.backbone.geometry import POCKET_WEIGHTS
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
    space_stride: int

    def n_tokens(self, n_frames: int, width: int, height: int) -> int:
        """Tokens of a segment: patches of 2×2 latent values, a latent frame for the first and every four more."""
        patch = 2 * self.space_stride
        return (1 + -(-(n_frames - 1) // 4)) * -(-width // patch) * -(-height // patch)

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
    if backbone_id == "pocket":
        found = _pocket()
        if found is None:
            return None
        network, weights_bytes = found
        per_token = _POCKET_PER_TOKEN_AND_WIDTH * network.width
        tokens = network.n_tokens(n_frames, width, height)
        model = 2 * weights_bytes  # stored in two bytes, computed with in four
        work = per_token * tokens + _POCKET_PER_PIXEL * pixels
    elif facts := CATALOG.get(backbone_id):
        network = _Transformer(
            facts.transformer_params // facts.n_experts,
            facts.n_blocks,
            facts.width,
            facts.ffn_width,
            facts.space_stride,
        )
        tokens = network.n_tokens(n_frames, width, height)
        need = memory_needed(facts, precision, n_frames=n_frames, width=width, height=height)
        work = max(need.decode, need.frames_tiled)
        model = max(0, need.to_decode() - work)
    else:
        return None
    return SegmentCost(
        model_bytes=_PROCESS_BYTES + model,
        work_bytes=work + _PER_FACTOR_ENTRY * network.factor_entries(rank),
        flop=network.flop(tokens),
    )


def _pocket() -> tuple[_Transformer, int] | None:
    """The embedded model at hand, from its configuration, and the size of its files; None where it is missing."""
    try:
        folder = embedded_folder() or POCKET_WEIGHTS
        config = json.loads((folder / "transformer" / "config.json").read_text(encoding="utf-8"))
        sizes = {path: path.stat().st_size for path in folder.glob("*/*.safetensors")}
    except (ModelError, OSError, ValueError):
        return None
    params = sum(size for path, size in sizes.items() if path.parent.name == "transformer") // 2
    width = config["num_attention_heads"] * config["attention_head_dim"]
    return _Transformer(params, config["num_layers"], width, config["ffn_dim"], 8), sum(sizes.values())
