"""Check the values that a plugin's code returns, where they cross into surgeon. Imports torch only to name a tensor.

Each error names the plugin's distribution, what was called, what was expected and what came.
"""

from __future__ import annotations

import importlib.metadata
import os
import sys
from collections.abc import Callable, Collection, Iterable, Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any, TypeVar

from surgeon.errors import PluginError

T = TypeVar("T")

LIBRARY = __name__.partition(".")[0]


def refuse_return(thing: Any, call: str, expected: str, value: Any, hint: str | None = None) -> PluginError:
    """Make the error about a value that is not what was expected.

    Args:
        thing: The plugin's class or function, whose distribution is named.
        call: What was called: ``the loss 'iou'``, ``Prune.objectives()``.
        expected: What it should have returned, with shapes.
        value: What it returned.
        hint: What to do; a missing ``return`` is thought of.
    """
    if value is None and hint is None:
        hint = "is a return statement missing?"
    return PluginError(f"{call}{_from(thing)} returned {described(value)}; expected {expected}", hint=hint)


def items_of(thing: Any, call: str, kind: type[T], value: Any) -> list[T]:
    """Check that a plugin returned a list whose items are all of one class, and return it.

    Raises:
        PluginError: It did not.
    """
    expected = f"a list of {kind.__name__} objects"
    if isinstance(value, (str, bytes)) or not isinstance(value, Collection):
        raise refuse_return(thing, call, expected, value, _forgotten_list(kind, value))
    for item in value:
        if not isinstance(item, kind):
            raise refuse_return(thing, call, expected, value)
    return list(value)


def checked(thing: Any, call: str, kind: type | tuple[type, ...], expected: str, value: T) -> T:
    """Check that a plugin returned an instance of a class, and return it.

    Raises:
        PluginError: It did not.
    """
    if not isinstance(value, kind):
        raise refuse_return(thing, call, expected, value)
    return value


def described(value: Any) -> str:
    """Say what a value is, in a few words: a tensor by its shape and dtype, anything short as it is."""
    shape = getattr(value, "shape", None)
    if shape is not None and hasattr(value, "dtype"):
        dtype = str(value.dtype).removeprefix("torch.")
        return f"a {type(value).__name__} of shape {tuple(shape)}, {dtype}"
    if isinstance(value, type):
        return f"the class {value.__name__}"
    text = repr(value)
    if value is None or (isinstance(value, (str, int, float, bool)) and len(text) <= 60):
        return text if value is None else f"the {type(value).__name__} {text}"
    if isinstance(value, (list, tuple)) and value:
        kinds = list(dict.fromkeys(type(item).__name__ for item in value))
        return f"a {type(value).__name__} of {', '.join(kinds[:3])}"
    return f"a {type(value).__name__}"


def is_ours(thing: Any) -> bool:
    """Whether a class, function or object is part of surgeon itself."""
    return _module_of(thing).partition(".")[0] == LIBRARY


def origin_of(thing: Any) -> str:
    """The distribution that a class, function or object comes from, with its version; else its file or module."""
    module = _module_of(thing)
    if module.partition(".")[0] in _standing_alone():
        return _file_of(module)
    for name in _distributions(_folders()).get(module.partition(".")[0], ()):
        return f"{name} {importlib.metadata.version(name)}"
    return _file_of(module)


def raised_in(thing: Any, call: str, run: Callable[[], T], expected: tuple[type[Exception], ...] = ()) -> T:
    """Run a plugin's code, so that what it raises names the plugin.

    Raises:
        PluginError: It raised something; errors of the classes ``expected`` are passed on as they are.
    """
    try:
        return run()
    except expected:
        raise
    except (Exception, SystemExit) as error:
        reason = f"{type(error).__name__}: {' '.join(str(error).split())}"
        raise PluginError(f"{call}{_from(thing)} raised {reason}", hint="--debug shows where") from error


def _from(extension: Any) -> str:
    return "" if is_ours(extension) else f" of {origin_of(extension)}"


def _forgotten_list(kind: type, value: Any) -> str | None:
    if isinstance(value, kind):
        return "put it into a list: [...]"
    return None if value is None or not isinstance(value, Iterable) else f"list {kind.__name__}(...) objects"


def _module_of(extension: Any) -> str:
    return str(getattr(extension, "__module__", None) or type(extension).__module__)


def _folders() -> tuple[tuple[str, float], ...]:
    """List the folders that modules are imported from, with the time at which something was last installed there."""
    return tuple((path, os.stat(path).st_mtime if os.path.exists(path) else 0.0) for path in sys.path)


@lru_cache(maxsize=1)  # reading what every installed package contains takes a second
def _distributions(folders: tuple[tuple[str, float], ...]) -> Mapping[str, list[str]]:
    return importlib.metadata.packages_distributions()


def _standing_alone() -> set[str]:
    """Modules that belong to no package: the script that runs, and files that ``--plugin`` names."""
    return {"__main__", *(name for name in sys.modules if name.startswith("surgeon_plugin_"))}


def _file_of(module: str) -> str:
    file = getattr(sys.modules.get(module), "__file__", None)
    if file is None:
        return "a notebook or an interactive session" if module == "__main__" else module
    return str(file) if module == "__main__" or module.startswith("surgeon_plugin_") else Path(file).name
