"""Using a network: ``predict``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from surgeon.cli import options
from surgeon.cli.catalog import print_json
from surgeon.cli.outputs import refuse_to_replace, write_table
from surgeon.errors import OutputError, SurgeonError

if TYPE_CHECKING:
    from surgeon.plugins import Plugins

SHOWN = 10
"""How many samples a person is shown."""


def predict(
    context: typer.Context,
    artifact: Annotated[
        str, typer.Argument(metavar="ARTIFACT", help="What apply or train wrote, or any model.", show_default=False)
    ],
    samples: options.Samples = None,
    data: options.MoreSamples = None,
    output: Annotated[
        Path | None,
        typer.Option("-o", "--output", metavar="OUT.csv", help="Write all samples to a table.", show_default=False),
    ] = None,
    add_classes: Annotated[
        Path | None,
        typer.Option(
            "--add-classes",
            metavar="TABLE.csv",
            help="For a head that scores by attributes: score the classes of this table too, though never seen.",
            show_default=False,
        ),
    ] = None,
    only: Annotated[bool, typer.Option("--only", help="Score the added classes alone.")] = False,
    called: Annotated[
        str | None,
        typer.Option("--of", metavar="NAME", help="Which output; the network's own if left out.", show_default=False),
    ] = None,
    classes: options.Classes = None,
    part: options.Part = None,
    on_error: options.OnError = "fail",
    batch_size: options.BatchSize = 64,
    device: options.Device = None,
    arch: options.Arch = None,
    key: options.Key = None,
    seed: options.Seed = None,
    plugin: options.PluginNames = None,
    trust_pickle: options.TrustPickle = False,
    trust_code: options.TrustCode = None,
    trust_recipe: options.TrustTokenizer = False,
    force: options.Force = False,
    as_json: options.Json = False,
    quiet: options.Quiet = False,
    debug: options.Debug = False,
) -> None:
    """Say what a network makes of samples, read as in training: a row for each, classes by name.

    Classes and yes/no questions come as probabilities, values as they are. Labels may be missing.
    """
    plugins: Plugins = context.obj
    if only and add_classes is None:
        raise OutputError("--only is of the classes that --add-classes adds, and none are added")
    if output is not None:
        refuse_to_replace(output, force=force)
    given = all_samples(samples, data)
    from surgeon.cli.render.consoles import show, working
    from surgeon.cli.render.predictions import render_predictions
    from surgeon.pipeline import prediction

    with working("predicting", quiet=quiet or as_json):
        predicted = prediction.predict(
            artifact,
            given,
            output=called,
            classes=split_names(classes),
            part=part,
            on_error=on_error,
            add_classes=add_classes,
            only=only,
            batch_size=batch_size,
            device=device,
            arch=arch,
            seed=seed,
            key=key,
            trust_pickle=trust_pickle,
            trust_code=trust_code or (),
            trust_recipe=trust_recipe,
            plugins=plugins,
        )
    if output is not None:
        write_table(output, predicted.to_table())
    if as_json:
        print_json({**predicted.to_dict(), "table": str(output) if output else None})
    elif not quiet:
        show(render_predictions(predicted, SHOWN, str(output) if output else None))


def all_samples(samples: list[str] | None, data: list[str] | None) -> list[str]:
    """What is named behind the model and by ``--data``.

    Raises:
        SurgeonError: Nothing is.
    """
    given = [*(samples or ()), *(data or ())]
    if not given:
        error = SurgeonError("no data are named", hint="as in: surgeon predict ARTIFACT pictures/")
        error.exit_code = 2
        raise error
    return given


def split_names(given: str | None) -> list[str] | None:
    """Class names that are written with commas between them."""
    return None if given is None else [name.strip() for name in given.split(",")]
