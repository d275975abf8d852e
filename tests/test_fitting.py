"""Fitting a vector: objectives, both stages, and state that survives interruptions."""

from __future__ import annotations

import contextlib
import math
import os
import time
import weakref
from dataclasses import replace

import numpy as np
import pytest
import torch
from tiny_models import save_tiny_pocket
from torch import nn

from vovcodec.adaptation.lowrank import LowRankAdapter
from vovcodec.backbone.pocket.backbone import PocketBackbone
from vovcodec.entropy.quantizer import dequantize, quantize
from vovcodec.entropy.symbols import coded_size
from vovcodec.errors import UsageError
from vovcodec.fitting.checkpoint import StateFolder
from vovcodec.fitting.fit import (
    FitSettings,
    StageSettings,
    entry_scale,
    fit_vector,
    initial_vector,
)
from vovcodec.fitting.guard import Guard
from vovcodec.fitting.objective import ReferenceObjective, TrajectoryObjective, straight_path
from vovcodec.progress import SilentListener
from vovcodec.sampling.noise import Purpose, Stream, normal, raw_u64
from vovcodec.sampling.sampler import initial_noise
from vovcodec.sampling.schedule import time_grid

CPU = torch.device("cpu")
SHAPE = (1, 8, 1, 6, 6)
LENGTH = 60
SETTINGS = FitSettings(StageSettings(6, 0.05), StageSettings(6, 0.03, 1e-3), lambda_=1e-3, warmup_steps=3)


