"""The speed comparison: the re-created reference computes what ours does, and the table is complete."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from vovcodec.adaptation.lowrank import LowRankAdapter
from vovcodec.bench import fitting_speed
from vovcodec.bench.reference_loop import attach_gathering
from vovcodec.bench.speed_sides import ARCHITECTURES, Row, Settings, measure


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


@pytest.mark.parametrize("side", ["reference", "ours"])
def test_every_side_is_measured(side):
    settings = Settings("tiny", (5, 32, 32), "cpu", "float32", "attention", False, 1, None)
    rows = measure(side, settings)
    frozen = [("frozen", "frozen pass")] if side == "ours" else []
    assert [(row.side, row.what) for row in rows] == [(side, "fit"), (side, "decode"), *frozen]
    assert all(row.wall_s > 0 and row.peak_mb > 0 and row.n_tokens == 2 * 2 * 2 for row in rows)


def test_the_table_and_the_summary(tmp_path, monkeypatch, capsys):
    def row(side, what, seconds):
        return Row(side, what, seconds, seconds, 100.0, "none", 64, 8)

    made = {
        "reference": [row("reference", "fit", 3.0), row("reference", "decode", 1.0)],
        "ours": [row("ours", "fit", 1.5), row("ours", "decode", 0.5), row("frozen", "frozen pass", 1.2)],
    }
    monkeypatch.setattr(fitting_speed, "measured", lambda side, settings: made[side])
    out = tmp_path / "speed.tsv"
    assert fitting_speed.main(["--architecture", "tiny", "--device", "cpu", "--out", str(out)]) == 0
    told = capsys.readouterr().out
    assert "2.00 times as fast" in told and "25.0 % more" in told
    header, *lines = out.read_text().splitlines()
    assert {"device", "torch", "diffusers", "wall_s", "cpu_s", "peak_mb"} <= set(header.split("\t"))
    assert len(lines) == 5 and all(len(line.split("\t")) == len(header.split("\t")) for line in lines)


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
