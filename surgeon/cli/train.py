"""Define the command ``train``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from surgeon.cli import options
from surgeon.cli.catalog import print_json
from surgeon.cli.outputs import tidy
from surgeon.errors import OutputError


def train(
    context: typer.Context,
    path: Annotated[
        Path, typer.Argument(metavar="ARTIFACT|RECIPE", help="The output of apply, or a recipe.", show_default=False)
    ],
    model: Annotated[
        str | None,
        typer.Argument(
            metavar="[MODEL]",
            help="With a recipe: the artifact to train, or the model to operate on.",
            show_default=False,
        ),
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option(
            "-o",
            "--output",
            metavar="OUT",
            help="A folder, a .safetensors or a .pt file. Default: out/ARTIFACT-trained or out/RECIPE.",
            show_default=False,
        ),
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Resume an interrupted training of OUT.")] = False,
    arch: options.Arch = None,
    settings: options.Settings = None,
    seed: options.Seed = None,
    plugin: options.PluginNames = None,
    key: options.Key = None,
    trust_pickle: options.TrustPickle = False,
    trust_code: options.TrustCode = None,
    trust_recipe: Annotated[
        bool,
        typer.Option("--trust-recipe", help="Allow the artifact's recipe to read files and use the network."),
    ] = False,
    force: options.Force = False,
    as_json: options.Json = False,
    quiet: options.Quiet = False,
    debug: options.Debug = False,
) -> None:
    """Train a network as the recipe's train: section says.

    An artifact is trained by its own recipe or by the given one. A recipe's operations are applied first, unless the
    artifact has them already. Checkpoints are in OUT.checkpoints (one per epoch, the last is kept, unless arguments:
    {save_strategy: …} says otherwise). --resume continues from the last one, with the same resulting weights. torchrun
    -m surgeon train … trains with several processes.
    """
    from surgeon.cli.interrupts import resume_hint
    from surgeon.cli.render.consoles import show
    from surgeon.cli.render.outcomes import render_saved, render_training
    from surgeon.cli.render.progress import TerminalProgress
    from surgeon.pipeline.training_run import is_artifact, is_first_process, run_training
    from surgeon.recipe.load import load_recipe

    silent = quiet or as_json or not is_first_process()
    if is_trained_itself := is_artifact(path):
        if model is not None:
            raise OutputError(
                f"{path} is an artifact and {model} a second model; only one can be trained",
                hint=f"surgeon train {path}, or surgeon train RECIPE {path}",
            )
        model = str(path)
    out = output or Path("out") / (f"{path.stem}-trained" if is_trained_itself else path.stem)
    if is_first_process():
        tidy(out, quiet=silent)
    with resume_hint(out.with_name(f"{out.name}.checkpoints")):
        report = run_training(
            model,
            None if is_trained_itself else load_recipe(path, overrides=settings or (), plugins=context.obj),
            out,
            overrides=settings or () if is_trained_itself else (),
            resume=resume,
            force=force,
            arch=arch,
            seed=seed,
            key=key,
            trust_pickle=trust_pickle,
            trust_code=trust_code or (),
            trust_recipe=trust_recipe,
            plugins=context.obj,
            progress=TerminalProgress(quiet=silent),
            quiet=silent,
        )
    if not is_first_process() or report.training is None:
        return
    if as_json:
        print_json(report.to_dict())
    elif not quiet:
        show(render_training(report.training))
        show(render_saved(report.output, report.reload))
