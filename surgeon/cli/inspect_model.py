"""What can be found out about a network without reading its weights."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text
from torch import nn

from surgeon.architectures.source import Source, open_source
from surgeon.cli.render.numbers import count, shape
from surgeon.cli.render.trees import ROLES, found, render_roles, render_tree
from surgeon.errors import OperationError, SurgeonError
from surgeon.graph.roles import Roles
from surgeon.graph.sites import Site, select
from surgeon.graph.trace import Trace
from surgeon.plugins import Plugins
from surgeon.surgery.inspection import examination_of
from surgeon.surgery.replay import open_skeleton


@dataclass
class Examined:
    """A network's skeleton with its roles and shapes."""

    source: Source
    model: nn.Module
    roles: Roles
    trace: Trace | None
    notes: list[str]
    selector: str | None = None
    sites: list[Site] = field(default_factory=list)

    def narrow(self, selector: str | None) -> None:
        """List only what ``selector`` names.

        Raises:
            SiteError: It names nothing.
        """
        if selector is not None:
            self.sites = select(self.model, selector, self.roles.sites)
            self.selector = selector

    def render(self, depth: int | None) -> RenderableType:
        """The tree with roles and evidence below it, or the sites of the selector."""
        if self.selector is not None:
            return self._selected()
        title = Text.assemble((str(self.source.architecture or type(self.model).__name__), "bold"))
        if self.source.location != title.plain:
            title.append(f"  from {self.source.location}", style="dim")
        parameters = sum(p.numel() for p in self.model.parameters())
        outputs = self.trace.outputs.items() if self.trace else ()
        told = ", ".join(f"{name} ({shape(sizes)})" for name, sizes in outputs)
        total = f"{type(self.model).__name__}, {count(parameters)} parameters" + (f", gives {told}" if told else "")
        tree = render_tree(self.model, {role: self.roles.sites(role) for role in ROLES}, self.trace, depth)
        notes = [Text(f"· {note}", style="dim") for note in self.notes]
        return Group(title, Text(total, style="dim"), Text(), tree, Text(), render_roles(self.roles), *notes)

    def to_dict(self) -> dict[str, Any]:
        """The same as JSON-able data, each site by itself."""
        sites = self.sites or [Site(name, module) for name, module in self.model.named_modules()]
        return {
            "architecture": str(self.source.architecture) if self.source.architecture else None,
            "source": self.source.location,
            "outputs": self.trace.outputs if self.trace else {},
            "roles": {
                role: [{"site": site, "evidence": why} for site, why in found(self.roles, role)] for role in ROLES
            },
            "sites": [
                {
                    "site": str(site),
                    "class": type(site.module).__name__,
                    "shape": self._shape(site),
                    "parameters": sum(p.numel() for p in site.module.parameters()),
                }
                for site in sites
            ],
            "notes": self.notes,
        }

    def _selected(self) -> RenderableType:
        grid = Table.grid(padding=(0, 2))
        grid.add_column(no_wrap=True, overflow="fold")
        grid.add_column(style="cyan", no_wrap=True)
        grid.add_column(no_wrap=True)
        grid.add_column(justify="right", no_wrap=True)
        for site in self.sites:
            parameters = sum(p.numel() for p in site.module.parameters())
            sizes = self._shape(site)
            grid.add_row(str(site), type(site.module).__name__, shape(sizes) if sizes else "", count(parameters))
        return grid

    def _shape(self, site: Site) -> tuple[int, ...] | None:
        try:
            return self.trace.shape(site.name) if self.trace else None
        except SurgeonError:
            return None


def examine(
    model: str, *, arch: str | None = None, key: str | None = None, trust_pickle: bool = False, plugins: Plugins
) -> Examined:
    """Open ``model`` and find its roles and shapes.

    Raises:
        SurgeonError: It cannot be opened or identified.
    """
    source = open_source(model, arch=arch, trust_pickle=trust_pickle, key=key, plugins=plugins)
    skeleton, _, _ = open_skeleton(source, plugins)
    examination = examination_of(skeleton, plugins, source.surgeries)
    traced: Trace | None = None
    notes = list(source.notes)
    try:
        traced = examination.trace()
        notes.append(f"shapes traced on {traced.evidence} tensors")
    except OperationError as error:
        notes.append(f"no shapes: {error.message}")
    return Examined(source, skeleton, examination.roles(), traced, notes)
