"""What operations ask of training: losses, schedules, penalties and stages of unfreezing."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

from pydantic import BaseModel, ConfigDict, Field

from surgeon.interfaces.selector import Selector

if TYPE_CHECKING:
    from torch import Tensor

Term: TypeAlias = "Callable[[Mapping[str, Tensor], Mapping[str, Tensor]], Tensor]"
"""Called in each step with the outputs and the batch, by name; returns a scalar with a gradient."""


class Objective(BaseModel):
    """A loss that an operation asks the training loop for.

    The loop computes ``weight * loss(outputs[output], batch[label])``.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    output: str = Field(description="The name of the model's output.")
    loss: str = Field(default="cross_entropy", description="A loss by the name under which a plugin registered it.")
    label: str = Field(default="labels", description="The column of the batch that holds the targets.")
    weight: float = Field(default=1.0, ge=0, description="The factor of this loss in the sum.")


class Schedule(BaseModel):
    """A value in the model that follows the progress ``p`` of training, from 0 to 1."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    buffer: str = Field(description="The site and name of a scalar buffer, as in state_dict.")
    kind: str = Field(default="dann", description="dann: peak * (2 / (1 + exp(-gamma p)) - 1); linear: peak * p.")
    peak: float = 1.0
    gamma: float = 10.0


class Penalty(BaseModel):
    """A term that an operation adds to the loss of every training step; a subclass says which."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    def begin(self, run: Any) -> Term:
        """Make ready for one training run, while the network still has the values that it starts from.

        Args:
            run: The :class:`surgeon.training.penalties.Run` that begins.

        Returns:
            What is called in every step with the outputs and the batch, by name, and returns a scalar with a
            gradient.
        """
        raise TypeError(f"{type(self).__name__} defines no begin(run)")

    def conserved(self) -> list[str]:
        """The outputs that it holds, and that no objective trains by labels unless the recipe says so itself."""
        return []


class Stage(BaseModel):
    """Part of the network that waits, frozen, until training has come to an epoch."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    epoch: float = Field(ge=0, description="When it begins to train, in passes over the samples.")
    sites: list[Selector] = Field(min_length=1, description="What begins to train then, with all below it.")


class Asked(NamedTuple):
    """What operations ask of the training loop."""

    objectives: list[Objective]
    schedules: list[Schedule]
    penalties: list[Penalty]
    stages: list[Stage]
