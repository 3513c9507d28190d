"""A network that is opened: its skeleton, where its tensors come from, and how it was opened."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from torch import nn

from surgeon.architectures.source import Source, open_source
from surgeon.checkpoint.formats import Checkpoint
from surgeon.interfaces.record import Surgeries
from surgeon.plugins import Plugins
from surgeon.plugins import load as load_plugins
from surgeon.surgery.course import Course
from surgeon.surgery.inspection import Inspection, inspection_of
from surgeon.surgery.origins import Flow, Origins

Model = str | Path | nn.Module
"""A path, ``torchvision/NAME[@WEIGHTS]``, ``hf:ORG/NAME[@REVISION]``, ``python:module:function``, or a module."""


@dataclass(frozen=True)
class OpenOptions:
    """How to open a network: what cannot be read from the file, and what the user allows.

    Attributes:
        arch: What builds the network, where its file does not say: an architecture's name, or a function without
            arguments that returns it.
        key: Which of several state dicts in the file to take.
        trust_pickle: Let pickles in the file run code.
        plugins: The plugins; the built-in and installed ones if left out.
    """

    arch: str | Callable[[], nn.Module] | None = None
    key: str | None = None
    trust_pickle: bool = False
    plugins: Plugins = field(default_factory=load_plugins)

    def source(self, model: Model) -> Source:
        """Find out what ``model`` is, without reading a weight.

        Raises:
            CheckpointError: There is no such file, or it cannot be read.
            ArchitectureError: The architecture is unknown, cannot be built, or does not fit the tensors.
        """
        return open_source(
            model,
            arch=self.arch if isinstance(self.arch, str) else None,
            trust_pickle=self.trust_pickle,
            key=self.key,
            plugins=self.plugins,
        )

    @property
    def builder(self) -> Callable[[], nn.Module] | None:
        """The function that builds the network, if ``arch`` is one."""
        return None if isinstance(self.arch, str) else self.arch


@dataclass(frozen=True)
class OpenedNetwork:
    """A network before the operations to come, no weight of it read.

    Attributes:
        root: Its skeleton; the module itself where one in memory is edited in place.
        origins: Where each of its tensors gets its values from.
        mapping: The checkpoint's entry for each tensor name.
        source: What it was opened from.
        options: How it was opened.
    """

    root: nn.Module
    origins: Origins
    mapping: Mapping[str, str]
    source: Source
    options: OpenOptions

    @property
    def checkpoint(self) -> Checkpoint | None:
        """The tensors that it was opened from; None for an architecture without weights."""
        return self.source.checkpoint

    def flow(self, *, seed: int = 0, root: nn.Module | None = None, checkpoint: Checkpoint | None = None) -> Flow:
        """Make the flow of values into the network.

        Args:
            seed: The recipe's seed.
            root: The edited skeleton, after operations.
            checkpoint: The tensors to read from, in another form (mapped into memory).
        """
        root = self.root if root is None else root
        return Flow(root, self.origins, checkpoint or self.checkpoint, self.mapping, seed)

    def inspect(self) -> Inspection:
        """Inspect the network, with the roles and inputs that its last recipe was given."""
        return inspection_of(self.root, self.options.plugins, self.source.surgeries)

    def course(self, surgeries: Surgeries) -> Course:
        """Start carrying out a recipe's operations on the network."""
        flow = self.flow(seed=surgeries.seed)
        return Course(
            self.root,
            self.origins,
            surgeries,
            self.options.plugins,
            flow.evaluate,
            architecture=self.source.architecture,
        )
