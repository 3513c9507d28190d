"""Describe the commands as their ``--help`` does, and the exit codes."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from typer.main import get_command

from surgeon.cli.app import INTERRUPTED, make_app
from surgeon.cli.diff import DIFFERENT
from surgeon.docs.rst import code, contents, docstring, escape, heading, literal, table
from surgeon.errors import SurgeonError
from surgeon.plugins import Plugins


def command_pages(plugins: Plugins) -> dict[str, str]:
    """Write a page for each command, one that lists them, and one with the exit codes, by path."""
    commands = dict(_commands(get_command(make_app(plugins)), "surgeon"))
    pages = {f"reference/commands/{_page(path)}.rst": _command(path, command) for path, command in commands.items()}
    return pages | {"reference/commands/index.rst": _index(commands), "reference/exit_codes.rst": _exit_codes()}


def _commands(group: Any, path: str) -> Iterator[tuple[str, Any]]:
    """Yield the commands of a group and of the groups in it, with their paths."""
    for name, command in group.commands.items():
        yield f"{path} {name}", command
        if hasattr(command, "commands"):
            yield from _commands(command, f"{path} {name}")


def _page(path: str) -> str:
    return path.removeprefix("surgeon ").replace(" ", "_")


def _command(path: str, command: Any) -> str:
    context = command.make_context(path, [], resilient_parsing=True)
    records = [parameter.get_help_record(context) for parameter in command.get_params(context)]
    rows = [record for record in records if record]
    cells = [(literal(" ".join(name.split())), escape(" ".join(text.split()))) for name, text in rows]
    usage = " ".join(command.get_usage(context).split()).removeprefix("Usage: ")
    parts = [
        heading(path, label=f"command-{_page(path)}"),
        docstring(command.help or "") + "\n",
        code(usage, "text"),
        table(["argument or option", ""], cells, widths="30 70"),
    ]
    return "\n".join(parts)


def _index(commands: dict[str, Any]) -> str:
    rows = [
        (f":doc:`{path} <{_page(path)}>`", escape(str(command.help or "").partition("\n")[0]))
        for path, command in commands.items()
    ]
    intro = "``surgeon COMMAND --help`` prints the same. Plugins may add commands."
    pages = contents([_page(path) for path in commands], hidden=True)
    return heading("Commands", label="commands") + f"\n{intro}\n\n" + table(["command", ""], rows) + "\n" + pages


def error_classes(base: type[SurgeonError] = SurgeonError) -> Iterator[type[SurgeonError]]:
    """Yield the public classes of errors, the base first."""
    if base.__module__ == SurgeonError.__module__:
        yield base
        for child in base.__subclasses__():
            yield from error_classes(child)


def _exit_codes() -> str:
    rows = [("0", "Done; of ``surgeon diff``: the two are equal.")]
    by_code: dict[int, list[type[SurgeonError]]] = {}
    for error in error_classes():
        by_code.setdefault(error.exit_code, []).append(error)
    for exit_code, errors in sorted(by_code.items()):
        names = ", ".join(f":class:`~surgeon.{error.__name__}`" for error in errors)
        text = "An error that has no code of its own, or a bug in surgeon or a plugin, which the message says."
        first = text if exit_code == 1 else errors[0].__doc__ or ""
        rows.append((str(exit_code), f"{names}: {docstring(first.partition(chr(10))[0])}"))
        if exit_code == 1:
            rows.append(("2", "A mistake in the arguments: an unknown option, a missing argument."))
    rows.append((str(DIFFERENT), "``surgeon diff``: the two differ."))
    rows.append((f"{INTERRUPTED}, 128 + *signal*", "Interrupted by Ctrl-C, SIGTERM or SIGHUP."))
    intro = "For scripts. With ``--json`` an error is printed as JSON too, with its kind, place and hint."
    return heading("Exit codes", label="exit-codes") + f"\n{intro}\n\n" + table(["code", "when"], rows, widths="20 80")
