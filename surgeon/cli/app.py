"""Build and run the command line: ``surgeon COMMAND``. Commands import torch when they run, not for help texts."""

from __future__ import annotations

import atexit
import errno
import json
import os
import re
import signal
import sys
import traceback
from collections.abc import Callable, Sequence
from contextlib import nullcontext, suppress
from typing import Annotated

import typer

from surgeon.cli import options
from surgeon.cli.advise import advise
from surgeon.cli.apply import apply, plan
from surgeon.cli.catalog import ops, schema
from surgeon.cli.diff import diff
from surgeon.cli.evaluate import evaluate
from surgeon.cli.export import export
from surgeon.cli.inspect import check, inspect
from surgeon.cli.interrupts import STOPPED, TYPED, listen
from surgeon.cli.plugin_choice import PluginChoice, add_commands
from surgeon.cli.plugins import plugins_app
from surgeon.cli.predict import predict
from surgeon.cli.publish import card, push
from surgeon.cli.report import say
from surgeon.cli.sign import sign
from surgeon.cli.signs import takes_unicode, write_what_fits
from surgeon.cli.startup.name_clash import name_clash
from surgeon.cli.train import train
from surgeon.cli.train_report import train_report
from surgeon.cli.warning_lines import plain_warnings
from surgeon.errors import OutputError, SurgeonError, suggest
from surgeon.interfaces.distribution import surgeon_version
from surgeon.pipeline.gc_pause import paused_collection
from surgeon.plugins import Plugins

INTERRUPTED = 128 + signal.SIGINT
FULL = (errno.ENOSPC, errno.EDQUOT)
QUICK = ("apply", "plan", "inspect", "diff", "check", "ops", "schema", "plugins")
"""Commands that run without garbage collection: they are short and free little memory. Plugins' commands are not."""
COMMANDS: dict[str, Callable[..., object]] = {
    function.__name__.replace("_", "-"): function
    for function in (
        apply,
        plan,
        train,
        train_report,
        advise,
        predict,
        evaluate,
        export,
        card,
        sign,
        push,
        inspect,
        diff,
        check,
        ops,
        schema,
    )
}
"""The commands by name, in the order of ``surgeon --help``."""


def main() -> None:
    """Run the command line with the process's arguments, and end the process."""
    codes = [1]
    write_what_fits(sys.stdout, sys.stderr)
    listen()
    if sys.gettrace() is None and "coverage" not in sys.modules:
        atexit.register(lambda: _end(codes[0]))
    codes[0] = run(sys.argv[1:])
    sys.exit(codes[0])


def _end(code: int) -> None:
    """End the process at once, after all other exit handlers (the first one registered runs last).

    Otherwise Python frees every object one by one, which takes more than a second after importing transformers.
    """
    for stream in filter(None, (sys.stdout, sys.stderr)):
        with suppress(OSError, ValueError):  # a closed stream
            stream.flush()
    os._exit(code)


def run(arguments: Sequence[str]) -> int:
    """Run one command and return its exit code; errors are printed, not raised.

    Args:
        arguments: As typed after ``surgeon``.
    """
    quick = bool(arguments) and arguments[0] in QUICK
    with paused_collection() if quick else nullcontext(), plain_warnings():
        return _run(arguments)


def _run(arguments: Sequence[str]) -> int:
    plugins = None
    TYPED.set(tuple(arguments))
    if warning := name_clash():
        print(f"warning: {warning}", file=sys.stderr)
    try:
        choice = PluginChoice.read(arguments)
        plugins = choice.load()
        app = make_app(plugins, choice.rest)
        code = app(choice.rest, prog_name="surgeon", standalone_mode=False, obj=plugins)
        say()  # what is still to be printed, of typer's help for example
        if code == INTERRUPTED:  # typer returns this code for a KeyboardInterrupt
            return _interrupted()
        return code if isinstance(code, int) else 0
    except (KeyboardInterrupt, typer.Abort):
        return _interrupted()
    except BrokenPipeError:
        return 1
    except SystemExit as left:  # of rich and typer where a pipe has no reader, and of plugins' commands
        return left.code if isinstance(left.code, int) else int(left.code is not None)
    except SurgeonError as error:
        return _report(error, arguments)
    except Exception as error:
        if isinstance(error, OSError) and error.errno in FULL:
            return _report(_full(error), arguments)
        if hasattr(error, "format_message"):  # typer raises this for a mistake in the arguments
            return _report(_usage_error(error), arguments)
        return _report(_bug(error, plugins), arguments)


