"""Choose between a stock class of transformers and a graft, and carry out the first.

There are two ways to a stock class. A network whose class counts labels already keeps it, and every tensor with the
class count is replaced (``class_counts.py``). Any other network becomes the class that transformers' auto mappings
name for the task, and its trunk moves there (``sibling.py``).
"""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any

from torch import nn

from surgeon.architectures.hf_siblings import stock_class
from surgeon.errors import ArchitectureError, OperationError, suggest
from surgeon.families.transformers.tasks import AUTOMATIC, FIXED, classes_for, does, tasks_of
from surgeon.graph.edit import exit_site
from surgeon.operations.replace_head.class_counts import (
    count_field,
    counted_tensors,
    own_class,
    replace_counted,
)
from surgeon.operations.replace_head.sibling import become, unfit
from surgeon.surgery.features import logits_branch

if TYPE_CHECKING:
    from surgeon.operations.replace_head.fields import ReplaceHeadFields
    from surgeon.surgery.context import Surgery

QUESTION = "class for the task"
TRANSFORMERS = "transformers.models."


def to_stock_class(operation: ReplaceHeadFields, surgery: Surgery) -> bool:
    """Make the network a stock class of transformers for the operation's task, if there is one.

    Returns:
        Whether it was done; if not, nothing has changed, and the head must be replaced in place or added on top.

    Raises:
        OperationError: The network cannot be prepared for the recipe's task.
    """
    if operation.task == "graft" or not surgery.is_recorded(QUESTION):
        return False
    if not is_stock(surgery.model):
        if operation.task == "auto":
            return False
        raise OperationError(
            f"task: {operation.task}: {type(surgery.model).__name__} is not a class of transformers",
            hint="leave task out",
        )
    way, name, reason = surgery.recall(QUESTION, lambda: list(_choose(operation, surgery.model)))
    if way == "count":
        return replace_counted(operation, surgery)
    if way == "become":
        become(operation, surgery, stock_class(name))
        return True
    if operation.task != "auto":
        raise OperationError(
            f"task: {operation.task}: {reason}",
            hint="leave task out, or say task: base and put a head on that",
        )
    if reason and way == "graft":
        surgery.note(f"a graft, not a stock class of transformers: {reason}")
    return False


def is_stock(model: nn.Module) -> bool:
    """Whether the network is of a class of transformers, perhaps with branches."""
    return own_class(model).__module__.startswith(TRANSFORMERS) and hasattr(model, "config")


def _choose(operation: ReplaceHeadFields, model: nn.Module) -> tuple[str, str, str]:
    """Return the way (``count``, ``become``, ``graft`` or empty), the class and the reason for a graft."""
    if exit_site(model) is not None:
        return "graft", "", "its forward ends early"
    if logits_branch(model) is not None:
        return "", "", "its head is a branch"
    config: Any = model.config
    cls = own_class(model)
    task = operation.task
    counts = _counts(model)
    # the base of some detectors scores proposals by class, and has no head for classes for all that
    is_base = does(cls.__name__, config.model_type, "base") and type(model) is cls
    has_head = does(cls.__name__, config.model_type, task) or (task == "auto" and not is_base)
    if counts and (has_head or (task == "auto" and operation.init == "rows")):
        return "count", cls.__name__, ""
    if type(model) is not cls:
        return "graft", "", "it has branches"
    if operation.kind != "linear" or operation.hidden or operation.dropout or operation.pool != "auto":
        return "graft", "", "the head that the recipe describes is in none"
    if operation.init == "rows":
        return "", "", "init: rows needs an old head"
    tasks = AUTOMATIC if task == "auto" else (task,)
    names = next((names for t in tasks if (names := classes_for(t, config.model_type))), [])
    if not names:
        supported = tasks_of(config.model_type)
        near = suggest(task, supported) if task != "auto" else None
        having = f"transformers has no class for that of model type {config.model_type!r}"
        listed = f"; it has them for: {', '.join(supported)}" if supported else ""
        return "graft", "", having + listed + (f" ({near})" if near else "")
    problems = []
    for name in names:
        try:
            problem = unfit(operation, model, stock_class(name))
        except ArchitectureError as error:
            problem = error.message
        if not problem:
            return "become", name, ""
        problems.append(problem)
    if counts and task == "auto":
        return "count", cls.__name__, ""
    return "graft", "", problems[0]


def _counts(model: nn.Module) -> bool:
    """Whether the class of a network counts labels."""
    config: Any = model.config
    cls = own_class(model)
    if does(cls.__name__, config.model_type, *FIXED):
        return False
    try:
        return bool(counted_tensors(cls, copy.deepcopy(config), count_field(model)))
    except ArchitectureError:
        return False
