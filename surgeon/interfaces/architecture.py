"""What every provider of architectures offers. Nothing here imports torch."""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Collection, Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from surgeon.errors import ArchitectureError, suggest
from surgeon.interfaces.architecture_name import Architecture

if TYPE_CHECKING:
    from torch import nn

    from surgeon.checkpoint.formats import Checkpoint
    from surgeon.interfaces.match import Match

Shapes = Mapping[str, tuple[int, ...]]


class ArchitectureProvider(ABC):
    """Builds the networks of one scheme, and finds out which of them a module or a checkpoint is.

    Only :meth:`names` and :meth:`build` are required. The other methods have answers that suit a library
    whose checkpoints hold exactly the keys of its modules.
    """

    scheme: ClassVar[str]

    @abstractmethod
    def names(self) -> list[str]:
        """The names that :meth:`build` knows; empty where they cannot be listed."""

    @abstractmethod
    def build(self, architecture: Architecture) -> nn.Module:
        """Build the network with ordinary code, its values initialised; nothing is downloaded.

        Raises:
            ArchitectureError: The name or an option is unknown.
        """

    def locate(self, name: str, *, weights: bool = True) -> tuple[Architecture, Path | None]:
        """The architecture and the file or folder of weights behind the ``name`` of a reference.

        Args:
            name: What follows the scheme, such as ``resnet50@DEFAULT``.
            weights: False when only the architecture is wanted.

        Raises:
            ArchitectureError: The name is unknown.
            CheckpointError: The weights cannot be had.
        """
        return Architecture(scheme=self.scheme, name=name), None

    def of_module(self, module: nn.Module) -> Architecture | None:
        """What rebuilds ``module`` exactly, values aside; None when unsure."""
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

    def leftovers(self, architecture: Architecture, names: Iterable[str]) -> set[str]:
        """Return those of ``names`` that belong to other networks on the same trunk, and may be left out.

        Asked only where a file does not fit. A tensor of the trunk must never be among them.
        """
        return set()

    def convert(self, skeleton: nn.Module, checkpoint: Checkpoint) -> Checkpoint | None:
        """``checkpoint`` in the layout of ``skeleton``, for a library that rearranges tensors on loading."""
        return None

    def trusting(self, names: Collection[str]) -> ArchitectureProvider:
        """The provider for a caller who lets the code in ``names`` run; only one that runs named code differs."""
        return self

    def require(self, name: str) -> None:
        """Raise an ArchitectureError with the nearest names unless ``name`` is one of :meth:`names`."""
        names = self.names()
        if name not in names:
            few = f"it has {len(names)}, for example {', '.join(sorted(names)[:3])}"
            raise ArchitectureError(f"{self.scheme} has no architecture {name!r}", hint=suggest(name, names) or few)
