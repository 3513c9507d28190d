"""Load recipes: a file becomes a validated :class:`Recipe`, or an error with all mistakes and their positions."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, PrivateAttr, SerializeAsAny

from surgeon import plugins as plugin_loading
from surgeon.data.sources import as_sources, beside
from surgeon.errors import RecipeError, SurgeonError, counted
from surgeon.interfaces.data import Source
from surgeon.interfaces.inputs import InputSettings
from surgeon.interfaces.operation import Operation
from surgeon.interfaces.selector import files_beside
from surgeon.plugins import Plugins
from surgeon.recipe.document import Document, Keys, dump, read
from surgeon.recipe.problems import shown, validate
from surgeon.recipe.train_settings import TrainSettings


class RecipeSettings(BaseModel):
    """The settings of a recipe beside its operations."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    model: str | None = Field(default=None, min_length=1)
    """The network to operate on: a file, a folder, torchvision/NAME[@WEIGHTS], hf:ORG/NAME. MODEL on the command line
    overrides it. A relative path is looked up beside the recipe first."""
    arch: str | None = Field(default=None, min_length=1)
    """What builds the network: torchvision/NAME, hf:ORG/NAME, python:package.module:function. Default: identified from
    the checkpoint."""
    seed: int = Field(default=0, ge=0, lt=2**63)
    """The seed of all random numbers: new weights, the order of training samples."""
    roles: dict[str, str | list[str]] = Field(default_factory=dict)
    """Sites of roles (head, stem, blocks, …), for networks where surgeon does not find them or finds wrong ones."""
    inputs: InputSettings | None = None
    """The input that sites are traced with, for networks whose input surgeon cannot know: a list of shapes,
    [[2, 3, 64, 64]], or a mapping from argument to shape, to {shape: [2, 8], dtype: int64, high: 100}, or to
    {values: [[1, 8, 8]]}."""
    must_run: bool = True
    """Whether to refuse a result that cannot run although its source can; false writes it with a warning."""
    train: TrainSettings | None = None
    """How to fine-tune the result. Default: surgery only."""


class Recipe(RecipeSettings):
    """A list of operations, the network to apply them to, and what to do afterwards."""

    operations: list[SerializeAsAny[Operation]] = Field(min_length=1)
    """The steps of surgery, in order."""

    _document: Document | None = PrivateAttr(None)
    _overrides: tuple[str, ...] = PrivateAttr(())
    _typed: bool = PrivateAttr(True)

    @property
    def path(self) -> Path | None:
        """The file of the recipe."""
        return Path(self._document.name) if self._document else None

    @property
    def text(self) -> str:
        """The unchanged text of the file; YAML generated from the data for overrides and recipes made in Python."""
        if self._document and not self._overrides:
            return self._document.text
        if self._document:
            head = "".join(f"# {self._document.name} with --set {setting}\n" for setting in self._overrides)
            return head + dump(self._document.data)
        return dump(self.to_dict())

    @property
    def sources(self) -> list[Source]:
        """All data sources: for training, for evaluation, and of operations."""
        train = [self.train.data, self.train.evaluate] if self.train else []
        values = [*train, *(value for operation in self.operations for _, value in operation)]
        return [source for value in values for source in as_sources(value) if isinstance(source, Source)]

    @classmethod
    def recorded(cls, operations: Sequence[Operation]) -> Recipe:
        """Make a recipe of operations from a manifest, which the caller did not write."""
        recipe = cls(operations=list(operations))
        recipe._typed = False
        return recipe

    @property
    def typed(self) -> list[str]:
        """The strings that the caller wrote for this call: in ``--set``, or in a recipe made in Python."""
        if self._typed:
            teacher = self.train.distill.teacher if self.train is not None and self.train.distill is not None else None
            operations = [operation_dict(operation) for operation in self.operations]
            return list(texts_in([self.model, self.arch, teacher, *operations]))
        return [value for setting in self._overrides if (value := setting.partition("=")[2].strip("\"' "))]

    def where(self, *keys: str | int) -> str | None:
        """Return ``file:line:column`` of a key, as in ``where("operations", 1, "after")``; None without a file."""
        return self._document.where(*keys) if self._document else None

    def to_dict(self) -> dict[str, Any]:
        """Return the recipe as data for a file."""
        data = self.model_dump(mode="json", exclude_defaults=True, exclude={"operations"})
        return {**data, "operations": [operation_dict(operation) for operation in self.operations]}


