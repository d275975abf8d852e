"""Memory a base model needs, memory that is free, and what to say when it runs out.

Importable without torch. All figures are estimates in bytes; what they rest on is said at `memory_needed`.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from vovcodec.backbone.catalog import ModelFacts
from vovcodec.errors import ModelError

if TYPE_CHECKING:
    from torch import nn

__all__ = [
    "MemoryNeed",
    "choose_checkpointing",
    "free_memory_bytes",
    "in_gib",
    "is_out_of_memory",
    "memory_line",
    "memory_needed",
    "out_of_memory_explained",
    "precision_remedies",
    "release_memory",
    "set_aside",
    "what_fits",
]

_VALUE_BYTES = {"bfloat16": 2, "float32": 4, "int8-weights": 2}
_WEIGHT_BYTES = _VALUE_BYTES | {"int8-weights": 1}
# Bytes per token, block and unit of width or feed-forward width that the backward pass of an adapted Wan block keeps
# in bfloat16: counted with saved-tensor hooks at three sizes (Qwen-Image's blocks keep a little less).
_KEPT_PER_WIDTH, _KEPT_PER_FFN = 40, 2
# A forward pass without gradients: float32 norms, float64 rotary products, query, key, value and output at once.
_WORKING_PER_WIDTH, _WORKING_PER_FFN = 28, 4
# The autoencoder's last stage: 96 channels of four frames in float32, about ten of them alive with its caches.
_AUTOENCODER_PER_PIXEL = 96 * 4 * 4 * 10
_TILE_PIXELS = 256 * 256
_SLACK = 1.1


@dataclass(frozen=True)
class MemoryNeed:
    """Bytes on the device for one base model and one segment.

    weights: transformer and autoencoder, which stay. text_encoder: for a moment, while a caption is embedded.
    frames: the autoencoder at work; frames_tiled: the same in tiles. decode: one network evaluation.
    fit: one evaluation and its backward pass, by gradient checkpointing mode.
    """

    weights: int
    text_encoder: int
    frames: int
    frames_tiled: int
    decode: int
    fit: dict[str, int]

    def to_decode(self) -> int:
        """The least that decoding takes: the text encoder alone, or the weights with the autoencoder in tiles."""
        return int(_SLACK * max(self.text_encoder, self.weights + max(self.decode, self.frames_tiled)))

    def to_encode(self) -> int:
        """The least that encoding with a vector takes, with full checkpointing."""
        return int(_SLACK * max(self.text_encoder, self.weights + max(self.fit["full"], self.frames_tiled)))


def memory_needed(
    facts: ModelFacts, precision: str = "bfloat16", *, n_frames: int = 81, width: int = 832, height: int = 480
) -> MemoryNeed:
    """Estimate for segments of `n_frames` frames of width × height pixels.

    Weights are exact parameter counts. What a backward pass keeps was counted on small models of the real classes; the
    rest follows from tensor sizes in the classes' code and was not measured on a GPU.
    """
    size, weight_size = _VALUE_BYTES.get(precision, 2), _WEIGHT_BYTES.get(precision, 2)
    if facts.max_frames == 1:
        n_frames = 1
    tokens = facts.n_tokens(n_frames, width, height)
    scale = size / 2
    block_kept = int(scale * tokens * (_KEPT_PER_WIDTH * facts.width + _KEPT_PER_FFN * facts.ffn_width))
    working = int(scale * tokens * (_WORKING_PER_WIDTH * facts.width + _WORKING_PER_FFN * facts.ffn_width))
    block_input = size * tokens * facts.width
    pixel_values = 3 * 4 * n_frames * width * height
    return MemoryNeed(
        weights=weight_size * facts.transformer_params + 4 * facts.autoencoder_params,
        text_encoder=size * facts.text_encoder_params,
        frames=_AUTOENCODER_PER_PIXEL * width * height + 2 * pixel_values,
        frames_tiled=_AUTOENCODER_PER_PIXEL * min(_TILE_PIXELS, width * height) + 3 * pixel_values,
        decode=working,
        fit={
            "none": facts.n_blocks * block_kept + working,
            "attention": 2 * facts.n_blocks * block_input + block_kept + working,
            "full": facts.n_blocks * block_input + block_kept + working,
        },
    )


def choose_checkpointing(need: MemoryNeed, free_bytes: int | None) -> str:
    """The fastest mode of `checkpointing.CHECKPOINTING` whose activations fit; weights are already in place."""
    for mode in ("none", "attention"):
        if free_bytes is None or _SLACK * need.fit[mode] < free_bytes:
            return mode
    return "full"


def free_memory_bytes(device: str) -> int | None:
    """Free bytes on a device ("cpu": what the system can hand out without swapping); None where it cannot be told."""
    if str(device).startswith("cuda"):
        import torch

        return torch.cuda.mem_get_info(torch.device(device))[0]
    try:
        with open("/proc/meminfo", encoding="ascii") as lines:
            for line in lines:
                if line.startswith("MemAvailable:"):
                    return 1024 * int(line.split()[1])
    except OSError:
        pass
    try:
        return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, ValueError, OSError):
        return None


def memory_line(facts: ModelFacts, precision: str, device: str, **size: int) -> str:
    """One line for people: what the model needs and what is free. `size`: as in `memory_needed`."""
    need, free = memory_needed(facts, precision, **size), free_memory_bytes(device)
    available = "unknown" if free is None else in_gib(free)
    return (
        f"{facts.id} in {precision} needs about {in_gib(need.to_decode())} to decode and {in_gib(need.to_encode())} to "
        f"encode with a vector; free on {device}: {available}"
    )


def what_fits(facts: ModelFacts, device: str) -> str:
    """What of decoding and encoding with a vector fits into what is free on `device`, in which precision."""
    free = free_memory_bytes(device)
    parts = []
    for precision in ("bfloat16", "int8-weights"):
        need = memory_needed(facts, precision)
        for verb, size_bytes in (("decode", need.to_decode()), ("encode", need.to_encode())):
            fits = "" if free is None else (" fits" if size_bytes <= free else " does not fit")
            parts.append(f"{verb} in {precision} {in_gib(size_bytes)}{fits}")
    return ", ".join(parts)


@contextlib.contextmanager
def out_of_memory_explained(activity: str, device: str, *remedies: str) -> Iterator[None]:
    """Turns running out of memory inside into ModelError: what was done, what is free, which options help."""
    try:
        yield
    except Exception as error:
        if not is_out_of_memory(error):
            raise
        with contextlib.suppress(Exception):
            release_memory(device)
        free = free_memory_bytes(device)
        left = "" if free is None else f" ({in_gib(free)} free after giving up)"
        advice = ", or ".join(remedies) or "use a device with more memory"
        raise ModelError(f"out of memory on {device} while {activity}{left}; {advice}") from error


def precision_remedies(precision: str) -> list[str]:
    """What to say about the precision where memory ran out."""
    smaller = {"float32": "bfloat16 or int8-weights", "bfloat16": "int8-weights"}.get(precision)
    return [f"encode with --precision {smaller}"] if smaller else []


def is_out_of_memory(error: Exception) -> bool:
    """Whether an error of PyTorch or Python means that memory ran out."""
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
        return True
    text = str(error).lower()
    return isinstance(error, RuntimeError) and ("out of memory" in text or "can't allocate memory" in text)


def release_memory(device: str) -> None:
    """Hand back what no tensor holds any more."""
    import gc

    import torch

    gc.collect()
    if str(device).startswith("cuda"):
        torch.cuda.empty_cache()


@contextlib.contextmanager
def set_aside(modules: Sequence[nn.Module], device: str) -> Iterator[None]:
    """While inside, `modules` are in main memory and their place on `device` is free."""
    for module in modules:
        module.to("cpu")
    release_memory(device)
    try:
        yield
    finally:
        release_memory(device)
        for module in modules:
            module.to(device)


def in_gib(size_bytes: int) -> str:
    """For messages: `1.5 GiB`, without decimals from 100 on."""
    gib = size_bytes / 2**30
    return f"{gib:.1f} GiB" if gib < 100 else f"{gib:,.0f} GiB"