class Toy(nn.Module):
    """A frozen "model" whose clean estimate is two linear layers over the channels."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(8, 40), nn.Linear(40, 8)

    def velocity(self, x_t, t):
        clean = self.second(torch.tanh(self.first(x_t.movedim(1, -1)))).movedim(-1, 1)
        return (x_t - clean) / t


@pytest.fixture
def toy():
    torch.manual_seed(0)
    return Toy().requires_grad_(False)


def adapter_for(toy, length: int = LENGTH) -> LowRankAdapter:
    linears = [("first", toy.first), ("second", toy.second)]
    return LowRankAdapter(linears, rank=1, vector_length=length, seed=1, device=CPU)


def target() -> torch.Tensor:
    return torch.randn(SHAPE, generator=torch.Generator().manual_seed(4))


def trajectory(batch: int = 1) -> TrajectoryObjective:
    states = straight_path(target(), time_grid(4, 512), 0, 0)
    return TrajectoryObjective(target(), states, [1.0] * len(states), 0, 0, batch)


def fit(
    toy, settings=SETTINGS, *, state=None, listener=None, objective=None, segment=0, start=None, length=LENGTH, **more
):
    adapter = adapter_for(toy, length)
    start = initial_vector(0, segment, length) * entry_scale(adapter) if start is None else start
    with adapter.attached():
        return fit_vector(
            adapter,
            toy.velocity,
            objective or trajectory(),
            settings,
            start,
            segment=segment,
            state=state,
            listener=listener or SilentListener(),
            **more,
        )


class StopsAt(SilentListener):
    """Presses Ctrl-C after so many finished steps."""

    def __init__(self, n_steps: int) -> None:
        self._left = n_steps

    def advance(self, n_units: int = 1, **figures: float) -> None:
        self._left -= 1
        if self._left == 0:
            raise KeyboardInterrupt


class Records(SilentListener):
    def __init__(self) -> None:
        self.stages, self.n_units = [], 0

    def stage(self, name: str, n_units: int, done: int = 0) -> None:
        self.stages.append((name, n_units, done))

    def advance(self, n_units: int = 1, **figures: float) -> None:
        self.n_units += n_units


def same(a, b) -> bool:
    return np.array_equal(a.unquantized, b.unquantized) and a.step_size_q == b.step_size_q


def test_the_reference_loss_is_flow_matching_on_fresh_noise():
    objective = ReferenceObjective(target(), 7, 2, batch=3)
    seen = []

    def velocity(x_t, t):
        seen.append((x_t, t))
        return 0.5 * x_t

    loss = sum(objective.losses(velocity, 11))
    times = (raw_u64(Stream(7, Purpose.FITTING_TIME, (2, 11)), 3) >> np.uint64(11)).astype(float) + 0.5
    expected = 0.0
    for number, (x_t, t) in enumerate(seen):
        assert t == times[number] / 2**53 and 0 < t < 1
        noise = torch.from_numpy(normal(Stream(7, Purpose.FITTING_NOISE, (2, 11, number)), SHAPE))
        assert torch.equal(x_t, (1 - t) * target() + t * noise)
        expected += float((0.5 * x_t - (noise - target())).square().mean()) / 3
    assert float(loss) == pytest.approx(expected, rel=1e-6)
    assert objective.evaluations == len(seen) == 3
    assert sum(objective.losses(velocity, 11)) == loss != sum(objective.losses(velocity, 12))


def test_the_reference_loss_of_the_true_velocity_is_zero():
    def truth(x_t, t):
        return (x_t - target()) / t  # on the straight path x_t − x₀ = t·(ε − x₀)

    assert sum(ReferenceObjective(target(), 0, 0, 4).losses(truth, 0)) < 1e-6


def test_the_trajectory_loss_visits_every_state_once_a_round():
    objective = trajectory(batch=2)
    objective.scales = [1.0, 2.0, 3.0, 4.0]
    visits = []

    def velocity(x_t, t):
        visits.append(t)
        return (x_t - target()) / t + 1.0  # every estimate is off by t

    losses = [float(sum(objective.losses(velocity, i))) for i in range(6)]
    times = [t for _, t in objective.states]
    assert all(sorted(visits[i : i + 4], reverse=True) == times for i in (0, 4, 8))
    assert visits[:4] != visits[4:8] or visits[4:8] != visits[8:], "rounds differ in order"
    scale = dict(zip(times, objective.scales, strict=True))
    expected = [sum(t * t / scale[t] for t in visits[2 * i : 2 * i + 2]) / 2 for i in range(6)]
    assert losses == pytest.approx(expected, rel=1e-3)


@pytest.mark.parametrize("kind", ["reference", "trajectory"])
def test_a_batch_is_a_sum_of_parts_that_nothing_keeps(toy, kind):
    """A batch of 32 takes the memory of one state, and several processes can share it."""
    objective = ReferenceObjective(target(), 0, 0, 5) if kind == "reference" else trajectory(batch=5)
    alive = weakref.WeakSet()

    def velocity(x_t, t):
        assert not alive, "the state before is gone when the next one is evaluated"
        v = toy.velocity(x_t.requires_grad_(), t)
        alive.add(v)
        return v

    whole = 0.0
    for part in objective.losses(velocity, 3):
        whole += float(part.detach())
        del part
    shares = [[float(part.detach()) for part in objective.losses(toy.velocity, 3, range(i, 5, 2))] for i in (0, 1)]
    assert [len(share) for share in shares] == [3, 2]
    assert sum(map(sum, shares)) == pytest.approx(whole, rel=1e-6)


def test_the_straight_path_starts_from_the_decoders_noise():
    path = straight_path(target(), [1.0, 0.5, 0.0], 9, 3)
    noise = initial_noise(9, 3, SHAPE)
    assert [t for _, t in path] == [1.0, 0.5]
    assert torch.equal(path[0][0], noise) and torch.equal(path[1][0], 0.5 * target() + 0.5 * noise)


def test_a_start_is_small_uniform_and_its_own_per_segment():
    start = initial_vector(0, 0, 4096)
    assert start.abs().max() < 0.02 and float(start.std()) == pytest.approx(0.02 / math.sqrt(3), rel=0.05)
    assert not torch.equal(start, initial_vector(0, 1, 4096))


def test_the_loss_falls_and_the_vector_is_as_the_decoder_gets_it(toy):
    settings = FitSettings(StageSettings(80, 0.05), StageSettings(40, 0.02), lambda_=1e-4)
    losses, listener = [], Records()
    adapter = adapter_for(toy)
    with adapter.attached():
        fitted = fit_vector(
            adapter,
            toy.velocity,
            trajectory(batch=4),
            settings,
            initial_vector(0, 0, LENGTH) * entry_scale(adapter),
            segment=0,
            listener=listener,
            on_progress=lambda loss, bits: losses.append((loss, bits)) or {},
        )
        adapter.materialize(torch.from_numpy(fitted.theta))
        with torch.no_grad():
            decoded = float(sum(trajectory(batch=4).losses(toy.velocity, 0)))
    assert losses[-1][0] < 0.9 * losses[0][0]
    assert decoded == pytest.approx(losses[-1][0], rel=0.05), "the quantised vector does what the fit saw"
    assert all(bits is None for _, bits in losses[:80]) and all(bits > 0 for _, bits in losses[80:])
    assert np.array_equal(fitted.theta, dequantize(fitted.symbols, fitted.step_size_q))
    assert np.array_equal(fitted.symbols, quantize(fitted.unquantized, fitted.step_size_q))
    assert fitted.symbols.any() and fitted.n_evaluations == listener.n_units == 120 * 4
    assert listener.stages == [("fitting", 480, 0)]


def wide_toy() -> Toy:
    """A model that a vector of 480 entries changes in many independent ways."""
    torch.manual_seed(1)
    toy = Toy()
    toy.first, toy.second = nn.Linear(8, 300), nn.Linear(300, 8)
    return toy.requires_grad_(False)


@pytest.mark.parametrize("bits_per_entry", [0.6, 1.2, 2.5])
def test_stage_two_holds_its_bytes_at_every_step(bits_per_entry):
    size_bytes, bits = int(bits_per_entry * 480 / 8), []
    settings = FitSettings(StageSettings(30, 0.05), StageSettings(40, 0.02), lambda_=0.0, target_bytes=size_bytes)
    fitted = fit(
        wide_toy(),
        settings,
        length=480,
        objective=trajectory(batch=1),
        on_progress=lambda distortion, now: bits.append(now) or {},
    )
    assert bits[:30] == [None] * 30 and len(bits) == 70
    assert all(0.9 * size_bytes - 2 <= now / 8 <= size_bytes for now in bits[30:])
    assert 0.9 * size_bytes - 2 <= coded_size(fitted.symbols) <= size_bytes


def test_stage_two_finds_better_symbols_than_rounding():
    """At two bits an entry, of what rounding a fit of as many steps takes away, most is not lost."""
    toy = wide_toy()

    def distortion(stage1: int, stage2: int, size_bytes: int) -> float:
        settings = FitSettings(StageSettings(stage1, 0.05), StageSettings(stage2, 0.05), 0.0, target_bytes=size_bytes)
        fitted = fit(toy, settings, length=480, objective=trajectory(batch=4))
        adapter = adapter_for(toy, 480)
        with adapter.attached(), torch.no_grad():
            adapter.materialize(torch.from_numpy(fitted.theta))
            return float(sum(trajectory(batch=4).losses(toy.velocity, 0)))

    exact, rounded, searched = distortion(120, 0, 1000), distortion(120, 0, 120), distortion(60, 60, 120)
    assert exact < searched < rounded and searched - exact < 0.5 * (rounded - exact)


def test_without_a_second_stage_the_vector_is_still_quantised(toy):
    fitted = fit(toy, FitSettings(StageSettings(5, 0.05), StageSettings(0, 0.0), 0.0, target_bytes=18))
    assert np.array_equal(fitted.theta, dequantize(fitted.symbols, fitted.step_size_q)) and fitted.symbols.any()


def test_a_vector_fits_a_real_model(tmp_path):
    backbone = PocketBackbone(save_tiny_pocket(tmp_path / "model"))
    y, x = np.mgrid[:32, :32]
    frames = np.stack([4 * x + y, 5 * y, 255 - 6 * x], axis=-1).clip(0, 255).astype(np.uint8)[None]
    goal, condition = backbone.to_latents(frames), backbone.embed_caption("")
    adapter = LowRankAdapter(backbone.adaptable_linears("qkvo", 0), rank=1, vector_length=128, seed=0, device=CPU)

    def velocity(x_t, t):
        return backbone.velocity(x_t, t, condition)

    states = straight_path(goal, time_grid(3, 256), 0, 0)
    with torch.no_grad():
        scales = [float((x_t - t * velocity(x_t, t) - goal).square().mean()) for x_t, t in states]
    losses = []
    with adapter.attached():
        fit_vector(
            adapter,
            velocity,
            TrajectoryObjective(goal, states, scales, 0, 0, 3),
            FitSettings(StageSettings(25, 0.02 * entry_scale(adapter)), StageSettings(0, 0.0), 0.0),
            initial_vector(0, 0, 128) * entry_scale(adapter),
            segment=0,
            listener=SilentListener(),
            on_progress=lambda loss, bits: losses.append(loss) or {},
        )
    assert losses[0] == pytest.approx(1.0, abs=0.1), "relative to the error without a vector"
    assert losses[-1] < 0.97 * losses[0]


@pytest.mark.parametrize("target_bytes", [None, 14])
@pytest.mark.parametrize("n_steps", [1, 5, 6, 7, 11, 12])
def test_an_interrupted_fit_continues_bit_for_bit(toy, tmp_path, n_steps, target_bytes):
    """Before, at and after the border between the stages (6), and after the last step."""
    settings = replace(SETTINGS, target_bytes=target_bytes)
    whole = fit(toy, settings)
    state = StateFolder(tmp_path, "job")
    with pytest.raises(KeyboardInterrupt):
        fit(toy, settings, state=state, listener=StopsAt(n_steps))
    listener = Records()
    resumed = fit(toy, settings, state=StateFolder(tmp_path, "job"), listener=listener)
    assert same(resumed, whole)
    assert listener.stages == [("fitting", 12, n_steps)], "progress starts at the true share"
    assert resumed.n_evaluations == whole.n_evaluations == 12


def test_interrupted_twice_is_as_good(toy, tmp_path):
    for n_steps in (3, 5):
        with pytest.raises(KeyboardInterrupt):
            fit(toy, state=StateFolder(tmp_path, "job"), listener=StopsAt(n_steps))
    assert same(fit(toy, state=StateFolder(tmp_path, "job")), fit(toy))


@pytest.mark.parametrize("n_steps", [3, 7, 8])
@pytest.mark.parametrize("moment", ["forward", "optimizer"])
def test_an_interruption_in_the_middle_of_a_step_is_no_different(toy, tmp_path, monkeypatch, n_steps, moment):
    """Ctrl-C comes when it comes, for instance between the optimiser's step and the count of it."""
    whole, state, n_calls = fit(toy), StateFolder(tmp_path, "job"), 0
    with monkeypatch.context() as patch:
        if moment == "forward":
            name, cls = "losses", TrajectoryObjective
        else:
            name, cls = "step", torch.optim.AdamW
        original = getattr(cls, name)

        def stops(self, *arguments):
            nonlocal n_calls
            n_calls += 1
            result = original(self, *arguments)
            if n_calls == n_steps:
                raise KeyboardInterrupt
            return result

        patch.setattr(cls, name, stops)
        with pytest.raises(KeyboardInterrupt):
            fit(toy, state=state)
    assert same(fit(toy, state=StateFolder(tmp_path, "job")), whole)


