"""Describe the inputs of a network: the shape, dtype and range of each argument."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

if TYPE_CHECKING:
    pass


BATCH = 2


@dataclass(frozen=True)
class Spec:
    """One tensor to feed.

    Attributes:
        shape: Batch first.
        dtype: None for the network's own floating-point type.
        low: The least value of an integer.
        high: One more than the greatest value of an integer.
        last: The integer at the end of each row, where that one matters.
        first: The integer that each row begins with, and how often.
        values: What it holds, in nested lists; random if left out.
    """

    shape: tuple[int, ...]
    dtype: torch.dtype | None = None
    low: int = 0
    high: int = 2
    last: int | None = None
    first: tuple[int, int] | None = None
    values: Any = None

    def tensor(self, device: torch.device, dtype: torch.dtype, generator: torch.Generator) -> torch.Tensor:
        """A tensor of this kind; on the meta device it has no values."""
        kind = self.dtype or dtype
        if device.type == "meta":
            return torch.empty(self.shape, dtype=kind, device=device)
        if self.values is not None:
            return torch.tensor(self.values, dtype=kind, device=device)
        if kind.is_floating_point or kind.is_complex:
            values = torch.rand(self.shape, generator=generator).to(kind)
        else:
            values = torch.randint(self.low, self.high, self.shape, generator=generator).to(kind)
            if self.last is not None:
                values[..., -1] = self.last
            if self.first is not None:
                values[..., : self.first[1]] = self.first[0]
        return values.to(device)


@dataclass(frozen=True)
class Inputs:
    """The arguments of one forward.

    Attributes:
        args: Positional arguments; a :class:`Spec` stands for a tensor, in lists and mappings too.
        kwargs: Keyword arguments, likewise.
        origin: How they were found.
        training: Positional arguments that are added in training: a detector's targets.
        settings: Attributes to set meanwhile, by path.
        values: The forward looks at values from end to end, so that only a real run will do.
        alternatives: What to try where these do not fit.
        placeholders: The places among the tokens that features of images are put into.
        fallback: What to feed where neither these nor the alternatives run in any way: they leave parts out.
    """

    args: tuple[Any, ...] = ()
    kwargs: dict[str, Any] = field(default_factory=dict)
    origin: str = "given"
    training: tuple[Any, ...] = ()
    settings: dict[str, Any] = field(default_factory=dict)
    values: bool = False
    alternatives: tuple[Inputs, ...] = ()
    placeholders: int = 0
    fallback: Inputs | None = None

    def candidates(self) -> Iterator[Inputs]:
        """These, then the alternatives, then the fallback and its own."""
        yield self
        yield from self.alternatives
        if self.fallback is not None:
            yield from self.fallback.candidates()

    def tensors(
        self,
        device: torch.device | str = "cpu",
        dtype: torch.dtype = torch.float32,
        *,
        training: bool = False,
    ) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """The arguments with tensors in them, the same ones each time.

        Args:
            device: Where to make them.
            dtype: The floating-point type of those that follow the network's.
            training: Add what only training needs.
        """
        generator = torch.Generator().manual_seed(0)
        device = torch.device(device)

        def filled(value: Any) -> Any:
            if isinstance(value, Spec):
                return value.tensor(device, dtype, generator)
            if isinstance(value, (list, tuple)):
                return type(value)(filled(item) for item in value)
            if isinstance(value, dict):
                return {key: filled(item) for key, item in value.items()}
            return value.to(device) if isinstance(value, torch.Tensor) and device.type == "meta" else value

        extra = self.training if training else ()
        return filled((*self.args, *extra)), filled(self.kwargs)

    def set(self, model: nn.Module) -> None:
        """Give ``model`` the ``settings``, but for those of modules that surgery has removed."""
        modules = dict(model.named_modules())
        for path, value in self.settings.items():
            owner, _, name = path.rpartition(".")
            if owner in modules:
                setattr(modules[owner], name, value)
