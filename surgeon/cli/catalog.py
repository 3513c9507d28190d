"""Define the commands that list what is available: ``ops``, ``schema`` and ``plugins``.

They import torch only to list what plugins offer to training, such as losses.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Annotated, Any

import typer

from surgeon.cli import options
from surgeon.cli.report import say
from surgeon.cli.signs import takes_unicode
from surgeon.errors import OperationError, OutputError, RecipeError, SurgeonError
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
            _of_a_recipe(name, plugins)
            plugins.operation(name)  # raises with nearest names, or the plugins that claim the name
        print_json(operations[name]) if as_json else show(render_operation(operations[name]))
        return
    if as_json:
        print_json(list(operations.values()))
    else:
        show(render_operations(operations, plugins.conflicts))


def schema(
    context: typer.Context,
    name: Annotated[
        str | None,
        typer.Argument(
            metavar="NAME", help="Explain one part: train, train.optimizer, sources, table, …", show_default=False
        ),
    ] = None,
    output: Annotated[Path | None, typer.Option("-o", "--output", metavar="FILE", help="Write it to a file.")] = None,
    builtins: Annotated[bool, typer.Option("--builtins", help="Without the operations of plugins.")] = False,
    plugin: options.PluginNames = None,
    as_json: options.Json = False,
    debug: options.Debug = False,
) -> None:
    """Print the JSON Schema of recipes, or explain a part.

    Editors complete and check recipes with the schema.
    """
    from surgeon.recipe.catalog import schema_of

    plugins: Plugins = load_plugins(installed=False) if builtins else context.obj
    schema = schema_of(plugins)
    if name is not None:
        if output is not None:
            raise SurgeonError(f"-o writes the whole schema, not {name!r}", hint="leave out one of the two")
        _explain(schema, name, as_json, plugins)
        return
    if output is None:
        print_json(schema)
        return
    text = json.dumps(schema, indent=2, ensure_ascii=False)
    try:
        output.write_text(text + "\n", encoding="utf-8")
    except OSError as error:
        raise OutputError(f"cannot be written: {error.strerror}", where=str(output)) from error


def _of_a_recipe(name: str, plugins: Plugins) -> None:
    """Raise an error that names the right command, if ``name`` is another part of recipes than an operation."""
    from surgeon.recipe.catalog import schema_of
    from surgeon.recipe.recipe_parts import describe_part

    with suppress(RecipeError):
        describe_part(schema_of(plugins), name)
        raise OperationError(f"{name!r} is a part of recipes, not an operation", hint=f"see: surgeon schema {name}")


def _explain(schema: Mapping[str, Any], name: str, as_json: bool, plugins: Plugins) -> None:
    """Print the documentation and the keys of a part of recipes, and what it may name."""
    from surgeon.cli.render.catalog import render_operation, render_sources
    from surgeon.cli.render.consoles import show
    from surgeon.recipe.recipe_parts import describe_part, names_offered, sources_of

    part = describe_part(schema, name)
    if part is None:
        print_json(sources_of(schema)) if as_json else show(render_sources(sources_of(schema)))
        return
    if names := names_offered(plugins, part["name"]):
        part["names"] = names
    print_json(part) if as_json else show(render_operation(part))


def print_json(data: Any) -> None:
    """Print ``data`` as JSON; with escapes where the terminal lacks a character, so that no value changes."""
    say(json.dumps(data, indent=2, ensure_ascii=not takes_unicode(sys.stdout), default=str))
