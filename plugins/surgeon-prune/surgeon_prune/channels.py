"""prune_channels: remove channels of convolutions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from pydantic import PositiveInt

from surgeon import Operation, OperationError, Selector
from surgeon_prune.fields import UnitFields, summary

if TYPE_CHECKING:
    from torch import nn

    from surgeon.surgery.context import Surgery
    from surgeon_prune.calls import Calls
    from surgeon_prune.groups import Group


class PruneChannels(UnitFields, Operation):
    """Remove channels that convolutions write: filter pruning (Li et al. 2017).

    A channel goes from every layer that it passes through: the convolution that writes it, its norm, depthwise
    convolutions, gates, and all layers that read it, through additions, concatenations and flattening, as
    torch-pruning's dependency graph finds them (DepGraph, Fang et al. 2023). Before it is used, what was found is
    checked on random values. The tensors of the result are slices of the source's.

    By default, the widths inside blocks shrink, and the streams that blocks add to stay; ``coupled`` prunes these too.
    Grouped convolutions, the network's inputs and its outputs keep their channels.

    Shapes: ``(batch, channels, …)`` → ``(batch, kept, …)`` inside the network.
    """

    at: Selector = "."
    """The convolutions, or modules that contain them."""
    coupled: bool = False
    """Whether to remove channels that several convolutions of different blocks write, in all of them at once: the
    streams of residual connections."""
    round_to: PositiveInt = 1
    """Keep a multiple of it, for fast kernels: 8."""

    def apply(self, model: nn.Module, surgery: Surgery) -> nn.Module:
        """Remove the channels."""
        from surgeon_prune.importance import how_many

        sites = [site.name for site in surgery.select(self.at)]
        groups = self.cut(
            surgery,
            lambda calls: _groups(surgery, calls, sites, coupled=self.coupled),
            lambda group: how_many(self.keep, group.count, min(self.round_to, group.count), group.site),
            skip=True,
        )
        surgery.note(summary(groups, "channels", self.by))
        written = {entry.site for group in groups for entry in group.slices if entry.role != "reads"}
        stay = [name for name in convolutions_in(surgery.model, sites) if name not in written]
        if stay:
            surgery.note(
                f"{len(stay)} convolutions keep their channels: grouped ones, outputs"
                + ("" if self.coupled else ", streams of residual connections (see coupled)")
            )
        return surgery.model


def convolutions_in(model: nn.Module, sites: Sequence[str]) -> list[str]:
    """List the convolutions at and below sites."""
    from surgeon_prune.dependency import CONVS

    return [
        name
        for name, module in model.named_modules()
        if isinstance(module, CONVS) and any(f"{name}.".startswith(f"{site}." if site else "") for site in sites)
    ]


def _groups(surgery: Surgery, calls: Calls, sites: Sequence[str], *, coupled: bool) -> list[Group]:
    """Find the channels that convolutions in sites write.

    Raises:
        OperationError: There are none that can be removed.
    """
    from surgeon_prune.dependency import graphs

    blocks = surgery.roles().block_sites
    convolutions = convolutions_in(surgery.model, sites)
    by_slices: dict[tuple[tuple[str, int], ...], Group] = {}
    for graph in graphs(surgery, calls):
        for name in convolutions:
            if not f"{name}.".startswith(f"{graph.site}." if graph.site else ""):
                continue
            group = graph.group(name.removeprefix(f"{graph.site}.") if graph.site else name, reads=False)
            if group is None or not any(entry.role == "reads" for entry in group.slices):
                continue
            writers = {entry.site for entry in group.slices if entry.role == "writes"}
            alone = len(writers) == 1 or any(f"{group.site}.".startswith(f"{block}.") for block in blocks)
            if coupled or alone:
                by_slices.setdefault(tuple((entry.tensor, entry.axis) for entry in group.slices), group)
    if not by_slices:
        raise OperationError(
            "no convolution there writes channels that can be removed by themselves",
            hint="name others with at:, or add coupled: true for the streams of residual connections",
        )
    return list(by_slices.values())
