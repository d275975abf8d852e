"""`vov eval` and the rate–distortion bench on small made-up pictures; learned metrics against published code.

The three golden values of `test_learned_metrics_agree_with_the_published_implementations` are what lpips 0.1.4 and
DISTS_pytorch (github.com/dingkeyan93/DISTS, 1267d8c), on torchvision 0.29.2's networks, gave for the weights and
pictures made here.
"""

from __future__ import annotations

import json
import math
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import container_samples as samples
import numpy as np
import pytest
import scipy.linalg
import torch
from PIL import Image
from test_anchors import moving_picture
from torch import nn

from vovcodec.anchors import ANCHORS, CLIP_ANCHORS
from vovcodec.bench import rate_distortion
from vovcodec.bench.points import Point, anchor_points, find_items, read_item
from vovcodec.bench.summary import summarize
from vovcodec.cli.app import run
from vovcodec.codec.options import DecodeOptions
from vovcodec.container import read_vov, write_vov
from vovcodec.errors import FormatError, ModelError, UsageError
from vovcodec.evaluation import fvd, pictures
from vovcodec.evaluation.curves import Curve, crossing
from vovcodec.evaluation.dists import Dists, load_dists
from vovcodec.evaluation.evaluate import EvaluationOptions, evaluate
from vovcodec.evaluation.lpips import Lpips, load_lpips
from vovcodec.evaluation.networks import alexnet_layers, vgg16_layers
from vovcodec.media import open_writer
from vovcodec.metrics import ms_ssim, psnr, ssim
from vovcodec.progress import SilentListener

CLIP = moving_picture(6, 64, 96)
NOISY = (CLIP + np.random.default_rng(1).normal(0, 9, CLIP.shape)).round().clip(0, 255).astype(np.uint8)


def write_frames(folder: Path, name: str, frames: np.ndarray) -> Path:
    """A numbered sequence; returns its pattern."""
    for number, frame in enumerate(frames, 1):
        Image.fromarray(frame).save(folder / f"{name}{number:02d}.png")
    return folder / f"{name}%02d.png"


@pytest.fixture
def original(tmp_path) -> Path:
    return write_frames(tmp_path, "original", CLIP)


@pytest.fixture
def noisy(tmp_path) -> Path:
    return write_frames(tmp_path, "noisy", NOISY)


class Listener(SilentListener):
    """Keeps what people would read, and checks that stages add up."""

    def __init__(self):
        self.lines, self.left = [], 0

    def stage(self, name, n_units, done=0):
        assert self.left == 0, "the stage before is complete"
        self.left = n_units

    def advance(self, n_units=1, **figures):
        self.left -= n_units

    def note(self, message):
        self.lines.append(message)

    warn = note


# --- the table


def test_values_are_those_of_the_metrics(original, noisy):
    result = evaluate(original, [noisy], EvaluationOptions(), SilentListener())
    assert (result.size, result.n_frames) == ((96, 64), 6)
    [row] = result.rows
    size_bytes = sum(path.stat().st_size for path in noisy.parent.glob("noisy*.png"))
    assert (row.codec, row.size_bytes) == ("media", size_bytes)
    assert row.bpp == pytest.approx(8 * size_bytes / (6 * 96 * 64))
    expected = {"psnr_db": psnr(CLIP, NOISY), "ssim": ssim(CLIP, NOISY), "ms_ssim": ms_ssim(CLIP, NOISY)}
    assert row.values == pytest.approx(expected)


def test_anchors_stay_within_the_bytes_and_report_their_floor(original, tmp_path):
    with open_writer(tmp_path / "small.mp4", width=96, height=64, frame_rate=25, quality=40) as writer:
        for frame in CLIP:
            writer.write(frame)
    listener = Listener()
    result = evaluate(original, [tmp_path / "small.mp4"], EvaluationOptions(against=("x265", "svtav1")), listener)
    assert listener.left == 0
    ours, *anchors = result.rows
    assert ours.size_bytes == (tmp_path / "small.mp4").stat().st_size
    for name in ("x265", "svtav1"):
        floor, matched = (row for row in anchors if row.codec == name)
        assert "floor" in floor.setting and floor.target_bytes is None
        assert floor.size_bytes < 0.8 * ours.size_bytes < matched.size_bytes <= ours.size_bytes == matched.target_bytes
        assert matched.values["psnr_db"] > floor.values["psnr_db"]


