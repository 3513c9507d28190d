"""Set where the values of tensors come from. No value is read or computed before the network is filled."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, cast

import torch
from torch import nn

from surgeon.architectures.donor import Donor
from surgeon.errors import OperationError
from surgeon.graph.sites import Site
from surgeon.graph.skeleton import build_skeleton, built_under, skeleton_of
from surgeon.graph.tensors import aliases_of, fill, tensors_of
from surgeon.interfaces.record import Record
from surgeon.interfaces.returned import checked
from surgeon.surgery.inspection import Inspection, name_of
from surgeon.surgery.journal import Journal
from surgeon.surgery.origins import Borrowed, Derived, Filled, Fresh, Joint, New, Origin, Part
from surgeon.surgery.writes import unwatched


class TensorValues(Inspection):
    """Make new modules and tensors, and set how their values are computed.

    Args:
        model: The skeleton to edit.
        journal: Records every edit.
        value: Reads the values of a tensor with a given origin.
        open_donor: Opens another checkpoint by its reference.
        record: Makes the record of the network before this recipe; None in a replay.
        **facts: What is known about the network; see :class:`Inspection`.
    """

    def __init__(
        self,
        model: nn.Module,
        *,
        journal: Journal,
        value: Callable[[Origin], torch.Tensor],
        open_donor: Callable[[str], Donor],
        record: Callable[[], Record] | None = None,
        **facts: Any,
    ) -> None:
        super().__init__(model, journal=journal, **facts)
        self._record = record
        self._value = value
        self._open_donor = open_donor

    def new(
        self,
        factory: Callable[..., nn.Module],
        *args: Any,
        like: Site | nn.Module | None = None,
        **kwargs: Any,
    ) -> nn.Module:
        """Make a new module. It is initialised when the network is filled, with a generator seeded by the recipe's
        seed and the module's name in the edited network. What it holds beside its parameters and persistent buffers
        is drawn now, under a seed that is the same when the artifact is loaded.

        Args:
            factory: Builds the module from the arguments that follow. It is called twice, now and when
                the values are needed, and must not refer to modules of the skeleton.
            like: A module or site whose floating-point dtype the new module gets.
        """
        build = partial(_module_of, factory, *args, **kwargs)
        with built_under(self._journal.next_seed()), unwatched():
            module = build_skeleton(build)
        neighbour = like.module if isinstance(like, Site) else like
        dtype = next((p.dtype for p in neighbour.parameters() if p.is_floating_point()), None) if neighbour else None
        if dtype is not None:
            module = module.to(dtype)
        self.draw(dict(tensors_of(module)), build)
        return module

    def draw(self, tensors: Mapping[str, torch.Tensor], factory: Callable[[], nn.Module]) -> None:
        """Give tensors the values of a module that ``factory`` builds when the network is filled.

        Args:
            tensors: The tensors, by the names that their values have in that module's ``state_dict``.
            factory: Builds the module; it is seeded as in :meth:`new`.
        """
        fresh = Fresh(factory)
        for key, tensor in tensors.items():
            self._journal.origins.set(tensor, New(fresh, key, self._journal.operation))

    def is_made(self, tensor: torch.Tensor) -> bool:
        """Whether an earlier operation of this recipe, not the source, says what values a tensor takes."""
        origin = self._journal.origins.get(tensor)
        return isinstance(origin, (New, Derived, Borrowed)) and origin.by in self._journal.finished

    def copy_origin(self, tensor: torch.Tensor, source: torch.Tensor) -> None:
        """Give ``tensor`` the same values as ``source``, a tensor of this network or of a new module.

        Raises:
            OperationError: ``source`` is neither.
        """
        self._journal.origins.set(tensor, self._origin(source))

    def derive(
        self,
        tensor: torch.Tensor | Sequence[torch.Tensor],
        sources: Sequence[torch.Tensor],
        function: Callable[..., torch.Tensor | Sequence[torch.Tensor]],
    ) -> None:
        """Compute ``tensor`` from the values of ``sources`` when the network is filled.

        ``tensor`` may be one of the sources: ``function`` then gets the values that it had before.

        Args:
            tensor: The tensor; or several, which one call of ``function`` computes: the factors of an SVD.
            sources: The tensors whose values ``function`` is called with.
            function: Returns the values; for several tensors a tuple, in their order. It should not draw.

        Raises:
            OperationError: A source is neither a tensor of this network nor of a new module.
        """
        origins, by = tuple(self._origin(source) for source in sources), self._journal.operation
        if isinstance(tensor, torch.Tensor):
            self._journal.origins.set(tensor, Derived(origins, cast("Any", function), by))
            return
        joint = Joint(cast("Any", function), len(tensor))
        for index, part in enumerate(tensor):
            self._journal.origins.set(part, Part(origins, cast("Any", function), by, joint, index))

    def fill(self, tensor: torch.Tensor, function: Callable[[torch.Tensor], torch.Tensor | None]) -> None:
        """Let ``function`` write the values of ``tensor`` when the network is filled: ``fill(w, nn.init.zeros_)``.

        Random values are drawn from a generator seeded by the recipe's seed and the tensor's name in the edited
        network, and so do not depend on other operations.

        Args:
            tensor: A tensor of this network or of a new module.
            function: Gets a copy of the values that the tensor would have had, and writes into it or returns others.

        Raises:
            OperationError: ``tensor`` belongs to neither.
        """
        self._journal.origins.set(tensor, Filled((self._origin(tensor),), function, self._journal.operation))

    def donor(self, reference: str) -> Donor:
        """Open another checkpoint, by any reference to a model, to see the names and shapes of its tensors.

        No weight is read. A replay does not need it: call it only inside :meth:`recall`.

        Raises:
            CheckpointError: It is missing, damaged or unsafe.
            ArchitectureError: It cannot be identified, or has no weights.
        """
        donors = self._journal.donors
        if reference not in donors:
            donors[reference] = self._open_donor(reference)
        return donors[reference]

    def borrow(self, tensor: torch.Tensor, reference: str, name: str) -> None:
        """Copy a donor's tensor ``name`` into ``tensor`` when the network is filled."""
        origin = Borrowed(
            reference, name, lambda: self.donor(reference).read(name), self._journal.operation, tensor.nbytes
        )
        self._journal.origins.set(tensor, origin)

    def reshape(
        self, site: Site | str, name: str, shape: Sequence[int], function: Callable[[torch.Tensor], torch.Tensor]
    ) -> torch.Tensor:
        """Give a parameter or buffer another shape, and compute its new values from its old ones.

        Args:
            site: The module that holds it.
            name: Its name in that module.
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
                for key in [key for key, tensor in table.items() if tensor is old]:  # a tied one has several names
                    table[key] = new
                    self._changed(f"{path}.{key}".lstrip("."))
        return new

    def convert(self, dtype: torch.dtype, function: Callable[[torch.Tensor], torch.Tensor]) -> dict[str, torch.dtype]:
        """Give every floating-point parameter and buffer of the state dict another dtype.

        Args:
            dtype: The new dtype.
            function: Takes the old values, returns the new ones.

        Returns:
            The old dtype of each tensor that is converted.
        """
        old = {n: t for n, t in tensors_of(self.model) if t.is_floating_point() and t.dtype != dtype}
        fill(self.model, lambda name: torch.empty_like(old[name], dtype=dtype), list(old))
        for name, tensor in tensors_of(self.model):
            if name in old:
                self.derive(tensor, [old[name]], function)
        names = {name: first for name, first in aliases_of(self.model).items() if first in old}
        for name in [*old, *names]:
            self._changed(name)
        return {name: tensor.dtype for name, tensor in old.items()}

    def weight(self, tensor: torch.Tensor) -> torch.Tensor:
        """Read the values of a tensor of the skeleton from the source, now; only inside :meth:`recall`.

        Loading the result has no source to read from: it takes the answer that ``recall`` has recorded.

        Raises:
            OperationError: It is neither a tensor of this network nor of a new module, or is read outside ``recall``.
        """
        origin = self._origin(tensor)
        self._refuse_outside_recall("weight()")
        self._journal.read.append(origin)
        return self._value(origin)

    def filled(self) -> nn.Module:
        """Copy the network as it is now, with its values and in eval mode, to run data through; only inside
        :meth:`recall`. It takes the memory of the whole network, and nothing that happens to the copy is kept.

        Raises:
            OperationError: It is called outside ``recall``.
        """
        self._refuse_outside_recall("filled()")
        tensors = dict(tensors_of(self.model))
        model = skeleton_of(self.model)
        with unwatched():
            fill(model, lambda name: self.weight(tensors[name]).to(tensors[name].dtype, copy=True))
        return model.eval()

    @property
    def record(self) -> Record:
        """Return what is known of the network before this recipe: its source and the files beside its weights, which
        say how samples are prepared for it. A replay does not need it: read it only inside :meth:`recall`.

        Raises:
            OperationError: The network is in no source.
        """
        if self._record is None:
            raise OperationError("nothing is known of the network's source", hint="read it inside surgery.recall(…)")
        return self._record()

    def _refuse_outside_recall(self, call: str) -> None:
        if not self._journal.answering:
            raise OperationError(
                f"{call} is called outside recall, so that the result could not be loaded: then there is no source "
                "to read from",
                hint="let recall record what follows from the values: "
                "surgery.recall('the largest', lambda: int(surgery.weight(w).argmax())); or compute with derive",
            )

    def _origin(self, tensor: torch.Tensor) -> Origin:
        origin = self._journal.origins.get(tensor)
        if origin is None:
            raise OperationError(
                f"a tensor of shape {tuple(tensor.shape)} belongs neither to this network nor to a new module",
                hint="take it from surgery.model, or make its module with surgery.new(...)",
            )
        return origin

    def _changed(self, site: str) -> None:
        """Record that the subtree at ``site`` changed."""
        self._journal.changed.append(site)
        self._retrace()


def _module_of(factory: Callable[..., nn.Module], *args: Any, **kwargs: Any) -> nn.Module:
    """Call the factory of a new module.

    Raises:
        PluginError: It returned something else.
    """
    name = getattr(factory, "__qualname__", repr(factory))
    call = f"{name}, which surgery.new calls,"
    return checked(factory, call, nn.Module, "a module (torch.nn.Module)", factory(*args, **kwargs))
