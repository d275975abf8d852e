"""The schemes of the steering table: matched bytes, the shortcut's distribution, the command on a tiny model."""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
import pytest
import torch
from tiny_models import save_tiny_pocket

from vovcodec.bench import rate_distortion, schemes, steering_schemes, token_phases
from vovcodec.bench.candidate_scoring import scoring_lines, scoring_times
from vovcodec.bench.points import Point
from vovcodec.bench.table import read_rows
from vovcodec.media import open_writer
from vovcodec.sampling.steering import SteeringPlan

SHAPE = (1, 4, 3, 8, 8)
PLAN = SteeringPlan(seed=0, snr_start_q=40, snr_ratio_q=96)
MATCHED = {
    "reference": schemes.reference,
    "gvcc": schemes.gvcc,
    "constant eta": schemes.constant_eta,
    "ours": lambda *arguments: schemes.ours(*arguments, plan=PLAN),
}


def wiener(x_t: torch.Tensor, t: float) -> torch.Tensor:
    """The exact velocity for independent data of variance 0.5."""
    clean = (1 - t) * 0.5 / ((1 - t) ** 2 * 0.5 + t * t) * x_t
    return (x_t - clean) / t


@pytest.fixture
def target() -> torch.Tensor:
    return torch.randn(SHAPE, generator=torch.Generator().manual_seed(8)) * math.sqrt(0.5)


@pytest.mark.parametrize("name", MATCHED)
def test_a_matched_scheme_uses_the_bytes_it_gets_and_gains_by_more(target, name):
    errors = []
    for size_bytes in (150.0, 600.0):
        outcome = MATCHED[name](wiener, target, size_bytes)
        # Whole atoms at every step of every frame are coarse at these sizes.
        assert 0.6 * size_bytes < outcome.size_bytes <= size_bytes
        errors.append(float((outcome.latents - target).square().mean()))
    assert errors[1] < errors[0]


def test_published_settings(target):
    assert schemes.reference(wiener, target, 0.0, n_steps=100).size_bytes == pytest.approx(123.75)
    outcome = schemes.gvcc(wiener, target, 0.0, n_atoms=64)
    # log2 C(16384, 64) + 64 bits for each of 17 steps and 3 latent frames.
    bits = 17 * 3 * (math.log2(math.comb(16384, 64)) + 64)
    assert outcome.size_bytes == pytest.approx(bits / 8, rel=0.01)
    assert outcome.n_evaluations == 20


def test_ours_keeps_to_the_evaluations_it_is_given(target):
    free = schemes.ours(wiener, target, 600.0, plan=PLAN)
    held = schemes.ours(wiener, target, 600.0, plan=PLAN, most_evaluations=free.n_evaluations - 2)
    assert 2 < held.n_evaluations <= free.n_evaluations - 2 and held.size_bytes > 520


def test_the_best_atoms_are_drawn_with_the_distribution_of_really_drawing_them():
    n, n_candidates, n_atoms, n_draws = 48, 128, 4, 300
    generator = torch.Generator().manual_seed(3)
    residual = torch.randn(n, generator=generator)
    unit = residual / residual.norm()
    quick, slow = [], []
    for _ in range(n_draws):
        gaussian = torch.randn(n, generator=generator)
        quick.append(schemes._best_atoms(residual, n_atoms, n_candidates, gaussian, generator))
        atoms = torch.randn(n_candidates, n, generator=generator)
        products = atoms @ residual
        best = products.abs().topk(n_atoms).indices
        total = (products[best].sign()[:, None] * atoms[best]).sum(0)
        slow.append(total / total.square().mean().sqrt())
    along = np.array([[float(z @ unit) for z in each] for each in (quick, slow)])
    # Both means are of 300 draws with a deviation of about 0.35.
    assert along[0].mean() == pytest.approx(along[1].mean(), abs=0.12)
    assert along[0].std() == pytest.approx(along[1].std(), rel=0.2)
    assert torch.stack(quick).square().mean(1).allclose(torch.ones(n_draws))


def test_scoring_in_small():
    rows = scoring_times(n_entries=3000, repeats=1)
    assert [(row.n_candidates, row.measured) for row in rows] == [(4096, 4096), (3000, 3000), (1024, 32)]
    assert "extrapolated from 32" in scoring_lines(rows)[-1]


