"""As much of JSON Schema as `report.schema.json` uses: $ref, type, enum, required, properties, items."""

from __future__ import annotations

import json
from importlib import resources
from typing import Any

__all__ = ["SCHEMA", "faults"]

SCHEMA = json.loads(resources.files("vovcodec.cli").joinpath("report.schema.json").read_text(encoding="utf-8"))
_TYPES = {"object": dict, "array": list, "string": str, "integer": int, "number": (int, float), "null": type(None)}
_KNOWN = {"$ref", "type", "enum", "required", "properties", "items", "additionalProperties", "description"}


def faults(value: Any, schema: dict[str, Any] | str, where: str = "") -> list[str]:
    """What is wrong with `value`; schema: itself, or the name of one of the definitions."""
    if isinstance(schema, str):
        schema = SCHEMA["$defs"][schema]
    assert set(schema) <= _KNOWN, f"{where}: this check does not know {set(schema) - _KNOWN}"
    if "$ref" in schema:
        return faults(value, schema["$ref"].removeprefix("#/$defs/"), where)
    found = []
    types = schema.get("type", list(_TYPES))
    allowed = tuple(_TYPES[name] for name in ([types] if isinstance(types, str) else types))
    flat = tuple(each for group in allowed for each in (group if isinstance(group, tuple) else (group,)))
    if not isinstance(value, flat) or (isinstance(value, bool) and "type" in schema):
        found.append(f"{where} is {value!r}, not {types}")
    if "enum" in schema and value not in schema["enum"]:
        found.append(f"{where} is {value!r}, not one of {schema['enum']}")
    if isinstance(value, dict):
        properties = schema.get("properties", {})
        found += [f"{where}.{name} is missing" for name in schema.get("required", ()) if name not in value]
        for name, each in value.items():
            if name in properties:
                found += faults(each, properties[name], f"{where}.{name}")
            elif schema.get("additionalProperties") is False:
                found.append(f"{where}.{name} is not in the schema")
    if isinstance(value, list) and "items" in schema:
        found += [fault for i, each in enumerate(value) for fault in faults(each, schema["items"], f"{where}[{i}]")]
    return found
