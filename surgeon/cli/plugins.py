"""List the plugins, or begin a new one."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from surgeon.cli import options
from surgeon.cli.catalog import print_json
from surgeon.cli.report import say
from surgeon.plugins import Plugins

plugins_app = typer.Typer(rich_markup_mode=None)


@plugins_app.callback(invoke_without_command=True)
def plugins(
    context: typer.Context,
    plugin: options.PluginNames = None,
    as_json: options.Json = False,
    debug: options.Debug = False,
) -> None:
    """List the plugins and what they offer; new begins one.

    Plugins that failed to load, and names that two plugins claim, are listed below.
    """
    if context.invoked_subcommand is not None:
        return
    from surgeon.cli.render.catalog import render_plugins
    from surgeon.cli.render.consoles import show, working

    loaded: Plugins = context.obj
    with working("loading the plugins", quiet=as_json):
        loaded.try_all()
    if as_json:
        print_json(
            {
                "plugins": [
                    {"name": name, "origin": loaded.origin(name), "hooks": hooks} for name, hooks in loaded.listing()
                ],
                "failures": {name: str(error) for name, error in loaded.failures.items()},
                "conflicts": {name: error.message for name, error in loaded.conflicts.items()},
            }
        )
    else:
        show(
            render_plugins(
                [(loaded.origin(name), hooks) for name, hooks in loaded.listing()], loaded.failures, loaded.conflicts
            )
        )


@plugins_app.command()
def new(
    context: typer.Context,
    name: Annotated[str, typer.Argument(metavar="NAME", help="The package's name: surgeon-soft-gates.")],
    kind: Annotated[
        str, typer.Option("--kind", metavar="KIND", help="operation, architecture or training (a loss).")
    ] = "operation",
    output: Annotated[
        Path, typer.Option("-o", "--output", metavar="DIR", help="Where to make the package's folder.")
    ] = Path(),
    debug: options.Debug = False,
) -> None:
    """Write a new plugin package, with tests, that works as it is."""
    from surgeon.errors import SurgeonError, suggest
    from surgeon.scaffold.package import KINDS, write_package

    chosen = next((candidate for candidate in KINDS if candidate == kind), None)
    if chosen is None:
        raise SurgeonError(f"--kind {kind}: use one of {', '.join(KINDS)}", hint=suggest(kind, KINDS))
    paths = write_package(name, chosen, output, context.obj)
    for path in paths:
        say(str(path))
    root = paths[0].parent
    say(f"next: python -m pip install -e '{root}[test]' && pytest {root}")
