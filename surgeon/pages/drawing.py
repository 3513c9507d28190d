"""Turn a network into the plain data that a page draws: a tree of its modules, and the edges between them."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import nn

from surgeon.graph.costs import Costs
from surgeon.graph.flow import FlowGraph, flow_graph
from surgeon.graph.sites import ROLES
from surgeon.nn.grafts import Branch, Inserted, Tap
from surgeon.nn.heads import Head
from surgeon.nn.lateral import Lateral
from surgeon.nn.mixing import base_of
from surgeon.nn.reversal import Reversal
from surgeon.pipeline.network_view import NetworkView

KINDS: tuple[tuple[type[nn.Module], str], ...] = (
    (Reversal, "reversal"),
    (Lateral, "lateral"),
    (Branch, "branch"),
    (Inserted, "inserted"),
    (Head, "head"),
)
"""The modules of surgeon that a page marks by name."""

Status = Callable[[str, nn.Module], str]
"""Says of a site what surgery does to it: ``kept``, ``new``, ``changed`` or ``cut``."""


@dataclass(frozen=True)
class Extras:
    """Hold what a page says of a network beside its structure.

    Attributes:
        status: Says what surgery does to each site; everything is kept if left out.
        columns: Further columns of the table of layers, by their headings: a text for each site.
        heat: How strongly each site is tinted, 0…1.
    """

    status: Status | None = None
    columns: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    heat: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Drawing:
    """Hold a network as a page draws it.

    Attributes:
        data: JSON-able: the tree, the edges, the roles and the class names.
        costs: What a forward costs; None where the network was not traced.
        note: Why the graph has no edges; empty where it has.
    """

    data: dict[str, Any]
    costs: Costs | None
    note: str = ""


def draw_network(view: NetworkView, extras: Extras | None = None) -> Drawing:
    """Describe a network's modules and what flows between them.

    Args:
        view: What :func:`surgeon.inspect` shows of it.
        extras: What is said of it beside its structure.
    """
    extras = extras or Extras()
    graph, price, note = FlowGraph((), {}, ()), None, ""
    if view.trace is None:
        note = "the network could not be traced, so the graph has no edges"
    else:
        try:
            graph, price = flow_graph(view.model, view.trace), view.costs()
        except Exception as error:  # whatever a network raises when it is run once more
            note = f"what flows where could not be recorded: {type(error).__name__}: {error}"
    flops = price.flops if price else {}
    roles: dict[str, list[str]] = {}
    for role in ROLES:
        for item in view.roles.get(role, ()):
            roles.setdefault(item.site, []).append(f"@{role}")
    ran = {site for node in graph.nodes for site in _chain(re.split("[#~]", node)[0])}
    first = {id(module): name for name, module in view.model.named_modules()}

    def describe(name: str, site: str, module: nn.Module) -> dict[str, Any]:
        parameters = list(module.parameters())
        trainable = sum(p.numel() for p in parameters if p.requires_grad)
        total = sum(p.numel() for p in parameters)
        visit = view.trace.visits.get(site) if view.trace else None
        node = {
            "name": name,
            "site": site,
            "class": base_of(type(module)).__name__,
            "parameters": total,
            "bytes": sum(p.numel() * p.element_size() for p in parameters),
            "flops": flops.get(site, 0),
            "shape": list(view.trace.features(site) or ()) if view.trace else [],
            "calls": visit.calls if visit else 0,
            "ran": site in ran or visit is not None or isinstance(module, Tap),
            "status": extras.status(site, module) if extras.status else "kept",
            "frozen": "" if not total else "all" if not trainable else "part" if trainable < total else "",
            "roles": roles.get(site, []),
            "kind": next((kind for cls, kind in KINDS if isinstance(module, cls)), ""),
            "heat": extras.heat.get(site, 0),
            "more": [values.get(site, "") for values in extras.columns.values()],
            "children": (inside := list(children(site, module))),
            "groups": _groups(inside),
        }
        return {key: value for key, value in node.items() if value or key in ("name", "site", "class")}

    def children(site: str, module: nn.Module) -> Iterator[dict[str, Any]]:
        for name, child in module._modules.items():
            if child is None:
                continue
            at = f"{site}.{name}" if site else name
            if first[id(child)] == at:
                yield describe(name, at, child)
            else:  # a shared module stands where its first name is
                yield {"name": name, "site": at, "class": type(child).__name__, "same": first[id(child)]}

    classes = {base_of(type(module)) for module in view.model.modules()} | {type(m) for m in view.model.modules()}
    data = {
        "title": view.architecture or type(view.model).__name__,
        "root": describe("", "", view.model),
        "joins": dict(graph.joins),
        "edges": [[edge.source, edge.target, list(edge.shape)] for edge in graph.edges],
        "roles": {role: [item.site for item in items] for role, items in view.roles.items()},
        "classes": {cls.__name__: [base.__name__ for base in cls.__mro__] for cls in classes},
        "columns": list(extras.columns),
    }
    return Drawing(data, price, note)


def _chain(site: str) -> Iterator[str]:
    """Yield a site and all around it."""
    while site:
        yield site
        site = site.rpartition(".")[0]


def _groups(children: list[dict[str, Any]]) -> list[list[int]]:
    """List the runs of two or more consecutive children of equal structure: the first, and the one after the last."""
    shapes = [_structure(child) for child in children]
    runs, start = [], 0
    for end in range(1, len(children) + 1):
        if end == len(children) or shapes[end] != shapes[start]:
            if end - start > 1 and children[start].get("children"):
                runs.append([start, end])
            start = end
    return runs


def _structure(node: Mapping[str, Any]) -> tuple[object, ...]:
    same = ("class", "parameters", "status", "frozen", "ran", "kind")
    return (*(node.get(key) for key in same), *map(_structure, node.get("children", ())))
