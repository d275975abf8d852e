"""Presets: plain YAML data that says how a clip is encoded.

Precedence, applied in `resolve` and nowhere else:  defaults (preset_groups.py) < preset file < its effort < flags.
"""

from __future__ import annotations

import difflib
import hashlib
import json
import math
import re
from collections.abc import Mapping
from dataclasses import Field, fields
from pathlib import Path
from typing import Any, TypeVar

import yaml

from vovcodec.errors import UsageError
from vovcodec.preset_groups import (
    Adaptation,
    Backbone,
    Fitting,
    Geometry,
    Preset,
    Rate,
    Sampler,
    Stage1,
    Stage2,
    Steering,
)

__all__ = ["Preset", "PresetError", "list_presets", "load_preset", "preset_digest", "preset_path", "resolve"]

_MAX_FILE_BYTES = 65536
_PACKAGE = Path(__file__).resolve().parent


class PresetError(UsageError):
    """A preset or an override is wrong. `problems` lists everything that is, one line each."""

    def __init__(self, origin: str, problems: list[str]) -> None:
        self.problems = problems
        listed = "".join(f"\n  {problem}" for problem in problems)
        super().__init__(f"{origin}: {problems[0] if len(problems) == 1 else f'{len(problems)} problems{listed}'}")


_GROUPS: dict[str, type] = {
    "backbone": Backbone,
    "geometry": Geometry,
    "adaptation": Adaptation,
    "sampler": Sampler,
    "steering": Steering,
    "fitting": Fitting,
    "rate": Rate,
}
# Targets of which at most one can hold: a layer that gives one takes the others of the layers below away.
_RATE_TARGETS = ("bytes", "bpp", "lambda")


_NESTED: dict[str, type] = {"Stage1": Stage1, "Stage2": Stage2}
_TYPES = {
    "int": (int, "a whole number"),
    "float": ((int, float), "a number"),
    "str": (str, "text"),
    "bool": (bool, "true or false"),
    "list": (list, "a list"),
}
_T = TypeVar("_T")


def load_preset(name_or_path: str | Path) -> Preset:
    """Reads a preset: the name of a shipped one (see `list_presets`) or the path of a YAML file.

    Raises UsageError when it is not found and PresetError, with every problem listed, when it is not valid.
    """
    path = preset_path(name_or_path)
    try:
        with path.open("rb") as stream:
            content = stream.read(_MAX_FILE_BYTES + 1)
    except OSError as error:
        raise UsageError(f"cannot read preset {path}: {error.strerror}") from error
    if len(content) > _MAX_FILE_BYTES:
        raise UsageError(f"preset {path} is larger than {_MAX_FILE_BYTES} bytes")
    try:
        data = yaml.load(content, Loader=_StrictLoader)
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise PresetError(str(path), [" ".join(str(error).split())]) from error
    return _preset_from(path.stem, data, str(path))


def preset_path(name_or_path: str | Path) -> Path:
    """Where a preset lies: the path given, or that of a shipped one by name. Raises UsageError for an unknown name."""
    if isinstance(name_or_path, Path) or name_or_path.endswith((".yaml", ".yml")):
        return Path(name_or_path)
    names = list_presets()
    if name_or_path not in names:
        raise UsageError(
            f"no preset named {name_or_path!r}{_did_you_mean(name_or_path, names)}; "
            f"shipped: {', '.join(names)}; a file of your own ends in .yaml"
        )
    return _preset_folder() / f"{name_or_path}.yaml"


def list_presets() -> list[str]:
    """Names of the presets this installation ships, sorted."""
    return sorted(path.stem for path in _preset_folder().glob("*.yaml"))


def resolve(preset: Preset, overrides: Mapping[str, Mapping[str, Any]], effort: str | None = None) -> Preset:
    """The settings in force: the preset, its effort, then `overrides` (same shape as the file; later wins).

    Returns a Preset without efforts. Raises UsageError for an effort the preset does not have, PresetError for
    overrides that are not valid.
    """
    data = _to_data(preset)
    data.pop("efforts", None)
    if effort is not None:
        if effort not in preset.efforts:
            known = list(preset.efforts)
            raise UsageError(
                f"preset {preset.name} has no effort {effort!r}{_did_you_mean(effort, known)}; "
                f"it has {', '.join(known) or 'none'}"
            )
        data = _merge(data, _without_description(preset.efforts[effort]))
    problems: list[str] = []
    _check_groups(overrides, "", problems)
    if problems:
        raise PresetError("overrides", problems)
    return _preset_from(preset.name, _merge(data, overrides), f"preset {preset.name}")


