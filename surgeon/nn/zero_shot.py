"""Score classes by their attributes, even classes without training samples.

model = surgeon.load("animals") wider = with_classes(model, {"zebra": [1, 0, 1], "whale": [0, 1, 0]}) class_names(wider)
# [..., "zebra", "whale"]
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from typing import Any, Literal, cast

import torch
from torch import nn
from torch.nn import functional

from surgeon.errors import OperationError
from surgeon.nn.attribute_table import Row, table_of
from surgeon.nn.heads import Head

Method = Literal["dap", "bilinear", "cosine"]

EPSILON = 1e-3
"""The least distance of an attribute's prior from 0 and 1."""


class ZeroShotHead(nn.Module):
    """Score classes by their attributes instead of by class weights.

    With θ(x) the features, A the table with one row per class, and ℓ = V θ(x):

    * ``bilinear``: ℓ · φ(a), φ(a) the row normalised to length one (Akata et al. 2013);
    * ``cosine``: s cos(ℓ, g(a)), g a learned matrix or the identity, s learned from 10 (Frome et al. 2013);
    * ``dap``: Σ_m log p(a_m|x) - log p(a_m), p(a_m = 1|x) = σ(ℓ_m) (Lampert et al. 2009, eq. 2 and 3).

    Shapes: features ``(batch, …)`` → ``(batch, classes)``.

    Args:
        features: The number of channels.
        classes: The names of the classes.
        attributes: The names of the attributes.
        table: ``(classes, attributes)``; between 0 and 1 for dap.
        method: The scoring method.
        embed: The width of g, for cosine; None for the identity.
        prior: For dap, whether p(a_m) is estimated from ``table``; otherwise it is 1/2 and cancels.
        **options: Options of :class:`surgeon.nn.heads.Head`, which computes ℓ.
    """

    table: torch.Tensor
    prior: torch.Tensor | None
    added: torch.Tensor

    def __init__(
        self,
        features: int,
        classes: Sequence[str],
        attributes: Sequence[str],
        table: Sequence[Sequence[float]],
        *,
        method: Method = "bilinear",
        embed: int | None = None,
        prior: bool = False,
        **options: Any,
    ) -> None:
        super().__init__()
        self.method = method
        self.classes = list(classes)
        self.added_classes: list[str] = []
        self.known = True
        self.attributes = list(attributes)
        values = torch.tensor(table, dtype=torch.float32)
        self.register_buffer("table", values)
        self.register_buffer("prior", values.mean(0).clamp(EPSILON, 1 - EPSILON) if prior else None)
        self.register_buffer("added", torch.zeros(0, len(attributes)), persistent=False)
        self.project = Head(features, embed or len(attributes), **options)
        self.takes_mask = self.project.takes_mask
        self.embedding = nn.Linear(len(attributes), embed, bias=False) if embed else None
        self.scale = nn.Parameter(torch.full((1,), 10.0)) if method == "cosine" else None

    def forward(self, features: torch.Tensor, mask: torch.Tensor | None = None) -> torch.Tensor:
        """Compute the scores of the classes."""
        return self.score(self.project(features, mask))

    def score(self, projected: torch.Tensor) -> torch.Tensor:
        """Compute the scores from ℓ ``(batch, attributes)``, or ``(batch, embed)``."""
        table = (torch.cat([self.table, self.added]) if self.known else self.added).to(projected.dtype)
        if self.method == "dap":
            log_present, log_absent = functional.logsigmoid(projected), functional.logsigmoid(-projected)
            if self.prior is not None:
                prior = self.prior.to(projected.dtype)
                log_present, log_absent = log_present - prior.log(), log_absent - (1 - prior).log()
            return log_present @ table.T + log_absent @ (1 - table).T
        if self.embedding is not None:
            table = self.embedding(table)
        directions = functional.normalize(table, dim=-1)
        if self.scale is not None:
            return self.scale * functional.linear(functional.normalize(projected, dim=-1), directions)
        return functional.linear(projected, directions)

    @property
    def names(self) -> list[str]:
        """The names of the scored classes, in order."""
        return [*(self.classes if self.known else []), *self.added_classes]

    def rows(self, attributes: Mapping[str, Row]) -> tuple[list[str], torch.Tensor]:
        """Return the names and attributes ``(classes, attributes)`` of other classes, in the order of this table.

        Raises:
            OperationError: A class has other attributes than the head.
        """
        table = table_of(attributes)
        values = torch.tensor(table.values, dtype=torch.float32)
        if any(isinstance(row, Mapping) for row in attributes.values()):
            if set(table.attributes) != set(self.attributes):
                differing = sorted(set(table.attributes) ^ set(self.attributes))
                raise OperationError(
                    f"the classes have other attributes than the head: {', '.join(differing[:5])}",
                    hint=f"the attributes are: {', '.join(self.attributes[:8])}",
                )
            values = values[:, [table.attributes.index(name) for name in self.attributes]]
        if values.shape[1] != len(self.attributes):
            raise OperationError(
                f"the classes have {values.shape[1]} attributes, but the head has {len(self.attributes)}",
                hint=f"the attributes are: {', '.join(self.attributes[:8])}",
            )
        refuse_no_probabilities(self.method, table.classes, values.tolist())
        return list(table.classes), values

    def extra_repr(self) -> str:
        """Show the counts and the method."""
        return f"{self.method}, classes={len(self.classes)}, attributes={len(self.attributes)}"


