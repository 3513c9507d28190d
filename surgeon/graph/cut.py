"""End a network's forward pass at a site, and find which modules it still needs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import cast

from torch import nn

from surgeon.errors import OperationError
from surgeon.graph.edit import taps_on
from surgeon.graph.trace import Trace
from surgeon.nn.grafts import Grafted, Tap, hook


@dataclass(frozen=True)
class Needed:
    """Hold what a forward pass that ends at a site needs.

    Attributes:
        sites: Every module that was called or read before the site had produced its output.
        idle: Those of them that were only looked up, so that an identity can replace them: ``self.norm`` in
            ``self.norm(self.layers(x))``.
        in_training: Whether a forward pass in training mode, in which auxiliary heads run, could be traced.
        unseen: The topmost sites that no trace used, though other inputs might use them before the site: the image
            tower of a network that was traced on text. ``sites`` includes them and their submodules.
    """

    sites: set[str]
    idle: set[str]
    in_training: bool
    unseen: list[str]


def needed_before(model: nn.Module, site: str, traced: Trace, in_training: Callable[[], Trace]) -> Needed:
    """Find which modules a forward pass that ends at ``site`` needs.

    Modules that are never called may be needed too: Swin and multi-head attention read a child's weight without
    calling the child.

    Args:
        model: The network.
        site: Where the forward is to end.
        traced: A trace of it in eval mode.
        in_training: Traces it in training mode, on the same inputs.

    Raises:
        OperationError: ``site`` does not run, or runs more than once.
    """
    if traced.calls(site) != 1:
        raise OperationError(
            f"the forward cannot end at {site}, which runs {traced.calls(site)} times",
            hint="use keep_blocks to drop layers" if traced.calls(site) else None,
        )
    traces = [traced]
    with suppress(OperationError):
        traces.append(in_training())
    sites = {name for trace in traces for name in trace.accessed_before(site)}
    used = {name for trace in traces for name in trace.used_before(site)}
    unseen = _unseen(model, sites, {name for trace in traces for name in trace.used()})
    unknown = {name for name, _ in model.named_modules() if any(_inside(name, top) for top in unseen)}
    sites |= unknown
    idle = {  # under every name: a shared module has to be removed from all of its parents
        name
        for name, module in model.named_modules(remove_duplicate=False)
        if name in sites - used - unknown
        and not isinstance(module, (nn.ModuleList, nn.ModuleDict))
        and next(module.parameters(), None) is not None
    }
    return Needed(sites, idle, len(traces) == 2, unseen)


def _unseen(model: nn.Module, sites: set[str], used: set[str]) -> list[str]:
    """List the topmost modules that have parameters, are never used, and are in a module that runs before the cut."""
    unseen: list[str] = []
    with_ancestors = {ancestor for name in used for ancestor in _ancestors(name)}
    for name, module in model.named_modules():
        never = name not in with_ancestors and next(module.parameters(), None) is not None
        if never and name.rpartition(".")[0] in sites and not any(_inside(name, top) for top in unseen):
            unseen.append(name)
    return unseen


def _ancestors(name: str) -> list[str]:
    parts = name.split(".")
    return [".".join(parts[:count]) for count in range(len(parts) + 1)]


def _inside(name: str, top: str) -> bool:
    return f"{name}.".startswith(f"{top}.")


def branches_reading(model: nn.Module, sites: Sequence[str]) -> list[tuple[str, str]]:
    """List the branches that read a module at or below ``sites``, as pairs of a site and an output's name."""
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
    """End the forward pass of ``model`` at ``site`` instead of where it ended before."""
    network = cast("nn.Module", model)
    model.exit = Tap(exits=True)
    hook(network.get_submodule(site), model.exit.read)
