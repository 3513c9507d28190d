"""Draw a network, and convert it to JSON."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from surgeon.cli.render.trees import ROLES, render_roles, render_tree
from surgeon.errors import counted
from surgeon.graph.costs import Costs
from surgeon.pages.numbers import count, shape, size
from surgeon.pipeline.network_view import NetworkView, SiteView


def render_network(view: NetworkView, depth: int | None) -> RenderableType:
    """Draw the tree, with the roles and their evidence below it."""
    title = Text.assemble((view.architecture or type(view.model).__name__, "bold"))
    if view.source != title.plain:
        title.append(f"  from {view.source}", style="dim")
    parameters = sum(p.numel() for p in view.model.parameters())
    outputs = ", ".join(f"{name} ({shape(sizes)})" for name, sizes in view.outputs.items())
    total = f"{type(view.model).__name__}, {count(parameters)} parameters" + (f", outputs {outputs}" if outputs else "")
    price = view.costs()
    total = ", ".join([total, *_prices(price)])
    roles = view.inspection.roles()
    flops = price.flops if price else {}
    tree = render_tree(view.model, {role: roles.sites(role) for role in ROLES}, view.trace, depth, flops)
    notes = [Text(f"· {note}", style="dim") for note in view.notes]
    return Group(title, Text(total, style="dim"), Text(), tree, Text(), render_roles(roles), *notes)


def _prices(price: Costs | None) -> Iterator[str]:
    """Say what a forward costs, and what a step of training keeps in memory."""
    if price is None:
        return
    yield f"{count(price.flops[''])}FLOPs a sample"
    if price.training_bytes is not None:
        yield f"{size(price.training_bytes)} in memory to train a batch of {price.samples} with AdamW"


def render_sites(sites: Sequence[SiteView]) -> RenderableType:
    """List the sites that a selector matches, with class, shape and size, and which term matches each."""
    table = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False, header_style="dim")
    table.add_column("site", overflow="fold")
    table.add_column("module", style="cyan", overflow="fold")
    table.add_column("output", overflow="fold")
    table.add_column("parameters", justify="right", no_wrap=True)
    table.add_column("matched by", style="dim", overflow="fold")
    for site in sites:
        sizes = shape(site.shape) if site.shape else ""
        table.add_row(site.site, site.kind, sizes, count(site.parameters), site.why)
    return Group(table, Text(counted(len(sites), "site"), style="dim"))


def network_dict(view: NetworkView, sites: Sequence[SiteView] | None = None) -> dict[str, Any]:
    """Convert the view to JSON-able data.

    Args:
        view: The network.
        sites: The sites to list. Default: all.
    """
    price = view.costs()
    return {
        "architecture": view.architecture,
        "source": view.source,
        "outputs": view.outputs,
        "costs": price.to_dict() if price else None,
        "roles": {
            role: [{"site": item.site or ".", "evidence": item.evidence} for item in items]
            for role, items in view.roles.items()
        },
        "sites": [
            {
                "site": site.site,
                "class": site.kind,
                "shape": site.shape,
                "parameters": site.parameters,
                "trainable": site.trainable,
                "flops": price.flops.get("" if site.site == "." else site.site, 0) if price else None,
                **({"why": site.why} if sites is not None else {}),
            }
            for site in (view.sites if sites is None else sites)
        ],
        "notes": list(view.notes),
    }