def test_an_anchor_that_cannot_go_there_says_so(original, tmp_path, monkeypatch):
    tiny = write_frames(tmp_path, "tiny", NOISY)
    monkeypatch.setattr(pictures, "_size_bytes", lambda source: 20)
    listener = Listener()
    result = evaluate(original, [tiny], EvaluationOptions(against=("x265",)), listener)
    assert [row.codec for row in result.rows] == ["media", "x265"]
    assert "x265 cannot do with 20 bytes: its least is" in listener.lines[-1]


def test_frames_in_common_are_compared_and_what_is_left_out_is_said(original, tmp_path):
    longer = write_frames(tmp_path, "longer", np.concatenate([NOISY, NOISY]))
    listener = Listener()
    result = evaluate(original, [longer], EvaluationOptions(), listener)
    assert (result.n_frames, result.rows[0].bpp) == (6, None)
    assert "only the first 6" in listener.lines[0]
    refused = Listener()
    with pytest.raises(UsageError, match="cannot be matched"):
        evaluate(original, [longer], EvaluationOptions(against=("x265",)), refused)
    assert refused.lines == [], "nothing is measured before"
    assert evaluate(original, [longer], EvaluationOptions(n_frames=2), Listener()).n_frames == 2


def test_everything_is_compared_at_one_size(original, tmp_path):
    half = write_frames(tmp_path, "half", CLIP[:, ::2, ::2])
    sizes = {size: evaluate(original, [half], EvaluationOptions(size=size), SilentListener()).size
             for size in ("coded", "source", (40, 24))}  # fmt: skip
    assert sizes == {"coded": (48, 32), "source": (96, 64), (40, 24): (40, 24)}


@pytest.fixture
def pretended_decoder(monkeypatch):
    """Decoding a `.vov` file writes NOISY; the media side is real. Returns the options of every decode."""
    asked: list[DecodeOptions] = []

    def decode_stream(stream, target, options, listener):
        assert options.size == "coded"
        asked.append(options)
        with open_writer(target, width=96, height=64, frame_rate=25) as writer:
            for frame in NOISY[: round(25 * options.duration_s)]:
                writer.write(frame)

    monkeypatch.setattr("vovcodec.codec.decode.decode_stream", decode_stream)
    return asked


@pytest.fixture
def coded(tmp_path) -> Path:
    """Pretends to hold NOISY."""
    stream = samples.steering_only()
    segment = replace(stream.segments[0], n_frames=len(NOISY))
    header = samples.header(n_frames=len(NOISY), segment_frames=9, frame_rate_num=25, frame_rate_den=1)
    write_vov(tmp_path / "named.bin", replace(stream, header=header, segments=(segment,)))
    return tmp_path / "named.bin"


def test_vov_files_are_known_by_their_content_and_decoded(original, coded, pretended_decoder, capsys):
    [row] = evaluate(original, [coded], EvaluationOptions(), SilentListener()).rows
    assert (row.codec, row.size_bytes) == ("vov", coded.stat().st_size)
    assert row.values["psnr_db"] == pytest.approx(psnr(CLIP, NOISY))
    assert row.bpp == pytest.approx(8 * row.size_bytes / CLIP[..., 0].size)
    assert run(["eval", str(original), str(coded), "--realism", "0.5", "--limit", "hours=3", "-q"]) == 0
    assert [options.realism for options in pretended_decoder] == [0.0, 0.5]
    assert pretended_decoder[1].limits.hours == 3 and pretended_decoder[1].approve is not None
    assert "realism 0.5" in capsys.readouterr().out
    assert run(["eval", str(original), str(coded), "--realism", "7", "-q"]) == 2


