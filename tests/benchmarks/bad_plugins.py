"""What one bad plugin does to its host: surgeon beside pytest, datasette, llm and tox.

    python -m venv hosts && hosts/bin/pip install pytest datasette llm tox
    python tests/benchmarks/bad_plugins.py --python hosts/bin/python

prints the table of plugins/README.md. For each host, a distribution ``bad-plugin`` with an entry point is put on the
path, and a command that needs nothing of it is run; where that works, one that lists plugins, or uses the claimed name.
``surgeon`` runs under the Python that runs this file.
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
RAISES = "raise RuntimeError('bad at import')\n"
CASES = {
    "raises at import": "import",
    "a hook raises": "hook",
    "two plugins claim a name": "claim",
}


@dataclass(frozen=True)
class Host:
    """A program with plugins.

    Attributes:
        distribution: What it is installed as.
        group: The group of its entry points.
        command: A command that needs no plugin.
        works: A pattern in the output of the command where it works.
        hook: A plugin whose hook raises when the command runs.
        claim: A plugin that claims a name; ``{number}`` is 1 or 2.
        shows: A command that uses the claimed name, and prints which plugin it came from.
        lists: A command that lists plugins; empty where there is none.
    """

    distribution: str
    group: str
    command: Sequence[str]
    works: str
    hook: str
    claim: str
    shows: Sequence[str]
    lists: Sequence[str] = ()


HOSTS = (
    Host(
        "surgeon-torch",
        "surgeon",
        ("-m", "surgeon", "ops", "freeze"),
        "Freeze",
        "from surgeon import hookimpl\n\n@hookimpl\ndef surgeon_operations():\n    raise RuntimeError('bad hook')\n",
        "from surgeon import Operation, hookimpl\n\nclass Mine(Operation):\n    'From plugin {number}.'\n"
        "    def apply(self, model, surgery):\n        return model\n\n"
        "@hookimpl\ndef surgeon_operations():\n    return [Mine]\n",
        ("-m", "surgeon", "ops", "mine"),
        ("-m", "surgeon", "plugins"),
    ),
    Host(
        "pytest",
        "pytest11",
        ("-m", "pytest", "-p", "no:cacheprovider", "test_one.py"),
        "1 passed",
        "def pytest_collection_modifyitems(items):\n    raise RuntimeError('bad in a hook')\n",
        "import pytest\n\n@pytest.fixture\ndef mine():\n    print('From plugin {number}.')\n",
        ("-m", "pytest", "-s", "-p", "no:cacheprovider", "test_mine.py"),
    ),
    Host(
        "datasette",
        "datasette",
        ("-m", "datasette", "--get", "/-/versions.json"),
        "sqlite",
        "from datasette import hookimpl\n\n@hookimpl\ndef register_routes():\n    raise RuntimeError('bad hook')\n",
        "from datasette import Response, hookimpl\n\ndef mine():\n    return Response.text('From plugin {number}.')\n\n"
        "@hookimpl\ndef register_routes():\n    return [(r'^/mine$', mine)]\n",
        ("-m", "datasette", "--get", "/mine"),
        ("-m", "datasette", "plugins"),
    ),
    Host(
        "llm",
        "llm",
        ("-m", "llm", "models", "list"),
        "OpenAI",
        "import llm\n\n@llm.hookimpl\ndef register_models(register):\n    raise RuntimeError('bad in a hook')\n",
        "import llm\n\nclass Mine(llm.Model):\n    model_id = 'mine'\n    can_stream = False\n"
        "    def execute(self, prompt, stream, response, conversation=None):\n        yield 'From plugin {number}.'\n\n"
        "@llm.hookimpl\ndef register_models(register):\n    register(Mine())\n",
        ("-m", "llm", "-m", "mine", "--no-log", "hello"),
        ("-m", "llm", "plugins"),
    ),
    Host(
        "tox",
        "tox",
        ("-m", "tox", "list"),
        "py",
        "from tox.plugin import impl\n\n@impl\ndef tox_add_option(parser):\n    raise RuntimeError('bad in a hook')\n",
        "from tox.plugin import impl\n\n@impl\ndef tox_add_option(parser):\n"
        "    parser.add_argument('--mine', default='From plugin {number}.')\n",
        ("-m", "tox", "list"),
    ),
)


def install(site: Path, name: str, group: str, text: str) -> None:
    """Put a distribution with one module and an entry point on the path."""
    module = name.replace("-", "_")
    (site / f"{module}.py").write_text(text)
    about = site / f"{module}-1.0.dist-info"
    about.mkdir()
    (about / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
    (about / "entry_points.txt").write_text(f"[{group}]\n{module} = {module}\n")
    (about / "top_level.txt").write_text(f"{module}\n")


def outcome(host: Host, python: str, case: str) -> str:
    """Run a host beside bad plugins, and say in some words what happened."""
    with tempfile.TemporaryDirectory() as folder:
        site, home = Path(folder) / "site", Path(folder) / "home"
        site.mkdir()
        home.mkdir()
        names = ["bad-plugin-1", "bad-plugin-2"] if case == "claim" else ["bad-plugin"]
        for number, name in enumerate(names, start=1):
            text = {"import": RAISES, "hook": host.hook}.get(case) or host.claim.replace("{number}", str(number))
            install(site, name, host.group, text)
        (home / "test_one.py").write_text("def test_one():\n    pass\n")
        (home / "test_mine.py").write_text("def test_mine(mine):\n    pass\n")
        (home / "tox.ini").write_text("[tox]\nenv_list = py\n[testenv]\nskip_install = true\n")
        ours = [str(ROOT)] if host.group == "surgeon" else []
        environment = {
            **{key: value for key, value in os.environ.items() if not key.startswith(("PYTEST_", "TOX_"))},
            "PYTHONPATH": os.pathsep.join([*ours, str(site)]),
            "HOME": str(home),
            "LLM_USER_PATH": str(home),
            "SURGEON_CACHE": str(home),
            "COLUMNS": "160",
        }

        def run(command: Sequence[str]) -> subprocess.CompletedProcess[str]:
            return subprocess.run(
                [python, *command], cwd=home, env=environment, capture_output=True, text=True, timeout=300
            )

        done = run(host.command)
        follow = host.shows if case == "claim" else host.lists
        return _described(host, done, run(follow) if follow and done.returncode == 0 else None, names)


def _described(
    host: Host,
    done: subprocess.CompletedProcess[str],
    shown: subprocess.CompletedProcess[str] | None,
    names: Sequence[str],
) -> str:
    words = ["works" if done.returncode == 0 and re.search(host.works, done.stdout) else f"exit {done.returncode}"]
    output = done.stdout + done.stderr
    if shown is not None and len(names) == 1:
        output += shown.stdout + shown.stderr
    elif shown is not None:
        output = shown.stdout + shown.stderr
        came = re.search(r"From plugin (\d)", output)
        words.append(f"plugin {came[1]} wins" if came else "the name is refused")
    if lines := len(re.findall(r'^\s*(?:INTERNALERROR>\s*)?File "', output, re.M)):
        words.append(f"a traceback of {lines} frames")
    lines_of_output = [line for line in output.splitlines() if not line.startswith("plugins: ")]  # pytest's heading
    said = _names_in([line for line in lines_of_output if not _is_path(line)], names)
    if len(names) > 1:
        words.append("names both" if len(said) > 1 else "names one" if said else "says nothing")
    elif said:
        words.append("names the plugin")
    else:
        words.append("shows its file" if _names_in(lines_of_output, names) else "says nothing")
    return ", ".join(words)


def _names_in(lines: Sequence[str], names: Sequence[str]) -> set[str]:
    pattern = "|".join(name.replace("-", "[-_]") for name in names)
    return {match[0] for line in lines for match in re.finditer(pattern, line)}


def _is_path(line: str) -> bool:
    """Whether a line of a traceback says where a frame is, rather than whose it is."""
    return 'File "' in line or "/site/" in line


def table(python: str, hosts: Sequence[Host] = HOSTS) -> str:
    """Make the table, in Markdown."""
    rows = [["host", *CASES], ["---"] * (len(CASES) + 1)]
    for host in hosts:
        interpreter = sys.executable if host.group == "surgeon" else python
        rows.append([_title(host, interpreter), *(outcome(host, interpreter, case) for case in CASES.values())])
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def _title(host: Host, python: str) -> str:
    if host.group == "surgeon":
        return "surgeon"
    code = f"from importlib.metadata import version; print(version({host.distribution!r}))"
    return f"{host.distribution} {subprocess.run([python, '-c', code], capture_output=True, text=True).stdout.strip()}"


def main(arguments: Sequence[str] | None = None) -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--python", default=sys.executable, help="a Python with pytest, datasette, llm and tox")
    print(table(parser.parse_args(arguments).python))


if __name__ == "__main__":
    main()
