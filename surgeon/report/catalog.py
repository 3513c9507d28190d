"""Operations and plugins as lists, and one operation in full."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from rich.console import Group, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from surgeon.errors import PluginError

if TYPE_CHECKING:
    from surgeon.operation import Operation


def render_operations(
    operations: Mapping[str, type[Operation]], conflicts: Mapping[str, PluginError]
) -> RenderableType:
    """Each operation with the first line of its docstring."""
    grid = Table.grid(padding=(0, 2))
    grid.add_column(style="bold cyan", no_wrap=True)
    grid.add_column(overflow="fold")
    for name, operation in operations.items():
        grid.add_row(name, operation.documentation().partition("\n")[0])
    parts: list[RenderableType] = [grid]
    parts += [Text(error.message, style="red") for error in conflicts.values()]
    return Group(*parts, Text("\nsurgeon ops NAME tells all about one", style="dim"))


def render_operation(operation: type[Operation]) -> RenderableType:
    """One operation: its docstring, its keys, and the least that a recipe has to say."""
    known = operation_dict(operation)
    parts: list[RenderableType] = [
        Text(operation.name, style="bold cyan"),
        Padding(Text(operation.documentation()), (0, 0, 1, 2), expand=False),
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


def operation_dict(operation: type[Operation]) -> dict[str, Any]:
    """An operation as JSON-able data."""
    schema = operation.model_json_schema()
    shared = schema.get("$defs", {})
    return {
        "name": operation.name,
        "documentation": operation.documentation(),
        "fields": _field_dicts(schema, shared),
        "types": {name: _field_dicts(inner, shared) for name, inner in shared.items() if "properties" in inner},
        "example": example(operation),
    }


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
        name: str = field["$ref"].rpartition("/")[2]
        return name if "properties" in shared[name] else type_of(shared[name], shared)
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


def example(operation: type[Operation]) -> str:
    """A step of a recipe with what the operation cannot do without, or its first key."""
    schema = operation.model_json_schema()
    given = (schema.get("examples") or [{}])[0]
    properties = schema.get("properties", {})
    own = [name for name in operation.__annotations__ if name in properties]
    names = schema.get("required") or own[:1]
    values = given or {name: _sample(properties[name], schema.get("$defs", {})) for name in names}
    lines = [f"- op: {operation.name}", *(f"    {name}: {json.dumps(value)}" for name, value in values.items())]
    return "\n".join(["operations:", "  " + lines[0], *lines[1:]])


def _sample(field: Mapping[str, Any], shared: Mapping[str, Any]) -> Any:
    if field.get("examples"):
        return field["examples"][0]
    if "$ref" in field:
        inner = shared[field["$ref"].rpartition("/")[2]]
        names = inner.get("required", [])
        return inner["enum"][0] if "enum" in inner else {n: _sample(inner["properties"][n], shared) for n in names}
    for part in field.get("anyOf") or field.get("oneOf") or ():
        return _sample(part, shared)
    if "enum" in field:
        return field["enum"][0]
    kind = field.get("type")
    if kind == "array":
        return [_sample(field.get("items", {}), shared)]
    if kind == "object":
        inner = field.get("additionalProperties")
        return {"name": _sample(inner, shared)} if isinstance(inner, dict) else {}
    return {"integer": 10, "number": 0.5, "boolean": True, "string": "SITE"}.get(str(kind))
