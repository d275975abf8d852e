"""Trains the flow-matching transformer and its text encoder on latents of the block transform.

Objective: with x_t = (1−t)·x₀ + t·ε, logit(t) ~ N(mean, std²) and F* = (x₀ − c_skip·x_t)/c_out (precondition.py),
minimise E[w·(F − F*)²] with w ∝ c_out^{2β} per channel, normalised to mean 1 at each t: β = 1 is squared error in
pixels, β = 0 treats every channel alike. Matrices of the blocks are trained with Muon, everything else with AdamW;
an exponential moving average of the weights is what is kept.
"""

from __future__ import annotations

import copy
import json
import math
import time
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from vovcodec.backbone.pocket.block_transform import BlockTransformAutoencoder
from vovcodec.backbone.pocket.precondition import Preconditioning, network_input, precondition
from vovcodec.backbone.pocket.text_encoder import TextEncoder
from vovcodec.backbone.pocket.transformer import WanTransformer
from vovcodec.errors import ModelError, UsageError
from vovcodec.pretraining.batches import SHAPES, draw_batch
from vovcodec.pretraining.corpus import Corpus
from vovcodec.pretraining.state import write_state

__all__ = [
    "TransformerRecipe",
    "averaged_networks",
    "build_networks",
    "caption_tokens",
    "draw_times",
    "latent_loss",
    "make_optimizers",
    "noisy_state",
    "predict",
    "prediction_loss",
    "train_transformer",
    "validation_loss",
    "weighted_error",
]

MAX_CAPTION_TOKENS = 64


@dataclass(frozen=True)
class TransformerRecipe:
    """Size and training settings; written into the model card."""

    width: int = 256
    heads: int = 4
    layers: int = 7
    ffn: int = 768
    text_width: int = 128
    text_layers: int = 2
    steps: int = 3400
    tokens_per_batch: int = 2000
    lr_matrices: float = 0.007
    lr_rest: float = 7e-4
    warmup: int = 200
    decay_fraction: float = 0.7
    logit_mean: float = 0.5
    logit_std: float = 1.35
    beta: float = 0.5
    ema: float = 0.999
    seed: int = 0


def build_networks(
    recipe: TransformerRecipe, latent_channels: int, patch_size: int = 2
) -> tuple[WanTransformer, TextEncoder]:
    """The transformer and text encoder with seeded initial weights; patch_size: of a token, in latent positions."""
    torch.manual_seed(recipe.seed)
    transformer = WanTransformer(
        patch_size=(1, patch_size, patch_size),
        num_attention_heads=recipe.heads,
        attention_head_dim=recipe.width // recipe.heads,
        in_channels=latent_channels + 1,
        out_channels=latent_channels,
        text_dim=recipe.text_width,
        freq_dim=128,
        ffn_dim=recipe.ffn,
        num_layers=recipe.layers,
        rope_max_seq_len=256,
    )
    nn.init.zeros_(transformer.proj_out.weight)
    nn.init.zeros_(transformer.proj_out.bias)
    text = TextEncoder(
        d_model=recipe.text_width,
        d_kv=recipe.text_width // 4,
        d_ff=2 * recipe.text_width,
        num_layers=recipe.text_layers,
        num_heads=4,
    )
    return transformer, text


def caption_tokens(captions: list[str]) -> tuple[Tensor, Tensor]:
    """UTF-8 bytes as ByT5 numbers them (byte + 3, then end = 1, padding 0): ids and mask [B, 64]."""
    ids = torch.zeros(len(captions), MAX_CAPTION_TOKENS, dtype=torch.long)
    for row, caption in enumerate(captions):
        tokens = [byte + 3 for byte in caption.encode()[: MAX_CAPTION_TOKENS - 1]] + [1]
        ids[row, : len(tokens)] = torch.tensor(tokens)
    return ids, (ids != 0).long()


