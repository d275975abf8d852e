"""Trains the detail network on top of the trained transformer, which stays as it is.

Same objective as the transformer's (transformer.py), with times shifted towards low noise, where the transformer leaves
most undone. AdamW; an exponential moving average of the weights is what is kept.
"""

from __future__ import annotations

import json
import math
import time
from pathlib import Path

import torch
from torch import nn

from vovcodec.backbone.pocket.block_transform import BlockTransformAutoencoder
from vovcodec.backbone.pocket.detail import CompletedTransformer, DetailNetwork
from vovcodec.pretraining.batches import SHAPES, draw_batch
from vovcodec.pretraining.corpus import Corpus
from vovcodec.pretraining.state import write_state
from vovcodec.pretraining.transformer import TransformerRecipe, draw_times, prediction_loss, validation_loss

__all__ = ["LOGIT_MEAN", "LOGIT_STD", "train_detail"]

LOGIT_MEAN, LOGIT_STD = -0.7, 1.4
_LR = 2e-3


def train_detail(
    autoencoder: BlockTransformAutoencoder,
    corpus: Corpus,
    recipe: TransformerRecipe,
    run_dir: Path,
    networks: tuple[nn.Module, nn.Module],
    *,
    n_steps: int = 2400,
    width: int = 128,
    layers: int = 5,
    device: str = "cpu",
    stop_after_s: float = math.inf,
    save_every_s: float = 60.0,
) -> DetailNetwork:
    """Train, or continue the run kept in `run_dir/detail.pt`; writes `run_dir/detail/` and `run_dir/detail.json`.

    networks: trained transformer and text encoder. n_steps may change when a run is continued.
    """
    autoencoder = autoencoder.to(device).eval().requires_grad_(False)
    transformer, text = (m.to(device).eval().requires_grad_(False) for m in networks)
    torch.manual_seed(recipe.seed)
    detail = DetailNetwork(autoencoder.config.latent_channels, width, layers).to(device)
    parameters = list(detail.parameters())
    average = [p.detach().clone() for p in parameters]
    optimizer = torch.optim.AdamW(parameters, lr=_LR, betas=(0.9, 0.98), weight_decay=0.0)
    path, step = run_dir / "detail.pt", 0
    if path.exists():
        state = torch.load(path, map_location=device, weights_only=True)
        detail.load_state_dict(state["model"])
        optimizer.load_state_dict(state["optimizer"])
        average, step = state["average"], state["step"]

    def save() -> None:
        state = {
            "model": detail.state_dict(),
            "optimizer": optimizer.state_dict(),
            "average": average,
            "step": step,
        }
        write_state(state, path)

    completed = CompletedTransformer(transformer, detail)
    started = last_saved = time.monotonic()
    while step < n_steps and time.monotonic() - started < stop_after_s:
        batch = draw_batch(
            corpus, seed=recipe.seed + 31, step=step, tokens_per_batch=recipe.tokens_per_batch, shapes=SHAPES
        )
        frames = batch.frames.to(device)
        generator = torch.Generator().manual_seed(recipe.seed * 1_000_003 + step)
        t = draw_times(len(frames), LOGIT_MEAN, LOGIT_STD, generator).to(device)
        optimizer.param_groups[0]["lr"] = _LR * min(1.0, (step + 1) / 50, 1.5 * (n_steps - step) / n_steps)
        with torch.autocast(frames.device.type, torch.bfloat16):
            loss = prediction_loss(completed, text, autoencoder, frames, batch.captions, t, generator, recipe.beta)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        step += 1
        with torch.no_grad():
            torch._foreach_lerp_(average, parameters, 1 - min(0.995, step / (step + 10)))
        if step % 100 == 0:
            print(f"detail network: step {step} loss {loss.item():.4f} {time.monotonic() - started:.0f}s", flush=True)
        if time.monotonic() - last_saved > save_every_s:
            save()
            last_saved = time.monotonic()
    save()
    with torch.no_grad():
        for parameter, mean in zip(parameters, average, strict=True):
            parameter.copy_(mean)
    detail.eval()
    times = {"logit_mean": LOGIT_MEAN, "logit_std": LOGIT_STD}
    figures = {
        "steps": step,
        "held_out_loss_without": validation_loss(transformer, text, autoencoder, corpus, recipe, **times),
        "held_out_loss": validation_loss(completed, text, autoencoder, corpus, recipe, **times),
    }
    (run_dir / "detail.json").write_text(json.dumps(figures) + "\n")
    print(json.dumps(figures), flush=True)
    detail.save_pretrained(run_dir / "detail")
    return detail
