"""The command line: one file for each command, drawn by ``render``.

Owns arguments, exit codes and progress on a terminal; what a command does is a call into ``pipeline``, ``training`` or
``advising``. May import every room. ``app.py`` lists the commands: read it first, and add a new one
there.
"""

from surgeon.cli.app import main, run

__all__ = ["main", "run"]