def averaged_networks(
    run_dir: Path, recipe: TransformerRecipe, latent_channels: int
) -> tuple[WanTransformer, TextEncoder, int, list[dict]]:
    """The averaged transformer and text encoder of a run, its steps and its log. Raises UsageError without a run."""
    path = run_dir / "transformer.pt"
    if not path.is_file():
        raise UsageError(f"{run_dir} holds no trained transformer yet: run the stage transformer first")
    state = torch.load(path, map_location="cpu", weights_only=True)
    networks = build_networks(recipe, latent_channels)
    for module, saved in zip(networks, state["modules"][2:], strict=True):
        module.load_state_dict(saved)
    return *networks, state["step"], state["log"]


def predict(
    networks: tuple[nn.Module, nn.Module], x_t: Tensor, t: Tensor, captions: list[str], coefficients: Preconditioning
) -> Tensor:
    """F(c_in·x_t, t) of precondition.py: latents [B, C, T, h, w], times [B], a caption per sample → [B, C, T, h, w]."""
    transformer, text = networks
    ids, mask = (x.to(x_t.device) for x in caption_tokens(captions))
    embedding = text(ids, mask) * mask[..., None]
    return transformer(network_input(x_t, coefficients), 1000 * t, embedding)


def draw_times(n: int, logit_mean: float, logit_std: float, generator: torch.Generator) -> Tensor:
    """n times with logit(t) ~ N(mean, std²), [n], stratified: every batch covers the whole range evenly."""
    quantile = (torch.randperm(n, generator=generator) + torch.rand(n, generator=generator)) / n
    return torch.sigmoid(logit_mean + logit_std * torch.special.ndtri(quantile.clamp(1e-4, 1 - 1e-4)))


def noisy_state(
    autoencoder: BlockTransformAutoencoder, frames: Tensor, t: Tensor, generator: torch.Generator
) -> tuple[Tensor, Tensor, Preconditioning]:
    """x₀ and x_t = (1 − t)·x₀ + t·ε, [B, C, T, h, w], of frames [B, 3, F, H, W] at times [B], and F's coefficients."""
    x0 = autoencoder.encode(frames)
    return x0, *_with_noise(x0, autoencoder.channel_std(x0.shape[2]), t, generator)


def _with_noise(
    x0: Tensor, channel_std: Tensor, t: Tensor, generator: torch.Generator
) -> tuple[Tensor, Preconditioning]:
    noise = torch.randn(x0.shape, generator=generator).to(x0.device)
    time_ = t.view(-1, 1, 1, 1, 1)
    return (1 - time_) * x0 + time_ * noise, precondition(t, channel_std)


def prediction_loss(
    transformer: nn.Module,
    text: nn.Module,
    autoencoder: BlockTransformAutoencoder,
    frames: Tensor,
    captions: list[str],
    t: Tensor,
    generator: torch.Generator,
    beta: float,
) -> Tensor:
    """The objective of the module's docstring for frames [B, 3, F, H, W] at times [B], with noise from `generator`."""
    x0 = autoencoder.encode(frames)
    return latent_loss((transformer, text), x0, autoencoder.channel_std(x0.shape[2]), captions, t, generator, beta)


def latent_loss(
    networks: tuple[nn.Module, nn.Module],
    x0: Tensor,
    channel_std: Tensor,
    captions: list[str],
    t: Tensor,
    generator: torch.Generator,
    beta: float,
) -> Tensor:
    """The same for latents [B, C, T, h, w] of any autoencoder, with their channels' deviations [1, C, T, 1, 1]."""
    x_t, coefficients = _with_noise(x0, channel_std, t, generator)
    return weighted_error(networks, x0, x_t, captions, t, coefficients, beta)


def weighted_error(
    networks: tuple[nn.Module, nn.Module],
    x0: Tensor,
    x_t: Tensor,
    captions: list[str],
    t: Tensor,
    coefficients: Preconditioning,
    beta: float,
) -> Tensor:
    """The same for states x_t that are given, with their preconditioning."""
    target = (x0 - coefficients.c_skip * x_t) / coefficients.c_out
    prediction = predict(networks, x_t, t, captions, coefficients)
    weight = coefficients.c_out.square() ** beta
    weight = weight / weight.mean(dim=(1, 2), keepdim=True)
    return (weight * (prediction.float() - target).square()).mean()


