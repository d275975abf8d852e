"""PSNR, SSIM and MS-SSIM against hand-computed values, a direct two-dimensional evaluation, and their properties."""

from __future__ import annotations

import math

import numpy as np
import pytest

from vovcodec.errors import UsageError
from vovcodec.metrics import ms_ssim, psnr, psnr_per_frame, ssim

RNG = np.random.default_rng(7)


def picture(n_frames=2, height=48, width=64):
    y, x = np.mgrid[0:height, 0:width]
    base = 128 + 60 * np.sin(x / 5) * np.cos(y / 7)
    frames = np.stack([np.stack([base, base[::-1], base[:, ::-1]], -1) + 3 * i for i in range(n_frames)])
    return (frames + RNG.normal(0, 8, frames.shape)).clip(20, 235).astype(np.uint8)


def noisy(frames, sigma):
    return (frames + RNG.normal(0, sigma, frames.shape)).round().clip(0, 255).astype(np.uint8)


def test_psnr_of_a_constant_offset():
    frames = picture()
    assert psnr(frames, frames + np.uint8(5)) == pytest.approx(20 * math.log10(255 / 5), abs=1e-12)
    assert psnr(frames, frames) == math.inf
    black, white = np.zeros((1, 4, 4, 3), np.uint8), np.full((1, 4, 4, 3), 255, np.uint8)
    assert psnr(black, white) == 0


def test_psnr_takes_the_error_over_the_whole_clip():
    reference = np.full((2, 8, 8, 3), 100, np.uint8)
    distorted = reference.copy()
    distorted[1] += 10
    assert psnr(reference, distorted) == pytest.approx(10 * math.log10(255**2 / 50), abs=1e-12)
    assert psnr_per_frame(reference, distorted) == [math.inf, pytest.approx(10 * math.log10(255**2 / 100))]


def test_ssim_of_flat_pictures_is_the_luminance_term():
    a, b = np.full((1, 16, 16, 3), 100, np.uint8), np.full((1, 16, 16, 3), 140, np.uint8)
    c1 = (0.01 * 255) ** 2
    expected = (2 * 100 * 140 + c1) / (100**2 + 140**2 + c1)
    assert ssim(a, b) == pytest.approx(expected, abs=1e-9)
    assert ssim(a, b, channels="luma") == pytest.approx(expected, abs=1e-9)


def direct_ssim(x, y):
    """The paper's equations at every position, with the window as a two-dimensional sum."""
    t = np.arange(-5, 6)
    window = np.exp(-(t[:, None] ** 2 + t[None] ** 2) / (2 * 1.5**2))
    window /= window.sum()
    c1, c2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2
    values = []
    for i in range(x.shape[0] - 10):
        for j in range(x.shape[1] - 10):
            p, q = x[i : i + 11, j : j + 11], y[i : i + 11, j : j + 11]
            mp, mq = (window * p).sum(), (window * q).sum()
            vp, vq = (window * (p - mp) ** 2).sum(), (window * (q - mq) ** 2).sum()
            cov = (window * (p - mp) * (q - mq)).sum()
            values.append((2 * mp * mq + c1) * (2 * cov + c2) / ((mp**2 + mq**2 + c1) * (vp + vq + c2)))
    return np.mean(values)


def test_ssim_agrees_with_a_direct_evaluation():
    a = picture(1, 19, 23)
    b = noisy(a, 15)
    per_channel = [direct_ssim(a[0, ..., c].astype(float), b[0, ..., c].astype(float)) for c in range(3)]
    assert ssim(a, b) == pytest.approx(np.mean(per_channel), abs=1e-10)
    y, z = a[0] @ [0.299, 0.587, 0.114], b[0] @ [0.299, 0.587, 0.114]
    assert ssim(a, b, channels="luma") == pytest.approx(direct_ssim(y, z), abs=1e-10)


def test_ms_ssim_of_one_scale_is_ssim_and_of_two_is_their_weighted_product():
    a = picture(1, 20, 20)
    b = noisy(a, 10)
    assert ms_ssim(a, b, channels="luma") == pytest.approx(ssim(a, b, channels="luma"), abs=1e-12)
    flat, other = np.full((1, 24, 24, 3), 100, np.uint8), np.full((1, 24, 24, 3), 140, np.uint8)
    c1 = (0.01 * 255) ** 2
    luminance = (2 * 100 * 140 + c1) / (100**2 + 140**2 + c1)  # contrast and structure are 1 at both scales
    assert ms_ssim(flat, other) == pytest.approx(luminance ** (0.2856 / (0.0448 + 0.2856)), abs=1e-9)


def test_ms_ssim_uses_five_scales_from_176_pixels_on():
    flat, other = np.full((1, 176, 176, 3), 50, np.uint8), np.full((1, 176, 176, 3), 90, np.uint8)
    c1 = (0.01 * 255) ** 2
    luminance = (2 * 50 * 90 + c1) / (50**2 + 90**2 + c1)
    # The published weights sum to 1.0001.
    assert ms_ssim(flat, other) == pytest.approx(luminance ** (0.1333 / 1.0001), abs=1e-9)


@pytest.mark.parametrize("metric", [ssim, ms_ssim])
@pytest.mark.parametrize("channels", ["rgb", "luma"])
def test_properties(metric, channels):
    frames = picture(2, 60, 90)
    assert metric(frames, frames, channels=channels) == 1
    slightly, strongly = noisy(frames, 5), noisy(frames, 30)
    assert metric(frames, slightly, channels=channels) == metric(slightly, frames, channels=channels)
    assert 1 > metric(frames, slightly, channels=channels) > metric(frames, strongly, channels=channels) > 0
    assert metric(frames, 255 - frames, channels=channels) < 0.5


def test_every_picks_frames():
    frames = picture(9, 16, 16)
    distorted = frames.copy()
    distorted[1:8] = noisy(frames[1:8], 40)
    assert ssim(frames, distorted, every=8) == 1 > ssim(frames, distorted, every=1)
    one_by_one = [ssim(frames[i : i + 1], distorted[i : i + 1]) for i in range(9)]
    assert ssim(frames, distorted, every=1) == pytest.approx(np.mean(one_by_one), abs=1e-12)


def test_what_cannot_be_compared():
    frames = picture(2, 16, 16)
    for reference, distorted, reason in (
        (frames, frames[:1], "differ"),
        (frames.astype(float), frames, "uint8"),
        (frames[0], frames[0], "uint8"),
        (frames[:0], frames[:0], "uint8"),
    ):
        for metric in (psnr, ssim, ms_ssim):
            with pytest.raises(UsageError, match=reason):
                metric(reference, distorted)
    with pytest.raises(UsageError, match="at least 11x11"):
        ssim(frames[:, :10], frames[:, :10])
    with pytest.raises(UsageError, match="channels"):
        ssim(frames, frames, channels="yuv")
