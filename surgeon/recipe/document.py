"""Parse a recipe's text as plain data, with the position of every key. YAML; JSON is a subset of it.

Only the standard tags are read, aliases are expanded up to a limit, and nothing is executed.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from io import StringIO
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.error import MarkedYAMLError, YAMLError
from ruamel.yaml.events import CollectionEndEvent, CollectionStartEvent
from ruamel.yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode

from surgeon.errors import RecipeError, SurgeonError, suggest

Keys = tuple[str | int, ...]

MAX_BYTES = 1 << 20
MAX_VALUES = 50_000
MAX_DEPTH = 40
TAG = "tag:yaml.org,2002:"
SELECTING = ("@", "!", "*")
"""The beginnings of selectors that YAML would take for its own signs; ``--set PATH=@head`` needs no quotes."""
SCALARS = {TAG + name for name in ("str", "int", "float", "bool", "null")}


def dotted(keys: Iterable[str | int]) -> str:
    """Join keys by dots: ``operations.1.classes``."""
    return ".".join(str(key) for key in keys)


@dataclass
class Document:
    """Hold the data of a recipe with the position of each part."""

    name: str
    text: str
    data: Any = None
    places: dict[Keys, str] = field(default_factory=dict)
    """``file:line:column`` of every key and list item; ``--set …`` for overrides."""
    problems: list[SurgeonError] = field(default_factory=list)

    def where(self, *keys: str | int) -> str:
        """Return the position of a key, or of the nearest key above it that is in the file."""
        while keys and keys not in self.places:
            keys = keys[:-1]
        return self.places.get(keys, self.name)

    def problem(self, keys: Sequence[str | int], mistake: str, hint: str | None = None) -> None:
        """Record a mistake at ``keys``."""
        where = self.where(*keys)
        message = f"{dotted(keys)}: {mistake}" if keys and where != f"--set {dotted(keys)}" else mistake
        self.problems.append(RecipeError(message, where=where, hint=hint))

    def override(self, setting: str) -> None:
        """Set one value, as ``--set operations.1.classes=7`` does.

        Raises:
            RecipeError: The setting has no ``=``, its value is not YAML, or its path leads through a value.
        """
        path, equals, value = setting.partition("=")
        keys: list[str | int] = list(path.strip().split("."))
        place = f"--set {path.strip()}"
        if not equals or "" in keys:
            raise RecipeError("is not PATH=VALUE", where=f"--set {setting}", hint="as in: --set operations.1.classes=7")
        selects = value.startswith(SELECTING) and not value.startswith("!!")  # which begins a tag of YAML
        parsed = parse(json.dumps(value, ensure_ascii=False) if selects else value, place)
        if parsed.problems:
            raise RecipeError(parsed.problems[0].message, where=place)
        at = self.data
        for depth, key in enumerate(keys):
            last = depth == len(keys) - 1
            if isinstance(at, list):
                key = keys[depth] = _index(at, str(key), keys[:depth], place)
            elif not isinstance(at, dict):
                raise RecipeError(f"{dotted(keys[:depth])} is {at!r}, which has no keys", where=place)
            if last:
                at[key] = parsed.data
            elif isinstance(at, dict):
                if key not in at:
                    at[key] = {}
                    self.places[tuple(keys[: depth + 1])] = place
                at = at[key]
            else:
                at = at[key]
        target = tuple(keys)
        self.places = {k: v for k, v in self.places.items() if k[: len(target)] != target} | {target: place}


def read(path: Path) -> Document:
    """Read a recipe file.

    Raises:
        RecipeError: The file does not exist, is not text, or is neither YAML nor JSON.
    """
    name = str(path)
    if path.is_dir():
        raise RecipeError("is a folder, not a recipe", where=name, hint=suggest(name, _recipes_in(path)))
    if not path.exists():
        raise RecipeError("no such file", where=name, hint=suggest(name, _recipes_in(path.parent)))
    if not path.is_file():  # it may have no end, or nobody who writes to it
        raise RecipeError("is a device, pipe or socket, not a file", where=name, hint="write the recipe to a file")
    try:
        size = path.stat().st_size
        if size > MAX_BYTES:
            hint = "the order is: surgeon apply RECIPE MODEL"
            raise RecipeError(f"has {size:,} bytes: too large for a recipe", where=name, hint=hint)
        text = path.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise RecipeError(f"is not UTF-8 text (byte {error.start})", where=name) from error
    except OSError as error:
        raise RecipeError(f"cannot be read: {error.strerror}", where=name) from error
    document = parse(text.replace("\t", " ") if path.suffix == ".json" else text, name)
    document.text = text
    return document


def parse(text: str, name: str) -> Document:
    """Parse YAML. Recoverable mistakes, such as a duplicate key, are in ``problems``.

    Raises:
        RecipeError: ``text`` is not YAML, or expands to more than the limits.
    """
    yaml = YAML(typ="safe", pure=True)
    try:
        _check_depth(text, name)
        node = yaml.compose(text)
    except MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        where = f"{name}:{mark.line + 1}:{mark.column + 1}" if mark else name
        problem = " ".join(part for part in (error.problem, error.context) if part)
        raise RecipeError(f"is not YAML: {problem}", where=where) from error
    except YAMLError as error:
        raise RecipeError(f"is not YAML: {str(error).splitlines()[0]}", where=name) from error
    document = Document(name, text)
    if node is not None:
        document.data = _Builder(document, yaml).build(node, ())
    return document


def _check_depth(text: str, name: str) -> None:
    """Refuse deep nesting while parsing: composing it would take minutes and then overflow the stack."""
    depth = 0
    for event in YAML(typ="safe", pure=True).parse(text):
        depth += isinstance(event, CollectionStartEvent) - isinstance(event, CollectionEndEvent)
        if depth > MAX_DEPTH:
            mark = event.start_mark
            raise RecipeError("is nested too deeply", where=f"{name}:{mark.line + 1}:{mark.column + 1}")


def dump(data: Mapping[str, Any]) -> str:
    """Write ``data`` as YAML, keeping its order."""
    yaml = YAML(typ="safe", pure=True)
    yaml.default_flow_style = False
    yaml.sort_base_mapping_type_on_output = False  # type: ignore[assignment]  # declared as None in its class
    stream = StringIO()
    yaml.dump(dict(data), stream)
    return stream.getvalue()


class _Builder:
    """Turn YAML nodes into data, recording their positions."""

    def __init__(self, document: Document, yaml: YAML) -> None:
        self.document = document
        self.yaml = yaml
        self.values = 0

    def build(self, node: Node, keys: Keys) -> Any:
        self.values += 1
        if self.values > MAX_VALUES or len(keys) > MAX_DEPTH:
            problem = f"expands to more than {MAX_VALUES:,} values or {MAX_DEPTH} levels: its aliases multiply"
            raise RecipeError(problem, where=self.document.name)
        self.document.places.setdefault(keys, self.place(node))
        if isinstance(node, MappingNode) and node.tag == TAG + "map":
            return self.mapping(node, keys)
        if isinstance(node, SequenceNode) and node.tag == TAG + "seq":
            return [self.build(item, (*keys, index)) for index, item in enumerate(node.value)]
        if isinstance(node, ScalarNode):
            if node.tag in SCALARS:
                try:
                    return self.yaml.constructor.construct_object(node)
                except (ValueError, YAMLError):
                    self.document.problem(keys, f"{node.value!r} is not of its tag's type")
                    return node.value
            if node.tag == TAG + "timestamp":
                return node.value
        self.document.problem(keys, f"the tag {node.tag!r} is not allowed in a recipe")
        return None

    def mapping(self, node: MappingNode, keys: Keys) -> dict[str, Any]:
        data: dict[str, Any] = {}
        merged: dict[str, Any] = {}
        for key, value in node.value:
            if not isinstance(key, ScalarNode):
                self.document.problem(keys, "a list or mapping cannot be a key")
            elif key.tag == TAG + "merge":
                sources = self.build(value, keys)
                for source in sources if isinstance(sources, list) else [sources]:
                    if not isinstance(source, dict):
                        self.document.problem(keys, "'<<' merges mappings only")
                        continue
                    merged = source | merged
            elif key.value in data:
                first = self.document.places[(*keys, key.value)]
                self.document.places[(*keys, key.value)] = self.place(key)
                self.document.problem((*keys, key.value), f"is a duplicate key; first at {first}")
            else:
                self.document.places[(*keys, key.value)] = self.place(key)
                data[key.value] = self.build(value, (*keys, key.value))
        return merged | data

    def place(self, node: Node) -> str:
        return f"{self.document.name}:{node.start_mark.line + 1}:{node.start_mark.column + 1}"


def _index(items: list[Any], key: str, above: Sequence[str | int], place: str) -> int:
    try:
        index = int(key)
        items[index]
    except (ValueError, IndexError):
        numbers = ", ".join(str(number) for number in range(len(items)))
        raise RecipeError(
            f"{dotted(above)} has no item {key!r}", where=place, hint=f"its items are {numbers}" if items else None
        ) from None
    return index % len(items)


def _recipes_in(folder: Path) -> list[str]:
    if not folder.is_dir():
        return []
    return [str(path) for path in folder.iterdir() if path.suffix in {".yaml", ".yml", ".json"}]
