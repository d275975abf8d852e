"""The base models of presets: which of them this machine has, what they need, and loading one."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from vovcodec.errors import ModelError
from vovcodec.presets import Preset
from vovcodec.progress import ProgressListener

if TYPE_CHECKING:
    from vovcodec.backbone.protocol import Backbone

__all__ = ["announce_needs", "cache_folders", "load_preset_backbone", "model_report", "model_status"]


def model_status(backbone_id: str, path: str | Path | None = None, revision: str | None = None) -> tuple[bool, str]:
    """Whether a hub model's weights are complete on this machine, and where they are or what is missing, in one line.

    Looks at file names only; neither torch nor the network is used.
    """
    from vovcodec.backbone.catalog import CATALOG
    from vovcodec.backbone.locate import locate_model

    if backbone_id not in CATALOG:
        return False, f"unknown backbone {backbone_id}"
    try:
        folder = locate_model(CATALOG[backbone_id], path=path, revision=revision)
    except ModelError as error:
        return False, str(error)
    return True, str(folder.path)


def model_report(device: str) -> dict[str, tuple[str, str]]:
    """Of every hub model: whether and where its weights are, and what would run on `device` with what is free there.

    Sizes are those of the usual clip or picture, 81 frames of 832x480 for Wan. Raises nothing.
    """
    from vovcodec.backbone.catalog import CATALOG
    from vovcodec.backbone.memory import what_fits

    report = {}
    for name, facts in CATALOG.items():
        is_here, place = model_status(name)
        report[name] = (place if is_here else f"not here; hf download {facts.repository}", what_fits(facts, device))
    return report


def cache_folders() -> dict[str, Path]:
    """Folders this package and the hub's client keep things in between runs."""
    from huggingface_hub import constants

    from vovcodec.backbone.fingerprint import cache_root
    from vovcodec.fitting.checkpoint import default_state_root

    return {
        "hub": Path(constants.HF_HUB_CACHE),
        "captions": cache_root() / "captions",
        "unfinished encodes": default_state_root(),
    }


def load_preset_backbone(preset: Preset, device: str) -> Backbone:
    """The base model of a preset on `device`. Raises ModelError."""
    from vovcodec.backbone.loading import LoadOptions
    from vovcodec.backbone.registry import load_backbone

    chosen = preset.backbone
    return load_backbone(
        chosen.id,
        path=chosen.path,
        revision=chosen.revision,
        device=device,
        precision=chosen.precision,
        options=LoadOptions(compiled=chosen.compile),
    )


def announce_needs(
    preset: Preset, devices: list[str], listener: ProgressListener, *, n_frames: int, width: int, height: int
) -> None:
    """Says, before anything big is loaded, what an encode needs and what is free, and warns where that is too little.

    n_frames, width, height: of a segment. The embedded model needs too little to speak of.
    """
    from vovcodec.backbone.catalog import model_facts
    from vovcodec.backbone.memory import free_memory_bytes, memory_line, memory_needed, precision_remedies

    facts, precision = model_facts(preset.backbone.id), preset.backbone.precision
    compiles = facts is not None and all(device.startswith("cuda") for device in devices)
    if preset.backbone.compile and not compiles:
        listener.note("--compile acts on the big models on CUDA only: not used")
    if facts is None:
        return
    size = {"n_frames": n_frames, "width": width, "height": height}
    need = memory_needed(facts, precision, **size)
    needed = need.to_encode() if preset.adaptation.vector_length else need.to_decode()
    for device in dict.fromkeys(devices):
        listener.note(memory_line(facts, precision, device, **size))
        free = free_memory_bytes(device)
        if free is not None and free < needed:
            remedies = [*precision_remedies(precision), "use a smaller --size", "use shorter segments"]
            listener.warn(f"this will probably not fit on {device}: {', or '.join(remedies)}")
