"""The command that shows how an artifact was trained: ``train-report``."""

from __future__ import annotations

from typing import Annotated

import typer

from surgeon.cli import options
from surgeon.cli.catalog import print_json
from surgeon.cli.startup.lazy_imports import defer
from surgeon.errors import VerificationError
from surgeon.pages.place import check_page


def train_report(
    context: typer.Context,
    artifact: Annotated[str, typer.Argument(metavar="ARTIFACT", help="What apply or train wrote.", show_default=False)],
    plugin: options.PluginNames = None,
    trust_code: options.TrustCode = None,
    html: options.Html = None,
    as_json: options.Json = False,
    debug: options.Debug = False,
) -> None:
    """Show how an artifact was trained, and how well.

    That is the measures before and after, of each class, and the confusion matrix. The page of --html shows the
    network, the curve and the recipe as well. No weight is read.
    """
    if html is not None:
        check_page(html)
    defer()
    from surgeon.cli.render.consoles import show, show_page, working

    with working("reading the artifact", quiet=as_json):
        from surgeon.pipeline.network_view import inspect

        view = inspect(artifact, trust_code=trust_code or (), plugins=context.obj)
        trainings = view.record.training if view.record else []
        if not trainings:
            raise VerificationError(
                f"{artifact} records no training",
                hint="train-report takes what surgeon apply or train wrote from a recipe with train:",
            )
        if html is not None:
            from surgeon.pages.network import network_page
            from surgeon.pages.place import save_page

            save_page(html, network_page(view))
    if as_json:
        print_json(trainings)
    else:
        from surgeon.cli.render.trainings import render_trainings

        show(render_trainings(trainings))
        show_page(html)
