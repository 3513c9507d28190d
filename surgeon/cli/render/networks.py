"""A network as people read it, and as JSON."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from surgeon.cli.render.numbers import count, shape
from surgeon.cli.render.trees import ROLES, grouped_roles, render_roles, render_tree
from surgeon.pipeline.network_view import NetworkView, SiteView


def render_network(view: NetworkView, depth: int | None) -> RenderableType:
    """Draw the tree, with the roles and their evidence below it."""
    title = Text.assemble((view.architecture or type(view.model).__name__, "bold"))
    if view.source != title.plain:
        title.append(f"  from {view.source}", style="dim")
    parameters = sum(p.numel() for p in view.model.parameters())
    outputs = ", ".join(f"{name} ({shape(sizes)})" for name, sizes in view.outputs.items())
    total = f"{type(view.model).__name__}, {count(parameters)} parameters" + (f", gives {outputs}" if outputs else "")
    roles = view.inspection.roles()
    tree = render_tree(view.model, {role: roles.sites(role) for role in ROLES}, view.trace, depth)
    notes = [Text(f"· {note}", style="dim") for note in view.notes]
    return Group(title, Text(total, style="dim"), Text(), tree, Text(), render_roles(roles), *notes)


def render_sites(sites: Sequence[SiteView]) -> RenderableType:
    """List sites with their classes, shapes and sizes."""
    grid = Table.grid(padding=(0, 2))
    grid.add_column(no_wrap=True, overflow="fold")
    grid.add_column(style="cyan", no_wrap=True)
    grid.add_column(no_wrap=True)
    grid.add_column(justify="right", no_wrap=True)
    for site in sites:
        grid.add_row(site.site, site.kind, shape(site.shape) if site.shape else "", count(site.parameters))
    return grid


def network_dict(view: NetworkView, sites: Sequence[SiteView] | None = None) -> dict[str, Any]:
    """Convert the view to JSON-able data.

    Args:
        view: The network.
        sites: The sites to list; all if left out.
    """
    roles = view.inspection.roles()
    return {
        "architecture": view.architecture,
        "source": view.source,
        "outputs": view.outputs,
        "roles": {
            role: [{"site": site, "evidence": why} for site, why in grouped_roles(roles, role)] for role in ROLES
        },
        "sites": [
            {"site": item["site"], "class": item["kind"], "shape": item["shape"], "parameters": item["parameters"]}
            for item in map(dataclasses.asdict, view.sites if sites is None else sites)
        ],
        "notes": list(view.notes),
    }
