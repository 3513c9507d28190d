"""Draw a network as a tree of sites with class, output, size and role. Repeated blocks are shown once."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from rich.console import Console, ConsoleOptions, RenderableType, RenderResult
from rich.table import Table
from rich.text import Text

from surgeon.cli.render.runs import merged, pattern, ranges
from surgeon.pages.numbers import count, shape

if TYPE_CHECKING:
    from torch import nn

    from surgeon.graph.roles import Roles
    from surgeon.graph.trace import Trace

ROLES = ("stem", "embeddings", "blocks", "pool", "head", "aux", "norms")
NARROW = 72
"""Below this many characters, the classes are left out."""
WIDE = 96
"""Below this many characters, the FLOPs are left out."""
UNMARKED = {"norms"}  # too many to mark, so they are only listed below the tree


@dataclass(frozen=True)
class _Row:
    parent: str
    name: str
    site: str
    """The first site of the row."""
    module: nn.Module
    copies: int
    depth: int


def render_tree(
    model: nn.Module,
    roles: Mapping[str, list[str]],
    trace: Trace | None,
    depth: int | None = 2,
    flops: Mapping[str, int] | None = None,
) -> RenderableType:
    """Draw the tree of ``model``.

    Args:
        model: A network or its skeleton.
        roles: The sites of each role.
        trace: The trace with the output shapes; without it they are left out.
        depth: How many levels to show; all if None. Sites with a role are shown at any level.
        flops: The floating-point operations of each site in the traced forward.
    """
    marks: dict[str, list[str]] = {}
    for role, sites in roles.items():
        for site in sites if role not in UNMARKED else ():
            marks.setdefault(site, []).append(f"@{role}")
    rows = []
    for row in _rows(model):
        if depth is not None and row.depth > depth and row.site not in marks:
            continue
        parameters = sum(p.numel() for p in row.module.parameters()) * row.copies
        many = f"{row.copies} × " if row.copies > 1 else ""
        rows.append(
            {
                "site": Text.assemble((row.parent, "dim"), (row.name, "bold" if row.depth == 1 else "")),
                "module": Text(many + type(row.module).__name__, style="cyan"),
                "output": Text() if trace is None else _shape(trace, row.site),
                "parameters": Text(count(parameters) if parameters else ""),
                "FLOPs": Text(count(operations) if (operations := (flops or {}).get(row.site, 0) * row.copies) else ""),
                "role": Text(" ".join(marks.get(row.site, [])), style="magenta"),
            }
        )
    return _Tree(
        rows, ["site", "module", *(["output"] if trace else []), "parameters", *(["FLOPs"] if flops else []), "role"]
    )


@dataclass(frozen=True)
class _Tree:
    """A table whose sites, classes and roles are shortened on a narrow terminal, but not its numbers."""

    rows: Sequence[Mapping[str, Text]]
    columns: Sequence[str]

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        needed = {"module": NARROW, "FLOPs": WIDE}
        columns = [name for name in self.columns if options.max_width >= needed.get(name, 0)]
        grid = Table(box=None, padding=(0, 2, 0, 0), header_style="dim", pad_edge=False)
        for name in columns:
            numbers = name in ("output", "parameters", "FLOPs")
            grid.add_column(
                name, no_wrap=numbers, overflow="fold", justify="right" if name in ("parameters", "FLOPs") else "left"
            )
        for row in self.rows:
            grid.add_row(*(row[name] for name in columns))
        yield grid


def render_roles(roles: Roles) -> RenderableType:
    """Draw the sites of each role, with the evidence."""
    grid = Table.grid(padding=(0, 2))
    grid.add_column(style="magenta", no_wrap=True)
    grid.add_column(overflow="fold")
    grid.add_column(style="dim", overflow="fold")
    for role in ROLES:
        for number, (site, evidence) in enumerate(grouped_roles(roles, role)):
            grid.add_row(f"@{role}" if not number else "", site or ".", evidence)
    return grid


def grouped_roles(roles: Roles, role: str) -> list[tuple[str, str]]:
    """List the sites of a role with their evidence; one line for a stack of blocks or for many sites."""
    if role == "blocks":
        return [
            (f"{stack.container}.{ranges(numbers)}" if numbers else stack.container, f"{len(stack.sites)} blocks")
            for stack in roles.blocks
            for numbers in [_numbers(stack.container, stack.sites)]
        ]
    sites = [(item.site, item.evidence) for item in getattr(roles, role)]
    if len(sites) > 4:
        kinds = list(dict.fromkeys(evidence for _, evidence in sites))
        return [(f"{sites[0][0]}, …", f"{len(sites)} sites; {', '.join(kinds[:3])}")]
    return sites


def _numbers(container: str, sites: list[str]) -> list[int]:
    names = [site.removeprefix(f"{container}.") for site in sites]
    return [int(name) for name in names] if all(name.isdigit() for name in names) else []


def _shape(trace: Trace, site: str) -> Text:
    visit = trace.visits.get(site)
    if visit is None:
        return Text("not run", style="dim")
    try:
        text = shape(trace.shape(site))
    except Exception:  # the output has no tensor, which is not an error in a table
        text = "no tensor"
    return Text(text if visit.calls == 1 else f"{text}, {visit.calls} calls")


def _rows(module: nn.Module, site: str = "", level: int = 1) -> Iterator[_Row]:
    """Yield the rows below ``module``; consecutive children of equal structure share one."""
    prefix = f"{site}." if site else ""
    groups: list[list[str]] = []
    for name, child in module.named_children():
        alike = groups and pattern(name) == pattern(groups[-1][-1]) != name
        if alike and _signature(module.get_submodule(groups[-1][-1])) == _signature(child):
            groups[-1].append(name)
        else:
            groups.append([name])
    for group in groups:
        child = module.get_submodule(group[0])
        name = merged(group)
        at = f"{prefix}{group[0]}"
        inner = list(child.named_children())
        if type(child).__name__ == "ModuleList" and len({_signature(block) for _, block in inner}) == 1:
            # a ModuleList does not run itself, so its row would add nothing to those of its blocks
            yield from _rows(child, at, level)
            continue
        yield _Row(prefix, name, at, child, len(group), level)
        yield from _rows(child, at, level + 1)


def _signature(module: nn.Module) -> tuple[object, ...]:
    shapes = tuple((name, tuple(parameter.shape)) for name, parameter in module.named_parameters())
    return (type(module).__name__, shapes, module.extra_repr() if not shapes else "")
