"""Means along the motion (FORMAT.md, 22.3): a second implementation, what holds of any, and where the decoder has them.

The first part is written from the text alone, in plain float64.
"""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from scipy.fft import dctn, idctn
from tiny_models import save_tiny_pocket

from vovcodec.backbone.pocket.backbone import WEIGHTS_DIR, PocketBackbone
from vovcodec.backbone.pocket.clips import ClipNetwork
from vovcodec.backbone.pocket.motion import mean_along_motion
from vovcodec.sampling.scene import SceneVelocity

# --- by the text ---------------------------------------------------------------------------------------------------


def between(image: np.ndarray, y: np.ndarray, x: np.ndarray) -> np.ndarray:
    """Bilinear; beyond an edge the value at the edge. image [..., H, W]."""
    height, width = image.shape[-2:]
    y, x = np.clip(y, 0, height - 1), np.clip(x, 0, width - 1)
    top, left = np.floor(y).astype(int), np.floor(x).astype(int)
    bottom, right = np.minimum(top + 1, height - 1), np.minimum(left + 1, width - 1)
    upper = (left + 1 - x) * image[..., top, left] + (x - left) * image[..., top, right]
    lower = (left + 1 - x) * image[..., bottom, left] + (x - left) * image[..., bottom, right]
    return (top + 1 - y) * upper + (y - top) * lower


def moved(image: np.ndarray, flow: np.ndarray) -> np.ndarray:
    """image(p + u); flow [2, H, W], x before y."""
    y, x = np.mgrid[: image.shape[-2], : image.shape[-1]]
    return between(image, y + flow[1], x + flow[0])


def enlarged(image: np.ndarray) -> np.ndarray:
    """Value j of the larger row lies at (j + 1/2)/2 − 1/2 of the smaller one."""
    y, x = np.mgrid[: 2 * image.shape[-2], : 2 * image.shape[-1]]
    return between(image, (y + 0.5) / 2 - 0.5, (x + 0.5) / 2 - 0.5)


def block_means(image: np.ndarray, s: int) -> np.ndarray:
    height, width = image.shape
    return np.array([[image[i : i + s, j : j + s].mean() for j in range(0, width, s)] for i in range(0, height, s)])


