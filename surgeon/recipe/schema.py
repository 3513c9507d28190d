"""Build the JSON Schema of recipes, for completion and checks in editors.

``python -m surgeon.recipe.schema > surgeon/recipe.schema.json`` makes the file shipped with surgeon. ``surgeon schema``
and ``surgeon ops`` read that file unless a plugin adds to it, because building the schema is slower.
"""

from __future__ import annotations

import inspect
import json
from collections.abc import Mapping, Sequence
from typing import Any

from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from surgeon.interfaces.operation import Operation
from surgeon.plugins import Plugins, as_plugins
from surgeon.plugins import load as load_plugins
from surgeon.recipe.load import Recipe, RecipeSettings


def recipe_schema(plugins: Plugins | Sequence[str] | None = None) -> dict[str, Any]:
    """Build the JSON Schema of all recipes that the plugins' operations and sources allow.

    Args:
        plugins: Default: the built-in and installed plugins.
    """
    plugins = as_plugins(plugins)
    operations = plugins.operations()
    sources = plugins.sources()
    models: list[type[BaseModel]] = [RecipeSettings, *operations.values(), *sources.values()]
    references, shared = models_json_schema([(model, "validation") for model in models], ref_template="#/$defs/{model}")
    definitions: dict[str, Any] = shared["$defs"]
    place = {model: references[model, "validation"]["$ref"].rpartition("/")[2] for model in models}
    steps = []
    for name, operation in operations.items():
        step = definitions[place[operation]]
        step["properties"] = {"op": {"const": name, "description": _first_line(operation)}} | step.get("properties", {})
        step["required"] = ["op", *step.get("required", [])]
        step["description"] = operation.documentation()
        step["examples"] = [{"op": name} | _example(operation, step, definitions)]
        steps.append({"$ref": f"#/$defs/{place[operation]}"})
    for source in sources.values():
        described = definitions[place[source]]
        described["required"] = list(dict.fromkeys(["source", *described.get("required", [])]))
    choice = {name: f"#/$defs/{place[source]}" for name, source in sources.items()}
    definitions["AnySource"] = {
        "oneOf": [{"$ref": reference} for reference in choice.values()],
        "discriminator": {"propertyName": "source", "mapping": choice},
    }
    settings = definitions.pop(place[RecipeSettings])
    item = {"oneOf": steps, "discriminator": {"propertyName": "op"}}
    steps_described = Recipe.model_fields["operations"].description
    schema = {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "surgeon recipe",
        "description": inspect.cleandoc(Recipe.__doc__ or ""),
        "type": "object",
        "additionalProperties": False,
        "required": ["operations"],
        "properties": {
            "$schema": {"type": "string", "description": "The path or URL of this schema, for editors."},
            **settings["properties"],
            "operations": {"type": "array", "minItems": 1, "description": steps_described, "items": item},
        },
        "$defs": definitions,
    }
    return {key: value if key == "title" else _untitled(value) for key, value in schema.items()}


def _example(operation: type[Operation], step: Mapping[str, Any], shared: Mapping[str, Any]) -> dict[str, Any]:
    """Return the author's example, or make one with the required keys, or with the first key."""
    if step.get("examples"):
        return dict(step["examples"][0])
    required = [name for name in step["required"] if name != "op"]
    fields = (
        [name for name in inspect.get_annotations(cls) if name in step["properties"]] for cls in operation.__mro__
    )
    first = next((names for names in fields if names), [])  # a base class may declare all of them
    return {name: _sample(step["properties"][name], shared) for name in required or first[:1]}


def _sample(field: Mapping[str, Any], shared: Mapping[str, Any]) -> Any:
    """Return a value that a field accepts."""
    if field.get("examples"):
        return field["examples"][0]
    if "$ref" in field:
        inner = shared[field["$ref"].rpartition("/")[2]]
        names = inner.get("required", [])
        return inner["enum"][0] if "enum" in inner else {n: _sample(inner["properties"][n], shared) for n in names}
    for part in field.get("anyOf") or field.get("oneOf") or ():
        return _sample(part, shared)
    if "enum" in field:
        return field["enum"][0]
    kind = field.get("type")
    if kind == "array":
        return [_sample(field.get("items", {}), shared)]
    if kind == "object":
        inner = field.get("additionalProperties")
        return {"name": _sample(inner, shared)} if isinstance(inner, dict) else {}
    return {"integer": 10, "number": 0.5, "boolean": True, "string": "SITE"}.get(str(kind))


def _untitled(schema: Any) -> Any:
    """Remove the titles that pydantic makes of field names: editors show them instead of the keys."""
    if isinstance(schema, list):
        return [_untitled(part) for part in schema]
    if not isinstance(schema, dict):
        return schema
    # a mapping under "title" is a field of that name, not a title
    return {key: _untitled(value) for key, value in schema.items() if key != "title" or isinstance(value, dict)}


def _first_line(operation: Any) -> str:
    return str(operation.documentation().partition("\n")[0])


if __name__ == "__main__":
    print(json.dumps(recipe_schema(load_plugins(installed=False)), indent=2, ensure_ascii=False))
