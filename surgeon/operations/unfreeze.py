"""unfreeze: start training parts of a network later than others."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pydantic import ConfigDict, Field, field_validator

from surgeon.interfaces.operation import Operation
from surgeon.interfaces.training import Stage

if TYPE_CHECKING:
    from torch import nn

    from surgeon.surgery.context import Surgery


EXAMPLE: Any = [{"epoch": 1, "sites": ["@blocks[-1]"]}, {"epoch": 2, "sites": ["@blocks[:-1]", "@stem"]}]


class Unfreeze(Operation):
    """Freeze parts of the network until an epoch, then train them: gradual unfreezing.

    The head trains first, then the last blocks, then more, so that large gradients from an untrained head do not
    destroy what was learnt (Howard & Ruder 2018, section 3.3). Until its epoch, a stage has no gradient, no weight
    decay and no optimizer state, and its norm layers keep their statistics. The optimizer state of the other
    parameters is kept when a stage starts. Parameters in no stage train from the beginning; what ``freeze`` froze stays
    frozen.
    """

    model_config = ConfigDict(json_schema_extra={"examples": [{"stages": EXAMPLE}]})

    stages: list[Stage] = Field(min_length=1)
    """The epochs, and the sites that start training at each; a site may be in one stage only."""

    @field_validator("stages")
    @classmethod
    def _in_order(cls, stages: list[Stage]) -> list[Stage]:
        epochs = [stage.epoch for stage in stages]
        if epochs != sorted(set(epochs)):
            raise ValueError("the stages' epochs must rise; put sites that start at the same epoch into one stage")
        return stages

    def apply(self, model: nn.Module, surgery: Surgery) -> nn.Module:
        """Check that the sites exist; the training loop does the rest."""
        for stage in self.stages:
            surgery.select(stage.sites)
            surgery.note(f"{', '.join(stage.sites)} trains from epoch {stage.epoch:g} on")
        return surgery.model

    def unfreezing(self) -> list[Stage]:
        """List the stages in the recipe."""
        return list(self.stages)
