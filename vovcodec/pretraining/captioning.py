"""Trains the text encoder alone to say colours and subjects to the finished transformer.

Where the picture is decided, at high noise, the stages before spend few steps, and a codec's pictures are mostly made
without a caption. Here times are high, every caption names its picture's colours, and all other networks stay as they
are. So does the embedding of the empty caption, held by a penalty: what is coded without a caption does not change.
"""

from __future__ import annotations

import copy
import json
import math
import time
from pathlib import Path

import torch
from torch import Tensor, nn

from vovcodec.backbone.pocket.block_transform import BlockTransformAutoencoder
from vovcodec.errors import UsageError
from vovcodec.pretraining.batches import BatchShape, draw_batch
from vovcodec.pretraining.corpus import Corpus
from vovcodec.pretraining.transformer import TransformerRecipe, caption_tokens, draw_times, prediction_loss

__all__ = ["averaged_text_encoder", "train_captions"]

LOGIT_MEAN, LOGIT_STD = 2.0, 1.0
_SHAPES = (BatchShape(1, 64, 64, 3.0), BatchShape(1, 96, 128, 1.0), BatchShape(9, 64, 64, 1.0))
_LR = 1e-3
_EMPTY_WEIGHT = 10.0
_AVERAGE = 0.99


def averaged_text_encoder(run_dir: Path, text: nn.Module, start: list[int]) -> tuple[nn.Module, dict]:
    """The averaged text encoder of this stage and its figures; `text` and {} where the stage was left out.

    start: steps of the stages before. Raises UsageError when the stage started from other ones.
    """
    path = run_dir / "captions.pt"
    if not path.is_file():
        return text, {}
    state = torch.load(path, map_location="cpu", weights_only=True)
    if state["start"] != start:
        raise UsageError(f"{path} started from other weights than {run_dir} holds now; delete it to train anew")
    text.load_state_dict(state["average"])
    return text, {"steps": state["step"], "loss": state["loss"], "loss_before": state["loss_before"]}


def train_captions(
    networks: tuple[nn.Module, nn.Module],
    autoencoder: BlockTransformAutoencoder,
    corpus: Corpus,
    recipe: TransformerRecipe,
    run_dir: Path,
    start: list[int],
    *,
    n_steps: int = 600,
    device: str = "cpu",
    stop_after_s: float = math.inf,
    save_every_s: float = 60.0,
) -> nn.Module:
    """Train, or continue the run kept in `run_dir/captions.pt`; returns the averaged text encoder.

    networks: completed transformer and text encoder. start: as in `averaged_text_encoder`. n_steps may change when a
    run is continued.
    """
    autoencoder = autoencoder.to(device).eval().requires_grad_(False)
    transformer = networks[0].to(device).eval().requires_grad_(False)
    before = copy.deepcopy(networks[1]).to(device).eval().requires_grad_(False)
    text = networks[1].to(device).train().requires_grad_(True)
    average = copy.deepcopy(before)
    optimizer = torch.optim.AdamW(text.parameters(), lr=_LR, betas=(0.9, 0.98), weight_decay=0.0)
    path, step = run_dir / "captions.pt", 0
    if path.exists():
        averaged_text_encoder(run_dir, average, start)
        state = torch.load(path, map_location=device, weights_only=True)
        text.load_state_dict(state["model"])
        optimizer.load_state_dict(state["optimizer"])
        step = state["step"]
    empty_before = _empty(before)

    def save(**figures: float) -> None:
        state = {
            "model": text.state_dict(),
            "optimizer": optimizer.state_dict(),
            "average": average.state_dict(),
            "step": step,
            "start": start,
        }
        torch.save(state | {"loss": math.nan, "loss_before": math.nan} | figures, path.with_suffix(".tmp"))
        path.with_suffix(".tmp").replace(path)

    def loss_of(encoder: nn.Module, drawn_from: Corpus, seed: int, index: int) -> Tensor:
        """The objective of transformer.py on captions that all name colours."""
        batch = draw_batch(
            drawn_from,
            seed=seed,
            step=index,
            tokens_per_batch=recipe.tokens_per_batch // 2,
            caption_dropout=0.0,
            colour_words_share=1.0,
            shapes=_SHAPES,
        )
        frames = batch.frames.to(device)
        generator = torch.Generator().manual_seed(seed * 1_000_003 + index)
        t = draw_times(len(frames), LOGIT_MEAN, LOGIT_STD, generator).to(device)
        with torch.autocast(frames.device.type, torch.bfloat16):
            return prediction_loss(transformer, encoder, autoencoder, frames, batch.captions, t, generator, recipe.beta)

    @torch.no_grad()
    def held_out(encoder: nn.Module) -> float:
        held = corpus.held_out()
        return sum(float(loss_of(encoder, held, 999, index)) for index in range(16)) / 16

    started = last_saved = time.monotonic()
    while step < n_steps and time.monotonic() - started < stop_after_s:
        loss = loss_of(text, corpus, recipe.seed + 71, step)
        moved = (_empty(text) - empty_before).square().mean() / empty_before.square().mean()
        (loss + _EMPTY_WEIGHT * moved).backward()
        torch.nn.utils.clip_grad_norm_(text.parameters(), 1.0)
        optimizer.param_groups[0]["lr"] = _LR * min(1.0, (step + 1) / 50, 1.5 * (n_steps - step) / n_steps)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        step += 1
        with torch.no_grad():
            weight = 1 - min(_AVERAGE, step / (step + 10))
            torch._foreach_lerp_(list(average.parameters()), list(text.parameters()), weight)
        if step % 25 == 0:
            figures = f"loss {loss.item():.4f} empty caption moved {moved.item():.1e}"
            print(f"captions: step {step} {figures} {time.monotonic() - started:.0f}s", flush=True)
        if time.monotonic() - last_saved > save_every_s:
            save()
            last_saved = time.monotonic()
    figures = {"loss_before": held_out(before), "loss": held_out(average)}
    print(json.dumps({"step": step, **figures}), flush=True)
    save(**figures)
    return average


def _empty(text: nn.Module) -> Tensor:
    """Embedding of the empty caption, [1, n, W]."""
    ids, mask = (x.to(next(text.parameters()).device) for x in caption_tokens([""]))
    return text(ids, attention_mask=mask).last_hidden_state[mask.bool()][None]
