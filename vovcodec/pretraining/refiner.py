"""Trains the decoder network of the block transform.

Objective: squared error of the pixels restored from latents with the errors the codec makes. A third of the samples
are clean, a sixth carry the per-channel Wiener estimate of noisy latents (`wiener_latents`), the rest the trained
transformer's own estimate x̂₀ from x_t at a random high noise level, which is what a decoder ends with.
"""

from __future__ import annotations

import json
import math
import time
from pathlib import Path

import torch
from torch import nn

from vovcodec.backbone.pocket.block_transform import BlockTransformAutoencoder
from vovcodec.backbone.pocket.precondition import precondition
from vovcodec.pretraining.autoencoder import REFINER_SHAPES, reconstruction_psnr, wiener_latents
from vovcodec.pretraining.batches import draw_batch
from vovcodec.pretraining.corpus import Corpus
from vovcodec.pretraining.transformer import predict

__all__ = ["train_refiner"]


@torch.no_grad()
def _estimate(
    autoencoder: BlockTransformAutoencoder,
    networks: tuple[nn.Module, nn.Module],
    latents: torch.Tensor,
    captions: list[str],
) -> torch.Tensor:
    """x̂₀ of the transformer at t ~ U(0.25, 0.75) on the straight path."""
    t = torch.empty(len(latents)).uniform_(0.25, 0.75).to(latents.device)
    time_ = t.view(-1, 1, 1, 1, 1)
    x_t = (1 - time_) * latents + time_ * torch.randn_like(latents)
    coefficients = precondition(t, autoencoder.channel_std(latents.shape[2]))
    with torch.autocast(latents.device.type, torch.bfloat16):
        prediction = predict(networks, x_t, t, captions, coefficients)
    return coefficients.c_skip * x_t + coefficients.c_out * prediction.float()


def train_refiner(
    autoencoder: BlockTransformAutoencoder,
    corpus: Corpus,
    run_dir: Path,
    *,
    networks: tuple[nn.Module, nn.Module] | None = None,
    n_steps: int = 1500,
    seed: int = 0,
    lr: float = 2e-3,
    device: str = "cpu",
    stop_after_s: float = math.inf,
) -> BlockTransformAutoencoder:
    """Train the network and write the autoencoder to `run_dir/autoencoder`, its figures to `run_dir/refiner.json`.

    `networks`: trained transformer and text encoder, for estimates of x̂₀; None = clean and Wiener samples only.

    State is kept in `run_dir/refiner.pt`; a run that was interrupted continues from it.
    """
    autoencoder = autoencoder.to(device).train()
    parameters = list(autoencoder.parameters())
    optimizer = torch.optim.AdamW(parameters, lr=lr, betas=(0.9, 0.98), weight_decay=0.0)
    average = [p.detach().clone() for p in parameters]
    state_path = run_dir / "refiner.pt"
    step = 0
    if state_path.exists():
        state = torch.load(state_path, map_location=device, weights_only=True)
        autoencoder.load_state_dict(state["model"])
        optimizer.load_state_dict(state["optimizer"])
        average, step = state["average"], state["step"]
    started = last_saved = time.monotonic()

    def save() -> None:
        state = {
            "model": autoencoder.state_dict(),
            "optimizer": optimizer.state_dict(),
            "average": average,
            "step": step,
        }
        torch.save(state, state_path.with_suffix(".tmp"))
        state_path.with_suffix(".tmp").replace(state_path)

    while step < n_steps and time.monotonic() - started < stop_after_s:
        batch = draw_batch(corpus, seed=seed + 77, step=step, tokens_per_batch=320, shapes=REFINER_SHAPES)
        frames = batch.frames.to(device)
        torch.manual_seed(seed * 1_000_003 + step)
        with torch.no_grad():
            latents = autoencoder.encode(frames)
            # Noise of the level at which the codec leaves off: up to 0.7 of the pixel range per coefficient.
            sigma = autoencoder.config.latent_scale * torch.exp(torch.empty(len(frames)).uniform_(-3.5, -0.3))
            kind = torch.rand(len(frames))
            sigma = torch.where(kind < 1 / 3, 0.0, sigma).to(device)
            degraded = wiener_latents(autoencoder, latents, sigma)
            if networks is not None:
                estimate = _estimate(autoencoder, networks, latents, batch.captions)
                degraded = torch.where((kind < 0.5).view(-1, 1, 1, 1, 1).to(device), degraded, estimate)
        optimizer.param_groups[0]["lr"] = lr * min(1.0, (step + 1) / 50, 2.5 * (n_steps - step) / n_steps)
        with torch.autocast(frames.device.type, torch.bfloat16):
            restored = autoencoder.refine(autoencoder.invert(degraded))
        loss = (restored.float() - frames).square().mean()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(parameters, 0.5)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        step += 1
        with torch.no_grad():
            torch._foreach_lerp_(average, parameters, 1 - min(0.99, step / (step + 10)))
        if step % 100 == 0:
            print(f"decoder network: step {step} loss {loss.item():.5f} {time.monotonic() - started:.0f}s", flush=True)
        if time.monotonic() - last_saved > 60:
            save()
            last_saved = time.monotonic()
    save()
    with torch.no_grad():
        for parameter, mean in zip(parameters, average, strict=True):
            parameter.copy_(mean)
    autoencoder.eval()
    held = corpus.held_out()
    clips = [
        draw_batch(held, seed=5, step=i, tokens_per_batch=1, shapes=REFINER_SHAPES[2:]).frames.to(device)
        for i in range(24)
    ]
    figures = {
        "steps": step,
        "latent_channels": autoencoder.config.latent_channels,
        "psnr_db": reconstruction_psnr(autoencoder, clips),
        "linear_psnr_db": reconstruction_psnr(autoencoder, clips, linear=True),
    }
    (run_dir / "refiner.json").write_text(json.dumps(figures) + "\n")
    print(json.dumps(figures), flush=True)
    autoencoder.save_pretrained(run_dir / "autoencoder")
    return autoencoder
