"""Trains transformer, text encoder and detail network together, from the weights that their own stages left.

Alone, the transformer is trained for all times alike and the detail network for what it leaves undone; together each
learns to leave to the other what that one does better. Objective and optimisers are those of transformer.py; by default
times are drawn between the two stages' distributions. An exponential moving average of the weights is what is kept.
"""

from __future__ import annotations

import copy
import json
import math
import time
from pathlib import Path

import torch
from torch import nn

from vovcodec.backbone.pocket.block_transform import BlockTransformAutoencoder
from vovcodec.backbone.pocket.detail import CompletedTransformer, DetailNetwork
from vovcodec.errors import UsageError
from vovcodec.pretraining.batches import SHAPES, draw_batch
from vovcodec.pretraining.corpus import Corpus
from vovcodec.pretraining.state import write_state
from vovcodec.pretraining.transformer import (
    TransformerRecipe,
    averaged_networks,
    draw_times,
    make_optimizers,
    prediction_loss,
    validation_loss,
)

__all__ = ["LOGIT_MEAN", "LOGIT_STD", "averaged_joint_networks", "steps_so_far", "train_joint"]

LOGIT_MEAN, LOGIT_STD = 0.0, 1.5
_LR_SCALE = 0.5  # of the transformer recipe's learning rates: the networks are trained already
_LR_DETAIL = 1e-3
_WARMUP, _DECAY_FRACTION = 100, 0.8

Networks = tuple[nn.Module, nn.Module, DetailNetwork]


def averaged_joint_networks(run_dir: Path, recipe: TransformerRecipe, latent_channels: int) -> tuple[Networks, dict]:
    """Averaged transformer, text encoder and detail network of a run, and its figures.

    Figures: `start`, the steps of the transformer and of the detail network that the joint stage starts from; and,
    once there is one, its `steps` and `log`. Raises UsageError without a trained transformer and detail network, and
    when these are not the ones that the joint stage started from.
    """
    transformer, text, n_steps, _ = averaged_networks(run_dir, recipe, latent_channels)
    if not (run_dir / "detail").is_dir():
        raise UsageError(f"{run_dir} holds no trained detail network yet: run the stage detail first")
    networks = (transformer, text, DetailNetwork.from_pretrained(run_dir / "detail"))
    start = [n_steps, json.loads((run_dir / "detail.json").read_text())["steps"]]
    path = run_dir / "joint.pt"
    if not path.is_file():
        return networks, {"start": start}
    state = torch.load(path, map_location="cpu", weights_only=True)
    if state.get("start") != start or any("times" not in row for row in state["log"]):
        raise UsageError(
            f"{path} started from other weights than {run_dir} holds now, or is an older version's: delete it"
        )
    for module, saved in zip(networks, state["averages"], strict=True):
        module.load_state_dict(saved)
    return networks, {"start": start, "steps": state["step"], "log": state["log"]}


def steps_so_far(figures: dict) -> list[int]:
    """Steps of all stages up to this one, from the figures of `averaged_joint_networks`."""
    return [*figures["start"], figures.get("steps", 0)]


