"""Check a recipe's ``train:`` section before anything is loaded."""

from __future__ import annotations

import tempfile
from pathlib import Path

from surgeon.data.requirements import require
from surgeon.data.sources import Digits
from surgeon.errors import RecipeError, SurgeonError, TrainingError, counted, suggest
from surgeon.plugins import Plugins
from surgeon.recipe.load import Recipe
from surgeon.recipe.train_settings import TrainSettings


def check_training(recipe: Recipe, plugins: Plugins, *, on_this_machine: bool, needs_data: bool = True) -> None:
    """Refuse settings that training would refuse.

    Args:
        recipe: A recipe with a ``train:`` section.
        plugins: The plugins, with their losses and callbacks.
        on_this_machine: Whether training runs on this machine, so that values are checked too: a recipe with bfloat16
            may be planned on a machine without a GPU.
        needs_data: Whether the settings must have data; False if the caller passes datasets.

    Raises:
        TrainingError: Packages that fine-tuning needs are not installed.
        RecipeError: The settings have mistakes; each is in ``problems`` with its position.
    """
    settings = recipe.train
    assert settings is not None  # the caller has checked
    if on_this_machine:
        require("train", "the recipe's train: section")
    problems = [*_in_arguments(recipe, settings, on_this_machine), *_in_losses(recipe, settings, plugins)]
    problems += [*_in_callbacks(recipe, settings, plugins), *_in_metrics(recipe, settings, plugins)]
    if not needs_data:
        pass  # the caller's datasets replace those of the settings
    elif settings.data is None:
        problems.append(_problem(recipe, "needs the key 'data'", "as in: data: {source: digits}", "train"))
    elif on_this_machine:
        problems += _in_data(recipe, settings)
    if problems:
        count = f"{counted(len(problems), 'mistake')} in {recipe.path or 'the recipe'}"
        raise RecipeError(count, problems=problems)


def _in_arguments(recipe: Recipe, settings: TrainSettings, on_this_machine: bool) -> list[SurgeonError]:
    if not (settings.arguments or on_this_machine):
        return []  # avoids the import of transformers
    from surgeon.training.arguments import argument_problems, training_arguments
    from surgeon.training.trackers import key_problems

    listed = argument_problems(settings.arguments)
    if on_this_machine and not listed:
        listed = key_problems(settings.arguments.get("report_to", "none"))
    problems = [_problem(recipe, error.message, error.hint, *(error.where or "").split(".", 2)) for error in listed]
    if on_this_machine and not problems:
        try:
            with tempfile.TemporaryDirectory(prefix="surgeon-") as folder:
                training_arguments(settings, output_dir=Path(folder), seed=recipe.seed)
        except TrainingError as error:
            problems.append(_problem(recipe, error.message, error.hint, *(error.where or "train").split(".", 2)))
    return problems


def _in_callbacks(recipe: Recipe, settings: TrainSettings, plugins: Plugins) -> list[SurgeonError]:
    if not settings.callbacks:
        return []  # avoids the import of transformers
    from surgeon.training.early_stopping import make_callbacks

    problems: list[SurgeonError] = []
    for index, callback in enumerate(settings.callbacks):
        try:
            make_callbacks([callback], plugins.callbacks())
        except TrainingError as error:
            problems.append(_problem(recipe, error.message, error.hint, "train", "callbacks", index))
    return problems


def _in_metrics(recipe: Recipe, settings: TrainSettings, plugins: Plugins) -> list[SurgeonError]:
    if not settings.metrics:
        return []
    from surgeon.training.further_metrics import make_further

    try:
        make_further(settings.metrics, plugins.metrics())
    except TrainingError as error:
        return [_problem(recipe, error.message, error.hint, *(error.where or "").split("."))]
    return []


def _in_losses(recipe: Recipe, settings: TrainSettings, plugins: Plugins) -> list[SurgeonError]:
    losses: list[tuple[str, tuple[str | int, ...]]] = [
        (objective.loss, ("train", "objectives", index, "loss"))
        for index, objective in enumerate(settings.objectives or ())
    ]
    for index, operation in enumerate(recipe.operations):
        losses += [(objective.loss, ("operations", index)) for objective in operation.objectives()]
    available = plugins.losses() if losses else {}
    return [
        _problem(recipe, f"unknown loss {loss!r} (available: {', '.join(available)})", suggest(loss, available), *keys)
        for loss, keys in losses
        if loss not in available
    ]


def _in_data(recipe: Recipe, settings: TrainSettings) -> list[SurgeonError]:
    """Return the mistakes in settings of digits; other data are checked when they are read."""
    from surgeon.data.digits import read_digits

    problems: list[SurgeonError] = []
    for key, sources in (("data", settings.data), ("evaluate", settings.evaluate)):
        for index, source in enumerate(sources if isinstance(sources, list) else [sources]):
            try:
                if isinstance(source, Digits):
                    read_digits(source, recipe.seed)
            except TrainingError as error:
                at = (index,) if isinstance(sources, list) else ()
                problems.append(_problem(recipe, error.message, error.hint, "train", key, *at))
    return problems


def _problem(recipe: Recipe, message: str, hint: str | None, *keys: str | int) -> SurgeonError:
    return RecipeError(f"{'.'.join(map(str, keys))}: {message}", where=recipe.where(*keys), hint=hint)
