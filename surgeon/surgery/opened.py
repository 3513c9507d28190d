"""Hold an opened network: its skeleton, where its tensors come from, and the options that it was opened with."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from torch import nn

from surgeon.architectures.source import Source, open_source
from surgeon.checkpoint.formats import Checkpoint
from surgeon.graph.skeleton import built_under
from surgeon.interfaces.record import Surgeries
from surgeon.plugins import Plugins
from surgeon.plugins import load as load_plugins
from surgeon.surgery.course import Course
from surgeon.surgery.inspection import Inspection, inspection_of
from surgeon.surgery.make_record import make_record
from surgeon.surgery.origins import Flow, Origins

Model = str | Path | nn.Module
"""A path, ``torchvision/NAME[@WEIGHTS]``, ``hf:ORG/NAME[@REVISION]``, ``python:module:function``, or a module."""


@dataclass(frozen=True)
class OpenOptions:
    """Hold the options for opening a network: what the file does not say, and what the user allows.

    Attributes:
        arch: What builds the network if its file does not say: the name of an architecture, or a function without
            arguments that returns the network.
        key: Which of several state dicts in the file to take.
        trust_pickle: Let pickles in the file run code.
        plugins: The plugins. Default: the built-in and installed ones.
        seed: The seed for what the network draws while it is built and no checkpoint holds; an artifact's own seed
            comes before it.
        strict: Refuse, rather than warn, where what no state dict holds differs from what an artifact recorded.
    """

    arch: str | Callable[[], nn.Module] | None = None
    key: str | None = None
    trust_pickle: bool = False
    plugins: Plugins = field(default_factory=load_plugins)
    seed: int = 0
    strict: bool = False

    def source(self, model: Model) -> Source:
        """Identify ``model`` without reading a weight.

        Raises:
            CheckpointError: The file does not exist or cannot be read.
            ArchitectureError: The architecture is unknown, cannot be built, or does not fit the tensors.
        """
        with built_under(self.seed):
            return open_source(
                model,
                arch=self.arch if isinstance(self.arch, str) else None,
                trust_pickle=self.trust_pickle,
                key=self.key,
                plugins=self.plugins,
            )

    @property
    def builder(self) -> Callable[[], nn.Module] | None:
        """Return ``arch`` if it is a function that builds the network, else None."""
        return None if isinstance(self.arch, str) else self.arch


@dataclass(frozen=True)
class OpenedNetwork:
    """Hold a network before its operations run; none of its weights is read.

    Attributes:
        root: Its skeleton; the module itself if one in memory is edited in place.
        origins: Where each of its tensors gets its values from.
        mapping: The checkpoint's entry for each tensor name.
        source: What it was opened from.
        options: The options that it was opened with.
    """

    root: nn.Module
    origins: Origins
    mapping: Mapping[str, str]
    source: Source
    options: OpenOptions

    @property
    def checkpoint(self) -> Checkpoint | None:
        """Return the checkpoint that it was opened from; None for an architecture without weights."""
        return self.source.checkpoint

    def flow(self, *, seed: int = 0, root: nn.Module | None = None, checkpoint: Checkpoint | None = None) -> Flow:
        """Make the object that computes the values of the network's tensors.

        Args:
            seed: The recipe's seed.
            root: The edited skeleton, after operations.
            checkpoint: Read from this instead of ``self.checkpoint``: the same tensors, mapped into memory.
        """
        root = self.root if root is None else root
        return Flow(root, self.origins, checkpoint or self.checkpoint, self.mapping, seed)

    def inspect(self) -> Inspection:
        """Inspect the network, with the roles and inputs of its last recipe."""
        return inspection_of(self.root, self.options.plugins, self.source.surgeries)

    def course(self, surgeries: Surgeries, *, planning: bool = False) -> Course:
        """Start running a recipe's operations on the network; ``planning`` if only for a plan."""
        flow = self.flow(seed=surgeries.seed)
        return Course(
            self.root,
            self.origins,
            surgeries,
            self.options.plugins,
            flow.evaluate,
            architecture=self.source.architecture,
            record=partial(make_record, self.source, None),
            planning=planning,
        )
