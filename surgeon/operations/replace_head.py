"""replace_head: a new head for a new set of classes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from pydantic import Field, model_validator

from surgeon.operation import Objective, Operation, Selector
from surgeon.operations.head_fields import Classes, HeadFields, Name, count, no_repeats

if TYPE_CHECKING:
    from torch import nn

    from surgeon.surgery import Surgery

ProblemType = Literal["single_label_classification", "multi_label_classification", "regression"]
LOSSES = {"multi_label_classification": "bce", "regression": "mse"}


class ReplaceHead(HeadFields, Operation):
    """Replace the head by one for a new set of classes, or put one on features.

    In place, the new head reads what the old one read and takes its dtype; a transformers config gets the
    new labels. A detector keeps the form of its family, with the background as class 0. Where the network
    has no head (it was truncated, or is a bare trunk), the head goes on top of its features, pooled, and its
    ``logits`` are the output.

    Shapes: features ``(batch, …)`` → logits ``(batch, classes)``; a dense head keeps its positions.

    Sources: cosine heads, Gidaris & Komodakis 2018, eq. 3; gem pooling, Radenović et al. 2018, eq. 3.
    """

    classes: Classes | None = None
    """The number of classes, or their names; for detectors without the background."""
    at: Selector = "@head"
    """The head to replace, or several; found by its role unless said."""
    kind: Literal["linear", "mlp", "conv", "cosine", "none"] = "linear"
    """linear; mlp; conv: scores at each position, hidden layers 3×3; cosine: scaled cosines to a prototype of
    each class; none: no head, so that the features come out. On maps, linear and mlp act at each position."""
    init: Literal["default", "zeros", "rows"] = "default"
    """The last layer starts at random, at zeros, or with the old head's rows of classes that both know."""
    rows: dict[Name, Name | int] | None = Field(None, min_length=1)
    """For init: rows, which old class (a name, or its index) each new class starts from."""
    old_classes: list[Name] | None = Field(None, min_length=1)
    """The names of the old head's classes in order, where its config does not tell."""
    aux: Literal["replace", "drop", "keep"] = "replace"
    """What becomes of auxiliary heads; those with classes of their own are replaced by linear ones."""
    problem_type: ProblemType | None = None
    """The kind of labels, which decides the loss; null: classes, or what transformers infers from the labels."""

    @property
    def count(self) -> int:
        """The number of classes; 0 without a head."""
        return count(self.classes) if self.classes is not None else 0

    @model_validator(mode="after")
    def _consistent(self) -> ReplaceHead:
        if (self.classes is None) != (self.kind == "none"):
            raise ValueError("kind: none takes no classes" if self.classes else "classes says how many, or which")
        if self.hidden and self.kind not in ("mlp", "conv"):
            raise ValueError(f"hidden layers are for kind: mlp or conv, not {self.kind}")
        if self.init != "rows" and (self.rows or self.old_classes):
            raise ValueError("rows and old_classes are for init: rows")
        if self.kind == "none" and (self.init != "default" or self.dropout or self.problem_type):
            raise ValueError("kind: none leaves no head for init, dropout or problem_type")
        if self.kind == "cosine" and self.init == "zeros":
            raise ValueError("a cosine head has no direction to start from at zero: use init: default or rows")
        if isinstance(self.classes, list):
            no_repeats(self.classes)
        no_repeats(self.old_classes or [], "old_classes")
        return self

    def apply(self, model: nn.Module, surgery: Surgery) -> nn.Module:
        """Put the new head in the old one's place, or on top of the features where there is none."""
        from surgeon.operations.head_surgery import replace_head

        return replace_head(self, surgery)

    def objectives(self) -> list[Objective]:
        """The loss of the logits, where it is not the default cross-entropy."""
        loss = LOSSES.get(self.problem_type or "")
        return [Objective(output="logits", loss=loss)] if loss else []