def test_only_the_frames_that_are_compared_are_decoded(original, coded, pretended_decoder, monkeypatch):
    n_read = []
    monkeypatch.setattr("vovcodec.container.read_vov", lambda *args: n_read.append(1) or read_vov(*args))
    listener = Listener()
    result = evaluate(original, [coded], EvaluationOptions(n_frames=2), listener)
    assert (result.n_frames, result.rows[0].bpp, pretended_decoder[0].duration_s) == (2, None, 0.08)
    assert "only the first 2" in listener.lines[0] and n_read == [1]
    assert result.rows[0].values["psnr_db"] == pytest.approx(psnr(CLIP[:2], NOISY[:2]))


def test_a_damaged_vov_file_is_refused(original, tmp_path):
    file = tmp_path / "damaged.vov"
    file.write_bytes(b"\x89VOV\x04" + bytes(95))
    with pytest.raises(FormatError):
        evaluate(original, [file], EvaluationOptions(), SilentListener())


# --- the command


def test_the_command_prints_a_table_or_json(original, noisy, capsys):
    assert run(["eval", str(original), str(noisy), str(original), "-q"]) == 0
    table = capsys.readouterr().out
    assert (
        "6 frames of 96x64" in table
        and "bpp at 96x64" in table
        and f"{psnr(CLIP, NOISY):.2f}" in table
        and "inf" in table
    )
    assert run(["eval", str(original), str(noisy), str(original), "-q", "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert result["rows"][0]["ssim"] == pytest.approx(ssim(CLIP, NOISY))
    assert result["rows"][1]["psnr_db"] == "inf"


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["--metrics", "vmaf"], 2, "no metric called 'vmaf'"),
        (["--against", "h266"], 2, "no codec called 'h266'"),
        (["--metrics", "lpips", "--weights", "."], 5, "vgg16-397923af.pth"),
        (["--plot", "-"], 2, "needs a file name"),
    ],
)
def test_mistakes_show_before_anything_is_decoded(original, noisy, capsys, monkeypatch, arguments, code, message):
    monkeypatch.setattr(pictures, "open_frames", None)
    assert run(["eval", str(original), str(noisy), *arguments]) == code
    assert message in capsys.readouterr().err