def preset_digest(preset: Preset) -> bytes:
    """Two bytes that name the settings: SHA-256 of their canonical JSON, truncated.

    Name, description, efforts, and how the model is found and run are left out: they do not change the result. So is
    what size was asked for, which the file tells by itself.
    """
    data = {key: dict(value) for key, value in _to_data(preset).items() if key in _GROUPS and key != "rate"}
    for key in ("path", "compile", "checkpointing"):
        data["backbone"].pop(key)
    text = json.dumps(data, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).digest()[:2]


class _StrictLoader(yaml.SafeLoader):
    """Safe YAML without aliases or repeated keys, and with `4e-3` read as the number everybody means."""

    def compose_node(self, parent: Any, index: Any) -> Any:
        if self.check_event(yaml.AliasEvent):
            mark = self.peek_event().start_mark
            raise yaml.constructor.ConstructorError(None, None, "aliases are not allowed in a preset", mark)
        return super().compose_node(parent, index)

    def construct_mapping(self, node: Any, deep: bool = False) -> dict[Any, Any]:
        seen: set[str] = set()
        for key, _ in node.value:
            if not isinstance(key, yaml.ScalarNode):
                raise yaml.constructor.ConstructorError(None, None, "a key must be a word", key.start_mark)
            if key.value in seen:
                raise yaml.constructor.ConstructorError(None, None, f"key {key.value!r} given twice", key.start_mark)
            seen.add(key.value)
        return super().construct_mapping(node, deep)


# PyYAML follows YAML 1.1, where a float needs a dot: 4e-3 would be text.
_StrictLoader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"^[-+]?[0-9]+(?:\.[0-9]*)?[eE][-+]?[0-9]+$"), list("-+0123456789")
)


def _preset_folder() -> Path:
    """Inside an installed wheel the presets lie beside this module; in a checkout at the top of the repository."""
    installed = _PACKAGE / "presets_data"
    return installed if installed.is_dir() else _PACKAGE.parent / "presets"


def _did_you_mean(word: str, known: list[str]) -> str:
    close = difflib.get_close_matches(word, known, n=1, cutoff=0.5)
    return f"; did you mean {close[0]}?" if close else ""


def _key(a_field: Field) -> str:
    """The field's name in YAML: `lambda` is a Python keyword, so its field carries an underscore."""
    return a_field.name.rstrip("_")


def _without_description(effort: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in effort.items() if key != "description"}


def _to_data(settings: Any) -> dict[str, Any]:
    """A preset or group as the nested plain data of its file."""
    data: dict[str, Any] = {}
    for each in fields(settings):
        value = getattr(settings, each.name)
        if each.name != "name":
            data[_key(each)] = _to_data(value) if hasattr(value, "__dataclass_fields__") else value
    return data


