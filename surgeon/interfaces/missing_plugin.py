"""Say where to get what is missing (from a plugin that is not loaded, failed, or is not installed) and what failed."""

from __future__ import annotations

import traceback
from collections.abc import Mapping
from types import ModuleType

from surgeon.errors import PluginError
from surgeon.interfaces.own_packages import operation_hint


def hint_about_missing(
    kind: str,
    name: str,
    near: str | None,
    needed: Mapping[str, str],
    failures: Mapping[str, PluginError],
    distributions: Mapping[str, str],
) -> str:
    """Suggest what to do about a missing ``name``: nearest names, and plugins that may have it.

    Args:
        kind: The kind of thing: operation, source.
        name: The missing name.
        near: The nearest available names, as a hint.
        needed: The plugins that an artifact records, as ``Plugins.foreign`` returns them.
        failures: Errors by plugin.
        distributions: The distribution of each installed plugin.
    """
    if origin := needed.get(f"{kind} {name}"):
        if origin.endswith(f"({kind}s {name})"):
            file = origin.removesuffix(f" ({kind}s {name})")
            return f"it was registered in {file}: surgeon.register({kind}) first, by importing that"
        distribution, _, version = origin.rpartition(" ")
        for plugin, error in failures.items():
            if distribution and distributions.get(plugin) == distribution:
                return f"it is in the plugin {plugin!r} of {origin}, which failed: {error.message}"
        if distribution and not origin.endswith(".py"):
            return f"it comes from {origin}: python -m pip install '{distribution}=={version}'"
        return (
            f"it comes from the plugin {origin!r}, which is not loaded: name it with --plugin {origin}, or in "
            f"Python with plugins=[{origin!r}], or install it"
        )
    package = operation_hint(name, distributions.values()) if kind == "operation" else None
    hints = [package or near or ""]
    for plugin, error in failures.items():
        hints.append(f"it may be in the plugin {plugin!r}, which failed: {error.message} (see: surgeon plugins)")
    return "\n    ".join(hints)


def plugin_in_traceback(error: BaseException, plugins: Mapping[str, object]) -> str | None:
    """Name the plugin in whose code ``error`` was raised, by its traceback; None if it was in none.

    Args:
        error: The exception.
        plugins: The plugins, modules or objects, by name.
    """
    owners = {}
    for name, plugin in plugins.items():
        module = plugin.__name__ if isinstance(plugin, ModuleType) else type(plugin).__module__
        owners[module.partition(".")[0]] = name
    modules = [str(frame.f_globals.get("__name__", "")) for frame, _ in traceback.walk_tb(error.__traceback__)]
    involved = [owners[top] for module in reversed(modules) if (top := module.partition(".")[0]) in owners]
    return involved[0] if involved else None
