"""gradient_reversal: add a domain classifier, and train the trunk against it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import AfterValidator, Field

from surgeon.interfaces.operation import Operation
from surgeon.interfaces.selector import Selector
from surgeon.interfaces.training import Objective, Schedule
from surgeon.operations._shared.head_options import HeadFields, Name, output_name

if TYPE_CHECKING:
    from torch import nn

    from surgeon.surgery.context import Surgery


class GradientReversal(HeadFields, Operation):
    """Add a domain classifier after a gradient reversal, so that the trunk learns domain-invariant features.

    The branch learns to classify the domain. Its gradient is multiplied by -λ before it reaches the trunk, so that the
    trunk learns features from which the domain cannot be predicted (Ganin & Lempitsky 2015, eq. 6 to 8). λ is a buffer
    of the network, saved with it. A network may have several such branches, each with its own λ.

    Shapes: features ``(batch, …)`` → ``(batch, domains)``, one more output.
    """

    at: Selector | None = None
    """The site whose features the branch reads. Default: the features that the head reads."""
    domains: int = Field(default=2, ge=2)
    """The number of domains."""
    output: Annotated[str, AfterValidator(output_name)] = "domain"
    """The name of the branch's output."""
    strength: float = Field(default=1.0, ge=0, allow_inf_nan=False)
    """λ, or its peak if it is scheduled: the factor of the reversed gradient. Give it as a positive number."""
    schedule: Literal["fixed", "dann", "linear"] = "fixed"
    """fixed: λ is strength; dann: strength · (2 / (1 + exp(-gamma p)) - 1) for progress p from 0 to 1;
    linear: strength · p. If it is scheduled, λ starts at 0."""
    gamma: float = Field(default=10.0, gt=0, allow_inf_nan=False)
    """How steeply λ rises with dann."""
    label: Name = "domain"
    """The column of the batch that holds the domains."""
    weight: float = Field(default=1.0, ge=0)
    """The factor of the domain loss in the sum."""

    def apply(self, model: nn.Module, surgery: Surgery) -> nn.Module:
        """Add the domain classifier; see :class:`Operation`."""
        from surgeon.operations._shared.heads import new_head
        from surgeon.operations._shared.original_head import keep_original
        from surgeon.surgery.features import features_at, features_of_head

        keep_original(surgery, [self.output])
        features = features_of_head(surgery) if self.at is None else features_at(surgery, surgery.site(self.at).name)
        start = self.strength if self.schedule == "fixed" else 0.0
        kind = "mlp" if self.hidden else "linear"
        head = new_head(surgery, features, self.domains, self, kind=kind, reversal=start)
        surgery.branch(self.output, features.site, head)
        return surgery.model

    def objectives(self) -> list[Objective]:
        """Ask for the cross-entropy of the domains."""
        return [Objective(output=self.output, label=self.label, weight=self.weight)]

    def schedules(self) -> list[Schedule]:
        """Ask for the schedule of λ."""
        if self.schedule == "fixed":
            return []
        buffer = f"grafts.{self.output}.head.reversal.strength"
        return [Schedule(buffer=buffer, kind=self.schedule, peak=self.strength, gamma=self.gamma)]
