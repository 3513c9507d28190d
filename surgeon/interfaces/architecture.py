"""Subclass :class:`ArchitectureProvider` to build networks of another library. Nothing here imports torch."""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Collection, Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from surgeon.errors import ArchitectureError, PluginError, suggest
from surgeon.interfaces.architecture_name import Architecture

if TYPE_CHECKING:
    from torch import nn

    from surgeon.checkpoint.formats import Checkpoint
    from surgeon.interfaces.match import Match

Shapes = Mapping[str, tuple[int, ...]]


class ArchitectureProvider(ABC):
    """Build the networks of one scheme, and identify modules and checkpoints.

    Only :meth:`names` and :meth:`build` are required. The other methods have defaults for a library whose checkpoints
    have exactly the keys of its modules.
    """

    scheme: ClassVar[str]

    @abstractmethod
    def names(self) -> list[str]:
        """List the names that :meth:`build` accepts; empty if they cannot be listed."""

    @abstractmethod
    def build(self, architecture: Architecture) -> nn.Module:
        """Build the network with initialised values, without downloading anything.

        Raises:
            ArchitectureError: The name or an option is unknown.
        """

    def locate(self, name: str, *, weights: bool = True) -> tuple[Architecture, Path | None]:
        """Find the architecture, and the file or folder of weights, that a reference names.

        Args:
            name: The part after the scheme, such as ``resnet50@DEFAULT``.
            weights: False if only the architecture is needed.

        Raises:
            ArchitectureError: The name is unknown.
            CheckpointError: The weights cannot be downloaded or read.
        """
        return Architecture(scheme=self.scheme, name=name), None

    def of_module(self, module: nn.Module) -> Architecture | None:
        """Find the architecture that rebuilds ``module`` exactly, except for its values; None if unsure."""
        return None

    def identify(self, checkpoint: Checkpoint) -> Match | None:
        """Which architecture ``checkpoint`` belongs to; None when it is none of this provider's.

        Raises:
            ArchitectureError: It resembles several, or one that it does not quite fit.
        """
        return None

    def complete(self, architecture: Architecture, checkpoint: Checkpoint) -> list[Architecture]:
        """The forms of ``architecture`` that ``checkpoint`` may have come from, options filled in."""
        return [architecture]

    def namings(self, skeleton: nn.Module, names: Iterable[str]) -> Iterator[dict[str, str]]:
        """Ways to read a file's names as the skeleton's, each a mapping of file name to skeleton name."""
        yield {name: name for name in names}

    def harmless(self, skeleton: nn.Module) -> re.Pattern[str] | None:
        """Tensors that a file may hold and the skeleton need not have, by their names."""
        return None

    def computed(self, skeleton: nn.Module) -> re.Pattern[str] | None:
        """Tensors that a file may lack because the network computes them where it is built, by their names."""
        return None

    def leftovers(self, architecture: Architecture, names: Iterable[str]) -> set[str]:
        """Return those of ``names`` that belong to other networks on the same trunk, and may be left out.

        Asked only where a file does not fit. A tensor of the trunk must never be among them.
        """
        return set()

    def convert(self, skeleton: nn.Module, checkpoint: Checkpoint) -> Checkpoint | None:
        """``checkpoint`` in the layout of ``skeleton``, for a library that rearranges tensors on loading."""
        return None

    def pictures(self, architecture: Architecture) -> dict[str, Any] | None:
        """Return how pictures become inputs of ``architecture``, as ``surgeon.interfaces.preprocessing`` describes it.

        None if that is not known. Asked once, for networks that are neither artifacts nor modules in memory.
        """
        return None

    def stock(self, architecture: Architecture, model: nn.Module) -> Iterator[Architecture]:
        """Yield architectures that may rebuild ``model``, the result of operations on a network of ``architecture``.

        surgeon builds each and compares classes, tensors, settings and outputs with those of ``model``.
        """
        yield from ()

    def config(self, rebuilt: nn.Module, pictures: Mapping[str, Any] | None) -> dict[str, Any] | None:
        """Return the ``config.json`` with which the library alone loads an artifact; None to write none.

        Args:
            rebuilt: The result of operations as :meth:`build` makes it, without weights.
            pictures: How pictures become its inputs, if that is known.
        """
        return None

    def load_stock(self, folder: Path) -> nn.Module:
        """Load an artifact with :meth:`config` by the library alone; surgeon compares its outputs with the result's.

        Raises:
            PluginError: The provider writes a config and says not how to load by it.
        """
        raise PluginError(
            f"the provider of {self.scheme!r} writes a config.json and cannot load by it",
            hint=f"define {type(self).__name__}.load_stock(folder), or return None from config()",
        )

    def trusting(self, names: Collection[str]) -> ArchitectureProvider:
        """Return a provider that may run the code in ``names``; only providers that run code by name differ."""
        return self

    def require(self, name: str) -> None:
        """Raise an ArchitectureError with the nearest names unless ``name`` is one of :meth:`names`."""
        names = self.names()
        if name not in names:
            few = f"it has {len(names)}, for example {', '.join(sorted(names)[:3])}"
            raise ArchitectureError(f"{self.scheme} has no architecture {name!r}", hint=suggest(name, names) or few)
