"""Define what operations request from training: losses, schedules, penalties and stages of unfreezing."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, TypeAlias

from pydantic import BaseModel, ConfigDict, Field, model_validator

from surgeon.interfaces.selector import Selector

if TYPE_CHECKING:
    from torch import Tensor

Term: TypeAlias = "Callable[[Mapping[str, Tensor], Mapping[str, Tensor]], Tensor]"
"""Called in each step with the outputs and the batch, by name; returns a scalar with a gradient."""


def _name_or_options(schema: dict[str, Any]) -> None:
    """Add to the schema that a loss may also be written with its options."""
    name = {"type": schema.pop("type")}
    options = {"type": "object", "minProperties": 1, "maxProperties": 1, "additionalProperties": {"type": "object"}}
    schema["anyOf"] = [name, options]


class Objective(BaseModel):
    """Request a loss from the training loop.

    The loop computes ``weight * loss(outputs[output], batch[label], **options)``. A recipe may write the options
    within the loss: ``loss: {cross_entropy: {label_smoothing: 0.1}}``.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    output: str = Field(description="The name of the model's output.")
    loss: str = Field(
        default="cross_entropy",
        description="A loss by its name, which surgeon schema losses lists; {NAME: OPTIONS} gives it options.",
        json_schema_extra=_name_or_options,
    )
    label: str = Field(default="labels", description="The column of the batch that holds the targets.")
    weight: float = Field(default=1.0, ge=0, description="The factor of this loss in the sum.")
    options: dict[str, Any] = Field(
        default_factory=dict,
        description="Further arguments of the loss: cross_entropy takes weight (balanced, a "
        "list, or a mapping of class names) and label_smoothing, bce weight, pos_weight and label_smoothing, "
        "huber delta.",
    )
    mean: Literal["elements", "samples"] = Field(
        default="elements",
        description="elements: the mean over all labelled tokens, pixels or entries, as in torch and transformers; "
        "samples: the mean over samples of the mean within each.",
    )

    @model_validator(mode="before")
    @classmethod
    def _options_within(cls, values: Any) -> Any:
        """Take the options out of ``loss: {NAME: OPTIONS}``."""
        if not isinstance(values, Mapping) or not isinstance(loss := values.get("loss"), Mapping):
            return values
        if len(loss) != 1:
            raise ValueError(f"loss names one loss with its options, not {len(loss)}: {{cross_entropy: {{…}}}}")
        if values.get("options"):
            raise ValueError("options are given twice: within loss, and in options")
        name, options = next(iter(loss.items()))
        return {**values, "loss": name, "options": options or {}}


class Schedule(BaseModel):
    """Set a value in the model by the progress ``p`` of training, from 0 to 1."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    buffer: str = Field(description="The site and name of a scalar buffer, as in state_dict.")
    kind: str = Field(
        default="dann",
        description="dann: peak * (2 / (1 + exp(-gamma p)) - 1); linear: peak * p; or a plugin's (hook "
        "surgeon_schedules).",
    )
    peak: float = 1.0
    gamma: float = 10.0
    options: dict[str, Any] = Field(default_factory=dict, description="Further arguments of a plugin's curve.")


class Penalty(BaseModel):
    """Add a term to the loss of every training step; subclass this and implement :meth:`begin`."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    def begin(self, run: Any) -> Term:
        """Prepare for a training run, while the network still has its initial values.

        Args:
            run: The :class:`surgeon.training.penalties.Run` that begins.

        Returns:
            A function that is called in every step with the outputs and the batch, by name, and returns a scalar with
            a gradient.
        """
        raise TypeError(f"{type(self).__name__} defines no begin(run)")

    def conserved(self) -> list[str]:
        """List the outputs that it conserves; only objectives in the recipe train these with labels."""
        return []


class Stage(BaseModel):
    """Keep part of the network frozen until an epoch of training."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    epoch: float = Field(ge=0, description="When it starts to train, in passes over the samples.")
    sites: list[Selector] = Field(
        min_length=1, description="The modules that start to train then, with their submodules."
    )


class TrainingRequests(NamedTuple):
    """Collect what operations request from the training loop."""

    objectives: list[Objective]
    schedules: list[Schedule]
    penalties: list[Penalty]
    stages: list[Stage]
