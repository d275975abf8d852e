"""Trains a network that completes the transformer's estimate in a space of pixels (backbone/pocket/pictures.py and
clips.py) on top of the finished transformer, which stays as it is.

Objective, with e the error of x̂₀ and e_px that of the pixels it decodes to, at times whose logit is normal:

    L = E[ (e² + β·(D·e_px)²) / s² ],     s² = 1/(1/σ² + 1/v),     D: gain of the space

The first term is what steering pays bits for, per octave of the signal-to-noise ratio; the second is what is seen. A
stage may count every sample's L relative to that of the transformer's estimate: otherwise samples with little noise and
much detail, which no small file can hold, have most of the say. An exponential moving average of the weights is kept.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from vovcodec.backbone.pocket.block_transform import BlockTransformAutoencoder
from vovcodec.backbone.pocket.clips import ClipNetwork
from vovcodec.backbone.pocket.pictures import PictureNetwork
from vovcodec.backbone.pocket.precondition import precondition
from vovcodec.errors import UsageError
from vovcodec.pretraining.batches import Batch, BatchShape, draw_batch
from vovcodec.pretraining.corpus import Corpus
from vovcodec.pretraining.initial import initial_model
from vovcodec.pretraining.state import assign, read_state, write_state
from vovcodec.pretraining.transformer import TransformerRecipe, draw_times, predict

__all__ = ["EMA", "CompletionStage", "begun_network", "train_completion", "trained_completion"]

_WARMUP, _DECAY_FRACTION = 200, 0.7
_PIXEL_WEIGHT = 0.1
EMA = 0.998

Networks = tuple[nn.Module, nn.Module]
"""Completed transformer and text encoder."""

CompletingNetwork = PictureNetwork | ClipNetwork


@dataclass(frozen=True)
class CompletionStage:
    """A network to train and what it is shown.

    name: of its files in a run folder.
    network_class, make: the network; an untrained one for an autoencoder.
    fit_space: fits its buffers (network, autoencoder, corpus, seed).
    shapes, tokens_per_batch: of the batches.
    lr, lr_matrices: of AdamW, and of Muon for the blocks' convolutions (0: AdamW for all).
    logit_mean, logit_std, most_noise: times are logit-normal and at most `most_noise`.
    relative: see the module's docstring.
    seed_offset: keeps the batches apart from those of other stages.
    """

    name: str
    network_class: type[CompletingNetwork]
    make: Callable[[BlockTransformAutoencoder], CompletingNetwork]
    fit_space: Callable[[CompletingNetwork, BlockTransformAutoencoder, Corpus, int], None]
    shapes: tuple[BatchShape, ...]
    tokens_per_batch: int
    lr: float
    lr_matrices: float
    logit_mean: float
    logit_std: float
    most_noise: float
    relative: bool
    seed_offset: int


class _Optimizers:
    """AdamW, and Muon for the convolutions inside blocks where the stage has a rate for it: a convolution counts as a
    matrix [outputs, inputs·9]."""

    def __init__(self, network: nn.Module, stage: CompletionStage) -> None:
        self._matrices, rest = [], []
        for name, parameter in network.named_parameters():
            is_matrix = stage.lr_matrices and parameter.dim() == 4 and name.startswith(("down.", "up."))
            (self._matrices if is_matrix else rest).append(parameter)
        self._views = [nn.Parameter(p.data.flatten(1)) for p in self._matrices]  # of the same memory
        self._rates = [(torch.optim.AdamW(rest, lr=stage.lr, betas=(0.9, 0.99), weight_decay=0.0), stage.lr)]
        if self._matrices:
            muon = torch.optim.Muon(self._views, lr=stage.lr_matrices, momentum=0.95, weight_decay=0.0)
            self._rates.append((muon, stage.lr_matrices))

    def step(self, share: float) -> None:
        """One step at this share of the learning rates; gradients are dropped."""
        for view, parameter in zip(self._views, self._matrices, strict=True):
            view.grad, parameter.grad = parameter.grad.flatten(1), None
        for optimizer, rate in self._rates:
            for group in optimizer.param_groups:
                group["lr"] = rate * share
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)

    def state_dict(self) -> list[dict]:
        return [optimizer.state_dict() for optimizer, _ in self._rates]

    def load_state_dict(self, states: list[dict]) -> None:
        for (optimizer, _), state in zip(self._rates, states, strict=True):
            optimizer.load_state_dict(state)


@torch.no_grad()
def _transformer_estimate(
    networks: Networks,
    autoencoder: BlockTransformAutoencoder,
    network: CompletingNetwork,
    x_t: Tensor,
    t: Tensor,
    captions: list[str],
) -> Tensor:
    blocks = network.to_blocks(x_t, t, autoencoder)
    coefficients = precondition(t, autoencoder.channel_std(blocks.shape[2]))
    with torch.autocast(t.device.type, torch.bfloat16):
        predicted = predict(networks, blocks, t, captions, coefficients)
    return network.from_blocks(coefficients.c_skip * blocks + coefficients.c_out * predicted.float(), autoencoder)


def _loss(
    networks: Networks,
    autoencoder: BlockTransformAutoencoder,
    network: CompletingNetwork,
    batch: Batch,
    t: Tensor,
    generator: torch.Generator,
    *,
    relative: bool,
) -> tuple[Tensor, Tensor]:
    """L of the module's docstring, and the same for the transformer's estimate alone."""
    x0 = network.encode(batch.frames.to(t.device))
    noise = torch.randn(x0.shape, generator=generator).to(x0.device)
    column = t.view(-1, 1, 1, 1, 1)
    x_t = (1 - column) * x0 + column * noise
    prior = _transformer_estimate(networks, autoencoder, network, x_t, t, batch.captions)
    with torch.autocast(t.device.type, torch.bfloat16):
        clean = network(x_t, prior, t)
    in_latents, in_pixels = network.error_weights(t, batch.frames.shape[2])

    def measure(error: Tensor) -> Tensor:
        pixels = network.decode(error).square() * in_pixels
        return (error.square() * in_latents).flatten(1).mean(1) + _PIXEL_WEIGHT * pixels.flatten(1).mean(1)

    loss, without = measure(clean - x0), measure((prior - x0).detach())
    if relative:
        return (loss / without).mean(), (without / without).mean()
    return loss.mean(), without.mean()


@torch.no_grad()
def _held_out(
    networks: Networks,
    autoencoder: BlockTransformAutoencoder,
    network: CompletingNetwork,
    corpus: Corpus,
    stage: CompletionStage,
) -> tuple[float, float]:
    held, device = corpus.held_out(), next(network.parameters()).device
    generator, totals, n_batches = torch.Generator().manual_seed(1), [0.0, 0.0], 16
    for i in range(n_batches):
        batch = draw_batch(
            held,
            seed=999,
            step=i,
            tokens_per_batch=stage.tokens_per_batch,
            caption_dropout=0.0,
            shapes=stage.shapes,
        )
        n = len(batch.captions)
        # Quantiles of the times' distribution, in an order that mixes them over the batches.
        at = (torch.arange(n) + ((i * 0.6180339887) % 1.0 if n < 4 else 0.5)) / n
        t = torch.sigmoid(stage.logit_mean + stage.logit_std * torch.special.ndtri(at.clamp(0.02, 0.98)))
        t = t.clamp_max(stage.most_noise).to(device)
        losses = _loss(networks, autoencoder, network, batch, t, generator, relative=stage.relative)
        for index, loss in enumerate(losses):
            totals[index] += loss.item() / n_batches
    return totals[0], totals[1]


def begun_network(
    stage: CompletionStage, autoencoder: BlockTransformAutoencoder, corpus: Corpus, run_dir: Path, seed: int
) -> CompletingNetwork:
    """The network that a run of the stage begins with: that of the model folder which the run continues (initial.py),
    else a seeded random one in a space fitted to the corpus."""
    initial = initial_model(run_dir)
    if initial is not None:
        return stage.network_class.from_pretrained(initial / stage.name)
    torch.manual_seed(seed)
    network = stage.make(autoencoder)
    stage.fit_space(network, autoencoder, corpus, seed)
    return network


def trained_completion(run_dir: Path, stage: CompletionStage, start: list[int]) -> tuple[CompletingNetwork, dict]:
    """The averaged network that the stage wrote, and its figures; where the run continues a model folder and left the
    stage out, the network of that model and {}.

    start: steps of the stages before. Raises UsageError when there is none, or it was trained on top of other ones.
    """
    initial = initial_model(run_dir)
    if initial is not None and not (run_dir / stage.name).is_dir():
        return stage.network_class.from_pretrained(initial / stage.name), {}
    if not (run_dir / stage.name).is_dir():
        raise UsageError(f"{run_dir} holds no network of {stage.name} yet: run the stage {stage.name} first")
    figures = json.loads((run_dir / f"{stage.name}.json").read_text())
    if figures["start"] != start:
        raise UsageError(
            f"the {stage.name} in {run_dir} were trained on top of other weights; delete {stage.name}.pt, run again"
        )
    return stage.network_class.from_pretrained(run_dir / stage.name), figures


def train_completion(
    stage: CompletionStage,
    networks: Networks,
    autoencoder: BlockTransformAutoencoder,
    corpus: Corpus,
    recipe: TransformerRecipe,
    run_dir: Path,
    start: list[int],
    *,
    n_steps: int = 4000,
    device: str = "cpu",
    stop_after_s: float = math.inf,
    save_every_s: float = 120.0,
) -> CompletingNetwork:
    """Train, or continue the run kept in `run_dir/NAME.pt`; writes `run_dir/NAME/` and `run_dir/NAME.json`.

    networks: trained and completed transformer, and text encoder. start: steps of the stages before, kept with the
    figures. n_steps may change when a run is continued: the learning rate then follows the new schedule.
    """
    from concurrent.futures import ThreadPoolExecutor

    network = begun_network(stage, autoencoder, corpus, run_dir, recipe.seed)
    autoencoder = autoencoder.to(device).eval().requires_grad_(False)
    for module in networks:
        module.to(device).eval().requires_grad_(False)
    network = network.to(device)
    parameters = list(network.parameters())
    average = [p.detach().clone() for p in parameters]
    optimizers = _Optimizers(network, stage)
    path, step, elapsed_before = run_dir / f"{stage.name}.pt", 0, 0.0
    if path.exists():
        state = read_state(path, start, device)
        network.load_state_dict(state["model"])
        optimizers.load_state_dict(state["optimizer"])
        average, step, elapsed_before = state["average"], state["step"], state["elapsed_s"]
    started = last_saved = time.monotonic()

    def save() -> None:
        state = {
            "model": network.state_dict(),
            "optimizer": optimizers.state_dict(),
            "average": average,
            "step": step,
            "start": start,
            "elapsed_s": elapsed_before + time.monotonic() - started,
        }
        write_state(state, path)

    def fetch(index: int) -> Batch:
        return draw_batch(
            corpus,
            seed=recipe.seed + stage.seed_offset,
            step=index,
            tokens_per_batch=stage.tokens_per_batch,
            shapes=stage.shapes,
        )

    running = None
    with ThreadPoolExecutor(1) as loader:
        pending = loader.submit(fetch, step)
        while step < n_steps and time.monotonic() - started < stop_after_s:
            batch = pending.result()
            pending = loader.submit(fetch, step + 1)
            generator = torch.Generator().manual_seed(recipe.seed * 1_000_003 + step)
            t = draw_times(len(batch.captions), stage.logit_mean, stage.logit_std, generator)
            t = t.clamp_max(stage.most_noise).to(device)
            share = min(1.0, (step + 1) / _WARMUP, (n_steps - step) / (_DECAY_FRACTION * n_steps))
            loss, without = _loss(networks, autoencoder, network, batch, t, generator, relative=stage.relative)
            loss.backward()
            torch.nn.utils.clip_grad_norm_(parameters, 0.2)
            optimizers.step(share)
            step += 1
            with torch.no_grad():
                torch._foreach_lerp_(average, parameters, 1 - min(EMA, step / (step + 10)))
            values = (loss.item(), without.item())
            running = (
                values if running is None else tuple(0.98 * r + 0.02 * v for r, v in zip(running, values, strict=True))
            )
            if step % 50 == 0:
                elapsed_s = time.monotonic() - started
                print(
                    f"{stage.name}: step {step} loss {running[0]:.4f} (without {running[1]:.4f}) {elapsed_s:.0f}s",
                    flush=True,
                )
            if time.monotonic() - last_saved > save_every_s:
                save()
                last_saved = time.monotonic()
    save()
    assign(parameters, average)
    network.eval()
    held, without = _held_out(networks, autoencoder, network, corpus, stage)
    figures = {
        "start": start,
        "steps": step,
        "held_out_loss_without": without,
        "held_out_loss": held,
        "hours": round((elapsed_before + time.monotonic() - started) / 3600, 2),
    }
    (run_dir / f"{stage.name}.json").write_text(json.dumps(figures) + "\n")
    print(json.dumps(figures), flush=True)
    network.save_pretrained(run_dir / stage.name)
    return network
