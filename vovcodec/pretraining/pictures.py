"""Trains the network of single pictures on top of the finished transformer, which stays as it is.

Objective, with e the error of x̂₀ in the space of backbone/pocket/pictures.py, at times whose logit is normal:

    L = E[ (e² + β·(½·W⁻¹e)²) / s² ],     s² = 1/(1/σ² + 1/v)

The first term is what steering pays bits for, per octave of the signal-to-noise ratio; the second is the error of the
pixels. AdamW; an exponential moving average of the weights is what is kept.
"""

from __future__ import annotations

import json
import math
import time
from pathlib import Path

import torch
from torch import Tensor, nn

from vovcodec.backbone.pocket.block_transform import BlockTransformAutoencoder
from vovcodec.backbone.pocket.pictures import PictureNetwork, dct_matrix
from vovcodec.backbone.pocket.precondition import precondition
from vovcodec.errors import UsageError
from vovcodec.pretraining.batches import Batch, BatchShape, draw_batch
from vovcodec.pretraining.corpus import Corpus
from vovcodec.pretraining.transformer import TransformerRecipe, draw_times, predict

__all__ = [
    "EMA",
    "LOGIT_MEAN",
    "LOGIT_STD",
    "TOKENS_PER_BATCH",
    "fit_picture_space",
    "train_pictures",
    "trained_pictures",
]

LOGIT_MEAN, LOGIT_STD = -1.7, 1.0
_SHAPES = (
    BatchShape(1, 64, 64, 1.0),
    BatchShape(1, 128, 128, 4.0),
    BatchShape(1, 128, 192, 3.0),
    BatchShape(1, 192, 192, 1.0),
)
TOKENS_PER_BATCH = 512
_LR, _WARMUP, _DECAY_FRACTION = 1e-3, 200, 0.7
_PIXEL_WEIGHT = 0.1
EMA = 0.998

Networks = tuple[nn.Module, nn.Module]
"""Completed transformer and text encoder."""


@torch.no_grad()
def fit_picture_space(pictures: PictureNetwork, corpus: Corpus, *, seed: int, n_batches: int = 40) -> None:
    """Fits colours, spectrum and variance to crops of 128×128: principal components of the colours, and for each the
    power law that fits the logarithm of the mean energy of DCT coefficients best, in 30 bands of frequency."""
    shapes, tokens = (BatchShape(1, 128, 128, 1.0),), 64 * 16
    batches = [
        draw_batch(corpus, seed=seed + 5, step=i, tokens_per_batch=tokens, shapes=shapes) for i in range(n_batches)
    ]
    frames = torch.cat([batch.frames for batch in batches])
    flat = frames.transpose(0, 1).flatten(1)
    colours = torch.linalg.eigh(flat @ flat.T / flat.shape[1]).eigenvectors.T.flip(0)
    pictures.colours.copy_(colours * torch.sign(colours.sum(1, keepdim=True)))
    rotated = torch.einsum("ij,bjhw->bihw", pictures.colours, frames[:, :, 0])
    height, width = rotated.shape[-2:]
    energy = (dct_matrix(height) @ rotated @ dct_matrix(width).T).square().mean(0).flatten(1)
    rows, columns = (torch.arange(n, dtype=torch.float64) / (2 * n) for n in (height, width))
    square = (rows[:, None].square() + columns[None, :].square()).flatten()
    least = math.log10(1 / (2 * max(height, width)) ** 2)
    band = torch.bucketize(square, torch.logspace(least, math.log10(0.5), 30, dtype=torch.float64))
    mean_square = torch.stack([square[band == i].mean() for i in band.unique()])
    for colour in range(3):
        log_energy = torch.stack([energy[colour, band == i].mean().log() for i in band.unique()]).double()
        fits = [_power_law(mean_square, log_energy, f0) for f0 in torch.logspace(-3, -1, 40).tolist()]
        pictures.spectrum[colour] = torch.tensor(min(fits)[1:])
    pictures.variance.fill_(pictures.encode(frames).var())


