"""Describe the inputs of a network: the shape, dtype and range of each argument."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn

BATCH = 2


@dataclass(frozen=True)
class Spec:
    """Describe one tensor to feed.

    Attributes:
        shape: The shape, batch first.
        dtype: None for the network's floating-point dtype.
        low: The least integer.
        high: One more than the greatest integer.
        last: The integer at the end of each row, if it matters.
        first: The integer at the start of each row and how often it is repeated.
        values: The values as nested lists; random if None.
    """

    shape: tuple[int, ...]
    dtype: torch.dtype | None = None
    low: int = 0
    high: int = 2
    last: int | None = None
    first: tuple[int, int] | None = None
    values: Any = None

    def tensor(self, device: torch.device, dtype: torch.dtype, generator: torch.Generator) -> torch.Tensor:
        """Make the tensor; on the meta device it has no values."""
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
    """Describe the arguments of one forward.

    Attributes:
        args: Positional arguments; a :class:`Spec` stands for a tensor, in lists and mappings too.
        kwargs: Keyword arguments, likewise.
        origin: Where the description comes from.
        training: Positional arguments to add in training, such as a detector's targets.
        settings: Attributes of modules to set for the forward, by path.
        values: Whether the forward depends on values throughout, so that only a real run works.
        alternatives: What to try if these fail.
        placeholders: The number of tokens that image features replace.
        fallback: What to try if these and all alternatives fail; it leaves arguments out.
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
        """Yield these inputs, the alternatives, and the candidates of the fallback."""
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
        """Make the arguments with tensors in place of specs, the same values each time.

        Args:
            device: The device of the tensors.
            dtype: The dtype of tensors that follow the network's.
            training: Whether to add the arguments that only training needs.
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
        """Set the attributes in ``settings`` on ``model``; paths of removed modules are skipped."""
        modules = dict(model.named_modules())
        for path, value in self.settings.items():
            owner, _, name = path.rpartition(".")
            if owner in modules:
                setattr(modules[owner], name, value)
