"""zero_shot, add_classes: score classes by their attributes, including classes without training samples."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import AfterValidator, ConfigDict, Field, PositiveInt, model_validator

from surgeon.errors import OperationError
from surgeon.interfaces.operation import Operation
from surgeon.interfaces.selector import BesideRecipe, Selector
from surgeon.interfaces.training import Objective
from surgeon.operations._shared.head_options import HeadFields, Name, output_name

if TYPE_CHECKING:
    import torch
    from torch import nn

    from surgeon.surgery.context import Surgery

Rows = Annotated[dict[Name, list[float] | dict[Name, float]], Field(min_length=1)]
Attributes = Annotated[Name | Rows, BesideRecipe()]


class ZeroShot(HeadFields, Operation):
    """Replace the head by one that scores classes by their attributes, so that it can predict unseen classes.

    The head learns to predict the attributes of an image; a table has the attributes of each class. ``dap``:
    p(attribute|x), multiplied for each class (Lampert et al. 2009, eq. 2 and 3). ``bilinear``: θ(x)ᵀVφ(a) (Akata et
    al. 2013). ``cosine``: the angle between f(x) and g(a) (Frome et al. 2013). The table is a buffer of the network,
    saved with it. ``surgeon.nn.zero_shot.with_classes`` adds classes temporarily, ``add_classes`` permanently.

    The table has the classes of the training labels, in their order. Do not list classes without training samples: the
    network would learn that they are unlikely.

    Shapes: features ``(batch, …)`` → ``(batch, classes)``; dap adds the output ``attributes``: logits
    ``(batch, attributes)``.
    """

    model_config = ConfigDict(json_schema_extra={"examples": [{"attributes": "classes.csv", "method": "bilinear"}]})

    attributes: Attributes
    """The attributes of each class: a CSV file (a header with the attributes' names, a line for each class, its name
    first), looked for next to the recipe first; or a mapping of class to numbers, or to {attribute: number}."""
    method: Literal["dap", "bilinear", "cosine"] = Field(default="bilinear")
    """How classes are scored; dap needs attributes between 0 and 1."""
    at: Selector | None = None
    """The site whose features the head reads. Default: the features that the network's own head reads."""
    embed: PositiveInt | None = None
    """For cosine, the width of a learnt embedding g of the attributes. Default: the attributes themselves."""
    prior: Literal["uniform", "classes"] = "uniform"
    """For dap, p(attribute): a half, or the attribute's mean over the classes of the table."""
    learn: Literal["classes", "attributes"] = "classes"
    """What is trained: the class scores; or, for dap, the attributes of each sample."""
    label: Name = "labels"
    """The column of the batch that holds the classes."""
    attributes_label: Name = "attributes"
    """For learn: attributes, the column of the batch that holds each sample's attributes ``(batch, attributes)``."""

    @model_validator(mode="after")
    def _of_its_method(self) -> ZeroShot:
        if self.embed is not None and self.method != "cosine":
            raise ValueError(f"embed is for method: cosine, not {self.method}")
        for key in ("prior", "learn"):
            if key in self.model_fields_set and self.method != "dap":
                raise ValueError(f"{key} is for method: dap, not {self.method}")
        if "attributes_label" in self.model_fields_set and self.learn != "attributes":
            raise ValueError("attributes_label is for learn: attributes")
        return self

    def apply(self, model: nn.Module, surgery: Surgery) -> nn.Module:
        """Replace the head; see :class:`Operation`."""
        from torch import nn

        from surgeon.nn.grafts import TRUNK_OUTPUT
        from surgeon.nn.zero_shot import ZeroShotHead, refuse_no_probabilities
        from surgeon.operations._shared.original_head import drop_logits_branch, drop_original
        from surgeon.surgery.features import choose_pool, features_at, features_of_head, neighbour, shown

        table = read_attributes(surgery, self.attributes)
        refuse_no_probabilities(self.method, table["classes"], table["values"])
        features = features_of_head(surgery) if self.at is None else features_at(surgery, surgery.site(self.at).name)
        pool = choose_pool(features, self.pool)
        if features.dims and pool == "none":
            raise OperationError(
                f"{features.site or '.'} produces {shown(features.shape)}, but attributes need one vector a sample",
                hint="leave pool out",
            )
        head = surgery.new(
            ZeroShotHead,
            features.width,
            table["classes"],
            table["attributes"],
            table["values"],
            method=self.method,
            embed=self.embed,
            prior=self.prior == "classes",
            kind="mlp" if self.hidden else "linear",
            hidden=tuple(self.hidden),
            dropout=self.dropout,
            pool=pool,
            axis=features.axis,
            dims=features.dims,
            masked=features.masked,
            like=neighbour(surgery.model, features.site),
        )
        heads = surgery.role("head")
        drop_logits_branch(surgery)
        surgery.branch(TRUNK_OUTPUT, features.site, head)
        drop_original(surgery, [TRUNK_OUTPUT], heads=heads)
        if self.method == "dap":
            surgery.branch("attributes", f"grafts.{TRUNK_OUTPUT}.head.project", surgery.new(nn.Identity))
        surgery.note(
            f"reads {features.site or 'what comes out'} {shown(features.shape)}; "
            f"{len(table['classes'])} classes by {len(table['attributes'])} attributes"
        )
        return surgery.model

    def objectives(self) -> list[Objective]:
        """Ask for the cross-entropy of the classes; with ``learn: attributes`` it is only measured."""
        classes = Objective(output="logits", label=self.label, weight=0.0 if self.learn == "attributes" else 1.0)
        if self.learn == "classes":
            return [classes]
        return [classes, Objective(output="attributes", loss="bce", label=self.attributes_label)]


