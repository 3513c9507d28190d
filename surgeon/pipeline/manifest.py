"""Make the manifest of an artifact: how it was made, and what its tensors are."""

from __future__ import annotations

import io
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from ruamel.yaml import YAML
from torch import nn

from surgeon.architectures.identify import build
from surgeon.checkpoint.pieces import Contents, Piece
from surgeon.errors import ArchitectureError
from surgeon.graph.skeleton import build_skeleton
from surgeon.graph.tensors import aliases_of, tensors_of
from surgeon.interfaces.architecture import ArchitectureProvider
from surgeon.interfaces.distribution import surgeon_version
from surgeon.interfaces.record import FORMAT, Record
from surgeon.pipeline.reference_outputs import KEY as OUTPUTS
from surgeon.pipeline.reference_outputs import Reference
from surgeon.pipeline.stock_reload import library_difference, stock_difference
from surgeon.surgery.compare_state import KEY as STATE
from surgeon.surgery.compare_state import sketch_state

PACKAGES = ("torch", "torchvision", "transformers")
KEYS = {
    "format": "The number of this form of the manifest.",
    "record": "What the network was made from, and how: see Record.",
    "aliases": "Names of tied tensors that are not in the file, each with the name that is.",
    "frozen": "The parameters that do not train.",
    "versions": "The versions of surgeon and of the libraries that built the network.",
    STATE: "A sketch of what is in no checkpoint: buffers and settings of modules, to compare after loading.",
    OUTPUTS: "A forward: its input, and a sketch of each output with a tolerance, to compare after loading.",
    "companions": "Files from beside the source's weights, with where each came from and its digest.",
    "files": "The size and XXH3 digest of every other file.",
    "digest": "The digest of the manifest itself.",
}
"""The keys of a manifest, for the reference. The last two are added where files are written."""


def contents(
    model: nn.Module,
    pieces: list[Piece],
    record: Record,
    providers: Mapping[str, ArchitectureProvider],
    reference: Reference | None = None,
) -> Contents:
    """Collect the contents of an artifact of ``model``.

    Args:
        model: The network, or its skeleton.
        pieces: Its tensors.
        record: How it was made.
        providers: The architecture providers, by scheme.
        reference: A forward of it, where it was run.
    """
    manifest: dict[str, Any] = {
        "format": FORMAT,
        "record": record.model_dump(mode="json", exclude=set() if record.preprocessing else {"preprocessing"}),
        "aliases": aliases_of(model),
        "frozen": sorted(n for n, p in model.named_parameters() if not p.requires_grad),
        "versions": _versions(),
    }
    if state := reference.state if reference is not None else sketch_state(model):
        manifest[STATE] = dict(state)
    if reference is not None and (outputs := reference.recorded()) is not None:
        manifest[OUTPUTS] = outputs
    inputs = record.surgeries[-1].inputs if record.surgeries else None
    if record.companions:
        manifest["companions"] = {companion.name: companion.fact() for companion in record.companions}
    config = stock_config(model, inputs) or library_config(model, record, providers, inputs)
    return Contents(pieces, manifest, recipe_of(record), config, record.companions)


def recipe_of(record: Record) -> str:
    """Return the last recipe of a record: its text, or YAML for a recipe made in Python."""
    if not record.surgeries:
        return dump_recipe({"operations": []})
    last = record.surgeries[-1]
    fields = {"operations", "seed", "roles", "inputs"}
    return last.text or dump_recipe(last.model_dump(mode="json", include=fields, exclude_none=True))


def dump_recipe(data: dict[str, Any]) -> str:
    """Format a recipe as YAML."""
    stream = io.StringIO()
    yaml = YAML()
    yaml.default_flow_style = False
    yaml.dump(data, stream)
    return stream.getvalue()


def stock_config(model: nn.Module, inputs: Any = None) -> dict[str, Any] | None:
    """Return the transformers config that rebuilds ``model``; None if it is not a stock class.

    The class alone does not decide: a network that was cut or got another head may differ from what its config builds.
    So a skeleton is built from the config, and names, shapes and settings are compared.

    Args:
        model: The network, or its skeleton.
        inputs: The recipe's override of the traced inputs.
    """
    rebuilt = rebuilt_from_config(model)
    if rebuilt is None or stock_difference(model, rebuilt, inputs):
        return None
    config: Any = model.config
    written: dict[str, Any] = config.to_dict() | {"architectures": [type(model).__name__]}
    dtype = next((p.dtype for p in model.parameters() if p.is_floating_point()), None)
    if dtype is not None:
        written["dtype"] = str(dtype).removeprefix("torch.")
    return written


def library_config(
    model: nn.Module, record: Record, providers: Mapping[str, ArchitectureProvider], inputs: Any = None
) -> dict[str, Any] | None:
    """Return the ``config.json`` with which the library of a provider loads ``model``; None if it does not rebuild it.

    Args:
        model: The network, or its skeleton.
        record: How it was made.
        providers: The architecture providers, by scheme.
        inputs: The recipe's override of the traced inputs.
    """
    architecture = record.architecture
    provider = providers.get(architecture.scheme) if architecture is not None else None
    if architecture is None or provider is None:
        return None
    for form in provider.stock(architecture, model):
        try:
            rebuilt = build(provider, form)
        except ArchitectureError:
            continue
        if _shapes(rebuilt) == _shapes(model) and not library_difference(model, rebuilt, inputs):
            return provider.config(rebuilt, record.preprocessing.get("pictures"))
    return None


def reload_note(model: nn.Module, inputs: Any) -> str:
    """Return why a network of a stock class gets no ``config.json``; empty if it gets one or has another class."""
    rebuilt = rebuilt_from_config(model)
    different = stock_difference(model, rebuilt, inputs) if rebuilt is not None else ""
    return f"from_pretrained would give other outputs, so no config.json is written: {different}" if different else ""


def rebuilt_from_config(model: nn.Module) -> nn.Module | None:
    """Return the skeleton that the config of ``model`` builds, if names and shapes of its tensors are the same."""
    cls = type(model)
    config = getattr(model, "config", None)
    if not cls.__module__.startswith("transformers.") or config is None:
        return None
    try:
        rebuilt = build_skeleton(lambda: cls(config.__class__.from_dict(config.to_dict())))
    except Exception:  # a third-party config may raise anything; it does not rebuild the model
        return None
    return rebuilt if _shapes(rebuilt) == _shapes(model) else None


def _shapes(model: nn.Module) -> dict[str, tuple[int, ...]]:
    return {name: tuple(tensor.shape) for name, tensor in tensors_of(model)}


def _versions() -> dict[str, str]:
    own_version = surgeon_version()
    versions = {"surgeon": own_version} if own_version else {}
    for package in PACKAGES:
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            continue
    return versions
