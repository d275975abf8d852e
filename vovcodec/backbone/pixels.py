"""From the range that networks compute in to pixels."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

__all__ = ["to_uint8"]


def to_uint8(pixels: Tensor) -> np.ndarray:
    """Values of about [−1, 1], of any shape → the nearest of 0..255, uint8 of that shape, on the CPU."""
    return ((pixels + 1.0) * 127.5).round_().clamp_(0, 255).to(torch.uint8).cpu().numpy()
