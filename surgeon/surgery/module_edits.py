"""Edit the module tree: replace, remove, attach, insert, keep some children, wrap the root."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from torch import nn

from surgeon.errors import OperationError
from surgeon.graph.cut import branches_reading
from surgeon.graph.edit import keep_children, remove_module, replace_module
from surgeon.graph.sites import Site
from surgeon.nn.grafts import Inserted, hook
from surgeon.surgery.inspection import name_of
from surgeon.surgery.module_state import HOOKS, TRAINING
from surgeon.surgery.tensor_values import TensorValues


class ModuleEdits(TensorValues):
    """Edit the module tree. Every edit is recorded; removing a module that a branch reads is refused."""

    def replace(self, site: Site | str, module: nn.Module) -> None:
        """Put ``module`` in the place of ``site``."""
        self._follows_mode(module)
        replace_module(self.model, name_of(site), module)
        self._journal.claim(module, HOOKS)  # it takes over those of taps
        self._changed(name_of(site))

    def remove(self, site: Site | str, *, optional: bool = False) -> None:
        """Remove a module that the forward pass does not need.

        Args:
            site: The module.
            optional: Put None in its place, because the parent's forward tests it for None.

        Raises:
            OperationError: A branch reads it.
        """
        name = name_of(site)
        self._refuse_to_remove([name])
        remove_module(self.model, name, optional=optional)
        self._journal.removed[name] = self._journal.operation
        self._changed(name)

    def attach(self, parent: Site | str, name: str, module: nn.Module) -> None:
        """Add ``module`` as a child. The caller has to make sure that it is called.

        Raises:
            OperationError: ``parent`` already has an attribute of that name.
        """
        owner = self.model.get_submodule(name_of(parent))
        if hasattr(owner, name):
            raise OperationError(f"{name_of(parent) or '.'} already has {name!r}")
        self._follows_mode(module)
        owner.add_module(name, module.train(owner.training))
        self._changed(f"{name_of(parent)}.{name}".lstrip("."))

    def insert(
        self,
        site: Site | str,
        module: nn.Module,
        *,
        name: str = "inserted",
        where: Literal["after", "before"] = "after",
    ) -> Site:
        """Run ``module`` after (or before) ``site``. No name changes: the new module is a child of ``site``.

        Returns:
            The site of ``module`` in the network.
        """
        target = self.model.get_submodule(name_of(site))
        path = name_of(site)
        while where == "before" and isinstance(target, nn.Sequential):
            first = next(iter(target._modules))
            target, path = target[0], f"{path}.{first}"
        if isinstance(target, nn.Sequential):
            self.attach(path, name, module)
            return Site(f"{path}.{name}".lstrip("."), module)
        inserted = Inserted(module)
        self.attach(path, name, inserted)
        if where == "after":
            hook(target, inserted.after)
        else:
            target.register_forward_pre_hook(inserted.before)
        self._journal.claim(target, HOOKS)
        return Site(f"{path}.{name}.module".lstrip("."), module)

    def keep_children(self, container: Site | str, indices: Sequence[int]) -> None:
        """Keep some children of a ``ModuleList`` or ``Sequential``, in the given order, renumbered from 0.

        Raises:
            OperationError: A branch reads one of the others.
        """
        name = name_of(container)
        module = self.model.get_submodule(name)
        removed = [f"{name}.{child}" for i, child in enumerate(module._modules) if i not in indices]
        self._refuse_to_remove(removed)
        keep_children(module, indices)
        self._changed(name)

    def wrap(self, root: nn.Module) -> nn.Module:
        """Make ``root``, which contains the current network, the new root, and return it."""
        self.model = root
        self._changed("")
        return root

    def _follows_mode(self, module: nn.Module) -> None:
        """Record that ``module``, of which parts may have been in the network before, gets the mode of its place."""
        for part in module.modules():
            self._journal.claim(part, TRAINING)

    def _refuse_to_remove(self, sites: Sequence[str]) -> None:
        operation = self._journal.operation
        for site, output in branches_reading(self.model, sites):
            by = self._journal.branches.get(output, "an earlier recipe")
            raise OperationError(
                f"{operation} would remove {site}, which the branch {output!r} of {by} reads",
                hint=f"put {operation} before {by}, or let the branch read an earlier site",
            )
