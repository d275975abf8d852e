"""What a preset may contain: this file is the only list of settings, with their types, ranges and defaults.

Adding a setting takes one line in one of the groups. `vovcodec.presets` reads, checks, merges and digests them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import MISSING, dataclass, field
from typing import Any

__all__ = [
    "Adaptation",
    "Backbone",
    "Fitting",
    "Geometry",
    "Preset",
    "Rate",
    "Sampler",
    "Stage1",
    "Stage2",
    "Steering",
]


def _setting(
    default: Any = MISSING,
    *,
    low: float | None = None,
    high: float | None = None,
    choices: tuple[str, ...] = (),
    rule: Callable[[Any], str | None] | None = None,
) -> Any:
    """A dataclass field with its allowed values; `rule` returns what is wrong with a value, or None."""
    return field(default=default, metadata={"low": low, "high": high, "choices": choices, "rule": rule})


def _four_n_plus_one(n_frames: int) -> str | None:
    # FORMAT.md, section 4, whatever the model. Its own stride is looked at when segments are cut (media/geometry.py).
    if n_frames % 4 == 1:
        return None
    return f"must be 4n+1, as files hold no other lengths; nearest: {n_frames // 4 * 4 + 1}"


def _two_shares(split: list[Any]) -> str | None:
    numbers = [s for s in split if isinstance(s, (int, float)) and not isinstance(s, bool) and s >= 0]
    if len(split) == len(numbers) == 2 and abs(sum(numbers) - 1) < 1e-9:
        return None
    return "must be two shares [vector, steering] that sum to 1"


@dataclass(frozen=True)
class Backbone:
    """The frozen generative model. path: a local folder; revision: of the hub repository; precision: of its weights;
    compile: the transformer's blocks by torch.compile, where it runs on CUDA; checkpointing: of gradients, auto = the
    fastest that fits (`backbone.checkpointing`). The last two act on the big models only."""

    id: str = _setting()
    path: str | None = _setting(None)
    revision: str | None = _setting(None)
    precision: str = _setting("float32", choices=("float32", "bfloat16", "int8-weights"))
    compile: bool = _setting(False)
    checkpointing: str = _setting("auto", choices=("auto", "none", "attention", "full"))


@dataclass(frozen=True)
class Geometry:
    """Coded size and segment length. short_side, multiple: pixels. segment_frames: longest segment; scene_frames: the
    same where neighbours that rest on one picture are joined, `segment_frames` or less: they never are."""

    short_side: int = _setting(128, low=16, high=4320)
    multiple: int = _setting(16, low=1, high=256)
    segment_frames: int = _setting(33, low=1, high=1025, rule=_four_n_plus_one)
    scene_frames: int = _setting(129, low=1, high=1025)


@dataclass(frozen=True)
class Adaptation:
    """The vector θ and how it becomes low-rank updates. last_blocks: adapt only so many last blocks; null = all."""

    projection: str = _setting("balanced-philox", choices=("balanced-philox", "offset-philox"))
    rank: int = _setting(1, low=1, high=64)
    targets: str = _setting("qkvo", choices=("qkv", "qkvo", "qkvo_mlp"))
    last_blocks: int | None = _setting(None, low=1)
    vector_length: int = _setting(2048, low=0, high=1 << 24)


@dataclass(frozen=True)
class Sampler:
    """How noise becomes latents. shift: of the timestep schedule, null = what the model was published with for the
    coded size (`backbone.catalog.flow_shift`); still_shift: the same for stills, null = `shift`; seed: of the
    decoder's noise."""

    steps: int = _setting(4, low=1, high=1000)
    shift: float | None = _setting(1.0, low=0.01, high=100.0)
    still_shift: float | None = _setting(None, low=0.01, high=100.0)
    seed: int = _setting(0, low=0, high=(1 << 32) - 1)


