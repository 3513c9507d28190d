"""Define the command ``evaluate``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from surgeon.cli import options
from surgeon.cli.catalog import print_json
from surgeon.cli.outputs import refuse_to_replace, write_text
from surgeon.cli.predict import all_samples, split_names

if TYPE_CHECKING:
    from surgeon.plugins import Plugins


def evaluate(
    context: typer.Context,
    artifact: Annotated[
        str, typer.Argument(metavar="ARTIFACT", help="The output of apply or train, or any model.", show_default=False)
    ],
    samples: options.Samples = None,
    data: options.MoreSamples = None,
    output: Annotated[
        Path | None,
        typer.Option("-o", "--output", metavar="OUT.json", help="Write all metrics as JSON.", show_default=False),
    ] = None,
    classes: options.Classes = None,
    part: options.Part = None,
    on_error: options.OnError = "fail",
    batch_size: options.BatchSize = 64,
    metric: Annotated[
        list[str] | None,
        typer.Option(
            "--metric",
            metavar="NAME",
            help="A metric to add: calibration_error, or a plugin's. May be repeated.",
            show_default=False,
        ),
    ] = None,
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
    """Evaluate a network on labelled data, read as in training.

    Classes: accuracy, balanced accuracy, per-class scores, confusion matrix. Yes/no questions: AUROC, average
    precision. Values: R², MAE, RMSE. Texts of a language model: perplexity.
    """
    plugins: Plugins = context.obj
    if output is not None:
        refuse_to_replace(output, force=force)
    all_data = all_samples(samples, data)
    import json

    from surgeon.cli.render.consoles import show, working
    from surgeon.cli.render.evaluations import render_evaluation
    from surgeon.pipeline import evaluation

    with working("evaluating", quiet=quiet or as_json):
        result = evaluation.evaluate(
            artifact,
            all_data,
            classes=split_names(classes),
            part=part,
            on_error=on_error,
            batch_size=batch_size,
            metrics=metric or (),
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
        write_text(output, json.dumps(result.to_dict(), indent=2, ensure_ascii=False) + "\n")
    if as_json:
        print_json(result.to_dict())
    elif not quiet:
        show(render_evaluation(result))
