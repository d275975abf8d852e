"""Trains transformer and detail network on what the spaces of pictures and clips show them.

The stages before add noise to the block transform's own latents. In use x_t lies in the space of pictures.py or
clips.py, and the transformer sees what `to_blocks` makes of it: noise that is nearly white, damping that is nearly
undone. Here it learns these states, with the squared error in pixels as the objective (beta = 1), which is what
steering pays for. The text encoder stays as it is.
"""

from __future__ import annotations

import json
import math
import time
from pathlib import Path

import torch
from torch import Tensor, nn

from vovcodec.backbone.pocket.block_transform import BlockTransformAutoencoder
from vovcodec.backbone.pocket.clips import ClipNetwork
from vovcodec.backbone.pocket.detail import CompletedTransformer
from vovcodec.backbone.pocket.pictures import PictureNetwork
from vovcodec.backbone.pocket.precondition import precondition
from vovcodec.pretraining import spaces as space_stages
from vovcodec.pretraining.batches import SHAPES, draw_batch
from vovcodec.pretraining.captioning import captioned_networks
from vovcodec.pretraining.completion import begun_network
from vovcodec.pretraining.corpus import Corpus
from vovcodec.pretraining.state import assign, read_state, write_state
from vovcodec.pretraining.transformer import TransformerRecipe, draw_times, make_optimizers, weighted_error

__all__ = ["LOGIT_MEAN", "LOGIT_STD", "finished_networks", "load_shown", "train_shown"]

LOGIT_MEAN, LOGIT_STD = 0.3, 1.3
_LR_SCALE = 0.25  # of the transformer recipe's learning rates
_WARMUP = 100
_AVERAGE = 0.998
_BETA = 1.0

Networks = tuple[CompletedTransformer, nn.Module]
Spaces = tuple[PictureNetwork, ClipNetwork]
"""Neither is asked to denoise here."""


def load_shown(run_dir: Path, networks: Networks, start: list[int]) -> dict:
    """Puts the averaged weights of this stage into the networks and returns its figures; {} where it was left out.

    start: steps of the stages before. Raises UsageError when the stage started from other ones.
    """
    path = run_dir / "shown.pt"
    if not path.is_file():
        return {}
    state = read_state(path, start)
    assign(networks[0].parameters(), state["average"])
    return {"steps": state["step"], **state["figures"]}


def finished_networks(run_dir: Path, recipe: TransformerRecipe) -> tuple[Networks, list[int]]:
    """Averaged networks of a run after this stage and the ones before, and the steps of all of them.

    Raises UsageError as `captioned_networks` and `load_shown` do.
    """
    networks, start = captioned_networks(run_dir, recipe)
    return networks, [*start, load_shown(run_dir, networks, start).get("steps", 0)]


def _shown_loss(
    networks: Networks,
    spaces: Spaces,
    autoencoder: BlockTransformAutoencoder,
    frames: Tensor,
    captions: list[str],
    t: Tensor,
    generator: torch.Generator,
) -> Tensor:
    """The objective of transformer.py for frames [B, 3, F, H, W] at times [B], on the states that are shown."""
    with torch.no_grad():
        space = spaces[0] if frames.shape[2] == 1 else spaces[1]
        clean = space.encode(frames)
        noise = torch.randn(clean.shape, generator=generator).to(clean.device)
        column = t.view(-1, 1, 1, 1, 1)
        shown = space.to_blocks((1 - column) * clean + column * noise, t, autoencoder)
        wanted = autoencoder.encode(frames)
        coefficients = precondition(t, autoencoder.channel_std(wanted.shape[2]))
    with torch.autocast(frames.device.type, torch.bfloat16):
        return weighted_error(networks, wanted, shown, captions, t, coefficients, _BETA)


