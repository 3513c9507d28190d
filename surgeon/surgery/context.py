"""What an operation is handed: the means to look at a skeleton and to edit it, with a journal of every edit."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import Any, Literal

import torch
from torch import nn

from surgeon.architectures.donor import Donor
from surgeon.errors import OperationError, SiteError
from surgeon.graph.cut import branches_reading, exit_at, needed_before
from surgeon.graph.edit import keep_children, names_of_parameters, never_skip, prune, remove_module, replace_module
from surgeon.graph.sites import Site
from surgeon.graph.skeleton import build_skeleton
from surgeon.graph.tensors import tensors_of
from surgeon.nn.frozen import freeze_norm
from surgeon.nn.grafts import Branch, Grafted, Inserted, Tap, graft, hook
from surgeon.surgery.inspection import Examination, name_of
from surgeon.surgery.origins import Borrowed, Derived, Fresh, New, Origin, Origins


class Surgery(Examination):
    """One course of operations on one skeleton.

    Args:
        model: The skeleton to edit; :attr:`model` is its root from then on.
        origins: Where its tensors come from.
        value: Reads the values of a tensor with a given origin.
        open_donor: Opens another checkpoint by its reference.
        **known: What is known of the network; see :class:`Examination`.
    """

    def __init__(
        self,
        model: nn.Module,
        origins: Origins,
        *,
        value: Callable[[Origin], torch.Tensor],
        open_donor: Callable[[str], Donor],
        **known: Any,
    ) -> None:
        super().__init__(model, **known)
        self.origins = origins
        self.notes: list[str] = []
        self.claims: list[str] = []
        self.state_claims: list[str] = []
        self.readers: dict[str, str] = {}
        self.label = ""
        self.applied: set[str] = set()
        self.donors: dict[str, Donor] = {}
        self._value = value
        self._open_donor = open_donor

    def begin(self, label: str) -> None:
        """Start the journal of the next operation."""
        if self.label:
            self.applied.add(self.label)
        self.label = label
        self.notes, self.claims, self.state_claims = [], [], []

    # ---- editing

    def new(
        self,
        factory: Callable[..., nn.Module],
        *args: Any,
        like: Site | nn.Module | None = None,
        **kwargs: Any,
    ) -> nn.Module:
        """Make a module whose values are drawn when the weights flow in, seeded by the recipe's seed and its name.

        Args:
            factory: Builds the module from the arguments that follow. It is called twice, now and when
                the values are wanted, and must not refer to modules of the skeleton.
            like: The neighbour whose floating-point dtype the module takes.
        """
        build = partial(factory, *args, **kwargs)
        module = build_skeleton(build)
        neighbour = like.module if isinstance(like, Site) else like
        dtype = next((p.dtype for p in neighbour.parameters() if p.is_floating_point()), None) if neighbour else None
        if dtype is not None:
            module = module.to(dtype)
        self.draw(dict(tensors_of(module)), build)
        return module

    def draw(self, tensors: Mapping[str, torch.Tensor], factory: Callable[[], nn.Module]) -> None:
        """Let tensors, by their names in its ``state_dict``, take the values of a module that ``factory`` builds."""
        fresh = Fresh(factory)
        for key, tensor in tensors.items():
            self.origins.set(tensor, New(fresh, key, self.label))

    def is_made(self, tensor: torch.Tensor) -> bool:
        """Whether the values of a tensor are an earlier operation's, not the source's."""
        return isinstance(origin := self.origins.get(tensor), (New, Derived, Borrowed)) and origin.by in self.applied

    def derive(
        self,
        tensor: torch.Tensor,
        sources: Sequence[torch.Tensor],
        function: Callable[..., torch.Tensor],
    ) -> None:
        """Let ``tensor`` be computed from the values of ``sources``, itself perhaps, when the weights flow in."""
        origins = [self.origins.get(source) for source in sources]
        if any(origin is None for origin in origins):
            raise OperationError("a source of a derived tensor is no tensor of this network")
        self.origins.set(tensor, Derived(tuple(o for o in origins if o is not None), function, self.label))

    def donor(self, reference: str) -> Donor:
        """Open another checkpoint; no weight is read. A replay does not need it: call it only within :meth:`recall`.

        Raises:
            CheckpointError: It is missing, damaged or unsafe.
            ArchitectureError: It is unknown, or has no weights.
        """
        if reference not in self.donors:
            self.donors[reference] = self._open_donor(reference)
        return self.donors[reference]

    def borrow(self, tensor: torch.Tensor, reference: str, name: str) -> None:
        """Let the values of ``tensor`` be those of the tensor ``name`` of a donor, read when the weights flow in."""
        self.origins.set(tensor, Borrowed(reference, name, lambda: self.donor(reference).read(name), self.label))

    def reshape(
        self, site: Site | str, name: str, shape: Sequence[int], function: Callable[[torch.Tensor], torch.Tensor]
    ) -> torch.Tensor:
        """Give a parameter or buffer another shape; its values are computed from those that it has.

        Args:
            site: The module that owns it.
            name: Its name there.
            shape: The new shape.
            function: Takes the old values, returns the new ones.
        """
        owner = self.model.get_submodule(name_of(site))
        old: torch.Tensor = getattr(owner, name)
        new = torch.empty(tuple(shape), dtype=old.dtype, device="meta")
        if isinstance(old, nn.Parameter):
            new = nn.Parameter(new, requires_grad=old.requires_grad)
        self.derive(new, [old], function)
        for path, module in self.model.named_modules():
            for table in (module._parameters, module._buffers):
                for key in [key for key, tensor in table.items() if tensor is old]:  # a tied one has several
                    table[key] = new
                    self._changed(f"{path}.{key}".lstrip("."))
        return new

    def weight(self, tensor: torch.Tensor) -> torch.Tensor:
        """The values of a tensor of the skeleton, read from the source now."""
        origin = self.origins.get(tensor)
        if origin is None:
            raise OperationError("only tensors of this network have values to read")
        return self._value(origin)

    def replace(self, site: Site | str, module: nn.Module) -> None:
        """Put ``module`` in the place of ``site``."""
        replace_module(self.model, name_of(site), module)
        self._changed(name_of(site))

    def remove(self, site: Site | str, *, optional: bool = False) -> None:
        """Remove a module that the forward does not need.

        Args:
            site: The module.
            optional: The forward tests it for None, so None takes its place.
        """
        name = name_of(site)
        self._refuse_to_remove([name])
        remove_module(self.model, name, optional=optional)
        self.removed[name] = self.label
        self._changed(name)

    def attach(self, parent: Site | str, name: str, module: nn.Module) -> None:
        """Add ``module`` as a child; the caller makes sure that something calls it."""
        owner = self.model.get_submodule(name_of(parent))
        if hasattr(owner, name):
            raise OperationError(f"{name_of(parent) or '.'} has {name!r} already")
        owner.add_module(name, module.train(owner.training))
        self._changed(f"{name_of(parent)}.{name}".lstrip("."))

    def insert(
        self,
        site: Site | str,
        module: nn.Module,
        *,
        name: str = "inserted",
        where: Literal["after", "before"] = "after",
    ) -> None:
        """Put ``module`` behind (or before) ``site``; every name stays as it is, the new one is a child."""
        target = self.model.get_submodule(name_of(site))
        path = name_of(site)
        while where == "before" and isinstance(target, nn.Sequential):
            first = next(iter(target._modules))
            target, path = target[0], f"{path}.{first}"
        if isinstance(target, nn.Sequential):
            self.attach(path, name, module)
            return
        inserted = Inserted(module)
        self.attach(path, name, inserted)
        if where == "after":
            hook(target, inserted.after)
        else:
            target.register_forward_pre_hook(inserted.before)

    def keep_children(self, container: Site | str, indices: Sequence[int]) -> None:
        """Keep some children of a list or sequence of modules, in the given order, renumbered from 0."""
        name = name_of(container)
        module = self.model.get_submodule(name)
        gone = [f"{name}.{child}" for i, child in enumerate(module._modules) if i not in indices]
        self._refuse_to_remove(gone)
        keep_children(module, indices)
        self._changed(name)

    def wrap(self, root: nn.Module) -> nn.Module:
        """Make ``root``, which holds the present network, the new root."""
        self.model = root
        self._changed("")
        return root

    def tap(self, site: Site | str) -> Tap:
        """A tap that reads what ``site`` produces; it copies where something later overwrites that."""
        name = name_of(site)
        overwritten, calls = self.recall(f"tap {name}", lambda: self._visit(name))
        if not calls:
            raise SiteError(f"{name} does not run in a forward of {type(self.model).__name__}")
        if calls > 1:
            self.note(f"{name} runs {calls} times in a forward: its last output counts")
        self._never_skip(name)
        tap = Tap(copies=overwritten)
        hook(self.model.get_submodule(name), tap.read)
        return tap

    def branch(self, name: str, site: Site | str, head: nn.Module) -> Branch:
        """Feed what ``site`` produces to ``head``, whose result is one more output called ``name``."""
        grafted = self.graft()
        if name in grafted.grafts or not name.isidentifier():
            raise OperationError(
                f"there is an output {name!r} already" if name in grafted.grafts else f"{name!r} is no name",
                hint=f"outputs so far: {', '.join(grafted.grafts)}" if grafted.grafts else None,
            )
        branch = Branch(self.tap(site), head).train(self.model.training)
        grafted.grafts[name] = branch
        self.readers[name] = self.label
        self._changed(f"grafts.{name}")
        return branch

    def graft(self) -> Grafted:
        """Make the root ready for branches and an early end."""
        try:
            return graft(self.model)
        except ValueError as error:
            raise OperationError(str(error)) from error

    def cut(self, site: Site | str) -> list[str]:
        """End the forward at ``site`` and remove what neither ran nor was read before that.

        Returns:
            The topmost sites that were removed.

        Raises:
            OperationError: A branch reads a site that would be removed, or ``site`` runs more than once.
        """
        name = name_of(site)
        self._never_skip(name)
        shape = self.shape(name)
        needed, idle = self.recall(f"cut {name}", lambda: self._needed_before(name))
        grafted = self.graft()
        keep = {n for n, _ in self.model.named_modules() if n == "exit" or n.split(".")[0] == "grafts"} | set(needed)
        doomed = [n for n, _ in self.model.named_modules() if n and n not in keep]
        self._refuse_to_remove([*doomed, *idle])
        self._refuse_to_waste([*doomed, *idle])
        before = [] if self.replays else list(self.trace().visits)
        exit_at(grafted, name)
        children = {module: module._modules.copy() for module in self.model.modules()}
        removed = prune(self.model, keep | {"exit"})
        self._retrace()
        if self.recall(f"cut {name} shows in the lengths of lists", lambda: not self._begins_as(before, name)):
            for module, those in children.items():
                module._modules = those
            prune(self.model, keep | {"exit"}, lengths=True)
            self._retrace()
        removed += self._silence(idle, name, shape) if idle else []
        self.removed.update(dict.fromkeys(removed, self.label))
        self.claims += [*removed, "exit"]
        if not self.replays and (after := self.trace().shape(name)) != shape:
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
        """Let the parameters of ``sites`` train no more, and their norm layers follow the data no more.

        Args:
            sites: The sites to freeze.
            norms: ``train`` lets the norm layers' running statistics follow the data all the same.
            below: Freeze what lies below the sites too, not only the parameters that are their own.
            spare: Sites whose parameters go on training, also where one of them is tied to a frozen site's.
        """
        names = names_of_parameters(self.model)
        spared = {id(parameter) for site in spare for parameter in site.module.parameters()}
        for site in sites:
            for parameter in site.module.parameters(recurse=below):
                if id(parameter) in spared:
                    self.note(f"{' and '.join(names[id(parameter)])} are one tensor, which trains")
                    continue
                self.state_claims.extend(names[id(parameter)])
                parameter.requires_grad_(False)
            if norms == "eval":
                for module in site.module.modules() if below else [site.module]:
                    if getattr(module, "running_mean", None) is not None:
                        freeze_norm(module)

    def note(self, text: str) -> None:
        """Add a line to the plan."""
        if text not in self.notes:
            self.notes.append(text)

    # ---- inside

    def _changed(self, site: str) -> None:
        self.claims.append(site)
        self._retrace()

    def _retrace(self) -> None:
        self._trace = self._roles = None

    def _never_skip(self, name: str) -> None:
        for stack in never_skip(self.model, name):
            self.note(f"LayerDrop is off in {stack or 'the network'}: in training it would leave out {name} at times")

    def _begins_as(self, before: Sequence[str], end: str) -> bool:
        """Whether what runs now is what ran before, as far as ``end``."""
        try:
            now = [site for site in self.trace().visits if site.split(".")[0] != "grafts"]
        except OperationError:
            return False
        return end in now and now == list(before[: len(now)])

    def _visit(self, name: str) -> tuple[bool, int]:
        traced = self.trace()
        return bool(name in traced.visits and traced.visits[name].overwritten), traced.calls(name)

    def _needed_before(self, name: str) -> tuple[list[str], list[str]]:
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
        """Put identities in the place of modules that a forward up to ``end`` fetches and does not use, if it runs."""
        modules = {name: self.model.get_submodule(name) for name in idle}

        def works() -> bool:
            try:
                return self.trace().shape(end) == shape
            except OperationError:
                return False

        for name in idle:
            replace_module(self.model, name, nn.Identity())
        self._retrace()
        if self.recall(f"{end} without what is idle", works):
            return list(idle)
        for name, module in modules.items():
            replace_module(self.model, name, module)
        self._retrace()
        return []

    def _refuse_to_remove(self, sites: Sequence[str]) -> None:
        for site, output in branches_reading(self.model, sites):
            by = self.readers.get(output, "an earlier recipe")
            raise OperationError(
                f"{self.label} would remove {site}, which the branch {output!r} of {by} reads",
                hint=f"put {self.label} before {by}, or let the branch read an earlier site",
            )

    def _refuse_to_waste(self, sites: Sequence[str]) -> None:
        """Refuse to cut away what an operation of this recipe put in."""
        for site in sites:
            for tensor in self.model.get_submodule(site).parameters(recurse=False):
                origin = self.origins.get(tensor)
                if isinstance(origin, (New, Derived)) and origin.by in self.applied:
                    raise OperationError(
                        f"{self.label} would cut away {site}, which {origin.by} has just put in",
                        hint=f"put {self.label} before {origin.by}",
                    )