def _merge(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    """`above` wins key by key, group by group."""
    merged = dict(below)
    for key, value in above.items():
        if isinstance(value, Mapping) and isinstance(merged.get(key), Mapping):
            group = dict(merged[key])
            if key == "rate" and any(value.get(target) is not None for target in _RATE_TARGETS):
                for target in _RATE_TARGETS:
                    group.pop(target, None)
            merged[key] = _merge(group, value)
        else:
            merged[key] = value
    return merged


def _preset_from(name: str, data: Any, origin: str) -> Preset:
    """Checks everything first, so that one run shows every problem, then builds."""
    problems: list[str] = []
    if not isinstance(data, Mapping):
        raise PresetError(origin, ["must be a mapping of groups: backbone, geometry, …"])
    body = {key: value for key, value in data.items() if key not in ("description", "efforts")}
    _check_groups(body, "", problems, extra_keys=("description", "efforts"))
    if not isinstance(data.get("description", ""), str):
        problems.append("description: must be text")
    backbone = data.get("backbone")
    if not isinstance(backbone, Mapping) or "id" not in backbone:
        problems.append("backbone.id: missing; it names the generative model, for instance pocket")
    efforts = data.get("efforts", {})
    if not isinstance(efforts, Mapping):
        problems.append("efforts: must map an effort's name to its groups")
        efforts = {}
    for effort, partial in efforts.items():
        if not isinstance(effort, str):
            problems.append(f"efforts.{effort}: the name of an effort must be text; quote it")
            continue
        if not isinstance(partial, Mapping):
            problems.append(f"efforts.{effort}: must be a mapping of groups")
        else:
            _check_groups(_without_description(partial), f"efforts.{effort}.", problems, extra_keys=("description",))
            if not isinstance(partial.get("description", ""), str):
                problems.append(f"efforts.{effort}.description: must be text")
    if not problems:
        problems += _contradictions(body, "")
        for effort, partial in efforts.items():
            problems += _contradictions(_merge(body, _without_description(partial)), f"efforts.{effort}: ")
    if problems:
        raise PresetError(origin, problems)
    groups = {key: _build(_GROUPS[key], value) for key, value in body.items()}
    return Preset(name=name, description=data.get("description", ""), efforts=efforts, **groups)


def _build(group: type[_T], data: Mapping[str, Any]) -> _T:
    """A group from checked data; what is not given keeps its default."""
    values = {}
    for each in fields(group):
        if _key(each) in data:
            value = data[_key(each)]
            if each.type in _NESTED:
                value = _build(_NESTED[each.type], value)
            elif each.type.startswith("float") and value is not None:
                value = float(value)  # `1` and `1.0` mean, and digest to, the same
            values[each.name] = value
    return group(**values)


def _check_groups(data: Any, prefix: str, problems: list[str], extra_keys: tuple[str, ...] = ()) -> None:
    for key, value in data.items():
        if key not in _GROUPS:
            problems.append(f"{prefix}{key}: unknown group{_did_you_mean(str(key), [*_GROUPS, *extra_keys])}")
        else:
            _check_group(_GROUPS[key], value, f"{prefix}{key}", problems)


def _check_group(group: type, data: Any, path: str, problems: list[str]) -> None:
    if not isinstance(data, Mapping):
        problems.append(f"{path}: must be a mapping")
        return
    known = {_key(each): each for each in fields(group)}
    for key, value in data.items():
        if key not in known:
            homes = [f"{name}.{key}" for name, each in _GROUPS.items() if key in {_key(one) for one in fields(each)}]
            hint = f"; did you mean {' or '.join(homes)}?" if homes else _did_you_mean(str(key), list(known))
            problems.append(f"{path}.{key}: unknown key{hint}")
        elif known[key].type in _NESTED:
            _check_group(_NESTED[known[key].type], value, f"{path}.{key}", problems)
        else:
            wrong = _wrong_value(known[key], value)
            if wrong:
                problems.append(f"{path}.{key}: {wrong}")


def _wrong_value(a_field: Field, value: Any) -> str | None:
    """What is wrong with one value: its type, its range, its choice or its own rule."""
    type_name, _, optional = a_field.type.partition(" | ")
    if value is None:
        return None if optional else "must not be empty"
    python_type, words = _TYPES[type_name]
    if not isinstance(value, python_type) or (isinstance(value, bool) and type_name != "bool"):
        return f"must be {words}, not {value!r}"
    if isinstance(value, float) and not math.isfinite(value):
        return f"must be finite, not {value}"
    low, high = a_field.metadata["low"], a_field.metadata["high"]
    if (low is not None and value < low) or (high is not None and value > high):
        bounds = f"at least {low}" if high is None else f"between {low} and {high}"
        return f"must be {bounds}, not {value}"
    choices = a_field.metadata["choices"]
    if choices and value not in choices:
        return f"must be one of {', '.join(choices)}, not {value!r}{_did_you_mean(value, list(choices))}"
    rule = a_field.metadata["rule"]
    return rule(value) if rule else None


def _contradictions(body: Mapping[str, Any], prefix: str) -> list[str]:
    """Values that are fine alone but not together."""
    group = {name: _build(cls, body[name]) for name, cls in _GROUPS.items() if name in body}
    steering, rate = (group.get(n, _GROUPS[n]()) for n in ("steering", "rate"))
    problems = []
    targets = [t for t in _RATE_TARGETS if body.get("rate", {}).get(t) is not None]
    if len(targets) > 1:
        problems.append(f"{prefix}rate: {' and '.join(targets)} exclude each other")
    if rate.split is not None and rate.split[1] > 0 and steering.method == "none":
        problems.append(f"{prefix}rate.split gives steering a share but steering.method is none")
    return problems
