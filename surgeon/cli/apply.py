"""Surgery: ``apply`` and ``plan``."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from surgeon.cli import options
from surgeon.cli.catalog import print_json
from surgeon.cli.startup.lazy_imports import defer
from surgeon.errors import RecipeError

if TYPE_CHECKING:
    from surgeon.pipeline.prepare import Prepared
    from surgeon.recipe.load import Recipe

Output = Annotated[
    Path | None,
    typer.Option(
        "-o",
        "--output",
        metavar="OUT",
        help="A folder, a .safetensors or a .pt file; out/RECIPE if left out.",
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
    force: options.Force = False,
    no_train: Annotated[bool, typer.Option("--no-train", help="Leave the recipe's train: section out.")] = False,
    as_json: options.Json = False,
    quiet: options.Quiet = False,
    debug: options.Debug = False,
) -> None:
    """Operate on a model and write the result.

    The recipe's train: section, if it has one, fine-tunes the network in between. What lies at the output
    is never replaced without --force.
    """
    silent = quiet or as_json
    read = _read(context, recipe, model, settings)
    _check_training(context, read, here=True, leave=no_train, silent=silent)
    if read.train is None or no_train:
        defer()
    from surgeon.checkpoint.artifact import check_output
    from surgeon.cli.render.consoles import counting, show, working
    from surgeon.cli.render.outcomes import render_saved, render_training
    from surgeon.cli.render.plans import render_plan
    from surgeon.pipeline.companions import left_behind
    from surgeon.pipeline.reload_check import check_in_memory, check_streamed

    path = output or Path("out") / recipe.stem
    check_output(path, force=force, inputs=[])
    told = as_json or not quiet
    prepared = _prepare(context, read, model, arch, seed, key, trust_pickle, silent, outputs=told)
    check_output(path, force=force, inputs=prepared.inputs)
    if not silent:
        show(render_plan(prepared.plan))
    training = None
    if read.train is None or no_train:
        with counting("writing", prepared.plan.bytes_written, quiet=silent) as progress:
            prepared.write(path, force=force, progress=progress)
        with working("loading it again", quiet=silent):
            checked = check_streamed(prepared, path, context.obj)
    else:
        from surgeon.pipeline.finetune import checkpoints_beside, finetune, ready, save_curve, save_trained

        folder = checkpoints_beside(path, read.train, force=force)
        with counting("reading", prepared.plan.bytes_written, quiet=silent) as progress:
            trainee = ready(prepared, progress)
        edited, training = finetune(trainee, read.train, plugins=context.obj, checkpoints=folder, quiet=silent)
        save_trained(edited, prepared, path, force=force)
        save_curve(training, path)
        with working("loading it again", quiet=silent):
            checked = check_in_memory(edited, prepared, path, context.obj)
    if as_json:
        report = training.to_dict() if training else None
        print_json(
            {
                "output": str(path),
                "plan": prepared.plan.to_dict(),
                "training": report,
                "reloaded": dataclasses.asdict(checked),
            }
        )
    elif not quiet:
        if training is not None:
            show(render_training(training))
        show(render_saved(path, checked))
        if note := left_behind(path, prepared.record.companions):
            show(note)


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
    as_json: options.Json = False,
    quiet: options.Quiet = False,
    debug: options.Debug = False,
) -> None:
    """Show what surgery would change.

    No weight is read and nothing is written.
    """
    read = _read(context, recipe, model, settings)
    _check_training(context, read, here=False, silent=quiet or as_json)
    defer()
    from surgeon.cli.render.consoles import show
    from surgeon.cli.render.plans import render_plan

    prepared = _prepare(context, read, model, arch, seed, key, trust_pickle, quiet or as_json)
    if as_json:
        print_json(prepared.plan.to_dict())
    elif not quiet:
        show(render_plan(prepared.plan))


def _read(context: typer.Context, path: Path, model: str | None, settings: list[str] | None) -> Recipe:
    """The recipe, with every mistake of it told before torch is imported."""
    from surgeon.recipe.load import load_recipe

    recipe = load_recipe(path, overrides=settings or (), plugins=context.obj)
    if model is None and recipe.model is None:
        hint = f"name one: {context.command_path} {path} MODEL, or write model: in the recipe"
        raise RecipeError("there is no model to operate on", where=str(path), hint=hint)
    return recipe


def _check_training(context: typer.Context, recipe: Recipe, *, here: bool, silent: bool, leave: bool = False) -> None:
    """Tell what is wrong with the recipe's train: section before anything is loaded."""
    if recipe.train is None or leave:
        return
    from surgeon.cli.check_settings import check_training
    from surgeon.cli.render.consoles import working

    with working("checking the training settings", quiet=silent):
        check_training(recipe, context.obj, here=here)


def _prepare(
    context: typer.Context,
    recipe: Recipe,
    model: str | None,
    arch: str | None,
    seed: int | None,
    key: str | None,
    trust_pickle: bool,
    silent: bool,
    *,
    outputs: bool = True,
) -> Prepared:
    from surgeon.cli.render.consoles import working

    given: dict[str, Any] = {"arch": arch, "seed": seed, "key": key, "trust_pickle": trust_pickle}
    with working("reading the model and planning", quiet=silent):
        from surgeon.pipeline.prepare import prepare

        return prepare(model, recipe, plugins=context.obj, outputs=outputs, **given)
