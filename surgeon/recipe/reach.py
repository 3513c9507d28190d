"""List what a recipe refers to outside itself: files, names on the network, code."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from surgeon.data.sources import Hub, as_sources
from surgeon.interfaces.data import Source
from surgeon.interfaces.selector import BesideRecipe
from surgeon.recipe.train_settings import SOURCE

if TYPE_CHECKING:
    from pydantic import BaseModel

    from surgeon.recipe.load import Recipe

FILE_ARGUMENTS = ("accelerator_config", "deepspeed", "fsdp_config")
"""TrainingArguments that may be the path of a file."""
HERE = ("none", "tensorboard", "csv")
"""Trackers that write into the output folder."""


@dataclass(frozen=True)
class Reach:
    """Something outside a recipe that running it opens, downloads or executes."""

    kind: Literal["file", "network", "code"]
    what: str
    where: str
    """The recipe's key that names it."""

    def __str__(self) -> str:
        return f"{self.kind} {self.what} ({self.where})"


def reaches(recipe: Recipe) -> list[Reach]:
    """List everything outside the recipe that ``recipe`` names, in order.

    Args:
        recipe: A validated recipe; nothing it names is opened.
    """
    listed = [*_reference(recipe.model, "model"), *_reference(recipe.arch, "arch")]
    for index, operation in enumerate(recipe.operations):
        where = f"operations.{index}"
        listed += _marked(operation, where)
        for name in type(operation).model_fields:
            value = getattr(operation, name)
            if any(isinstance(source, Source) for source in as_sources(value)):
                listed += _data(value, f"{where}.{name}")
            elif not _is_marked(operation, name):
                listed += _code(value, f"{where}.{name}")
    if recipe.train is not None:
        for name in ("data", "evaluate"):
            listed += _data(getattr(recipe.train, name), f"train.{name}")
        if recipe.train.distill is not None:
            teacher = recipe.train.distill.teacher
            listed += _reference(recipe.model if teacher == SOURCE else teacher, "train.distill.teacher")
        listed += _arguments(recipe.train.arguments)
    return list(dict.fromkeys(listed))


def _reference(text: str | None, where: str) -> Iterator[Reach]:
    """Yield what a model, an architecture or a donor is read from."""
    if text is None:
        return
    name = text.partition(":")[2]
    if text.startswith("python:"):
        yield Reach("code", name, where)
    elif text.startswith("hf:"):
        yield Reach("file" if name.startswith((".", "/", "~")) else "network", text, where)
    elif text.startswith("torchvision/"):
        if "@" in text:
            yield Reach("network", text, where)
    elif not text.startswith("hf/"):
        yield Reach("file", text, where)


def _marked(model: BaseModel, where: str) -> Iterator[Reach]:
    """Yield the files and names in fields that are marked as paths."""
    for name in type(model).model_fields:
        value = getattr(model, name)
        if not isinstance(value, str) or not _is_marked(model, name):
            continue
        if name == "tokenizer" and not Path(value).exists():
            yield Reach("network", value, f"{where}.{name}")
        else:
            yield from _reference(value, f"{where}.{name}")


def _is_marked(model: BaseModel, name: str) -> bool:
    return any(isinstance(mark, BesideRecipe) for mark in type(model).model_fields[name].metadata)


def _data(setting: Any, where: str) -> Iterator[Reach]:
    several = isinstance(setting, (list, tuple))
    for index, source in enumerate(as_sources(setting)):
        if not isinstance(source, Source):
            continue
        place = f"{where}.{index}" if several else where
        if isinstance(source, Hub):
            yield Reach("network", f"data set {source.name}", f"{place}.name")
        yield from _marked(source, place)


def _code(value: Any, where: str) -> Iterator[Reach]:
    """Yield references in a field of plain data, nested ones included."""
    if isinstance(value, str):
        if value.startswith(("python:", "hf:")):
            yield from _reference(value, where)
    elif isinstance(value, dict):
        for key, item in value.items():
            yield from _code(item, f"{where}.{key}")
    elif isinstance(value, (list, tuple)):
        for index, item in enumerate(value):
            yield from _code(item, f"{where}.{index}")


def _arguments(arguments: dict[str, Any]) -> Iterator[Reach]:
    for name in FILE_ARGUMENTS:
        if isinstance(value := arguments.get(name), str):
            yield Reach("file", value, f"train.arguments.{name}")
    reports = arguments.get("report_to", "none")
    for tracker in [reports] if isinstance(reports, str) else reports or ():
        if tracker not in HERE:
            yield Reach("network", f"reports to {tracker}", "train.arguments.report_to")
