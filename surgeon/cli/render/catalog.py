"""Operations and plugins as lists, and one operation in full."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Group, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from surgeon.errors import PluginError


def render_operations(
    operations: Mapping[str, Mapping[str, Any]], conflicts: Mapping[str, PluginError]
) -> RenderableType:
    """Each operation with the first line of its docstring."""
    grid = Table.grid(padding=(0, 2))
    grid.add_column(style="bold cyan", no_wrap=True)
    grid.add_column(overflow="fold")
    for name, operation in operations.items():
        grid.add_row(name, operation["documentation"].partition("\n")[0])
    parts: list[RenderableType] = [grid]
    parts += [Text(error.message, style="red") for error in conflicts.values()]
    return Group(*parts, Text("\nsurgeon ops NAME tells all about one", style="dim"))


def render_operation(known: Mapping[str, Any]) -> RenderableType:
    """One operation, of :func:`operations_of`: its docstring, its keys, and the least that a recipe has to say."""
    parts: list[RenderableType] = [
        Text(known["name"], style="bold cyan"),
        Padding(Text(known["documentation"]), (0, 0, 1, 2), expand=False),
        Padding(_fields(known["fields"]), (0, 0, 1, 2), expand=False),
    ]
    for name, fields in known["types"].items():
        parts.append(Padding(Text(f"each {name}", style="bold"), (0, 0, 0, 2), expand=False))
        parts.append(Padding(_fields(fields), (0, 0, 1, 4), expand=False))
    return Group(*parts, Padding(Text(known["example"]), (0, 0, 0, 2), expand=False))


def _fields(fields: Sequence[Mapping[str, Any]]) -> RenderableType:
    grid = Table.grid(padding=(0, 2))
    grid.add_column(style="cyan", no_wrap=True)
    grid.add_column(overflow="fold", max_width=30)
    grid.add_column(overflow="fold", style="dim")
    for field in fields:
        kind = Text(field["type"])
        if field["required"]:
            kind.append("  required", style="yellow")
        elif field["default"] not in ("null", "[]", "{}"):
            kind.append(f"  = {field['default']}", style="dim")
        grid.add_row(field["name"], kind, field["description"])
    return grid


def render_plugins(
    listing: Sequence[tuple[str, Sequence[str]]],
    failures: Mapping[str, PluginError],
    conflicts: Mapping[str, PluginError],
) -> RenderableType:
    """Each plugin and the hooks it implements; below them what is wrong."""
    grid = Table.grid(padding=(0, 2))
    grid.add_column(style="bold", no_wrap=True)
    grid.add_column(overflow="fold")
    for name, hooks in listing:
        grid.add_row(name, ", ".join(hook.removeprefix("surgeon_") for hook in hooks))
    wrong = [Text(str(error), style="red") for error in [*failures.values(), *conflicts.values()]]
    return Group(grid, *wrong)


def operations_of(schema: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """The operations that a schema of recipes allows, by name, as JSON-able data."""
    shared = schema["$defs"]
    steps = [_shared(ref, shared) for ref in schema["properties"]["operations"]["items"]["oneOf"]]
    return {step["properties"]["op"]["const"]: _operation_dict(step, shared) for step in steps}


def _operation_dict(step: Mapping[str, Any], shared: Mapping[str, Any]) -> dict[str, Any]:
    types = {name: shared[name] for name in sorted(_named(step, shared, set())) if "properties" in shared[name]}
    return {
        "name": step["properties"]["op"]["const"],
        "documentation": step["description"],
        "fields": [field for field in _field_dicts(step, shared) if field["name"] != "op"],
        "types": {name: _field_dicts(inner, shared) for name, inner in types.items()},
        "example": _example(step["examples"][0]),
    }


def _named(schema: Any, shared: Mapping[str, Any], known: set[str]) -> set[str]:
    """What ``schema`` refers to, and what that refers to; added to ``known``."""
    if isinstance(schema, Mapping):
        if "$ref" in schema and (name := schema["$ref"].rpartition("/")[2]) not in known:
            known.add(name)
            _named(shared[name], shared, known)
        schema = list(schema.values())
    if isinstance(schema, list):
        for part in schema:
            _named(part, shared, known)
    return known


def _shared(ref: Mapping[str, Any], shared: Mapping[str, Any]) -> Mapping[str, Any]:
    found: Mapping[str, Any] = shared[ref["$ref"].rpartition("/")[2]]
    return found


def _field_dicts(schema: Mapping[str, Any], shared: Mapping[str, Any]) -> list[dict[str, Any]]:
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
    """The type of a field in words, from its JSON Schema: ``whole number or list of text``."""
    if "$ref" in field:
        there = _shared(field, shared)
        return str(field["$ref"].rpartition("/")[2]) if "properties" in there else type_of(there, shared)
    if "const" in field or "enum" in field:
        return " | ".join(str(each) for each in field.get("enum", [field.get("const")]))
    parts = field.get("anyOf") or field.get("oneOf") or field.get("allOf")
    if parts:
        names = list(dict.fromkeys(type_of(part, shared) for part in parts))
        return " or ".join(name for name in names if name != "null") or "null"
    kind = str(field.get("type", "anything"))
    if kind == "array":
        return f"list of {type_of(field.get('items', {}), shared).replace('whole number', 'whole numbers')}"
    if kind == "object":
        inner = field.get("additionalProperties")
        return f"mapping to {type_of(inner, shared)}" if isinstance(inner, dict) and inner else "mapping"
    return {"integer": "whole number", "string": "text", "boolean": "true | false"}.get(kind, kind)


def _example(step: Mapping[str, Any]) -> str:
    """A step as it stands in a recipe."""
    (op, *fields) = [f"{name}: {value if name == 'op' else json.dumps(value)}" for name, value in step.items()]
    return "\n".join(["operations:", f"  - {op}", *(f"    {field}" for field in fields)])
