"""What an operation gets: the verbs that look at a skeleton and edit it.

``Surgery`` is put together from four files, each with the verbs of one kind: ``inspection.py`` looks,
``tensor_values.py`` says where values come from, ``module_edits.py`` edits the tree, and this file adds outputs, an
earlier end, and freezing. What the verbs record is in ``journal.py`` and is private to the engine.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import partial
from typing import Literal

from torch import nn

from surgeon.errors import OperationError, SiteError
from surgeon.graph.cut import exit_at, needed_before
from surgeon.graph.edit import names_of_parameters, never_skip, prune, replace_module
from surgeon.graph.sites import Site
from surgeon.nn.frozen import freeze_norm
from surgeon.nn.grafts import Branch, Grafted, Tap, graft, hook
from surgeon.surgery.inspection import name_of
from surgeon.surgery.module_edits import ModuleEdits
from surgeon.surgery.origins import Derived, New


class Surgery(ModuleEdits):
    """Look at a skeleton and edit it; every edit is recorded, so that it can be planned, refused and replayed.

    Look: ``model``, ``architecture``, ``select``, ``site``, ``role``, ``roles``, ``shape``, ``trace``, ``inputs``,
    ``recall``, ``is_recorded``, ``locate``, ``build``, ``families``. Values: ``new``, ``draw``, ``copy_origin``,
    ``derive``, ``donor``, ``borrow``, ``reshape``, ``weight``, ``is_made``. Modules: ``replace``, ``remove``,
    ``attach``, ``insert``, ``keep_children``, ``wrap``. Outputs: ``branch``, ``tap``, ``graft``, ``cut``. Training
    state: ``freeze``. In the plan: ``note``.
    """

    def tap(self, site: Site | str) -> Tap:
        """Make a tap that reads the output of ``site``; it copies the output if later code overwrites it in place.

        Raises:
            SiteError: ``site`` does not run in a forward.
        """
        name = name_of(site)
        overwritten, calls = self.recall("tap", lambda: self._visit(name), subject=name)
        if not calls:
            raise SiteError(f"{name} does not run in a forward of {type(self.model).__name__}")
        if calls > 1:
            self.note(f"{name} runs {calls} times in a forward: its last output counts")
        self._never_skip(name)
        tap = Tap(copies=overwritten)
        hook(self.model.get_submodule(name), tap.read)
        return tap

    def branch(self, name: str, site: Site | str, head: nn.Module) -> Branch:
        """Feed the output of ``site`` to ``head``, whose result is one more output of the network.

        Args:
            name: The name of the new output.
            site: The module whose output is read.
            head: What computes the new output.

        Raises:
            OperationError: The name is taken, or is not an identifier.
        """
        grafted = self.graft()
        if name in grafted.grafts:
            raise OperationError(
                f"there is an output {name!r} already", hint=f"outputs so far: {', '.join(grafted.grafts)}"
            )
        if not name.isidentifier():
            raise OperationError(
                f"{name!r} cannot name an output", hint="a name has letters, digits and _, and begins with no digit"
            )
        branch = Branch(self.tap(site), head).train(self.model.training)
        grafted.grafts[name] = branch
        self._journal.branches[name] = self._journal.operation
        self._changed(f"grafts.{name}")
        return branch

    def graft(self) -> Grafted:
        """Make the root ready for branches and an early end, and return it.

        Raises:
            OperationError: Networks of this kind cannot have branches.
        """
        try:
            return graft(self.model)
        except ValueError as error:
            raise OperationError(str(error)) from error

    def cut(self, site: Site | str) -> list[str]:
        """End the forward at ``site`` and remove every module that neither ran nor was read before that.

        Returns:
            The topmost sites that were removed.

        Raises:
            OperationError: A branch reads a site that would be removed, or ``site`` runs more than once.
        """
        name, journal = name_of(site), self._journal
        self._never_skip(name)
        shape = self.shape(name)
        needed, idle = self.recall("cut", lambda: self._needed_before(name), subject=name)
        grafted = self.graft()
        keep = {n for n, _ in self.model.named_modules() if n == "exit" or n.split(".")[0] == "grafts"} | set(needed)
        doomed = [n for n, _ in self.model.named_modules() if n and n not in keep]
        self._refuse_to_remove([*doomed, *idle])
        self._refuse_to_waste([*doomed, *idle])
        before = [] if journal.replays else list(self.trace().visits)
        exit_at(grafted, name)
        children = {module: module._modules.copy() for module in self.model.modules()}
        removed = prune(self.model, keep | {"exit"})
        self._retrace()
        if self.recall("cut lengths", lambda: not self._begins_as(before, name), subject=name):
            for module, those in children.items():
                module._modules = those
            prune(self.model, keep | {"exit"}, lengths=True)
            self._retrace()
        removed += self._silence(idle, name, shape) if idle else []
        journal.removed.update(dict.fromkeys(removed, journal.operation))
        journal.changed += [*removed, "exit"]
        if not journal.replays and (after := self.trace().shape(name)) != shape:
            raise OperationError(f"ending the forward at {name} changed its shape from {shape} to {after}")
        return removed

    def freeze(
        self,
        sites: Iterable[Site],
        *,
        norms: Literal["eval", "train"] = "eval",
        below: bool = True,
        spare: Iterable[Site] = (),
    ) -> None:
        """Stop training the parameters of ``sites``, and keep the statistics of their norm layers as they are.

        Args:
            sites: The sites to freeze.
            norms: ``train`` lets the norm layers update their running statistics all the same.
            below: Freeze everything below the sites too, not only the parameters that they own themselves.
            spare: Sites whose parameters go on training, also where one of them is tied to a frozen site's.
        """
        names = names_of_parameters(self.model)
        spared = {id(parameter) for site in spare for parameter in site.module.parameters()}
        for site in sites:
            for parameter in site.module.parameters(recurse=below):
                if id(parameter) in spared:
                    self.note(f"{' and '.join(names[id(parameter)])} are one tensor, which trains")
                    continue
                self._journal.retrained.extend(names[id(parameter)])
                parameter.requires_grad_(False)
            if norms == "eval":
                for module in site.module.modules() if below else [site.module]:
                    if getattr(module, "running_mean", None) is not None:
                        freeze_norm(module)

    def note(self, text: str) -> None:
        """Add a line to the plan."""
        self._journal.note(text)

    def _never_skip(self, name: str) -> None:
        for stack in never_skip(self.model, name):
            self.note(f"LayerDrop is off in {stack or 'the network'}: in training it would leave out {name} at times")

    def _begins_as(self, before: Sequence[str], end: str) -> bool:
        """Whether the sites that run now are those of ``before``, as far as ``end``."""
        try:
            now = [site for site in self.trace().visits if site.split(".")[0] != "grafts"]
        except OperationError:
            return False
        return end in now and now == list(before[: len(now)])

    def _visit(self, name: str) -> tuple[bool, int]:
        """Whether the output of a site is overwritten in place, and how often the site runs."""
        traced = self.trace()
        return bool(name in traced.visits and traced.visits[name].overwritten), traced.calls(name)

    def _needed_before(self, name: str) -> tuple[list[str], list[str]]:
        """The sites that a forward up to ``name`` uses, and those that it fetches without using them."""
        needed = needed_before(self.model, name, self.trace(), partial(self.trace, training=True))
        if not needed.in_training:
            self.note("traced in eval mode only: what runs in training alone may have been cut")
        if needed.unseen:
            self.note(
                f"{', '.join(needed.unseen)} stayed: on the inputs of the trace it never ran, so that nothing says "
                "whether it plays a part before the cut (see inputs:)"
            )
        return sorted(needed.sites), sorted(needed.idle)

    def _silence(self, idle: Sequence[str], end: str, shape: tuple[int, ...]) -> list[str]:
        """Replace modules that a forward up to ``end`` fetches without using them by identities.

        If the network does not run with the identities, everything stays.
        """
        modules = {name: self.model.get_submodule(name) for name in idle}

        def works() -> bool:
            try:
                return self.trace().shape(end) == shape
            except OperationError:
                return False

        for name in idle:
            replace_module(self.model, name, nn.Identity())
        self._retrace()
        if self.recall("idle", works, subject=end):
            return list(idle)
        for name, module in modules.items():
            replace_module(self.model, name, module)
        self._retrace()
        return []

    def _refuse_to_waste(self, sites: Sequence[str]) -> None:
        """Refuse to cut away what another operation of this recipe has just put in."""
        journal = self._journal
        for site in sites:
            for tensor in self.model.get_submodule(site).parameters(recurse=False):
                origin = journal.origins.get(tensor)
                if isinstance(origin, (New, Derived)) and origin.by in journal.finished:
                    raise OperationError(
                        f"{journal.operation} would cut away {site}, which {origin.by} has just put in",
                        hint=f"put {journal.operation} before {origin.by}",
                    )
