"""Define the commands that operate on a model: ``apply`` and ``plan``."""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from surgeon.cli import options
from surgeon.cli.catalog import print_json
from surgeon.cli.outputs import tidy
from surgeon.cli.startup.lazy_imports import defer
from surgeon.errors import RecipeError
from surgeon.pages.place import check_page, save_page

if TYPE_CHECKING:
    from surgeon.recipe.load import Recipe

Output = Annotated[
    Path | None,
    typer.Option(
        "-o",
        "--output",
        metavar="OUT",
        help="A folder, a .safetensors or a .pt file. Default: out/RECIPE.",
        show_default=False,
    ),
]


def apply(
    context: typer.Context,
    recipe: options.RecipeFile,
    model: options.MaybeModel = None,
    output: Output = None,
    arch: options.Arch = None,
    settings: options.Settings = None,
    seed: options.Seed = None,
    plugin: options.PluginNames = None,
    key: options.Key = None,
    trust_pickle: options.TrustPickle = False,
    trust_code: options.TrustCode = None,
    force: options.Force = False,
    no_train: Annotated[bool, typer.Option("--no-train", help="Ignore the recipe's train: section.")] = False,
    as_json: options.Json = False,
    quiet: options.Quiet = False,
    debug: options.Debug = False,
) -> None:
    """Operate on a model and write the result.

    If the recipe has a train: section, the network is fine-tuned before it is written. An existing output is replaced
    only with --force.
    """
    silent = quiet or as_json
    read = _read(context, recipe, model, settings)
    if read.train is None or no_train:
        defer()
    from surgeon.cli.interrupts import restart_hint
    from surgeon.cli.render.consoles import show
    from surgeon.cli.render.outcomes import render_saved, render_training
    from surgeon.cli.render.progress import TerminalProgress
    from surgeon.pipeline.run import run_recipe

    path = output or Path("out") / recipe.stem
    tidy(path, quiet=silent)
    trains = read.train is not None and not no_train
    with restart_hint() if trains else nullcontext():
        report = run_recipe(
            model,
            read,
            path,
            train=not no_train,
            force=force,
            arch=arch,
            seed=seed,
            key=key,
            trust_pickle=trust_pickle,
            trust_code=trust_code or (),
            plugins=context.obj,
            progress=TerminalProgress(quiet=silent),
            quiet=silent,
        )
    if as_json:
        print_json(report.to_dict())
    elif not quiet:
        if report.training is not None:
            show(render_training(report.training))
        show(render_saved(report.output, report.reload))


def plan(
    context: typer.Context,
    recipe: options.RecipeFile,
    model: options.MaybeModel = None,
    arch: options.Arch = None,
    settings: options.Settings = None,
    seed: options.Seed = None,
    plugin: options.PluginNames = None,
    key: options.Key = None,
    trust_pickle: options.TrustPickle = False,
    trust_code: options.TrustCode = None,
    html: options.Html = None,
    as_json: options.Json = False,
    quiet: options.Quiet = False,
    debug: options.Debug = False,
) -> None:
    """Show what surgery would change.

    Reads no weights and writes nothing.
    """
    if html is not None:
        check_page(html)
    read = _read(context, recipe, model, settings)
    if read.train is None:
        defer()
    from surgeon.cli.render.consoles import show, show_page, working
    from surgeon.cli.render.plans import render_plan

    with working("reading the model and planning", quiet=quiet or as_json):
        from surgeon.pipeline.planning import prepare_plan

        opening: dict[str, Any] = {
            "arch": arch,
            "key": key,
            "trust_pickle": trust_pickle,
            "trust_code": trust_code or (),
            "plugins": context.obj,
        }
        prepared = prepare_plan(model, read, seed=seed, **opening)
        if html is not None:
            from surgeon.pages.write import page_of_plan

            save_page(html, page_of_plan(prepared, model if model is not None else read.model or "", **opening))
    if as_json:
        print_json(prepared.plan.to_dict())
    elif not quiet:
        show(render_plan(prepared.plan))
        show_page(html)


def _read(context: typer.Context, path: Path, model: str | None, settings: list[str] | None) -> Recipe:
    """Load the recipe, so that its mistakes are reported before torch is imported."""
    from surgeon.recipe.load import load_recipe

    recipe = load_recipe(path, overrides=settings or (), plugins=context.obj)
    if model is None and recipe.model is None:
        hint = f"give one: {context.command_path} {path} MODEL, or write model: in the recipe"
        raise RecipeError("no model is given", where=str(path), hint=hint)
    return recipe
