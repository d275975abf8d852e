"""As much of JSON Schema as `report.schema.json` uses: $ref, anyOf, type, enum, required, properties, items."""

from __future__ import annotations

import json
from importlib import resources
from typing import Any

__all__ = ["SCHEMA", "faults"]

SCHEMA = json.loads(resources.files("vovcodec.cli").joinpath("report.schema.json").read_text(encoding="utf-8"))
_TYPES = {"object": dict, "array": list, "string": str, "integer": int, "number": (int, float), "boolean": bool}
_TYPES["null"] = type(None)
_CHECKED = {"$ref", "anyOf", "type", "enum", "required", "properties", "items", "additionalProperties"}
_KNOWN = _CHECKED | {"$schema", "$id", "$defs", "title", "description"}


def faults(value: Any, schema: dict[str, Any] | str, where: str = "") -> list[str]:
    """What is wrong with `value`; schema: itself (`SCHEMA`: whatever a command prints), or the name of a definition."""
    if isinstance(schema, str):
        schema = SCHEMA["$defs"][schema]
    assert set(schema) <= _KNOWN, f"{where}: this check does not know {set(schema) - _KNOWN}"
    if "$ref" in schema:
        return faults(value, schema["$ref"].removeprefix("#/$defs/"), where)
    if "anyOf" in schema:
        fits = any(not faults(value, each, where) for each in schema["anyOf"])
        return [] if fits else [f"{where} is {value!r}, which is none of {schema['anyOf']}"]
    found = []
    types = schema.get("type", list(_TYPES))
    allowed = tuple(_TYPES[name] for name in ([types] if isinstance(types, str) else types))
    flat = tuple(each for group in allowed for each in (group if isinstance(group, tuple) else (group,)))
    if not isinstance(value, flat) or (isinstance(value, bool) and bool not in flat):
        found.append(f"{where} is {value!r}, not {types}")
    if "enum" in schema and value not in schema["enum"]:
        found.append(f"{where} is {value!r}, not one of {schema['enum']}")
    if isinstance(value, dict):
        properties = schema.get("properties", {})
        found += [f"{where}.{name} is missing" for name in schema.get("required", ()) if name not in value]
        for name, each in value.items():
            if name in properties:
                found += faults(each, properties[name], f"{where}.{name}")
            elif (others := schema.get("additionalProperties", {})) is False:
                found.append(f"{where}.{name} is not in the schema")
            else:
                found += faults(each, others, f"{where}.{name}")
    if isinstance(value, list) and "items" in schema:
        found += [fault for i, each in enumerate(value) for fault in faults(each, schema["items"], f"{where}[{i}]")]
    return found