@torch.no_grad()
def validation_loss(
    transformer: nn.Module,
    text: nn.Module,
    autoencoder: BlockTransformAutoencoder,
    corpus: Corpus,
    recipe: TransformerRecipe,
    n_batches: int = 16,
    logit_mean: float | None = None,
    logit_std: float | None = None,
) -> float:
    """Loss on held-out items with fixed noise and times stratified over the recipe's distribution, or another one."""
    held = corpus.held_out()
    device = next(transformer.parameters()).device
    generator = torch.Generator().manual_seed(1)
    total = 0.0
    for i in range(n_batches):
        batch = draw_batch(held, seed=999, step=i, tokens_per_batch=recipe.tokens_per_batch, caption_dropout=0.0)
        n = len(batch.captions)
        quantile = (torch.arange(n) + 0.5) / n
        mean = recipe.logit_mean if logit_mean is None else logit_mean
        std = recipe.logit_std if logit_std is None else logit_std
        t = torch.sigmoid(mean + std * torch.special.ndtri(quantile)).to(device)
        frames = batch.frames.to(device)
        with torch.autocast(device.type, torch.bfloat16):
            total += prediction_loss(
                transformer, text, autoencoder, frames, batch.captions, t, generator, recipe.beta
            ).item()
    return total / n_batches


def _copy_weights(folder: Path, networks: tuple[nn.Module, nn.Module]) -> None:
    """The weights of a model folder's transformer and text encoder, into networks of the same size."""
    for name, network in zip(("transformer", "text_encoder"), networks, strict=True):
        try:
            saved = type(network).from_pretrained(folder / name)
            network.load_state_dict(saved.state_dict())
        except (ModelError, RuntimeError) as error:
            raise UsageError(f"{folder} has no {name} of this recipe's size to start from: {error}") from error


def _learning_rate(step: int, recipe: TransformerRecipe) -> float:
    """Warm-up, constant, then linear decay to zero over the last `decay_fraction` of the run."""
    decay_from = recipe.steps * (1 - recipe.decay_fraction)
    return min(1.0, (step + 1) / recipe.warmup, max(0.0, (recipe.steps - step) / (recipe.steps - decay_from)))


def make_optimizers(
    transformer: nn.Module, text: nn.Module, recipe: TransformerRecipe, *, lr_scale: float = 1.0
) -> tuple[torch.optim.Muon, torch.optim.AdamW]:
    """Muon for the matrices of the transformer's blocks, AdamW for the rest; `lr_scale`: of the recipe's rates."""
    matrices = [p for n, p in transformer.named_parameters() if p.ndim == 2 and n.startswith("blocks.")]
    chosen = {id(p) for p in matrices}
    rest = [p for m in (transformer, text) for p in m.parameters() if id(p) not in chosen]
    muon = torch.optim.Muon(matrices, lr=lr_scale * recipe.lr_matrices, momentum=0.95, weight_decay=0.01)
    adam = torch.optim.AdamW(rest, lr=lr_scale * recipe.lr_rest, betas=(0.9, 0.98), weight_decay=0.0)
    return muon, adam


