"""The two sides of `fitting_speed`: the published loop and ours on diffusers' Wan transformer with random weights."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from vovcodec.adaptation.lowrank import LowRankAdapter
from vovcodec.backbone.catalog import model_facts
from vovcodec.backbone.checkpointing import set_checkpointing
from vovcodec.backbone.linears import wan_linears
from vovcodec.backbone.memory import choose_checkpointing, free_memory_bytes, memory_needed, out_of_memory_explained
from vovcodec.bench.reference_loop import attach_gathering, reference_step
from vovcodec.codec.measure import peak_memory_bytes
from vovcodec.fitting.fit import FitSettings, StageSettings, fit_vector, initial_vector
from vovcodec.fitting.objective import ReferenceObjective
from vovcodec.progress import SilentListener
from vovcodec.sampling.sampler import Velocity

__all__ = ["ARCHITECTURES", "Row", "Settings", "measure"]

_WAN = {"in_channels": 16, "out_channels": 16, "text_dim": 4096, "freq_dim": 256, "attention_head_dim": 128}
ARCHITECTURES = {
    "tiny": {
        "num_attention_heads": 2,
        "attention_head_dim": 12,
        "in_channels": 16,
        "out_channels": 16,
        "text_dim": 24,
        "freq_dim": 16,
        "ffn_dim": 32,
        "num_layers": 2,
        "rope_max_seq_len": 64,
    },
    "pocket": {
        "num_attention_heads": 4,
        "attention_head_dim": 64,
        "in_channels": 65,
        "out_channels": 64,
        "text_dim": 128,
        "freq_dim": 128,
        "ffn_dim": 768,
        "num_layers": 7,
        "rope_max_seq_len": 256,
    },
    "wan2.1-1.3b": _WAN | {"num_attention_heads": 12, "ffn_dim": 8960, "num_layers": 30},
    "wan2.1-14b": _WAN | {"num_attention_heads": 40, "ffn_dim": 13824, "num_layers": 40},
}
_CAPTION_TOKENS = {"tiny": 8, "pocket": 64}
_VECTOR_LENGTH = 131072  # as published; small models get a fifth of their factor entries, the published ratio
_WARM_UP = 2
_Figures = tuple[float, float, float]  # median seconds by the clock and on the processor, peak memory in MB


@dataclass(frozen=True)
class Settings:
    """What is measured. shape: (frames, height, width) of the clip in pixels."""

    architecture: str
    shape: tuple[int, int, int]
    device: str
    precision: str
    checkpointing: str
    compiled: bool
    steps: int
    threads: int | None


@dataclass(frozen=True)
class Row:
    """One line of the table; seconds per step, medians."""

    side: str
    what: str
    wall_s: float
    cpu_s: float
    peak_mb: float
    checkpointing: str
    vector_length: int
    n_tokens: int


def measure(side: str, settings: Settings) -> list[Row]:
    """The rows of one side, "reference" or "ours", in this process. Raises ModelError when memory runs out."""
    if settings.threads:
        torch.set_num_threads(settings.threads)
    with out_of_memory_explained(f"measuring {side}", settings.device, "use a smaller --shape or --architecture"):
        torch.manual_seed(0)
        transformer = _random_transformer(settings)
        linears = wan_linears(transformer, "qkvo", 0)
        n_entries = sum(layer.in_features + layer.out_features for _, layer in linears)
        vector_length = min(_VECTOR_LENGTH, n_entries // 5)
        n_frames, height, width = settings.shape
        shape = (1, transformer.config.out_channels, 1 + (n_frames - 1) // 4, height // 8, width // 8)
        target = torch.randn(shape, device=settings.device)
        n_tokens = shape[2] * shape[3] * shape[4] // 4
        velocity = _velocity(transformer, settings)
        run = _reference_side if side == "reference" else _our_side
        return [
            Row(side if what != "frozen pass" else "frozen", what, *figures, mode, vector_length, n_tokens)
            for what, mode, figures in run(transformer, linears, velocity, target, vector_length, settings)
        ]


def _random_transformer(settings: Settings) -> nn.Module:
    from diffusers import WanTransformer3DModel

    dtype = torch.bfloat16 if settings.precision == "bfloat16" else torch.float32
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)  # the weights of 14 B parameters in float32 would be twice what is measured
    try:
        with torch.device(settings.device):
            transformer = WanTransformer3DModel(**ARCHITECTURES[settings.architecture])
    finally:
        torch.set_default_dtype(before)
    return transformer.eval().requires_grad_(False)


def _velocity(transformer: nn.Module, settings: Settings) -> Velocity:
    """v(x_t, t) in float32, whatever the transformer's precision, as a backbone has it."""
    config, dtype = transformer.config, transformer.dtype
    n_tokens = _CAPTION_TOKENS.get(settings.architecture, 512)
    condition = torch.randn(1, n_tokens, config.text_dim, device=settings.device, dtype=dtype)

    def velocity(x_t, t):
        extra = config.in_channels - x_t.shape[1]
        x = torch.cat([x_t, torch.zeros_like(x_t[:, :extra])], dim=1) if extra else x_t
        times = torch.full((1,), 1000.0 * t, device=settings.device)
        return transformer(x.to(dtype), timestep=times, encoder_hidden_states=condition, return_dict=False)[0].float()

    return velocity


