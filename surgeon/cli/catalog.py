"""What there is to use: ``ops``, ``schema`` and ``plugins``. None of them imports torch."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from surgeon.cli import options
from surgeon.errors import OutputError
from surgeon.plugins import Plugins
from surgeon.plugins import load as load_plugins


def ops(
    context: typer.Context,
    name: Annotated[str | None, typer.Argument(metavar="NAME", help="Tell all about one.", show_default=False)] = None,
    plugin: options.PluginNames = None,
    as_json: options.Json = False,
    debug: options.Debug = False,
) -> None:
    """List the operations, or explain one."""
    from surgeon.cli.render.catalog import operations_of, render_operation, render_operations
    from surgeon.cli.render.consoles import show

    plugins: Plugins = context.obj
    operations = operations_of(_schema(plugins))
    if name is not None:
        if name not in operations:
            plugins.operation(name)  # which says what is near, or who claims it
        print_json(operations[name]) if as_json else show(render_operation(operations[name]))
        return
    if as_json:
        print_json(list(operations.values()))
    else:
        show(render_operations(operations, plugins.conflicts))


def schema(
    context: typer.Context,
    output: Annotated[Path | None, typer.Option("-o", "--output", metavar="FILE", help="Write it there.")] = None,
    builtins: Annotated[bool, typer.Option("--builtins", help="Leave the operations of plugins out.")] = False,
    plugin: options.PluginNames = None,
    debug: options.Debug = False,
) -> None:
    """Print the JSON Schema of recipes.

    Editors complete and check recipes with it.
    """
    plugins: Plugins = load_plugins(installed=False) if builtins else context.obj
    text = json.dumps(_schema(plugins), indent=2, ensure_ascii=False)
    if output is None:
        print(text)
        return
    try:
        output.write_text(text + "\n", encoding="utf-8")
    except OSError as error:
        raise OutputError(f"cannot be written: {error.strerror}", where=str(output)) from error


def plugins(
    context: typer.Context,
    plugin: options.PluginNames = None,
    as_json: options.Json = False,
    debug: options.Debug = False,
) -> None:
    """List the plugins and what they offer.

    Those that failed to load, and names that two of them claim, stand below.
    """
    from surgeon.cli.render.catalog import render_plugins
    from surgeon.cli.render.consoles import show

    known: Plugins = context.obj
    known.try_all()
    if as_json:
        print_json(
            {
                "plugins": [
                    {"name": name, "origin": known.origin(name), "hooks": hooks} for name, hooks in known.listing()
                ],
                "failures": {name: str(error) for name, error in known.failures.items()},
                "conflicts": {name: error.message for name, error in known.conflicts.items()},
            }
        )
    else:
        show(
            render_plugins(
                [(known.origin(name), hooks) for name, hooks in known.listing()], known.failures, known.conflicts
            )
        )


def _schema(plugins: Plugins) -> dict[str, Any]:
    """The schema of recipes; where no plugin adds to it, as it ships with surgeon."""
    if plugins.add_to("surgeon_operations", "surgeon_sources"):
        from surgeon.recipe.schema import recipe_schema

        return recipe_schema(plugins)
    shipped: dict[str, Any] = json.loads((Path(__file__).parents[1] / "recipe.schema.json").read_text(encoding="utf-8"))
    return shipped


def print_json(data: Any) -> None:
    """Print ``data`` for machines."""
    print(json.dumps(data, indent=2, ensure_ascii=False, default=str))
