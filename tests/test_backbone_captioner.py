"""The captioner, on a tiny random LLaVA with its real processor."""

from __future__ import annotations

import numpy as np
import pytest
from tiny_models import save_tiny_captioner

from vovcodec.backbone.captioner import CAPTIONER_VARIABLE, CAPTIONERS, caption_frames, find_captioner, sampled_frames
from vovcodec.errors import ModelError


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return save_tiny_captioner(tmp_path_factory.mktemp("captioner"))


@pytest.fixture(autouse=True)
def empty_hub_cache(tmp_path, monkeypatch):
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.delenv(CAPTIONER_VARIABLE, raising=False)


@pytest.mark.parametrize("n_frames", [1, 9])
def test_a_local_model_describes_the_frames(folder, monkeypatch, n_frames):
    from transformers import LlavaForConditionalGeneration

    seen = []
    original = LlavaForConditionalGeneration.generate

    def generate(self, **inputs):
        seen.append(inputs)
        return original(self, **inputs)

    monkeypatch.setattr(LlavaForConditionalGeneration, "generate", generate)
    frames = np.random.default_rng(0).integers(0, 256, (n_frames, 40, 600, 3), dtype=np.uint8)
    caption = caption_frames(frames, model=folder, device="cpu")
    assert isinstance(caption, str) and caption == " ".join(caption.split())
    assert len(seen[0]["pixel_values"]) == min(4, n_frames)
    assert caption == caption_frames(frames, model=folder, device="cpu"), "greedy: the same every time"


def test_frames_come_from_the_middle_of_equal_parts():
    frames = np.arange(81)[:, None, None, None] * np.ones((1, 2, 2, 3))
    assert [int(f[0, 0, 0]) for f in sampled_frames(frames)] == [10, 30, 50, 70]
    assert len(sampled_frames(frames[:1])) == 1 and len(sampled_frames(frames[:3])) == 3


def test_where_a_captioner_is_looked_for(folder, tmp_path, monkeypatch):
    with pytest.raises(ModelError, match=f"hf download {CAPTIONERS[0]}"):
        caption_frames(np.zeros((1, 32, 32, 3), np.uint8))
    with pytest.raises(ModelError, match="no captioner some/where"):
        find_captioner("some/where")
    repository = tmp_path / "hub" / f"models--{CAPTIONERS[3].replace('/', '--')}"
    (repository / "refs").mkdir(parents=True)
    (repository / "refs" / "main").write_text("0" * 40)
    (repository / "snapshots" / ("0" * 40)).mkdir(parents=True)
    assert find_captioner() == repository / "snapshots" / ("0" * 40)
    with pytest.raises(ModelError, match="cannot load the captioner"):
        caption_frames(np.zeros((1, 32, 32, 3), np.uint8), device="cpu")
    monkeypatch.setenv(CAPTIONER_VARIABLE, str(folder))
    assert find_captioner() == folder
