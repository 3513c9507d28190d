"""Parse the command line: one file per command; ``render`` draws the output.

Owns arguments, exit codes and progress on a terminal; a command calls a public function of a room below, which does
the work. May import every room. Read ``app.py`` first.

To add a command: write a file here with its arguments, list it in ``app.py``, and draw its output in ``render``.
``tests/test_public_names.py`` checks that a public function does the same.
"""

from surgeon.cli.app import main, run

__all__ = ["main", "run"]