def _power_law(square: Tensor, log_energy: Tensor, f0: float) -> tuple[float, float, float, float]:
    """(mean squared error, ln a, f₀, p) of the best ln a − p·ln(f² + f₀²)."""
    design = torch.stack([torch.ones_like(square), -torch.log(square + f0 * f0)], 1)
    solution = torch.linalg.lstsq(design, log_energy[:, None]).solution[:, 0]
    error = (design @ solution - log_energy).square().mean()
    return error.item(), solution[0].item(), f0, solution[1].item()


@torch.no_grad()
def _transformer_estimate(
    networks: Networks,
    autoencoder: BlockTransformAutoencoder,
    pictures: PictureNetwork,
    x_t: Tensor,
    t: Tensor,
    captions: list[str],
) -> Tensor:
    blocks = pictures.to_blocks(x_t, t, autoencoder)
    coefficients = precondition(t, autoencoder.channel_std(1))
    with torch.autocast(t.device.type, torch.bfloat16):
        predicted = predict(networks, blocks, t, captions, coefficients)
    return pictures.from_blocks(coefficients.c_skip * blocks + coefficients.c_out * predicted.float(), autoencoder)


def _loss(
    networks: Networks,
    autoencoder: BlockTransformAutoencoder,
    pictures: PictureNetwork,
    batch: Batch,
    t: Tensor,
    generator: torch.Generator,
) -> tuple[Tensor, Tensor]:
    """L of the module's docstring, and the same for the transformer's estimate alone."""
    x0 = pictures.encode(batch.frames.to(t.device))
    noise = torch.randn(x0.shape, generator=generator).to(x0.device)
    column = t.view(-1, 1, 1, 1, 1)
    x_t = (1 - column) * x0 + column * noise
    prior = _transformer_estimate(networks, autoencoder, pictures, x_t, t, batch.captions)
    with torch.autocast(t.device.type, torch.bfloat16):
        clean = pictures(x_t, prior, t)
    sigma = (column / (1 - column)).square()
    scale = sigma / (1 + sigma / pictures.variance)

    def measure(error: Tensor) -> Tensor:
        in_pixels = 0.5 * pictures.decode(error)
        return (error.square() / scale).mean() + _PIXEL_WEIGHT * (in_pixels.square() / scale).mean()

    return measure(clean - x0), measure((prior - x0).detach())


@torch.no_grad()
def _held_out(
    networks: Networks, autoencoder: BlockTransformAutoencoder, pictures: PictureNetwork, corpus: Corpus
) -> tuple[float, float]:
    held, device = corpus.held_out(), next(pictures.parameters()).device
    generator, totals, n_batches = torch.Generator().manual_seed(1), [0.0, 0.0], 16
    for i in range(n_batches):
        batch = draw_batch(
            held, seed=999, step=i, tokens_per_batch=TOKENS_PER_BATCH, caption_dropout=0.0, shapes=_SHAPES
        )
        n = len(batch.captions)
        t = torch.sigmoid(LOGIT_MEAN + LOGIT_STD * torch.special.ndtri((torch.arange(n) + 0.5) / n)).to(device)
        for index, loss in enumerate(_loss(networks, autoencoder, pictures, batch, t, generator)):
            totals[index] += loss.item() / n_batches
    return totals[0], totals[1]


def trained_pictures(run_dir: Path, start: list[int]) -> tuple[PictureNetwork, dict]:
    """The averaged network that the stage wrote, and its figures.

    start: steps of the stages before. Raises UsageError when there is none, or it was trained on top of other ones.
    """
    if not (run_dir / "pictures").is_dir():
        raise UsageError(f"{run_dir} holds no network of pictures yet: run the stage pictures first")
    figures = json.loads((run_dir / "pictures.json").read_text())
    if figures["start"] != start:
        raise UsageError(
            f"the pictures in {run_dir} were trained on top of other weights; delete pictures.pt, run again"
        )
    return PictureNetwork.from_pretrained(run_dir / "pictures"), figures