def mean_over(n: int, image: np.ndarray) -> np.ndarray:
    """M or M3, over n by n values. image [..., H, W]."""
    height, width = image.shape[-2:]
    total = np.zeros_like(image)
    for dy in range(-(n // 2), n // 2 + 1):
        for dx in range(-(n // 2), n // 2 + 1):
            rows, columns = np.clip(np.arange(height) + dy, 0, height - 1), np.clip(np.arange(width) + dx, 0, width - 1)
            total += image[..., rows, :][..., columns]
    return total / n**2


def flow_by_the_text(first: np.ndarray, second: np.ndarray, v: float) -> np.ndarray:
    u = np.zeros((2, 0, 0))
    for s in (8, 4, 2):
        a, b = block_means(first, s), block_means(second, s)
        u = np.zeros((2, *a.shape)) if s == 8 else 2 * enlarged(u)
        w = moved(b, u)
        m = np.pad((a + w) / 2, 1, mode="edge")
        g = ((m[1:-1, 2:] - m[1:-1, :-2]) / 2, (m[2:, 1:-1] - m[:-2, 1:-1]) / 2)
        matrix = np.array([[mean_over(5, g[i] * g[j]) + (v / 50) * (i == j) for j in range(2)] for i in range(2)])
        side = np.array([mean_over(5, g[i] * (a - w)) for i in range(2)])
        h = np.linalg.solve(matrix.transpose(2, 3, 0, 1), side.transpose(1, 2, 0)[..., None])[..., 0].transpose(2, 0, 1)
        u = np.array([mean_over(5, part) for part in u + np.clip(h, -2, 2)])
    return u


def share_of_what_is_left(t: float) -> float:
    """k."""
    return min(1, 0.06 * (0.12 * t**0.7) * ((1 - t) / t) ** 2)


def mean_by_the_text(planes, t: float, left=None):
    """Of planes of x0, and r if there is any: luma [F, H, W] and chroma [F, 2, H/2, W/2]."""
    y, c = planes
    n, v = len(y), 0.12 * t**0.7
    values_y, values_c = y, c
    if left is not None:
        values_y, values_c = (x + share_of_what_is_left(t) * mean_over(3, r) for x, r in zip(planes, left, strict=True))
    flows = {(f, e): flow_by_the_text(y[f], y[f + e], v) for f in range(n) for e in (-1, 1) if 0 <= f + e < n}
    new_y, new_c = np.empty_like(y), np.empty_like(c)
    for f in range(n):
        sum_y, sum_c, sum_k = values_y[f].copy(), values_c[f].copy(), np.ones(c.shape[-2:])
        for direction in (-1, 1):
            u = np.zeros((2, *c.shape[-2:]))
            for d in range(direction, 5 * direction, direction):
                if not 0 <= f + d < n:
                    break
                u = u + moved(flows[f + d - direction, direction], u)  # u_1 itself for d = 1
                q = block_means((moved(y[f + d], 2 * enlarged(u)) - y[f]) ** 2, 2)
                k = np.exp(-2 * mean_over(5, q) / v)
                sum_y += k.repeat(2, axis=0).repeat(2, axis=1) * moved(values_y[f + d], 2 * enlarged(u))
                sum_c += k * moved(values_c[f + d], u)
                sum_k += k
        new_y[f], new_c[f] = sum_y / sum_k.repeat(2, axis=0).repeat(2, axis=1), sum_c / sum_k
    return new_y, new_c


# --- clips ---------------------------------------------------------------------------------------------------------


def noise(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def texture(seed: int, shortest_px: float = 10.0):
    """A picture without edges, of deviation ½: y, x → value."""
    random = np.random.default_rng(seed)
    n = 40
    angle, phase = random.uniform(0, 2 * math.pi, n), random.uniform(0, 2 * math.pi, n)
    frequency = 2 * math.pi / shortest_px * random.uniform(0.15, 1, n)

    def at(y, x):
        rows, columns = frequency * np.sin(angle), frequency * np.cos(angle)
        return 0.5 * math.sqrt(2 / n) * np.cos(y[..., None] * rows + x[..., None] * columns + phase).sum(axis=-1)

    return at


def moving(n_frames: int, height: int, width: int, x_px: float, y_px: float, *, seed: int = 0, **how):
    """Planes of textures that move by so many pixels per frame: luma [F, 1, H, W], chroma [F, 2, H/2, W/2]."""
    planes = []
    for scale in (1, 2):
        y, x = (scale * (np.mgrid[: height // scale, : width // scale] + 0.5)) - 0.5
        seen = [texture(3 * seed + scale, **how)] if scale == 1 else [texture(3 * seed + 2 + i, **how) for i in (0, 7)]
        frames = [[at(y - y_px * f, x - x_px * f) for at in seen] for f in range(n_frames)]
        planes.append(torch.tensor(np.array(frames), dtype=torch.float32))
    return tuple(planes)


def with_noise(planes, deviation: float, seed: int = 0):
    return tuple(x + deviation * noise(*x.shape, seed=seed + i) for i, x in enumerate(planes))


def mse(a, b) -> float:
    return float((a - b).square().mean())


def gains_db(clean, seen, found) -> list[float]:
    """Of luma and chroma."""
    return [10 * math.log10(mse(c, s) / mse(c, f)) for c, s, f in zip(clean, seen, found, strict=True)]


# --- the mean ------------------------------------------------------------------------------------------------------


def arrays(planes):
    """As the text's luma [F, H, W] and chroma."""
    return planes[0][:, 0].double().numpy(), planes[1].double().numpy()


@pytest.mark.parametrize("t", [0.5, 0.06, 0.015])
@pytest.mark.parametrize(
    ("n_frames", "x_px", "y_px"), [(6, 1.3, -0.6), (4, -5.0, 3.5), (4, 14.0, 0.0), (3, 0.7, 1.9), (2, -2.0, 0.3)]
)
def test_it_is_what_the_format_says(t, n_frames, x_px, y_px):
    planes = with_noise(moving(n_frames, 16, 24, x_px, y_px, seed=n_frames), 0.4 * math.sqrt(0.12 * t**0.7))
    left = noise(*planes[0].shape, seed=2), noise(*planes[1].shape, seed=3)
    both = []
    for r in (None, left):
        expected = mean_by_the_text(arrays(planes), t, r and arrays(r))
        found = mean_along_motion(planes, t, r)
        for seen, wanted, values in zip(arrays(planes), expected, arrays(found), strict=True):
            assert np.abs(values - wanted).max() < 2e-5
            assert np.abs(wanted - seen).max() > 5e-4, "which is something else than the input"
        assert all(x.shape == seen.shape for x, seen in zip(found, planes, strict=True))
        both.append(expected)
    assert (share_of_what_is_left(t) == 1) == (t == 0.015)
    for without, with_left in zip(*both, strict=True):
        assert np.abs(with_left - without).max() > 1e-3


@pytest.mark.parametrize("t", [0.6, 0.1, 1e-3])
def test_a_clip_that_stands_still_stays_as_it_is(t):
    for planes in (moving(6, 32, 48, 0.0, 0.0), moving(2, 16, 16, 0.0, 0.0, shortest_px=3.0)):
        for seen, found in zip(planes, mean_along_motion(planes, t), strict=True):
            assert torch.allclose(found, seen, atol=1e-5)


@pytest.mark.parametrize(("height", "width"), [(8, 8), (8, 32), (24, 8), (16, 24)])
def test_flat_frames_stay_as_they_are_at_any_size(height, width):
    flat = torch.full((5, 1, height, width), 0.7), torch.full((5, 2, height // 2, width // 2), -0.3)
    for seen, found in zip(flat, mean_along_motion(flat, 0.5), strict=True):
        assert torch.allclose(found, seen, atol=1e-5)
    # Each frame of a brightness of its own: nothing has a gradient, and of what is alike the mean is between them.
    steps = torch.linspace(-0.2, 0.2, 5).view(5, 1, 1, 1)
    planes = flat[0] + steps, flat[1] + steps
    for seen, found in zip(planes, mean_along_motion(planes, 0.5), strict=True):
        assert found.isfinite().all() and seen.min() < found.min() and found.max() < seen.max()
        assert torch.allclose(found, found[..., :1, :1].expand_as(found), atol=1e-5)


@pytest.mark.parametrize("t", [1.0, 0.6, 0.02, 1e-4])
@pytest.mark.parametrize("n_frames", [2, 5, 13])
def test_it_is_finite_for_small_frames_of_any_content(t, n_frames):
    for scale in (0.0, 1e-6, 1.0, 100.0):
        planes = scale * noise(n_frames, 1, 8, 8), scale * noise(n_frames, 2, 4, 4, seed=1)
        for seen, found in zip(planes, mean_along_motion(planes, t), strict=True):
            assert found.shape == seen.shape and found.isfinite().all()
            assert found.abs().max() <= seen.abs().max() * (1 + 1e-5), "a mean is no larger than the largest"


@pytest.mark.parametrize(("x_px", "y_px"), [(1, 0), (0, -2), (3, 2), (-6, 4)])
def test_noise_falls_where_a_pattern_moves(x_px, y_px):
    clean = moving(9, 64, 96, x_px, y_px, seed=1, shortest_px=14.0)
    seen = with_noise(clean, 0.2)
    found = mean_along_motion(seen, 0.5)
    luma_db, chroma_db = gains_db(clean, seen, found)
    assert luma_db > 3 and chroma_db > 3


def test_the_mean_is_over_four_frames_on_each_side():
    planes = with_noise(moving(13, 16, 16, 0.0, 0.0), 0.05)
    other = tuple(x.clone() for x in planes)
    for x in other:
        x[6] += 0.02
    for before, after in zip(mean_along_motion(planes, 0.5), mean_along_motion(other, 0.5), strict=True):
        change = (after - before).abs().amax(dim=(1, 2, 3))
        assert (change[2:11] > 1e-4).all() and (change[:2] == 0).all() and (change[11:] == 0).all()


@pytest.mark.parametrize("t", [0.5, 0.1])
def test_scenes_on_both_sides_of_a_cut_are_not_mixed(t):
    one, other = moving(6, 64, 96, 2.0, 1.0, seed=1), moving(6, 64, 96, -1.0, 2.0, seed=5)
    clean = tuple(torch.cat(pair) for pair in zip(one, other, strict=True))
    found = mean_along_motion(clean, t)
    alone = [torch.cat(pair) for pair in zip(mean_along_motion(one, t), mean_along_motion(other, t), strict=True)]
    for seen, cut, apart in zip(clean, found, alone, strict=True):
        assert mse(cut, apart) < 0.01 * mse(seen[5], seen[6])
        assert mse(cut, seen) < 0.02 * mse(seen[5], seen[6])


def test_a_clip_in_reverse_has_the_mean_in_reverse():
    planes = with_noise(moving(7, 32, 48, 2.0, -1.0), 0.1)
    forwards, backwards = mean_along_motion(planes, 0.4), mean_along_motion(tuple(x.flip(0) for x in planes), 0.4)
    for a, b in zip(forwards, backwards, strict=True):
        assert torch.allclose(a, b.flip(0), atol=1e-5)
        assert not torch.allclose(a, b, atol=1e-2)


def test_a_mirrored_or_turned_clip_has_the_mean_mirrored_or_turned():
    planes = with_noise(moving(5, 32, 48, 2.0, -1.0), 0.1)
    found = mean_along_motion(planes, 0.4)
    for change in (lambda x: x.flip(-1), lambda x: x.flip(-2), lambda x: x.transpose(-1, -2)):
        other = mean_along_motion(tuple(change(x).contiguous() for x in planes), 0.4)
        for a, b in zip(found, other, strict=True):
            assert torch.allclose(change(a), b, atol=1e-4)


def test_more_is_averaged_where_estimates_are_worse():
    clean = moving(7, 32, 48, 1.0, 1.0)
    seen = with_noise(clean, 0.1)
    changes = [mse(mean_along_motion(seen, t)[0], seen[0]) for t in (1e-3, 0.05, 0.6)]
    assert changes == sorted(changes) and changes[0] < 1e-3 * changes[2]


def test_chroma_follows_the_luma_and_has_no_say():
    luma, chroma = with_noise(moving(5, 32, 48, 2.0, 0.0), 0.1)
    found, chroma_found = mean_along_motion((luma, chroma), 0.4)
    same, larger = mean_along_motion((luma, 3 * chroma), 0.4)
    assert torch.equal(same, found) and torch.allclose(larger, 3 * chroma_found, atol=1e-5)


# --- what is left of the state -------------------------------------------------------------------------------------


def scaled(planes, by: float):
    return tuple(by * x for x in planes)


def minus(a, b):
    return tuple(x - y for x, y in zip(a, b, strict=True))


def smoothed(planes):
    """Means over 5×5 pixels: what an estimate of little detail shows."""
    return tuple(F.avg_pool2d(F.pad(x, (2, 2, 2, 2), mode="replicate"), 5, stride=1) for x in planes)


@pytest.mark.parametrize("t", [0.6, 0.3, 0.1, 0.03, 0.022, 0.021, 1e-3])
def test_what_is_left_counts_by_how_far_it_can_be_trusted(t):
    flat = torch.full((5, 1, 16, 24), 0.7), torch.full((5, 2, 8, 12), -0.3)
    left = torch.full_like(flat[0], 5.0), torch.full_like(flat[1], -3.0)
    for seen, r, found in zip(flat, left, mean_along_motion(flat, t, left), strict=True):
        assert torch.allclose(found, seen + share_of_what_is_left(t) * r, atol=1e-5)
    assert (share_of_what_is_left(t) == 1) == (t < 0.022)


def test_what_is_left_is_seen_over_three_by_three_pixels():
    standing = moving(5, 32, 48, 0.0, 0.0)
    left = tuple(torch.zeros_like(x) for x in standing)
    for x in left:
        x[..., 5, 6] = 9.0
    for seen, found in zip(standing, mean_along_motion(standing, 0.01, left), strict=True):
        expected = seen.clone()
        expected[..., 4:7, 5:8] += 1
        assert torch.allclose(found, expected, atol=1e-5)


@pytest.mark.parametrize("t", [0.5, 0.06, 0.01])
def test_what_is_left_has_no_say_in_motion_and_weights(t):
    planes = with_noise(moving(7, 32, 48, 2.0, -1.0), 0.1)
    left = with_noise(moving(7, 32, 48, -3.0, 2.0, seed=8), 0.5)
    plain = mean_along_motion(planes, t)
    change = minus(mean_along_motion(planes, t, left), plain)
    for by in (0.0, -1.0, 20.0):
        for once, found in zip(change, minus(mean_along_motion(planes, t, scaled(left, by)), plain), strict=True):
            assert torch.allclose(found, by * once, atol=2e-5)
    for x, r in zip(change, left, strict=True):
        assert float(x.abs().max()) > 0.1 * share_of_what_is_left(t) * float(r.std())


def test_luma_and_chroma_have_each_what_is_left_of_them():
    planes = with_noise(moving(5, 32, 48, 2.0, 0.0), 0.1)
    plain, left = mean_along_motion(planes, 0.05), (noise(5, 1, 32, 48), noise(5, 2, 16, 24, seed=1))
    for luma_by, chroma_by in ((1, 0), (0, 1)):
        luma, chroma = mean_along_motion(planes, 0.05, (luma_by * left[0], chroma_by * left[1]))
        assert torch.allclose(luma, plain[0], atol=1e-5) == (luma_by == 0)
        assert torch.allclose(chroma, plain[1], atol=1e-5) == (chroma_by == 0)


@pytest.mark.parametrize("t", [0.05, 0.02, 0.01])
@pytest.mark.parametrize(("x_px", "y_px"), [(0.0, 0.0), (1.3, -0.6), (4.0, 2.0)])
def test_what_an_estimate_has_lost_is_found_in_what_it_leaves(x_px, y_px, t):
    clean = moving(9, 64, 96, x_px, y_px, seed=2, shortest_px=8.0)
    estimate = smoothed(clean)
    left = minus(with_noise(clean, t / (1 - t), seed=5), estimate)
    without, found = mean_along_motion(estimate, t), mean_along_motion(estimate, t, left)
    for db in gains_db(clean, without, found):
        assert db > 1
    if x_px == 0 and t < 0.02:
        for db in gains_db(clean, estimate, found):
            assert db > 6, "where nothing moves, most of it"


@pytest.mark.parametrize(("x_px", "y_px"), [(0, 0), (2, 0), (-4, 2)])
def test_noise_in_what_is_left_falls_along_the_motion(x_px, y_px):
    t = 0.02
    clean = moving(9, 64, 96, x_px, y_px, seed=1, shortest_px=14.0)
    left = scaled((noise(9, 1, 64, 96), noise(9, 2, 32, 48, seed=1)), t / (1 - t))
    added = minus(mean_along_motion(clean, t, left), mean_along_motion(clean, t))
    for r, x in zip(left, added, strict=True):
        height, width = x.shape[-2:]
        inside = x[4, :, height // 5 : -height // 5, width // 5 : -width // 5]
        assert inside.square().mean() < 0.2 * r.square().mean() / 9, "3×3 pixels, and nine frames of about equal weight"


# --- latents -------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def clips():
    """The shipped network of clips: its space is all that is asked of it."""
    if not (WEIGHTS_DIR / "model_index.json").is_file():
        pytest.skip("no weights in this checkout")
    return ClipNetwork.from_pretrained(WEIGHTS_DIR / "clips").eval().requires_grad_(False)


def frames_of(clips, planes, n_samples: int = 1) -> torch.Tensor:
    """Frames [B, 3, F, H, W] that show planes: chroma as large as luma by the lower half of its frequencies."""
    luma, chroma = planes
    spectrum = dctn(chroma.double().numpy(), axes=(-2, -1), norm="ortho")
    wide = np.zeros((*chroma.shape[:2], *luma.shape[-2:]))
    wide[..., : chroma.shape[-2], : chroma.shape[-1]] = spectrum
    large = torch.from_numpy(idctn(wide, axes=(-2, -1), norm="ortho")).float()
    frames = torch.einsum("ij,fihw->jfhw", clips.colours.float(), torch.cat([luma, large], dim=1))
    return frames[None].expand(n_samples, -1, -1, -1, -1)


def planes_of(clips, frames: torch.Tensor):
    """The inverse, of one clip [3, F, H, W]."""
    planes = torch.einsum("ij,jfhw->fihw", clips.colours.float(), frames)
    height, width = (n // 2 for n in frames.shape[-2:])
    spectrum = dctn(planes[:, 1:].double().numpy(), axes=(-2, -1), norm="ortho")[..., :height, :width]
    return planes[:, :1], torch.from_numpy(idctn(spectrum, axes=(-2, -1), norm="ortho")).float()


def clip_of(clips, n_frames: int, x_px: float, y_px: float, deviation: float, seed: int = 0):
    """Frames of a moving clip, and the latents of these and of noisy ones."""
    planes = moving(n_frames, 32, 48, x_px, y_px, seed=seed)
    frames = frames_of(clips, planes)
    return frames, clips.encode(frames), clips.encode(frames_of(clips, with_noise(planes, deviation)))


def noisy_state(clean: torch.Tensor, t: float) -> torch.Tensor:
    """x_t."""
    return (1 - t) * clean + t * noise(*clean.shape, seed=9)


@pytest.mark.parametrize("t", [math.nextafter(0.6, 1), 0.7, 1.0])
def test_at_much_noise_an_estimate_is_left_alone(clips, t):
    _, clean, noisy = clip_of(clips, 5, 2.0, -1.0, 0.2)
    assert clips.along_motion(noisy, t) is noisy
    assert clips.along_motion(noisy, t, noisy_state(clean, t)) is noisy
    assert not torch.allclose(clips.along_motion(noisy, 0.6), noisy, atol=0.02), "0.6 is not yet much"


@pytest.mark.parametrize(("t", "deviation"), [(0.6, 0.2), (0.3, 0.2), (0.02, 0.05)])
@pytest.mark.parametrize("n_frames", [5, 9])
def test_the_mean_is_taken_in_the_planes_of_the_decoder(clips, t, deviation, n_frames):
    clean, one = clip_of(clips, n_frames, 2.0, -1.0, deviation)[1:]
    other_clean, other = clip_of(clips, n_frames, -1.0, 0.5, deviation, seed=3)[1:]
    both, states = torch.cat([one, other]), noisy_state(torch.cat([clean, other_clean]), t)
    for x_t in (None, states):
        found = clips.along_motion(both, t, x_t)
        for i, new in enumerate(found):
            planes, left = planes_of(clips, clips.decode(both[i : i + 1])[0]), None
            if x_t is not None:
                left = planes_of(clips, clips.decode(states[i : i + 1] / (1 - t) - both[i : i + 1])[0])
            expected = clips.encode(frames_of(clips, mean_along_motion(planes, t, left)))[0]
            assert torch.allclose(new, expected, atol=2e-5)
            assert float((new - both[i]).norm()) > 100 * float((new - expected).norm())


@pytest.mark.parametrize("t", [0.6, 0.1, 0.01])
def test_a_state_of_which_nothing_is_left_adds_nothing(clips, t):
    _, clean, noisy = clip_of(clips, 5, 2.0, -1.0, 0.2)
    plain = clips.along_motion(noisy, t)
    assert torch.allclose(clips.along_motion(noisy, t, (1 - t) * noisy), plain, atol=2e-5)
    assert not torch.allclose(clips.along_motion(noisy, t, noisy_state(clean, t)), plain, atol=1e-3)


@pytest.mark.parametrize("t", [0.03, 0.01])
def test_a_clip_that_lost_detail_comes_nearer_to_the_clean_one_by_its_state(clips, t):
    planes = moving(9, 32, 48, 1.0, -0.5, seed=2, shortest_px=8.0)
    clean, estimate = (clips.encode(frames_of(clips, x)) for x in (planes, smoothed(planes)))
    without, found = clips.along_motion(estimate, t), clips.along_motion(estimate, t, noisy_state(clean, t))
    assert mse(found, clean) < 0.8 * mse(without, clean)
    assert mse(clips.decode(found), clips.decode(clean)) < 0.8 * mse(clips.decode(without), clips.decode(clean))


@pytest.mark.parametrize(("x_px", "y_px"), [(1.0, 0.0), (3.0, -2.0)])
def test_a_noisy_clip_comes_nearer_to_the_clean_one(clips, x_px, y_px):
    frames, clean, noisy = clip_of(clips, 9, x_px, y_px, 0.2)
    found = clips.along_motion(noisy, 0.5)
    assert mse(found, clean) < 0.6 * mse(noisy, clean)
    assert mse(clips.decode(found), frames) < 0.6 * mse(clips.decode(noisy), frames)


def test_a_standing_clip_keeps_its_latents(clips):
    picture = frames_of(clips, moving(1, 32, 48, 0.0, 0.0))
    standing = clips.encode_standing(picture, 9)
    assert torch.allclose(clips.along_motion(standing, 0.5), standing, atol=2e-5)


# --- the sampler ---------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def backbone(tmp_path_factory):
    return PocketBackbone(save_tiny_pocket(tmp_path_factory.mktemp("pocket")))


def left_alone(network, clean, t, x_t=None):
    return clean


def noisy_clip(backbone, t: float) -> torch.Tensor:
    """x_t of a clip in which something moves; with a tenth of the noise, for what the tiny networks leave of it hides
    all motion."""
    latents = backbone._clips.encode(frames_of(backbone._clips, moving(5, 32, 48, 2.0, -1.0, seed=4)))
    return (1 - t) * latents + 0.1 * t * noise(*latents.shape)


@pytest.mark.parametrize("is_last", [False, True])
@pytest.mark.parametrize("t", [0.6, 0.59, 0.5, 0.1, 0.02])
def test_the_sampler_averages_the_estimate(backbone, monkeypatch, t, is_last):
    x_t, condition = noisy_clip(backbone, t), backbone.embed_caption("")
    shown = backbone.sampler_velocity(x_t, t, condition, last=is_last)
    with monkeypatch.context() as without:
        without.setattr(ClipNetwork, "along_motion", left_alone)
        plain = backbone.sampler_velocity(x_t, t, condition, last=is_last)
    clean = x_t - t * shown
    expected, without_x_t = (backbone._clips.along_motion(x_t - t * plain, t, x) for x in (x_t, None))
    assert torch.allclose(clean, expected, atol=1e-5)
    assert not torch.allclose(clean, without_x_t, atol=1e-4), "what is left of x_t is averaged, too"
    assert not torch.allclose(shown, plain, atol=0.1)


@pytest.mark.parametrize("is_last", [False, True])
def test_the_sampler_leaves_estimates_at_much_noise(backbone, monkeypatch, is_last):
    condition = backbone.embed_caption("")
    clips = {t: noisy_clip(backbone, t) for t in (math.nextafter(0.6, 1), 0.61, 1.0)}
    shown = [backbone.sampler_velocity(x_t, t, condition, last=is_last) for t, x_t in clips.items()]
    monkeypatch.setattr(ClipNetwork, "along_motion", left_alone)
    for (t, x_t), each in zip(clips.items(), shown, strict=True):
        assert torch.equal(backbone.sampler_velocity(x_t, t, condition, last=is_last), each)


@pytest.mark.parametrize(("is_last", "most_noise"), [(False, 0.5), (True, 0.6)])
def test_the_network_of_clips_is_asked_up_to_the_time_itself(backbone, monkeypatch, is_last, most_noise):
    asked, condition = [], backbone.embed_caption("")
    monkeypatch.setattr(ClipNetwork, "forward", lambda network, x_t, prior, t: asked.append(t) or prior)
    for t, n_asked in ((math.nextafter(most_noise, 1), 0), (most_noise, 1), (math.nextafter(most_noise, 0), 2)):
        backbone.sampler_velocity(noise(1, 96, 5, 4, 6), t, condition, last=is_last)
        assert len(asked) == n_asked


def test_fitting_and_stills_know_nothing_of_motion(backbone, monkeypatch):
    asked = []
    monkeypatch.setattr(ClipNetwork, "along_motion", lambda network, clean, t, x_t: asked.append((t, x_t)) or clean)
    condition = backbone.embed_caption("")
    for t in (0.9, 0.5, 0.01):
        backbone.velocity(noise(1, 96, 5, 4, 6), t, condition)
        for is_last in (False, True):
            backbone.sampler_velocity(noise(1, 192, 1, 4, 6), t, condition, last=is_last)
        backbone.velocity(noise(1, 192, 1, 4, 6), t, condition)
    assert not asked
    x_t = noise(1, 96, 5, 4, 6)
    backbone.sampler_velocity(x_t, 0.5, condition, last=False)
    ((t, state),) = asked
    assert t == 0.5 and state is x_t


def test_a_velocity_for_fitting_can_be_differentiated(backbone):
    x_t = noise(1, 96, 5, 4, 6).requires_grad_()
    backbone.velocity(x_t, 0.3, backbone.embed_caption("")).square().sum().backward()
    assert x_t.grad.isfinite().all() and x_t.grad.any()


# --- scenes --------------------------------------------------------------------------------------------------------


def test_a_scene_has_the_means_of_its_clips(backbone):
    latents = noisy_clip(backbone, 0.0)
    for scene in (backbone.scene, backbone.scene.seen_by(None)):
        for t in (0.7, 0.6, 0.2):
            found = scene.along_motion(latents, t)
            assert torch.equal(found, backbone._clips.along_motion(latents, t))
            assert (found is latents) == (t > 0.6)
            assert torch.allclose(found, latents, atol=1e-3) == (t > 0.6)


@pytest.mark.parametrize("t", [0.6, 0.05])
def test_a_scene_averages_nothing_but_its_estimate(backbone, t):
    clean = noisy_clip(backbone, 0.0)
    standing, scene = clean.mean(dim=2, keepdim=True).expand_as(clean), backbone.scene
    estimates = []
    for seed in (0, 1):
        x_t = noise(*clean.shape, seed=seed)
        velocity = SceneVelocity(lambda x_t, t: (x_t - clean) / t, standing, scene.impose, scene.along_motion)
        estimates.append(x_t - t * velocity(x_t, t))
    expected = scene.impose(backbone._clips.along_motion(scene.impose(clean, standing), t), standing)
    for estimate in estimates:
        assert torch.allclose(estimate, expected, atol=1e-4), "k = 0: whatever the state"
    assert not torch.allclose(expected, scene.impose(clean, standing), atol=1e-2)


class Parts:
    """A velocity, `impose` and `along_motion` that change numbers in ways of their own and tell when they were
    called."""

    def __init__(self, standing: torch.Tensor) -> None:
        self.standing, self.called = standing, []

    def __call__(self, x_t, t):
        self.called.append(("velocity", t))
        return 0.3 * x_t + 1

    def last(self, x_t, t):
        self.called.append(("last", t))
        return 0.4 * x_t - 1

    def impose(self, clean, standing):
        self.called.append("impose")
        assert standing is self.standing
        return 0.5 * (clean + standing)

    def along_motion(self, clean, t):
        self.called.append(("along_motion", t))
        return clean if t > 0.6 else clean.square() + t


@pytest.mark.parametrize("t", [0.6, 0.2])
def test_a_scene_is_imposed_before_and_after_the_mean(t):
    x_t, standing = noise(1, 4, 5, 2, 3), noise(1, 4, 5, 2, 3, seed=1)
    for asked, plain in (("velocity", 0.3 * x_t + 1), ("last", 0.4 * x_t - 1)):
        parts = Parts(standing)
        velocity = SceneVelocity(parts, standing, parts.impose, parts.along_motion)
        shown = velocity.last(x_t, t) if asked == "last" else velocity(x_t, t)
        assert parts.called == [(asked, t), "impose", ("along_motion", t), "impose"]
        imposed = (x_t - t * plain + standing) / 2
        expected = (imposed.square() + t + standing) / 2
        assert torch.allclose(x_t - t * shown, expected, atol=1e-5)


@pytest.mark.parametrize("t", [math.nextafter(0.6, 1), 0.7])
def test_a_scene_is_imposed_once_where_nothing_is_averaged(t):
    x_t, standing = noise(1, 4, 5, 2, 3), noise(1, 4, 5, 2, 3, seed=1)
    for asked, plain in (("velocity", 0.3 * x_t + 1), ("last", 0.4 * x_t - 1)):
        parts = Parts(standing)
        velocity = SceneVelocity(parts, standing, parts.impose, parts.along_motion)
        shown = velocity.last(x_t, t) if asked == "last" else velocity(x_t, t)
        assert [name for name in parts.called if name != ("along_motion", t)] == [(asked, t), "impose"]
        assert torch.allclose(x_t - t * shown, (x_t - t * plain + standing) / 2, atol=1e-5)


def test_at_pure_noise_the_scene_is_the_estimate():
    x_t, standing = noise(1, 4, 5, 2, 3), noise(1, 4, 5, 2, 3, seed=1)
    parts = Parts(standing)
    velocity = SceneVelocity(parts, standing, parts.impose, parts.along_motion)
    for shown in (velocity(x_t, 1.0), velocity.last(x_t, 1.0)):
        assert torch.equal(shown, x_t - standing)
    assert not parts.called
