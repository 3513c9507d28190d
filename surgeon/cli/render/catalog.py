"""Draw lists of operations and plugins, and one operation in full."""

from __future__ import annotations

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
    """List each operation with the first line of its docstring."""
    lines = {name: operation["documentation"].partition("\n")[0] for name, operation in operations.items()}
    parts: list[RenderableType] = [_names(lines)]
    parts += [Text(error.message, style="red") for error in conflicts.values()]
    return Group(*parts, Text("\nsurgeon ops NAME shows everything about one", style="dim"))


def _names(lines: Mapping[str, str]) -> Table:
    """List names with a line on each."""
    grid = Table.grid(padding=(0, 2))
    grid.add_column(style="bold cyan", no_wrap=True)
    grid.add_column(overflow="fold")
    for name, line in lines.items():
        grid.add_row(name, line)
    return grid


def render_sources(sources: Mapping[str, str]) -> RenderableType:
    """List each source of data with the first line of its docstring."""
    return Group(_names(sources), Text("\nsurgeon schema NAME shows everything about one", style="dim"))


def render_operation(operation: Mapping[str, Any]) -> RenderableType:
    """Draw an operation of :func:`surgeon.describe_operations`, or a part: docstring, keys and example."""
    parts: list[RenderableType] = [Text(operation["name"], style="bold cyan")]
    if operation["documentation"]:
        parts.append(Padding(Text(operation["documentation"]), (0, 0, 1, 2), expand=False))
    if operation["fields"]:
        parts.append(Padding(_fields(operation["fields"]), (0, 0, 1, 2), expand=False))
    if names := operation.get("names"):
        parts.append(Padding(Text("the names", style="bold"), (0, 0, 0, 2), expand=False))
        parts.append(Padding(_names(names), (0, 0, 0, 4), expand=False))
    for name, fields in operation["types"].items():
        parts.append(Padding(Text(f"each {name}", style="bold"), (0, 0, 0, 2), expand=False))
        parts.append(Padding(_fields(fields), (0, 0, 1, 4), expand=False))
    if operation["example"]:
        parts.append(Padding(Text(operation["example"]), (0, 0, 0, 2), expand=False))
    return Group(*parts)


def _fields(fields: Sequence[Mapping[str, Any]]) -> RenderableType:
    grid = Table.grid(padding=(0, 2))
    grid.add_column(style="cyan", no_wrap=True)
    grid.add_column(overflow="fold", max_width=30)
    grid.add_column(overflow="fold", style="dim")
    for field in fields:
        kind = Text(field["type"])
        if field["required"]:
            kind.append("  required", style="yellow")
        elif field["default"] not in ("null", "[]") and not field["default"].startswith(
            "{"
        ):  # a part's are in the part
            kind.append(f"  = {field['default']}", style="dim")
        grid.add_row(field["name"], kind, field["description"])
    return grid


def render_plugins(
    listing: Sequence[tuple[str, Sequence[str]]],
    failures: Mapping[str, PluginError],
    conflicts: Mapping[str, PluginError],
) -> RenderableType:
    """List each plugin with the hooks it implements, then the errors."""
    grid = Table.grid(padding=(0, 2))
    grid.add_column(style="bold", no_wrap=True)
    grid.add_column(overflow="fold")
    for name, hooks in listing:
        grid.add_row(name, ", ".join(hook.removeprefix("surgeon_") for hook in hooks))
    errors = [Text(str(error), style="red") for error in [*failures.values(), *conflicts.values()]]
    return Group(grid, *errors)
