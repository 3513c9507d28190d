"""Describe the public interface: everything in ``surgeon.__all__``, the hooks, and the conformance kit."""

from __future__ import annotations

import inspect
from collections.abc import Iterable
from importlib import import_module

from surgeon import testing
from surgeon.docs.rst import contents, directive, heading
from surgeon.errors import SurgeonError
from surgeon.interfaces import hooks
from surgeon.interfaces.operation import Operation
from surgeon.recipe.train_settings import TrainSettings

ELSEWHERE: tuple[type, ...] = (TrainSettings,)
"""Settings whose keys have a page of their own."""


def python_pages() -> dict[str, str]:
    """Write the pages about the public interface, by path."""
    face = import_module("surgeon")
    functions: list[str] = []
    errors: list[str] = []
    classes: list[str] = []
    author: list[str] = []
    for name in face.__all__:
        value = getattr(face, name)
        if _documented_elsewhere(value) or name == "__version__":
            continue
        if face._HOME_OF[name].startswith("surgeon.interfaces"):
            author.append(name)
        elif not inspect.isclass(value):
            functions.append(name)
        else:
            (errors if issubclass(value, (SurgeonError, Warning)) else classes).append(name)
    kit = [f"surgeon.testing.{name}" for name in testing.__all__]
    specified = [f"surgeon.interfaces.hooks.{name}" for name in vars(hooks) if name.startswith("surgeon_")]
    pages = {
        "functions": _page("Functions", "What a command does is a function, too.", _public(functions)),
        "classes": _page("Classes", "What functions take and return.", _public(classes)),
        "errors": _page("Errors and warnings", "See also :ref:`exit-codes`.", _public(errors)),
        "plugins": _page("For authors of plugins", "What a plugin subclasses or implements.", _public(author)),
        "hooks": _page("Hooks", "A plugin implements them under ``surgeon.hookimpl``.", specified),
        "testing": _page("Conformance kit", "``surgeon.testing`` holds a plugin to surgeon's promises.", kit),
    }
    intro = (
        "What stands in ``surgeon.__all__`` is public; everything else is private and may change. Operations are "
        'classes too: ``surgeon.Freeze(up_to="layer2")``; :ref:`operations` describes them, and :ref:`train` the '
        "fields of ``surgeon.TrainSettings``."
    )
    index = heading("Python", label="python") + f"\n{intro}\n\n" + contents(pages)
    return {f"reference/python/{name}.rst": text for name, text in pages.items()} | {
        "reference/python/index.rst": index
    }


def _documented_elsewhere(value: object) -> bool:
    return value in ELSEWHERE or (inspect.isclass(value) and issubclass(value, Operation) and value is not Operation)


def _public(names: Iterable[str]) -> list[str]:
    return [f"surgeon.{name}" for name in names]


def _page(title: str, intro: str, names: Iterable[str]) -> str:
    return heading(title) + f"\n{intro}\n\n" + "\n".join(map(_described, names))


def _described(path: str) -> str:
    module, _, name = path.rpartition(".")
    value = getattr(import_module(module), name)
    if not inspect.isclass(value):
        return directive("autofunction" if callable(value) else "autodata", path)
    return directive("autoclass", path, members="")
