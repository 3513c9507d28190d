"""Using a network: ``predict``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from surgeon.cli import options
from surgeon.cli.catalog import print_json
from surgeon.cli.outputs import refuse_to_replace, write_table
from surgeon.errors import OutputError

if TYPE_CHECKING:
    from surgeon.plugins import Plugins

SHOWN = 10
"""How many samples a person is shown."""


def predict(
    context: typer.Context,
    artifact: Annotated[
        str, typer.Argument(metavar="ARTIFACT", help="What apply or train wrote, or any model.", show_default=False)
    ],
    data: options.Data,
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
    part: Annotated[Literal["test", "train"], typer.Option("--part", help="Which samples of the data.")] = "test",
    arch: options.Arch = None,
    seed: options.Seed = None,
    plugin: options.PluginNames = None,
    trust_pickle: options.TrustPickle = False,
    trust_code: options.TrustCode = None,
    force: options.Force = False,
    as_json: options.Json = False,
    quiet: options.Quiet = False,
    debug: options.Debug = False,
) -> None:
    """Say what a network makes of samples.

    Classes and yes/no questions come as probabilities, values as they are, a row for each sample.
    """
    from surgeon.advising.asking import asked_for
    from surgeon.architectures.trust import with_trust

    plugins: Plugins = with_trust(context.obj, trust_code or (), artifact, arch)
    if only and add_classes is None:
        raise OutputError("--only is of the classes that --add-classes adds, and none are added")
    asked = asked_for(data, plugins)
    if output is not None:
        refuse_to_replace(output, force=force)
    from surgeon.cli.render.consoles import show, working
    from surgeon.cli.render.predictions import render_predictions
    from surgeon.interfaces.record import record_of
    from surgeon.nn.attribute_table import mapping_of, read_table
    from surgeon.nn.zero_shot import with_classes
    from surgeon.pipeline import api as engine
    from surgeon.recipe.load import operations_from
    from surgeon.training.class_names import network_of
    from surgeon.training.load_splits import load_splits, prepared_as, sources_of
    from surgeon.training.predicting import predict as run

    with working("reading the model and the data", quiet=quiet or as_json):
        model = engine.load(artifact, arch=arch, trust_pickle=trust_pickle, plugins=plugins)
        record = record_of(model)
        past = [each for surgery in (record.surgeries if record else []) for each in surgery.operations]
        if add_classes is not None:
            model = with_classes(model, mapping_of(read_table(add_classes)), only=only)
        drawn = asked.top.get("seed", 0) if seed is None else seed
        network = prepared_as(network_of(model, partial=True), model, sources_of(asked.settings))
        splits = load_splits(asked.settings, drawn, network)
    with working("predicting", quiet=quiet or as_json):
        operations = operations_from(past, plugins) if past else []
        found = run(model, splits, operations, part=part, output=called)
    if output is not None:
        write_table(output, [found.header, *found.rows()])
    if as_json:
        print_json(
            {
                "output": found.output,
                "kind": found.kind,
                "names": list(found.names),
                "values": found.values.tolist(),
                "labels": found.labels,
                "table": str(output) if output else None,
            }
        )
    elif not quiet:
        show(render_predictions(found, SHOWN, str(output) if output else None))
