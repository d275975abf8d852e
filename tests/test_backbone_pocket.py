"""The embedded model: block transform, preconditioning, captions, the shipped weights."""

from __future__ import annotations

import itertools
import math
import subprocess
import sys

import numpy as np
import pytest
import torch
from tiny_models import save_tiny_pocket

from vovcodec.backbone.geometry import TOKEN_PHASES, evaluations_of_steps
from vovcodec.backbone.locate import MODELS_VARIABLE
from vovcodec.backbone.pocket.backbone import WEIGHTS_DIR, PocketBackbone
from vovcodec.backbone.pocket.block_transform import inter_blocks, intra_blocks
from vovcodec.backbone.pocket.clips import ClipNetwork, _means_over_frames
from vovcodec.backbone.pocket.completion import dct_matrix, noise_level, with_filtered_residual
from vovcodec.backbone.pocket.pictures import PictureNetwork
from vovcodec.backbone.pocket.precondition import network_input, precondition
from vovcodec.backbone.registry import load_backbone
from vovcodec.container.registered import POCKET_FINGERPRINT
from vovcodec.errors import ModelError


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return save_tiny_pocket(tmp_path_factory.mktemp("pocket"))


@pytest.fixture(scope="module")
def backbone(folder):
    return PocketBackbone(folder)


