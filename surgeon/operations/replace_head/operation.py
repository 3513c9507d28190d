"""replace_head: a new head for a new set of classes."""

from __future__ import annotations

from typing import TYPE_CHECKING

from surgeon.interfaces.operation import Operation
from surgeon.interfaces.training import Objective
from surgeon.operations.replace_head.fields import ReplaceHeadFields

if TYPE_CHECKING:
    from torch import nn

    from surgeon.surgery.context import Surgery

LOSSES = {"multi_label_classification": "bce", "regression": "mse"}


class ReplaceHead(ReplaceHeadFields, Operation):
    """Replace the head by one for a new set of classes, or for another task, or put one on features.

    A transformers network becomes the stock class for the task, which loads by plain ``from_pretrained``: with
    ``classes: 3`` a ``BertForMaskedLM`` becomes a ``BertForSequenceClassification``. Its trunk keeps its values; new
    parts are initialised as the class does it. A class that counts labels already stays what it is, and every tensor
    with the class count changes. ``task: base`` takes the head away, ``task: masked_lm`` or ``causal_lm`` puts the
    vocabulary's on, tied as the config says.

    Elsewhere, the new head stands in place of the old one, reads what that read and takes its dtype. A detector keeps
    the form of its family, with the background as class 0. Where the network has no head (it was truncated, or is a
    bare trunk without a stock class), the head goes on top of its features, pooled, and its ``logits`` are the output.

    Shapes: features ``(batch, …)`` → logits ``(batch, classes)``; a dense head keeps its positions.

    Sources: cosine heads, Gidaris & Komodakis 2018, eq. 3; gem pooling, Radenović et al. 2018, eq. 3.
    """

    def apply(self, model: nn.Module, surgery: Surgery) -> nn.Module:
        """Put the new head in the old one's place, or on top of the features where there is none."""
        from surgeon.operations.replace_head.carry_out import replace_head

        with surgery.bookkeeping():
            return replace_head(self, surgery)

    def objectives(self) -> list[Objective]:
        """The loss of the logits, where it is not the default cross-entropy."""
        loss = LOSSES.get(self.problem_type or "")
        return [Objective(output="logits", loss=loss)] if loss else []
