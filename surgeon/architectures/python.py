"""Build networks with the user's functions: ``python:package.module:function``, run only with consent."""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Callable, Collection
from typing import TYPE_CHECKING, Any

from surgeon.architectures.trust import refuse_libraries
from surgeon.errors import ArchitectureError, suggest
from surgeon.interfaces.architecture import ArchitectureProvider
from surgeon.interfaces.architecture_name import Architecture

if TYPE_CHECKING:
    from torch import nn


class PythonFunction(ArchitectureProvider):
    """Call a function or a module class with the architecture's options.

    The name may come from a recipe or manifest of somebody else, so nothing is imported before the caller has allowed
    its module.

    Args:
        trusted: Allowed modules (``package.module``) and functions (``package.module:function``); a module includes
            those below it.
    """

    scheme = "python"

    def __init__(self, trusted: Collection[str] = ()) -> None:
        self._trusted = frozenset(trusted)

    def trusting(self, names: Collection[str]) -> PythonFunction:
        """Return the same provider with more trusted modules."""
        return PythonFunction(self._trusted.union(names))

    def names(self) -> list[str]:
        """Return nothing: any importable function is possible."""
        return []

    def build(self, architecture: Architecture) -> nn.Module:
        """Import the function, call it, and check that it returns a module.

        Raises:
            ArchitectureError: The module is not trusted, or the function does not build a network.
        """
        from torch import nn

        function = self._resolve(architecture)
        try:
            model = function(**architecture.options)
        except Exception as error:  # a user's function may raise anything
            reason = f"{error}" if isinstance(error, TypeError) else f"raised {type(error).__name__}: {error}"
            raise ArchitectureError(
                " ".join(reason.split()),
                where=str(architecture),
                hint=f"options given: {', '.join(architecture.options) or 'none'}",
            ) from error
        if not isinstance(model, nn.Module):
            raise ArchitectureError(f"returned {type(model).__name__}, not a torch.nn.Module", where=str(architecture))
        return model

    def _resolve(self, architecture: Architecture) -> Callable[..., Any]:
        where = str(architecture)
        path, colon, attribute = architecture.name.partition(":")
        if not (path and colon and attribute):
            raise ArchitectureError(
                "does not name a function", where=where, hint="write python:package.module:function"
            )
        refuse_libraries(path, where)
        if not self._may_run(path, attribute):
            raise ArchitectureError(
                f"uses code of the module {path}, which needs your consent",
                where=where,
                hint=f"read it; if you trust it: --trust-code {path}, or in Python trust_code={path!r}",
            )
        function: Callable[..., Any] = _attribute(_imported(path, where), path, attribute, where)
        _check_function(function, path, where)
        return function

    def _may_run(self, path: str, attribute: str) -> bool:
        parts = path.split(".")
        modules = {".".join(parts[:count]) for count in range(1, len(parts) + 1)}
        return not self._trusted.isdisjoint({*modules, f"{path}:{attribute}"})


def _imported(path: str, where: str) -> Any:
    try:
        return importlib.import_module(path)
    except ModuleNotFoundError as error:
        raise ArchitectureError(
            f"no module named {error.name!r}",
            where=where,
            hint="install its package, or put its folder on PYTHONPATH",
        ) from error
    except Exception as error:  # a user's module may raise anything on import
        raise ArchitectureError(
            f"importing {path} raised {type(error).__name__}: {error}",
            where=where,
            hint=f"for the full traceback: python -c 'import {path}'",
        ) from error


def _attribute(module: Any, path: str, attribute: str, where: str) -> Any:
    target: Any = module
    for part in attribute.split("."):
        if part.startswith("__") or not hasattr(target, part):
            raise ArchitectureError(
                f"{path} has no attribute {attribute!r}", where=where, hint=suggest(part, _callables(target))
            )
        target = getattr(target, part)
    return target


def _check_function(function: Any, path: str, where: str) -> None:
    """Refuse anything but a function or module class of the named package."""
    from torch import nn

    hint = "give your own function that returns the network"
    if inspect.isclass(function):
        if not issubclass(function, nn.Module):
            raise ArchitectureError(f"{function.__name__} is not a subclass of torch.nn.Module", where=where, hint=hint)
    elif not (inspect.isfunction(function) or inspect.ismethod(function)):
        raise ArchitectureError(f"is a {type(function).__name__}, not a function", where=where, hint=hint)
    home = str(getattr(function, "__module__", None))
    if home.partition(".")[0] != path.partition(".")[0]:
        raise ArchitectureError(f"is code of {home}, not of {path}", where=where, hint=hint)


def _callables(target: Any) -> list[str]:
    return [name for name, value in vars(target).items() if callable(value) and not name.startswith("_")]