def train_pictures(
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
) -> PictureNetwork:
    """Train, or continue the run kept in `run_dir/pictures.pt`; writes `run_dir/pictures/` and `run_dir/pictures.json`.

    networks: trained and completed transformer, and text encoder. start: steps of the stages before, kept with the
    figures. n_steps may change when a run is continued: the learning rate then follows the new schedule.
    """
    from concurrent.futures import ThreadPoolExecutor

    autoencoder = autoencoder.to(device).eval().requires_grad_(False)
    for module in networks:
        module.to(device).eval().requires_grad_(False)
    torch.manual_seed(recipe.seed)
    pictures = PictureNetwork()
    fit_picture_space(pictures, corpus, seed=recipe.seed)
    pictures = pictures.to(device, memory_format=torch.channels_last)
    parameters = list(pictures.parameters())
    average = [p.detach().clone() for p in parameters]
    optimizer = torch.optim.AdamW(parameters, lr=_LR, betas=(0.9, 0.99), weight_decay=0.0)
    path, step, elapsed_before = run_dir / "pictures.pt", 0, 0.0
    if path.exists():
        state = torch.load(path, map_location=device, weights_only=True)
        if state["start"] != start:
            raise UsageError(f"{path} was trained on top of other weights; delete it to train anew")
        pictures.load_state_dict(state["model"])
        optimizer.load_state_dict(state["optimizer"])
        average, step, elapsed_before = state["average"], state["step"], state["elapsed_s"]
    started = last_saved = time.monotonic()

    def save() -> None:
        state = {
            "model": pictures.state_dict(),
            "optimizer": optimizer.state_dict(),
            "average": average,
            "step": step,
            "start": start,
            "elapsed_s": elapsed_before + time.monotonic() - started,
        }
        torch.save(state, path.with_suffix(".tmp"))
        path.with_suffix(".tmp").replace(path)

    def fetch(index: int) -> Batch:
        return draw_batch(corpus, seed=recipe.seed + 59, step=index, tokens_per_batch=TOKENS_PER_BATCH, shapes=_SHAPES)

    running = None
    with ThreadPoolExecutor(1) as loader:
        pending = loader.submit(fetch, step)
        while step < n_steps and time.monotonic() - started < stop_after_s:
            batch = pending.result()
            pending = loader.submit(fetch, step + 1)
            generator = torch.Generator().manual_seed(recipe.seed * 1_000_003 + step)
            t = draw_times(len(batch.captions), LOGIT_MEAN, LOGIT_STD, generator).to(device)
            optimizer.param_groups[0]["lr"] = _LR * min(
                1.0, (step + 1) / _WARMUP, (n_steps - step) / (_DECAY_FRACTION * n_steps)
            )
            loss, without = _loss(networks, autoencoder, pictures, batch, t, generator)
            loss.backward()
            torch.nn.utils.clip_grad_norm_(parameters, 0.2)
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
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
                    f"pictures: step {step} loss {running[0]:.4f} (without {running[1]:.4f}) {elapsed_s:.0f}s",
                    flush=True,
                )
            if time.monotonic() - last_saved > save_every_s:
                save()
                last_saved = time.monotonic()
    save()
    with torch.no_grad():
        for parameter, mean in zip(parameters, average, strict=True):
            parameter.copy_(mean)
    pictures.eval()
    held, without = _held_out(networks, autoencoder, pictures, corpus)
    figures = {
        "start": start,
        "steps": step,
        "held_out_loss_without": without,
        "held_out_loss": held,
        "hours": round((elapsed_before + time.monotonic() - started) / 3600, 2),
    }
    (run_dir / "pictures.json").write_text(json.dumps(figures) + "\n")
    print(json.dumps(figures), flush=True)
    pictures.save_pretrained(run_dir / "pictures")
    return pictures
