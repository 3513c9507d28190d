"""Subclass :class:`Operation` to add an operation.

Nothing here imports torch, so that recipes are validated and operations listed without waiting for its import.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar

from pydantic import BaseModel, ConfigDict

from surgeon.errors import OperationError, SurgeonError
from surgeon.interfaces.returned import items_of, raised_in
from surgeon.interfaces.training import Objective, Penalty, Schedule, Stage, TrainingRequests

if TYPE_CHECKING:
    from torch import nn

T = TypeVar("T")


class Operation(BaseModel):
    """Describe one step of surgery: immutable, validated, documented by its docstring and fields.

    A subclass declares its recipe keys as fields and implements :meth:`apply`. Its name in a recipe
    is its class name in snake case (``ReplaceHead`` → ``replace_head``) unless ``name`` is set.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    name: ClassVar[str] = ""
    version: ClassVar[int] = 1
    """Raise it when the same fields come to mean something else, or are called otherwise; see :meth:`migrate`."""
    freezes_what_it_finds: ClassVar[bool] = False
    """Whether it freezes everything before it, so that training requests of earlier operations are dropped."""

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if "name" not in cls.__dict__:
            cls.name = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", cls.__name__).lower()

    def apply(self, model: nn.Module, surgery: Any) -> nn.Module:
        """Edit the skeleton ``model`` and return its root (a new one, if the root was replaced).

        Args:
            model: The network, its parameters on the meta device.
            surgery: A :class:`surgeon.Surgery`, to inspect and edit the network. Its type is ``Any`` here so that this
                module does not import torch; annotate it as ``Surgery`` in your class.

        Raises:
            OperationError: The operation cannot be applied to this model.
            SiteError: A selector names no module of this model.
        """
        raise TypeError(f"operation {self.name!r} defines no apply(model, surgery)")

    @classmethod
    def migrate(cls, fields: dict[str, Any], version: int) -> dict[str, Any]:
        """Turn the fields that an artifact recorded in an earlier version into fields that mean the same now.

        It is called when an artifact is loaded whose ``version`` is lower than that of this class. The result must
        give the same network as before, or the artifact's tensors do not fit it. Where that cannot be, refuse.

        Args:
            fields: Every field of the operation, those at their defaults included, as JSON. An artifact from before
                surgeon recorded defaults has version 1 and only the fields that its recipe gave.
            version: The version that it was recorded in.

        Raises:
            OperationError: The operation cannot be rebuilt as it was. By default it never can.
        """
        raise OperationError(f"it was recorded in version {version}, and version {cls.version} is installed")

    def objectives(self) -> list[Objective]:
        """List the losses that this operation adds to training."""
        return []

    def schedules(self) -> list[Schedule]:
        """List the values in the model that change with the progress of training."""
        return []

    def penalties(self) -> list[Penalty]:
        """List the terms that this operation adds to the loss, on parameters or on outputs without labels."""
        return []

    def unfreezing(self) -> list[Stage]:
        """List the parts of the network that stay frozen until an epoch."""
        return []

    def describe(self) -> str:
        """Format the operation for a plan: its name and the fields that differ from their defaults."""
        fields = self.model_dump(exclude_defaults=True)
        return f"{self.name} " + ", ".join(f"{key}={value!r}" for key, value in fields.items())

    @classmethod
    def documentation(cls) -> str:
        """Return the docstring, as ``surgeon ops NAME`` prints it."""
        return inspect.cleandoc(cls.__doc__ or "")


def training_requests(operations: Iterable[Operation]) -> TrainingRequests:
    """Collect the training requests of operations that are applied one after another.

    Raises:
        PluginError: An operation of a plugin returned something else.
    """
    requests = TrainingRequests([], [], [], [])
    for operation in operations:
        if operation.freezes_what_it_finds:
            requests = TrainingRequests([], [], [], [])
        requests.objectives.extend(_checked_list(operation, "objectives", Objective))
        requests.schedules.extend(_checked_list(operation, "schedules", Schedule))
        requests.penalties.extend(_checked_list(operation, "penalties", Penalty))
        requests.stages.extend(_checked_list(operation, "unfreezing", Stage))
    return requests


def _checked_list(operation: Operation, method: str, kind: type[T]) -> list[T]:
    call = f"{type(operation).__name__}.{method}()"
    value = raised_in(operation, call, getattr(operation, method), (SurgeonError,))
    return items_of(operation, call, kind, value)
