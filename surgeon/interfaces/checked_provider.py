"""Check what a plugin's architecture provider returns, so that the rest of surgeon may rely on it."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from surgeon.errors import SurgeonError
from surgeon.interfaces.architecture import ArchitectureProvider
from surgeon.interfaces.architecture_name import Architecture
from surgeon.interfaces.match import Match
from surgeon.interfaces.returned import checked, items_of, raised_in, refuse_return

if TYPE_CHECKING:
    from torch import nn

    from surgeon.checkpoint.contents import Checkpoint

T = TypeVar("T")


class CheckedProvider(ArchitectureProvider):
    """Ask another provider, and refuse what it must not return.

    Args:
        provider: A plugin's provider.
    """

    scheme = ""

    def __init__(self, provider: ArchitectureProvider) -> None:
        self.provider = provider
        self.scheme = provider.scheme  # type: ignore[misc]

    def names(self) -> list[str]:
        """List the names, which are texts."""
        return items_of(self.provider, self._call("names"), str, self._run("names", self.provider.names))

    def build(self, architecture: Architecture) -> nn.Module:
        """Build the network, which is a module."""
        from torch import nn

        call = f"{type(self.provider).__name__}.build({architecture})"
        built = raised_in(self.provider, call, lambda: self.provider.build(architecture), (SurgeonError, *_META))
        if isinstance(built, type) and issubclass(built, nn.Module):
            raise refuse_return(self.provider, call, "a network", built, "call the class: it must be an instance")
        return checked(self.provider, call, nn.Module, "a network (torch.nn.Module)", built)

    def locate(self, name: str, *, weights: bool = True) -> tuple[Architecture, Path | None]:
        """Find the architecture and the file of weights."""
        located: Any = self._run("locate", lambda: self.provider.locate(name, weights=weights))
        well_formed = isinstance(located, tuple) and len(located) == 2 and isinstance(located[0], Architecture)
        if not well_formed or not isinstance(located[1], (str, Path, type(None))):
            expected = "(Architecture, the path of its weights or None)"
            raise refuse_return(self.provider, f"{type(self.provider).__name__}.locate({name!r})", expected, located)
        return located[0], None if located[1] is None else Path(located[1])

    def of_module(self, module: nn.Module) -> Architecture | None:
        """Find the architecture of a module."""
        return self._optional("of_module", Architecture, lambda: self.provider.of_module(module))

    def identify(self, checkpoint: Checkpoint) -> Match | None:
        """Identify a checkpoint."""
        return self._optional("identify", Match, lambda: self.provider.identify(checkpoint))

    def complete(self, architecture: Architecture, checkpoint: Checkpoint) -> list[Architecture]:
        """List the forms of an architecture."""
        forms = self._run("complete", lambda: self.provider.complete(architecture, checkpoint))
        return items_of(self.provider, self._call("complete"), Architecture, forms)

    def namings(self, skeleton: nn.Module, names: Iterable[str]) -> Iterator[dict[str, str]]:
        """Yield ways to read a file's names."""
        namings: Any = self._run("namings", lambda: self.provider.namings(skeleton, names))
        if not isinstance(namings, Iterable) or isinstance(namings, (str, Mapping)):
            raise refuse_return(self.provider, self._call("namings"), "mappings of names, one after another", namings)
        for naming in namings:
            yield checked(self.provider, self._call("namings"), dict, "mappings of names", naming)

    def harmless(self, skeleton: nn.Module) -> re.Pattern[str] | None:
        """Match the names of tensors that a file may hold beside those of the network."""
        return self._optional("harmless", re.Pattern, lambda: self.provider.harmless(skeleton))

    def computed(self, skeleton: nn.Module) -> re.Pattern[str] | None:
        """Match the names of tensors that a file may lack."""
        return self._optional("computed", re.Pattern, lambda: self.provider.computed(skeleton))

    def leftovers(self, architecture: Architecture, names: Iterable[str]) -> set[str]:
        """Find the names of other networks on the same trunk."""
        returned = self._run("leftovers", lambda: self.provider.leftovers(architecture, names))
        return set(items_of(self.provider, self._call("leftovers"), str, returned))

    def convert(self, skeleton: nn.Module, checkpoint: Checkpoint) -> Checkpoint | None:
        """Convert a checkpoint to the layout of the network."""
        from surgeon.checkpoint.contents import Checkpoint  # imports torch

        return self._optional("convert", Checkpoint, lambda: self.provider.convert(skeleton, checkpoint))

    def pictures(self, architecture: Architecture) -> dict[str, Any] | None:
        """Return how pictures become inputs, which is a mapping with a ``library``."""
        pictures: Any = self._run("pictures", lambda: self.provider.pictures(architecture))
        if pictures is None:
            return None
        if not isinstance(pictures, dict) or "library" not in pictures:
            expected = "a dictionary with the key 'library', or None"
            raise refuse_return(self.provider, self._call("pictures"), expected, pictures)
        return dict(pictures)

    def stock(self, architecture: Architecture, model: nn.Module) -> Iterator[Architecture]:
        """Yield architectures."""
        forms = self._run("stock", lambda: list(self.provider.stock(architecture, model)))
        yield from items_of(self.provider, self._call("stock"), Architecture, forms)

    def config(self, rebuilt: nn.Module, pictures: Mapping[str, Any] | None) -> dict[str, Any] | None:
        """Return the content of a ``config.json``."""
        return self._optional("config", dict, lambda: self.provider.config(rebuilt, pictures))

    def load_stock(self, folder: Path) -> nn.Module:
        """Load an artifact by the library alone. The caller handles its exceptions."""
        return self.provider.load_stock(folder)

    def trusting(self, names: Collection[str]) -> ArchitectureProvider:
        """Return the provider that may run further code, checked too."""
        trusting = self.provider.trusting(names)
        return self if trusting is self.provider else CheckedProvider(trusting)

    def _optional(self, method: str, kind: type[T], call: Callable[[], T | None]) -> T | None:
        value = self._run(method, call)
        return checked(self.provider, self._call(method), (kind, type(None)), f"{kind.__name__} or None", value)

    def _run(self, method: str, call: Callable[[], T]) -> T:
        return raised_in(self.provider, self._call(method), call, (SurgeonError,))

    def _call(self, method: str) -> str:
        return f"{type(self.provider).__name__}.{method}()"


_META = (RuntimeError, NotImplementedError)
"""What PyTorch raises where a network reads values while it is built without them; it is then built in another way."""
