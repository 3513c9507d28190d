"""Check what a plugin's hook returns, and name each thing in it. Imports no torch.

Every value that crosses the border is checked here, once: what follows may rely on it.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from surgeon.errors import PluginError
from surgeon.interfaces.architecture import ArchitectureProvider
from surgeon.interfaces.data import source_name
from surgeon.interfaces.operation import Operation

Named = list[tuple[str, Any]]


def is_same(offer: Any, other: Any) -> bool:
    """Return whether two plugins offer one thing: the same object, or two providers of a class, without state."""
    if isinstance(offer, ArchitectureProvider) and type(offer) is type(other):
        return not vars(offer) and not vars(other)
    return offer is other


def operations(offer: Any) -> Named:
    """Operation classes, by the names that recipes use.

    Raises:
        PluginError: Something else was returned, or a class that cannot be carried out.
    """
    named = []
    for kind in _listed(offer, "a list of Operation classes"):
        if not (isinstance(kind, type) and issubclass(kind, Operation)):
            hint = "list the class itself, not an instance" if isinstance(kind, Operation) else None
            raise PluginError(f"returned {_as_text(kind)}, which is not a class derived from Operation", hint=hint)
        if kind.apply is Operation.apply:
            raise PluginError(f"{kind.__name__} defines no apply(model, surgery)")
        if type(kind.version) is not int or kind.version < 1:
            raise PluginError(f"{kind.__name__} has the version {kind.version!r}: use a whole number from 1")
        if not kind.name.isidentifier():
            raise PluginError(f"{kind.__name__} has the name {kind.name!r}: use letters, digits and underscores")
        named.append((kind.name, kind))
    return named


def architectures(offer: Any) -> Named:
    """Providers of architectures, by their schemes.

    Raises:
        PluginError: Something else was returned.
    """
    named = []
    for provider in _listed(offer, "a list of ArchitectureProvider instances"):
        if not isinstance(provider, ArchitectureProvider):
            is_class = isinstance(provider, type) and issubclass(provider, ArchitectureProvider)
            hint = f"list an instance: {provider.__name__}()" if is_class else None
            raise PluginError(f"returned {_as_text(provider)}, which is not an ArchitectureProvider", hint=hint)
        scheme = getattr(provider, "scheme", None)
        if not isinstance(scheme, str) or not scheme:
            raise PluginError(f"{type(provider).__name__} has no scheme", hint='for example: scheme = "timm"')
        named.append((scheme, provider))
    return named


def sources(offer: Any) -> Named:
    """Classes of data sources, by the names that recipes use.

    Raises:
        PluginError: Something else was returned, or a class without a name or ``load``.
    """
    named = []
    for kind in _listed(offer, "a list of Source classes"):
        try:
            named.append((source_name(kind), kind))
        except TypeError as error:
            raise PluginError(str(error)) from error
    return named


def losses(offer: Any) -> Named:
    """Losses by name; each is called with a prediction and a target.

    Raises:
        PluginError: Something else was returned, or a value that takes fewer than two arguments.
    """
    return _callables(offer, "losses", 2)


def callbacks(offer: Any) -> Named:
    """Callbacks of the Trainer by name: classes, or functions that make one.

    Raises:
        PluginError: Something else was returned.
    """
    return _callables(offer, "callbacks", 0)


def schedules(offer: Any) -> Named:
    """Curves of schedules by name; each is called with the progress of training.

    Raises:
        PluginError: Something else was returned, or a value that takes no argument.
    """
    return _callables(offer, "curves", 1, "(progress)")


def metrics(offer: Any) -> Named:
    """Metrics by name; each is called with predictions and labels.

    Raises:
        PluginError: Something else was returned, or a value that takes fewer than two arguments.
    """
    return _callables(offer, "metrics", 2)


def families(offer: Any) -> Named:
    """Families of networks, by their names.

    Raises:
        PluginError: Something else was returned.
    """
    from surgeon.interfaces.family import Family

    named = []
    for family in _listed(offer, "a list of Family instances"):
        if not isinstance(family, Family):
            raise PluginError(f"returned {_as_text(family)}, which is not a Family")
        named.append((family.name, family))
    return named


CHECKS: Mapping[str, Callable[[Any], Named]] = {
    "surgeon_operations": operations,
    "surgeon_architectures": architectures,
    "surgeon_families": families,
    "surgeon_losses": losses,
    "surgeon_sources": sources,
    "surgeon_callbacks": callbacks,
    "surgeon_schedules": schedules,
    "surgeon_metrics": metrics,
}
"""What checks the value that each hook returns."""


def _listed(offer: Any, expected: str) -> Iterable[Any]:
    if offer is None:
        raise PluginError(f"returned None instead of {expected}", hint="is a return statement missing?")
    if isinstance(offer, (str, bytes, Mapping, type)) or not isinstance(offer, Iterable):
        raise PluginError(f"returned {_as_text(offer)} instead of {expected}")
    return list(offer)


def _callables(offer: Any, expected: str, arguments: int, names: str = "(prediction, target)") -> Named:
    if not isinstance(offer, Mapping):
        offered = "None" if offer is None else _as_text(offer)
        raise PluginError(f"returned {offered} instead of a mapping of names to {expected}")
    for name, function in offer.items():
        if not isinstance(name, str) or not callable(function):
            raise PluginError(f"returned {name!r}: {_as_text(function)}, which is not a callable under a name")
        if arguments and not _takes(function, arguments):
            count = f"{arguments} argument{'s' if arguments > 1 else ''}"
            raise PluginError(f"{name!r} does not take {count}, {names}")
    return list(offer.items())


def signature_of(function: Callable[..., Any]) -> inspect.Signature:
    """Return the signature of a function; that of one that takes anything for a builtin without a signature."""
    try:
        return inspect.signature(function)
    except ValueError:
        return inspect.signature(_anything)


def _anything(*arguments: Any, **options: Any) -> None:
    """Stand for a function whose arguments are unknown."""


def _takes(function: Callable[..., Any], count: int) -> bool:
    try:
        signature_of(function).bind(*range(count))
    except TypeError:
        return False
    return True


def _as_text(value: Any) -> str:
    text = f"the class {value.__name__}" if isinstance(value, type) else repr(value)
    return text if len(text) <= 80 else f"a {type(value).__name__}"
