"""Trains networks for so many minutes rather than steps, for tables that compare networks at equal cost of training."""

from __future__ import annotations

import copy
import math
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

__all__ = ["step_generator", "train_for"]

_WARMUP = 50


def step_generator(seed: int, step: int) -> torch.Generator:
    """The random numbers of one step: a continued run draws what it would have drawn."""
    return torch.Generator().manual_seed(seed * 1_000_003 + step)


def _thread_s() -> float:
    return time.process_time() / torch.get_num_threads()


def train_for(
    minutes: float,
    path: Path,
    networks: Sequence[nn.Module],
    optimizers: Sequence[torch.optim.Optimizer],
    loss_of_step: Callable[[int], Tensor],
    *,
    ema: float,
    save_every_s: float = 120.0,
) -> tuple[list[nn.Module], int]:
    """Train until `minutes` are spent, or continue the run kept in `path`; the averaged networks and the steps made.

    Args:
        minutes: of processor time of each thread, over all runs that continue one another: what else the machine does
            takes nothing away. The learning rate follows a cosine over them.
        path: of the state (weights, averages, optimisers, steps, seconds), written and read by this function only.
        loss_of_step: number of the step → the loss of `networks` on what that step is to see.
        ema: decay of the moving average of the weights.
    """
    averages = [copy.deepcopy(network).eval().requires_grad_(False) for network in networks]
    base_lrs = [[group["lr"] for group in optimizer.param_groups] for optimizer in optimizers]
    step, spent_s = 0, 0.0
    if path.exists():
        state = torch.load(path, map_location="cpu", weights_only=True)
        for module, saved in zip([*networks, *averages], state["modules"], strict=True):
            module.load_state_dict(saved)
        for optimizer, saved in zip(optimizers, state["optimizers"], strict=True):
            optimizer.load_state_dict(saved)
        step, spent_s = state["step"], state["spent_s"]

    def save() -> None:
        state = {
            "modules": [module.state_dict() for module in [*networks, *averages]],
            "optimizers": [optimizer.state_dict() for optimizer in optimizers],
            "step": step,
            "spent_s": spent_s,
        }
        path.parent.mkdir(parents=True, exist_ok=True)
        torch.save(state, path.with_suffix(".tmp"))
        path.with_suffix(".tmp").replace(path)

    parameters = [parameter for network in networks for parameter in network.parameters()]
    saved_s = noted_s = spent_s
    before = _thread_s()
    while spent_s < 60 * minutes:
        scale = 0.5 * (1 + math.cos(math.pi * spent_s / (60 * minutes))) * min(1.0, (step + 1) / _WARMUP)
        for optimizer, lrs in zip(optimizers, base_lrs, strict=True):
            for group, lr in zip(optimizer.param_groups, lrs, strict=True):
                group["lr"] = lr * scale
        loss = loss_of_step(step)
        loss.backward()
        nn.utils.clip_grad_norm_(parameters, 1.0)
        for optimizer in optimizers:
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        decay = min(ema, (step + 1) / (step + 10))
        with torch.no_grad():
            for average, network in zip(averages, networks, strict=True):
                torch._foreach_lerp_(list(average.parameters()), list(network.parameters()), 1 - decay)
        step += 1
        now = _thread_s()
        spent_s, before = spent_s + now - before, now
        if spent_s - noted_s > 30:
            progress = f"step {step}, loss {loss.item():.4f}, {spent_s:.0f} s"
            print(f"{path.parent.name} {path.stem}: {progress}", file=sys.stderr, flush=True)
            noted_s = spent_s
        if spent_s - saved_s > save_every_s:
            save()
            saved_s = spent_s
    if spent_s > saved_s:
        save()
    return averages, step
