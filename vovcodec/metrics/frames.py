"""The one rule for what can be compared."""

from __future__ import annotations

import numpy as np

from vovcodec.errors import UsageError

__all__ = ["require_comparable"]


def require_comparable(reference: np.ndarray, distorted: np.ndarray) -> None:
    """Raises UsageError unless both are uint8 [F, H, W, 3] of the same shape with at least one frame."""
    for name, frames in (("reference", reference), ("distorted", distorted)):
        if frames.dtype != np.uint8 or frames.ndim != 4 or frames.shape[-1] != 3 or not frames.size:
            raise UsageError(f"the {name} frames have to be uint8 [F, H, W, 3], not {frames.dtype} {frames.shape}")
    if reference.shape != distorted.shape:
        raise UsageError(f"the clips differ in frames or size: {reference.shape} and {distorted.shape}")
