"""Register operations and other parts from a script or a notebook, without a package or a plugin file."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

from surgeon.errors import PluginError
from surgeon.interfaces.hooks import hookimpl
from surgeon.interfaces.returned import described, origin_of

T = TypeVar("T")

UNREGISTERED = ", which does not register it"
"""The end of what a record says of an operation that could not be found again, after the file that defines it."""


class _Offer:
    """A plugin with one hook, which offers one thing."""

    def __init__(self, hook: str, extension: Any) -> None:
        def offer() -> list[Any]:
            return [extension]

        setattr(self, hook, hookimpl(offer))


_registered: dict[str, _Offer] = {}


def register(thing: T) -> T:
    """Make an operation, source of data, architecture provider or family known to surgeon in this process.

    Recipes may then name it, and what is made with it may be saved. What loads it later has to register it first: the
    error names the file. To register something of the same name again, as a notebook does, replaces it. May decorate a
    class.

    Args:
        thing: A class derived from ``Operation`` or ``Source``, an instance of ``ArchitectureProvider``, or a
            ``Family``.

    Raises:
        PluginError: It is none of these, or not complete.
    """
    from surgeon.interfaces.offers import CHECKS

    hook = _hook_of(thing)
    ((name, _),) = CHECKS[hook]([thing])
    label = thing if isinstance(thing, type) else type(thing)
    _forget(f"({hook.removeprefix('surgeon_')} {name})")
    _registered[f"{origin_of(label)} ({hook.removeprefix('surgeon_')} {name})"] = _Offer(hook, thing)
    return thing


@contextmanager
def registered(*things: Any) -> Iterator[None]:
    """Register things within the block."""
    before = dict(_registered)
    try:
        for thing in things:
            register(thing)
        yield
    finally:
        _registered.clear()
        _registered.update(before)


def registered_plugins() -> dict[str, object]:
    """What was registered in this process, as plugins by names that say where each thing comes from."""
    return dict(_registered)


def _forget(end: str) -> None:
    for label in [label for label in _registered if label.endswith(end)]:
        del _registered[label]


def _hook_of(offer: Any) -> str:
    # imported here, since they import pydantic, which `surgeon --version` does without
    from surgeon.interfaces.architecture import ArchitectureProvider
    from surgeon.interfaces.data import Source
    from surgeon.interfaces.family import Family
    from surgeon.interfaces.operation import Operation

    kinds: dict[str, Callable[[], bool]] = {
        "surgeon_operations": lambda: isinstance(offer, type) and issubclass(offer, Operation),
        "surgeon_sources": lambda: isinstance(offer, type) and issubclass(offer, Source),
        "surgeon_architectures": lambda: isinstance(offer, ArchitectureProvider),
        "surgeon_families": lambda: isinstance(offer, Family),
    }
    for hook, matches in kinds.items():
        if matches():
            return hook
    hint = "register the class, not an instance" if isinstance(offer, (Operation, Source)) else None
    if isinstance(offer, type) and issubclass(offer, ArchitectureProvider):
        hint = f"register an instance: {offer.__name__}()"
    raise PluginError(
        f"register takes an operation or source class, an architecture provider or a family, not {described(offer)}",
        hint=hint,
    )
