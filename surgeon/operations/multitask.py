"""multitask: add several named heads to one trunk."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import AfterValidator, Field, model_validator

from surgeon.errors import OperationError
from surgeon.interfaces.operation import Operation
from surgeon.interfaces.selector import Selector
from surgeon.interfaces.training import Objective
from surgeon.operations._shared.head_options import Classes, HeadFields, Name, count, no_repeats, output_name

if TYPE_CHECKING:
    from torch import nn

    from surgeon.surgery.context import Surgery

LOSSES = {
    "classification": "cross_entropy",
    "token_classification": "cross_entropy",
    "multilabel": "bce",
    "regression": "mse",
}


class Task(HeadFields):
    """Describe one head: what it predicts, from which features, and with which loss.

    Shapes: ``(batch, classes)``; for token_classification ``(batch, tokens, classes)``.
    """

    kind: Literal["classification", "multilabel", "regression", "token_classification"] = "classification"
    """What is predicted; token_classification predicts a class for every token."""
    classes: Classes
    """The number of classes, or their names; for a regression, the number of values, or their names."""
    at: Selector | None = None
    """The site whose features the head reads. Default: the features that the network's own head reads."""
    loss: Name | None = None
    """A loss by its registered name. Default: cross_entropy; bce for multilabel; mse for regression."""
    weight: float = Field(default=1.0, ge=0)
    """The factor of this loss in the sum."""
    label: Name | None = None
    """The column of the batch that holds the targets. Default: the task's name."""

    @model_validator(mode="after")
    def _consistent(self) -> Task:
        if self.kind == "token_classification" and self.pool not in ("auto", "none"):
            raise ValueError("token_classification predicts for every token: leave pool out")
        if isinstance(self.classes, list):
            no_repeats(self.classes)
        return self


class Multitask(Operation):
    """Add named heads at one or several sites of a shared trunk.

    Each task adds an output with its name, and a loss on a column of labels; the total loss is their weighted sum
    (Caruana 1997). The network's own head is kept or removed.

    Shapes: see the tasks; a head reads ``(batch, …)`` and pools it.
    """

    tasks: dict[Annotated[str, AfterValidator(output_name)], Task] = Field(min_length=1)
    """The heads, by the names of their outputs."""
    original: Literal["keep", "drop"] = "keep"
    """Whether to keep the network's own output next to the new ones."""

    def apply(self, model: nn.Module, surgery: Surgery) -> nn.Module:
        """Add the head of every task, then keep or drop the original; see :class:`Operation`."""
        from surgeon.operations._shared.heads import new_head
        from surgeon.operations._shared.original_head import drop_original, keep_original
        from surgeon.surgery.features import features_at, features_of_head

        if self.original == "keep":
            keep_original(surgery, self.tasks)
        sites = {name: surgery.site(task.at).name for name, task in self.tasks.items() if task.at is not None}
        shared = features_of_head(surgery) if len(sites) < len(self.tasks) else None
        for name, task in self.tasks.items():
            features = shared if name not in sites else features_at(surgery, sites[name])
            assert features is not None
            if task.kind == "token_classification" and (features.dims, features.axis) != (1, -1):
                raise OperationError(
                    f"task {name!r}: {features.site} produces {list(features.shape)}, which are not tokens",
                    hint="name a site that produces tokens: at: SITE",
                )
            fields = task.model_copy(update={"pool": "none"}) if task.kind == "token_classification" else task
            kind = "mlp" if task.hidden else "linear"
            head = new_head(surgery, features, count(task.classes), fields, kind=kind)
            surgery.branch(name, features.site, head)
        if self.original == "drop":
            drop_original(surgery, self.tasks)
        return surgery.model

    def objectives(self) -> list[Objective]:
        """Ask for one loss for each task."""
        return [
            Objective(output=name, loss=task.loss or LOSSES[task.kind], label=task.label or name, weight=task.weight)
            for name, task in self.tasks.items()
        ]