def test_a_finished_fit_is_not_done_again(toy, tmp_path):
    whole = fit(toy, state=StateFolder(tmp_path, "job"))
    listener = Records()
    assert same(fit(toy, state=StateFolder(tmp_path, "job"), listener=listener), whole)
    assert listener.n_units == 0 and listener.stages == [("fitting", 12, 12)]


def stopped_state(toy, root, n_steps: int = 4, **settings) -> StateFolder:
    state = StateFolder(root, "job")
    with pytest.raises(KeyboardInterrupt):
        fit(toy, state=state, listener=StopsAt(n_steps), **settings)
    return state


def test_state_of_another_segment_is_ignored(toy, tmp_path):
    state = stopped_state(toy, tmp_path)
    assert state.read_fit(0) is not None and state.read_fit(1) is None
    objective = replace(trajectory(), segment=1)
    assert same(fit(toy, segment=1, objective=objective, state=state), fit(toy, segment=1, objective=objective))


@pytest.mark.parametrize("kind", ["empty", "cut", "text", "no figures", "other length", "other model"])
def test_damaged_state_is_ignored(toy, tmp_path, kind):
    state = stopped_state(toy, tmp_path)
    path = state.path / "0.fit"
    tensors, figures = state.read_fit(0)
    if kind == "empty":
        path.write_bytes(b"")
    elif kind == "cut":
        path.write_bytes(path.read_bytes()[:-40])
    elif kind == "text":
        path.write_bytes(b"not a checkpoint, but long enough to be one")
    elif kind == "no figures":
        state.write_fit(0, tensors, {})
    elif kind == "other length":
        state.write_fit(0, tensors | {"theta": torch.zeros(LENGTH + 1)}, figures)
    else:
        state.write_fit(0, {"theta": tensors["theta"] + 1}, figures)
    assert same(fit(toy, state=StateFolder(tmp_path, "job")), fit(toy))


