"""Several stems in front of one trunk, of which each batch, or each sample, goes through one.

model(images, stem="greek")             # all of them through one stem
model(images, stem=torch.tensor([0, 1]))  # each through its own, by its number
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from surgeon.errors import OperationError
from surgeon.interfaces.composite import Composite

ARGUMENT = "stem"
"""The keyword argument of the network's forward that chooses."""


class StemSwitch(nn.Module):
    """Stems by name, in the place of one; the one that is chosen runs.

    The first switch of a network hears its forward's argument ``stem`` by a pre-hook, a bound method of its own, and
    tells the others. Without the argument, the stem chosen last stays; the first at the beginning.

    Shapes: those of the stems, which must agree in what they produce.

    Args:
        stems: The stems.
    """

    def __init__(self, stems: Mapping[str, nn.Module]) -> None:
        super().__init__()
        self.stems = nn.ModuleDict(stems)
        self.active = next(iter(stems))
        self.others: list[StemSwitch] = []
        self.numbers: torch.Tensor | None = None

    @property
    def names(self) -> list[str]:
        """The names of the stems."""
        return list(self.stems)

    def surgeon_composite(self) -> Composite:
        """Describe the stems: one of them runs, chosen by an argument that the network's pre-hook reads."""
        return Composite(keywords=(ARGUMENT,), choices=tuple(f"stems.{name}" for name in self.stems))

    def __getattr__(self, name: str) -> Any:
        """What networks read of their stem (the dtype of its weight) is the running one's."""
        try:
            return super().__getattr__(name)
        except AttributeError:
            if name in ("stems", "active", "others"):
                raise
            return getattr(self.stems[self.active], name)

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """What the chosen stem makes of the input; of each sample its own where numbers chose."""
        if self.numbers is None:
            return self.stems[self.active](*args, **kwargs)
        return self._routed(self.numbers, args, kwargs)

    def choose(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """The pre-hook of the network: takes the argument out and lets all switches follow it."""
        kwargs = dict(kwargs)
        stem = kwargs.pop(ARGUMENT, None)
        for switch in (self, *self.others):
            switch.follow(stem)
        return args, kwargs

    def follow(self, stem: str | torch.Tensor | None) -> None:
        """Let the stem ``stem`` run from now on, or for this once each sample's own.

        Raises:
            OperationError: There is no stem of that name.
        """
        self.numbers = stem if isinstance(stem, torch.Tensor) else None
        if isinstance(stem, str):
            if stem not in self.stems:
                raise OperationError(f"there is no stem {stem!r}", hint=f"the stems are: {', '.join(self.stems)}")
            self.active = stem

    def _routed(self, numbers: torch.Tensor, args: tuple[Any, ...], kwargs: dict[str, Any]) -> torch.Tensor:
        """Each sample through its own stem alone, so that its norms see no other's."""
        if int(numbers.min()) < 0 or int(numbers.max()) >= len(self.stems):
            raise OperationError(f"stems go by numbers from 0 to {len(self.stems) - 1}", hint=", ".join(self.stems))
        batch, result = len(numbers), None
        for number, stem in enumerate(self.stems.values()):
            rows = (numbers == number).nonzero().flatten()
            if not len(rows):
                continue

            def some(value: Any, rows: torch.Tensor = rows) -> Any:
                batched = isinstance(value, torch.Tensor) and value.ndim > 0 and len(value) == batch
                return value[rows] if batched else value

            part = stem(*map(some, args), **{key: some(value) for key, value in kwargs.items()})
            if not isinstance(part, torch.Tensor):
                raise OperationError(
                    "a stem that produces more than a tensor takes one name for the whole batch", hint="stem='NAME'"
                )
            result = part.new_zeros(batch, *part.shape[1:]) if result is None else result
            result = result.index_copy(0, rows, part)
        assert result is not None  # a batch has samples
        return result

    def extra_repr(self) -> str:
        """The stem that runs."""
        return f"active={self.active}"
