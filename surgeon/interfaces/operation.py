"""What an author of an operation subclasses.

Nothing here imports torch, so that a recipe can be validated, and the list of operations printed,
before the second or two that torch takes to import.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import BaseModel, ConfigDict

from surgeon.interfaces.training import Asked, Objective, Penalty, Schedule, Stage

if TYPE_CHECKING:
    from torch import nn


class Operation(BaseModel):
    """One step of surgery: frozen, validated, documented by its docstring and fields.

    A subclass declares its recipe keys as fields and implements :meth:`apply`. Its name in a recipe
    is its class name in snake case (``ReplaceHead`` → ``replace_head``) unless ``name`` is set.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    name: ClassVar[str] = ""
    freezes_what_it_finds: ClassVar[bool] = False
    """Whether nothing of the network before it trains, so that what earlier operations ask of training is moot."""

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if "name" not in cls.__dict__:
            cls.name = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", cls.__name__).lower()

    def apply(self, model: nn.Module, surgery: Any) -> nn.Module:
        """Edit the skeleton ``model`` and return its root (a new one, if the root was replaced).

        Args:
            model: The network, its parameters on the meta device.
            surgery: A :class:`surgeon.Surgery`, the means to look at the network and to edit it. It is typed
                loosely here so that this module imports no torch; annotate it as ``Surgery`` in your class.

        Raises:
            OperationError: The operation cannot be carried out on this model.
            SiteError: A selector names no module of this model.
        """
        raise TypeError(f"operation {self.name!r} defines no apply(model, surgery)")

    def objectives(self) -> list[Objective]:
        """The losses that this operation adds to training."""
        return []

    def schedules(self) -> list[Schedule]:
        """The values in the model that this operation wants changed as training proceeds."""
        return []

    def penalties(self) -> list[Penalty]:
        """The terms on parameters, or on outputs without labels, that this operation adds to the loss."""
        return []

    def unfreezing(self) -> list[Stage]:
        """The parts of the network that this operation lets wait until they train."""
        return []

    def describe(self) -> str:
        """One line for a plan: the name and the fields that are not at their default."""
        fields = self.model_dump(exclude_defaults=True)
        return f"{self.name} " + ", ".join(f"{key}={value!r}" for key, value in fields.items())

    @classmethod
    def documentation(cls) -> str:
        """The docstring, as ``surgeon ops NAME`` prints it."""
        return inspect.cleandoc(cls.__doc__ or "")


def asked_of_training(operations: Iterable[Operation]) -> Asked:
    """What operations that are carried out one after another ask of training."""
    asked = Asked([], [], [], [])
    for operation in operations:
        if operation.freezes_what_it_finds:
            asked = Asked([], [], [], [])
        asked.objectives.extend(operation.objectives())
        asked.schedules.extend(operation.schedules())
        asked.penalties.extend(operation.penalties())
        asked.stages.extend(operation.unfreezing())
    return asked
