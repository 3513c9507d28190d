"""Define ``Surgery``, the object with which an operation inspects and edits a skeleton.

Its methods are in five files: ``inspection.py`` inspects, ``tensor_values.py`` sets where values come from,
``module_edits.py`` edits the module tree, ``setting_edits.py`` sets attributes and hooks, and this file adds outputs,
an earlier end, and freezing. What the methods record is in ``journal.py`` and is private to the engine.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import partial
from typing import Literal, cast

from torch import nn

from surgeon.errors import OperationError, SiteError, suggest
from surgeon.graph.cut import exit_at, needed_before
from surgeon.graph.edit import names_of_parameters, never_skip, prune, replace_module
from surgeon.graph.sites import Site
from surgeon.nn.frozen import freeze_norm
from surgeon.nn.grafts import ATTRIBUTES, Branch, Grafted, Tap, graft, hook, ungraft
from surgeon.surgery.features import Features, features_at, features_of_head
from surgeon.surgery.inspection import name_of
from surgeon.surgery.module_state import CLASS, HOOKS, TRAINING
from surgeon.surgery.origins import Derived, New
from surgeon.surgery.setting_edits import SettingEdits


class Surgery(SettingEdits):
    """Inspect and edit a skeleton. Every edit is recorded, so that it can be planned, refused and replayed.

    Inspection: ``model``, ``architecture``, ``select``, ``site``, ``role``, ``roles``, ``shape``, ``features``,
    ``trace``, ``inputs``, ``recall``, ``choose``, ``is_recorded``, ``locate``, ``build``, ``families``. Values:
    ``new``, ``draw``, ``copy_origin``, ``derive``, ``fill``, ``donor``, ``borrow``, ``reshape``, ``convert``,
    ``weight``, ``filled``, ``record``, ``is_made``. Modules: ``replace``, ``remove``, ``attach``, ``insert``,
    ``keep_children``, ``wrap``. Settings: ``set``, ``hook``, ``unhook``, ``bookkeeping``. Outputs: ``branch``,
    ``unbranch``, ``tap``, ``untap``, ``graft``, ``cut``. Training state: ``freeze``. In the plan: ``note``.
    """

    def features(self, at: str | None = None) -> Features:
        """Describe the features of one sample that a site produces: their site, shape, width and layout.

        Args:
            at: A selector that names one site. Default: the features that the head reads.

        Raises:
            OperationError: The site does not produce a tensor with a batch and channels, or the head has several parts.
            SiteError: ``at`` names none, or several.
        """
        return features_of_head(self) if at is None else features_at(self, self.site(at).name)

    def tap(self, site: Site | str) -> Tap:
        """Make a tap that reads the output of ``site``, and copies it if a later module overwrites it in place.

        Raises:
            SiteError: ``site`` does not run in a forward pass.
        """
        name = name_of(site)
        overwritten, calls = self.recall("tap", lambda: self._visit(name), subject=name)
        if not calls:
            raise SiteError(f"{name} does not run in a forward of {type(self.model).__name__}")
        if calls > 1:
            self.note(f"{name} runs {calls} times in a forward: its last output counts")
        self._never_skip(name)
        tap = Tap(copies=overwritten)
        site_module = self.model.get_submodule(name)
        hook(site_module, tap.read)
        self._journal.claim(site_module, HOOKS)
        return tap

    def branch(self, name: str, site: Site | str, head: nn.Module) -> Branch:
        """Feed the output of ``site`` to ``head``, and return its result as one more output of the network.

        Args:
            name: The name of the new output.
            site: The module whose output is read.
            head: Computes the new output.

        Raises:
            OperationError: The name is already used, or is not an identifier.
        """
        grafted = self.graft()
        if name in grafted.grafts:
            raise OperationError(
                f"an output {name!r} already exists", hint=f"outputs so far: {', '.join(grafted.grafts)}"
            )
        if not name.isidentifier():
            raise OperationError(
                f"{name!r} cannot name an output", hint="use letters, digits and _, and do not begin with a digit"
            )
        branch = Branch(self.tap(site), head).train(self.model.training)
        grafted.grafts[name] = branch
        self._journal.branches[name] = self._journal.operation
        self._changed(f"grafts.{name}")
        return branch

    def unbranch(self, name: str) -> None:
        """Remove the branch that computes the output ``name``.

        With the last branch, a network that runs to its own end gets its own class back, and returns what that does.

        Raises:
            OperationError: There is no such branch, or it computes the only output.
        """
        model, journal = self.model, self._journal
        branches = list(model.grafts) if isinstance(model, Grafted) else []
        if not isinstance(model, Grafted) or name not in branches:
            raise OperationError(
                f"no branch computes an output {name!r} (branches: {', '.join(branches) or 'none'})",
                hint=suggest(name, branches) or "surgeon inspect shows the outputs and what computes them",
            )
        if model.network_output is None and len(branches) == 1:
            raise OperationError(
                f"{name!r} is the only output: without it the network returns nothing",
                hint="add another output first: multitask, replace_head",
            )
        self.untap(cast("Branch", model.grafts[name]).tap)
        self.remove(f"grafts.{name}")
        journal.claim(model, CLASS, *ATTRIBUTES)
        journal.changed.append("grafts")
        ungraft(model)
        self._retrace()

    def graft(self) -> Grafted:
        """Prepare the root for branches and an early end, and return it.

        Raises:
            OperationError: Networks of this kind cannot have branches.
        """
        if not isinstance(self.model, Grafted):
            self._journal.claim(self.model, CLASS, "exit", "mask_position")
            self._journal.changed.append("grafts")
        self._journal.claim(self.model, "network_output")  # the caller may name it
        try:
            return graft(self.model)
        except ValueError as error:
            raise OperationError(str(error)) from error

    def cut(self, site: Site | str) -> list[str]:
        """End the forward pass at ``site`` and remove every module that was neither run nor read before that.

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
        if grafted.exit is not None:
            self.untap(grafted.exit)
        exit_at(grafted, name)
        journal.claim(self.model.get_submodule(name), HOOKS)
        children = {module: module._modules.copy() for module in self.model.modules()}
        removed = prune(self.model, keep | {"exit"})
        self._retrace()
        if self.recall("cut lengths", lambda: not self._begins_as(before, name), subject=name):
            for module, original in children.items():
                module._modules = original
            prune(self.model, keep | {"exit"}, lengths=True)
            self._retrace()
        removed += self._silence(idle, name, shape) if idle else []
        journal.removed.update(dict.fromkeys(removed, journal.operation))
        journal.claim(self.model, "exit")
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
        """Freeze the parameters of ``sites`` and the running statistics of their norm layers.

        Args:
            sites: The sites to freeze.
            norms: ``train`` keeps updating the running statistics of norm layers.
            below: Freeze the submodules too, not only the parameters that the sites hold directly.
            spare: Sites whose parameters stay trainable, even if one of them is tied to a frozen parameter.
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
                        self._journal.claim(module, CLASS, TRAINING)

    def note(self, text: str) -> None:
        """Add a line to the plan."""
        self._journal.note(text)

    def _never_skip(self, name: str) -> None:
        for stack, holder, rate in never_skip(self.model, name):
            self._journal.claim(holder, rate)
            self.note(f"LayerDrop is off in {stack or 'the network'}: in training it would leave out {name} at times")

    def _begins_as(self, before: Sequence[str], end: str) -> bool:
        """Return whether the sites that run now are those of ``before``, up to ``end``."""
        try:
            now = [site for site in self.trace().visits if site.split(".")[0] != "grafts"]
        except OperationError:
            return False
        return end in now and now == list(before[: len(now)])

    def _visit(self, name: str) -> tuple[bool, int]:
        """Return whether the output of a site is overwritten in place, and how often the site runs."""
        traced = self.trace()
        return bool(name in traced.visits and traced.visits[name].overwritten), traced.calls(name)

    def _needed_before(self, name: str) -> tuple[list[str], list[str]]:
        """List the sites that a forward pass up to ``name`` uses, and those that it looks up without using them."""
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
        """Replace modules that a forward pass up to ``end`` looks up without using them by ``nn.Identity``.

        If the network does not run with the identities, put the modules back.
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
        """Refuse to cut away a module that another operation of this recipe has added."""
        journal = self._journal
        for site in sites:
            module = self.model.get_submodule(site)
            if module in journal.original:  # its values may be new, but nobody added it
                continue
            for tensor in module.parameters(recurse=False):
                origin = journal.origins.get(tensor)
                if isinstance(origin, (New, Derived)) and origin.by in journal.finished:
                    raise OperationError(
                        f"{journal.operation} would cut away {site}, which {origin.by} has just added",
                        hint=f"put {journal.operation} before {origin.by}",
                    )
