"""The speed comparison: the re-created reference computes what ours does, and the table is complete."""

from __future__ import annotations

import math
import os
import signal
import sys

import pytest
import torch
from torch import nn

from vovcodec.adaptation.lowrank import LowRankAdapter
from vovcodec.bench import fitting_speed
from vovcodec.bench.architectures import ARCHITECTURES, random_transformer
from vovcodec.bench.fitting_speed import measured, summary_lines
from vovcodec.bench.reference_loop import attach_gathering
from vovcodec.bench.speed_sides import SIDES, Row, Settings, failed_row, measure
from vovcodec.errors import ModelError


class Net(nn.Sequential):
    def enable_gradient_checkpointing(self) -> None:
        self.checkpointed = True


def test_the_reference_gathers_the_same_update():
    torch.manual_seed(0)
    net, same = (Net(nn.Linear(6, 10), nn.Tanh(), nn.Linear(10, 4)).requires_grad_(False) for _ in range(2))
    same.load_state_dict(net.state_dict())
    theta = attach_gathering(net, [("0", net[0]), ("2", net[2])], 7)
    adapter = LowRankAdapter(
        [("0", same[0]), ("2", same[2])], rank=1, vector_length=7, seed=0, device=torch.device("cpu")
    )
    ours, x = theta.detach().clone().requires_grad_(), torch.randn(3, 6)
    with adapter.attached():
        adapter.materialize(ours)
        expected = same(x)
        expected.square().sum().backward()
    net(x).square().sum().backward()
    assert net.checkpointed and torch.allclose(net(x), expected, atol=1e-6)
    assert torch.allclose(theta.grad, ours.grad, atol=1e-5)


SETTINGS = Settings("tiny", (5, 32, 32), "cpu", "bfloat16", "attention", False, 1, None)
PARTS = {
    "reference": ["fit", "decode"],
    "ours": ["frozen pass", "fit", "frozen pass", "decode", "steering", "decoding"],
    "autoencoder": ["to latents", "to frames"],
}


@pytest.mark.parametrize("side", SIDES)
def test_every_part_of_every_side_is_measured(side):
    rows = measure(side, SETTINGS)
    assert [row.what for row in rows] == PARTS[side] and {row.side for row in rows} == {side}
    assert all(row.wall_s > 0 and row.peak_mb > 0 and row.n_tokens == 2 * 2 * 2 for row in rows)


def test_a_part_that_memory_does_not_suffice_for_is_recorded_and_the_others_go_on(monkeypatch):
    def short_of_memory(*arguments, **settings):
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr("vovcodec.bench.speed_sides.fit_vector", short_of_memory)
    rows = measure("ours", SETTINGS)
    assert [row.what for row in rows] == PARTS["ours"]
    failed = [row for row in rows if math.isnan(row.wall_s)]
    assert [row.what for row in failed] == ["fit"] and "out of memory on cpu while fit" in failed[0].note


def test_random_weights_have_the_dtypes_of_a_loaded_model():
    transformer = random_transformer("tiny", "bfloat16", "cpu")
    assert transformer.blocks[0].attn1.to_q.weight.dtype == torch.bfloat16
    assert transformer.condition_embedder.time_embedder.linear_1.weight.dtype == torch.float32
    assert not any(parameter.requires_grad for parameter in transformer.parameters())


def test_the_command_measures_several_architectures_unattended(tmp_path, monkeypatch, capsys):
    """As `make bench-gpu` runs it, in this process; a side that dies leaves its row, and the exit code says so."""
    dies = Settings("tiny", (5, 32, 32), "cpu", "bfloat16", "auto", True, 1, None)

    def measured(side, settings):
        return [failed_row(side, "all", settings, "a process\ndied")] if settings == dies else measure(side, settings)

    monkeypatch.setattr(fitting_speed, "measured", measured)
    out = tmp_path / "speed.tsv"
    line = "--architecture tiny tiny --device cpu --precision bfloat16 --compile --steps 1"
    assert fitting_speed.main([*line.split(), "--out", str(out)]) == ModelError.exit_code
    told = capsys.readouterr().out
    assert "of the reference loop's time (target 0.6)" in told and "ours, all: not measured: a process died" in told
    assert "steering:" in told and "to frames:" in told
    header, *lines = (line.split("\t") for line in out.read_text().splitlines())
    assert {"device", "torch", "diffusers", "shape", "wall_s", "cpu_s", "peak_mb", "note"} <= set(header)
    assert len(lines) == 2 * (2 + 6 + 1 + 2) and all(len(line) == len(header) for line in lines)


def killed(side, settings):
    os.kill(os.getpid(), signal.SIGKILL)


@pytest.mark.skipif(sys.platform == "win32", reason="POSIX signals")
def test_a_process_that_is_killed_is_a_row(monkeypatch):
    monkeypatch.setattr(fitting_speed, "measure", killed)
    (row,) = measured("ours", SETTINGS)
    assert math.isnan(row.wall_s) and "terminated abruptly" in row.note


def test_the_summary_compares_the_sides():
    def row(side, what, seconds):
        return Row(side, what, seconds, seconds, 100.0, "none", 64, 8)

    rows = [row("reference", "fit", 3.0), row("ours", "frozen pass", 1.0), row("ours", "fit", 1.5)]
    told = "\n".join(summary_lines([*rows, row("ours", "frozen pass", 1.4)], "cpu"))
    assert "0.50 of the reference loop's time" in told and "25.0 % more" in told and "decode" not in told


def test_without_a_device_the_command_says_so(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert fitting_speed.main(["--device", "cuda", "--out", str(tmp_path / "x.tsv")]) == ModelError.exit_code
    assert "no CUDA device" in capsys.readouterr().err and not (tmp_path / "x.tsv").exists()


def test_architectures_are_those_of_the_models():
    import json

    from vovcodec.backbone.catalog import CATALOG
    from vovcodec.backbone.geometry import POCKET_WEIGHTS

    config = json.loads((POCKET_WEIGHTS / "transformer" / "config.json").read_text())
    assert {key: config[key] for key in ARCHITECTURES["pocket"]} == ARCHITECTURES["pocket"]
    for name in ("wan2.1-1.3b", "wan2.1-14b"):
        ours, facts = ARCHITECTURES[name], CATALOG[name]
        assert ours["num_attention_heads"] * ours["attention_head_dim"] == facts.width
        assert (ours["ffn_dim"], ours["num_layers"]) == (facts.ffn_width, facts.n_blocks)