@pytest.fixture
def waves(tmp_path, monkeypatch):
    """A folder with a clip of five frames, and a tiny model to measure on."""
    monkeypatch.setenv("VOVCODEC_MODELS", str(tmp_path))
    save_tiny_pocket(tmp_path / "pocket")
    y, x = np.mgrid[:32, :48]
    media = tmp_path / "media"
    media.mkdir()
    writer = open_writer(media / "waves.y4m", width=48, height=32, frame_rate=Fraction(25))
    for t in range(5):
        writer.write(
            np.stack([127 + 90 * np.sin(x / 5 + t / 3 + c) * np.cos(y / 6) for c in range(3)], -1).astype("u1")
        )
    writer.close()
    return media


def test_the_token_phases_is_measured_with_both_velocities(waves, tmp_path, capsys):
    out = tmp_path / "last.tsv"
    command = ["--media", str(waves), "--out", str(out), "--frames", "5", "--threads", "1", "--bytes", "100,300"]
    assert token_phases.main(command) == 0
    rows = read_rows(out, token_phases.PhasesRow)
    assert [row.bytes for row in rows] == [100, 300] and rows[1].t < rows[0].t
    assert all(row.psnr_db != row.plain_psnr_db for row in rows)
    gains = [row.psnr_db - row.plain_psnr_db for row in rows]
    assert f"clip 300 bytes: {gains[1]:+.2f} dB" in capsys.readouterr().out
    before = out.read_text()
    assert token_phases.main(command) == 0 and out.read_text() == before, "nothing is measured twice"


def test_the_command(waves, tmp_path, capsys):
    out = tmp_path / "table.tsv"
    common = ["--media", str(waves), "--out", str(out), "--frames", "5", "--threads", "1"]
    assert steering_schemes.main([*common, "--bytes", "150,300"]) == 0
    header, *rows = [line.split("\t") for line in out.read_text().splitlines()]
    table = [dict(zip(header, row, strict=True)) for row in rows]
    assert len(table) == 3 + 2 * 6
    for row in table:
        assert row["item"] == "waves" and int(row["evaluations"]) >= 2
        if row["target_bytes"]:
            assert float(row["size_bytes"]) <= int(row["target_bytes"])
    ours = [float(row["psnr_db"]) for row in table if row["scheme"] == "ours"]
    assert ours[1] > ours[0]
    written = out.read_text()
    out.write_text("\n".join(written.splitlines()[:-1]) + "\n")
    assert steering_schemes.main([*common, "--bytes", "150,300"]) == 0
    strip = [line.split("\t")[:-1] for line in written.splitlines()]  # without the time taken
    assert [line.split("\t")[:-1] for line in out.read_text().splitlines()] == strip, "only the missing row is measured"
    assert out.read_text().splitlines()[1:-1] == written.splitlines()[1:-1]
    assert steering_schemes.main([*common, "--schemes", "nothing"]) == 2
    assert steering_schemes.main([*common, "--clips", "absent"]) == 2
    assert steering_schemes.main(["--bytes", "100"]) == 2
    assert "no scheme 'nothing'" in capsys.readouterr().err


@pytest.mark.slow  # two codecs search for their bytes
def test_published_settings_beside_the_codecs(waves, tmp_path, capsys):
    out = tmp_path / "table.tsv"
    common = ["--media", str(waves), "--out", str(out), "--frames", "5", "--bytes", "300", "--threads", "1"]
    assert rate_distortion.main([*common, "--published"]) == 0
    points = {point.codec: point for point in read_rows(out, Point)}
    assert {"vov instant", "x265 slow", "reference-100", "gvcc-64"} < set(points)
    for name, n_evaluations in (("reference-100", 100), ("gvcc-64", 20)):
        theirs, own = points[name], points[f"ours as {name}"]
        assert theirs.evaluations == n_evaluations >= own.evaluations and own.size_bytes <= theirs.size_bytes
        assert own.target_bytes == theirs.size_bytes and not own.is_of_a_codec
    printed = capsys.readouterr().out
    assert "  gvcc-64: " in printed and "against gvcc" not in printed
