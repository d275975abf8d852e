"""The table of autoencoders in small: every design's shapes, the pixel metric, the command and its resumption."""

from __future__ import annotations

import copy
from dataclasses import replace

import pytest
import torch
from PIL import Image
from tiny_clips import picture, write_clip

from vovcodec.bench import autoencoder_training, autoencoders
from vovcodec.bench.autoencoder_designs import DESIGNS, MetricAutoencoder, build_autoencoder
from vovcodec.bench.table import read_rows, write_rows
from vovcodec.bench.timed_training import train_for
from vovcodec.pretraining.batches import BatchShape

NON_LINEAR = [name for name, design in DESIGNS.items() if design.config]


def tiny(name):
    """A design at the least width that its shortcuts allow."""
    design = DESIGNS[name]
    return replace(design, config=design.config | {"base_dim": 4, "z_dim": 8})


@pytest.fixture(autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.mark.parametrize("name", NON_LINEAR)
def test_every_design_keeps_the_shape_of_frames(name):
    design = DESIGNS[name]
    autoencoder = MetricAutoencoder(build_autoencoder(tiny(name), 0))
    frames = torch.rand(1, 3, 9, 32, 64) * 2 - 1
    with torch.no_grad():
        latents = autoencoder.encode(frames)
        decoded = autoencoder.decode(latents)
    stride = design.space_stride
    assert latents.shape == (1, 8, 3, 32 // stride, 64 // stride)
    assert decoded.shape == frames.shape and decoded.abs().max() <= 1
    # A token covers 16×16 pixels in every design.
    assert stride * design.patch_size == 16


def test_latents_are_in_the_pixel_metric():
    torch.manual_seed(3)
    autoencoder = MetricAutoencoder(build_autoencoder(tiny("s2d"), 0))
    frames = torch.from_numpy(picture(9, 64, 64)).permute(3, 0, 1, 2)[None].float() / 127.5 - 1
    batches = [frames.roll(shift, -1) + 0.1 * torch.randn(frames.shape) for shift in (0, 9, 23)]
    autoencoder.fit_metric(batches, seed=0)
    with torch.no_grad():
        raw = autoencoder.network(frames).sample
        latents = autoencoder.encode(frames)
        assert (autoencoder.decode(latents) - raw).abs().mean() < 0.02, "the two maps are inverse to each other"
        channels = torch.cat([autoencoder.encode(batch) for batch in batches])[:, :, 1:].movedim(1, 0).flatten(1)
        spread = autoencoder.channel_std(2)[0, :, 1, 0, 0]
        strong = spread > 0.01 * spread.max()
        correlation = torch.corrcoef(channels)[strong][:, strong]
        assert (correlation - torch.eye(int(strong.sum()))).abs().max() < 0.1
        assert channels.std(1)[strong].allclose(spread[strong], rtol=0.05)
        # Independent errors of undamped latents, 0.25 a pixel's, show in the pixels with the same sum of squares.
        variance = (spread / autoencoder_weight(autoencoder)) ** 2
        error = torch.zeros_like(latents)
        undamped = 0.3 * variance.sqrt()[None, :, None, None, None] * torch.randn(latents[:, :, 1:].shape)
        error[:, :, 1:] = undamped * autoencoder_weight(autoencoder)[None, :, None, None, None]
        shown = autoencoder.decode(latents + error) - autoencoder.decode(latents)
        assert float(shown.square().sum() * 0.25**2 / undamped.square().sum()) == pytest.approx(1.0, abs=0.35)


def autoencoder_weight(autoencoder):
    """w, from std = w·√λ and w² = λ/(λ + level)."""
    std = autoencoder.std[1]
    level = 0.0758
    variance = (std**2 + (std**4 + 4 * std**2 * level).sqrt()) / 2
    return (variance / (variance + level)).sqrt()


def test_training_continues_where_it_stopped(tmp_path):
    steps = []

    def train(minutes):
        torch.manual_seed(0)
        network = torch.nn.Linear(4, 1)

        def loss_of_step(step):
            steps.append(step)
            x = torch.ones(2, 4)
            return (network(x) - 1).square().mean()

        optimizer = torch.optim.AdamW(network.parameters(), lr=1e-2)
        (average,), n_steps = train_for(minutes, tmp_path / "state.pt", [network], [optimizer], loss_of_step, ema=0.9)
        return copy.deepcopy(average.state_dict()), n_steps

    first, n_first = train(0.002)
    again, n_again = train(0.002)
    assert n_again == n_first > 0 and all(torch.equal(again[key], first[key]) for key in first), "the time is spent"
    _, n_more = train(0.004)
    assert n_more > n_first and steps == list(range(n_more))


@pytest.mark.slow  # it trains
def test_the_command(tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(DESIGNS, "deep", tiny("deep"))
    monkeypatch.setattr(autoencoders, "_COST_SIZE", (9, 64, 96))
    monkeypatch.setattr(autoencoder_training, "_SHAPES", (BatchShape(5, 32, 32, 1.0), BatchShape(1, 32, 32, 1.0)))
    monkeypatch.setattr(autoencoder_training, "_LATENT_SHAPES", (BatchShape(5, 32, 32, 1.0),))
    monkeypatch.setattr(autoencoder_training, "_METRIC_SHAPES", (BatchShape(5, 32, 32, 1.0),))
    for name, value in {
        "_TOKENS_PER_BATCH": 8,
        "_BASIS_BATCHES": 3,
        "_METRIC_TOKENS": 16,
        "_METRIC_BATCHES": 3,
        "_LATENT_BATCHES": 2,
    }.items():
        monkeypatch.setattr(autoencoder_training, name, value)
    recipe = replace(
        autoencoder_training._RECIPE, width=24, heads=2, layers=1, ffn=32, text_width=16, tokens_per_batch=16
    )
    monkeypatch.setattr(autoencoder_training, "_RECIPE", recipe)
    data, media = tmp_path / "data", tmp_path / "media"
    for folder in (data, media):
        folder.mkdir()
    for number in range(4):
        Image.fromarray(picture(1, 64, 64, phase=number)[0]).save(data / f"{number}.png")
    write_clip(data / "waves.mkv", picture(12, 64, 48))
    write_clip(media / "clip.y4m", picture(6))
    Image.fromarray(picture(1)[0]).save(media / "still.png")
    out, run = tmp_path / "table.tsv", tmp_path / "run"
    command = ["--data", str(data), "--media", str(media), "--run", str(run), "--out", str(out)]
    command += ["--frames", "6", "--bytes", "60,200", "--still-bytes", "40", "--threads", "1"]
    command += ["--autoencoder-minutes", "0.02", "--transformer-minutes", "0.01", "--designs", "block,deep"]
    assert autoencoders.main(command) == 0
    rows = read_rows(out, autoencoders.AutoencoderRow)
    assert [(row.design, row.item, row.target_bytes) for row in rows] == [
        (design, *point) for design in ("block", "deep") for point in (("clip", 60), ("clip", 200), ("still", 40))
    ]
    for row in rows:
        assert 0 < row.size_bytes <= row.target_bytes and row.evaluations >= 2 and row.transformer_steps > 0
        assert row.frames == (6 if row.kind == "clip" else 1) and row.decode_s > 0
    assert rows[0].latent_values == 64 * 3 * 8 * 12 and rows[3].latent_values == 8 * 3 * 4 * 6
    assert rows[0].autoencoder_steps == 0 < rows[3].autoencoder_steps
    assert rows[1].psnr_db > rows[0].psnr_db and rows[0].ceiling_psnr_db > rows[0].psnr_db
    assert "deep: " in capsys.readouterr().out
    kept = {path: path.stat().st_mtime_ns for path in run.rglob("*.pt")}
    assert len(kept) == 2 + 4
    write_rows(out, autoencoders.AutoencoderRow, rows[:-1])
    assert autoencoders.main(command) == 0
    again = read_rows(out, autoencoders.AutoencoderRow)
    assert again[:-1] == rows[:-1] and replace(again[-1], decode_s=rows[-1].decode_s) == rows[-1]
    assert {path: path.stat().st_mtime_ns for path in run.rglob("*.pt")} == kept, "nothing is trained twice"
    assert autoencoders.main([*command, "--designs", "nothing"]) == 2
    assert autoencoders.main([*command, "--autoencoder-minutes", "9"]) == 2, "rows of other minutes do not compare"
    assert "no design 'nothing'" in capsys.readouterr().err
