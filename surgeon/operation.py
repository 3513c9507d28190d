"""What an author of an operation subclasses.

Nothing here imports torch, so that a recipe can be validated, and the list of operations printed,
before the second or two that torch takes to import.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, NamedTuple

from pydantic import BaseModel, ConfigDict, Field

if TYPE_CHECKING:
    from torch import nn

    from surgeon.surgery import Surgery
    from surgeon.training.penalties import Run, Term

Selector = Annotated[
    str,
    Field(
        min_length=1,
        description="A site or a selector of sites: layer4.1, encoder.layer[-2:], **.attention, "
        "{layer1,layer2}, type:BatchNorm2d, @head, @blocks[3], re:…; !… leaves out.",
    ),
]


class BesideRecipe:
    """Marks a field that may hold the path of a file, which is looked for beside the recipe first.

    ``donor: Annotated[str, BesideRecipe()]``
    """


def files_beside(model: BaseModel, folder: Path) -> dict[str, str]:
    """The fields marked :class:`BesideRecipe` whose files lie in ``folder``, with their paths."""
    return {
        name: str(folder / value)
        for name, info in type(model).model_fields.items()
        if any(isinstance(each, BesideRecipe) for each in info.metadata)
        and isinstance(value := getattr(model, name), str)
        and (folder / value).exists()
    }


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

    def begin(self, run: Run) -> Term:
        """Make ready for one training run, while the network still has the values that it starts from.

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

    def apply(self, model: nn.Module, surgery: Surgery) -> nn.Module:
        """Edit the skeleton ``model`` and return its root (a new one, if the root was replaced).

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
