"""Find the plugins that are installed as packages, by their entry points. Imports none of them."""

from __future__ import annotations

import os
from collections.abc import Sequence
from importlib.metadata import EntryPoint, entry_points

from surgeon.errors import PluginError, suggest

GROUP = "surgeon"
PINNED = "SURGEON_PLUGINS"


def chosen(without: Sequence[str]) -> list[EntryPoint]:
    """List the entry points of installed plugins, less those that are left out.

    Raises:
        PluginError: ``without`` or the environment variable names a plugin that is not installed.
    """
    entries = sorted(entry_points(group=GROUP), key=lambda entry: (entry.name, entry.value))
    names = {name for entry in entries for name in _names(entry)}
    pinned = os.environ.get(PINNED)
    pinned_names = None if pinned is None else [name.strip() for name in pinned.split(",") if name.strip()]
    for origin, listed in ((PINNED, pinned_names or ()), ("--without", without)):
        for name in listed:
            if name not in names:
                raise PluginError(
                    f"{origin} names the plugin {name!r}, which is not installed",
                    hint=suggest(name, names, see="surgeon plugins"),
                )
    return [
        entry
        for entry in entries
        if not _names(entry) & set(without) and (pinned_names is None or _names(entry) & set(pinned_names))
    ]


def _names(entry: EntryPoint) -> set[str]:
    """The names that a plugin goes by: its entry point's and its distribution's."""
    return {entry.name, entry.dist.name} if entry.dist is not None else {entry.name}
