"""Check penalties: train a network with one, and without it, and compare."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from surgeon.errors import SurgeonError
from surgeon.interfaces.splits import Splits
from surgeon.interfaces.training import Penalty
from surgeon.recipe.train_settings import TrainSettings
from surgeon.surgery.module_state import HOOK_TABLES
from surgeon.testing.runs import few
from surgeon.training.session import train


def check_penalty(penalty: Penalty, build: Callable[[], nn.Module], data: Splits, **settings: Any) -> None:
    """Train a network with a penalty, twice, and without it.

    Its fields survive a checkpoint. Both trainings give the same weights, other ones than without it, and leave nothing
    in the network: no hook, no module, no tensor. The loss stays finite.

    Args:
        penalty: The penalty.
        build: Makes the network, the same one on each call.
        data: What to train on, with every column that the penalty reads.
        **settings: Keys of a recipe's ``train:`` section. Default: two epochs of batches of 8.

    Raises:
        AssertionError: A promise is broken; the message says which, and how to mend it.
    """
    kind = type(penalty).__name__
    if type(penalty).model_validate(penalty.model_dump(mode="json")) != penalty:
        raise AssertionError(f"the fields of {kind} do not survive a checkpoint: they must be plain values")
    options = TrainSettings.model_validate({"epochs": 2, "batch_size": 8, **settings})
    before, first, second, without = build(), build(), build(), build()
    for model in (first, second):
        try:
            train(model, options, penalties=[penalty], data=data, quiet=True)
        except SurgeonError as error:
            raise AssertionError(f"training with {kind} fails: {error}") from error
        except Exception as error:  # the author's code may raise anything
            raise AssertionError(f"{kind} raised {type(error).__name__} in training: {error}") from error
    if leftovers := sorted((_parts(first) | _parts(second)) - _parts(before)):
        raise AssertionError(
            f"{kind} leaves {few(leftovers)} in the network when training is over. Remove it through run.ending: "
            "run.ending.callback(handle.remove); run.features and run.learn leave nothing."
        )
    if not _same(first, second):
        raise AssertionError(
            f"two trainings with {kind} and one seed give other weights: keep what changes in variables of "
            "begin(run), not on the class or in a global, and draw from torch.Generator().manual_seed(run.seed)"
        )
    train(without, options, data=data, quiet=True)
    if _same(first, without):
        raise AssertionError(
            f"the network trains as it does without {kind}: is its factor 0, is there a detach(), no_grad(), argmax or "
            "item() in its term, or are the weights that it acts on 0 at the start (let build make others)?"
        )


def _parts(model: nn.Module) -> set[str]:
    """List modules, tensors and hooks by name; hooks with their number in the module."""
    parts = {f"the module {name}" for name, _ in model.named_modules() if name}
    parts |= {f"the tensor {name}" for name in model.state_dict()}
    for name, module in model.named_modules():
        tables = [getattr(module, table) for table in HOOK_TABLES]
        count = sum(len(table) for table in tables if hasattr(table, "__len__"))
        parts |= {f"hook {number + 1} on {name or 'the network'}" for number in range(count)}
    return parts


def _same(one: nn.Module, other: nn.Module) -> bool:
    pairs = zip(one.state_dict().values(), other.state_dict().values(), strict=True)
    return all(torch.equal(a, b) for a, b in pairs)