def train_shown(
    networks: Networks,
    autoencoder: BlockTransformAutoencoder,
    corpus: Corpus,
    recipe: TransformerRecipe,
    run_dir: Path,
    start: list[int],
    *,
    n_steps: int = 1200,
    device: str = "cpu",
    stop_after_s: float = math.inf,
    save_every_s: float = 120.0,
) -> Networks:
    """Train `networks`, or continue the run kept in `run_dir/shown.pt`; returns them with averaged weights.

    start: as in `load_shown`. n_steps may change when a run is continued. Raises UsageError as `load_shown` does.
    """
    stages = (space_stages.PICTURES, space_stages.CLIPS)
    spaces = tuple(begun_network(stage, autoencoder, corpus, run_dir, recipe.seed) for stage in stages)
    for space in spaces:
        space.to(device).eval().requires_grad_(False)
    autoencoder = autoencoder.to(device).eval().requires_grad_(False)
    completed, text = (network.to(device).eval() for network in networks)
    completed.requires_grad_(True)
    text.requires_grad_(False)
    parameters = list(completed.parameters())
    average = [p.detach().clone() for p in parameters]
    optimizers = make_optimizers(completed.transformer, completed.detail, recipe, lr_scale=_LR_SCALE)
    base_lrs = [[g["lr"] for g in o.param_groups] for o in optimizers]

    @torch.no_grad()
    def held_out() -> float:
        """Loss on held-out items with fixed noise and times stratified over their distribution."""
        generator, total, n_batches = torch.Generator().manual_seed(1), 0.0, 16
        for i in range(n_batches):
            batch = draw_batch(
                corpus.held_out(),
                seed=999,
                step=i,
                tokens_per_batch=recipe.tokens_per_batch,
                caption_dropout=0.0,
                shapes=SHAPES,
            )
            n = len(batch.captions)
            t = torch.sigmoid(LOGIT_MEAN + LOGIT_STD * torch.special.ndtri((torch.arange(n) + 0.5) / n)).to(device)
            frames = batch.frames.to(device)
            total += _shown_loss(networks, spaces, autoencoder, frames, batch.captions, t, generator).item()
        return total / n_batches

    path, step = run_dir / "shown.pt", 0
    if path.exists():
        state = read_state(path, start, device)
        assign(parameters, state["model"])
        for optimizer, saved in zip(optimizers, state["optimizers"], strict=True):
            optimizer.load_state_dict(saved)
        average, step, figures = state["average"], state["step"], state["figures"]
    else:
        figures = {"loss_before": held_out()}
        print(json.dumps(figures), flush=True)

    def save() -> None:
        state = {
            "model": [p.detach() for p in parameters],
            "optimizers": [o.state_dict() for o in optimizers],
            "average": average,
            "step": step,
            "start": start,
            "figures": figures,
        }
        write_state(state, path)

    started = last_saved = time.monotonic()
    running = None
    while step < n_steps and time.monotonic() - started < stop_after_s:
        batch = draw_batch(
            corpus, seed=recipe.seed + 89, step=step, tokens_per_batch=recipe.tokens_per_batch, shapes=SHAPES
        )
        generator = torch.Generator().manual_seed(recipe.seed * 1_000_003 + step)
        frames = batch.frames.to(device)
        t = draw_times(len(frames), LOGIT_MEAN, LOGIT_STD, generator).to(device)
        scale = min(1.0, (step + 1) / _WARMUP, (n_steps - step) / n_steps)
        for optimizer, lrs in zip(optimizers, base_lrs, strict=True):
            for group, lr in zip(optimizer.param_groups, lrs, strict=True):
                group["lr"] = lr * scale
        loss = _shown_loss(networks, spaces, autoencoder, frames, batch.captions, t, generator)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        for optimizer in optimizers:
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        step += 1
        with torch.no_grad():
            torch._foreach_lerp_(average, parameters, 1 - min(_AVERAGE, step / (step + 10)))
        running = loss.item() if running is None else 0.98 * running + 0.02 * loss.item()
        if step % 50 == 0:
            print(f"shown: step {step} loss {running:.4f} {time.monotonic() - started:.0f}s", flush=True)
        if time.monotonic() - last_saved > save_every_s:
            save()
            last_saved = time.monotonic()
    last = [p.detach().clone() for p in parameters]
    assign(parameters, average)
    figures["loss"] = held_out()
    print(json.dumps({"step": step, **figures}), flush=True)
    assign(parameters, last)
    save()
    assign(parameters, average)
    return networks
