"""Define the command ``predict``."""

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
"""How many samples to print."""


def predict(
    context: typer.Context,
    artifact: Annotated[
        str, typer.Argument(metavar="ARTIFACT", help="The output of apply or train, or any model.", show_default=False)
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
            help="For a head that scores by attributes: also score the unseen classes of this table.",
            show_default=False,
        ),
    ] = None,
    only: Annotated[bool, typer.Option("--only", help="Score the added classes only.")] = False,
    of: Annotated[
        str | None,
        typer.Option("--of", metavar="NAME", help="Which output. Default: the network's own.", show_default=False),
    ] = None,
    min_score: Annotated[
        float, typer.Option("--min-score", min=0.0, max=1.0, help="For a detector: the least score of a box.")
    ] = 0.5,
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
    """Predict for samples, which are read as in training.

    Each sample has a row, with classes by name. Classes and yes/no questions are given as probabilities, values
    unchanged, boxes in pixels of the picture. Labels may be missing.
    """
    plugins: Plugins = context.obj
    if only and add_classes is None:
        raise OutputError("--only needs --add-classes")
    if output is not None:
        refuse_to_replace(output, force=force)
    all_data = all_samples(samples, data)
    from surgeon.cli.render.consoles import show, working
    from surgeon.cli.render.predictions import render_predictions
    from surgeon.pipeline import prediction

    with working("predicting", quiet=quiet or as_json):
        predicted = prediction.predict(
            artifact,
            all_data,
            output=of,
            classes=split_names(classes),
            part=part,
            on_error=on_error,
            add_classes=add_classes,
            only=only,
            min_score=min_score,
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
    """Join the samples given as arguments and with ``--data``.

    Raises:
        SurgeonError: There are none.
    """
    joined = [*(samples or ()), *(data or ())]
    if not joined:
        error = SurgeonError("no data is given", hint="for example: surgeon predict ARTIFACT pictures/")
        error.exit_code = 2
        raise error
    return joined


def split_names(text: str | None) -> list[str] | None:
    """Split class names at commas."""
    return None if text is None else [name.strip() for name in text.split(",")]
