"""Warnings of surgeon's own are lines in a terminal; others stay as Python prints them."""

from __future__ import annotations

import subprocess
import sys

import pytest

CODE = """
import warnings
from surgeon.cli.warning_lines import plain_warnings
from surgeon.errors import SurgeonWarning
with plain_warnings():
    warnings.warn(SurgeonWarning("a name \\x1b[31m"), stacklevel=1)
    warnings.warn("another's", UserWarning, stacklevel=1)
warnings.warn(SurgeonWarning("outside"), stacklevel=1)
"""


@pytest.mark.parametrize(
    ("line", "there"),
    [
        ("warning: a name ␛[31m", True),
        ("UserWarning: another's", True),
        ("SurgeonWarning: outside", True),
        ("SurgeonWarning: a name", False),
    ],
)
def test_a_warning_of_surgeon_is_a_line_without_a_place_in_its_code(line: str, there: bool) -> None:
    process = subprocess.run([sys.executable, "-c", CODE], capture_output=True, text=True, check=True)
    assert (line in process.stderr) == there
