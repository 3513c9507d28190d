"""Write a plugin package that installs and passes its tests, linters and type checks as it is."""

from __future__ import annotations

import keyword
import re
import sys
from collections.abc import Callable, Mapping
from importlib.metadata import packages_distributions
from importlib.resources import files
from importlib.resources.abc import Traversable
from pathlib import Path
from string import Template
from typing import Literal, get_args

from surgeon.errors import OutputError, PluginError
from surgeon.interfaces.distribution import DISTRIBUTION, surgeon_version
from surgeon.plugins import Plugins

Kind = Literal["operation", "architecture", "training"]
KINDS: tuple[Kind, ...] = get_args(Kind)

SUMMARIES: dict[Kind, str] = {
    "operation": "The operation {stem}: scale the channels that a site produces by learned factors.",
    "architecture": "The networks {stem}/NAME, and their checkpoints.",
    "training": "The loss {stem}: cross-entropy that weighs certain predictions less.",
}
PREFIX = "surgeon-"
_NAME = re.compile(r"[A-Za-z]([A-Za-z0-9._-]*[A-Za-z0-9])?")
_ENDING = ".in"


def write_package(name: str, kind: Kind, folder: Path, plugins: Plugins) -> list[Path]:
    """Write a new plugin package.

    Args:
        name: The distribution's name; ``surgeon-soft-gates`` has the module ``surgeon_soft_gates`` and offers
            ``soft_gates``.
        kind: What it offers.
        folder: Where to make the folder ``name``.
        plugins: The plugins whose names are taken.

    Returns:
        The files, that of the project first.

    Raises:
        PluginError: The name cannot be used.
        OutputError: The folder exists already, or cannot be written.
    """
    distribution = re.sub(r"[-_.]+", "-", name).lower()
    words = _words(name, distribution, kind, plugins)
    root = folder / distribution
    if root.exists():
        raise OutputError("exists already", where=str(root), hint="choose another name, or another folder with -o")
    templates = files("surgeon.scaffold") / "templates"
    words["usage"] = _filled(templates / kind / "usage.md.in", words).strip()
    texts = {**_texts(templates / "common", words), **_texts(templates / kind, words)}
    try:
        for path, text in texts.items():
            (root / path).parent.mkdir(parents=True, exist_ok=True)
            (root / path).write_text(text, encoding="utf-8")
    except OSError as error:
        raise OutputError(f"cannot be written: {error.strerror}", where=str(root)) from error
    return sorted((root / path for path in texts), key=lambda path: (path.name != "pyproject.toml", str(path)))


def _words(name: str, distribution: str, kind: Kind, plugins: Plugins) -> dict[str, str]:
    """What stands for each word in the templates.

    Raises:
        PluginError: The name cannot be that of a package, or what it would offer is taken.
    """
    if not _NAME.fullmatch(name):
        raise PluginError(
            f"{name!r} cannot name a package",
            hint="begin with a letter; use letters, digits and hyphens: surgeon-soft-gates",
        )
    module, stem = distribution.replace("-", "_"), distribution.removeprefix(PREFIX).replace("-", "_")
    if not stem.isidentifier() or keyword.iskeyword(stem) or keyword.iskeyword(module):
        raise PluginError(
            f"{name!r} would offer {stem!r}, which is not a Python name", hint="for example: surgeon-soft-gates"
        )
    if module in sys.stdlib_module_names or module in {*packages_distributions(), "surgeon", "tests"}:
        raise PluginError(
            f"the module {module!r} of {name!r} exists already",
            hint=f"choose another name, for example {PREFIX}{distribution}"
            if not distribution.startswith(PREFIX)
            else "choose another name, or uninstall the package of that name first",
        )
    _refuse_taken(stem, kind, plugins)
    version = (surgeon_version() or "").split("+")[0]
    return {
        "name": distribution,
        "module": module,
        "stem": stem,
        "Class": "".join(word.capitalize() for word in stem.split("_")),
        "summary": SUMMARIES[kind].format(stem=stem),
        "surgeon": f"{DISTRIBUTION}>={version}" if version else DISTRIBUTION,
    }


def _refuse_taken(stem: str, kind: Kind, plugins: Plugins) -> None:
    offers_of: dict[Kind, tuple[str, Callable[[], Mapping[str, object]]]] = {
        "operation": ("operation", plugins.operations),
        "architecture": ("architecture scheme", plugins.architectures),
        "training": ("loss", plugins.losses),
    }
    noun, offers = offers_of[kind]
    if stem in offers():
        raise PluginError(f"there is already the {noun} {stem!r}", hint="choose another name     see: surgeon plugins")


def _texts(folder: Traversable, words: dict[str, str], path: str = "") -> dict[str, str]:
    """The files of a folder of templates, by their paths in the package."""
    texts = {}
    for entry in folder.iterdir():
        name = {"module": words["module"], "dot-github": ".github", "gitignore.in": ".gitignore"}.get(
            entry.name, entry.name.removesuffix(_ENDING)
        )
        if entry.is_dir():
            texts.update(_texts(entry, words, f"{path}{name}/"))
        elif entry.name.endswith(_ENDING) and entry.name != "usage.md.in":
            texts[f"{path}{name}"] = _filled(entry, words)
    return texts


def _filled(template: Traversable, words: dict[str, str]) -> str:
    return Template(template.read_text(encoding="utf-8")).substitute(words)
