"""Show a network without reading its weights: sites, roles, shapes and sizes."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from torch import nn

from surgeon.architectures.trust import TrustCode, with_trust
from surgeon.errors import OperationError, SurgeonError, counted, name_nearest_option
from surgeon.graph.costs import Costs, costs
from surgeon.graph.roles import Roles
from surgeon.graph.sites import ROLES, Site, split_terms
from surgeon.graph.trace import Trace
from surgeon.interfaces.html_table import html_report, html_table
from surgeon.interfaces.record import Record
from surgeon.plugins import Plugins, as_plugins
from surgeon.surgery.inspection import Inspection
from surgeon.surgery.opened import Model, OpenOptions
from surgeon.surgery.replay import open_network


@dataclass(frozen=True)
class SiteView:
    """One module of a network.

    Attributes:
        site: Its address in selectors; ``.`` is the whole network.
        kind: The name of its class.
        shape: The shape of its main output tensor, batch first; None if it does not run or returns no tensor.
        parameters: The number of parameters at and below it.
        trainable: How many of them train.
        why: The terms of a selector that match it, with the evidence of roles; empty without a selector.
    """

    site: str
    kind: str
    shape: tuple[int, ...] | None
    parameters: int
    trainable: int = 0
    why: str = ""

    @property
    def state(self) -> str:
        """Whether it is ``frozen``, or ``partly frozen``; empty if all of its parameters train, or it has none."""
        if self.trainable == self.parameters:
            return ""
        return "partly frozen" if self.trainable else "frozen"

    def _repr_html_(self) -> str:
        """Show the site as a table in a notebook."""
        return Sites([self])._repr_html_()


class Sites(tuple[SiteView, ...]):
    """Some modules of a network; a notebook shows them as a table."""

    __slots__ = ()

    def _repr_html_(self) -> str:
        return html_report(counted(len(self), "site"), sites_table(self))


@dataclass(frozen=True)
class RoleView:
    """One site in a role.

    Attributes:
        site: Its address.
        evidence: Why it has the role.
    """

    site: str
    evidence: str


@dataclass(frozen=True)
class NetworkView:
    """The result of :func:`inspect`.

    Attributes:
        architecture: What builds the network; None for a module of unknown origin.
        source: The location that was opened.
        model: The skeleton: all modules without values.
        sites: All modules, in the order of the tree.
        roles: The sites of each role (``head``, ``blocks``, ``stem``, …), with the evidence.
        outputs: The shapes of the network's outputs, by name; ``{}`` if it could not be traced.
        notes: Remarks about opening and tracing.
        inspection: Answers further questions about the skeleton.
        trace: The forward that the shapes come from; None if the network could not be run.
        record: How an artifact was made; None for anything else.
    """

    architecture: str | None
    source: str
    model: nn.Module
    sites: Sites
    roles: dict[str, tuple[RoleView, ...]]
    outputs: dict[str, tuple[int, ...]]
    notes: tuple[str, ...]
    inspection: Inspection = field(repr=False)
    trace: Trace | None = field(repr=False)
    record: Record | None = field(default=None, repr=False)

    def select(self, selector: str) -> Sites:
        """Return the sites that a selector matches, in the order of the tree, with the terms that match.

        Raises:
            SiteError: The selector matches nothing; the error names the nearest sites.
        """
        sites = self.inspection.select(selector)
        terms = split_terms(selector)
        matches = {term: {site.name for site in self.inspection.select(term)} for term in terms if term[0] != "!"}
        complement = f"everything but {', '.join(term.removeprefix('!').strip() for term in terms)}"

        def why(site: str) -> str:
            reasons = [f"{term}{self._evidence(term, site)}" for term, names in matches.items() if site in names]
            return "; ".join(reasons) if matches else complement

        return Sites(replace(_site_view(site, self.trace), why=why(site.name)) for site in sites)

    def costs(self) -> Costs | None:
        """Count the FLOPs of a forward and the memory of training; None where the network was not traced."""
        if self.trace is None:
            return None
        try:
            return costs(self.model, self.trace)
        except Exception:  # whatever a network raises when it is run once more
            return None

    def _repr_html_(self) -> str:
        """Show the surgery that made it, the sites and the roles as tables in a notebook."""
        roles = [(f"@{role}", item.site or ".", item.evidence) for role, items in self.roles.items() for item in items]
        title = self.architecture or type(self.model).__name__
        past = [history_table(self.record)] if self.record is not None and self.record.surgeries else []
        listed = sites_table(self.sites)
        return html_report(title, *past, listed, html_table(("role", "site", "evidence"), roles), notes=self.notes)

    def _evidence(self, term: str, site: str) -> str:
        """Return the evidence for the role in ``term``, at the site or around it; empty for other terms."""
        role = re.match(r"@(\w+)", term)
        if role is None:
            return ""
        evidence = {item.site: item.evidence for item in self.roles.get(role[1], ())}
        parts = site.split(".")
        around = [".".join(parts[:end]) for end in range(len(parts), -1, -1)]
        holder = next((name for name in around if name in evidence), None)
        if holder is None:
            return ": given as a role" if role[1] not in self.roles else ""
        return f": {evidence[holder]}" if holder == site else f": in {holder}, {evidence[holder]}"


@name_nearest_option
def inspect(
    model: Model,
    *,
    arch: str | None = None,
    key: str | None = None,
    trust_pickle: bool = False,
    trust_code: TrustCode = (),
    plugins: Plugins | Sequence[str] | None = None,
) -> NetworkView:
    """Return a network's sites, roles and shapes. Reads no weights.

    In a notebook the result shows itself as tables. ``surgeon.inspect(model)`` shows an edited model with its surgery
    and what is frozen; the model itself is an ordinary module, which PyTorch prints.

    Args:
        model: A path, ``torchvision/NAME[@WEIGHTS]``, ``hf:ORG/NAME``, an artifact, or a module in memory.
        arch: What builds the network, if the source does not say.
        key: Which of several state dicts in the source to use.
        trust_pickle: Whether pickles in the source may run code.
        trust_code: Modules, named in the recipe or a manifest (``python:package.module:function``), that may run.
        plugins: The plugins, or files and modules to load beside the built-in and installed ones (the default).

    Raises:
        CheckpointError: The source is missing, damaged or unsafe.
        ArchitectureError: The network cannot be identified or built.
    """
    plugins = with_trust(as_plugins(plugins), trust_code, model, arch)
    options = OpenOptions(arch=arch, key=key, trust_pickle=trust_pickle, plugins=plugins)
    opened = open_network(model, options)
    notes = list(opened.source.notes)
    if missing := opened.source.missing:
        few = ", ".join(missing[:3]) + (", …" if len(missing) > 3 else "")
        notes.append(f"the checkpoint lacks {counted(len(missing), 'tensor')} of this network: {few}")
    return view_network(
        opened.inspect(),
        str(opened.source.architecture) if opened.source.architecture else None,
        opened.source.location,
        notes,
        opened.source.record,
    )


def view_network(
    inspection: Inspection, architecture: str | None, source: str, notes: Iterable[str], record: Record | None = None
) -> NetworkView:
    """Collect what is shown of a network.

    Args:
        inspection: Inspects the network, or its skeleton.
        architecture: What builds it; None where that is not known.
        source: Where it comes from.
        notes: What was noticed while opening it.
        record: How an artifact was made.
    """
    trace: Trace | None = None
    notes = list(notes)
    try:
        trace = inspection.trace()
        notes.append(f"shapes traced on {trace.evidence} tensors")
    except OperationError as error:
        notes.append(f"no shapes: {error.message}")
    roles = inspection.roles()
    model = inspection.model
    return NetworkView(
        architecture=architecture,
        source=source,
        model=model,
        sites=Sites(_site_view(Site(name, module), trace) for name, module in model.named_modules()),
        roles={role: _role_views(roles, role) for role in ROLES},
        outputs=dict(trace.outputs) if trace else {},
        notes=tuple(notes),
        inspection=inspection,
        trace=trace,
        record=record,
    )


def _site_view(site: Site, trace: Trace | None) -> SiteView:
    try:
        shape = trace.shape(site.name) if trace else None
    except SurgeonError:
        shape = None
    sizes = [(parameter.numel(), parameter.requires_grad) for parameter in site.module.parameters()]
    trainable = sum(size for size, trains in sizes if trains)
    return SiteView(str(site), type(site.module).__name__, shape, sum(size for size, _ in sizes), trainable)


def sites_table(sites: Sequence[SiteView]) -> str:
    """Make the HTML table of some sites; columns that would be empty are left out."""
    rows = [
        (view.site, view.kind, " × ".join(map(str, view.shape or ())), view.parameters, view.state, view.why)
        for view in sites
    ]
    head = ("site", "class", "output", "parameters", "state", "matched by")
    columns = [place for place in range(len(head)) if place < 4 or any(row[place] for row in rows)]
    return html_table([head[place] for place in columns], [[row[place] for place in columns] for row in rows])


def history_table(record: Record) -> str:
    """Make the HTML table of how a network was made: each operation with its fields, and each training."""
    rows = []
    for surgery in record.surgeries:
        for number, operation in enumerate(surgery.operations):
            fields = ", ".join(f"{name}={value!r}" for name, value in operation.items() if name != "op")
            rows.append((f"from {surgery.source}" if number == 0 else "", operation["op"], fields))
    for training in record.training:
        report: Mapping[str, Any] = training.get("report") or {}
        rows.append(("", "train", f"on {report.get('train_samples', '?')} samples"))
    return html_table(("made", "operation", "with"), rows)


def _role_views(roles: Roles, role: str) -> tuple[RoleView, ...]:
    if role == "blocks":
        return tuple(
            RoleView(site, f"one of {len(stack.sites)} blocks in {stack.container}")
            for stack in roles.blocks
            for site in stack.sites
        )
    return tuple(RoleView(item.site, item.evidence) for item in getattr(roles, role))
