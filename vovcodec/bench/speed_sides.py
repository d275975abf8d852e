"""The sides of `fitting_speed`: the published loop and ours on diffusers' Wan transformer with random weights, and the
autoencoder that both need."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from vovcodec.adaptation.lowrank import LowRankAdapter
from vovcodec.backbone.autoencoder import NormalizedAutoencoder
from vovcodec.backbone.catalog import model_facts
from vovcodec.backbone.checkpointing import set_checkpointing
from vovcodec.backbone.linears import wan_linears
from vovcodec.backbone.memory import choose_checkpointing, free_memory_bytes, memory_needed, out_of_memory_explained
from vovcodec.bench.architectures import random_autoencoder, random_transformer, random_velocity
from vovcodec.bench.clock import WARM_UP, Clock, Figures, timed
from vovcodec.bench.reference_loop import attach_gathering, reference_step
from vovcodec.codec.plans import plan_of_preset
from vovcodec.errors import ModelError
from vovcodec.fitting.fit import FitSettings, StageSettings, fit_vector, initial_vector
from vovcodec.fitting.objective import ReferenceObjective
from vovcodec.presets import load_preset
from vovcodec.sampling.sampler import Velocity
from vovcodec.sampling.steering import follow, steer

__all__ = ["SIDES", "Row", "Settings", "failed_row", "measure"]

_VECTOR_LENGTH = 131072  # as published; small models get a fifth of their factor entries, the published ratio
_STEERED = "wan2.1-1.3b"  # the preset whose steering is timed, its bytes in proportion to the latents
_STEERED_VALUES = 2_096_640
_Size = tuple[int, int, int]


@dataclass(frozen=True)
class Settings:
    """What is measured. shape: (frames, height, width) of the clip in pixels."""

    architecture: str
    shape: _Size
    device: str
    precision: str
    checkpointing: str
    compiled: bool
    steps: int
    threads: int | None


@dataclass(frozen=True)
class Row:
    """One line of the table: seconds, medians over the steps; not a number, with the reason in `note`, where a part
    could not be measured."""

    side: str
    what: str
    wall_s: float
    cpu_s: float
    peak_mb: float
    checkpointing: str
    vector_length: int
    n_tokens: int
    note: str = ""


_Parts = Iterator[tuple[str, Callable[[], Figures]]]


def failed_row(side: str, what: str, settings: Settings, note: str) -> Row:
    """The row of something that could not be measured."""
    return Row(side, what, math.nan, math.nan, math.nan, "none", 0, _n_tokens(settings.shape), " ".join(note.split()))


def measure(side: str, settings: Settings) -> list[Row]:
    """The rows of one of `SIDES`, in this process. A part that memory does not suffice for gets a row that says so.

    Raises ModelError when not even the model fits.
    """
    if settings.threads:
        torch.set_num_threads(settings.threads)
    with out_of_memory_explained(f"preparing {side}", settings.device, "use a smaller --architecture"):
        torch.manual_seed(0)
        vector_length, parts = SIDES[side](settings)
    rows = []
    for what, part in parts:
        try:
            with out_of_memory_explained(what, settings.device, "use a smaller --shape or --architecture"):
                figures = part()
        except ModelError as error:
            rows.append(failed_row(side, what, settings, str(error)))
            continue
        kept = (figures.wall_s, figures.cpu_s, figures.peak_mb, figures.checkpointing)
        rows.append(Row(side, what, *kept, vector_length, _n_tokens(settings.shape), figures.note))
    return rows


class _Scene:
    """What both loops work on: a transformer, the layers to adapt, latents to fit."""

    def __init__(self, settings: Settings) -> None:
        self.transformer = random_transformer(settings.architecture, settings.precision, settings.device)
        self.velocity = random_velocity(self.transformer, settings.architecture)
        self.linears = wan_linears(self.transformer, "qkvo", 0)
        n_entries = sum(layer.in_features + layer.out_features for _, layer in self.linears)
        self.vector_length = min(_VECTOR_LENGTH, n_entries // 5)
        shape = (1, self.transformer.config.out_channels, *_latent_size(settings.shape))
        self.target = torch.randn(shape, device=settings.device)

    def evaluate(self) -> None:
        """One step of a decoder."""
        with torch.no_grad():
            self.velocity(self.target, 0.5)

    def frozen_pass(self) -> None:
        """The model's own forward pass and its backward pass to the input, without a vector."""
        x_t = self.target.clone().requires_grad_()
        (self.velocity(x_t, 0.5) - self.target).square().mean().backward()


def _reference_side(settings: Settings) -> tuple[int, _Parts]:
    scene = _Scene(settings)
    theta = attach_gathering(scene.transformer, scene.linears, scene.vector_length)
    step = reference_step(scene.velocity, scene.target, theta)

    def parts() -> _Parts:
        yield "fit", lambda: timed(step, settings.device, settings.steps, checkpointing="full")
        yield "decode", lambda: timed(scene.evaluate, settings.device, settings.steps)

    return scene.vector_length, parts()


