"""Changes values in a preset's YAML and leaves the rest of the text, comments above all, as it is."""

from __future__ import annotations

import json
import re
import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

import yaml

from vovcodec.errors import UsageError
from vovcodec.presets import Preset

__all__ = ["setting_path", "with_note", "with_values"]


def setting_path(preset: Preset, effort: str, setting: str) -> str:
    """Where the value in force is: `steering.bytes`, or `efforts.EFFORT.steering.bytes` if the effort has its own."""
    data: Any = preset.efforts.get(effort, {})
    for key in setting.split("."):
        if not isinstance(data, Mapping) or key not in data:
            return setting
        data = data[key]
    return f"efforts.{effort}.{setting}"


def with_values(text: str, values: Mapping[str, Any]) -> str:
    """The text with settings replaced, or added where they are missing.

    values: dotted paths to numbers, text, lists or None. Raises UsageError for a path through something that is no
    mapping.
    """
    for path, value in values.items():
        text = _with_value(text, path.split("."), value)
    return text


def _with_value(text: str, path: Sequence[str], value: Any) -> str:
    node = yaml.compose(text, Loader=yaml.SafeLoader)
    for depth, key in enumerate(path):
        if not isinstance(node, yaml.MappingNode):
            raise UsageError(f"{'.'.join(path[:depth])} is no group of settings")
        inner = next((value_node for key_node, value_node in node.value if key_node.value == key), None)
        if inner is None:
            return _with_entry(text, node, key, _nested(path[depth + 1 :], value))
        node = inner
    return text[: node.start_mark.index] + _flow(value) + text[node.end_mark.index :]


def _with_entry(text: str, group: yaml.MappingNode, key: str, value: Any) -> str:
    entry = f"{key}: {_flow(value)}"
    if group.flow_style:
        at = group.end_mark.index - 1  # before the brace
        return text[:at] + (f", {entry}" if group.value else entry) + text[at:]
    last = group
    while isinstance(last, yaml.MappingNode) and not last.flow_style:
        last = last.value[-1][1]
    # A new line after the one that the last value ends on, behind its comment.
    at = text.find("\n", last.end_mark.index)
    head, rest = (text, "") if at < 0 else (text[:at], text[at + 1 :])
    return f"{head}\n{' ' * group.start_mark.column}{entry}\n{rest}"


def _nested(path: Sequence[str], value: Any) -> Any:
    for key in reversed(path):
        value = {key: value}
    return value


def _flow(value: Any) -> str:
    """One line of YAML. Settings that are text are plain words."""
    if isinstance(value, str):
        return value
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{key}: {_flow(each)}" for key, each in value.items()) + "}"
    return json.dumps(value)


def with_note(text: str, group: str, note: str) -> str:
    """The text with `# Tuned: note` above a top-level group, instead of the note that stood there."""
    lines = textwrap.wrap(f"Tuned: {note}", width=116)
    block = "".join(f"# {line}\n" if not number else f"#   {line}\n" for number, line in enumerate(lines))
    pattern = re.compile(rf"(?:^# Tuned: .*\n(?:^#   .*\n)*)?^{re.escape(group)}:", re.MULTILINE)
    if not pattern.search(text):
        raise UsageError(f"the preset has no group {group}")
    return pattern.sub(lambda _: f"{block}{group}:", text, count=1)
