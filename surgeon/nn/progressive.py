"""Run progressive networks: several columns, of which only the last one trains."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from surgeon.interfaces.composite import Composite, Entry
from surgeon.nn.features import main_tensor
from surgeon.nn.grafts import Tap
from surgeon.nn.outputs import Outputs

if TYPE_CHECKING:
    from surgeon.interfaces.architecture_name import Architecture


class ProgressiveNetwork(nn.Module):
    """Run columns, one for each task, on the same input; lateral connections feed each from those before it.

    Progressive neural networks (Rusu et al. 2016, arXiv:1606.04671). All columns but the newest stay in eval
    mode through :meth:`train` and run without gradients.

    A column that returns a tensor gives the output ``task``; of one that returns more (a transformers
    ``ModelOutput``, a segmentation's ``OrderedDict``) the main tensor counts. The branches of a column that
    had some before it became one give outputs ``task_branch``.

    Attributes:
        tasks: The name of each column's output.
        columns: The networks.
        laterals: For each column, the connections that enter it; none for the first.
        sites: For each column, its sites at which lateral connections enter or may be read.
        architectures: What builds each column; None if it is the architecture of the first.
    """

    def __init__(self, first: nn.Module, task: str, sites: list[str]) -> None:
        super().__init__()
        self.tasks = [task]
        self.columns = nn.ModuleList([first])
        self.laterals = nn.ModuleList([nn.ModuleList()])
        self.sites = [sites]
        self.architectures: list[Architecture | None] = [None]
        self.training = first.training

    @property
    def role_root(self) -> str:
        """The site of the newest column, which the roles (the head, the blocks) refer to."""
        return f"columns.{len(self.tasks) - 1}"

    def surgeon_composite(self) -> Composite:
        """Describe the columns: all see the same input, and the newest one has the roles."""
        # A new column is attached before its architecture is appended.
        architectures = [*self.architectures, *[None] * len(self.columns)]
        return Composite(
            root=self.role_root,
            entries=tuple(
                Entry(f"columns.{index}", architecture=architectures[index]) for index in range(len(self.columns))
            ),
            built=self.role_root,
            architecture=self.architectures[-1],
        )

    def train(self, mode: bool = True) -> ProgressiveNetwork:
        """Set the newest column's mode; the others stay in eval mode."""
        super().train(mode)
        for part in (self.columns, self.laterals):
            for earlier in list(part)[: len(self.tasks) - 1]:
                earlier.train(False)
        return self

    def forward(self, *args: Any, **kwargs: Any) -> Outputs:
        """Run every column on the same input; returns the outputs of all by name, the oldest first."""
        outputs = Outputs()
        newest = len(self.tasks) - 1
        try:
            for index, (task, column) in enumerate(zip(self.tasks, self.columns, strict=True)):
                with torch.set_grad_enabled(index == newest and torch.is_grad_enabled()):
                    outputs.update(_named(task, column, column(*args, **kwargs)))
        finally:
            self._release()
        return outputs

    def _release(self) -> None:
        for module in self.laterals.modules():
            if isinstance(module, Tap):
                module.value = None


def _named(task: str, column: nn.Module, output: Any) -> Iterator[tuple[str, Any]]:
    branches = getattr(column, "grafts", {})
    if isinstance(output, Mapping) and branches:
        trunk = {name: value for name, value in output.items() if name not in branches}
        if trunk:
            yield task, _main(trunk)
        for name in branches:
            yield f"{task}_{name}", _main(output[name])
    else:
        yield task, _main(output)


def _main(output: Any) -> Any:
    """Return the main tensor, or the output itself if it has none (a backbone's lists of maps)."""
    tensor = main_tensor(output)
    return output if tensor is None else tensor