def with_classes(model: nn.Module, attributes: Mapping[str, Row], *, only: bool = False) -> nn.Module:
    """Copy ``model`` to score more classes by their attributes; the copy shares the weights of ``model``.

    The added classes exist in the copy only. To put them into an artifact, use the operation ``add_classes``.

    Args:
        model: A network with a :class:`ZeroShotHead`.
        attributes: The attributes of each class: numbers in the order of the head's, or by name.
        only: Whether to score these classes only, without the model's.

    Raises:
        OperationError: The model has no such head, already has a class of that name, or the attributes differ.
    """
    shared = {id(tensor): tensor for tensor in [*model.parameters(), *model.buffers()]}
    wider = copy.deepcopy(model, cast("dict[int, Any]", shared))
    head = head_of(wider)
    names, values = head.rows(attributes)
    refuse_known(head, [] if only else names)
    added = values.to(head.added)
    if only:
        head.known, head.added, head.added_classes = False, added, names
    else:
        head.added = torch.cat([head.added, added])
        head.added_classes = [*head.added_classes, *names]
    return wider


def class_names(model: nn.Module) -> list[str]:
    """Return the names of the classes that ``model`` scores, in the order of its scores.

    Raises:
        OperationError: The model has no :class:`ZeroShotHead`.
    """
    return head_of(model).names


def head_of(model: nn.Module) -> ZeroShotHead:
    """Find the head of ``model`` that scores classes by attributes.

    Raises:
        OperationError: The model has none.
    """
    head = next((module for module in model.modules() if isinstance(module, ZeroShotHead)), None)
    if head is None:
        raise OperationError(
            f"{type(model).__name__} has no head that scores classes by their attributes",
            hint="add one with the operation zero_shot",
        )
    return head


def refuse_known(head: ZeroShotHead, names: Sequence[str]) -> None:
    """Refuse names that classes of the head already have.

    Raises:
        OperationError: A name is taken.
    """
    present = [name for name in names if name in head.names]
    if present:
        raise OperationError(
            f"the head already has {', '.join(present[:3])}", hint="leave it out, or use another name, or only: true"
        )


def refuse_no_probabilities(method: Method, classes: Sequence[str], values: Sequence[Sequence[float]]) -> None:
    """Refuse attributes that are not between 0 and 1 if the method uses them as probabilities.

    Raises:
        OperationError: An attribute is outside 0 to 1; the error names the class.
    """
    for name, row in zip(classes, values, strict=True):
        if method == "dap" and not all(0 <= value <= 1 for value in row):
            raise OperationError(
                f"{name} has an attribute outside 0 to 1, but dap needs probabilities",
                hint="scale the table, or use method: bilinear or cosine",
            )