def _reference_side(
    transformer: nn.Module,
    linears: list[tuple[str, nn.Linear]],
    velocity: Velocity,
    target: Tensor,
    vector_length: int,
    settings: Settings,
) -> Iterator[tuple[str, str, _Figures]]:
    theta = attach_gathering(transformer, linears, vector_length)
    yield "fit", "full", _timed(reference_step(velocity, target, theta), settings)
    yield "decode", "none", _timed(_evaluation(velocity, target), settings)


def _our_side(
    transformer: nn.Module,
    linears: list[tuple[str, nn.Linear]],
    velocity: Velocity,
    target: Tensor,
    vector_length: int,
    settings: Settings,
) -> Iterator[tuple[str, str, _Figures]]:
    mode = _checkpointing_mode(settings)
    set_checkpointing(transformer, mode)
    if settings.compiled:
        transformer.compile_repeated_blocks()

    def frozen_pass() -> None:
        x_t = target.clone().requires_grad_()
        (velocity(x_t, 0.5) - target).square().mean().backward()

    before = _timed(frozen_pass, settings)
    adapter = LowRankAdapter(linears, rank=1, vector_length=vector_length, seed=0, device=target.device)
    clock = _Clock(settings)
    n_steps = _WARM_UP + settings.steps
    with adapter.attached():
        fit_vector(
            adapter,
            velocity,
            ReferenceObjective(target, 0, 0, 1),
            FitSettings(StageSettings(n_steps, 2e-3, 1e-4), StageSettings(0, 0.0), 0.0, published=True),
            initial_vector(0, 0, vector_length).to(target.device),
            segment=0,
            listener=clock,
        )
        yield "fit", mode, clock.figures()
        adapter.materialize(initial_vector(0, 0, vector_length).to(target.device))
        yield "decode", "none", _timed(_evaluation(velocity, target), settings)
    # Before and after the fit: what drifts with the machine's temperature and load then counts for both alike.
    after = _timed(frozen_pass, settings)
    means = (statistics.fmean(pair) for pair in zip(before[:2], after[:2], strict=True))
    yield "frozen pass", mode, (*means, after[2])


def _checkpointing_mode(settings: Settings) -> str:
    facts = model_facts(settings.architecture)
    if settings.checkpointing != "auto" or facts is None:
        return "none" if settings.checkpointing == "auto" else settings.checkpointing
    n_frames, height, width = settings.shape
    need = memory_needed(facts, settings.precision, n_frames=n_frames, width=width, height=height)
    return choose_checkpointing(need, free_memory_bytes(settings.device))


def _evaluation(velocity: Velocity, target: Tensor) -> Callable[[], None]:
    def evaluate() -> None:
        with torch.no_grad():
            velocity(target, 0.5)

    return evaluate


class _Clock(SilentListener):
    """Takes the time of steps; a progress listener, whose units are the steps of a fit."""

    def __init__(self, settings: Settings) -> None:
        self._device, self._times = settings.device, []

    def stage(self, name: str, n_units: int, done: int = 0) -> None:
        self.start()

    def advance(self, n_units: int = 1, **figures: float) -> None:
        self.stop()
        self.start()

    def start(self) -> None:
        """A step begins; everything before it is finished."""
        self._synchronize()
        self._started = time.perf_counter(), time.process_time()

    def stop(self) -> None:
        """A step ends when the device has done it."""
        self._synchronize()
        self._times.append((time.perf_counter() - self._started[0], time.process_time() - self._started[1]))

    def figures(self) -> _Figures:
        """Median seconds by the clock and on the processor after the warm-up; peak memory in MB since the last call."""
        wall, cpu = (statistics.median(column) for column in zip(*self._times[_WARM_UP:], strict=True))
        return wall, cpu, _peak_bytes(self._device) / 1e6

    def _synchronize(self) -> None:
        if self._device.startswith("cuda"):
            torch.cuda.synchronize(self._device)


def _timed(step: Callable[[], None], settings: Settings) -> _Figures:
    clock = _Clock(settings)
    for _ in range(_WARM_UP + settings.steps):
        clock.start()
        step()
        clock.stop()
    return clock.figures()


def _peak_bytes(device: str) -> int:
    if device.startswith("cuda"):
        peak = torch.cuda.max_memory_allocated(device)
        torch.cuda.reset_peak_memory_stats(device)
        return peak
    return peak_memory_bytes()
