"""Finds and loads a backbone by its id."""

from __future__ import annotations

import gc
import importlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from vovcodec.backbone.catalog import CATALOG
from vovcodec.backbone.geometry import known_geometry
from vovcodec.errors import ModelError

if TYPE_CHECKING:
    from vovcodec.backbone.loading import LoadOptions

__all__ = ["BACKBONES", "CLASSES", "load_backbone", "pick_device"]

BACKBONES = ("pocket", *CATALOG)
# By `ModelFacts.backbone`: module and class, imported when such a model is loaded, as they need torch and diffusers.
# Called with (facts, folder, device, precision, options).
CLASSES = {
    "wan": ("vovcodec.backbone.wan", "WanBackbone"),
    "qwen-image": ("vovcodec.backbone.qwen_image", "QwenImageBackbone"),
}


def pick_device(name: str) -> str:
    """ "auto" → the first CUDA device, else the CPU; anything else is checked and returned."""
    import torch

    if name == "auto":
        return "cuda:0" if torch.cuda.is_available() else "cpu"
    if name.startswith("cuda") and not torch.cuda.is_available():
        raise ModelError(f"device {name!r} was asked for but this PyTorch sees no CUDA device; use --device cpu")
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise ModelError(f"unknown device {name!r}; use auto, cpu or cuda:0") from error
    if device.type not in ("cpu", "cuda"):
        raise ModelError(f"device {name!r} is none that models run on here; use auto, cpu or cuda:0")
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise ModelError(f"there is no {name}: this machine has {torch.cuda.device_count()} CUDA device(s)")
    return str(device)


def load_backbone(
    backbone_id: str,
    *,
    path: Path | str | None = None,
    revision: str | None = None,
    device: str = "auto",
    precision: str = "float32",
    options: LoadOptions | None = None,
):
    """The backbone `backbone_id` on `device`.

    Args:
        backbone_id: one of `BACKBONES`, or the hub repository of one of them.
        path: its folder; without it `locate.locate_model` looks for it. Any folder of the right classes will do, a
            fine-tuned one too: the fingerprint tells files made with it apart.
        revision: commit, tag or branch in the hub's cache.
        precision: "float32", "bfloat16" or, of a big model, "int8-weights" (see int8.py).
        options: how a big model is loaded; see `loading.LoadOptions`.

    Raises ModelError when the id is unknown, its weights are missing or damaged, or memory runs out.
    """
    with _collection_paused():
        return _load(backbone_id, path, revision, device, precision, options)


@contextmanager
def _collection_paused() -> Iterator[None]:
    """Importing the libraries of the big models makes a million objects that stay: the garbage collector would visit
    them again and again, which takes it a second."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


def _load(
    backbone_id: str,
    path: Path | str | None,
    revision: str | None,
    device: str,
    precision: str,
    options: LoadOptions | None,
):
    if backbone_id == "pocket":
        from vovcodec.backbone.locate import embedded_folder
        from vovcodec.backbone.pocket.backbone import PocketBackbone

        return PocketBackbone(embedded_folder(path), pick_device(device), precision)
    by_repository = {facts.repository: facts for facts in CATALOG.values()}
    facts = CATALOG.get(backbone_id) or by_repository.get(backbone_id)
    if facts is None:
        raise ModelError(f"no backbone called {backbone_id!r} in this version; it knows {', '.join(BACKBONES)}")
    from vovcodec.backbone.loading import LoadOptions
    from vovcodec.backbone.locate import locate_model

    options = options or LoadOptions()
    folder = locate_model(facts, path=path, revision=revision)
    module, name = CLASSES[facts.backbone]
    make = getattr(importlib.import_module(module), name)
    backbone = make(facts, folder, pick_device(device), precision, options)
    # Files are checked and shortened by the catalogue's geometry alone, without the model.
    if backbone.geometry != known_geometry(facts.id, backbone.fingerprint):
        raise ModelError(f"{folder.path} maps frames to latents in another way than {facts.id}; name another folder")
    return backbone
