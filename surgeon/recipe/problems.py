"""Validate data against pydantic models, and reword errors: plain words, the recipe's keys, nearest names."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar, get_args

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from surgeon.errors import suggest
from surgeon.interfaces.data import Source
from surgeon.plugins import Plugins
from surgeon.recipe.document import Document, Keys

M = TypeVar("M", bound=BaseModel)

OF_VALIDATORS = frozenset({"value_error", "assertion_error"})
"""Error types of a model's validators, for values of the right type."""
EXPECTED = {
    "int_type": "a whole number",
    "int_parsing": "a whole number",
    "int_from_float": "a whole number",
    "float_type": "a number",
    "float_parsing": "a number",
    "finite_number": "a finite number",
    "string_type": "text",
    "bool_type": "true or false",
    "bool_parsing": "true or false",
    "list_type": "a list",
    "tuple_type": "a list",
    "set_type": "a list",
    "frozen_set_type": "a list",
    "dict_type": "a mapping",
    "model_type": "a mapping",
    "none_required": "null",
    "literal_error": "{expected}",
    "enum": "{expected}",
    "greater_than": "greater than {gt:g}",
    "greater_than_equal": "at least {ge:g}",
    "less_than": "less than {lt:g}",
    "less_than_equal": "at most {le:g}",
    "multiple_of": "a multiple of {multiple_of}",
    "string_too_short": "text of at least {min_length} characters",
    "string_too_long": "text of at most {max_length} characters",
    "string_pattern_mismatch": "text that matches {pattern}",
    "too_short": "a list of at least {min_length}",
    "too_long": "a list of at most {max_length}",
}


@dataclass(frozen=True)
class _Problem:
    keys: Keys
    error: ErrorDetails
    branch: bool
    """Whether it is one of several errors that the types of a union gave for one value."""


def validate(
    model: type[M],
    data: Any,
    document: Document,
    at: Keys = (),
    *,
    plugins: Plugins,
    needed: Mapping[str, str] | None = None,
    see: str | None = None,
    beside: Sequence[str] = (),
) -> M | None:
    """Return ``data`` as an instance of ``model``; None if it is invalid, with the problems recorded in ``document``.

    Types are those of JSON: ``"7"`` and ``true`` are not numbers, and a list is accepted for a tuple.

    Args:
        model: The model.
        data: The data in the recipe.
        document: The recipe.
        at: The keys that lead to the data in the recipe.
        plugins: The plugins with data sources.
        needed: The plugins that an artifact records.
        see: The command that shows more.
        beside: Keys that may occur beside the model's fields, for suggestions.
    """
    try:
        return model.model_validate_json(json.dumps(data), strict=True, context={"sources": plugins.sources})
    except ValidationError as invalid:
        problems = [_locate(error, data) for error in invalid.errors(include_url=False)]
    except RecursionError:
        document.problem(at, "is nested too deeply")
        return None
    for keys, group in _grouped(problems):
        if group[0].error["type"] == "union_tag_invalid":
            message, hint = _unknown(group[0].error, plugins, needed)
        else:
            message, hint = _reword(group, model, plugins, see or _part_command(keys, data, plugins), beside)
        document.problem((*at, *keys), message, hint)
    return None


def _part_command(keys: Keys, data: Any, plugins: Plugins) -> str | None:
    """Return the command that explains the part of ``train:`` in which a problem lies."""
    if len(keys) < 2 or keys[0] != "train":
        return None
    name = "train"
    if len(keys) > 2 and isinstance(keys[1], str):
        part = data["train"][keys[1]]
        part = part[keys[2]] if isinstance(part, list) and isinstance(keys[2], int) else part
        source = part.get("source") if isinstance(part, dict) else None
        name = source if source in plugins.sources() else f"train.{keys[1]}"
    return f"surgeon schema {name}"


def known_keys(model: type[BaseModel]) -> list[str]:
    """Return the keys that a mapping for ``model`` may have."""
    return [info.alias or name for name, info in model.model_fields.items()]


def _locate(error: ErrorDetails, value: Any) -> _Problem:
    """Find the keys of ``error`` in the data: pydantic inserts the names of a union's types between them."""
    keys: list[str | int] = []
    branch = False
    named = [str(error["ctx"]["discriminator"]).strip("'")] if error["type"] == "union_tag_invalid" else []
    for step in (*error["loc"], *named):
        if isinstance(value, (dict, list)) and _has(value, step):
            value = value[step]  # type: ignore[index]
            keys.append(step)
        else:
            branch = branch or error["type"] != "missing" or step != error["loc"][-1]
    return _Problem(tuple(keys), error, branch)


