"""Make ``fingerprints.json`` for the installed torchvision: ``python -m surgeon.architectures.make_fingerprints``."""

from __future__ import annotations

import json
from collections.abc import Iterator
from importlib.resources import files
from pathlib import Path
from typing import Any

from surgeon.architectures.fingerprints import FILE, Keys, Row, class_name, top_of
from surgeon.architectures.identify import build
from surgeon.architectures.torchvision import Torchvision
from surgeon.errors import ArchitectureError
from surgeon.interfaces.architecture_name import Architecture

# Builders with optional parts, and the options of their non-default variants.
FORMS: dict[str, dict[str, Any]] = {
    "googlenet": {"aux_logits": False},
    "inception_v3": {"aux_logits": False},
    "fcn_": {"aux_loss": True},
    "deeplabv3_": {"aux_loss": True},
}


# Options that change shapes, with a value for finding out which tensors and dimensions they change.
PROBES = {"num_classes": 11, "num_keypoints": 7, "image_size": 448}


def rows() -> Iterator[dict[str, Any]]:
    """Build and describe every variant of every builder of the installed torchvision."""
    provider = Torchvision()
    for name in provider.names():
        forms = [{}, *(options for part, options in FORMS.items() if part in name)]
        for options in forms:
            yield _row(provider, Architecture(scheme="torchvision", name=name, options=options))


def _row(provider: Torchvision, architecture: Architecture) -> dict[str, Any]:
    model = build(provider, architecture)
    shapes = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    free: dict[str, dict[str, tuple[int, int]]] = {}
    for option, value in PROBES.items():
        probe = architecture.model_copy(update={"options": {**architecture.options, option: value}})
        try:
            probed = build(provider, probe).state_dict()
        except ArchitectureError:
            continue  # this builder has no such option
        shaped = {}
        for key, shape in shapes.items():
            sizes = tuple(probed[key].shape)
            changed = [d for d, size in enumerate(shape) if size != sizes[d]]
            if changed:
                factor = 0 if option == "image_size" else sizes[changed[0]] // value
                shaped[key] = (changed[0], factor)
        if shaped:
            free[option] = shaped
    heads = {top_of(key) for key in free.get("num_classes", {})}
    keys = Keys(shapes)
    row = Row(architecture.name, architecture.options, class_name(model), 0, 0, len(shapes), "", free)
    return {
        "name": row.name,
        "options": row.options,
        "module": row.module,
        "trunk": f"{keys.without({key for shaped in free.values() for key in shaped}):016x}",
        "body": f"{keys.without({key for key in shapes if top_of(key) in heads}):016x}",
        "tensors": row.tensors,
        "children": " ".join(name for name, _ in model.named_children()),
        "free": free,
        "defaults": row.read_options(shapes) or {},
    }


def main() -> None:
    """Write ``fingerprints.json`` for the installed torchvision."""
    path = Path(str(files("surgeon.architectures").joinpath(FILE)))
    lines = ",\n".join(json.dumps(row, separators=(",", ":")) for row in rows())
    path.write_text(f"[\n{lines}\n]\n", encoding="utf-8")


if __name__ == "__main__":
    main()
