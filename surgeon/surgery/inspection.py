"""Inspect a network: which modules run, which roles they have, what they produce.

Operations, the commands and training all use an :class:`Inspection`. So the facts that a plugin declares about a family
of networks, and the roles and inputs in a recipe, apply wherever a network is traced.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Any, TypeVar

from torch import nn

from surgeon.errors import ArchitectureError, SiteError, nearest
from surgeon.graph.inputs.resolve import find_inputs
from surgeon.graph.roles import Roles, find_roles
from surgeon.graph.sites import ROLES, Site, select
from surgeon.graph.trace import Trace, trace
from surgeon.interfaces.architecture_name import Architecture
from surgeon.interfaces.composite import root_of
from surgeon.surgery.journal import Journal
from surgeon.surgery.module_state import ModuleStates
from surgeon.surgery.writes import unwatched

if TYPE_CHECKING:
    from surgeon.architectures.registry import ArchitectureProvider
    from surgeon.families.inputs import Inputs
    from surgeon.interfaces.family import Family
    from surgeon.interfaces.record import Surgeries
    from surgeon.plugins import Plugins

T = TypeVar("T")


class Inspection:
    """Find the sites, roles and shapes of a skeleton as it is now, and build architectures.

    Args:
        model: The skeleton.
        roles: Overrides of roles, as in a recipe's ``roles:``.
        inputs: Override of the traced inputs, as in a recipe's ``inputs:``.
        families: Facts that plugins declare about families of networks.
        architecture: What builds the network before any surgery, if that is known.
        providers: What builds architectures, by scheme.
        journal: Records answers about the traced network. If it has the answers of an earlier run, no forward pass
            is run, and a later version of surgeon rebuilds the same network.
    """

    def __init__(
        self,
        model: nn.Module,
        *,
        roles: Mapping[str, Any] | None = None,
        inputs: Any = None,
        families: Sequence[Family] = (),
        architecture: Architecture | None = None,
        providers: Mapping[str, ArchitectureProvider] | None = None,
        journal: Journal | None = None,
    ) -> None:
        self.model = model
        self.architecture = architecture
        self._journal = journal if journal is not None else Journal()
        self._role_overrides = dict(roles or {})
        self._inputs = inputs
        self._families = families
        self._providers = dict(providers or {})
        self._trace: Trace | None = None
        self._last_inputs: Inputs | None = None
        self._roles: Roles | None = None

    @property
    def families(self) -> Sequence[Family]:
        """Return the facts that plugins declare about families of networks."""
        return self._families

    def select(self, selector: str | Iterable[str]) -> list[Site]:
        """List the sites that a selector, or several, names; in the order of the tree.

        Raises:
            SiteError: It matches nothing; the error names the nearest sites, or the operation that
                removed the site.
        """
        text = selector if isinstance(selector, str) else ", ".join(selector)
        try:
            return select(self.model, text, self.role)
        except SiteError as error:
            for site, by in self._journal.removed.items():
                if fnmatchcase(site, text) or text.startswith(f"{site}."):
                    raise SiteError(f"{text!r} does not exist any more: {by} removed {site}") from error
            raise

    def site(self, selector: str) -> Site:
        """Get the one site that ``selector`` names.

        Raises:
            SiteError: It names none, or more than one.
        """
        sites = self.select(selector)
        if len(sites) != 1:
            raise SiteError(
                f"{selector!r} names {len(sites)} modules, expected one",
                hint=f"name one of: {', '.join(str(site) for site in sites[:6])}",
            )
        return sites[0]

    def inputs(self) -> Inputs:
        """Find the inputs to feed the network, and the alternatives to try if they do not fit.

        Raises:
            OperationError: The recipe's inputs are malformed, or nothing says what the network takes.
        """
        return find_inputs(self.model, self._inputs, families=self._families)

    def trace(self, *, training: bool = False) -> Trace:
        """Run a forward pass of the skeleton as it is now, on tensors without memory.

        What the forward keeps in attributes, such as a cache, is taken out again.

        Args:
            training: Run it in training mode, on the inputs of the last trace if there was one.

        Raises:
            TraceError: It ran on none of the backends; the error says how to give inputs.
        """
        if self._trace is not None and not training:
            return self._trace
        with unwatched():
            before = ModuleStates(self.model.named_modules())
            try:
                traced = trace(
                    self.model, self._inputs, training=training, families=self._families, first=self._last_inputs
                )
            finally:
                before.restore(ModuleStates(self.model.named_modules()))
        if not training:
            self._trace, self._last_inputs = traced, traced.inputs
        return traced

    def roles(self) -> Roles:
        """Find the roles of the skeleton's modules as it is now, with the evidence for each."""
        if self._roles is None:
            # an override may name a site that surgery has removed since
            present = {k: v for k, v in self._role_overrides.items() if not self._all_removed(v)}
            self._roles = find_roles(self.model, self.trace, present, families=self._families)
        return self._roles

    def check_roles(self) -> None:
        """Check that the overrides of roles name roles and sites that exist.

        Raises:
            SiteError: One does not. A new role name is allowed, unless it looks like a misspelt role.
        """
        for role, selectors in self._role_overrides.items():
            if role not in ROLES and (near := nearest(role, ROLES)):
                raise SiteError(f"{role!r} is not a role", where=f"roles.{role}", hint=f"nearest: {', '.join(near)}")
            for selector in [selectors] if isinstance(selectors, str) else selectors:
                try:
                    select(self.model, selector)
                except SiteError as error:
                    error.at(f"roles.{role}")
                    raise

    def role(self, name: str) -> list[str]:
        """List the sites in a role, in executed order; empty if there are none."""
        return self.recall("role", lambda: self.roles().sites(name), subject=name)

    def shape(self, site: Site | str) -> tuple[int, ...]:
        """Get the shape of the main tensor that ``site`` produces, batch first, at the traced input."""
        name = name_of(site)
        return tuple(self.recall("shape", lambda: list(self.trace().shape(name)), subject=name))

    def recall(self, kind: str, answer: Callable[[], T], *, subject: str = "", outside: bool = False) -> T:
        """Answer a question about the traced network, and record the answer with the recipe.

        A replay takes the recorded answer instead of tracing. The record is found by the operation that runs, by
        ``kind`` and by ``subject``. Do not change those, or artifacts written before no longer load.

        Args:
            kind: The kind of question, in a word or two: ``shape``.
            answer: Computes the answer on the first run; the result must be JSON-able.
            subject: What the question is about: the address of a site.
            outside: The answer comes from a file or from the internet. A replay reads neither.

        Raises:
            ArchitectureError: In a replay, an answer from outside is not recorded.
        """
        return self._journal.recall(kind, answer, subject=subject, outside=outside)

    def choose(self, question: str, function: Callable[[], T], *, plan: T, subject: str = "") -> T:
        """Answer a question that needs weights, and record the answer; a plan reads none and takes ``plan`` instead.

        Args:
            question: The question, in a word or two: ``kept``. Do not change it, or the subject, later; see
                :meth:`recall`.
            function: Computes the answer on the first run, which may read ``surgery.weight``; the result must be
                JSON-able.
            plan: What a plan assumes. It must have the form of every answer, such as a list of as many numbers, so
                that plans show the shapes of the result.
            subject: What the question is about: the address of a site.

        Raises:
            OperationError: The answer has another form than ``plan``.
        """
        return self._journal.choose(question, function, plan, subject=subject)

    def is_recorded(self, question: str) -> bool:
        """Whether :meth:`recall` can answer: on a first run always, in a replay if that question was put then.

        An operation that learns to ask more can tell artifacts from before that.
        """
        return self._journal.has(question)

    def locate(self, reference: str, **options: Any) -> Architecture:
        """Find the architecture that ``torchvision/resnet18``, ``hf:org/name`` or ``python:module:function`` names.

        Args:
            reference: Its scheme and name.
            **options: Keyword arguments of its builder; they must be JSON-able.

        Raises:
            ArchitectureError: It is unknown.
        """

        def locate() -> dict[str, Any]:
            from surgeon.architectures.registry import parse

            named = parse(reference, list(self._providers))
            located, _ = self._providers[named.scheme].locate(named.name, weights=False)
            return located.model_copy(update={"options": {**located.options, **options}}).model_dump(mode="json")

        return Architecture.model_validate(self.recall("architecture", locate, subject=reference, outside=True))

    def build(self, architecture: Architecture) -> nn.Module:
        """Build a network with initialised values. Pass this method to :meth:`Surgery.new` as the factory.

        Raises:
            ArchitectureError: No installed provider builds it.
        """
        if architecture.scheme not in self._providers:
            raise ArchitectureError(
                f"nothing builds {architecture}: no provider of {architecture.scheme!r} is installed",
                hint="install its plugin     see: surgeon plugins",
            )
        return self._providers[architecture.scheme].build(architecture)

    def _retrace(self) -> None:
        """Forget the trace and the roles, which an edit has made out of date."""
        self._trace = self._roles = None

    def _all_removed(self, sites: Any) -> bool:
        names = [sites] if isinstance(sites, str) else list(sites)
        return all(any(n == removed or n.startswith(f"{removed}.") for removed in self._journal.removed) for n in names)


