"""Edit a skeleton for a plan: what :func:`surgeon.plan` returns a part of, and a page draws."""

from __future__ import annotations

from typing import Any

from surgeon.pipeline.check_settings import check_training
from surgeon.pipeline.prepare import Operations, Prepared, as_recipe, prepare
from surgeon.plugins import Plugins
from surgeon.surgery.opened import Model


def prepare_plan(model: Model | None, operations: Operations, *, plugins: Plugins, **options: Any) -> Prepared:
    """Edit the skeleton; check a recipe's ``train:`` section as far as possible without its data.

    Args:
        model: The network; None for the recipe's ``model``.
        operations: A recipe, the path of one, one operation, or several.
        plugins: The plugins.
        **options: As for :func:`surgeon.plan`.
    """
    recipe = as_recipe(operations, plugins)
    if recipe.train is not None:
        check_training(recipe, plugins, on_this_machine=False)
    return prepare(model, recipe, plugins=plugins, planning=True, **options)
