"""Write the code of a grafted network: sources of ``surgeon.nn``, with imports that find each other in a folder."""

from __future__ import annotations

import ast
import importlib.util
import re
from collections.abc import Iterable
from pathlib import Path

MODELING = "modeling_grafted.py"
BUILDER = Path(__file__).with_name(MODELING)
LICENCE = "# From surgeon (https://pypi.org/project/surgeon-torch), Apache License 2.0.\n"
IMPORT = re.compile(r"^(\s*)from surgeon\.([\w.]+) import", re.MULTILINE)


def write_code(modules: Iterable[str], folder: Path) -> list[str]:
    """Write the builder and every module of surgeon that it needs; returns the names of the files.

    Args:
        modules: The modules of surgeon, by their full names.
        folder: Where to write.
    """
    sources = _with_imports(modules)
    names = []
    for module, text in sources.items():
        names.append(f"{file_of(module)}.py")
        (folder / names[-1]).write_text(LICENCE + IMPORT.sub(_beside, text), encoding="utf-8")
    # transformers copies the files that a file imports: the builder names them all
    imports = "".join(
        f"from .{file_of(module)} import __name__ as _{file_of(module)}  # noqa: F401\n" for module in sources
    )
    text = BUILDER.read_text(encoding="utf-8")
    head, marker, rest = text.partition("\n\nclass GraftedConfig")
    (folder / MODELING).write_text(f"{LICENCE}{head}\n{imports}{marker}{rest}", encoding="utf-8")
    return [*names, MODELING]


def file_of(module: str) -> str:
    """The name of the file, without suffix, that holds a module of surgeon."""
    return f"surgeons_{module.removeprefix('surgeon.').replace('.', '_')}"


def _beside(match: re.Match[str]) -> str:
    return f"{match[1]}from .{file_of(f'surgeon.{match[2]}')} import"


def _with_imports(modules: Iterable[str]) -> dict[str, str]:
    """The sources of modules and of all of surgeon that they import, without what only type checkers read."""
    sources: dict[str, str] = {}
    waiting = sorted(modules)
    while waiting:
        name = waiting.pop(0)
        if name in sources:
            continue
        spec = importlib.util.find_spec(name)
        assert spec is not None  # a module that is imported here
        assert spec.origin is not None
        text = _for_running(Path(spec.origin).read_text(encoding="utf-8"))
        sources[name] = text.replace('"surgeon.nn.Outputs"', '__name__ + ".Outputs"')
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("surgeon."):
                waiting.append(str(node.module))
    return sources


def _for_running(text: str) -> str:
    """Leave out the imports under ``TYPE_CHECKING``."""
    lines = text.splitlines(keepends=True)
    for node in reversed(ast.parse(text).body):
        if isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING":
            del lines[node.lineno - 1 : node.end_lineno]
    return "".join(lines)