def _interrupted() -> int:
    """Print that the command was interrupted, and return the exit code of the signal."""
    print("interrupted", file=sys.stderr)
    return 128 + STOPPED[-1] if STOPPED else INTERRUPTED


def make_app(plugins: Plugins, words: Sequence[str] = ()) -> typer.Typer:
    """Make the application with the commands of all plugins.

    Args:
        plugins: The plugins that are used.
        words: The arguments. If a command of surgeon comes first, the others are left out: Typer takes about 2 ms to
            prepare each.
    """
    app = typer.Typer(
        help="Model surgery for PyTorch: cut, re-head, freeze, branch and grow trained networks.",
        add_completion=True,
        rich_markup_mode=None,
        pretty_exceptions_enable=False,
        context_settings={"help_option_names": ["-h", "--help"]},
    )
    app.callback(invoke_without_command=True)(_start)
    typed = next(iter(words), None)
    for name in [typed] if typed in COMMANDS else COMMANDS:
        app.command(name)(COMMANDS[name])
    app.add_typer(plugins_app, name="plugins")
    add_commands(app, plugins, reserved=COMMANDS)
    return app


def _start(
    context: typer.Context,
    version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False,
    plugin: options.PluginNames = None,
    without: Annotated[
        list[str] | None, typer.Option("--without", metavar="NAME", help="Do not load an installed plugin. Repeatable.")
    ] = None,
    no_plugins: Annotated[bool, typer.Option("--no-plugins", help="Load no installed plugins.")] = False,
) -> None:
    """Model surgery for PyTorch: cut, re-head, freeze, branch and grow trained networks."""
    if version:
        say(f"surgeon {surgeon_version() or '(not installed)'}")
    elif context.invoked_subcommand is None:
        say(context.get_help())


def _report(error: SurgeonError, arguments: Sequence[str]) -> int:
    """Print ``error`` and return its exit code."""
    from surgeon.cli.render.consoles import show
    from surgeon.cli.render.mistakes import error_dict, render_error

    if "--debug" in arguments:
        traceback.print_exception(error.__cause__ if type(error) is SurgeonError and error.__cause__ else error)
    show(render_error(error), stderr=True)
    if "--json" in arguments:
        with suppress(OutputError):  # it may be the error
            say(json.dumps({"error": error_dict(error)}, indent=2, ensure_ascii=not takes_unicode(sys.stdout)))
    return error.exit_code


def _full(error: OSError) -> SurgeonError:
    """Wrap the exception of a library that had no room to write a file."""
    target = error.filename or "standard output, or a file,"
    full = OutputError(f"{target} cannot be written: {error.strerror}", hint="make room and repeat the command")
    full.__cause__ = error
    return full


def _usage_error(error: Exception) -> SurgeonError:
    command = getattr(getattr(error, "ctx", None), "command_path", "surgeon")
    message = error.format_message().rstrip(".").replace(": Value error, ", ": ")  # type: ignore[attr-defined]
    choice = re.search(r"'(?P<value>[^']*)' is not one of (?P<choices>'.+')$", message)
    choices = re.findall(r"'([^']+)'", choice["choices"]) if choice else []
    usage = SurgeonError(message, hint=suggest(choice["value"] if choice else "", choices, see=f"{command} --help"))
    usage.exit_code = int(getattr(error, "exit_code", 2))
    usage.__cause__ = error
    return usage


def _bug(error: Exception, plugins: Plugins | None) -> SurgeonError:
    """Wrap an unexpected exception in an error that names surgeon or the plugin that raised it."""
    owner = plugins.owner_of(error) if plugins else None
    origin = f"the plugin {owner!r}" if owner else "surgeon"
    reason = " ".join(f"{type(error).__name__}: {error}".split())
    bug = SurgeonError(f"this is a bug in {origin}: {reason}", hint="--debug shows the traceback")
    bug.__cause__ = error
    return bug
