"""A user's own network: ``python:package.module:function``."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from surgeon.errors import ArchitectureError, suggest
from surgeon.interfaces.architecture import ArchitectureProvider
from surgeon.interfaces.architecture_name import Architecture

if TYPE_CHECKING:
    from torch import nn


class PythonFunction(ArchitectureProvider):
    """Calls an importable function (or class) with the architecture's options."""

    scheme = "python"

    def names(self) -> list[str]:
        """Empty: any importable function will do."""
        return []

    def build(self, architecture: Architecture) -> nn.Module:
        """Import the function, call it, and check that it returned a module."""
        from torch import nn

        function = _resolve(architecture)
        try:
            model = function(**architecture.options)
        except Exception as error:  # whatever a user's function raises
            what = f"{error}" if isinstance(error, TypeError) else f"raised {type(error).__name__}: {error}"
            raise ArchitectureError(
                " ".join(what.split()),
                where=str(architecture),
                hint=f"options given: {', '.join(architecture.options) or 'none'}",
            ) from error
        if not isinstance(model, nn.Module):
            raise ArchitectureError(f"returned {type(model).__name__}, not a torch.nn.Module", where=str(architecture))
        return model


def _resolve(architecture: Architecture) -> Callable[..., Any]:
    where = str(architecture)
    path, colon, attribute = architecture.name.partition(":")
    if not (path and colon and attribute):
        raise ArchitectureError("names no function", where=where, hint="write python:package.module:function")
    try:
        module = importlib.import_module(path)
    except ModuleNotFoundError as error:
        raise ArchitectureError(
            f"no module named {error.name!r}",
            where=where,
            hint="install the package that holds it, or put its folder on PYTHONPATH",
        ) from error
    except Exception as error:  # whatever a user's module raises while it is imported
        raise ArchitectureError(
            f"importing {path} raised {type(error).__name__}: {error}",
            where=where,
            hint=f"see the whole of it: python -c 'import {path}'",
        ) from error
    target: Any = module
    for part in attribute.split("."):
        if not hasattr(target, part):
            raise ArchitectureError(
                f"{path} has no attribute {attribute!r}", where=where, hint=suggest(part, _callables(target))
            )
        target = getattr(target, part)
    if not callable(target):
        raise ArchitectureError(f"{attribute!r} is a {type(target).__name__}, not a function", where=where)
    return target  # type: ignore[no-any-return]


def _callables(target: Any) -> list[str]:
    return [name for name, value in vars(target).items() if callable(value) and not name.startswith("_")]
