"""Describe operations as data, from the JSON Schema of recipes. Nothing here imports torch."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from surgeon.errors import PluginError
from surgeon.interfaces.catalog_cache import digest, recalled, remember
from surgeon.plugins import Plugins, as_plugins

COUNTED = ("whole number", "number", "source", "operation")
"""Types in words that have a plural."""


def describe_operations(plugins: Plugins | Sequence[str] | None = None) -> dict[str, dict[str, Any]]:
    """Describe every operation by name, as JSON-able data: documentation, fields, types, an example.

    Args:
        plugins: Default: the built-in and installed plugins.
    """
    return operations_of(schema_of(as_plugins(plugins)))


def schema_of(plugins: Plugins) -> dict[str, Any]:
    """Return the schema of recipes: the one shipped with surgeon, unless a plugin adds operations or sources."""
    if adding := plugins.adding("surgeon_operations", "surgeon_sources"):
        return _with_plugins(plugins, adding)
    shipped: dict[str, Any] = json.loads((Path(__file__).parents[1] / "recipe.schema.json").read_text(encoding="utf-8"))
    return shipped


def _with_plugins(plugins: Plugins, adding: Sequence[str]) -> dict[str, Any]:
    """Get the schema with what plugins add, as it was made last time if their files are the same."""
    prints = [plugins.fingerprints.get(name) for name in adding]
    present = [key for key in prints if key]
    key = digest(["schema", *present]) if len(present) == len(adding) else None
    if key and (remembered := recalled(key)):
        plugins.conflicts.update(
            {
                name: PluginError(parts[0], where=parts[1], hint=parts[2])
                for name, parts in remembered["conflicts"].items()
            }
        )
        return dict(remembered["schema"])
    from surgeon.recipe.schema import recipe_schema

    schema = recipe_schema(plugins)
    if key and not plugins.failures:
        conflicts = {name: [error.message, error.where, error.hint] for name, error in plugins.conflicts.items()}
        remember(key, {"schema": schema, "conflicts": conflicts})
    return schema


def operations_of(schema: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Return the operations in a schema of recipes, by name, as JSON-able data."""
    shared = schema["$defs"]
    steps = [_shared(ref, shared) for ref in schema["properties"]["operations"]["items"]["oneOf"]]
    return {step["properties"]["op"]["const"]: _operation_dict(step, shared) for step in steps}


def _operation_dict(step: Mapping[str, Any], shared: Mapping[str, Any]) -> dict[str, Any]:
    types = {name: shared[name] for name in sorted(definitions_in(step, shared)) if "properties" in shared[name]}
    return {
        "name": step["properties"]["op"]["const"],
        "documentation": step["description"],
        "fields": [field for field in field_dicts(step, shared) if field["name"] != "op"],
        "types": {name: field_dicts(inner, shared) for name, inner in types.items()},
        "example": _example(step["examples"][0]),
    }


def definitions_in(schema: Any, shared: Mapping[str, Any], *, nested: bool = True) -> set[str]:
    """Return the names of all definitions that ``schema`` refers to, with those that they refer to if ``nested``."""
    names: set[str] = set()
    rest = [schema]
    while rest:
        part = rest.pop()
        if isinstance(part, Mapping):
            if "$ref" in part and (name := part["$ref"].rpartition("/")[2]) not in names:
                names.add(name)
                rest += [shared[name]] if nested else []
            rest += part.values()
        elif isinstance(part, list):
            rest += part
    return names


def _shared(ref: Mapping[str, Any], shared: Mapping[str, Any]) -> Mapping[str, Any]:
    definition: Mapping[str, Any] = shared[ref["$ref"].rpartition("/")[2]]
    return definition


def field_dicts(schema: Mapping[str, Any], shared: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Describe the fields of an object in a schema of recipes: name, type in words, default as JSON, description."""
    required = schema.get("required", [])
    return [
        {
            "name": name,
            "type": type_of(field, shared),
            "required": name in required,
            "default": json.dumps(field.get("default"), ensure_ascii=False),
            "description": " ".join(field.get("description", "").split()),
        }
        for name, field in schema.get("properties", {}).items()
    ]


def type_of(field: Mapping[str, Any], shared: Mapping[str, Any]) -> str:
    """Return the type of a field in words, from its JSON Schema: ``whole number or list of text``."""
    if "$ref" in field:
        definition = _shared(field, shared)
        return str(field["$ref"].rpartition("/")[2]) if "properties" in definition else type_of(definition, shared)
    if "const" in field or "enum" in field:
        return " | ".join(str(value) for value in field.get("enum", [field.get("const")]))
    parts = field.get("anyOf") or field.get("oneOf") or field.get("allOf")
    if parts:
        if isinstance(field.get("discriminator"), Mapping) and len(parts) > 1:
            return {"op": "operation"}.get(name := str(field["discriminator"]["propertyName"]), name)
        names = list(dict.fromkeys(type_of(part, shared) for part in parts))
        return " or ".join(name for name in names if name != "null") or "null"
    kind = str(field.get("type", "anything"))
    if kind == "array":
        item = type_of(field.get("items", {}), shared)
        return f"list of {item}s" if item in COUNTED else f"list of {item}"
    if kind == "object":
        inner = field.get("additionalProperties")
        return f"mapping to {type_of(inner, shared)}" if isinstance(inner, dict) and inner else "mapping"
    return {"integer": "whole number", "string": "text", "boolean": "true | false"}.get(kind, kind)


def _example(step: Mapping[str, Any]) -> str:
    """Format a step as in a recipe."""
    (op, *fields) = [f"{name}: {value if name == 'op' else json.dumps(value)}" for name, value in step.items()]
    return "\n".join(["operations:", f"  - {op}", *(f"    {field}" for field in fields)])
