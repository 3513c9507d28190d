"""Switch between several stems of one trunk, for a batch or for each of its samples.

model(images, stem="greek")               # all samples through one stem model(images, stem=torch.tensor([0, 1]))  # a
stem per sample, by number
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from surgeon.errors import OperationError
from surgeon.interfaces.composite import Composite

ARGUMENT = "stem"
"""The keyword argument of the network's forward that chooses the stem."""


class StemSwitch(nn.Module):
    """Hold stems by name, and run the chosen one.

    The first switch of a network reads the argument ``stem`` of its forward in a pre-hook, :meth:`choose`, and passes
    the choice on to the others. Without the argument, the stem chosen last stays; at first, the first one.

    Shapes: those of the stems, which must have equal outputs.

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
        """Read attributes that networks look up on their stem (the dtype of its weight) from the active one."""
        try:
            return super().__getattr__(name)
        except AttributeError:
            if name in ("stems", "active", "others"):
                raise
            return getattr(self.stems[self.active], name)

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """Run the chosen stem, or the stem of each sample."""
        if self.numbers is None:
            return self.stems[self.active](*args, **kwargs)
        return self._routed(self.numbers, args, kwargs)

    def choose(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Remove the argument from the network's arguments and pass it to all switches; a pre-hook."""
        kwargs = dict(kwargs)
        stem = kwargs.pop(ARGUMENT, None)
        for switch in (self, *self.others):
            switch.follow(stem)
        return args, kwargs

    def follow(self, stem: str | torch.Tensor | None) -> None:
        """Run ``stem`` from now on, or, for one call, the stem of each sample.

        Raises:
            OperationError: There is no such stem.
        """
        self.numbers = stem if isinstance(stem, torch.Tensor) else None
        if isinstance(stem, str):
            if stem not in self.stems:
                raise OperationError(f"there is no stem {stem!r}", hint=f"the stems are: {', '.join(self.stems)}")
            self.active = stem

    def _routed(self, numbers: torch.Tensor, args: tuple[Any, ...], kwargs: dict[str, Any]) -> torch.Tensor:
        """Run the samples of each stem separately, so that its norms see no others."""
        if int(numbers.min()) < 0 or int(numbers.max()) >= len(self.stems):
            raise OperationError(f"stems are numbered from 0 to {len(self.stems) - 1}", hint=", ".join(self.stems))
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
                    "a stem with several outputs needs one name for the whole batch", hint="stem='NAME'"
                )
            result = part.new_zeros(batch, *part.shape[1:]) if result is None else result
            result = result.index_copy(0, rows, part)
        assert result is not None  # a batch is not empty
        return result

    def extra_repr(self) -> str:
        """Show the active stem."""
        return f"active={self.active}"