def _our_side(settings: Settings) -> tuple[int, _Parts]:
    scene, mode = _Scene(settings), _checkpointing_mode(settings)
    set_checkpointing(scene.transformer, mode)
    if settings.compiled:
        scene.transformer.compile_repeated_blocks()
    device = scene.target.device
    adapter = LowRankAdapter(scene.linears, rank=1, vector_length=scene.vector_length, seed=0, device=device)
    theta = initial_vector(0, 0, scene.vector_length).to(device)
    steered: list = []

    def fit() -> Figures:
        clock = Clock(settings.device)
        stages = StageSettings(WARM_UP + settings.steps, 2e-3, 1e-4), StageSettings(0, 0.0)
        with adapter.attached():
            fit_vector(
                adapter,
                scene.velocity,
                ReferenceObjective(scene.target, 0, 0, 1),
                FitSettings(*stages, 0.0, published=True),
                theta,
                segment=0,
                listener=clock,
            )
        return clock.figures(checkpointing=mode)

    def adapted(work: Callable[[], object], n_steps: int, **how) -> Figures:
        with adapter.attached():
            adapter.materialize(theta)
            return timed(work, settings.device, n_steps, **how)

    def steering() -> Figures:
        preset = load_preset(_STEERED)
        size_bytes = max(40.0, preset.steering.bytes * scene.target.numel() / _STEERED_VALUES)
        velocity = _ideal(scene.velocity)

        def work() -> None:
            steered[:] = steer(velocity, scene.target, plan_of_preset(preset, is_still=False), 0, size_bytes=size_bytes)

        return adapted(work, 1, warm_up=0, note=f"{size_bytes:.0f} bytes")

    def decoding() -> Figures:
        plan, choices, _ = steered
        shape, velocity = tuple(scene.target.shape), _ideal(scene.velocity)
        note = f"{len(plan.times) - 1} steps"
        return adapted(lambda: follow(velocity, choices, plan, 0, shape, device), 1, warm_up=0, note=note)

    def parts() -> _Parts:
        # Before and after the fit: what drifts with the machine's temperature and load then counts for both alike.
        yield "frozen pass", lambda: timed(scene.frozen_pass, settings.device, settings.steps, checkpointing=mode)
        yield "fit", fit
        yield "frozen pass", lambda: timed(scene.frozen_pass, settings.device, settings.steps, checkpointing=mode)
        yield "decode", lambda: adapted(scene.evaluate, settings.steps)
        yield "steering", steering
        if steered:
            yield "decoding", decoding

    return scene.vector_length, parts()


def _autoencoder_side(settings: Settings) -> tuple[int, _Parts]:
    n_frames, height, width = settings.shape
    network = random_autoencoder(settings.architecture, settings.device)
    autoencoder = NormalizedAutoencoder(network, torch.device(settings.device))
    need = memory_needed(model_facts(_STEERED), "bfloat16", n_frames=n_frames, width=width, height=height)
    frames = np.random.default_rng(0).integers(0, 256, (n_frames, height, width, 3), dtype=np.uint8)
    latents = torch.randn(1, autoencoder.channels, *_latent_size(settings.shape), device=settings.device)

    def once(work: Callable[[], object]) -> Figures:
        figures = timed(work, settings.device, 1, warm_up=1)
        return replace(figures, note="in tiles" if network.use_tiling else "")

    def parts() -> _Parts:
        yield "to latents", lambda: once(lambda: autoencoder.to_latents(frames, need))
        yield "to frames", lambda: once(lambda: autoencoder.to_frames(latents, need))

    return 0, parts()


SIDES = {"reference": _reference_side, "ours": _our_side, "autoencoder": _autoencoder_side}


def _latent_size(shape: _Size) -> _Size:
    n_frames, height, width = shape
    return 1 + (n_frames - 1) // 4, height // 8, width // 8


def _n_tokens(shape: _Size) -> int:
    return math.prod(_latent_size(shape)) // 4


def _ideal(velocity: Velocity) -> Velocity:
    """The cost of `velocity` with the answer of a model that knows all about white noise, x̂₀ = x_t·(1−t)/((1−t)² + t²):
    residuals, and with them the bits that steering takes, are then those of a good model."""

    def ideal(x_t: Tensor, t: float) -> Tensor:
        velocity(x_t, t)
        return x_t * ((1 - (1 - t) / ((1 - t) ** 2 + t * t)) / t)

    return ideal


def _checkpointing_mode(settings: Settings) -> str:
    facts = model_facts(settings.architecture)
    if settings.checkpointing != "auto" or facts is None:
        return "none" if settings.checkpointing == "auto" else settings.checkpointing
    n_frames, height, width = settings.shape
    need = memory_needed(facts, settings.precision, n_frames=n_frames, width=width, height=height)
    return choose_checkpointing(need, free_memory_bytes(settings.device))
