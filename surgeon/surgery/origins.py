"""Record where each tensor of an edited skeleton gets its values from, and compute those values.

Origins are kept by the identity of the tensor objects, never by name: a parameter that an operation moves
elsewhere in the tree is still the same object, and a tied parameter is one object in two places.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from surgeon.errors import ArchitectureError, OperationError
from surgeon.graph.random_state import seeded
from surgeon.graph.tensors import tensors_of
from surgeon.interfaces.returned import described
from surgeon.surgery.writes import Writes

if TYPE_CHECKING:
    from surgeon.checkpoint.formats import Checkpoint


@dataclass(frozen=True)
class Kept:
    """Copy the source's tensor ``name``."""

    name: str


@dataclass(frozen=True, eq=False)
class Fresh:
    """Hold the factory of a new module. It is called again, with real tensors, when the values are needed."""

    factory: Callable[[], nn.Module]


@dataclass(frozen=True)
class New:
    """Take the tensor ``key`` of a new module."""

    fresh: Fresh
    key: str
    by: str


@dataclass(frozen=True)
class Derived:
    """Compute the values from those of other tensors."""

    sources: tuple[Origin, ...]
    function: Callable[..., torch.Tensor | None]
    by: str


@dataclass(frozen=True, eq=False)
class Filled(Derived):
    """Let a function write values into those of its one source, under a seed of the tensor's own."""


@dataclass(frozen=True, eq=False)
class Joint:
    """Hold a function that computes the values of several tensors at once."""

    function: Callable[..., Sequence[torch.Tensor]]
    count: int


@dataclass(frozen=True)
class Part(Derived):
    """Take one of the tensors that a joint function computes; ``function`` is that function."""

    joint: Joint
    index: int


@dataclass(frozen=True)
class Borrowed:
    """Copy the tensor ``name`` of another checkpoint, read when its values are needed."""

    donor: str
    name: str
    read: Callable[[], torch.Tensor]
    by: str
    nbytes: int


@dataclass(frozen=True)
class Missing:
    """Mark a tensor that the source lacks: an operation has to replace it or cut it away."""

    name: str


Origin = Kept | New | Derived | Borrowed | Missing


class Origins:
    """Map tensors to their origins, by identity."""

    def __init__(self) -> None:
        self._of: dict[int, tuple[torch.Tensor, Origin]] = {}
        self.writes = Writes()

    def set(self, tensor: torch.Tensor, origin: Origin) -> None:
        """Set the origin of ``tensor``. A reference to the tensor is kept, so that its ``id`` is not reused."""
        self._of[id(tensor)] = (tensor, origin)
        self.writes.follow(tensor)

    def watch(self) -> None:
        """Begin to notice values that the next operation writes into tensors, rather than to say where they come from.

        A module's own initialisation is no such write: it runs again when the network is filled.
        """
        self.writes.begin(tensor for tensor, _ in self._of.values())

    def get(self, tensor: torch.Tensor) -> Origin | None:
        """Get the origin of ``tensor``, or None if none was set."""
        entry = self._of.get(id(tensor))
        return entry[1] if entry else None

    def remember(self, old: torch.Tensor, new: torch.Tensor) -> None:
        """Give ``new`` (``old`` in another dtype, for example) the origin of ``old``."""
        origin = self.get(old)
        if origin is not None:
            self.set(new, origin)


