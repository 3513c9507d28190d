"""Parse the command line: one file per command; ``render`` draws the output.

Owns arguments, exit codes and progress on a terminal; the work of a command is a call into ``pipeline``, ``training``
or ``advising``. May import every room. ``app.py`` lists the commands: read it first, and add a new one there.
"""

from surgeon.cli.app import main, run

__all__ = ["main", "run"]
