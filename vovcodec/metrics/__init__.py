"""Full-reference quality of uint8 RGB frames [F, H, W, 3], on numpy float64: PSNR, SSIM, MS-SSIM."""

from __future__ import annotations

from vovcodec.metrics.psnr import decibels, psnr, psnr_per_frame
from vovcodec.metrics.ssim import SSIM_EVERY, ms_ssim, ssim

__all__ = ["SSIM_EVERY", "decibels", "ms_ssim", "psnr", "psnr_per_frame", "ssim"]
