"""prune_heads: remove attention heads."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal

from surgeon import Operation, OperationError, Selector
from surgeon_prune.fields import UnitFields, summary

if TYPE_CHECKING:
    from torch import nn

    from surgeon.surgery.context import Surgery
    from surgeon_prune.attention import Attention
    from surgeon_prune.groups import Group
    from surgeon_prune.stock import Change


class PruneHeads(UnitFields, Operation):
    """Remove attention heads (Michel et al. 2019 showed that many are redundant).

    A head is its rows of the layers that write queries, keys and values, and its columns of the one that reads the
    heads. The width of a head stays. All layers keep as many heads, so that a transformers config can say it; where it
    cannot (BERT's has no width of a head), the class stays and the plan says that only surgeon loads the result. A
    ``torch.nn.MultiheadAttention``, which cannot have fewer heads, is replaced by a module that computes the same.

    With grouped queries, several query heads share a key-value head; ``unit`` says what is removed.
    """

    at: Selector = "@blocks"
    """The blocks, or attention layers, that lose heads."""
    unit: Literal["groups", "queries"] = "groups"
    """groups: a key-value head with the query heads that share it, which also makes the cache smaller; queries: query
    heads, as many of each group. Without grouped queries they are the same."""

    def apply(self, model: nn.Module, surgery: Surgery) -> nn.Module:
        """Remove the heads, and say so in the config."""
        from surgeon_prune.attention import attentions, group_of
        from surgeon_prune.importance import how_many
        from surgeon_prune.multihead import replace_multihead
        from surgeon_prune.stock import follow_config

        names = [site.name for site in surgery.select(self.at)]
        replace_multihead(surgery, names)
        layers = {layer.site: layer for layer in attentions(surgery.model, names)}
        if not layers:
            raise OperationError(
                f"no attention layers of a known layout at {self.at}",
                hint="name them, or the blocks around them, with at:; prune_mlp prunes MLPs",
            )

        def count(group: Group) -> int:
            layer = layers[group.site]
            multiple = layer.shared if self.unit == "groups" else layer.key_value_heads
            kept_heads = how_many(self.keep, layer.heads, multiple, group.site)
            return kept_heads // layer.shared if self.unit == "groups" else kept_heads

        groups = self.cut(
            surgery, lambda calls: [group_of(surgery.model, layer, self.unit) for layer in layers.values()], count
        )
        grouped = self.unit == "groups" and any(layer.shared > 1 for layer in layers.values())
        surgery.note(summary(groups, "key-value heads, with their query heads" if grouped else "heads", self.by))
        if groups:
            pruned = [(layers[group.site], group) for group in groups]
            follow_config(surgery, lambda: _attempts(surgery, pruned, self.unit), "heads")
        return surgery.model


def _attempts(surgery: Surgery, pruned: Sequence[tuple[Attention, Group]], unit: str) -> list[list[Change]]:
    """List the changes of configs that may say the new numbers of heads."""
    from surgeon_prune.stock import HEADS, KEY_VALUE_HEADS, fields_with, values_of

    changes: dict[Change, None] = {}
    for layer, group in pruned:
        kept_units = len(group.kept or ())
        heads = kept_units * layer.shared if unit == "groups" else kept_units
        for field in fields_with(surgery, HEADS, layer.heads):
            changes[field, layer.heads, heads] = None
        if unit == "groups":
            for field in fields_with(surgery, KEY_VALUE_HEADS, layer.key_value_heads):
                changes[field, layer.key_value_heads, kept_units] = None
    widths = {layer.width for layer, _ in pruned}
    attempts = [list(changes)]
    if len(widths) == 1:
        values = values_of(surgery, "head_dim")
        if not values or None in values:  # it would be computed from the number of heads
            attempts.insert(0, [*changes, ("head_dim", None, widths.pop())])
    return attempts if changes else []
