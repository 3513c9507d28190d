"""The kit as a pytest plugin: a test of each promise, where it is asked for and nowhere else."""

from __future__ import annotations

import os
import subprocess
import sys
from importlib.metadata import entry_points
from pathlib import Path

from surgeon.testing.promises import PROMISES, SLOW_PROMISES

FOLDER = Path(__file__).parent
THREE_LINES = """
from bad_modules import Behind, build, inputs_of
{ask}

def test_mine(operation_check):
    operation_check(build, [Behind(module="{module}")], inputs_of())
"""


def executed(folder: Path, text: str, *arguments: str) -> str:
    (folder / "test_mine.py").write_text(text)
    (folder / "pytest.ini").write_text("[pytest]\n")
    paths = [str(FOLDER), os.environ.get("PYTHONPATH", ""), str(FOLDER.parents[1])]
    process = subprocess.run(
        [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-v", *arguments],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(paths)},
        capture_output=True,
        text=True,
    )
    return process.stdout + process.stderr


def test_three_lines_make_a_test_of_each_promise(tmp_path):
    ask = 'pytest_plugins = ["surgeon.testing.pytest_plugin"]'
    out = executed(tmp_path, THREE_LINES.format(ask=ask, module="Mixing"))
    names = [*PROMISES, *SLOW_PROMISES, "composition"]
    assert all(f"test_mine[{name}]" in out for name in names)
    assert f"1 failed, {len(names) - 1} passed" in out
    assert "test_mine[batches] FAILED" in out
    assert "mixes the samples of a batch" in out


def test_an_option_loads_it_too_and_nothing_else_does(tmp_path):
    text = THREE_LINES.format(ask="", module="Good")
    assert "fixture 'operation_check' not found" in executed(tmp_path, text)
    chosen = ("-p", "surgeon.testing.pytest_plugin", "-k", "copy or nan")
    assert "2 passed" in executed(tmp_path, text, *chosen)
    assert not [entry for entry in entry_points(group="pytest11") if entry.value.startswith("surgeon")]


def test_small_networks_are_at_hand(tmp_path):
    text = """
import surgeon
pytest_plugins = ["surgeon.testing.pytest_plugin"]

def test_mine(operation_check, small_network):
    operation_check(small_network.build, [surgeon.Insert(at="@blocks[0]")], small_network.args, small_network.kwargs)
"""
    assert "9 passed" in executed(tmp_path, text, "-k", "values or artifact or training")