def load_recipe(
    path: str | Path,
    *,
    overrides: Sequence[str] = (),
    plugins: Plugins | None = None,
    needed: Mapping[str, str] | None = None,
    recorded: Sequence[Operation] | None = None,
) -> Recipe:
    """Read and validate a recipe, without importing torch.

    Args:
        path: A YAML or JSON file.
        overrides: Values to set in it, such as ``operations.1.classes=7``.
        plugins: The plugins with its operations and sources. Default: all installed plugins.
        needed: The plugins that an artifact records for its recipe; errors name the missing ones.
        recorded: The operations as an artifact records them, instead of those in the text.

    Raises:
        RecipeError: The recipe is invalid; every mistake of the file is in ``problems``.
    """
    plugins = plugins or plugin_loading.load()
    document = read(Path(path))
    if not isinstance(document.data, dict):
        problem = "is empty" if document.data is None else f"is {shown(document.data)}, not a mapping of keys"
        raise RecipeError(problem, where=document.where(), hint="a recipe has the key 'operations': a list of steps")
    for setting in overrides:
        try:
            document.override(setting)
        except RecipeError as error:
            document.problems.append(error)
    fields = dict(document.data)
    if isinstance(fields.get("$schema"), str):  # the schema that editors use for completion
        del fields["$schema"]
    steps = fields.pop("operations", ())
    operations = list(recorded) if recorded is not None else _operations(steps, document, plugins, needed)
    settings = validate(RecipeSettings, fields, document, plugins=plugins, needed=needed, beside=["operations"])
    if document.problems or settings is None:
        raise all_mistakes(document)
    values = {name: getattr(settings, name) for name in settings.model_fields_set}
    if settings.model and (Path(path).parent / settings.model).exists():
        values["model"] = str(Path(path).parent / settings.model)
    if settings.train:
        values["train"] = settings.train.beside(Path(path).parent)
    if recorded is None:  # what was recorded was found then
        operations = [_with_files_beside(operation, Path(path).parent) for operation in operations]
    recipe = Recipe(operations=operations, **values)
    recipe._document, recipe._overrides, recipe._typed = document, tuple(overrides), False
    return recipe


def texts_in(value: Any) -> Iterator[str]:
    """Yield every string in nested plain data."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        yield from (text for item in value.values() for text in texts_in(item))
    elif isinstance(value, (list, tuple)):
        yield from (text for item in value for text in texts_in(item))


def operation_dict(operation: Operation) -> dict[str, Any]:
    """Return an operation as a recipe has it: its fields, and its name under ``op``."""
    return {"op": operation.name, **operation.model_dump(mode="json", exclude_defaults=True)}


def _with_files_beside(operation: Operation, folder: Path) -> Operation:
    """Return ``operation`` with the files that its fields name resolved relative to the recipe, if they exist there."""
    updates: dict[str, Any] = dict(files_beside(operation, folder))
    for name in type(operation).model_fields:
        if isinstance(value := getattr(operation, name), Source):
            updates[name] = beside(value, folder)
    return operation.model_copy(update=updates) if updates else operation


def _operations(items: Any, document: Document, plugins: Plugins, needed: Mapping[str, str] | None) -> list[Operation]:
    if not isinstance(items, list):
        problem = (
            "needs the key 'operations': a list of steps" if items == () else f"must be a list, not {shown(items)}"
        )
        document.problem(() if items == () else ("operations",), problem, "see: surgeon ops")
        return []
    if not items:
        document.problem(("operations",), "is empty: there is nothing to do", "see: surgeon ops")
    parsed = (_operation(item, document, ("operations", index), plugins, needed) for index, item in enumerate(items))
    return [operation for operation in parsed if operation is not None]


def operation_class(
    item: Any, document: Document, at: Keys, plugins: Plugins, needed: Mapping[str, str] | None
) -> type[Operation] | None:
    """Get the class of an operation in its form in a recipe; None, and the problem noted in ``document``, without one.

    Args:
        item: The operation's fields, and its name under ``op``.
        document: The recipe or record.
        at: Where in it the item stands.
        plugins: Where operations come from.
        needed: What an artifact says of the plugins that it needs.
    """
    if not isinstance(item, dict):
        document.problem(at, f"must be a mapping with the key 'op', not {shown(item)}", "as in: {op: freeze, …}")
        return None
    name = item.get("op")
    if not isinstance(name, str):
        problem = (
            "needs the key 'op', the operation's name" if "op" not in item else f"op must be text, not {shown(name)}"
        )
        document.problem(at, problem, _names_itself(item, plugins) or "see: surgeon ops")
        return None
    try:
        return plugins.operation(name, needed)
    except SurgeonError as error:
        document.problem((*at, "op"), error.message, error.hint)
        return None


def _names_itself(item: Mapping[Any, Any], plugins: Plugins) -> str:
    """Hint at the right form of a step that has its operation's name for a key: ``- freeze: {sites: "@stem"}``."""
    names = sorted(key for key in item if key in plugins.operations())
    return f"write 'op: {names[0]}', with its fields beside it: {{op: {names[0]}, …}}" if names else ""


def _operation(
    item: Any, document: Document, at: Keys, plugins: Plugins, needed: Mapping[str, str] | None
) -> Operation | None:
    kind = operation_class(item, document, at, plugins, needed)
    if kind is None:
        return None
    fields = {key: value for key, value in item.items() if key != "op"}
    return validate(kind, fields, document, at, plugins=plugins, needed=needed, see=f"surgeon ops {kind.name}")


def all_mistakes(document: Document) -> RecipeError:
    """Make one error of the problems in ``document``, in the order of its text."""
    count = len(document.problems)
    message = f"{counted(count, 'mistake')} in {document.name}"
    order = {place: number for number, place in enumerate(document.places.values())}
    problems = sorted(document.problems, key=lambda problem: order.get(problem.where or "", math.inf))
    return RecipeError(message, problems=problems)
