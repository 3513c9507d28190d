"""Define the recipe keys that several operations have in common."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, PositiveInt

from surgeon import Selector, TrainingError

if TYPE_CHECKING:
    from surgeon.training.penalties import Run

Name = Annotated[str, Field(min_length=1)]


class Scheduled(BaseModel):
    """Hold the weight of a term, and how it rises with the progress of training."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    weight: float = Field(default=1.0, ge=0, allow_inf_nan=False)
    """The factor of the term in the loss, or its peak if it is scheduled."""
    schedule: Literal["fixed", "dann", "linear"] = "fixed"
    """fixed: the factor is constant; dann: it is multiplied by 2 / (1 + exp(-gamma p)) - 1 for progress p from 0 to 1
    (Ganin & Lempitsky 2015); linear: by p."""
    gamma: float = Field(default=10.0, gt=0, allow_inf_nan=False)
    """How steeply the factor rises with dann."""

    def rise(self, progress: float) -> float:
        """Return the share of the peak at ``progress``, from 0 to 1."""
        if self.schedule == "dann":
            return 2 / (1 + math.exp(-self.gamma * progress)) - 1
        return progress if self.schedule == "linear" else 1.0


class Adversary(Scheduled):
    """Hold the options of layers that are trained against the network, beside it."""

    at: Selector | None = None
    """The site whose features the layers read, through a gradient reversal. Default: those that the head reads."""
    output: Name = "logits"
    """The network's output of class scores."""
    hidden: list[PositiveInt] = [256]
    """Widths of the hidden layers, each followed by a ReLU."""
    strength: float = Field(default=1.0, ge=0, allow_inf_nan=False)
    """λ, or its peak if it is scheduled: the factor of the gradient that the reversal passes on to the network, with
    the opposite sign. The schedule is that of λ; weight stays."""


def domains_of(run: Run, method: str) -> tuple[str, ...]:
    """Return the names of the domains in the data.

    Raises:
        TrainingError: There are fewer than two.
    """
    names = tuple(run.splits.domains) if run.splits is not None else ()
    if len(names) < 2:
        raise TrainingError(
            f"{method} needs samples of at least two domains, and the data have {len(names)}",
            where="train.data",
            hint="name the domain of every source: [{…, domain: plain}, {…, domain: photo, labels: hidden}]",
        )
    return names


def number_of(name: str, names: tuple[str, ...], where: str) -> int:
    """Return the number of a domain.

    Raises:
        TrainingError: There is no such domain.
    """
    if name not in names:
        raise TrainingError(
            f"no source has the domain {name!r}", where=where, hint=f"the domains are: {', '.join(names)}"
        )
    return names.index(name)
