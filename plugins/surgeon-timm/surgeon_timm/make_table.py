"""Make ``table.json`` for the installed timm: ``python -m surgeon_timm.make_table``.

Every builder is built without memory; its digests, and the head and stem that its ``pretrained_cfg`` names, are stored.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from importlib.metadata import version
from importlib.resources import files
from pathlib import Path
from typing import Any

import timm
from torch import nn

from surgeon import build_skeleton
from surgeon_timm.fingerprints import FILE, Free, Shapes, as_tuple, trunk_digest
from surgeon_timm.structure import structure


def make(names: Sequence[str]) -> dict[str, Any]:
    """Build every builder in ``names`` and describe it; print those that cannot be built, and leave them out."""
    groups: dict[Free, int] = {}
    builders, classes = [], {}
    for number, name in enumerate(names):
        try:
            model = build_skeleton(lambda name=name: timm.create_model(name))
        except Exception as error:  # a builder may raise anything, such as a missing optional package
            print(f"{name}: {type(error).__name__}: {error}", file=sys.stderr)
            continue
        shapes = {key: tuple(tensor.shape) for key, tensor in model.state_dict().items()}
        free, extra = _free(model, shapes)
        group = groups.setdefault(free, len(groups))
        builders.append([name, f"{trunk_digest(shapes, free):016x}", structure(model), group, extra])
        facts = classes.setdefault(f"{type(model).__module__}.{type(model).__qualname__}", ({}, {}))
        modules = dict(model.named_modules())
        for names_of_role, paths in zip(facts, (_classifiers(model), free.stems), strict=True):
            names_of_role.update(dict.fromkeys(path for path in paths if path in modules))
        if number % 50 == 0:
            print(f"{number} of {len(names)}", file=sys.stderr)
    return {
        "timm": version("timm"),
        "free": [[free.heads, free.stems, free.positions] for free in groups],
        "builders": builders,
        "fixed": fixed(names),
        "classes": {name: [list(heads), list(stems)] for name, (heads, stems) in sorted(classes.items())},
    }


def fixed(names: Sequence[str]) -> list[str]:
    """Return the modules of timm with builders whose networks insist on an image size."""
    configs = ((name, timm.get_pretrained_cfg(name)) for name in names)
    sized = [name for name, config in configs if config is not None and config.fixed_input_size]
    return sorted({timm.models.model_entrypoint(name).__module__ for name in sized})


def _classifiers(model: nn.Module) -> tuple[str, ...]:
    return as_tuple(model.pretrained_cfg.get("classifier"))  # type: ignore[union-attr, operator]


def _free(model: nn.Module, shapes: Shapes) -> tuple[Free, int]:
    config: Any = model.pretrained_cfg
    heads, stems = _classifiers(model), as_tuple(config.get("first_conv"))
    learned = [key for key, shape in shapes.items() if key.endswith("pos_embed") and len(shape) == 3]
    kernel = shapes.get(f"{stems[0]}.weight", ()) if stems else ()
    size = config.get("input_size", (3, 0, 0))[1:]
    if len(learned) == 1 and len(kernel) == 4 and kernel[2] == kernel[3] and size[0] == size[1]:
        extra = shapes[learned[0]][1] - (size[0] // kernel[2]) ** 2
        if 0 <= extra <= 16:
            return Free(heads, stems, learned[0]), extra
    return Free(heads, stems), 0


def main(arguments: Sequence[str] | None = None) -> None:
    """Write the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", default="", help="a pattern of builders, for a try")
    parser.add_argument("-o", "--output", type=Path, default=Path(str(files("surgeon_timm").joinpath(FILE))))
    options = parser.parse_args(arguments)
    fingerprints = make(timm.list_models(options.only))
    lines = {
        key: "[\n" + ",\n".join(json.dumps(item, separators=(",", ":")) for item in value) + "\n]"
        for key, value in fingerprints.items()
        if isinstance(value, list)
    }
    rest = {key: json.dumps(value, separators=(",", ":")) for key, value in fingerprints.items() if key not in lines}
    text = ",\n".join(f"{json.dumps(key)}: {lines.get(key) or rest[key]}" for key in fingerprints)
    options.output.write_text(f"{{\n{text}\n}}\n", encoding="utf-8")


if __name__ == "__main__":
    main()
