"""prune_mlp: remove channels of MLPs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from pydantic import PositiveInt

from surgeon import Operation, OperationError, Selector
from surgeon_prune.fields import UnitFields, summary

if TYPE_CHECKING:
    from torch import nn

    from surgeon import Site
    from surgeon.surgery.context import Surgery
    from surgeon_prune.calls import Calls
    from surgeon_prune.dependency import Dependencies
    from surgeon_prune.groups import Group
    from surgeon_prune.stock import Change


class PruneMlp(UnitFields, Operation):
    """Remove hidden channels of the MLPs (feed-forward layers) of blocks: width pruning.

    A channel is a row of each layer that writes it (fc1; gate and up) and a column of the one that reads it (fc2;
    down), as torch-pruning's dependency graph finds them. The tensors of the result are rows and columns of the
    source's. All layers keep as many channels, so that a transformers config can say it: the class stays stock.

    Shapes: hidden ``(batch, tokens, width)`` → ``(batch, tokens, kept)``.
    """

    at: Selector = "@blocks"
    """The blocks whose MLPs are pruned."""
    round_to: PositiveInt = 1
    """Keep a multiple of it, for fast kernels: 8, 64."""

    def apply(self, model: nn.Module, surgery: Surgery) -> nn.Module:
        """Remove the channels, and say so in the config."""
        from surgeon_prune.importance import how_many
        from surgeon_prune.stock import follow_config

        sites = surgery.select(self.at)
        groups = self.cut(
            surgery,
            lambda calls: _mlps(surgery, calls, sites),
            lambda group: how_many(self.keep, group.count, self.round_to, group.site),
        )
        surgery.note(summary(groups, "MLP channels", self.by))
        if groups:
            widths = dict.fromkeys((group.count, len(group.kept or ())) for group in groups)
            follow_config(surgery, lambda: _attempts(surgery, list(widths)), "MLP channels")
        return surgery.model


def _mlps(surgery: Surgery, calls: Calls, sites: Sequence[Site]) -> list[Group]:
    """Find the channels of the MLPs in sites.

    Raises:
        OperationError: One has none.
    """
    from surgeon_prune.attention import layers_of_attention
    from surgeon_prune.dependency import graphs
    from surgeon_prune.groups import is_linear

    built = graphs(surgery, calls)
    attention = layers_of_attention(surgery.model)
    groups_found: list[Group] = []
    for site in sites:
        layers = [
            f"{site.name}.{name}".strip(".")
            for name, module in site.module.named_modules()
            if is_linear(module) and f"{site.name}.{name}".strip(".") not in attention
        ]
        groups: dict[tuple[tuple[str, int], ...], Group] = {}
        for layer in layers:
            group = _group(built, layer, site.name)
            if group is not None:
                key = tuple((entry.tensor, entry.axis) for entry in group.slices)
                groups.setdefault(key, _with_settings(surgery.model, group))
        if not groups:
            raise OperationError(
                f"{site} has no MLP whose channels only its own linear layers read and write",
                hint="name other sites with at:; prune_channels is for convolutions",
            )
        groups_found += groups.values()
    return groups_found


def _group(built: Sequence[Dependencies], layer: str, site: str) -> Group | None:
    for graph in built:
        if f"{layer}.".startswith(f"{graph.site}." if graph.site else ""):
            inside = layer.removeprefix(f"{graph.site}.") if graph.site else layer
            group = graph.group(inside, reads=True, within=site)
            if group is not None and {"reads", "writes"} <= {entry.role for entry in group.slices}:
                return group if all(entry.role for entry in group.slices) else None
    return None


def _with_settings(model: nn.Module, group: Group) -> Group:
    """Add the attributes of modules around the layers that hold the width."""
    from dataclasses import replace

    from surgeon_prune.stock import MLP_WIDTHS

    settings = [
        (f"{group.site}.{name}".strip("."), field, 1, 1)
        for name, module in model.get_submodule(group.site).named_modules()
        for field in MLP_WIDTHS
        if type(vars(module).get(field)) is int and vars(module)[field] == group.count
    ]
    return replace(group, settings=settings)


def _attempts(surgery: Surgery, widths: Sequence[tuple[int, int]]) -> list[list[Change]]:
    """List the changes of configs that may say the new widths."""
    from surgeon_prune.stock import MLP_WIDTHS, fields_with, values_of

    attempts: list[list[Change]] = []
    named: list[Change] = [(f, old, new) for old, new in widths for f in fields_with(surgery, MLP_WIDTHS, old)]
    if named:
        attempts.append(named)
    if len(widths) == 1:
        old, new = widths[0]
        attempts += [[(field, None, new)] for field in fields_with(surgery, ("n_inner",), None)]
        for ratio in values_of(surgery, "mlp_ratio"):
            attempts.append([("mlp_ratio", ratio, ratio * new / old)])
    return attempts