def test_parts_are_kept_replaced_and_discarded(tmp_path):
    state = StateFolder(tmp_path, "job")
    assert state.read_part(0) is None
    state.write_part(0, b"first")
    state.write_part(0, b"second")
    assert StateFolder(tmp_path, "job").read_part(0) == b"second"
    assert StateFolder(tmp_path, "other").read_part(0) is None
    assert [path.name for path in state.path.iterdir()] == ["0.part"], "no temporary file is left"
    assert StateFolder(tmp_path, "job", resume=False).read_part(0) is None
    state.discard()
    assert not state.path.exists()


def test_states_that_nobody_goes_on_with_are_removed(tmp_path):
    def state_of(digit: str, days: float, *more: str) -> StateFolder:
        state = StateFolder(tmp_path, 32 * digit)
        state.write_part(0, b"kept")
        for name in more:
            (state.path / name).write_bytes(b"")
        before = time.time() - days * 24 * 3600
        for path in (*state.path.iterdir(), state.path):
            os.utime(path, (before, before))
        return state

    recent, foreign, resumed = state_of("a", 29), state_of("b", 99, "letter.txt"), state_of("c", 99)
    StateFolder(tmp_path, resumed.path.name)
    abandoned = state_of("d", 31, "1.fit", ".1.fit.x.tmp")
    (tmp_path / "project").mkdir()
    os.utime(tmp_path / "project", (0, 0))
    abandoned.write_part(1, b"")  # it exists: nothing is begun
    for path in (*abandoned.path.iterdir(), abandoned.path):
        os.utime(path, (0, 0))
    begun = StateFolder(tmp_path, 32 * "e")
    begun.write_part(0, b"first")
    left = {state.path for state in (recent, foreign, resumed, begun)}
    assert set(tmp_path.iterdir()) == left | {tmp_path / "project"}


