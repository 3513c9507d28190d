"""The direction of imports, read from the sources: at run time, inside functions and under ``TYPE_CHECKING`` alike."""

from __future__ import annotations

import ast
from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parents[1] / "surgeon"

FLOORS = (
    ("errors",),
    ("checkpoint",),
    ("interfaces",),
    ("families", "nn", "data", "plugins"),
    ("graph", "recipe"),
    ("architectures",),
    ("surgery",),
    ("training",),
    ("operations",),
    ("pipeline",),
    ("pages",),
    ("testing", "advising", "scaffold"),
    ("cli",),
    ("docs",),
    ("__main__",),
)
"""The rooms from the lowest up. A room imports from the floors below its own."""

ROOT_FILES = {"__init__.py", "__main__.py", "errors.py", "plugins.py", "py.typed", "recipe.schema.json"}
LONGEST = 400
FACE = {"surgeon": "the public names"}
"""``surgeon/__init__.py`` names what it offers and imports it at first use: it stands above all rooms."""

Files = dict[str, str]
Arrow = tuple[str, str, int]


def sources(package: Path = PACKAGE) -> Files:
    """Each module's dotted name with its source."""
    files = {}
    for path in sorted(package.rglob("*.py")):
        parts = path.relative_to(package.parent).with_suffix("").parts
        name = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
        files[name] = path.read_text(encoding="utf-8")
    return files


def arrows(files: Files) -> Iterator[Arrow]:
    """Every import of one module of ours by another: importer, imported, line."""
    for module, text in files.items():
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom):
                assert node.level == 0, f"{module}:{node.lineno}: a relative import"
                names = [f"{node.module}.{alias.name}" for alias in node.names]
            else:
                continue
            for name in names:
                if name.split(".")[0] == "surgeon":
                    yield module, _module_of(name, files), node.lineno


def _module_of(name: str, files: Files) -> str:
    while name not in files:
        name = name.rpartition(".")[0]
    return name


def room(module: str) -> str:
    """The room that a module lies in: the first name below ``surgeon``."""
    return [*module.split("."), ""][1]


def faults(files: Files) -> list[str]:
    """What breaks the rule of direction: unknown rooms, arrows that run up or sideways, circles."""
    floor = {name: height for height, names in enumerate(FLOORS) for name in names}
    out = [f"{module}: no such room" for module in files if room(module) and room(module) not in floor]
    drawn: dict[str, set[str]] = {}
    for importer, imported, line in arrows(files):
        if importer == "surgeon":
            continue
        drawn.setdefault(importer, set()).add(imported)
        upper, lower = room(importer), room(imported)
        if not lower:
            out.append(f"{importer}:{line}: imports the public face")
        elif upper != lower and floor.get(upper, 0) <= floor.get(lower, 0):
            out.append(f"{importer}:{line}: {upper} imports {imported}, which lies beside or above it")
    return out + [f"circle: {' → '.join(circle)}" for circle in circles(drawn)]


def circles(drawn: dict[str, set[str]]) -> Iterable[list[str]]:
    """The circles among modules, one for each group of modules that reach each other."""
    reach: dict[str, set[str]] = {}
    for start in drawn:
        seen: set[str] = set()
        open_ends = [start]
        while open_ends:
            for after in drawn.get(open_ends.pop(), ()):
                if after not in seen:
                    seen.add(after)
                    open_ends.append(after)
        reach[start] = seen
    groups = {
        tuple(sorted(m for m in drawn if m in reach[start] and start in reach[m]))
        for start in drawn
        if start in reach[start]
    }
    return [list(group) for group in groups]


def test_imports_run_downwards_without_circles():
    assert faults(sources()) == []


@pytest.mark.parametrize(
    ("module", "text"),
    [
        ("surgeon.graph.extra", "from surgeon.surgery import context"),
        ("surgeon.graph.extra", "def f():\n    from surgeon.pipeline.api import plan"),
        (
            "surgeon.nn.extra",
            "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from surgeon.graph import sites",
        ),
        ("surgeon.nn.extra", "from surgeon.data import labels"),
        ("surgeon.cellar.extra", ""),
        ("surgeon.graph.extra", "import surgeon"),
    ],
)
def test_an_arrow_up_or_beside_or_an_unknown_room_is_seen(module, text):
    assert faults({**sources(), module: text})


def test_a_circle_is_seen():
    extra = {
        "surgeon.graph.one": "from surgeon.graph import two",
        "surgeon.graph.two": "def f():\n    import surgeon.graph.one",
    }
    assert any("surgeon.graph.one → surgeon.graph.two" in fault for fault in faults({**sources(), **extra}))


def test_only_named_files_stand_at_the_root():
    assert {path.name for path in PACKAGE.iterdir() if path.is_file()} == ROOT_FILES


@pytest.mark.parametrize("folder", ["surgeon", "tests", "plugins", "recipes"])
def test_no_file_is_longer_than_its_limit(folder):
    long = {
        str(path.relative_to(PACKAGE.parent)): count
        for path in (PACKAGE.parent / folder).rglob("*.py")
        if (count := len(path.read_text(encoding="utf-8").splitlines())) > LONGEST
    }
    assert long == {}


def test_every_room_says_what_it_owns():
    for path in PACKAGE.rglob("__init__.py"):
        doc = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""
        assert len(doc) > 80, f"{path.relative_to(PACKAGE)} says too little"


def test_no_two_test_files_share_a_name():
    """Pytest imports them by their bare names, and leaves out the second of a pair."""
    names = [path.name for path in (PACKAGE.parent / "tests").rglob("test_*.py")]
    assert sorted({name for name in names if names.count(name) > 1}) == []
