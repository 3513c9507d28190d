"""Import a plugin from a file or a module, with errors that name it."""

from __future__ import annotations

import importlib
import importlib.util
import sys
import zlib
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

from surgeon.errors import PluginError


def imported(name: str, load: Callable[[], Any]) -> Any:
    """Import a plugin by calling ``load``.

    Raises:
        PluginError: The import raised an exception; the message names it.
    """
    try:
        return load()
    except PluginError:
        raise
    except (Exception, SystemExit) as error:
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
