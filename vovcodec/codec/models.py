"""Which base models this machine has and what they need, for `vov presets` and `vov doctor`."""

from __future__ import annotations

from pathlib import Path

from vovcodec.errors import ModelError

__all__ = ["memory_notice", "memory_report", "model_status"]


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
