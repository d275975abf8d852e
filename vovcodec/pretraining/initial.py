"""A run that goes on from a finished model folder: `vov pretrain --init FOLDER`.

The folder is copied into the run, which thereby stays what it is when that model changes. The stages shown, pictures
and clips continue its networks, with new optimisers, and so does captions where it is asked for. The stage transformer,
if asked for, begins a chain of its own with the folder's transformer and text encoder, which all other stages follow.
"""

from __future__ import annotations

import shutil
from pathlib import Path

from torch import nn

from vovcodec.backbone.fingerprint import fingerprint_folder
from vovcodec.backbone.geometry import POCKET_COMPONENTS, POCKET_WEIGHTS
from vovcodec.backbone.pocket.detail import CompletedTransformer, DetailNetwork
from vovcodec.backbone.pocket.text_encoder import TextEncoder
from vovcodec.backbone.pocket.transformer import WanTransformer
from vovcodec.errors import ModelError, UsageError

__all__ = ["SHIPPED", "initial_model", "initial_networks", "keep_initial"]

SHIPPED = "pocket"  # instead of a folder: the package's own model
_CARD, _INDEX = "README.md", "model_index.json"


def keep_initial(source: str, run_dir: Path) -> None:
    """Copies the model that a run starts from to `run_dir/init`; nothing if it is there already.

    Raises UsageError for a folder without a whole model, and when the run started from another one, or from nothing.
    """
    folder, kept = POCKET_WEIGHTS if source == SHIPPED else Path(source), run_dir / "init"
    try:
        for name in (_CARD, _INDEX):
            if not (folder / name).is_file():
                raise ModelError(f"it has no {name}")
        wanted = fingerprint_folder(folder, POCKET_COMPONENTS)
    except ModelError as error:
        raise UsageError(f"--init {source} is no model folder of vov pretrain: {error}") from error
    if kept.is_dir():
        if fingerprint_folder(kept, POCKET_COMPONENTS) != wanted:
            raise UsageError(f"{run_dir} started from another model than --init {source}; choose another --run")
        return
    if (run_dir / "basis").exists():
        raise UsageError(f"{run_dir} holds a run that started from nothing; --init needs a --run of its own")
    temporary = run_dir / "init.tmp"
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir(parents=True)
    for name in POCKET_COMPONENTS:
        shutil.copytree(folder / name, temporary / name)
    for name in (_CARD, _INDEX):
        shutil.copy(folder / name, temporary / name)
    temporary.rename(kept)


def initial_model(run_dir: Path) -> Path | None:
    """The folder that the run's networks continue; None where a transformer was trained in the run itself."""
    kept = run_dir / "init"
    return kept if kept.is_dir() and not (run_dir / "transformer.pt").exists() else None


def initial_networks(folder: Path) -> tuple[tuple[CompletedTransformer, nn.Module], list[int]]:
    """Completed transformer and text encoder in float32, and the fingerprint as one number, where other runs have the
    steps of their stages."""
    transformer = WanTransformer.from_pretrained(folder / "transformer")
    detail = DetailNetwork.from_pretrained(folder / "detail")
    text = TextEncoder.from_pretrained(folder / "text_encoder")
    start = int.from_bytes(fingerprint_folder(folder, POCKET_COMPONENTS))
    return (CompletedTransformer(transformer, detail), text), [start]