@dataclass(frozen=True)
class Steering:
    """Information carried by the injected noise.

    method: none injects no noise at all. snr_start: signal-to-noise ratio ((1−t)/t)² of the first injection; snr_ratio:
    growth from one to the next; fewer, larger steps decode faster, smaller ones use their bits better;
    still_snr_ratio: the same for single frames (None: the same number, too). codebook: trellis, or signed atoms at
    coded positions; memory: the trellis has 2^memory states. eta_scale: noise fraction relative to ancestral sampling.
    reach: how far an injection goes along the residual, relative to what a sampler that knew the original would draw
    (encoder only). active_channels: atoms act on the first so many latent channels; 0 = all. scene: a clip may rest on
    a picture of its scene, before a camera that stands still or moves (codec/view.py). bytes: of the atoms where no
    byte target is given.
    """

    method: str = _setting("none", choices=("atoms", "importance", "none"))
    codebook: str = _setting("trellis", choices=("trellis", "hadamard", "cyclic"))
    memory: int = _setting(12, low=1, high=16)
    snr_start: float = _setting(0.002, low=1e-9, high=1.0)
    snr_ratio: float = _setting(1.75, low=1.02, high=4.98)
    still_snr_ratio: float | None = _setting(None, low=1.02, high=4.98)
    eta_scale: float = _setting(1.0, low=0.05, high=1.25)
    reach: float = _setting(1.0, low=0.1, high=3.0)
    active_channels: int = _setting(0, low=0, high=255)
    scene: bool = _setting(True)
    bytes: int = _setting(0, low=0, high=1 << 24)


@dataclass(frozen=True)
class Stage1:
    """Fitting θ to the frames alone."""

    steps: int = _setting(0, low=0, high=1_000_000)
    lr: float = _setting(1e-2, low=0.0, high=1.0)
    weight_decay: float = _setting(0.0, low=0.0, high=1.0)


@dataclass(frozen=True)
class Stage2:
    """Fitting θ to frames and rate. lambda: multiplier of the rate, where no size is asked for; warmup_steps: until it
    acts in full."""

    steps: int = _setting(0, low=0, high=1_000_000)
    lr: float = _setting(5e-3, low=0.0, high=1.0)
    weight_decay: float = _setting(0.0, low=0.0, high=1.0)
    lambda_: float = _setting(4e-3, low=0.0, high=1e3)
    warmup_steps: int = _setting(0, low=0, high=1_000_000)


@dataclass(frozen=True)
class Fitting:
    """How θ is found. batch: states per optimiser step."""

    objective: str = _setting("trajectory", choices=("trajectory", "reference"))
    stage1: Stage1 = field(default_factory=Stage1)
    stage2: Stage2 = field(default_factory=Stage2)
    batch: int = _setting(1, low=1, high=4096)


@dataclass(frozen=True)
class Rate:
    """The default rate target: whole-file bytes per segment, bits per source pixel, or a fixed multiplier λ.

    At most one of the three. still_bytes: as bytes, for stills; null = `bytes`. split: shares of the payload
    [vector, steering]; null = one twelfth for the vector.
    """

    bytes: int | None = _setting(None, low=1)
    still_bytes: int | None = _setting(None, low=1)
    bpp: float | None = _setting(None, low=1e-6, high=24.0)
    lambda_: float | None = _setting(None, low=0.0, high=1e3)
    split: list | None = _setting(None, rule=_two_shares)  # noqa: RUF009 - a field, not a value


@dataclass(frozen=True)
class Preset:
    """One preset. `efforts` maps an effort's name to its partial groups, kept as the plain data of the file."""

    name: str
    backbone: Backbone
    description: str = ""
    geometry: Geometry = field(default_factory=Geometry)
    adaptation: Adaptation = field(default_factory=Adaptation)
    sampler: Sampler = field(default_factory=Sampler)
    steering: Steering = field(default_factory=Steering)
    fitting: Fitting = field(default_factory=Fitting)
    rate: Rate = field(default_factory=Rate)
    efforts: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
