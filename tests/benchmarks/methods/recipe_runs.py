"""Recipes of ``recipes/``, carried out in this process as ``surgeon apply`` carries them out."""

from __future__ import annotations

import gc
import sys
import warnings
from functools import cache
from pathlib import Path

import torch
from torch import nn

import surgeon
from surgeon.plugins import Plugins
from surgeon.plugins import load as load_plugins
from surgeon.training.report import TrainReport

RECIPES = Path(__file__).parents[3] / "recipes"
PLUGIN = RECIPES / "digit_sources.py"
"""The recipes' own sources of data."""


def begin() -> None:
    """Make this process fit to run recipes: quiet, one thread, and with the networks of recipes/ importable."""
    warnings.simplefilter("ignore")
    import transformers

    transformers.logging.set_verbosity_error()
    torch.set_num_threads(1)  # sums are split by thread, and so round differently with their number
    if str(RECIPES) not in sys.path:
        sys.path.insert(0, str(RECIPES))
    gc.collect()
    gc.freeze()  # accelerate collects garbage after each training: what is imported by now need not be looked at again


@cache
def plugins() -> Plugins:
    """surgeon's own plugins and that of the recipes, loaded once."""
    return load_plugins([str(PLUGIN)] if PLUGIN.exists() else [])


def run_recipe(
    name: str, seed: int, *overrides: str, model: Path | str | nn.Module | None = None
) -> tuple[nn.Module, TrainReport]:
    """Operate and train as ``surgeon apply recipes/NAME MODEL --seed SEED --set OVERRIDE …`` does.

    Args:
        name: A file of ``recipes/``.
        seed: Draws new weights, the order of samples, and the labelled samples.
        *overrides: As ``train.data.per_class=10``.
        model: What to operate on; the recipe's own ``model`` if left out.

    Returns:
        The trained network, in eval mode, and the report of its training.
    """
    recipe = surgeon.load_recipe(RECIPES / name, overrides=overrides, plugins=plugins())
    assert recipe.train is not None, name
    return surgeon.finetune(model, recipe, seed=seed, plugins=plugins(), trust_code="networks")


def made_by(name: str, seed: int, folder: Path, *overrides: str, model: Path | str | None = None) -> Path:
    """The artifact that a recipe makes, kept in ``folder``, so that it is made once for a seed."""
    path = folder / "-".join([Path(name).stem, *overrides, str(seed)]).replace("/", "_")
    if not path.exists():
        trained, _ = run_recipe(name, seed, *overrides, model=model)
        surgeon.save(trained, path)
    return path


def accuracy(report: TrainReport, output: str = "logits", domain: str = "all") -> float:
    """The accuracy of an output after training, in percent of the test samples (of one domain)."""
    return 100 * report.tasks[output][domain]["accuracy"]
