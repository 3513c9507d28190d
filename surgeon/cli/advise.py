"""Define the command ``advise``, which suggests how to fine-tune."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from surgeon.cli import options
from surgeon.cli.catalog import print_json
from surgeon.cli.outputs import refuse_to_replace
from surgeon.errors import RecipeError

if TYPE_CHECKING:
    from surgeon.plugins import Plugins


def advise(
    context: typer.Context,
    data: options.Data,
    model: Annotated[
        str | None,
        typer.Option(
            "--model",
            metavar="MODEL",
            help="The trained network: a checkpoint file, a folder, torchvision/NAME@WEIGHTS or hf:ORG/NAME.",
            show_default=False,
        ),
    ] = None,
    output: Annotated[
        Path,
        typer.Option("-o", "--output", metavar="RECIPE", help="Where to write the recipe, with the picture beside it."),
    ] = Path("advised.yaml"),
    at: Annotated[
        list[str] | None,
        typer.Option(
            "--at",
            metavar="SELECTOR",
            help="Examine these sites, in the order in which they run, instead of the blocks and the head's input. "
            "Repeatable.",
        ),
    ] = None,
    large: Annotated[
        int, typer.Option("--large", min=1, help="The number of samples per class from which data counts as large.")
    ] = 100,
    samples: Annotated[int, typer.Option("--samples", min=4, help="The most labelled samples to examine.")] = 2000,
    arch: options.Arch = None,
    seed: options.Seed = None,
    plugin: options.PluginNames = None,
    key: options.Key = None,
    trust_pickle: options.TrustPickle = False,
    trust_code: options.TrustCode = None,
    force: options.Force = False,
    as_json: options.Json = False,
    quiet: options.Quiet = False,
    debug: options.Debug = False,
) -> None:
    """Suggest how to fine-tune a network for given data.

    The features of each block are scored by how well they predict the new labels: with LogME and with a cross-validated
    linear probe, compared with features of untrained weights. The scores and the amount of data give one of four cases
    (small or large, similar or different), and the case gives a recipe.
    """
    from surgeon.recipe.data_argument import data_request

    plugins: Plugins = context.obj
    request = data_request(data, plugins)
    if model is None and "model" not in request.top:
        raise RecipeError("no model is given", where=data, hint="name it: --model MODEL")
    refuse_to_replace(output, output.with_suffix(".svg"), force=force)
    from surgeon.advising.advise import advise as advise_on
    from surgeon.cli.render.advice import render_advice
    from surgeon.cli.render.consoles import show
    from surgeon.cli.render.progress import TerminalProgress

    advice = advise_on(
        model,
        request,
        at=at,
        large=large,
        samples=samples,
        folder=output.parent,
        arch=arch,
        seed=seed,
        key=key,
        trust_pickle=trust_pickle,
        trust_code=trust_code or (),
        plugins=plugins,
        progress=TerminalProgress(quiet=quiet or as_json),
    )
    recipe, picture = advice.save(output, force=force)
    if as_json:
        print_json({**advice.to_dict(), "recipe": str(recipe), "picture": str(picture)})
    elif not quiet:
        show(render_advice(advice, str(recipe), str(picture), _command(recipe, model or request.top["model"], arch)))


def _command(recipe: Path, model: str, arch: str | None) -> str:
    """Return the command that applies the recipe, with ``--trust-code`` for the code that it names."""
    modules = [text.split(":")[1] for text in (model, arch or "") if text.startswith("python:")]
    return " ".join([f"surgeon apply {recipe}", *(f"--trust-code {module}" for module in dict.fromkeys(modules))])