def noise(*shape, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def pictures(n_frames: int, height: int = 32, width: int = 48, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (n_frames, height, width, 3), dtype=np.uint8)


def test_basis_rows_are_orthonormal(backbone):
    for basis in (backbone.vae.intra_basis, backbone.vae.inter_basis):
        assert torch.allclose(basis @ basis.T, torch.eye(len(basis)), atol=1e-5)


def test_blocks_are_cut_in_the_documented_order():
    frames = torch.arange(2 * 3 * 8 * 16 * 24).reshape(2, 3, 8, 16, 24).float()
    single = intra_blocks(frames[:, :, 0])
    assert single.shape == (2, 2, 3, 192)
    assert torch.equal(single[1, 1, 2], frames[1, :, 0, 8:16, 16:24].reshape(-1))
    group = inter_blocks(frames)
    assert group.shape == (2, 2, 2, 3, 768)
    assert torch.equal(group[1, 1, 0, 1], frames[1, :, 4:8, 0:8, 8:16].transpose(0, 1).reshape(-1))


@pytest.mark.parametrize("n_frames", [1, 5, 9])
def test_parseval_holds_on_kept_coefficients(backbone, n_frames):
    """Error energy in latents = (pixel error energy)·scale², the first frame counting four times."""
    vae, gain = backbone.vae, backbone.vae.config.latent_scale
    shape = (1, 24, 1 + (n_frames - 1) // 4, 4, 6)
    a, b = 0.02 * noise(*shape, seed=1), 0.02 * noise(*shape, seed=2)  # so small that no pixel is clamped
    difference = (vae.decode(a) - vae.decode(b)).square().sum(dim=(0, 1, 3, 4))
    weighted = 4 * difference[0] + difference[1:].sum()
    assert float((a - b).square().sum()) == pytest.approx(float(weighted) * gain**2, rel=1e-4)
    assert torch.allclose(vae.encode(vae.decode(a)), a, atol=1e-5), "what is kept comes back exactly"


def test_the_first_frame_stands_on_its_own(backbone):
    frames = noise(1, 3, 9, 16, 16).clamp(-1, 1)
    other = frames.clone()
    other[:, :, 0] = -other[:, :, 0]
    a, b = backbone.vae.encode(frames), backbone.vae.encode(other)
    assert not torch.allclose(a[:, :, 0], b[:, :, 0]) and torch.equal(a[:, :, 1:], b[:, :, 1:])
    assert torch.equal(backbone.vae.encode(frames[:, :, :1]), a[:, :, :1])
    # A still frame held for four has the same latents in both kinds of block.
    held = frames[:, :, :1].expand(-1, -1, 5, -1, -1)
    still = backbone.vae.encode(held)
    assert torch.allclose(still[:, :1, 0], still[:, :1, 1], atol=1e-5)


@pytest.mark.parametrize("n_frames", [1, 5, 33])
def test_geometry_is_that_of_the_latents(backbone, n_frames):
    frames = pictures(n_frames)
    latents = backbone.to_latents(frames)
    assert latents.shape == backbone.geometry.latent_shape(n_frames, 48, 32) and latents.dtype == torch.float32
    decoded = backbone.to_frames(latents)
    assert decoded.shape == frames.shape and decoded.dtype == np.uint8


def test_a_smooth_picture_survives(backbone):
    y, x = np.mgrid[:32, :48]
    smooth = np.stack([2 * x + 3 * y + 20, 3 * x + 40, 4 * y + 60], axis=-1).astype(np.uint8)[None].repeat(5, axis=0)
    latents = backbone.to_latents(smooth)
    error = np.mean((backbone.to_frames(latents).astype(float) - smooth) ** 2)
    assert 10 * math.log10(255**2 / error) > 35


@pytest.mark.parametrize("t", [1.0, 0.7, 0.1, 1e-3])
def test_preconditioning_is_the_wiener_estimate_and_what_it_misses(t):
    std = torch.tensor([2.0, 0.3, 0.01], dtype=torch.float64).view(1, 3, 1, 1, 1)
    c = precondition(torch.tensor([t], dtype=torch.float64), std)
    variance = std.square()
    seen = (1 - t) ** 2 * variance + t * t
    assert torch.allclose(c.c_in.square() * seen, torch.ones_like(seen), atol=1e-5), "unit variance in"
    covariance = (1 - t) * variance
    assert torch.allclose(c.c_skip * seen, covariance, atol=1e-6), "the error is uncorrelated with what is seen"
    missed = variance - c.c_skip * covariance
    assert torch.allclose(c.c_out.square(), missed, rtol=1e-6), "unit variance out"


def test_the_network_sees_which_latent_frame_is_the_first():
    c = precondition(torch.tensor([0.5, 0.25]), torch.ones(1, 2, 3, 1, 1))
    seen = network_input(torch.ones(2, 2, 3, 4, 4), c)
    assert seen.shape == (2, 3, 3, 4, 4)
    assert (seen[:, 2, 0] == 1).all() and (seen[:, 2, 1:] == 0).all()


@pytest.mark.parametrize("t", [1.0, 0.5, 1e-2, 1e-4, 0.0])
def test_velocity_is_finite_at_all_times(backbone, t):
    x_t = noise(1, 96, 5, 4, 6)
    v = backbone.velocity(x_t, t, backbone.embed_caption(""))
    assert v.shape == x_t.shape and v.dtype == torch.float32 and v.isfinite().all()
    assert torch.equal(v, backbone.sampler_velocity(x_t, t, backbone.embed_caption(""), last=False)) == (t > 0.5)
    if t == 1.0:
        guessed = backbone._clips.to_blocks(x_t - v, torch.tensor([1e-4]), backbone.vae)
        assert (guessed.abs() < 5 * backbone.vae.channel_std(2)).all(), "from noise nothing larger than data is guessed"


def test_the_sampler_takes_the_mean_over_the_token_phases(backbone):
    blocks, t, condition = noise(1, 24, 2, 4, 6), torch.tensor([0.3]), backbone.embed_caption("")
    mirrored = {4: [1, 0, 1, 2, 3, 2], 6: [1, 0, 1, 2, 3, 4, 5, 4]}
    rows, columns = blocks[..., mirrored[4], :], blocks[..., mirrored[6]]
    both = rows[..., mirrored[6]]

    def plain(x):
        return backbone._block_estimate(x, t, condition, ((0, 0),))

    expected = (
        plain(blocks) + plain(rows)[..., 1:-1, :] + plain(columns)[..., 1:-1] + plain(both)[..., 1:-1, 1:-1]
    ) / 4
    assert torch.allclose(backbone._block_estimate(blocks, t, condition, TOKEN_PHASES), expected, atol=1e-5)
    assert not torch.allclose(plain(blocks), expected, atol=1e-3)
    for at in (0.3, 0.7):
        x_t = noise(1, 96, 5, 4, 6)
        shown = [backbone.sampler_velocity(x_t, at, condition, last=last) for last in (False, True)]
        assert not torch.equal(*shown)
        expected = backbone._velocity(x_t, at, condition, TOKEN_PHASES[:1], most_noise=0.5)
        assert torch.equal(shown[0], expected), "of a clip the last step alone"
    between = noise(1, 96, 5, 4, 6)
    both = (TOKEN_PHASES[0], TOKEN_PHASES[3])
    for last, phases, completed in ((False, TOKEN_PHASES[:1], 0.5), (True, both, 1.0)):
        expected = backbone._velocity(between, 0.55, condition, phases, most_noise=completed)
        assert torch.equal(backbone.sampler_velocity(between, 0.55, condition, last=last), expected)
    assert evaluations_of_steps("pocket", 10, True) == 11 and evaluations_of_steps("pocket", 10, False) == 22
    assert evaluations_of_steps("wan2.1-1.3b", 10, True) == 10
    for still in (noise(1, 192, 1, 4, 6), noise(1, 192, 1, 2, 2)):
        plain = backbone.velocity(still, t, condition)
        shown = [backbone.sampler_velocity(still, t, condition, last=last) for last in (False, True)]
        assert not torch.equal(shown[0], shown[1]) and not any(torch.equal(each, plain) for each in shown)
        assert all(torch.allclose(each, plain, atol=1.0) for each in shown)


def test_a_batch_of_times_is_as_one_at_a_time(backbone):
    x_t, condition = noise(2, 96, 5, 4, 6), backbone.embed_caption("a cat")
    both = backbone.velocity(x_t, torch.tensor([0.9, 0.2]), condition)
    for i, t in enumerate((0.9, 0.2)):
        assert torch.allclose(both[i : i + 1], backbone.velocity(x_t[i : i + 1], t, condition), atol=1e-4)


def test_a_picture_comes_back_from_its_space(backbone):
    space = backbone._pictures
    picture = torch.from_numpy(pictures(1, 40, 64)).permute(3, 0, 1, 2)[None].float() / 127.5 - 1
    latents = space.encode(picture)
    assert latents.shape == (1, 192, 1, 5, 8)
    assert torch.allclose(space.decode(latents), picture, atol=1e-4)
    assert np.array_equal(backbone.to_frames(backbone.to_latents(pictures(1, 48, 64))), pictures(1, 48, 64))


@pytest.mark.parametrize("n", [1, 2, 8, 31, 200])
def test_the_transform_is_the_dct(n):
    from scipy.fft import dct

    expected = dct(np.eye(n), type=2, norm="ortho", axis=0)
    assert np.allclose(dct_matrix(n).numpy(), expected, atol=1e-6)


def test_a_transform_takes_no_more_memory_than_its_matrix():
    script = (
        "import resource; from vovcodec.backbone.pocket.completion import dct_matrix;"
        "peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss; dct_matrix(8);"
        "before = peak(); dct_matrix(5000); print(peak() - before)"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert 1024 * int(done.stdout) < 1.3 * 4 * 5000**2


def test_the_filter_is_stationary_and_damps_what_has_little_variance(backbone):
    space = backbone._pictures
    damping = space.damping(32, 48)
    assert damping.shape == (3, 32, 48) and 0.149 <= damping.min() < damping.max() < 1
    assert (damping.diff(dim=1) <= 0).all() and (damping.diff(dim=2) <= 0).all()
    # A point in the middle and the same point elsewhere: the same picture, moved.
    here, there = torch.zeros(1, 3, 1, 64, 64), torch.zeros(1, 3, 1, 64, 64)
    here[..., 24, 24] = there[..., 40, 40] = 1.0
    a, b = (torch.nn.functional.pixel_shuffle(space.encode(x)[:, :, 0], 8)[0] for x in (here, there))
    assert torch.allclose(a[:, 16:33, 16:33], b[:, 32:49, 32:49], atol=2e-3)


def test_the_transformer_is_shown_what_it_knows(backbone):
    """A noiseless picture: the latents of its blocks. Noise: about the variance it expects, at most."""
    space = backbone._pictures
    y, x = torch.meshgrid(torch.arange(48.0), torch.arange(64.0), indexing="ij")
    smooth = torch.stack([torch.cos(y / 9), torch.sin(x / 7), torch.cos((x + y) / 11)])[None, :, None]
    expected = backbone.vae.encode(smooth)
    shown = space.to_blocks(space.encode(smooth), torch.tensor([1e-4]), backbone.vae)
    assert float((shown - expected).norm() / expected.norm()) < 0.02
    seen = space.to_blocks(noise(4, 192, 1, 8, 8), torch.full((4,), 0.8), backbone.vae)
    assert 0.05 < float(seen.var()) < 2
    back = space.decode(space.from_blocks(expected, backbone.vae))
    assert torch.allclose(back, backbone.vae.decode(expected), atol=1e-4)


def test_an_untrained_network_of_pictures_leaves_the_estimate(backbone):
    network = PictureNetwork(widths=(8, 8, 8), blocks=(1, 1, 1))
    x_t, known, t = noise(2, 192, 1, 4, 6), noise(2, 192, 1, 4, 6, seed=1), torch.tensor([0.1, 0.7])
    assert torch.equal(network(x_t, known, t), known)
    changed = backbone._pictures(x_t, known, t)
    assert changed.shape == known.shape and not torch.allclose(changed, known, atol=1e-4)
    alone = backbone._pictures(x_t[1:], known[1:], t[1:])
    assert torch.allclose(changed[1:], alone, atol=1e-5), "no sample sees another"
    assert torch.allclose(backbone._pictures(x_t, known, torch.ones(2)), known, atol=1e-3), "nothing at pure noise"


@pytest.mark.parametrize("t", [1.0, 0.5, 1e-2, 1e-4, 0.0])
def test_the_velocity_of_pictures_is_finite_at_all_times(backbone, t):
    x_t, condition = noise(1, 192, 1, 4, 6), backbone.embed_caption("a lake")
    v = backbone.velocity(x_t, t, condition)
    assert v.shape == x_t.shape and v.dtype == torch.float32 and v.isfinite().all()
    assert not torch.equal(v, backbone.velocity(x_t, t, backbone.embed_caption("a road")))


def clip(n_frames: int, height: int, width: int) -> torch.Tensor:
    """Smooth frames [1, 3, F, H, W] in which something moves."""
    y, x = torch.meshgrid(torch.arange(float(height)), torch.arange(float(width)), indexing="ij")
    frames = [
        torch.stack([torch.cos(y / 9 + k / 8), torch.sin((x + k) / 7), torch.cos((x + y) / 11)])
        for k in range(n_frames)
    ]
    return 0.8 * torch.stack(frames, 1)[None]


def test_a_clip_comes_back_from_its_space(backbone):
    space, frames = backbone._clips, clip(5, 40, 64)
    latents = space.encode(frames)
    assert latents.shape == (1, 96, 5, 5, 8)
    assert float((space.decode(latents) - frames).square().mean().sqrt()) < 0.02
    # All of the luma comes back, of the chroma the lower half of the frequencies.
    luma = torch.randn(1, 1, 5, 40, 64, generator=torch.Generator().manual_seed(0)) * space.colours[0].view(
        1, 3, 1, 1, 1
    )
    assert torch.allclose(space.decode(space.encode(luma)), luma, atol=1e-4)
    chroma = torch.randn(1, 1, 5, 40, 64) * space.colours[1].view(1, 3, 1, 1, 1)
    kept = space.decode(space.encode(chroma))
    assert torch.allclose(space.decode(space.encode(kept)), kept, atol=1e-4)
    assert 0.2 < float(kept.square().sum() / chroma.square().sum()) < 0.3


def test_the_noise_of_a_clip_is_that_of_its_blocks(backbone):
    """White noise in x_t is white in pixels before W is undone, half as strong in the first frame."""
    space = backbone._clips
    undone = space._undone(noise(1, 96, 9, 6, 8), tuple(torch.ones_like(w) for w in space.damping(9, 48, 64)))
    luma = torch.einsum("j,bjthw->bthw", space.colours[0], undone)
    deviations = luma.square().mean((0, 2, 3)).sqrt()
    assert torch.allclose(deviations / 4, torch.tensor([0.5, *[1.0] * 8]), rtol=0.06)


def test_the_transformer_is_shown_the_blocks_of_a_clip(backbone):
    space, frames = ClipNetwork(block_channels=24), clip(9, 48, 64)
    space.fit_block_gains(frames, backbone.vae)
    expected = backbone.vae.encode(frames)
    latents = space.encode(frames)
    for t in (1e-4, 0.1, 0.5, 0.9):
        shown = space.to_blocks(latents, torch.tensor([t]), backbone.vae)
        assert float((shown - expected).norm() / expected.norm()) < 0.1 + 0.3 * t
    two = space.to_blocks(latents.expand(2, -1, -1, -1, -1), torch.tensor([0.1, 0.9]), backbone.vae)
    for row, t in enumerate((0.1, 0.9)):
        assert torch.allclose(two[row], space.to_blocks(latents, torch.tensor([t]), backbone.vae)[0], atol=1e-5)
    back = space.decode(space.from_blocks(expected, backbone.vae))
    assert float((back - backbone.vae.decode(expected)).square().mean().sqrt()) < 0.05


def test_an_untrained_network_of_clips_leaves_the_estimate(backbone):
    network = ClipNetwork(widths=(8, 8, 8), blocks=(1, 1, 1))
    x_t, known, t = noise(2, 96, 5, 4, 6), noise(2, 96, 5, 4, 6, seed=1), torch.tensor([0.1, 0.4])
    assert torch.equal(network(x_t, known, t), known)
    changed = backbone._clips(x_t, known, t)
    assert changed.shape == known.shape and not torch.allclose(changed, known, atol=1e-4)
    assert torch.allclose(changed[1:], backbone._clips(x_t[1:], known[1:], t[1:]), atol=1e-5), "no sample sees another"


def test_the_network_of_clips_sees_the_neighbouring_frames(backbone):
    network, x_t, t = backbone._clips, noise(1, 96, 9, 4, 6), torch.tensor([0.2])
    known = torch.zeros_like(x_t)
    before, moved = network(x_t, known, t), x_t.clone()
    moved[:, :, 4] += 1.0
    change = (network(moved, known, t) - before).abs().amax(dim=(0, 1, 3, 4))
    assert (change > 0).all() and change[4] > change[0]


@pytest.mark.parametrize("n_frames", [1, 4, 9])
def test_means_over_frames_keep_the_variance_of_noise(n_frames):
    x = torch.randn(2 * n_frames, 3, 4, 4, dtype=torch.float64)
    for reach, means in zip((1, 4, 128), _means_over_frames(x, 2), strict=True):
        means = means.unflatten(0, (2, n_frames))
        for i in range(n_frames):
            part = x.unflatten(0, (2, n_frames))[:, max(0, i - reach) : i + reach + 1]
            assert torch.allclose(means[:, i], part.sum(1) / part.shape[1] ** 0.5, atol=1e-6)


def test_captions_of_any_length(backbone):
    empty, short = backbone.embed_caption(""), backbone.embed_caption("ein Bär")
    assert empty.shape == short.shape == (1, 64, 16)
    assert not empty[:, 1:].any() and short[0, : 8 + 1].any(dim=1).all() and not short[0, 9:].any()
    long = "ö" * 100
    assert torch.equal(backbone.embed_caption(long), backbone.embed_caption(long + "cut off"))
    assert not torch.equal(backbone.embed_caption("ein Bär"), backbone.embed_caption("ein Bar"))


def test_adaptable_linears_are_all_attention_projections_in_order(backbone):
    names = [name for name, _ in backbone.adaptable_linears("qkvo", 0)]
    kinds = [f"{attention}.{part}" for attention in ("attn1", "attn2") for part in ("to_q", "to_k", "to_v", "to_out.0")]
    assert names == [f"blocks.{i}.{kind}" for i in range(2) for kind in kinds]
    assert [name for name, _ in backbone.adaptable_linears("qkvo", 1)] == names[8:]


def test_fitting_precision_is_left_again(backbone):
    x_t, condition = noise(1, 96, 5, 4, 4), backbone.embed_caption("")
    before = backbone.velocity(x_t, 0.5, condition)
    with backbone.fitting_precision():
        assert torch.allclose(backbone.velocity(x_t, 0.5, condition), before, atol=0.3)
    assert torch.equal(backbone.velocity(x_t, 0.5, condition), before)


def test_the_fingerprint_names_the_weights_not_the_place(folder, backbone, tmp_path):
    assert len(backbone.fingerprint) == 4
    same = PocketBackbone(save_tiny_pocket(tmp_path / "same"))
    other = PocketBackbone(save_tiny_pocket(tmp_path / "other", seed=1))
    assert same.fingerprint == backbone.fingerprint != other.fingerprint


def test_another_model_is_found_on_the_shelf_and_by_path(folder, backbone, tmp_path, monkeypatch):
    other = save_tiny_pocket(tmp_path / "pocket", seed=1)
    monkeypatch.setenv(MODELS_VARIABLE, str(tmp_path))
    assert load_backbone("pocket", device="cpu").fingerprint == PocketBackbone(other).fingerprint
    assert load_backbone("pocket", path=str(folder), device="cpu").fingerprint == backbone.fingerprint


def test_loading_says_nothing(folder, capfd):
    PocketBackbone(folder)
    assert capfd.readouterr() == ("", "")


def test_missing_and_damaged_models_are_typed_errors(tmp_path):
    with pytest.raises(ModelError, match="no embedded model"):
        PocketBackbone(tmp_path)
    damaged = save_tiny_pocket(tmp_path / "damaged")
    for name in ("clips", "transformer"):
        weights = damaged / name / "diffusion_pytorch_model.safetensors"
        whole = weights.read_bytes()
        weights.write_bytes(whole[:100])
        with pytest.raises(ModelError, match="damaged"):
            PocketBackbone(damaged)
        weights.write_bytes(whole)
    with pytest.raises(ModelError, match="float16"):
        PocketBackbone(save_tiny_pocket(tmp_path / "whole"), precision="float16")


@pytest.mark.skipif(not (WEIGHTS_DIR / "model_index.json").is_file(), reason="no weights in this checkout")
def test_the_shipped_weights_are_small_and_work():
    size_bytes = sum(path.stat().st_size for path in WEIGHTS_DIR.rglob("*") if path.is_file())
    assert size_bytes <= 25e6
    backbone = PocketBackbone()
    assert backbone.fingerprint == POCKET_FINGERPRINT, "which a header leaves out: new weights are a new format version"
    basis = backbone.vae.inter_basis
    assert torch.allclose(basis @ basis.T, torch.eye(len(basis)), atol=1e-4)
    y, x = np.mgrid[:64, :64]
    picture = np.stack([2 * x + y, 3 * y + 20, 255 - 3 * x], axis=-1).astype(np.uint8)[None]
    latents = backbone.to_latents(picture)
    decoded = backbone.to_frames(latents)
    assert 10 * math.log10(255**2 / np.mean((decoded.astype(float) - picture) ** 2)) > 28
    # Trained: the estimate of the clean picture beats the Wiener filter.
    condition, gains = backbone.embed_caption(""), []
    for t, seed in itertools.product((0.3, 0.5, 0.7), range(2)):
        x_t = (1 - t) * latents + t * noise(*latents.shape, seed=seed)
        with torch.no_grad():
            clean = x_t - t * backbone.velocity(x_t, t, condition)
        wiener = precondition(torch.tensor([t]), backbone._pictures.variance.sqrt()).c_skip * x_t
        gains.append(float((wiener - latents).square().mean() / (clean - latents).square().mean()))
    assert min(gains) > 1.0, gains


def test_what_an_estimate_leaves_is_taken_back_where_it_is_no_noise():
    t = torch.tensor([0.01]).view(1, 1, 1, 1)
    sigma = float(noise_level(t))
    clean = noise(1, 3, 48, 64, seed=1)
    white = sigma * noise(1, 3, 48, 64, seed=2)
    found = with_filtered_residual(clean, (1 - t) * (clean + white), t)
    assert float((found - clean).abs().max()) < 0.5 * sigma, "noise alone is left alone"
    missing = torch.zeros_like(clean)
    missing[..., 10:30, 20:50] = 20 * sigma
    found = with_filtered_residual(clean, (1 - t) * (clean + missing + white), t)
    error = (found - clean - missing).square()
    assert float(error[..., 14:26, 24:46].mean().sqrt()) < 1.3 * sigma, "as near as what was seen"
    assert float(error[..., 38:, :].mean().sqrt()) < 0.3 * sigma, "and not where nothing was missing"


def test_pictures_with_hardly_any_noise_are_what_is_seen(tmp_path):
    """A network that knows nothing does not stand in the way; more noise is its own affair."""
    backbone = PocketBackbone(save_tiny_pocket(tmp_path))
    latents = backbone.to_latents(np.random.default_rng(3).integers(0, 256, (1, 48, 64, 3)).astype(np.uint8))
    condition = backbone.embed_caption("")
    for t, most in ((0.001, 3e-3), (0.01, 3e-2)):
        x_t = (1 - t) * latents + t * noise(*latents.shape, seed=4)
        with torch.no_grad():
            clean = x_t - t * backbone.sampler_velocity(x_t, t, condition, last=True)
        assert float((clean - latents).square().mean().sqrt()) < most
    x_t = 0.9 * latents + 0.1 * noise(*latents.shape, seed=4)
    with torch.no_grad():
        clean = x_t - 0.1 * backbone.sampler_velocity(x_t, 0.1, condition, last=True)
    assert float((clean - latents).square().mean().sqrt()) > 0.05
