"""Which base models this machine has and what they need, for `vov presets` and `vov doctor`."""

from __future__ import annotations

from pathlib import Path

from vovcodec.errors import ModelError

__all__ = ["memory_report", "model_status"]


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


def memory_report(device: str, precision: str = "bfloat16") -> dict[str, str]:
    """What every hub model needs on `device` and what is free there, one line per model at its usual size."""
    from vovcodec.backbone.catalog import CATALOG
    from vovcodec.backbone.memory import memory_line

    return {name: memory_line(facts, precision, device) for name, facts in CATALOG.items()}