def test_a_folder_that_cannot_be_written_costs_the_state_not_the_encode(toy, tmp_path):
    (tmp_path / "file").write_bytes(b"")
    state = StateFolder(tmp_path / "file", "job")
    assert same(fit(toy, state=state), fit(toy))
    assert str(state.path) in state.problem and "--state-dir" in state.problem


def test_a_fit_that_diverges_says_what_to_change(toy):
    with contextlib.suppress(FloatingPointError), pytest.raises(UsageError, match=r"diverged.*fitting\.stage1\.lr"):
        fit(toy, FitSettings(StageSettings(50, 1e30), StageSettings(0, 0.0), 0.0))


def test_a_target_that_no_vector_of_this_length_needs(toy):
    """The finest step size that has symbols for the largest entry; nothing runs away."""
    fitted = fit(toy, FitSettings(StageSettings(5, 0.01), StageSettings(20, 0.01), lambda_=1e-3, target_bytes=10**9))
    assert np.abs(fitted.symbols).max() in (127, 128) and np.isfinite(fitted.unquantized).all()


def test_a_second_stage_that_diverges_says_what_to_change(toy):
    settings = FitSettings(StageSettings(1, 0.01), StageSettings(50, 1e30), lambda_=1e-3, target_bytes=20)
    with pytest.raises(UsageError, match=r"diverged.*fitting\.stage2\.lr"):
        fit(toy, settings)


