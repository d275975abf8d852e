"""Finds a base model on this machine: a folder that was named, the user's model folder, or the hub's cache.

Nothing is ever downloaded.
"""

from __future__ import annotations

import json
import os
import re
from dataclasses import dataclass
from pathlib import Path

from vovcodec.backbone.catalog import ModelFacts
from vovcodec.backbone.memory import memory_needed
from vovcodec.errors import ModelError

__all__ = [
    "MODELS_VARIABLE",
    "ModelFolder",
    "embedded_folder",
    "is_cached_revision",
    "locate_model",
    "weight_files",
]

MODELS_VARIABLE = "VOVCODEC_MODELS"
_FILE_NAME = re.compile(r"\w[\w.-]*")
_COMMIT = re.compile(r"[0-9a-f]{7,64}")
# What a download has to hold to be complete; repositories have pictures and other formats beside it.
_WANTED_FILES = ["model_index.json", "*/*.json", "*/*.safetensors", "tokenizer/*"]
_WEIGHT_NAMES = ("diffusion_pytorch_model.safetensors", "model.safetensors")


@dataclass(frozen=True)
class ModelFolder:
    """A complete model in diffusers' layout. revision: the hub's commit, "" where it is not known.
    index: content of model_index.json. components: those of `ModelFacts.components` that it has."""

    path: Path
    revision: str
    index: dict
    components: tuple[str, ...]


def locate_model(facts: ModelFacts, *, path: Path | str | None = None, revision: str | None = None) -> ModelFolder:
    """The folder of a model, checked to be complete.

    Looked for in this order: `path`; the folders named like the id or like the repository inside $VOVCODEC_MODELS;
    the hub's cache at `revision` (default: main).

    Raises ModelError, saying what to download and where to put it.
    """
    if path is not None:
        folder = Path(path).expanduser()
        if not folder.is_dir():
            raise ModelError(f"no folder {folder}: backbone.path has to name a model folder. {_how_to_get(facts)}")
        return _checked(folder, facts)
    candidates = []
    if shelf := os.environ.get(MODELS_VARIABLE):
        candidates = [Path(shelf).expanduser() / name for name in (facts.id, facts.repository.split("/")[-1])]
    folder = next((c for c in candidates if c.is_dir()), None) or _cached(facts, revision)
    if folder is None:
        wanted = f" at revision {revision}" if revision else ""
        raise ModelError(f"the weights of {facts.id}{wanted} are not on this machine. {_how_to_get(facts)}")
    return _checked(folder, facts)


def embedded_folder(path: Path | str | None = None) -> Path | None:
    """The folder of another `pocket` model than the one in the package: `path`, else $VOVCODEC_MODELS/pocket where that
    is a folder, else None."""
    if path is not None:
        return Path(path).expanduser()
    shelf = os.environ.get(MODELS_VARIABLE)
    folder = Path(shelf).expanduser() / "pocket" if shelf else None
    return folder if folder is not None and folder.is_dir() else None


def is_cached_revision(facts: ModelFacts, revision: str) -> bool:
    """Whether the hub's cache holds this commit of a model; False for what is no commit."""
    return bool(_COMMIT.fullmatch(revision)) and _cached(facts, revision) is not None


def weight_files(folder: Path) -> list[Path]:
    """The safetensors files of a component, sorted: the shards its index names, or its one file.

    Other files that lie around (half-precision variants, say) are not part of the model.
    Raises ModelError when there are none or a shard is missing.
    """
    for name in _WEIGHT_NAMES:
        index = folder / f"{name}.index.json"
        if index.is_file():
            try:
                shards = sorted(set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()))
                if not shards or not all(map(_FILE_NAME.fullmatch, shards)):
                    raise ValueError("weight_map names no files of this folder")
            except (ValueError, KeyError, AttributeError, TypeError) as error:
                raise ModelError(f"{index} is damaged; download it again") from error
            missing = [shard for shard in shards if not (folder / shard).is_file()]
            if missing:
                raise ModelError(f"{folder} lacks {', '.join(missing)}; complete the download")
            return [folder / shard for shard in shards]
        if (folder / name).is_file():
            return [folder / name]
    raise ModelError(f"{folder} holds no safetensors weights; the model folder is incomplete")


def _cached(facts: ModelFacts, revision: str | None) -> Path | None:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import LocalEntryNotFoundError

    try:
        found = snapshot_download(
            facts.repository, revision=revision, local_files_only=True, allow_patterns=_WANTED_FILES
        )
    except LocalEntryNotFoundError:
        return None
    except (OSError, ValueError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ModelError(f"cannot look for {facts.repository} in the hub's cache: {reason}") from error
    return Path(found)


def _checked(folder: Path, facts: ModelFacts) -> ModelFolder:
    try:
        index = json.loads((folder / "model_index.json").read_text(encoding="utf-8"))
        pipeline = index.get("_class_name")
    except OSError:
        raise ModelError(f"{folder} has no model_index.json, so it is no model folder. {_how_to_get(facts)}") from None
    except (ValueError, AttributeError) as error:
        raise ModelError(f"{folder / 'model_index.json'} is damaged; download it again") from error
    if pipeline != facts.pipeline:
        raise ModelError(f"{folder} holds a {pipeline}, but {facts.id} is a {facts.pipeline}; name another folder")
    resolved = folder.resolve()
    in_cache = resolved.parent.name == "snapshots" and _COMMIT.fullmatch(resolved.name)
    components = tuple(name for name in facts.components if (index.get(name) or [None])[0])
    for component in components:
        if not (folder / component / "config.json").is_file():
            raise ModelError(f"{folder} lacks {component}/config.json; complete the download. {_how_to_get(facts)}")
        weight_files(folder / component)
    if not any((folder / "tokenizer").glob("*.json")):
        raise ModelError(f"{folder} lacks its tokenizer folder; complete the download. {_how_to_get(facts)}")
    return ModelFolder(folder, resolved.name if in_cache else "", index, components)


def _how_to_get(facts: ModelFacts) -> str:
    size_gb = facts.download_bytes / 1e9
    memory_gib = memory_needed(facts, "bfloat16").to_decode() / 2**30
    return (
        f"Get it with `hf download {facts.repository}` ({facts.licence}, about {size_gb:.0f} GB of disk; in bfloat16 "
        f"it needs about {memory_gib:.0f} GiB of device memory), or put that folder at "
        f"${MODELS_VARIABLE}/{facts.id}, or name it with --model (backbone.path in a preset)"
    )
