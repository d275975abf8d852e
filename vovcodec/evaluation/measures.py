"""The metrics by name. PSNR, SSIM and MS-SSIM need nothing; the learned ones need weights and are loaded when asked."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from vovcodec.errors import UsageError
from vovcodec.metrics import ms_ssim, psnr, ssim

__all__ = ["ALWAYS", "MEASURES", "Measure", "load_measures"]

Function = Callable[[np.ndarray, np.ndarray], float]
"""(reference, distorted) uint8 [F, H, W, 3] of the same shape → a value."""


@dataclass(frozen=True)
class Measure:
    """One metric.

    key: in JSON and tables of numbers. title: for people. decimals: worth showing. higher_is_better: says so.
    load: folder with weights (or None) → the function; raises ModelError when something is missing.
    """

    key: str
    title: str
    decimals: int
    higher_is_better: bool
    load: Callable[[Path | None], Function]


def _lpips(network: str) -> Callable[[Path | None], Function]:
    def load(weights: Path | None) -> Function:
        from vovcodec.evaluation.lpips import load_lpips

        return load_lpips(network, weights)

    return load


def _dists(weights: Path | None) -> Function:
    from vovcodec.evaluation.dists import load_dists

    return load_dists(weights)


def _fvd(weights: Path | None) -> Function:
    from vovcodec.evaluation.fvd import load_fvd

    return load_fvd(weights)


MEASURES: dict[str, Measure] = {
    "psnr": Measure("psnr_db", "PSNR", 2, True, lambda _: psnr),
    "ssim": Measure("ssim", "SSIM", 4, True, lambda _: ssim),
    "ms-ssim": Measure("ms_ssim", "MS-SSIM", 4, True, lambda _: ms_ssim),
    "lpips": Measure("lpips_vgg", "LPIPS (VGG)", 4, False, _lpips("vgg")),
    "lpips-alex": Measure("lpips_alex", "LPIPS (Alex)", 4, False, _lpips("alex")),
    "dists": Measure("dists", "DISTS", 4, False, _dists),
    "fvd": Measure("fvd", "FVD", 1, False, _fvd),
}
ALWAYS = ("psnr", "ssim", "ms-ssim")


def load_measures(names: Sequence[str], weights: Path | None = None) -> list[tuple[Measure, Function]]:
    """The measures that are always there and those named, in the order of `MEASURES`, ready to be called.

    Raises UsageError for an unknown name, ModelError for missing weights.
    """
    unknown = [name for name in names if name not in MEASURES]
    if unknown:
        raise UsageError(f"no metric called {unknown[0]!r}; there are {', '.join(MEASURES)}")
    wanted = [name for name in MEASURES if name in ALWAYS or name in names]
    return [(MEASURES[name], MEASURES[name].load(weights)) for name in wanted]
