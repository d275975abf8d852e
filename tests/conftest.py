"""What holds for every test: no network, reproducible property tests; and the tiny model that several share."""

from __future__ import annotations

import os
from pathlib import Path

import hypothesis
import pytest

# Before any library reads them.
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["TRANSFORMERS_OFFLINE"] = "1"
# The models here are too small for threads, and as many tests as there are cores run at once (make test).
os.environ["OMP_NUM_THREADS"] = "1"

# Shared machines make single examples slow now and then; a deadline would only make the suite flaky.
hypothesis.settings.register_profile("suite", deadline=None, derandomize=True)
hypothesis.settings.load_profile("suite")


TINY_PRESET = """
description: a tiny random model of the real classes
backbone: {{id: pocket, path: "{path}"}}
geometry: {{short_side: 48, multiple: 16, segment_frames: 9, scene_frames: 9}}
adaptation: {{vector_length: 0}}
steering: {{method: atoms, snr_start: 0.01, snr_ratio: 4.0, bytes: 300}}
fitting: {{stage1: {{steps: 0}}, stage2: {{steps: 0, warmup_steps: 0}}}}
rate: {{bytes: 200, still_bytes: 200}}
efforts:
  fast: {{}}
"""


@pytest.fixture(scope="session")
def tiny_shelf(tmp_path_factory) -> Path:
    """A folder with a tiny model and `tiny.yaml`, a preset that names it and only steers."""
    from tiny_models import save_tiny_pocket

    folder = tmp_path_factory.mktemp("shelf")
    save_tiny_pocket(folder / "pocket")
    (folder / "tiny.yaml").write_text(TINY_PRESET.format(path=folder / "pocket"))
    return folder


@pytest.fixture
def tiny_preset(tiny_shelf, tmp_path, monkeypatch) -> Path:
    """The preset; decoders, in this process and its children, find its model."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    monkeypatch.setenv("VOVCODEC_MODELS", str(tiny_shelf))
    return tiny_shelf / "tiny.yaml"


@pytest.fixture
def calls(monkeypatch) -> list[int]:
    """One entry for every evaluation of the transformer: the latent frames it was for."""
    from vovcodec.backbone.pocket.transformer import WanTransformer

    made, forward = [], WanTransformer.forward

    def counted(self, *inputs):
        made.append(inputs[0].shape[2])
        return forward(self, *inputs)

    monkeypatch.setattr(WanTransformer, "forward", counted)
    return made
