"""The training loop alone: ``train``."""

from __future__ import annotations

import dataclasses
import os
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from surgeon.cli import options
from surgeon.cli.catalog import print_json
from surgeon.cli.outputs import tidy
from surgeon.errors import OutputError, RecipeError

if TYPE_CHECKING:
    from surgeon.pipeline.finetune import Trainee
    from surgeon.plugins import Plugins
    from surgeon.recipe.load import Recipe
    from surgeon.recipe.train_settings import TrainSettings

MANIFEST = "surgeon.json"
FILES = (".safetensors", ".pt")


def train(
    context: typer.Context,
    what: Annotated[
        Path, typer.Argument(metavar="ARTIFACT|RECIPE", help="What apply wrote, or a recipe.", show_default=False)
    ],
    model: Annotated[
        str | None,
        typer.Argument(
            metavar="[MODEL]", help="With a recipe: the artifact to train, or what to operate on.", show_default=False
        ),
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option(
            "-o",
            "--output",
            metavar="OUT",
            help="A folder, a .safetensors or a .pt file; out/ARTIFACT-trained or out/RECIPE if left out.",
            show_default=False,
        ),
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with an interrupted training of OUT.")] = False,
    arch: options.Arch = None,
    settings: options.Settings = None,
    seed: options.Seed = None,
    plugin: options.PluginNames = None,
    key: options.Key = None,
    trust_pickle: options.TrustPickle = False,
    trust_code: options.TrustCode = None,
    trust_recipe: Annotated[
        bool,
        typer.Option("--trust-recipe", help="Let an artifact's own recipe read files and use the network."),
    ] = False,
    force: options.Force = False,
    as_json: options.Json = False,
    quiet: options.Quiet = False,
    debug: options.Debug = False,
) -> None:
    """Train by a recipe's train: section.

    An artifact is trained by the recipe that it was made with, or by the one that is given; a recipe's operations
    are carried out first, unless the artifact has been through them. While it trains, checkpoints lie in
    OUT.checkpoints (one after every epoch, the last is kept, unless arguments: {save_strategy: …} says otherwise),
    and --resume goes on from there, to the same weights. torchrun -m surgeon train … trains with several processes.
    """
    first = os.environ.get("RANK", "0") == "0"
    silent = quiet or as_json or not first
    from surgeon.architectures.trust import with_trust

    plugins: Plugins = with_trust(context.obj, trust_code or (), model, arch)
    recipe, path = _recipe(what, settings, plugins)
    plugins = with_trust(plugins, (), *recipe.typed)
    if _is_artifact(what) and not trust_recipe:
        _refuse_to_reach(recipe, what)
    if recipe.train is None:
        raise RecipeError(
            "the recipe has no train: section", where=str(what), hint="give one that has: surgeon train RECIPE ARTIFACT"
        )
    from surgeon.checkpoint.artifact import check_output
    from surgeon.cli.check_settings import check_training
    from surgeon.cli.render.consoles import show, working
    from surgeon.cli.render.outcomes import render_saved, render_training
    from surgeon.pipeline.reload_check import check_in_memory

    with working("checking the training settings", quiet=silent):
        check_training(recipe, plugins, here=True)
    made = _is_artifact(what)
    out = output or Path("out") / (f"{path.stem}-trained" if made else path.stem)
    folder = out.with_name(f"{out.name}.checkpoints")
    given = str(what) if made else model
    if first:
        check_output(out, force=force, inputs=[])
        tidy(out, quiet=silent)
        _check_folder(folder, resume=resume, force=force)
    with working("reading the model", quiet=silent):
        trainee, inputs = _trainee(recipe, given, made, arch, seed, key, trust_pickle, plugins)
    if first:
        check_output(out, force=force, inputs=inputs)
    from surgeon.pipeline import api as engine
    from surgeon.pipeline.finetune import save_curve, train_ready

    report = train_ready(
        trainee, recipe.train, plugins=plugins, folder=folder, checkpoints=True, resume=resume, quiet=silent
    )
    if not first:
        return
    checked = []

    def reload(written: Path) -> None:
        with working("loading it again", quiet=silent):
            checked.append(check_in_memory(trainee.model, trainee, written, plugins))

    engine.save(trainee.model, out, force=force, check=reload)
    save_curve(report, out)
    _tidy(folder, recipe.train)
    if as_json:
        print_json({"output": str(out), "training": report.to_dict(), "reloaded": dataclasses.asdict(checked[0])})
    elif not quiet:
        show(render_training(report))
        show(render_saved(out, checked[0]))


def _refuse_to_reach(recipe: Recipe, artifact: Path) -> None:
    """Refuse the recipe inside an artifact that reads files elsewhere or uses the network.

    Code is not looked at here: it has --trust-code. Nor is what training does without: the model that the artifact
    was made from, and the donors of tensors that it holds by now.
    """
    from surgeon.recipe.reach import reaches

    inside = (artifact if artifact.is_dir() else artifact.parent / artifact.stem).resolve()
    beyond = [
        reach
        for reach in reaches(recipe)
        if reach.kind != "code"
        and reach.where not in ("model", "arch")
        and not (reach.where.startswith("operations.") and reach.where.endswith(".donor"))
        and not (reach.kind == "file" and Path(reach.what).resolve().is_relative_to(inside))
    ]
    if beyond:
        raise RecipeError(
            f"the recipe inside it reaches for {', '.join(map(str, beyond[:4]))}",
            where=str(artifact),
            hint="if you trust it: --trust-recipe; or train by a recipe of yours: surgeon train RECIPE ARTIFACT",
        )


def _is_artifact(path: Path) -> bool:
    return (path / MANIFEST).is_file() or (path.is_file() and path.suffix in FILES)


def _recipe(what: Path, settings: list[str] | None, plugins: Plugins) -> tuple[Recipe, Path]:
    """The recipe to train by, and what the output is named after."""
    import tempfile

    from surgeon.recipe.load import load_recipe

    if not _is_artifact(what):
        return load_recipe(what, overrides=settings or (), plugins=plugins), what
    from surgeon.architectures.source import open_source

    record = open_source(what, plugins=plugins).record
    if record is None or not record.surgeries:
        raise OutputError(f"{what} is no artifact of surgeon's", hint="give a recipe: surgeon train RECIPE MODEL")
    needed = record.surgeries[-1].plugins
    if what.is_dir():
        return load_recipe(what / "recipe.yaml", overrides=settings or (), plugins=plugins, needed=needed), what
    with tempfile.TemporaryDirectory(prefix="surgeon-") as scratch:
        copy = Path(scratch) / "recipe.yaml"
        copy.write_text(record.surgeries[-1].text, encoding="utf-8")
        return load_recipe(copy, overrides=settings or (), plugins=plugins, needed=needed), what


def _trainee(
    recipe: Recipe,
    given: str | None,
    made: bool,
    arch: str | None,
    seed: int | None,
    key: str | None,
    trust_pickle: bool,
    plugins: Plugins,
) -> tuple[Trainee, list[Path]]:
    """The network in memory, and the files that it came from."""
    from surgeon.architectures.source import open_source
    from surgeon.interfaces.record import record_of
    from surgeon.pipeline import api as engine
    from surgeon.pipeline.finetune import Trainee, ready
    from surgeon.pipeline.prepare import prepare
    from surgeon.recipe.load import operation_dict, operations_from

    chosen = given if given is not None else recipe.model
    if chosen is None:
        raise RecipeError("there is no model to train", hint="name one: surgeon train RECIPE MODEL")
    if _is_artifact(Path(chosen)):
        built = arch or recipe.arch
        source = open_source(chosen, arch=built, trust_pickle=trust_pickle, key=key, plugins=plugins)
        done = source.record.surgeries[-1].operations if source.record and source.record.surgeries else None
        if made or done == [operation_dict(operation) for operation in recipe.operations]:
            model = engine.load(chosen, arch=built, trust_pickle=trust_pickle, plugins=plugins)
            record = record_of(model)
            assert record is not None  # load attaches it
            operations = operations_from(record.surgeries[-1].operations, plugins)
            own = record.surgeries[-1].seed if made else recipe.seed
            files = source.checkpoint.files if source.checkpoint else []
            return Trainee(model, record, source, operations, own if seed is None else seed), files
    given_options = {"arch": arch, "seed": seed, "key": key, "trust_pickle": trust_pickle}
    prepared = prepare(chosen, recipe, plugins=plugins, **given_options)  # type: ignore[arg-type]
    return ready(prepared), prepared.inputs


def _check_folder(folder: Path, *, resume: bool, force: bool) -> None:
    from surgeon.training.checkpoints import RUN

    if (folder / RUN).exists() and not (resume or force):
        raise OutputError(
            f"an interrupted training lies in {folder}", hint="--resume goes on with it; --force begins anew"
        )


def _tidy(folder: Path, settings: TrainSettings) -> None:
    """Remove checkpoints that were only made to be resumed from; what was asked for stays."""
    from surgeon.training.checkpoints import RUN

    (folder / RUN).unlink(missing_ok=True)
    if settings.arguments.get("save_strategy", "no") == "no":
        for checkpoint in folder.glob("checkpoint-*"):
            shutil.rmtree(checkpoint)
    if not any(folder.iterdir()):
        folder.rmdir()
