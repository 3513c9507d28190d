"""Describe recipes from their JSON Schema: operations, keys, parts, sources of data."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

from surgeon.docs.rst import code, contents, docstring, escape, heading, key, table
from surgeon.recipe.catalog import field_dicts, operations_of

Schema = Mapping[str, Any]
TRAIN = "TrainSettings"
COMMON = ("domain", "labels")
"""The keys of every source."""


class RecipePages:
    """Write the pages about recipes.

    Args:
        schema: The JSON Schema of recipes.
    """

    def __init__(self, schema: Schema) -> None:
        self.schema = schema
        self.shared: Mapping[str, Any] = schema["$defs"]
        self.operations = operations_of(schema)
        steps = [_name(step) for step in schema["properties"]["operations"]["items"]["oneOf"]]
        self.sources = {name: _name(ref) for name, ref in self._choice("AnySource").items()}
        own_pages = {*steps, *self.sources.values(), TRAIN}
        self.parts = sorted(
            name for name, part in self.shared.items() if "properties" in part and name not in own_pages
        )
        self.labels = {name: f"part-{name}" for name in self.parts}
        self.labels |= {kind: f"source-{name}" for name, kind in self.sources.items()} | {TRAIN: "train"}

    def pages(self) -> dict[str, str]:
        """Write all pages, by path."""
        singles = {
            f"reference/operations/{name}.rst": self._operation(operation)
            for name, operation in self.operations.items()
        }
        return singles | {
            "reference/operations/index.rst": self._index(),
            "reference/recipe.rst": self._recipe(),
            "reference/train.rst": self._train(),
            "reference/sources.rst": self._sources(),
            "reference/parts.rst": self._parts(),
        }

    def _choice(self, name: str) -> Mapping[str, Any]:
        mapping: Mapping[str, str] = self.shared[name]["discriminator"]["mapping"]
        return {source: {"$ref": reference} for source, reference in mapping.items()}

    def _index(self) -> str:
        rows = [
            (f":doc:`{name} <{name}>`", escape(operation["documentation"].partition("\n")[0]))
            for name, operation in self.operations.items()
        ]
        text = "A recipe lists operations under ``operations:``; they are applied from the first to the last."
        listed = contents(self.operations, hidden=True)
        return (
            heading("Operations", label="operations") + f"\n{text}\n\n" + table(["operation", ""], rows) + "\n" + listed
        )

    def _operation(self, operation: Mapping[str, Any]) -> str:
        name = operation["name"]
        python = "".join(word.capitalize() for word in name.split("_"))
        parts = [
            heading(name, label=f"operation-{name}"),
            docstring(operation["documentation"]) + "\n",
            code(operation["example"]),
            f"In Python: ``surgeon.{python}``, with the same keys.\n",
            heading("Keys", 1),
            self._keys(name, operation["fields"]),
        ]
        return "\n".join(parts)

    def _recipe(self) -> str:
        fields = field_dicts(self.schema, self.shared)
        parts = [
            heading("Recipes", label="recipes"),
            docstring(self.schema["description"]) + "\n",
            "An editor that knows the schema completes the keys: ``surgeon schema -o FILE`` writes it.\n",
            heading("Keys", 1),
            self._keys("", [field for field in fields if field["name"] not in ("operations", "$schema")]),
            key(
                "operations",
                self.schema["properties"]["operations"]["description"],
                "list of :ref:`operations <operations>`",
                required=True,
            ),
        ]
        return "\n".join(parts)

    def _train(self) -> str:
        described = self.shared[TRAIN]
        parts = [
            heading("Fine-tuning: train", label="train"),
            docstring(described["description"]) + "\n",
            heading("Keys", 1),
            self._keys("train", field_dicts(described, self.shared)),
        ]
        return "\n".join(parts)

    def _sources(self) -> str:
        first = self.shared[next(iter(self.sources.values()))]
        common = [field for field in field_dicts(first, self.shared) if field["name"] in COMMON]
        parts = [
            heading("Sources of data", label="sources"),
            "``train.data`` names a source, or a list of several. Every source has these keys:\n",
            self._keys("source", common),
        ]
        for name, kind in self.sources.items():
            described = self.shared[kind]
            fields = [f for f in field_dicts(described, self.shared) if f["name"] not in ("source", *COMMON)]
            parts += [
                heading(name, 1, label=f"source-{name}"),
                docstring(described["description"]) + "\n",
                self._keys(name, fields),
            ]
        return "\n".join(parts)

    def _parts(self) -> str:
        parts = [heading("Parts of recipes", label="parts"), "Mappings that stand as values of other keys.\n"]
        for name in self.parts:
            described = self.shared[name]
            parts += [
                heading(name, 1, label=f"part-{name}"),
                docstring(described.get("description", "")) + "\n",
                self._keys(name, field_dicts(described, self.shared)),
            ]
        return "\n".join(parts)

    def _keys(self, owner: str, fields: Iterable[Mapping[str, Any]]) -> str:
        """Describe keys; each is found as ``owner.key``."""
        described = [self._key(f"{owner}.{field['name']}".strip("."), field) for field in fields]
        return "\n".join(described) if described else "It has no keys.\n"

    def _key(self, name: str, field: Mapping[str, Any]) -> str:
        return key(
            name,
            field["description"],
            self._linked(field["type"]),
            None if field["required"] or field["default"] == "null" else field["default"],
            required=field["required"],
        )

    def _linked(self, kind: str) -> str:
        """Link the parts, sources and settings that a type names."""
        kind = re.sub(r"\bsources?\b", lambda match: f":ref:`{match[0]} <sources>`", kind)
        names = re.compile(rf"(?<![`\w])({'|'.join(self.labels)})(?![`\w])")
        return names.sub(lambda match: f":ref:`{match[1]} <{self.labels[match[1]]}>`", kind.replace("|", r"\|"))


def _name(reference: Mapping[str, Any]) -> str:
    return str(reference["$ref"].rpartition("/")[2])