def inspection_of(model: nn.Module, plugins: Plugins, surgeries: Sequence[Surgeries]) -> Inspection:
    """Inspect a network as it is after ``surgeries``, with the roles and inputs of the last recipe.

    Args:
        model: The network, or its skeleton.
        plugins: The plugins, which declare facts about families of networks.
        surgeries: The recipes that were applied to the network, as its record or its source lists them.
    """
    last = surgeries[-1] if surgeries else None
    return Inspection(
        model,
        roles=_present(model, last.roles) if last else None,
        inputs=last.inputs if last else None,
        families=plugins.families(),
    )


def _present(model: nn.Module, roles: Mapping[str, Any]) -> dict[str, list[str]]:
    """Drop from the overrides of roles the sites that surgery has removed."""
    listed = {role: [selectors] if isinstance(selectors, str) else list(selectors) for role, selectors in roles.items()}
    present = {
        role: [text for text in selectors if _names_something(model, text)] for role, selectors in listed.items()
    }
    return {role: selectors for role, selectors in present.items() if selectors}


def _names_something(model: nn.Module, selector: str) -> bool:
    """Return whether a selector matches in the network, or in the part of it that has the roles."""
    root = root_of(model)
    parts = [(model, selector)]
    if root:
        parts.append((model.get_submodule(root), selector.removeprefix(f"{root}.")))
    for part, text in parts:
        with suppress(SiteError):
            return bool(select(part, text))
    return False


def name_of(site: Site | str) -> str:
    """Get the address of a site, given as a ``Site`` or as its address."""
    return site.name if isinstance(site, Site) else site
