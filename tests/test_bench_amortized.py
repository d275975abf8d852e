"""A predicted vector: per-sample updates, the command on a tiny model."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from PIL import Image
from tiny_models import save_tiny_pocket

from vovcodec.adaptation.lowrank import LowRankAdapter
from vovcodec.backbone.pocket.backbone import PocketBackbone
from vovcodec.bench import amortized, timed_training
from vovcodec.bench.batched_updates import BatchedUpdates
from vovcodec.bench.table import read_rows

CPU = torch.device("cpu")


def test_every_sample_has_the_update_that_a_file_with_its_vector_has(tmp_path):
    backbone = PocketBackbone(save_tiny_pocket(tmp_path / "pocket"))
    linears = backbone.adaptable_linears("qkvo", 0)
    generator = torch.Generator().manual_seed(3)
    x_t = torch.randn(2, backbone.geometry.channels, 5, 4, 6, generator=generator)
    theta = 4 * torch.randn(2, 48, generator=generator)
    condition = backbone.embed_caption("")
    with torch.no_grad(), BatchedUpdates(linears, vector_length=48, seed=5).attached(theta):
        together = backbone.velocity(x_t, 0.6, condition)
    plain = backbone.velocity(x_t, 0.6, condition)
    adapter = LowRankAdapter(linears, rank=1, vector_length=48, seed=5, device=CPU, offset=True)
    for sample in range(2):
        with torch.no_grad(), adapter.attached():
            adapter.materialize(theta[sample])
            alone = backbone.velocity(x_t[sample : sample + 1], 0.6, condition)
        assert torch.allclose(together[sample : sample + 1], alone, atol=1e-4)
        assert not torch.allclose(alone, plain[sample : sample + 1], atol=1e-2)


@pytest.mark.slow  # it trains
def test_the_command_trains_measures_and_continues(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("VOVCODEC_MODELS", str(tmp_path))
    ticks = itertools.count()
    monkeypatch.setattr(timed_training, "_thread_s", lambda: 0.05 * next(ticks))  # every step takes as long everywhere
    save_tiny_pocket(tmp_path / "pocket")
    y, x = np.mgrid[:64, :96]
    for folder, n in (("data", 3), ("media", 1)):
        (tmp_path / folder).mkdir()
        for i in range(n):
            picture = np.stack([127 + 60 * np.sin(x / (3 + i) + c) + 60 * np.cos(y / 4 - c) for c in range(3)], -1)
            Image.fromarray(picture.clip(0, 255).astype("u1")).save(tmp_path / folder / f"waves{i}.png")
    out = tmp_path / "table.tsv"
    common = ["--data", str(tmp_path / "data"), "--run", str(tmp_path / "run"), "--media", str(tmp_path / "media")]
    common += ["--out", str(out), "--vector-length", "16", "--still-bytes", "120", "--threads", "1"]
    assert amortized.main([*common, "--minutes", "0.01"]) == 0
    rows = read_rows(out, amortized.AmortizedRow)
    assert [row.variant for row in rows] == ["shipped", "without", "with"]
    assert rows[0].vector_bytes == rows[1].vector_bytes == 0 < rows[2].vector_bytes < 40
    [n_steps] = {row.train_steps for row in rows}
    assert n_steps > 0 and all(row.size_bytes == 120 for row in rows)
    assert len({(row.psnr_db, row.ssim) for row in rows}) == 3, rows
    assert "still 120 bytes, with vector" in capsys.readouterr().out
    assert amortized.main([*common, "--minutes", "0.01"]) == 0
    assert read_rows(out, amortized.AmortizedRow) == rows, "nothing is done twice"
    assert amortized.main([*common, "--minutes", "0.02"]) == 0
    assert read_rows(out, amortized.AmortizedRow)[-1].train_steps > n_steps, "the training goes on"
    assert amortized.main(["--out", str(out), "--media", str(tmp_path / "media")]) == 2
