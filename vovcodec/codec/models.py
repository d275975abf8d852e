"""Which base models this machine has and what they need, and the one that several jobs share."""

from __future__ import annotations

from pathlib import Path

from vovcodec.errors import ModelError

__all__ = ["BackboneCache", "memory_notice", "memory_report", "model_status"]


class BackboneCache:
    """Keeps the backbone that was loaded last, for jobs that follow one another."""

    def __init__(self) -> None:
        self._settings, self._backbone = None, None

    def load(self, backbone_id: str, **settings):
        """As `registry.load_backbone`; the one at hand if it was loaded with the same settings."""
        from vovcodec.backbone.registry import load_backbone

        if self._settings != (backbone_id, settings):
            self._settings = self._backbone = None  # its memory is free before the next one takes as much
            self._backbone = load_backbone(backbone_id, **settings)
            self._settings = (backbone_id, settings)
        return self._backbone


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


def memory_notice(backbone_id: str, precision: str, device: str, **size: int) -> str | None:
    """What a hub model needs for segments of `size` (as in `memory_needed`) and what is free, to be said before it is
    loaded; None for the embedded one."""
    from vovcodec.backbone.catalog import CATALOG
    from vovcodec.backbone.memory import memory_line

    facts = CATALOG.get(backbone_id)
    return memory_line(facts, precision, device, **size) if facts else None


def memory_report(device: str, precision: str = "bfloat16") -> dict[str, str]:
    """What every hub model needs on `device` and what is free there, one line per model at its usual size.

    Loads torch, to see what devices there are.
    """
    from vovcodec.backbone.catalog import CATALOG
    from vovcodec.backbone.memory import memory_line
    from vovcodec.backbone.registry import pick_device

    device = pick_device(device)
    return {name: memory_line(facts, precision, device) for name, facts in CATALOG.items()}
