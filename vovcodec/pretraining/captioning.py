"""Trains text encoder and cross-attention to make colours and subjects that a caption names.

Where the picture is decided, at high noise, the stages before spend few steps, and a codec's pictures are mostly made
without a caption. Here times are high, every caption names its picture's colours, and channels count by their variance
(beta = 1). What is predicted for the empty caption is held by a penalty, the squared change of F (precondition.py) from
what it was before: files without a caption must not be coded worse.
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
from vovcodec.backbone.pocket.detail import CompletedTransformer
from vovcodec.pretraining.batches import SHAPES, Batch, BatchShape, draw_batch
from vovcodec.pretraining.corpus import Corpus
from vovcodec.pretraining.initial import initial_model, initial_networks
from vovcodec.pretraining.joint import averaged_joint_networks, steps_so_far
from vovcodec.pretraining.state import assign, read_state, write_state
from vovcodec.pretraining.transformer import TransformerRecipe, draw_times, noisy_state, predict, prediction_loss

__all__ = ["base_networks", "captioned_networks", "load_captions", "train_captions"]

LOGIT_MEAN, LOGIT_STD = 2.5, 1.0
_EMPTY_TIMES = (0.0, 1.8)  # of logit(t): where pictures are coded
_SHAPES = (BatchShape(1, 64, 64, 3.0), BatchShape(1, 96, 128, 1.0), BatchShape(9, 64, 64, 1.0))
_LR = 2e-3
_EMPTY_WEIGHT = 20.0
_AVERAGE = 0.99

Networks = tuple[nn.Module, nn.Module]
"""Completed transformer and text encoder."""


def load_captions(run_dir: Path, networks: Networks, start: list[int]) -> dict:
    """Puts the averaged weights of this stage into the networks and returns its figures; {} where it was left out.

    start: steps of the stages before. Raises UsageError when the stage started from other ones.
    """
    path = run_dir / "captions.pt"
    if not path.is_file():
        return {}
    state = read_state(path, start)
    assign(_trained(networks), state["average"])
    return {"steps": state["step"], **state["figures"]}


def base_networks(run_dir: Path, recipe: TransformerRecipe) -> tuple[Networks, list[int]]:
    """Averaged networks before this stage, and the steps of the stages so far; of a run that continues a model folder
    (initial.py) that model's, and its fingerprint.

    Raises UsageError as `averaged_joint_networks` does.
    """
    initial = initial_model(run_dir)
    if initial is not None:
        return initial_networks(initial)
    autoencoder = BlockTransformAutoencoder.from_pretrained(run_dir / "basis")
    (transformer, text, detail), joint = averaged_joint_networks(run_dir, recipe, autoencoder.config.latent_channels)
    return (CompletedTransformer(transformer, detail), text), steps_so_far(joint)


def captioned_networks(run_dir: Path, recipe: TransformerRecipe) -> tuple[Networks, list[int]]:
    """Averaged networks of a run after this stage and the ones before, and the steps of all of them.

    Raises UsageError as `base_networks` and `load_captions` do.
    """
    networks, start = base_networks(run_dir, recipe)
    return networks, [*start, load_captions(run_dir, networks, start).get("steps", 0)]


def _trained(networks: Networks) -> list[nn.Parameter]:
    """The text encoder's parameters, and those of the transformer's cross-attention."""
    crossing = [p for name, p in networks[0].named_parameters() if ".attn2." in name or ".norm2." in name]
    return [*networks[1].parameters(), *crossing]


def train_captions(
    networks: Networks,
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
) -> Networks:
    """Train `networks`, or continue the run kept in `run_dir/captions.pt`; returns them with averaged weights.

    start: as in `load_captions`. n_steps may change when a run is continued.
    """
    autoencoder = autoencoder.to(device).eval().requires_grad_(False)
    networks = tuple(network.to(device).eval().requires_grad_(False) for network in networks)
    before = copy.deepcopy(networks)
    parameters = [p.requires_grad_(True) for p in _trained(networks)]
    average = [p.detach().clone() for p in parameters]
    optimizer = torch.optim.AdamW(parameters, lr=_LR, betas=(0.9, 0.98), weight_decay=0.0)
    path, step = run_dir / "captions.pt", 0
    if path.exists():
        state = read_state(path, start, device)
        assign(parameters, state["model"])
        optimizer.load_state_dict(state["optimizer"])
        average, step = state["average"], state["step"]

    def save(figures: dict[str, float]) -> None:
        state = {
            "model": [p.detach() for p in parameters],
            "optimizer": optimizer.state_dict(),
            "average": average,
            "step": step,
            "start": start,
            "figures": figures,
        }
        write_state(state, path)

    def drawn(source: Corpus, seed: int, index: int, shapes: tuple[BatchShape, ...]) -> tuple[Batch, torch.Generator]:
        """Half a batch whose captions all name colours, and the generator of its noise and times."""
        batch = draw_batch(
            source,
            seed=seed,
            step=index,
            tokens_per_batch=recipe.tokens_per_batch // 2,
            caption_dropout=0.0,
            colour_words_share=1.0,
            shapes=shapes,
        )
        return batch, torch.Generator().manual_seed(seed * 1_000_003 + index)

    def caption_loss(source: Corpus, seed: int, index: int, pair: Networks) -> Tensor:
        """The objective of transformer.py, at high noise."""
        batch, generator = drawn(source, seed, index, _SHAPES)
        frames = batch.frames.to(device)
        t = draw_times(len(frames), LOGIT_MEAN, LOGIT_STD, generator).to(device)
        with torch.autocast(frames.device.type, torch.bfloat16):
            return prediction_loss(*pair, autoencoder, frames, batch.captions, t, generator, 1.0)

    def empty_change(source: Corpus, seed: int, index: int) -> Tensor:
        """Mean squared change of F for the empty caption."""
        batch, generator = drawn(source, seed, index, SHAPES)
        t = draw_times(len(batch.frames), *_EMPTY_TIMES, generator).to(device)
        _, x_t, coefficients = noisy_state(autoencoder, batch.frames.to(device), t, generator)
        state = (x_t, t, [""] * len(t), coefficients)
        with torch.autocast(x_t.device.type, torch.bfloat16):
            with torch.no_grad():
                wanted = predict(before, *state).float()
            return (predict(networks, *state).float() - wanted).square().mean()

    @torch.no_grad()
    def held_out() -> dict[str, float]:
        """Losses on held-out captions before and now, and the change for the empty one."""
        held = corpus.held_out()
        numbers = range(16)
        return {
            "loss_before": sum(float(caption_loss(held, 999, i, before)) for i in numbers) / len(numbers),
            "loss": sum(float(caption_loss(held, 999, i, networks)) for i in numbers) / len(numbers),
            "empty_change": sum(float(empty_change(held, 998, i)) for i in numbers) / len(numbers),
        }

    started = last_saved = time.monotonic()
    while step < n_steps and time.monotonic() - started < stop_after_s:
        loss = caption_loss(corpus, recipe.seed + 71, step, networks)
        loss.backward()
        change = empty_change(corpus, recipe.seed + 73, step)
        (_EMPTY_WEIGHT * change).backward()
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.param_groups[0]["lr"] = _LR * min(1.0, (step + 1) / 50, 1.5 * (n_steps - step) / n_steps)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        step += 1
        with torch.no_grad():
            torch._foreach_lerp_(average, parameters, 1 - min(_AVERAGE, step / (step + 10)))
        if step % 25 == 0:
            figures = f"loss {loss.item():.4f}, change without caption {change.item():.1e}"
            print(f"captions: step {step} {figures} {time.monotonic() - started:.0f}s", flush=True)
        if time.monotonic() - last_saved > save_every_s:
            save({})
            last_saved = time.monotonic()
    last = [p.detach().clone() for p in parameters]
    assign(parameters, average)
    figures = held_out()
    print(json.dumps({"step": step, **figures}), flush=True)
    assign(parameters, last)
    save(figures)
    assign(parameters, average)
    return networks
