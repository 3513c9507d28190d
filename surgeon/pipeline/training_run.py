"""Run the command ``train`` as a function: train an artifact, or a model after a recipe's operations."""

from __future__ import annotations

import dataclasses
import os
import tempfile
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from torch import nn

from surgeon.architectures.trust import TrustCode, with_trust
from surgeon.checkpoint.artifact import check_output
from surgeon.checkpoint.artifact_files import MANIFEST, RECIPE
from surgeon.checkpoint.scratch import remove
from surgeon.errors import OutputError, RecipeError, name_nearest_option
from surgeon.interfaces.record import record_of
from surgeon.pipeline import api as engine
from surgeon.pipeline.check_settings import check_training
from surgeon.pipeline.check_task import check_task
from surgeon.pipeline.finetune import Trainee, ready, train_ready
from surgeon.pipeline.prepare import Operations, as_recipe, prepare
from surgeon.pipeline.run_report import RunProgress, RunReport
from surgeon.pipeline.teacher import load_before
from surgeon.pipeline.trained_artifact import save_trained
from surgeon.plugins import Plugins, as_plugins
from surgeon.recipe.load import Recipe, load_recipe, operation_dict
from surgeon.recipe.reach import reaches
from surgeon.recipe.recorded import recorded_operations
from surgeon.recipe.recorded_plugins import refuse_missing_parts
from surgeon.recipe.train_settings import TrainSettings
from surgeon.surgery.opened import OpenOptions
from surgeon.surgery.replay import open_from
from surgeon.training.checkpoints import RUN

FILES = (".safetensors", ".pt")


@name_nearest_option
def run_training(
    model: str | Path | None,
    operations: Operations | None,
    output: str | Path,
    *,
    overrides: Sequence[str] = (),
    resume: bool = False,
    force: bool = False,
    arch: str | None = None,
    seed: int | None = None,
    key: str | None = None,
    trust_pickle: bool = False,
    trust_code: TrustCode = (),
    trust_recipe: bool = False,
    plugins: Plugins | Sequence[str] | None = None,
    progress: RunProgress | None = None,
    quiet: bool = True,
) -> RunReport:
    """Train an artifact, or a model after a recipe's operations; write the result as an artifact and check it.

    A recipe's operations are applied first, unless the artifact has them already. Checkpoints are in
    ``OUTPUT.checkpoints``: one per epoch, of which the last is kept, unless ``arguments: {save_strategy: …}`` says
    otherwise. Under ``torchrun`` every process calls this function, and the first one writes.

    Args:
        model: An artifact, or the model to operate on; None for the recipe's ``model``.
        operations: The recipe to train by; None for the artifact's own recipe.
        output: A folder, a ``.safetensors`` or a ``.pt`` file; it must not exist unless ``force``.
        overrides: Values to set in the artifact's recipe, such as ``train.epochs=3``; see :func:`surgeon.load_recipe`
            for recipes in files.
        resume: Whether to continue an interrupted training from its last checkpoint, with the same resulting weights.
        force: Whether to replace an existing output, and the checkpoints of an interrupted training.
        arch: What builds the network, if neither the source nor the recipe says.
        seed: The seed of training and of new values, overriding the recipe's.
        key: Which of several state dicts in the source to use.
        trust_pickle: Whether pickles in the source may run code.
        trust_code: Modules, named in the recipe or a manifest (``python:package.module:function``), that may run.
        trust_recipe: Whether the recipe inside an artifact may read files elsewhere and use the network.
        plugins: The plugins, or files and modules to load beside the built-in and installed ones (the default).
        progress: Called during the run.
        quiet: Whether to show no progress bar while training.

    Raises:
        RecipeError: The recipe has mistakes, or no ``train:`` section.
        OutputError: The output exists, or ``model`` is not an artifact and there is no recipe.
        TrainingError: Settings, data and model do not fit together, or there is no run to resume.
    """
    plugins, progress, path = as_plugins(plugins), progress or RunProgress(), Path(output)
    plugins = with_trust(plugins, trust_code, model, arch)
    recipe = as_recipe(operations, plugins) if operations is not None else recipe_of_artifact(model, overrides, plugins)
    plugins = with_trust(plugins, (), *recipe.typed)
    if operations is None and model is not None and not trust_recipe:
        _refuse_outside_resources(recipe, Path(model))
    if operations is not None and overrides:
        raise RecipeError("overrides are for the artifact's own recipe", hint="load_recipe(path, overrides=...)")
    settings = recipe.train
    if settings is None:
        raise RecipeError(
            "the recipe has no train: section",
            where=str(model if operations is None else recipe.path or "the recipe"),
            hint="use a recipe that has one: surgeon train RECIPE ARTIFACT",
        )
    with progress.step("checking the training settings"):
        check_training(recipe, plugins, on_this_machine=True)
    folder = path.with_name(f"{path.name}.checkpoints")
    if is_first_process():
        check_output(path, force=force or resume, inputs=[])
        _check_folder(folder, resume=resume, force=force)
    with progress.step("reading the model"):
        options = OpenOptions(arch=arch, key=key, trust_pickle=trust_pickle, plugins=plugins)
        trainee = _trainee(recipe, model, options, seed, own_recipe=operations is None)
    if is_first_process():
        tensors = (*trainee.model.parameters(), *trainee.model.buffers())
        nbytes = sum(tensor.nbytes for tensor in tensors)
        check_output(path, force=force or resume, inputs=trainee.inputs, nbytes=nbytes)
    report = train_ready(
        trainee, settings, plugins=plugins, folder=folder, checkpoints=True, resume=resume, quiet=quiet
    )
    if not is_first_process():
        return RunReport(path, None, report, None)
    reload = save_trained(trainee, report, path, force, plugins, progress, resume=resume)
    _remove_checkpoints(folder, settings)
    return RunReport(path, None, report, reload)