class AddClasses(Operation):
    """Add classes without training samples to a head that scores classes by their attributes.

    Nothing is trained: a class is a row in the table of attributes (Lampert et al. 2009). The result is an ordinary
    artifact.

    Shapes: ``(batch, classes)`` → ``(batch, classes + added)``.
    """

    model_config = ConfigDict(json_schema_extra={"examples": [{"attributes": {"zebra": [1, 0, 1]}}]})

    attributes: Attributes
    """The attributes of each new class: a CSV file, or a mapping, as for zero_shot; named attributes are sorted into
    the head's order."""
    only: bool = False
    """Score only the new classes, and drop the old ones."""
    called: Annotated[str, AfterValidator(output_name)] = "logits"
    """The name of the head's output."""

    def apply(self, model: nn.Module, surgery: Surgery) -> nn.Module:
        """Add rows to the table; see :class:`Operation`."""
        from surgeon.nn.zero_shot import ZeroShotHead, refuse_known

        site = f"grafts.{self.called}.head"
        head = dict(model.named_modules()).get(site)
        if not isinstance(head, ZeroShotHead):
            raise OperationError(
                f"the output {self.called!r} of {type(model).__name__} does not come from a head that scores classes "
                "by their attributes",
                hint="add one with zero_shot",
            )

        def ordered() -> dict[str, Any]:
            names, values = head.rows(_mapping(surgery, self.attributes))
            refuse_known(head, [] if self.only else names)
            return {"classes": names, "values": values.tolist()}

        rows = surgery.recall("classes", ordered, outside=True)
        count = len(rows["classes"]) + (0 if self.only else len(head.classes))
        widen = partial(_widened, rows=rows["values"], only=self.only)
        surgery.reshape(site, "table", (count, len(head.attributes)), widen)
        with surgery.bookkeeping():
            head.classes = [*([] if self.only else head.classes), *rows["classes"]]
        surgery.note(f"scores {count} classes: {', '.join(head.classes[:6])}{', …' if count > 6 else ''}")
        return surgery.model


def read_attributes(surgery: Surgery, attributes: str | dict[str, Any]) -> dict[str, Any]:
    """Read the classes, attributes and values of a table. A replay has only the names; the artifact has the values."""
    from surgeon.nn.attribute_table import read_table, table_of

    if not isinstance(attributes, str):
        table = table_of(attributes)
        return {"classes": table.classes, "attributes": table.attributes, "values": table.values}
    rows: dict[str, Any] = {}

    def names() -> dict[str, Any]:
        table = read_table(attributes)
        rows["values"] = table.values
        return {"classes": table.classes, "attributes": table.attributes}

    header = surgery.recall("table", names, subject=attributes, outside=True)
    zeros = [[0.0] * len(header["attributes"])] * len(header["classes"])
    return {**header, "values": rows.get("values", zeros)}


def _mapping(surgery: Surgery, attributes: str | dict[str, Any]) -> dict[str, Any]:
    from surgeon.nn.attribute_table import mapping_of, read_table

    return mapping_of(read_table(attributes)) if isinstance(attributes, str) else attributes


def _widened(table: torch.Tensor, *, rows: list[list[float]], only: bool) -> torch.Tensor:
    import torch

    new = torch.tensor(rows, dtype=table.dtype)
    return new if only else torch.cat([table, new])
