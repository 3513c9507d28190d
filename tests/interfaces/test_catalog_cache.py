"""Listing operations imports no plugin twice: what it offers is remembered for the files that are installed."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from pathlib import Path

import pytest

PLUGIN = """
import pathlib
with open(pathlib.Path(__file__).with_name("imported.txt"), "a") as file:
    file.write("once\\n")
from surgeon import Operation, hookimpl

class NAME(Operation):
    '''Does nothing.'''

    def apply(self, model, surgery):
        return surgery.model

@hookimpl
def surgeon_operations():
    return [NAME]
"""
COMMAND = """
@hookimpl
def surgeon_commands(app):
    @app.command()
    def hello():
        print("hello")
"""


def install(site: Path, name: str, text: str, *, editable: bool = False) -> None:
    """Lay a module and its metadata into a folder, as pip does."""
    (site / f"{name}.py").write_text(text)
    info = site / f"{name}-1.0.dist-info"
    info.mkdir(exist_ok=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(f"[surgeon]\n{name} = {name}\n")
    digest = hashlib.sha256(text.encode()).hexdigest()
    (info / "RECORD").write_text(f"{name}.py,sha256={digest},{len(text)}\n")
    if editable:
        (info / "direct_url.json").write_text(json.dumps({"url": "file:///x", "dir_info": {"editable": True}}))


def surgeon(site: Path, *arguments: str) -> str:
    import os

    root = str(Path(__file__).parents[2])
    environment = {**os.environ, "PYTHONPATH": f"{root}:{site}", "SURGEON_CACHE": str(site / "cache")}
    environment.pop("SURGEON_PLUGINS", None)
    process = subprocess.run(
        [sys.executable, "-m", "surgeon", *arguments], env=environment, capture_output=True, text=True, check=False
    )
    assert process.returncode == 0, process.stderr
    return process.stdout


def imports(site: Path) -> int:
    file = site / "imported.txt"
    return len(file.read_text().splitlines()) if file.exists() else 0


def test_operations_are_listed_without_importing_what_is_remembered(tmp_path):
    install(tmp_path, "one", PLUGIN.replace("NAME", "One"))
    install(tmp_path, "two", PLUGIN.replace("NAME", "Two") + COMMAND)
    first = surgeon(tmp_path, "ops", "--json")
    assert {"one", "two"} <= {operation["name"] for operation in json.loads(first)}
    count = imports(tmp_path)
    assert count == 2
    assert surgeon(tmp_path, "ops", "--json") == first
    assert imports(tmp_path) == count + 1  # the one that adds commands, which are on every command line
    assert surgeon(tmp_path, "hello") == "hello\n"
    install(tmp_path, "one", PLUGIN.replace("NAME", "Other"))
    assert {"other", "two"} <= {operation["name"] for operation in json.loads(surgeon(tmp_path, "ops", "--json"))}


@pytest.mark.parametrize("arguments", [["ops"], ["schema"], ["--version"]])
def test_no_command_that_lists_imports_a_remembered_plugin(tmp_path, arguments):
    install(tmp_path, "one", PLUGIN.replace("NAME", "One"))
    first = surgeon(tmp_path, *arguments)
    assert surgeon(tmp_path, *arguments) == first
    assert imports(tmp_path) == 1


def test_an_editable_plugin_is_asked_each_time(tmp_path):
    install(tmp_path, "one", PLUGIN.replace("NAME", "One"), editable=True)
    for count in (1, 2):
        surgeon(tmp_path, "ops")
        assert imports(tmp_path) == count


def test_conflicts_are_remembered_and_failures_are_not(tmp_path):
    install(tmp_path, "one", PLUGIN.replace("NAME", "Same"))
    install(tmp_path, "two", PLUGIN.replace("NAME", "Same"))
    assert "claimed by" in surgeon(tmp_path, "ops")
    assert "claimed by" in surgeon(tmp_path, "ops")
    install(tmp_path, "two", "raise RuntimeError('broken')\n")
    assert "same" in surgeon(tmp_path, "ops")
    for _ in range(2):
        assert "broken" in surgeon(tmp_path, "plugins")


def test_a_cache_that_cannot_be_written_or_read_changes_nothing(tmp_path):
    install(tmp_path, "one", PLUGIN.replace("NAME", "One"))
    (tmp_path / "cache").write_text("no folder")
    assert surgeon(tmp_path, "ops") == surgeon(tmp_path, "ops")
    (tmp_path / "cache").unlink()
    expected = surgeon(tmp_path, "ops")
    for file in (tmp_path / "cache" / "catalog").iterdir():
        file.write_text("{")
    assert surgeon(tmp_path, "ops") == expected


def test_importing_what_authors_subclass_imports_no_torch():
    names = "Family, ConfigFields, BlockFields, Operation, Source, ArchitectureProvider, Architecture, Splits, register"
    code = f"from surgeon import {names}, hookimpl; import sys; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