def _has(value: dict[str, Any] | list[Any], step: str | int) -> bool:
    return step in value if isinstance(value, dict) else isinstance(step, int) and step < len(value)


def _grouped(problems: list[_Problem]) -> Iterator[tuple[Keys, list[_Problem]]]:
    """Group problems by keys. Of a union's types, the one with the deepest problem is the intended one."""
    groups: dict[Keys, list[_Problem]] = {}
    for problem in problems:
        deeper = (
            p for p in problems if p.keys[: len(problem.keys)] == problem.keys and len(p.keys) > len(problem.keys)
        )
        if not (problem.branch and any(p.branch for p in deeper)):
            groups.setdefault(problem.keys, []).append(problem)
    yield from groups.items()


def _reword(
    group: list[_Problem], model: type[BaseModel], plugins: Plugins, see: str | None, beside: Sequence[str]
) -> tuple[str, str | None]:
    """Return what is wrong in plain words, and a hint."""
    # of a union's types, the one whose validator ran is the intended one
    first = next((p for p in group if p.error["type"] in OF_VALIDATORS), group[0])
    kind, loc = first.error["type"], first.error["loc"]
    if kind == "union_tag_not_found":
        return f"needs the key {first.error['ctx']['discriminator']}", f"one of: {', '.join(plugins.sources())}"
    if kind == "missing":
        missing = list(dict.fromkeys(str(p.error["loc"][-1]) for p in group if p.error["type"] == "missing"))
        keys = ", ".join(repr(key) for key in missing)
        return f"needs the key{'s' if len(missing) > 1 else ''} {keys}", see and f"see: {see}"
    if kind == "extra_forbidden":
        names = [key for inner in _models_at(model, loc, plugins) for key in known_keys(inner)]
        names += beside if len(loc) == 1 else ()
        hint = suggest(str(loc[-1]), names, see=see) or f"the keys are: {', '.join(names)}"
        return "unknown key", hint
    if kind in OF_VALIDATORS:
        return str(first.error.get("ctx", {}).get("error") or first.error["msg"]), see and f"see: {see}"
    expected = [_expected(p.error) for p in group]
    plain = list(dict.fromkeys(text for text in expected if text))
    if not plain:
        return first.error["msg"][:1].lower() + first.error["msg"][1:], see and f"see: {see}"
    value = first.error["input"]
    choices = [
        c.strip("' ") for c in str(first.error.get("ctx", {}).get("expected", "")).replace(" or ", ",").split(",")
    ]
    if isinstance(value, (bool, int, float)) and any(problem.error["type"] == "string_type" for problem in group):
        return f"must be {' or '.join(plain)}, not {shown(value)}", f'put it in quotes: "{shown(value)}"'
    return f"must be {' or '.join(plain)}, not {shown(value)}", suggest(str(value), choices, see=see)


def _unknown(error: ErrorDetails, plugins: Plugins, needed: Mapping[str, str] | None) -> tuple[str, str | None]:
    """Return the message and hint for an unknown name, such as that of a source."""
    kind, name = error["ctx"]["discriminator"].strip("'"), error["ctx"]["tag"]
    if conflict := plugins.conflicts.get(f"{kind} {name}"):
        return conflict.message, conflict.hint
    hint = plugins.hint(kind, name, plugins.sources(), see="surgeon schema sources", needed=needed)
    return f"unknown {kind} {name!r}", hint


def _expected(error: ErrorDetails) -> str | None:
    template = EXPECTED.get(error["type"])
    return template.format(**error.get("ctx", {})) if template else None


def shown(value: Any) -> str:
    """Format a value briefly, as a recipe would have it."""
    if isinstance(value, dict):
        return "a mapping"
    if isinstance(value, list):
        return f"a list of {len(value)}" if value else "an empty list"
    if value is None:
        return "empty"
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    text = repr(value) if isinstance(value, str) else json.dumps(value)
    return text if len(text) <= 60 else text[:57] + "…"


def _models_at(model: type[BaseModel], loc: tuple[str | int, ...], plugins: Plugins) -> list[type[BaseModel]]:
    """Return the models that may have the last key of ``loc``."""
    models = [model]
    for step in loc[:-1]:
        inner = [
            member
            for candidate in models
            if step in candidate.model_fields
            for member in _models_in(candidate.model_fields[str(step)].annotation)
        ]
        named = [candidate for candidate in models if candidate.__name__ == step]
        kind = plugins.sources().get(str(step)) if Source in models else None
        models = inner or ([kind] if kind else []) or named or models
    return models


def _models_in(annotation: Any) -> list[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    parts = get_args(getattr(annotation, "__value__", annotation))
    return [member for part in parts for member in _models_in(part)]