class Flow:
    """Compute the values of an edited skeleton's tensors, one at a time.

    Args:
        model: The edited skeleton.
        origins: Where its tensors come from.
        checkpoint: The source's tensors, or None if there are none.
        mapping: The checkpoint's entry for each tensor name of the skeleton before surgery.
        seed: The recipe's seed.
    """

    def __init__(
        self,
        model: nn.Module,
        origins: Origins,
        checkpoint: Checkpoint | None,
        mapping: Mapping[str, str],
        seed: int,
    ) -> None:
        self.tensors = dict(tensors_of(model))
        self.origins = origins
        self.checkpoint = checkpoint
        self.mapping = mapping
        self.seed = seed
        self._names: dict[Fresh, str] = {}
        self._keys: dict[Fresh, set[str]] = {}
        self._filled: dict[Filled, str] = {}
        self._parts: dict[Joint, set[int]] = {}
        self._computed: dict[Joint, dict[int, torch.Tensor]] = {}
        for name, tensor in self.tensors.items():
            for origin in parts_of(origins.get(tensor)):
                if isinstance(origin, Filled):
                    self._filled.setdefault(origin, name)
                elif isinstance(origin, Part):
                    self._parts.setdefault(origin.joint, set()).add(origin.index)
                elif isinstance(origin, New):
                    self._names.setdefault(origin.fresh, name)
                    self._keys.setdefault(origin.fresh, set()).add(origin.key)
        self._made: dict[Fresh, dict[str, torch.Tensor]] = {}

    def check(self) -> None:
        """Check that every tensor has an origin.

        Raises:
            ArchitectureError: The source lacks tensors that no operation replaced.
            OperationError: An operation added tensors without saying where their values come from.
        """
        missing, unexplained = [], []
        for name, tensor in self.tensors.items():
            origin = self.origins.get(tensor)
            if origin is None:
                unexplained.append(name)
            elif any(isinstance(part, Missing) for part in parts_of(origin)):
                missing.append(name)
        if missing:
            raise ArchitectureError(
                f"the checkpoint lacks {len(missing)} tensors that the network needs: {_few(missing)}",
                hint="replace them (replace_head for a head) or cut them away (truncate)",
            )
        if unexplained:
            raise OperationError(
                f"{len(unexplained)} tensors have no origin: {_few(unexplained)}",
                hint="make new modules with surgery.new(...), so that their values are seeded and recorded",
            )

    def entry(self, name: str) -> str | None:
        """Get the checkpoint's entry that is the tensor ``name`` byte for byte; None if it is new or computed."""
        origin = self.origins.get(self.tensors[name])
        return self.mapping[origin.name] if isinstance(origin, Kept) else None

    def value(self, name: str) -> torch.Tensor:
        """Compute the values of the tensor ``name``, on the CPU (or on the device of a source in memory).

        Raises:
            OperationError: A derived tensor's function returned the wrong shape.
        """
        tensor = self.tensors[name]
        origin = self.origins.get(tensor)
        assert origin is not None  # check() has refused it
        value = self.evaluate(origin)
        if value.shape != tensor.shape:
            by = getattr(origin, "by", "the checkpoint")
            raise OperationError(f"{name}: {by} gave shape {tuple(value.shape)}, not {tuple(tensor.shape)}")
        return value.to(tensor.dtype)

    def evaluate(self, origin: Origin) -> torch.Tensor:
        """Compute the values of a tensor with a given origin."""
        if isinstance(origin, Kept):
            assert self.checkpoint is not None
            return self.checkpoint.read(self.mapping[origin.name])
        if isinstance(origin, New):
            return self._new(origin)
        if isinstance(origin, Filled):
            return self._fill(origin)
        if isinstance(origin, Part):
            return self._part(origin)
        if isinstance(origin, Derived):
            return _tensor(origin, origin.function(*[self.evaluate(source) for source in origin.sources]))
        if isinstance(origin, Borrowed):
            return origin.read()
        raise ArchitectureError(f"the checkpoint lacks {origin.name}")

    def _fill(self, origin: Filled) -> torch.Tensor:
        values = self.evaluate(origin.sources[0]).clone()
        with torch.no_grad(), torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed_for(self.seed, self._filled.get(origin, "")))
            result = origin.function(values)
        return values if result is None else _tensor(origin, result)

    def _part(self, origin: Part) -> torch.Tensor:
        """Compute all tensors of a joint function once, and free each after it has been returned."""
        joint = origin.joint
        remaining = self._computed.get(joint, {})
        if origin.index not in remaining:
            values: Any = joint.function(*[self.evaluate(source) for source in origin.sources])
            if isinstance(values, torch.Tensor) or not isinstance(values, Sequence) or len(values) != joint.count:
                raise OperationError(
                    f"{origin.by}: {_name_of(joint.function)} returned {described(values)}, where the values of "
                    f"{joint.count} tensors were expected",
                    hint="return a tuple with one tensor for each that derive was given, in that order",
                )
            needed = self._parts.get(joint, set()) | {origin.index}
            remaining = {index: _tensor(origin, value) for index, value in enumerate(values) if index in needed}
            self._computed[joint] = remaining
        value = remaining.pop(origin.index)
        if not remaining:
            del self._computed[joint]
        return value.clone()  # the parts may be views of one tensor

    def _new(self, origin: New) -> torch.Tensor:
        """Build a new module once, and free each of its tensors after it has been returned."""
        remaining = self._made.get(origin.fresh, {})
        if origin.key not in remaining:
            with seeded(seed_for(self.seed, self._names.get(origin.fresh, ""))):
                state = origin.fresh.factory().state_dict()
            needed = self._keys.get(origin.fresh, set()) | {origin.key}
            remaining = self._made[origin.fresh] = {key: tensor for key, tensor in state.items() if key in needed}
        if origin.key not in remaining:
            raise OperationError(
                f"{origin.by}: the factory of a new module made a tensor {origin.key!r} when it was planned, and not "
                "when it was filled",
                hint="a factory is called twice, and must make the same module both times",
            )
        value = remaining.pop(origin.key)
        if not remaining:
            del self._made[origin.fresh]
        # the layout of an SVD's factors, column by column, is not saved
        return value.clone(memory_format=torch.contiguous_format)


def seed_for(seed: int, name: str) -> int:
    """Compute the seed of a tensor's generator: it depends on the recipe's seed and the name, not on order."""
    return int.from_bytes(hashlib.sha256(f"{seed}:{name}".encode()).digest()[:7], "big")


def parts_of(origin: Origin | None) -> Iterator[Any]:
    """Yield an origin, if it is not computed, and all those that it is computed from."""
    if isinstance(origin, (Filled, Part)):
        yield origin
    if isinstance(origin, Derived):
        for source in origin.sources:
            yield from parts_of(source)
    elif origin is not None:
        yield origin


def _tensor(origin: Derived, value: Any) -> torch.Tensor:
    """Check what a plugin's function has computed.

    Raises:
        OperationError: It is not a tensor.
    """
    if isinstance(value, torch.Tensor):
        return value.detach().contiguous()  # the layout of an SVD's factors, column by column, is not saved
    name = _name_of(origin.function)
    raise OperationError(
        f"{origin.by}: {name} returned {type(value).__name__}, where the values of a tensor were expected",
        hint="return a tensor; is a return statement missing?" if value is None else "return one tensor",
    )


def _name_of(function: Any) -> str:
    return getattr(getattr(function, "func", function), "__qualname__", repr(function))


def _few(names: Sequence[str], count: int = 4) -> str:
    more = f", … ({len(names) - count} more)" if len(names) > count else ""
    return ", ".join(names[:count]) + more
