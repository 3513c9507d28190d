"""Describing and publishing an artifact: ``card`` and ``push``."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Annotated

import typer

from surgeon.cli import options
from surgeon.cli.catalog import print_json
from surgeon.cli.report import say
from surgeon.errors import visible

Artifact = Annotated[str, typer.Argument(metavar="ARTIFACT", help="What apply or train wrote.", show_default=False)]


def card(
    artifact: Artifact,
    output: Annotated[
        Path | None,
        typer.Option(
            "-o", "--output", metavar="FILE", help="Where to write it, as in ARTIFACT/README.md.", show_default=False
        ),
    ] = None,
    name: Annotated[
        str | None,
        typer.Option("--name", metavar="ORG/NAME", help="What the model is called on the hub.", show_default=False),
    ] = None,
    force: options.Force = False,
    quiet: options.Quiet = False,
    debug: options.Debug = False,
) -> None:
    """Make a model card of an artifact.

    It is printed, or written to FILE: base model and licence, what was cut and added, data, measures and their
    control, how to load it, limits.
    """
    from surgeon.pipeline.publishing.model_card import card as make

    text = make(artifact, output, name=name, force=force)
    if output is None:
        say(text.removesuffix("\n"))
    elif not quiet:
        say(f"wrote {visible(str(output))}: look it over, and add what only you know")


def push(
    context: typer.Context,
    artifact: Artifact,
    repository: Annotated[
        str, typer.Argument(metavar="ORG/NAME", help="The repository on the hub.", show_default=False)
    ],
    private: Annotated[
        bool | None,
        typer.Option("--private/--public", help="Who may see a repository that is made.", show_default=False),
    ] = None,
    revision: Annotated[
        str | None, typer.Option("--revision", metavar="BRANCH", help="The branch; main if left out.")
    ] = None,
    message: Annotated[
        str | None, typer.Option("--message", metavar="TEXT", help="What the commit says.", show_default=False)
    ] = None,
    plugin: options.PluginNames = None,
    trust_code: options.TrustCode = None,
    as_json: options.Json = False,
    quiet: options.Quiet = False,
    debug: options.Debug = False,
) -> None:
    """Push an artifact and its card to the Hugging Face hub.

    The token is tried first, then the artifact is verified. README.md in the artifact is its card; without it one is
    made from the manifest.
    """
    from surgeon.cli.render.consoles import show, working
    from surgeon.cli.render.outcomes import render_pushed

    with working("pushing", quiet=quiet or as_json):
        from surgeon.pipeline.publishing.hub import push as push_to_hub

        pushed = push_to_hub(
            artifact,
            repository,
            private=private,
            revision=revision,
            message=message,
            trust_code=trust_code or (),
            plugins=context.obj,
        )
    if as_json:
        print_json(dataclasses.asdict(pushed))
    elif not quiet:
        show(render_pushed(pushed))
