"""Looking without changing: ``inspect`` a network, ``check`` an artifact."""

from __future__ import annotations

import dataclasses
from typing import Annotated

import typer

from surgeon.cli import options
from surgeon.cli.catalog import print_json
from surgeon.cli.startup.lazy_imports import defer


def inspect(
    context: typer.Context,
    model: options.Model,
    arch: options.Arch = None,
    depth: Annotated[int, typer.Option("--depth", min=0, help="Levels of the tree to show; 0 shows all.")] = 2,
    select: Annotated[
        str | None,
        typer.Option("--select", metavar="SELECTOR", help="List the sites that a selector names.", show_default=False),
    ] = None,
    plugin: options.PluginNames = None,
    key: options.Key = None,
    trust_pickle: options.TrustPickle = False,
    trust_code: options.TrustCode = None,
    as_json: options.Json = False,
    debug: options.Debug = False,
) -> None:
    """Show a network, its roles and shapes.

    Every site in the tree is an address that a selector in a recipe may name.
    """
    defer()
    from surgeon.architectures.trust import with_trust
    from surgeon.cli.inspect_model import examine
    from surgeon.cli.render.consoles import show, working

    with working("reading the model", quiet=as_json):
        plugins = with_trust(context.obj, trust_code or (), model, arch)
        examined = examine(model, arch=arch, key=key, trust_pickle=trust_pickle, plugins=plugins)
        examined.narrow(select)
    if as_json:
        print_json(examined.to_dict())
    else:
        show(examined.render(depth or None))


def check(
    context: typer.Context,
    artifact: Annotated[str, typer.Argument(metavar="ARTIFACT", help="What apply wrote.", show_default=False)],
    source: Annotated[
        str | None,
        typer.Option(
            "--source", metavar="MODEL", help="Compare kept tensors with it, to the byte.", show_default=False
        ),
    ] = None,
    plugin: options.PluginNames = None,
    trust_pickle: options.TrustPickle = False,
    trust_code: options.TrustCode = None,
    as_json: options.Json = False,
    quiet: options.Quiet = False,
    debug: options.Debug = False,
) -> None:
    """Check an artifact, to the byte.

    It has to load, every tensor in it has to be accounted for, and with --source what was kept has to be
    what the source holds.
    """
    defer()
    from surgeon.cli.render.consoles import show, working
    from surgeon.cli.render.outcomes import render_verification

    with working("loading the artifact", quiet=quiet or as_json):
        from surgeon.pipeline import api as engine

        found = engine.verify(
            artifact, source, trust_pickle=trust_pickle, trust_code=trust_code or (), plugins=context.obj
        )
    if as_json:
        print_json(dataclasses.asdict(found))
    elif not quiet:
        show(render_verification(artifact, found))