def train_joint(
    autoencoder: BlockTransformAutoencoder,
    corpus: Corpus,
    recipe: TransformerRecipe,
    run_dir: Path,
    *,
    n_steps: int = 3000,
    times: tuple[float, float] = (LOGIT_MEAN, LOGIT_STD),
    device: str = "cpu",
    stop_after_s: float = math.inf,
    save_every_s: float = 120.0,
) -> Networks:
    """Train, or continue the run kept in `run_dir/joint.pt`; returns the averaged networks.

    times: mean and standard deviation of logit(t), also of the held-out loss. These and n_steps may change when a run
    is continued: the learning rate then follows the new schedule.
    """
    from concurrent.futures import ThreadPoolExecutor

    autoencoder = autoencoder.to(device).eval().requires_grad_(False)
    networks, before = averaged_joint_networks(run_dir, recipe, autoencoder.config.latent_channels)
    averages = tuple(copy.deepcopy(m).to(device).eval().requires_grad_(False) for m in networks)
    for module in networks:
        module.to(device).train()
    transformer, text, detail = networks
    completed = CompletedTransformer(transformer, detail)
    completed_average = CompletedTransformer(averages[0], averages[2])
    optimizers = make_optimizers(transformer, text, recipe, lr_scale=_LR_SCALE)
    optimizers[1].add_param_group({"params": detail.parameters(), "lr": _LR_DETAIL})
    base_lrs = [[g["lr"] for g in o.param_groups] for o in optimizers]
    path, step, log = run_dir / "joint.pt", 0, []
    if path.exists():
        state = torch.load(path, map_location=device, weights_only=True)
        for module, saved in zip(networks, state["networks"], strict=True):
            module.load_state_dict(saved)
        for optimizer, saved in zip(optimizers, state["optimizers"], strict=True):
            optimizer.load_state_dict(saved)
        step, log = state["step"], state["log"]

    def save() -> None:
        state = {
            "networks": [m.state_dict() for m in networks],
            "averages": [m.state_dict() for m in averages],
            "optimizers": [o.state_dict() for o in optimizers],
            "step": step,
            "log": log,
            "start": before["start"],
        }
        write_state(state, path)

    def fetch(index: int):
        seed = recipe.seed + 47
        return draw_batch(corpus, seed=seed, step=index, tokens_per_batch=recipe.tokens_per_batch, shapes=SHAPES)

    def note_held_out_loss() -> None:
        held = validation_loss(
            completed_average, averages[1], autoencoder, corpus, recipe, logit_mean=times[0], logit_std=times[1]
        )
        elapsed_s = round(time.monotonic() - started)
        log.append({"step": step, "times": list(times), "held_out_loss": held, "elapsed_s": elapsed_s})
        print(json.dumps(log[-1]), flush=True)

    started = last_saved = time.monotonic()
    if not log or log[-1]["times"] != list(times):
        note_held_out_loss()
    running = None
    with ThreadPoolExecutor(1) as loader:
        pending = loader.submit(fetch, step)
        while step < n_steps and time.monotonic() - started < stop_after_s:
            batch = pending.result()
            pending = loader.submit(fetch, step + 1)
            generator = torch.Generator().manual_seed(recipe.seed * 1_000_003 + step)
            frames = batch.frames.to(device)
            t = draw_times(len(frames), *times, generator).to(device)
            scale = min(1.0, (step + 1) / _WARMUP, (n_steps - step) / (_DECAY_FRACTION * n_steps))
            for optimizer, lrs in zip(optimizers, base_lrs, strict=True):
                for group, lr in zip(optimizer.param_groups, lrs, strict=True):
                    group["lr"] = lr * scale
            with torch.autocast(frames.device.type, torch.bfloat16):
                loss = prediction_loss(completed, text, autoencoder, frames, batch.captions, t, generator, recipe.beta)
            loss.backward()
            torch.nn.utils.clip_grad_norm_([p for m in networks for p in m.parameters()], 1.0)
            for optimizer in optimizers:
                optimizer.step()
                optimizer.zero_grad(set_to_none=True)
            step += 1
            decay = min(recipe.ema, step / (step + 10))
            with torch.no_grad():
                for mean, module in zip(averages, networks, strict=True):
                    torch._foreach_lerp_(list(mean.parameters()), list(module.parameters()), 1 - decay)
            value = loss.item()
            running = value if running is None else 0.99 * running + 0.01 * value
            if step % 500 == 0 or step == n_steps:
                note_held_out_loss()
            elif step % 50 == 0:
                print(f"together: step {step} loss {running:.4f} {time.monotonic() - started:.0f}s", flush=True)
            if time.monotonic() - last_saved > save_every_s:
                save()
                last_saved = time.monotonic()
    save()
    return averages
