"""Running the `vov` command as a user does, and comparing frames."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from vovcodec.errors import VovError
from vovcodec.media import open_frames, resize_frames
from vovcodec.metrics import psnr, ssim

__all__ = ["CommandFailed", "compare", "read_frames", "run_vov"]


class CommandFailed(VovError):
    """A `vov` command ended with an error; it has said why on standard error."""

    def __init__(self, arguments: Sequence[str], code: int) -> None:
        super().__init__(f"vov {' '.join(arguments)}: exit code {code}")
        self.exit_code = code


def run_vov(*arguments: str) -> dict[str, Any]:
    """Runs `vov ARGUMENTS --json` in a process of its own and returns its report.

    `wall_s` is added: seconds from start to end, interpreter and imports included. Progress goes to our standard error.
    """
    start_s = time.perf_counter()
    command = [sys.executable, "-m", "vovcodec", *arguments, "--json"]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False)
    if done.returncode:
        raise CommandFailed(arguments, done.returncode)
    return json.loads(done.stdout) | {"wall_s": time.perf_counter() - start_s}


def read_frames(source: str | Path, n_frames: int | None = None) -> np.ndarray:
    """The first frames of a video, image or sequence: uint8 [F, H, W, 3]."""
    with open_frames(source, n_frames=n_frames) as reader:
        return np.stack(list(reader))


def compare(reference: np.ndarray, distorted: np.ndarray) -> tuple[float, float]:
    """(PSNR in dB, SSIM) at the size of `distorted`; the reference is resized to it. Frames uint8 [F, H, W, 3]."""
    height, width = distorted.shape[1:3]
    if reference.shape[1:3] != (height, width):
        reference = np.stack([resize_frames(frame, width, height) for frame in reference])
    return psnr(reference, distorted), ssim(reference, distorted)
