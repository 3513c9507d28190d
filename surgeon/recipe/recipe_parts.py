"""Describe the parts of a recipe as data: ``train``, ``train.optimizer``, a source."""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Mapping
from typing import Any

from surgeon.errors import RecipeError, suggest
from surgeon.plugins import Plugins
from surgeon.recipe.catalog import definitions_in, field_dicts, operations_of

RECIPE = "recipe"
"""The name of the recipe itself."""
TRAIN = "train"
SOURCES = "sources"
"""The name of the list of sources, which is also what ``train.data`` holds."""
ANY_SOURCE = "AnySource"
LISTS = {
    "losses": "The losses that ``train.objectives`` may name.",
    "schedules": "The schedules that an operation may give a weight, such as that of a reversed gradient.",
}
"""Lists of what plugins offer that are no part of recipes of their own."""
OFFERED = {
    "losses": "losses",
    "schedules": "schedules",
    "train.objectives": "losses",
    "train.metrics": "metrics",
    "train.callbacks": "callbacks",
}
"""The parts whose names are offered by plugins, and the method of ``Plugins`` that returns them."""
Schema = Mapping[str, Any]


def sources_of(schema: Schema) -> dict[str, str]:
    """Return the first sentence of each source's documentation, by the source's name."""
    return {name: _first_sentence(_documentation(part)) for name, part in _sources(schema).items()}


def names_offered(plugins: Plugins, part: str) -> dict[str, str]:
    """Return what plugins offer for a part to name, such as losses, with the first line on each; mostly empty.

    Imports torch if there is anything.
    """
    if part not in OFFERED:
        return {}
    offers: Mapping[str, Any] = getattr(plugins, OFFERED[part])()
    return {name: (inspect.getdoc(offer) or "").partition("\n")[0] for name, offer in offers.items()}


def describe_part(schema: Schema, name: str) -> dict[str, Any] | None:
    """Describe a part of recipes as ``surgeon.describe_operations`` does operations; None for the list of sources.

    Args:
        schema: The JSON Schema of recipes.
        name: ``recipe``, ``train``, a key such as ``train.optimizer`` or ``optimizer``, a source, a type, ``losses``
            or ``schedules``.

    Raises:
        RecipeError: Recipes have no such part.
    """
    shared, sources = schema["$defs"], _sources(schema)
    if name == RECIPE:
        return _described(RECIPE, schema, shared)
    if name == SOURCES:
        return None
    if name in LISTS:
        return {"name": name, "documentation": LISTS[name], "fields": [], "types": {}, "example": ""}
    if name in sources:
        part = sources[name]
        nested = {kind: shared[kind] for kind in sorted(definitions_in(part, shared)) if "properties" in shared[kind]}
        described = _described(name, part, shared, hidden=("source",))
        described["fields"].sort(key=lambda field: not field["required"])  # keys of all sources come first otherwise
        required = [f"{key}: …" for key in part.get("required", []) if key != "source"]
        described["types"] = {kind: field_dicts(inner, shared) for kind, inner in nested.items()}
        described["example"] = f"train:\n  data: {{{', '.join([f'source: {name}', *required])}}}"
        return described
    if name in shared and "properties" in shared[name]:
        return _described(name, shared[name], shared)
    if name in operations_of(schema):
        raise RecipeError(f"{name!r} is an operation", hint=f"see: surgeon ops {name}")
    if name in _train(schema)["properties"]:
        name = f"{TRAIN}.{name}"
    part = schema
    for position, key in enumerate(keys := name.split(".")):
        properties = part.get("properties", {})
        if key not in properties:
            before = ".".join(keys[:position])
            siblings = [f"{before}.{other}" if before else other for other in properties]
            names = [*siblings, *(() if before else (RECIPE, SOURCES, *LISTS, *sources))]
            raise RecipeError(f"recipes have no part {name!r}", hint=suggest(name, names) or _listed(names))
        inner = definitions_in(properties[key], shared, nested=False)
        if ANY_SOURCE in inner:
            if key == keys[-1]:
                return None
            raise RecipeError(
                f"the keys of {'.'.join(keys[: position + 1])} depend on its source", hint=_listed(sources)
            )
        holders = [kind for kind in inner if "properties" in shared[kind]]
        if len(holders) != 1:  # a plain value
            if position + 1 < len(keys):
                raise RecipeError(f"{'.'.join(keys[: position + 1])} has no keys of its own")
            field = next(field for field in field_dicts(part, shared) if field["name"] == key)
            return {"name": name, "documentation": "", "fields": [field], "types": {}, "example": ""}
        part = shared[holders[0]]
    return _described(name, part, shared)


def _train(schema: Schema) -> Schema:
    """Return the definition of the ``train:`` section."""
    (kind,) = definitions_in(schema["properties"][TRAIN], schema["$defs"], nested=False)
    part: Schema = schema["$defs"][kind]
    return part


def _sources(schema: Schema) -> dict[str, Schema]:
    mapping = schema["$defs"][ANY_SOURCE]["discriminator"]["mapping"]
    return {name: schema["$defs"][reference.rpartition("/")[2]] for name, reference in mapping.items()}


def _described(name: str, part: Schema, shared: Schema, hidden: Iterable[str] = ()) -> dict[str, Any]:
    fields = [field for field in field_dicts(part, shared) if field["name"] not in hidden]
    return {"name": name, "documentation": _documentation(part), "fields": fields, "types": {}, "example": ""}


def _documentation(part: Schema) -> str:
    return str(part.get("description", ""))


def _first_sentence(text: str) -> str:
    return " ".join(text.partition("\n\n")[0].split()).partition(". ")[0].rstrip(".") + "."


def _listed(names: Iterable[str]) -> str:
    return f"one of: {', '.join(names)}"
