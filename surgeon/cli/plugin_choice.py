"""Choose the plugins to load on the command line, and add their commands.

Their options may be anywhere on the line and are read before the rest is parsed, since a plugin may add commands.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field

import typer
from typer.main import get_command, get_command_name

from surgeon.errors import PluginError
from surgeon.interfaces.import_plugin import one_line, run_hook
from surgeon.plugins import Plugins, load

HOOK = "surgeon_commands"


@dataclass
class PluginChoice:
    """The plugin options of a command line.

    Attributes:
        rest: The other arguments.
        extra: The values of ``--plugin``.
        without: The values of ``--without``.
        installed: False after ``--no-plugins``.
    """

    rest: list[str] = field(default_factory=list)
    extra: list[str] = field(default_factory=list)
    without: list[str] = field(default_factory=list)
    installed: bool = True

    @classmethod
    def read(cls, arguments: Sequence[str]) -> PluginChoice:
        """Split ``--plugin``, ``--without`` and ``--no-plugins`` from the other arguments."""
        choice = cls()
        valued = {"--plugin": choice.extra, "--without": choice.without}
        remaining = list(arguments)
        while remaining:
            argument = remaining.pop(0)
            option, has_value, value = argument.partition("=")
            if argument == "--":
                choice.rest += [argument, *remaining]
                break
            if argument == "--no-plugins":
                choice.installed = False
            elif argument in valued and remaining:
                valued[argument].append(remaining.pop(0))
            elif option in valued and has_value:
                valued[option].append(value)
            else:
                choice.rest.append(argument)
        return choice

    def load(self) -> Plugins:
        """Load the plugins. For ``surgeon plugins``, errors are recorded instead of raised, so that it can list them.

        Raises:
            PluginError: A plugin named in an option cannot be loaded.
        """
        strict = self.rest[:1] != ["plugins"]
        return load(self.extra, installed=self.installed, without=self.without, strict=strict)


def add_commands(app: typer.Typer, plugins: Plugins, reserved: Collection[str]) -> None:
    """Add the commands of plugins to ``app``; record an error for commands that would break others.

    Args:
        app: The application.
        plugins: The plugins that are used.
        reserved: The names of surgeon's own commands, of which ``app`` may hold only one.
    """
    for plugin, function in plugins.command_hooks():
        part = typer.Typer()
        try:
            run_hook(plugins.origin(plugin), HOOK, lambda f=function, p=part: f(p))  # type: ignore[misc]
        except PluginError as error:
            plugins.fail(plugin, error)
            continue
        for reason in _merge(app, part, reserved):
            plugins.fail(plugin, PluginError(reason, where=f"plugin {plugins.origin(plugin)!r}, {HOOK}"))


def _merge(app: typer.Typer, part: typer.Typer, reserved: Collection[str]) -> list[str]:
    """Move the usable commands and groups of ``part`` into ``app``; return why the others are not usable."""
    reasons = []
    if part.registered_callback is not None:
        reasons.append("adds a callback, which would replace surgeon's global options: add commands only")
    present = {*reserved, *(name for name in map(_name, app.registered_commands) if name)}
    present |= {group.name for group in app.registered_groups if group.name}
    for command in part.registered_commands:
        name = _name(command)
        trial = typer.Typer()
        trial.registered_commands.append(command)
        if reason := _unusable(name, present, trial):
            reasons.append(reason)
            continue
        app.registered_commands.append(command)
        present.add(name)
    for group in part.registered_groups:
        trial = typer.Typer()
        trial.registered_groups.append(group)
        if reason := _unusable(group.name or "", present, trial):
            reasons.append(reason)
            continue
        app.registered_groups.append(group)
        present.add(group.name or "")
    return reasons


def _unusable(name: str, present: set[str], trial: typer.Typer) -> str | None:
    if not name:
        return "adds a command without a name"
    if name in present:
        return f"adds the command {name!r}, which exists already"
    try:
        get_command(trial)
    except Exception as error:  # an annotation that does not resolve, a type that typer has no parser for, …
        return f"adds the command {name!r}, which cannot be built: {type(error).__name__}: {one_line(error)}"
    return None


def _name(command: typer.models.CommandInfo) -> str:
    if command.name:
        return command.name
    return get_command_name(command.callback.__name__) if command.callback else ""