@pytest.mark.parametrize("n_steps", [7, 31, 58])
def test_a_fit_that_ran_away_continues_bit_for_bit(toy, tmp_path, monkeypatch, n_steps):
    settings, alarms = FitSettings(StageSettings(60, 2.0), StageSettings(0, 0.0), 0.0), []
    has_run_away = Guard.has_run_away

    def told(self, *arguments):
        alarms.append(has_run_away(self, *arguments))
        return alarms[-1]

    monkeypatch.setattr(Guard, "has_run_away", told)
    whole = fit(toy, settings)
    assert any(alarms)
    with pytest.raises(KeyboardInterrupt):
        fit(toy, settings, state=StateFolder(tmp_path, "job"), listener=StopsAt(n_steps))
    assert same(fit(toy, settings, state=StateFolder(tmp_path, "job")), whole)


def test_the_guard_goes_back_to_the_best_vector():
    theta = torch.zeros(3)
    guard = Guard(theta)
    rounds = [0.9, 1.1, 0.5, 0.7]  # two steps each: 1.0 and 0.6 on average
    for step, distortion in enumerate(rounds):
        assert not guard.has_run_away(torch.full((3,), float(step)), distortion, 2)
    assert guard.best.tolist() == [3.0] * 3 and guard.factor == 1.0
    assert not guard.has_run_away(theta, 1.0, 2) and not guard.has_run_away(theta, 0.6, 2), "1.33 times is no runaway"
    assert guard.has_run_away(theta, 3.0, 2) and guard.factor == 0.5 and guard.best.tolist() == [3.0] * 3
    assert guard.has_run_away(theta, math.nan, 2) and guard.factor == 0.25
    assert not guard.has_run_away(theta, 0.5, 2)
    again = Guard(theta)
    again.restore(*guard.snapshot())
    answers = [[each.has_run_away(theta, d, 2) for d in (0.7, 1.4, 9.0, *[math.nan] * 9)] for each in (guard, again)]
    assert answers[0] == answers[1] and not answers[0][-1], "it gives up in the end"


@pytest.mark.parametrize("first", [math.nan, 1e-3])
def test_the_guard_survives_an_odd_beginning(first):
    guard = Guard(torch.zeros(2))
    alarms = [guard.has_run_away(torch.zeros(2), d, 3) for d in (first, 1.0, 1.0, 1.0, 1.0, 1.0, 9.0)]
    assert alarms == [math.isnan(first), *[False] * 5, True]


@pytest.mark.parametrize("seed", range(5))
def test_states_of_unequal_difficulty_are_no_runaway(seed):
    rng, losses = np.random.default_rng(seed), np.geomspace(0.02, 1.0, 20)
    guard = Guard(torch.zeros(2))
    for _ in range(30):
        for loss in rng.permutation(losses):
            assert not guard.has_run_away(torch.zeros(2), float(loss), 20)
    assert guard.factor == 1.0


def test_the_published_recipe_has_no_guard(toy, monkeypatch):
    monkeypatch.setattr(Guard, "has_run_away", lambda *arguments: pytest.fail("it is watched"))
    settings = FitSettings(StageSettings(60, 2.0), StageSettings(0, 0.0), 0.0, published=True)
    assert fit(toy, settings).symbols.any()
