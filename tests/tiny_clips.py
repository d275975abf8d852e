"""Small synthetic clips, and a listener that keeps what a user would read."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import numpy as np

from vovcodec.media import open_writer
from vovcodec.progress import SilentListener

__all__ = ["HEIGHT", "N_FRAMES", "WIDTH", "Notes", "picture", "write_clip"]

WIDTH, HEIGHT, N_FRAMES = 48, 32, 12


class Notes(SilentListener):
    """Keeps what the user would read."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def note(self, message: str) -> None:
        self.lines.append(message)

    def warn(self, message: str) -> None:
        self.lines.append(f"warning: {message}")


def picture(n_frames: int = N_FRAMES, width: int = WIDTH, height: int = HEIGHT, phase: float = 0.0) -> np.ndarray:
    """Moving smooth waves, uint8 [F, H, W, 3]."""
    t, y, x = np.meshgrid(np.arange(n_frames), np.arange(height), np.arange(width), indexing="ij")
    channels = [np.sin(0.17 * x + 0.3 * t + phase + c) + np.cos(0.23 * y - 0.2 * t + 2 * c + phase) for c in range(3)]
    return (127.5 + 60 * np.stack(channels, axis=-1)).clip(0, 255).astype(np.uint8)


def write_clip(path: Path, frames: np.ndarray, rate: int = 25) -> Path:
    writer = open_writer(path, width=frames.shape[2], height=frames.shape[1], frame_rate=Fraction(rate))
    for frame in frames:
        writer.write(frame)
    writer.close()
    return path
