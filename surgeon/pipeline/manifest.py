"""The manifest of an artifact: how it was made, and what every tensor in it is."""

from __future__ import annotations

import io
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from ruamel.yaml import YAML
from torch import nn

from surgeon.architectures.same_structure import differing_setting
from surgeon.checkpoint.pieces import Contents, Piece
from surgeon.families.transformers.fields import MUTABLE
from surgeon.graph.skeleton import build_skeleton
from surgeon.graph.tensors import aliases_of, tensors_of
from surgeon.interfaces.distribution import surgeon_version
from surgeon.interfaces.record import FORMAT, Record

PACKAGES = ("torch", "torchvision", "transformers")


def contents(model: nn.Module, pieces: list[Piece], record: Record) -> Contents:
    """What an artifact of ``model`` holds.

    Args:
        model: The network, or its skeleton.
        pieces: Its tensors.
        record: How it was made.
    """
    manifest: dict[str, Any] = {
        "format": FORMAT,
        "record": record.model_dump(mode="json"),
        "aliases": aliases_of(model),
        "frozen": sorted(n for n, p in model.named_parameters() if not p.requires_grad),
        "versions": _versions(),
    }
    return Contents(pieces, manifest, recipe_of(record), stock_config(model))


def recipe_of(record: Record) -> str:
    """The last recipe of a record, as it was written or, made in Python, written out."""
    if not record.surgeries:
        return dump_recipe({"operations": []})
    last = record.surgeries[-1]
    fields = {"operations", "seed", "roles", "inputs"}
    return last.text or dump_recipe(last.model_dump(mode="json", include=fields, exclude_none=True))


def dump_recipe(data: dict[str, Any]) -> str:
    """A recipe as YAML."""
    stream = io.StringIO()
    yaml = YAML()
    yaml.default_flow_style = False
    yaml.dump(data, stream)
    return stream.getvalue()


def stock_config(model: nn.Module) -> dict[str, Any] | None:
    """The transformers config that rebuilds ``model``, where it is a stock class; else None.

    The class alone does not say so: a cut or re-headed network may not be what its config builds. So a
    skeleton is built from the config, and its names, its shapes and the settings of its blocks compared: some layers
    compute constants from their position.
    """
    cls = type(model)
    config = getattr(model, "config", None)
    if not cls.__module__.startswith("transformers.") or config is None:
        return None
    try:
        rebuilt = build_skeleton(lambda: cls(config.__class__.from_dict(config.to_dict())))
    except Exception:  # whatever a config of somebody's raises, it does not rebuild the model
        return None
    if _shapes(rebuilt) != _shapes(model):
        return None
    blocks = [name for name, _ in model.named_modules() if name.rpartition(".")[2].isdigit()]
    if differing_setting(model, rebuilt, within=blocks, mutable=MUTABLE) is not None:
        return None
    written: dict[str, Any] = config.to_dict() | {"architectures": [cls.__name__]}
    dtype = next((p.dtype for p in model.parameters() if p.is_floating_point()), None)
    if dtype is not None:
        written["dtype"] = str(dtype).removeprefix("torch.")
    return written


def _shapes(model: nn.Module) -> dict[str, tuple[int, ...]]:
    return {name: tuple(tensor.shape) for name, tensor in tensors_of(model)}


def _versions() -> dict[str, str]:
    ours = surgeon_version()
    found = {"surgeon": ours} if ours else {}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found
