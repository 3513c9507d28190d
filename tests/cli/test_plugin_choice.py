"""Plugins on the command line: broken ones break nothing else."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from surgeon import cli
from surgeon.cli.plugin_choice import PluginChoice

HEAD = "from surgeon import hookimpl\n"
COMMANDS = HEAD + "@hookimpl\ndef surgeon_commands(app):\n"
BROKEN = {
    "raises": HEAD + "@hookimpl\ndef surgeon_operations():\n    raise RuntimeError('no disk')\n",
    "returns nothing": HEAD + "@hookimpl\ndef surgeon_operations():\n    pass\n",
    "abstract provider": HEAD
    + "from surgeon import ArchitectureProvider\nclass P(ArchitectureProvider):\n    scheme = 'p'\n"
    + "@hookimpl\ndef surgeon_architectures():\n    return [P()]\n",
    "command with an unknown annotation": COMMANDS + "    @app.command()\n    def hello(x: 'Nowhere'): ...\n",
    "command called like ours": COMMANDS + "    @app.command()\n    def plan(): ...\n",
    "callback": COMMANDS + "    @app.callback()\n    def root(): ...\n",
    "commands that raise": COMMANDS + "    raise ValueError('no')\n",
    "does not import": "import no_such_module_at_all\n",
}


def plugin(folder: Path, text: str) -> str:
    (folder / "broken.py").write_text(text)
    return str(folder / "broken.py")


@pytest.mark.parametrize("kind", sorted(set(BROKEN) - {"does not import"}))
def test_a_broken_plugin_breaks_no_other_command(tmp_path, capsys, kind):
    bad = plugin(tmp_path, BROKEN[kind])
    assert cli.run(["--version", "--plugin", bad]) == 0
    assert capsys.readouterr().out.startswith("surgeon ")
    assert cli.run(["ops", "--plugin", bad]) == 0
    assert "truncate" in capsys.readouterr().out


@pytest.mark.parametrize("kind", sorted(BROKEN))
def test_plugins_lists_what_failed_and_why_and_succeeds(tmp_path, capsys, kind):
    bad = plugin(tmp_path, BROKEN[kind])
    assert cli.run(["plugins", "--json", "--plugin", bad]) == 0
    failures = json.loads(capsys.readouterr().out)["failures"]
    assert list(failures) == [bad]
    assert "bug in surgeon" not in failures[bad]


def test_a_command_of_a_plugin_file_runs(tmp_path, capsys):
    text = COMMANDS + "    @app.command()\n    def hello(name: str): print('hello', name)\n"
    assert cli.run(["hello", "you", "--plugin", plugin(tmp_path, text)]) == 0
    assert capsys.readouterr().out == "hello you\n"


def test_plugin_options_are_read_wherever_they_stand():
    line = [
        "apply",
        "--plugin",
        "a.py",
        "r.yaml",
        "--without=b",
        "--no-plugins",
        "m.pt",
        "--plugin=c",
        "--",
        "--plugin",
    ]
    choice = PluginChoice.read(line)
    assert choice.rest == ["apply", "r.yaml", "m.pt", "--", "--plugin"]
    assert (choice.extra, choice.without, choice.installed) == (["a.py", "c"], ["b"], False)
