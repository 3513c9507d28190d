"""Ending a network's forward at a site: what has to stay, and what may go."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from torch import nn

from surgeon.errors import OperationError
from surgeon.graph.edit import taps_on
from surgeon.graph.trace import Trace, trace
from surgeon.nn.grafts import Grafted, Tap

if TYPE_CHECKING:
    from surgeon.graph.families import Family


def needed_before(
    model: nn.Module, site: str, traced: Trace, inputs: Any, families: Sequence[Family]
) -> tuple[set[str], bool]:
    """Every module that ran, or was read, before ``site`` had produced its output.

    "Never called" would not be enough: Swin and multi-head attention read a child's weight without
    calling the child. And auxiliary heads may run in training alone, so that is traced as well.

    Returns:
        The sites, and whether a forward in training mode could be traced.

    Raises:
        OperationError: ``site`` does not run, or runs more than once.
    """
    if traced.calls(site) != 1:
        raise OperationError(
            f"the forward cannot end at {site}, which runs {traced.calls(site)} times",
            hint="use keep_blocks to drop layers" if traced.calls(site) else None,
        )
    needed = set(traced.accessed_before(site))
    try:
        return needed | trace(model, inputs, training=True, families=families).accessed_before(site), True
    except OperationError:
        return needed, False


def branches_reading(model: nn.Module, sites: Sequence[str]) -> list[tuple[str, str]]:
    """The branches that read something at or below ``sites``: pairs of a site and an output's name."""
    if not isinstance(model, Grafted):
        return []
    modules = dict(model.named_modules())
    return [
        (site, output)
        for output, branch in model.grafts.items()
        for site in sites
        if site in modules and any(branch.tap in taps_on(module) for module in modules[site].modules())
    ]


def exit_at(model: Grafted, site: str) -> None:
    """End the forward of ``model`` at ``site``, and no longer where it ended before."""
    if model.exit is not None:
        for module in model.modules():
            for key, hook in list(module._forward_hooks.items()):
                if getattr(hook, "__self__", None) is model.exit:
                    del module._forward_hooks[key]
    model.exit = Tap(exits=True)
    model.get_submodule(site).register_forward_hook(model.exit.read)
