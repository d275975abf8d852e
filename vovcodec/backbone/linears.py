"""The linear layers that a vector adapts, in the order the format relies on."""

from __future__ import annotations

from collections.abc import Mapping

from torch import nn

from vovcodec.errors import UsageError

__all__ = ["QWEN_IMAGE_TARGETS", "WAN_TARGETS", "block_linears", "qwen_image_linears", "wan_linears"]

_QKV = ("to_q", "to_k", "to_v")
WAN_TARGETS = {
    "qkv": tuple(f"{attn}.{name}" for attn in ("attn1", "attn2") for name in _QKV),
    "qkvo": tuple(f"{attn}.{name}" for attn in ("attn1", "attn2") for name in (*_QKV, "to_out.0")),
}
WAN_TARGETS["qkvo_mlp"] = (*WAN_TARGETS["qkvo"], "ffn.net.0.proj", "ffn.net.2")

# The image stream only, as in arXiv 2603.07615; the text stream's projections are called add_*_proj.
QWEN_IMAGE_TARGETS = {
    "qkv": tuple(f"attn.{name}" for name in _QKV),
    "qkvo": tuple(f"attn.{name}" for name in (*_QKV, "to_out.0")),
}
QWEN_IMAGE_TARGETS["qkvo_mlp"] = (*QWEN_IMAGE_TARGETS["qkvo"], "img_mlp.net.0.proj", "img_mlp.net.2")


def wan_linears(transformer: nn.Module, targets: str, last_blocks: int) -> list[tuple[str, nn.Linear]]:
    """Layers of a Wan transformer (diffusers' or the embedded model's): blocks in order, inside a block the order of
    `WAN_TARGETS[targets]`.

    Args:
        transformer: has `blocks`.
        targets: "qkv", "qkvo" (self- and cross-attention; arXiv 2603.07615) or "qkvo_mlp".
        last_blocks: only the last so many blocks; 0 = all.
    """
    return block_linears(transformer, "blocks", WAN_TARGETS, targets, last_blocks)


def qwen_image_linears(transformer: nn.Module, targets: str, last_blocks: int) -> list[tuple[str, nn.Linear]]:
    """Layers of a diffusers Qwen-Image transformer: as `wan_linears`, in the order of `QWEN_IMAGE_TARGETS[targets]`."""
    return block_linears(transformer, "transformer_blocks", QWEN_IMAGE_TARGETS, targets, last_blocks)


def block_linears(
    transformer: nn.Module, blocks: str, known: Mapping[str, tuple[str, ...]], targets: str, last_blocks: int
) -> list[tuple[str, nn.Linear]]:
    """Layers of any transformer made of blocks: blocks in order, inside a block the order of `known[targets]`.

    Args:
        blocks: name of the list of blocks. known: names of layers inside a block, by targets.
        targets, last_blocks: as in `wan_linears`.

    Raises UsageError for targets that are not known.
    """
    if targets not in known:
        raise UsageError(f"unknown adaptation targets {targets!r}; choose one of {', '.join(known)}")
    n_blocks = len(transformer.get_submodule(blocks))
    first = max(0, n_blocks - last_blocks) if last_blocks else 0
    names = [f"{blocks}.{i}.{name}" for i in range(first, n_blocks) for name in known[targets]]
    return [(name, transformer.get_submodule(name)) for name in names]
