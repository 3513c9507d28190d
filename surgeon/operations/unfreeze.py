"""unfreeze: parts of a network that begin to train later than others."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic import Field, field_validator

from surgeon.interfaces.operation import Operation
from surgeon.interfaces.training import Stage

if TYPE_CHECKING:
    from torch import nn

    from surgeon.surgery.context import Surgery


class Unfreeze(Operation):
    """Let parts of the network wait, frozen, and train them from an epoch on: gradual unfreezing.

    The head trains first, then the last blocks, then more, so that what was learnt is not washed out before the
    head can tell what is wanted (Howard & Ruder 2018, section 3.3). What waits has no gradient, no weight decay
    and no state in the optimizer, and its norms keep their statistics; the state of what trains already goes on
    when more joins it. What no stage names trains from the start, and what ``freeze`` froze stays frozen.

        - op: unfreeze
          stages:
            - {epoch: 1, sites: ["@blocks[-1]"]}
            - {epoch: 2, sites: ["@blocks[:-1]", "@stem"]}
    """

    stages: list[Stage] = Field(min_length=1)
    """What waits, and until which epoch; each site in one stage."""

    @field_validator("stages")
    @classmethod
    def _in_order(cls, stages: list[Stage]) -> list[Stage]:
        epochs = [stage.epoch for stage in stages]
        if epochs != sorted(set(epochs)):
            raise ValueError("the stages' epochs must rise; put what begins together into one stage")
        return stages

    def apply(self, model: nn.Module, surgery: Surgery) -> nn.Module:
        """Check that the sites are there; training does the rest."""
        for stage in self.stages:
            surgery.select(stage.sites)
            surgery.note(f"{', '.join(stage.sites)} trains from epoch {stage.epoch:g} on")
        return surgery.model

    def unfreezing(self) -> list[Stage]:
        """The stages, as the recipe says them."""
        return list(self.stages)
