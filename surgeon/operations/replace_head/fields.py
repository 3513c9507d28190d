"""The recipe keys of replace_head, as its helpers read them."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field, model_validator

from surgeon.families.transformers.tasks import OTHER, CountedTask, OtherTask
from surgeon.interfaces.selector import Selector
from surgeon.operations._shared.head_options import Classes, HeadFields, Name, count, no_repeats
from surgeon.operations._shared.problem_type import ProblemType


class ReplaceHeadFields(HeadFields):
    """Which head is replaced, by which, and from which values the new one starts."""

    classes: Classes | None = None
    """The number of classes, or their names; for detectors without the background."""
    task: Literal["auto", "graft"] | CountedTask | OtherTask = "auto"
    """What the network is to do. A transformers network becomes the stock class for that task, if transformers has
    one: auto takes the task that it does, else the first that fits classes; base takes the head away; masked_lm,
    causal_lm and others put their own head on; graft never changes the class."""
    at: Selector = "@head"
    """The head to replace, or several; found by its role unless said."""
    kind: Literal["linear", "mlp", "conv", "cosine", "none"] = "linear"
    """linear; mlp; conv: scores at each position, hidden layers 3×3; cosine: scaled cosines to a prototype of
    each class; none: no head, so that the features come out. On maps, linear and mlp act at each position."""
    init: Literal["default", "zeros", "rows"] = "default"
    """The last layer starts at random, at zeros, or with the old head's rows of classes that both know."""
    rows: dict[Name, Name | int] | None = Field(default=None, min_length=1)
    """For init: rows, which old class (a name, or its index) each new class starts from."""
    old_classes: list[Name] | None = Field(default=None, min_length=1)
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
    def _consistent(self) -> Self:
        if self.task in OTHER:
            return self._without_classes()
        if self.kind == "none" and self.task != "auto":
            raise ValueError("kind: none takes no task")
        if self.task not in ("auto", "graft") and self.at != "@head":
            raise ValueError(f"task: {self.task} is about the whole network: leave out at")
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

    def _without_classes(self) -> Self:
        fields = self.model_fields_set - {"task"}
        if fields:
            raise ValueError(f"task: {self.task} takes no other key: leave out {', '.join(sorted(fields))}")
        return self
