"""Gradient checkpointing of transformer blocks: none, full, or all but the expensive attention.

A frozen transformer needs activations only to carry gradients to the low-rank factors. "full" keeps the input of
every block and computes the rest again in the backward pass. "attention" also keeps the output of self-attention,
whose cost grows with the square of the tokens: at 81×480×832 that is most of a forward pass and 3 GB of memory for
Wan 1.3B in bfloat16.
"""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import CheckpointPolicy, checkpoint, create_selective_checkpoint_contexts

from vovcodec.backbone.memory import MemoryNeed, choose_checkpointing, free_memory_bytes

__all__ = ["CHECKPOINTING", "FULL_CHECKPOINTING", "Checkpointing", "set_checkpointing"]

CHECKPOINTING = ("none", "attention", "full")
FULL_CHECKPOINTING = "set backbone.checkpointing to full in the preset"

_aten = torch.ops.aten
_ATTENTION_NAMES = (
    "_scaled_dot_product_flash_attention",
    "_scaled_dot_product_efficient_attention",
    "_scaled_dot_product_cudnn_attention",
    "_scaled_dot_product_flash_attention_for_cpu",
)
_ATTENTION = {getattr(_aten, name).default for name in _ATTENTION_NAMES if hasattr(_aten, name)}


def _policy(_context, operator, *args, **_kwargs) -> CheckpointPolicy:
    """Keep self-attention; cross-attention, with its few keys, is cheap to compute again."""
    if operator in _ATTENTION:
        query, key = args[0], args[1]
        if isinstance(query, Tensor) and key.shape[-2] >= query.shape[-2]:
            return CheckpointPolicy.MUST_SAVE
    return CheckpointPolicy.PREFER_RECOMPUTE


def set_checkpointing(transformer: nn.Module, mode: str) -> None:
    """Switch a diffusers transformer to one of `CHECKPOINTING`. Acts only where gradients are on."""
    if mode == "none":
        transformer.disable_gradient_checkpointing()
        return
    kwargs = {}
    if mode == "attention":
        kwargs["context_fn"] = partial(create_selective_checkpoint_contexts, _policy)

    def run(block: nn.Module, *args):
        # Without dropout there is no random state to restore.
        return checkpoint(block, *args, use_reentrant=False, preserve_rng_state=False, **kwargs)

    transformer.enable_gradient_checkpointing(run)


class Checkpointing:
    """A backbone's checkpointing: one of `CHECKPOINTING`, or "auto" = the fastest whose activations fit."""

    def __init__(self, mode: str, device: torch.device) -> None:
        self._mode, self._device = mode, device

    def prepare(self, transformer: nn.Module, need: MemoryNeed) -> None:
        """To be called before every evaluation; without gradients there is nothing to do."""
        if not torch.is_grad_enabled():
            return
        if self._mode == "auto":
            # Decided once: after the first step the allocator holds memory that counts as taken.
            self._mode = choose_checkpointing(need, free_memory_bytes(str(self._device)))
        set_checkpointing(transformer, self._mode)

    def remedies(self) -> list[str]:
        """What to say where memory ran out during a fit."""
        return [FULL_CHECKPOINTING] if torch.is_grad_enabled() and self._mode != "full" else []
