"""Import a plugin from a file or a module, with errors that name it."""

from __future__ import annotations

import importlib
import importlib.util
import sys
import zlib
from collections.abc import Callable
from contextlib import redirect_stdout
from pathlib import Path
from types import ModuleType
from typing import Any, TypeVar

from surgeon.errors import PluginError, suggest
from surgeon.interfaces import hooks as hookspecs

HOOKS = [name for name in vars(hookspecs) if name.startswith("surgeon_")]

T = TypeVar("T")


def imported(name: str, load: Callable[[], Any]) -> Any:
    """Import a plugin by calling ``load``.

    Raises:
        PluginError: The import raised an exception; the message names it.
    """
    try:
        with redirect_stdout(sys.stderr):  # the output of a command belongs to the command: it may be JSON
            return load()
    except PluginError:
        raise
    except BaseException as error:
        if isinstance(error, KeyboardInterrupt):  # from the keyboard, as far as anyone can tell
            raise
        reason = f"{type(error).__name__}: {one_line(error)}"
        raise PluginError(f"plugin {name!r} cannot be imported: {reason}") from error


def file_or_module(name: str) -> ModuleType:
    """Import the ``.py`` file, or the module of that dotted name.

    Raises:
        PluginError: The file does not exist.
    """
    path = Path(name)
    if path.suffix != ".py":
        if "/" in name or path.is_dir():
            raise PluginError(f"plugin {name!r} is neither a .py file nor the dotted name of a module")
        return importlib.import_module(name)
    if not path.is_file():
        raise PluginError(f"plugin {name!r}: no such file")
    # Each file needs a unique module name: pydantic looks up a class's module by name to resolve its annotations.
    unique = f"surgeon_plugin_{path.stem}_{zlib.crc32(bytes(path.resolve())):08x}"
    spec = importlib.util.spec_from_file_location(unique, path)
    if spec is None or spec.loader is None:
        raise PluginError(f"plugin {name!r} is not a Python file")
    module = importlib.util.module_from_spec(spec)
    sys.modules[unique] = module
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[unique]
        raise
    return module


def one_line(error: BaseException) -> str:
    """Format the message of an exception in one line."""
    return " ".join(str(error).split())


def check_hooks(plugin: object, name: str) -> None:
    """Refuse hooks that would never be called: pluggy ignores unknown names and missing markers."""
    for key in dir(plugin):
        if not key.startswith("surgeon_") or not callable(function := getattr(plugin, key, None)):
            continue
        if key not in HOOKS:
            hint = suggest(key, HOOKS) or f"the hooks are {', '.join(HOOKS)}"
            raise PluginError(f"plugin {name!r} implements {key!r}, which is not a hook", hint=hint)
        if not hasattr(function, f"{hookspecs.PROJECT}_impl"):
            raise PluginError(
                f"plugin {name!r} defines {key!r} without marking it", hint=f"put @surgeon.hookimpl before def {key}"
            )


def run_hook(plugin: str, hook: str, call: Callable[[], T]) -> T:
    """Call a plugin's hook; an exception is re-raised with the names of plugin and hook.

    Raises:
        PluginError: The hook raised.
    """
    try:
        with redirect_stdout(sys.stderr):
            return call()
    except PluginError as error:
        raise error.at(f"plugin {plugin!r}, {hook}") from error.__cause__
    except BaseException as error:
        if isinstance(error, KeyboardInterrupt):
            raise
        reason = f"{type(error).__name__}: {one_line(error)}"
        raise PluginError(f"plugin {plugin!r} raised in {hook}: {reason}", hint="--debug shows where") from error