def is_first_process() -> bool:
    """Return whether this process writes: the first of those that ``torchrun`` started, or a single process."""
    return os.environ.get("RANK", "0") == "0"


def is_artifact(path: str | Path) -> bool:
    """Return whether ``path`` looks like an artifact rather than a recipe."""
    path = Path(path)
    return (path / MANIFEST).is_file() or (path.is_file() and path.suffix in FILES)


def recipe_of_artifact(path: str | Path | None, overrides: Sequence[str], plugins: Plugins) -> Recipe:
    """Load the last recipe that was applied to make an artifact.

    Args:
        path: The artifact.
        overrides: Values to set in the recipe, such as ``train.epochs=3``.
        plugins: The plugins with its operations and sources.

    Raises:
        OutputError: ``path`` is not an artifact.
        RecipeError: The recipe, with the overrides, has mistakes.
    """
    record = OpenOptions(plugins=plugins).source(path).record if path is not None and is_artifact(path) else None
    if path is None or record is None or not record.surgeries:
        raise OutputError(f"{path} is not an artifact of surgeon", hint="give a recipe: surgeon train RECIPE MODEL")
    last = record.surgeries[-1]
    needed, recorded = last.plugins, recorded_operations(last, plugins, source=f"{path}: its manifest")
    if Path(path).is_dir():
        text = Path(path) / RECIPE
        recipe = load_recipe(text, overrides=overrides, plugins=plugins, needed=needed, recorded=recorded)
        refuse_missing_parts(record, recipe, plugins, str(path))
        return recipe
    with tempfile.TemporaryDirectory(prefix="surgeon-") as scratch:
        copy = Path(scratch) / RECIPE
        copy.write_text(last.text, encoding="utf-8")
        recipe = load_recipe(copy, overrides=overrides, plugins=plugins, needed=needed, recorded=recorded)
        refuse_missing_parts(record, recipe, plugins, str(path))
        return recipe


def _trainee(
    recipe: Recipe, model: str | Path | None, options: OpenOptions, seed: int | None, *, own_recipe: bool
) -> Trainee:
    """Load the network to train; apply the recipe's operations, unless the artifact has them already."""
    chosen = model if model is not None else recipe.model
    if chosen is None:
        raise RecipeError("no model is given", hint="give one: surgeon train RECIPE MODEL")
    if is_artifact(chosen):
        options = dataclasses.replace(options, arch=options.arch or recipe.arch)
        source = options.source(chosen)
        past = source.record.surgeries[-1] if source.record and source.record.surgeries else None
        applied = past is not None and (
            past.operations == [operation_dict(step) for step in recipe.operations]
            or recorded_operations(past, options.plugins) == recipe.operations
        )
        if past is not None and (own_recipe or applied):
            network = engine.load_opened(open_from(source, options))
            record = record_of(network)
            assert record is not None  # load attaches it
            operations = recorded_operations(record.surgeries[-1], options.plugins)
            default = record.surgeries[-1].seed if own_recipe else recipe.seed
            files = source.checkpoint.files if source.checkpoint else []
            before = None if recipe.model is None else partial(_before, recipe.model, recipe.arch, options)
            return Trainee(network, record, source, operations, default if seed is None else seed, files, before)
    arch = options.arch if isinstance(options.arch, str) else None
    prepared = prepare(
        chosen,
        recipe,
        arch=arch,
        seed=seed,
        key=options.key,
        trust_pickle=options.trust_pickle,
        plugins=options.plugins,
    )
    assert recipe.train is not None  # the caller has checked
    check_task(prepared, recipe.train)
    return ready(prepared)


def _before(model: str, arch: str | None, options: OpenOptions) -> nn.Module:
    """Load the model that the recipe names as what it is applied to; no pickle in it is executed."""
    options = dataclasses.replace(options, arch=arch, key=None, trust_pickle=False)
    return load_before(options.source(model), options)


def _refuse_outside_resources(recipe: Recipe, artifact: Path) -> None:
    """Refuse an artifact's recipe that reads files elsewhere or uses the network.

    Code is controlled by ``trust_code``. Resources that training does not use are not checked: the model that the
    artifact was made from, and donors whose tensors the artifact already has.
    """
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
            f"the recipe inside it uses {', '.join(map(str, beyond[:4]))}",
            where=str(artifact),
            hint="if you trust it: --trust-recipe; or train by your own recipe: surgeon train RECIPE ARTIFACT",
        )


def _check_folder(folder: Path, *, resume: bool, force: bool) -> None:
    if (folder / RUN).exists() and not (resume or force):
        raise OutputError(f"{folder} has an interrupted training", hint="--resume continues it; --force starts over")


def _remove_checkpoints(folder: Path, settings: TrainSettings) -> None:
    """Remove checkpoints that were written only for resuming; keep those that the settings ask for."""
    checkpoints = [] if settings.arguments.get("save_strategy", "no") != "no" else list(folder.glob("checkpoint-*"))
    if {*folder.iterdir()} <= {folder / RUN, *checkpoints}:
        remove(folder)
        return
    (folder / RUN).unlink(missing_ok=True)
    for checkpoint in checkpoints:
        remove(checkpoint)