def train_transformer(
    autoencoder: BlockTransformAutoencoder,
    corpus: Corpus,
    recipe: TransformerRecipe,
    run_dir: Path,
    *,
    device: str = "cpu",
    init: Path | None = None,
    stop_after_s: float = math.inf,
    save_every_s: float = 120.0,
) -> tuple[WanTransformer, TextEncoder, list[dict]]:
    """Train, or continue the run kept in `run_dir`; returns the averaged networks and the log.

    A new run starts from the networks of the model folder `init`, or from seeded random ones. A run may be continued
    with another number of steps (its learning rate then follows the new schedule), otherwise only with its own recipe.

    The state (weights, average, optimisers, step) is written to `run_dir/transformer.pt` by this command and read
    back only by it. `stop_after_s` ends the run early; the learning-rate schedule stays that of `recipe.steps`.
    """
    from concurrent.futures import ThreadPoolExecutor

    run_dir.mkdir(parents=True, exist_ok=True)
    autoencoder = autoencoder.to(device).eval().requires_grad_(False)
    networks = build_networks(recipe, autoencoder.config.latent_channels)
    if init is not None:
        _copy_weights(init, networks)
    average = [copy.deepcopy(m).to(device).eval().requires_grad_(False) for m in networks]
    transformer, text = (m.to(device).train() for m in networks)
    optimizers = make_optimizers(transformer, text, recipe)
    base_lrs = [[g["lr"] for g in o.param_groups] for o in optimizers]
    step, log, running = 0, [], None
    state_path = run_dir / "transformer.pt"
    if state_path.exists():
        state = torch.load(state_path, map_location=device, weights_only=True)
        if {**state["recipe"], "steps": recipe.steps} != asdict(recipe):
            raise UsageError(f"{state_path} belongs to another recipe; choose another folder or delete it")
        for module, saved in zip((transformer, text, *average), state["modules"], strict=True):
            module.load_state_dict(saved)
        for optimizer, saved in zip(optimizers, state["optimizers"], strict=True):
            optimizer.load_state_dict(saved)
        step, log, running = state["step"], state["log"], state.get("running")

    def save() -> None:
        state = {
            "recipe": asdict(recipe),
            "modules": [m.state_dict() for m in (transformer, text, *average)],
            "optimizers": [o.state_dict() for o in optimizers],
            "step": step,
            "log": log,
            "running": running,
        }
        write_state(state, state_path)

    def fetch(index: int):
        return draw_batch(corpus, seed=recipe.seed, step=index, tokens_per_batch=recipe.tokens_per_batch, shapes=SHAPES)

    started = last_saved = time.monotonic()
    with ThreadPoolExecutor(1) as loader:
        pending = loader.submit(fetch, step)
        while step < recipe.steps and time.monotonic() - started < stop_after_s:
            batch = pending.result()
            pending = loader.submit(fetch, step + 1)
            generator = torch.Generator().manual_seed(recipe.seed * 1_000_003 + step)
            frames = batch.frames.to(device)
            t = draw_times(len(frames), recipe.logit_mean, recipe.logit_std, generator).to(device)
            scale = _learning_rate(step, recipe)
            for optimizer, lrs in zip(optimizers, base_lrs, strict=True):
                for group, lr in zip(optimizer.param_groups, lrs, strict=True):
                    group["lr"] = lr * scale
            with torch.autocast(frames.device.type, torch.bfloat16):
                loss = prediction_loss(
                    transformer, text, autoencoder, frames, batch.captions, t, generator, recipe.beta
                )
            loss.backward()
            torch.nn.utils.clip_grad_norm_([*transformer.parameters(), *text.parameters()], 1.0)
            for optimizer in optimizers:
                optimizer.step()
                optimizer.zero_grad(set_to_none=True)
            decay = min(recipe.ema, (step + 1) / (step + 10))
            with torch.no_grad():
                for mean, module in zip(average, (transformer, text), strict=True):
                    torch._foreach_lerp_(list(mean.parameters()), list(module.parameters()), 1 - decay)
            value = loss.item()
            running = value if running is None else 0.99 * running + 0.01 * value
            step += 1
            if step % 500 == 0:
                held = validation_loss(*average, autoencoder, corpus, recipe)
                log.append(
                    {
                        "step": step,
                        "train_loss": running,
                        "held_out_loss": held,
                        "elapsed_s": round(time.monotonic() - started),
                    }
                )
                print(json.dumps(log[-1]), flush=True)
            elif step % 50 == 0:
                print(f"step {step} loss {running:.4f} {(time.monotonic() - started):.0f}s", flush=True)
            if time.monotonic() - last_saved > save_every_s:
                save()
                last_saved = time.monotonic()
    save()
    return average[0], average[1], log
