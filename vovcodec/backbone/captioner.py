"""`--caption auto`: a local vision-language model looks at a few frames and describes them in one sentence.

Any model that transformers loads as image-text-to-text with a chat template will do. Its folder or hub repository is
given by the caller or in $VOVCODEC_CAPTIONER; otherwise the first of `CAPTIONERS` found in the hub's cache is taken.
Nothing is ever downloaded. The caption is stored in the file, so the decoder does not need the captioner.
"""

from __future__ import annotations

import gc
import os
from pathlib import Path

import numpy as np

from vovcodec.errors import ModelError

__all__ = [
    "CAPTIONERS",
    "CAPTIONER_VARIABLE",
    "PROMPT",
    "PROMPT_STILL",
    "caption_frames",
    "find_captioner",
    "sampled_frames",
]

CAPTIONER_VARIABLE = "VOVCODEC_CAPTIONER"
CAPTIONERS = (
    "Qwen/Qwen2.5-VL-7B-Instruct",
    "Qwen/Qwen2.5-VL-3B-Instruct",
    "HuggingFaceTB/SmolVLM2-2.2B-Instruct",
    "HuggingFaceTB/SmolVLM2-500M-Video-Instruct",
    "llava-hf/llava-1.5-7b-hf",
)
# What text-to-video models were trained on: subject, action, setting, camera. Short, since every byte of the caption
# is stored.
PROMPT = (
    "These are frames of one video in order. Describe the video in one sentence of at most 40 words: the main subject "
    "with its colours, what it does, the setting, the light and the camera movement. Answer with the sentence only."
)
PROMPT_STILL = (
    "Describe this picture in one sentence of at most 40 words: the main subject with its colours, the setting, the "
    "composition and the light. Answer with the sentence only."
)
_N_FRAMES = 4
_LONG_SIDE_PX = 448
_MAX_NEW_TOKENS = 96


def caption_frames(frames: np.ndarray, *, model: str | Path | None = None, device: str = "auto") -> str:
    """A caption for uint8 frames [F, H, W, 3] (F = 1: a still).

    Args:
        model: folder or hub repository; None = `find_captioner`.
        device: "auto", "cpu", "cuda:0", …

    Raises ModelError when there is no captioner on this machine or it cannot be loaded.
    """
    import torch
    from PIL import Image
    from transformers import AutoModelForImageTextToText, AutoProcessor

    from vovcodec.backbone.loading import without_progress_bars
    from vovcodec.backbone.memory import is_out_of_memory, out_of_memory_explained
    from vovcodec.backbone.registry import pick_device

    folder, device = find_captioner(model), pick_device(device)
    dtype = torch.bfloat16 if device.startswith("cuda") else torch.float32
    with without_progress_bars(), out_of_memory_explained("captioning", device, "give the caption with --caption TEXT"):
        try:
            processor = AutoProcessor.from_pretrained(folder, local_files_only=True)
            network = AutoModelForImageTextToText.from_pretrained(
                folder, dtype=dtype, use_safetensors=True, local_files_only=True, device_map={"": device}
            ).eval()
        except (OSError, ValueError, ImportError, KeyError, RuntimeError) as error:
            if is_out_of_memory(error):
                raise
            reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
            raise ModelError(f"cannot load the captioner in {folder}: {reason}") from error
        pictures = [Image.fromarray(frame) for frame in sampled_frames(frames)]
        for picture in pictures:
            picture.thumbnail((_LONG_SIDE_PX, _LONG_SIDE_PX))
        content = [{"type": "image", "image": picture} for picture in pictures]
        content.append({"type": "text", "text": PROMPT if len(frames) > 1 else PROMPT_STILL})
        inputs = processor.apply_chat_template(
            [{"role": "user", "content": content}],
            add_generation_prompt=True,
            tokenize=True,
            return_dict=True,
            return_tensors="pt",
        ).to(device)
        with torch.inference_mode():
            tokens = network.generate(**inputs, max_new_tokens=_MAX_NEW_TOKENS, do_sample=False)
        answer = processor.batch_decode(tokens[:, inputs["input_ids"].shape[1] :], skip_special_tokens=True)[0]
        del network, inputs, tokens
    gc.collect()
    if device.startswith("cuda"):
        torch.cuda.empty_cache()  # the base model needs the room next
    return " ".join(answer.split())


def find_captioner(model: str | Path | None = None) -> Path:
    """The folder of a captioner on this machine; the arguments are those of `caption_frames`.

    Raises ModelError, saying what to download.
    """
    chosen = model or os.environ.get(CAPTIONER_VARIABLE)
    if chosen and Path(chosen).expanduser().is_dir():
        return Path(chosen).expanduser()
    for repository in (str(chosen),) if chosen else CAPTIONERS:
        folder = _cached(repository)
        if folder is not None:
            return folder
    if chosen:
        raise ModelError(f"no captioner {chosen}: neither a folder nor a repository in the hub's cache")
    raise ModelError(
        f"--caption auto needs a vision-language model on this machine: get one with `hf download {CAPTIONERS[0]}`, "
        f"set ${CAPTIONER_VARIABLE} to the folder of another, or give the caption with --caption TEXT"
    )


def sampled_frames(frames: np.ndarray) -> np.ndarray:
    """Up to four frames, each from the middle of an equal part of the clip."""
    n = min(_N_FRAMES, len(frames))
    return frames[[int((i + 0.5) * len(frames) / n) for i in range(n)]]


def _cached(repository: str) -> Path | None:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HFValidationError, LocalEntryNotFoundError

    try:
        return Path(snapshot_download(repository, local_files_only=True))
    except (LocalEntryNotFoundError, HFValidationError):
        return None
