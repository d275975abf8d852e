"""What Wan and Qwen-Image share when they are loaded: options, precision, components, room for the text encoder."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from vovcodec.backbone.checkpointing import CHECKPOINTING
from vovcodec.backbone.int8 import quantize_blocks
from vovcodec.backbone.memory import free_memory_bytes, is_out_of_memory, out_of_memory_explained, set_aside
from vovcodec.errors import ModelError, UsageError

__all__ = [
    "LoadOptions",
    "borrowed_text_encoder",
    "dtype_of",
    "load_component",
    "load_transformer",
    "without_progress_bars",
]

INT8_WEIGHTS = "int8-weights"
_DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, INT8_WEIGHTS: torch.bfloat16}


@dataclass(frozen=True)
class LoadOptions:
    """How a big base model is loaded; none of it changes what a file means.

    checkpointing: of gradients, "none", "attention", "full" or "auto" = the fastest that fits.
    compiled: the transformer's blocks by torch.compile, on CUDA: a minute or more at the start, then faster steps.
    """

    checkpointing: str = "auto"
    compiled: bool = False

    def __post_init__(self) -> None:
        if self.checkpointing not in ("auto", *CHECKPOINTING):
            raise UsageError(f"checkpointing is one of auto, {', '.join(CHECKPOINTING)}, not {self.checkpointing!r}")


def dtype_of(precision: str) -> torch.dtype:
    """The dtype that a preset's precision computes in. Raises ModelError for one that these models are not run in."""
    if precision not in _DTYPES:
        raise ModelError(f"this model runs in {' or '.join(_DTYPES)}, not in {precision}; set backbone.precision")
    return _DTYPES[precision]


def load_component(model_class: type, folder: Path, dtype: torch.dtype, device: torch.device) -> nn.Module:
    """A component from its folder, frozen, in inference mode; from safetensors only and without the network.

    The class keeps its own float32 modules in float32 (Wan's norms and time embedding).
    Raises ModelError for damaged weights and when memory runs out.
    """
    # diffusers took transformers' name for the argument in 0.42, and warns about its old one.
    old_name = model_class.__module__.startswith("diffusers") and _diffusers_version() < (0, 42)
    dtype_name = "torch_dtype" if old_name else "dtype"
    with (
        without_progress_bars(),
        out_of_memory_explained(
            f"loading {folder.name}",
            str(device),
            "encode with --precision bfloat16 or int8-weights",
            "choose a smaller base model",
        ),
    ):
        try:
            module = model_class.from_pretrained(
                folder,
                use_safetensors=True,
                local_files_only=True,
                # Straight to the device, shard by shard: the whole model never has to fit into main memory.
                device_map={"": str(device)},
                **{dtype_name: dtype},
            )
        except Exception as error:
            if is_out_of_memory(error):
                raise
            reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
            raise ModelError(f"cannot load {folder}: {reason}") from error
    return module.eval().requires_grad_(False)


def load_transformer(
    model_class: type, folder: Path, precision: str, device: torch.device, compiled: bool
) -> nn.Module:
    """A transformer as `load_component` loads it; with int8-weights quantised on the way to the device.

    compiled: its blocks by torch.compile, one code for all of them; on CUDA only.
    """
    if precision == INT8_WEIGHTS:
        # In main memory the files are only mapped: layer after layer is read, quantised and forgotten.
        transformer = load_component(model_class, folder, dtype_of(precision), torch.device("cpu"))
        with out_of_memory_explained(f"loading {folder.name}", str(device), "choose a smaller base model"):
            quantize_blocks(transformer, device)
            transformer = transformer.to(device)
    else:
        transformer = load_component(model_class, folder, dtype_of(precision), device)
    if compiled and device.type == "cuda":
        transformer.compile_repeated_blocks()
    return transformer


def _diffusers_version() -> tuple[int, int]:
    import diffusers

    major, minor = diffusers.__version__.split(".")[:2]
    return int(major), int(minor)


@contextmanager
def without_progress_bars() -> Iterator[None]:
    """The libraries' bars would mix with ours on stderr, and show in quiet mode."""
    from diffusers.utils import logging as diffusers_logging
    from transformers.utils import logging as transformers_logging

    loggings = [log for log in (diffusers_logging, transformers_logging) if log.is_progress_bar_enabled()]
    for log in loggings:
        log.disable_progress_bar()
    try:
        yield
    finally:
        for log in loggings:
            log.enable_progress_bar()


@contextmanager
def borrowed_text_encoder(
    model_class: type, folder: Path, dtype: torch.dtype, device: torch.device, needed_bytes: int, idle: list[nn.Module]
) -> Iterator[nn.Module]:
    """A text encoder for a moment: loaded, yielded, freed.

    Args:
        needed_bytes: what it takes. idle: modules that move to main memory meanwhile where both do not fit.
    """
    free = free_memory_bytes(str(device)) if device.type == "cuda" else None
    with set_aside([] if free is None or free > needed_bytes else idle, str(device)):
        encoder = load_component(model_class, folder, dtype, device)
        try:
            yield encoder
        finally:
            del encoder  # `set_aside` hands its memory back