def test_plots_without_matplotlib_say_what_to_install(original, noisy, tmp_path, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    assert run(["eval", str(original), str(noisy), "--plot", str(tmp_path / "plot.png")]) == 2
    assert "vovcodec[plot]" in capsys.readouterr().err
    assert not (tmp_path / "plot.png").exists()


def test_a_plot_is_a_png_and_is_not_overwritten(original, noisy, tmp_path, capsys):
    pytest.importorskip("matplotlib")
    arguments = ["eval", str(original), str(noisy), "--plot", str(tmp_path / "plot.png"), "-q"]
    assert run(arguments) == 0
    with Image.open(tmp_path / "plot.png") as plot:
        assert plot.format == "PNG" and plot.width > 2 * plot.height
    assert run(arguments) == 6


def test_plain_metrics_load_no_torch():
    script = (
        "import sys; from vovcodec.evaluation.evaluate import load_measures; load_measures(())\n"
        "print('torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=120, check=True)
    assert done.stdout == "False\n", done.stderr


# --- curves


def test_curves_are_straight_over_the_logarithm_of_bytes():
    curve = Curve([(400, 22.0), (100, 20.0), (200, 20.5), (200, 21.0)])
    assert len(curve) == 3 and curve.slope() == pytest.approx(1.0)
    assert curve.at(math.sqrt(100 * 200)) == pytest.approx(20.5)
    assert curve.at(99) is None and curve.at(401) is None
    assert Curve([(100, 1.0)]).slope() is None


def test_the_crossing_is_where_they_overtake_us_for_good():
    ours = Curve([(100, 20.0), (1600, 24.0)])
    found = crossing(ours, Curve([(200, 19.0), (800, 25.0)]))
    # ours: 20 + log2(b/100); theirs: 19 + 3·log2(b/200). Equal at log2(b/200) = 1.
    assert found.size_bytes == pytest.approx(400) and (found.low, found.high) == (200, 800)
    assert found.words() == "crosses at 400 B"


def test_curves_that_do_not_cross_say_who_leads_and_where():
    ours = Curve([(100, 20.0), (400, 22.0)])
    assert crossing(ours, Curve([(200, 20.0), (800, 22.0)])).words() == "above throughout 200-400 B"
    assert crossing(ours, Curve([(200, 23.0), (800, 24.0)])).words() == "below throughout 200-400 B"
    # Behind at first, ahead in the end: nothing overtakes.
    assert crossing(ours, Curve([(100, 21.0), (400, 21.0)])).size_bytes is None
    assert crossing(ours, Curve([(500, 25.0), (900, 26.0)])).words() == "no bytes in common"
    assert crossing(ours, Curve([])).lead is None


# --- learned metrics


def made_up(shape, number, gain):
    """Weights that need no generator: the fractional part of a sine, from −gain/2 to gain/2."""
    n = int(np.prod(shape))
    values = torch.sin(torch.arange(n, dtype=torch.float64) * 12.9898 + number * 78.233) * 43758.5453
    return ((values - torch.floor(values) - 0.5) * gain).reshape(shape).float()


def filled(layers: nn.Sequential) -> nn.Sequential:
    for number, parameter in enumerate(layers.parameters()):
        gain = 3.4 / parameter[0].numel() ** 0.5 if parameter.dim() > 1 else 0.1
        parameter.data.copy_(made_up(parameter.shape, number, gain))
    return layers.eval().requires_grad_(False)


@pytest.fixture(scope="module")
def networks():
    return {"vgg": filled(vgg16_layers()), "alex": filled(alexnet_layers())}


def lin_weights(network):
    channels = {"vgg": (64, 128, 256, 512, 512), "alex": (64, 192, 384, 256, 256)}[network]
    return [torch.sin(torch.arange(n, dtype=torch.float64) * 3.7 + k).abs().float() for k, n in enumerate(channels)]


def dists_weights():
    steps = torch.arange(1475, dtype=torch.float64)
    return torch.sin(steps * 3.7).abs().float(), torch.sin(steps * 1.3).abs().float()


def two_pictures():
    y, x = np.mgrid[0:64, 0:80]
    planes = [128 + 60 * np.sin(x / 5) * np.cos(y / 7), 128 + 50 * np.cos(x / 9 + y / 4), 100 + 40 * np.sin(y / 3)]
    one = np.stack(planes, -1).clip(0, 255).astype(np.uint8)[None]
    other = one.astype(int) + (np.indices(one.shape).sum(0) * 37) % 41 - 20
    return one, other.clip(0, 255).astype(np.uint8)


TAPS = {"vgg": (3, 8, 15, 22, 29), "alex": (1, 4, 7, 9, 11)}


def test_learned_metrics_agree_with_the_published_implementations(networks):
    one, other = two_pictures()
    found = {name: Lpips(networks[name], TAPS[name], lin_weights(name)) for name in ("vgg", "alex")}
    assert found["vgg"](one, other) == pytest.approx(0.13674107, rel=1e-4)
    assert found["alex"](one, other) == pytest.approx(0.12212937, rel=1e-4)
    dists = Dists(networks["vgg"], *dists_weights())
    assert dists(one, other) == pytest.approx(0.01670653, rel=1e-3)
    for measure in (*found.values(), dists):
        assert measure(one, one) == pytest.approx(0, abs=1e-6)
        clip = measure(np.concatenate([one, one]), np.concatenate([one, other]))
        assert clip == pytest.approx(measure(one, other) / 2, rel=1e-3), "a clip's value is the mean of its frames"


def torchvision_file(path: Path, layers: nn.Sequential) -> None:
    state = {f"features.{name}": value for name, value in layers.state_dict().items()}
    torch.save(state | {"classifier.6.bias": torch.zeros(3)}, path)


def test_published_files_load_from_a_folder(networks, tmp_path):
    one, other = two_pictures()
    torchvision_file(tmp_path / "alexnet-owt-7be5be79.pth", networks["alex"])
    lin = {f"lin{k}.model.1.weight": w.reshape(1, -1, 1, 1) for k, w in enumerate(lin_weights("alex"))}
    torch.save(lin, tmp_path / "alex.pth")
    assert load_lpips("alex", tmp_path)(one, other) == pytest.approx(0.12212937, rel=1e-4)

    torchvision_file(tmp_path / "vgg16.pth", networks["vgg"])
    alpha, beta = (value.reshape(1, -1, 1, 1) for value in dists_weights())
    torch.save({"alpha": alpha, "beta": beta}, tmp_path / "weights.pt")
    assert load_dists(tmp_path)(one, other) == pytest.approx(0.01670653, rel=1e-3)

    torchvision_file(tmp_path / "alexnet-owt-7be5be79.pth", networks["vgg"])
    with pytest.raises(ModelError, match="not the weights of this network"):
        load_lpips("alex", tmp_path)
    (tmp_path / "weights.pt").write_bytes(b"nothing of the kind")
    with pytest.raises(ModelError, match="cannot be read as PyTorch weights"):
        load_dists(tmp_path)


def test_fvd_cuts_crops_as_the_paper_does():
    frames = np.arange(50, dtype=np.uint8).reshape(-1, 1, 1, 1) + np.zeros((1, 240, 416, 3), np.uint8)
    frames[:, 16, 64] = 255
    cut = fvd.crops(frames)
    assert len(cut) == 3 * 2 * 4 and {crop.shape for crop in cut} == {(16, 224, 224, 3)}
    assert [crop[0, 1, 0, 0] for crop in cut[::8]] == [0, 16, 32]
    # Starts are 0, 64, 128, 192 across and 0, 16 down.
    assert [np.argwhere(crop[0, ..., 0] == 255).tolist() for crop in cut[:6]] == [
        [[16, 64]], [[16, 0]], [], [], [[0, 64]], [[0, 0]],
    ]  # fmt: skip
    with pytest.raises(UsageError, match="at least 16 frames of 224x224"):
        fvd.crops(frames[:, :128])


@pytest.mark.parametrize(("n", "dimension"), [(40, 6), (8, 30)])
def test_the_frechet_distance_is_that_of_the_matrix_root(n, dimension):
    generator = np.random.default_rng(n)
    one = generator.normal(size=(n, dimension)) @ generator.normal(size=(dimension, dimension))
    other = generator.normal(1, 2, (n, dimension))
    covariances = np.cov(one, rowvar=False), np.cov(other, rowvar=False)
    root = np.real(scipy.linalg.sqrtm(covariances[0] @ covariances[1]))
    expected = np.square(one.mean(0) - other.mean(0)).sum() + np.trace(sum(covariances) - 2 * root)
    assert fvd.frechet_distance(one, other) == pytest.approx(expected, rel=1e-5)
    assert fvd.frechet_distance(one, one) == pytest.approx(0, abs=1e-8)


def test_fvd_runs_a_torchscript_network(tmp_path):
    class MeanColour(nn.Module):
        def forward(self, x, rescale: bool, resize: bool, return_features: bool):
            assert not rescale and not resize and return_features
            return x.mean((2, 3, 4))

    torch.jit.script(MeanColour()).save(str(tmp_path / "i3d_torchscript.pt"))
    frames = np.random.default_rng(0).integers(0, 200, (16, 225, 230, 3), dtype=np.uint8)
    measure = fvd.load_fvd(tmp_path)
    assert measure(frames, frames) == pytest.approx(0, abs=1e-9)
    # Features shift by 10/255 in all three dimensions.
    assert measure(frames, frames + np.uint8(10)) == pytest.approx(3 * (10 / 255) ** 2, rel=1e-3)
    (tmp_path / "i3d_torchscript.pt").write_bytes(b"nothing of the kind")
    with pytest.raises(ModelError, match="not a TorchScript network"):
        fvd.load_fvd(tmp_path)


# --- the bench


@pytest.fixture
def media(tmp_path) -> Path:
    folder = tmp_path / "media"
    (folder / "stills").mkdir(parents=True)
    Image.fromarray(CLIP[0]).save(folder / "stills" / "a.png")
    with open_writer(folder / "z.mp4", width=96, height=64, frame_rate=25) as writer:
        for frame in CLIP:
            writer.write(frame)
    return folder


def test_items_are_clips_then_stills_at_the_coded_size(media):
    paths = find_items(media)
    assert [path.name for path in paths] == ["z.mp4", "a.png"]
    assert [path.name for path in find_items(media, ["z"])] == ["z.mp4"]
    clip, still = (read_item(path, "pocket", 4, 32) for path in paths)
    assert clip.frames.shape == (4, 32, 48, 3) and not clip.is_still
    assert still.frames.shape == (1, 32, 48, 3) and still.is_still


def test_anchor_points_hold_floor_budget_and_the_next_above(media):
    item = read_item(media / "z.mp4", "pocket", 6, None)
    search = rate_distortion.RateSearch(rate_distortion.find_anchor("x265"), item.frames)
    # One byte more than some point takes: a budget that is met exactly needs no point above it.
    budget = search.within(2 * search.floor().payload_bytes).payload_bytes + 1
    floor, matched, above = anchor_points(item, search, [10, budget])
    assert "floor" in floor.setting and floor.target_bytes is None
    assert matched.target_bytes == budget >= matched.size_bytes
    assert above.size_bytes > budget and above.target_bytes is None


def test_the_bench_writes_its_table_and_summary(media, tmp_path, capsys, monkeypatch):
    def our_point(item, preset, effort, target_bytes, listener, threads):
        if target_bytes < 100:
            raise UsageError("too few")
        size = "{}x{}".format(*item.size)
        quality = 10 + math.log2(target_bytes)
        return Point(item.name, "still" if item.is_still else "clip", size, len(item.frames), f"vov {effort}", "",
                     target_bytes, target_bytes, target_bytes, quality, 0.5, 0.6, 1.0, 20)  # fmt: skip

    monkeypatch.setattr(rate_distortion, "our_point", our_point)
    out = tmp_path / "table.tsv"
    command = ["--media", str(media), "--out", str(out), "--bytes", "50,400,800", "--still-bytes", "400,800"]
    assert rate_distortion.main([*command, "--frames", "3"]) == 0
    header, *rows = (line.split("\t") for line in out.read_text().splitlines())
    rows = [dict(zip(header, row, strict=True)) for row in rows]
    assert [row["target_bytes"] for row in rows if row["codec"] == "vov instant"] == ["400", "800"] * 2
    assert {row["codec"] for row in rows if row["kind"] == "still"} == {"vov instant", "WebP", "AVIF"}
    assert {row["codec"] for row in rows if row["kind"] == "clip"} == {
        "vov instant",
        *(ANCHORS[name].title for name in CLIP_ANCHORS),
    }
    printed = capsys.readouterr()
    assert "1.00 dB per doubling" in printed.out and "means over 1 clip" in printed.out
    assert "instant at 50 bytes: too few" in printed.err


def test_the_summary_names_crossings_and_leads():
    def point(codec, size_bytes, psnr_db, target=None):
        return Point("dog", "clip", "96x64", 3, codec, "", target, size_bytes, None, psnr_db, psnr_db / 50, 0.5)

    points = [point("vov fast", 100, 20.0, 100), point("vov fast", 1600, 24.0, 1600)]
    points += [point("x265 slow", 200, 19.0), point("x265 slow", 800, 25.0)]
    lines = summarize(points).splitlines()
    [verdict] = [line for line in lines if "against" in line]
    assert "PSNR crosses at 400 B, +2 at its floor" in verdict and "(floor 200 B)" in verdict
    assert any("vov fast 100 B: 20.00 dB 0.400; x265 slow: cannot go there" in line for line in lines)
