"""Define the commands that list what is available: ``ops``, ``schema`` and ``plugins``. None of them imports torch."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from surgeon.cli import options
from surgeon.cli.signs import takes_unicode
from surgeon.errors import OutputError
from surgeon.plugins import Plugins
from surgeon.plugins import load as load_plugins


def ops(
    context: typer.Context,
    name: Annotated[
        str | None, typer.Argument(metavar="NAME", help="Show everything about one operation.", show_default=False)
    ] = None,
    plugin: options.PluginNames = None,
    as_json: options.Json = False,
    debug: options.Debug = False,
) -> None:
    """List the operations, or explain one."""
    from surgeon.cli.render.catalog import render_operation, render_operations
    from surgeon.cli.render.consoles import show
    from surgeon.recipe.catalog import describe_operations

    plugins: Plugins = context.obj
    operations = describe_operations(plugins)
    if name is not None:
        if name not in operations:
            plugins.operation(name)  # raises with nearest names, or the plugins that claim the name
        print_json(operations[name]) if as_json else show(render_operation(operations[name]))
        return
    if as_json:
        print_json(list(operations.values()))
    else:
        show(render_operations(operations, plugins.conflicts))


def schema(
    context: typer.Context,
    output: Annotated[Path | None, typer.Option("-o", "--output", metavar="FILE", help="Write it to a file.")] = None,
    builtins: Annotated[bool, typer.Option("--builtins", help="Without the operations of plugins.")] = False,
    plugin: options.PluginNames = None,
    debug: options.Debug = False,
) -> None:
    """Print the JSON Schema of recipes.

    Editors complete and check recipes with it.
    """
    from surgeon.recipe.catalog import schema_of

    plugins: Plugins = load_plugins(installed=False) if builtins else context.obj
    schema = schema_of(plugins)
    if output is None:
        print_json(schema)
        return
    text = json.dumps(schema, indent=2, ensure_ascii=False)
    try:
        output.write_text(text + "\n", encoding="utf-8")
    except OSError as error:
        raise OutputError(f"cannot be written: {error.strerror}", where=str(output)) from error


def print_json(data: Any) -> None:
    """Print ``data`` as JSON; with escapes where the terminal lacks a character, so that no value changes."""
    print(json.dumps(data, indent=2, ensure_ascii=not takes_unicode(sys.stdout), default=str))
