"""The base models: which of them this machine has, what they need, loading a preset's, and sharing one between jobs."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from vovcodec.errors import ModelError
from vovcodec.presets import Preset
from vovcodec.progress import ProgressListener

if TYPE_CHECKING:
    from vovcodec.backbone.protocol import Backbone

__all__ = [
    "BackboneCache",
    "announce_needs",
    "cache_folders",
    "captioner_status",
    "embedded_weights_bytes",
    "load_preset_backbone",
    "model_report",
    "model_status",
    "require_model",
]


class BackboneCache:
    """Keeps the backbone that was loaded last, for jobs that follow one another."""

    def __init__(self) -> None:
        self._settings, self._backbone = None, None

    def load(self, backbone_id: str, **settings) -> Backbone:
        """As `registry.load_backbone`; the one at hand if it was loaded with the same settings."""
        from vovcodec.backbone.registry import load_backbone

        if self._settings != (backbone_id, settings):
            self._settings = self._backbone = None  # its memory is free before the next one takes as much
            self._backbone = load_backbone(backbone_id, **settings)
            self._settings = (backbone_id, settings)
        return self._backbone


def require_model(backbone_id: str, path: str | Path | None = None, revision: str | None = None) -> str:
    """Where the weights of a base model are, once they are known to be complete on this machine.

    Looks at file names only; neither torch nor the network is used. Raises ModelError, saying what is missing.
    """
    from vovcodec.backbone.catalog import CATALOG
    from vovcodec.backbone.locate import embedded_folder, locate_model

    if backbone_id == "pocket":
        folder = embedded_folder(path)
        if folder is None:
            if not (size_bytes := embedded_weights_bytes()):
                raise ModelError("the embedded weights are missing: install the package anew")
            return f"embedded, {size_bytes / 1e6:.1f} MB"
        if not folder.is_dir():
            raise ModelError(f"no folder {folder}")
        return str(folder)
    if backbone_id not in CATALOG:
        raise ModelError(f"unknown backbone {backbone_id}")
    return str(locate_model(CATALOG[backbone_id], path=path, revision=revision).path)


def model_status(backbone_id: str, path: str | Path | None = None, revision: str | None = None) -> tuple[bool, str]:
    """As `require_model`, for lists: whether it is there, and where or what is missing, in one line."""
    try:
        return True, require_model(backbone_id, path, revision)
    except ModelError as error:
        return False, str(error)


def embedded_weights_bytes() -> int:
    """Size of the weights shipped inside the package in bytes; 0 when there are none."""
    from vovcodec.backbone.geometry import POCKET_WEIGHTS

    return sum(path.stat().st_size for path in POCKET_WEIGHTS.rglob("*.safetensors"))


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


def captioner_status() -> str:
    """The folder of the model that `--caption auto` would use, or what to do to have one, in one line."""
    from vovcodec.backbone.captioner import find_captioner

    try:
        return str(find_captioner())
    except ModelError as error:
        return str(error)


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


def load_preset_backbone(preset: Preset, device: str, backbones: BackboneCache | None = None) -> Backbone:
    """The base model of a preset on `device`; `backbones` may have it already. Raises ModelError."""
    from vovcodec.backbone.loading import LoadOptions

    chosen = preset.backbone
    return (backbones or BackboneCache()).load(
        chosen.id,
        path=chosen.path,
        revision=chosen.revision,
        device=device,
        precision=chosen.precision,
        options=LoadOptions(compiled=chosen.compile, checkpointing=chosen.checkpointing),
    )


def announce_needs(
    backbone_id: str,
    precision: str,
    devices: Sequence[str],
    listener: ProgressListener,
    *,
    fits: bool = False,
    remedies: Sequence[str] = (),
    **size: int,
) -> None:
    """Says, before anything big is loaded, what a job needs and what is free, and warns where that is too little.

    The embedded model needs too little to speak of.

    Args:
        fits: whether the job fits a vector. remedies: what helps where memory is short, beside another precision.
        size: of a segment, as `memory_needed` takes it.
    """
    from vovcodec.backbone.catalog import model_facts
    from vovcodec.backbone.memory import free_memory_bytes, memory_line, memory_needed, precision_remedies

    facts = model_facts(backbone_id)
    if facts is None:
        return
    need = memory_needed(facts, precision, **size)
    needed = need.to_encode() if fits else need.to_decode()
    for device in dict.fromkeys(devices):
        listener.note(memory_line(facts, precision, device, **size))
        free = free_memory_bytes(device)
        if free is not None and free < needed:
            advice = ", or ".join([*precision_remedies(precision), *remedies])
            listener.warn(f"this will probably not fit on {device}: {advice}")
