"""Open a network: build its skeleton, replay the operations of earlier recipes, match its tensors."""

from __future__ import annotations

from collections.abc import Mapping
from importlib.metadata import version as installed_version

import torch
from torch import nn

from surgeon.architectures.artifact_record import writer_of
from surgeon.architectures.source import Source
from surgeon.checkpoint.formats import Checkpoint
from surgeon.errors import ArchitectureError, OperationError, PluginError
from surgeon.graph.skeleton import build_skeleton, built_under, skeleton_of
from surgeon.graph.tensors import aliases_of, fill, tensors_of
from surgeon.interfaces.distribution import surgeon_version
from surgeon.interfaces.record import Surgeries
from surgeon.plugins import Plugins
from surgeon.recipe.recorded import recorded_operations
from surgeon.recipe.recorded_plugins import compare_parts
from surgeon.surgery.compare_state import compare_state
from surgeon.surgery.course import Course
from surgeon.surgery.opened import Model, OpenedNetwork, OpenOptions
from surgeon.surgery.origins import Derived, Fresh, Kept, Missing, New, Origin, Origins


def open_network(model: Model, options: OpenOptions, *, inplace: bool = False) -> OpenedNetwork:
    """Open a network: identify it, build its skeleton, replay its earlier operations, match its tensors.

    Args:
        model: What to open.
        options: How to open it.
        inplace: Edit the module in memory itself, not a skeleton of it.

    Raises:
        CheckpointError: The file does not exist or cannot be read.
        ArchitectureError: The network cannot be identified or built, or the tensors do not fit it.
        OperationError: ``inplace`` is set, and ``model`` is not a module in memory.
    """
    return open_from(options.source(model), options, inplace=inplace)


def open_from(source: Source, options: OpenOptions, *, inplace: bool = False) -> OpenedNetwork:
    """Open a network whose source is already open; see :func:`open_network`."""
    if source.module is not None:
        root = source.module if inplace else skeleton_of(source.module)
    elif inplace:
        raise OperationError("only a module in memory can be edited in place")
    else:
        with built_under(source.surgeries[0].seed if source.surgeries else options.seed):
            root = build_skeleton(options.builder) if options.builder else source.skeleton()
        for surgeries in source.surgeries:
            root = _replay(root, surgeries, source, options.plugins)
        if source.record is not None and source.checkpoint is not None:
            _match_artifact(root, source.checkpoint)
            compare_state(root, source.checkpoint, strict=options.strict)
            compare_parts(source.record, options.plugins, source.location)
    names = [name for name, _ in tensors_of(root)]
    mapping = source.mapping if source.mapping is not None else {name: name for name in names}
    origins = Origins()
    fresh = Fresh(source.initialised)
    for name, tensor in tensors_of(root):
        origins.set(tensor, _first_origin(source, name, tensor, fresh))
    if source.checkpoint is not None and source.module is None:
        _fit_dtypes(root, source.checkpoint, mapping, origins)
    return OpenedNetwork(root, origins, mapping, source, options)


def _first_origin(source: Source, name: str, tensor: torch.Tensor, whole: Fresh) -> Origin:
    if source.checkpoint is None or name in source.computed:
        return New(whole, name, "the architecture's own initialisation")
    if name in source.filled:
        shape, dtype = tensor.shape, tensor.dtype
        return Derived((), lambda: torch.zeros(shape, dtype=dtype), "surgeon")
    return Missing(name) if name in source.missing else Kept(name)


def _replay(root: nn.Module, surgeries: Surgeries, source: Source, plugins: Plugins) -> nn.Module:
    """Run recorded operations on a skeleton. The origins that they set are discarded: the values are in the file."""
    origins = Origins()
    for name, tensor in tensors_of(root):
        origins.set(tensor, Missing(name))

    def no_values(origin: Origin) -> torch.Tensor:
        raise ArchitectureError("an operation that reads weights while it edits cannot be replayed")

    course = Course(root, origins, surgeries, plugins, no_values, architecture=source.architecture, replay=True)
    for operation in recorded_operations(surgeries, plugins, source=f"{source.location}: its manifest"):
        try:
            course.operate(operation)
        except PluginError as error:
            message = f"its manifest cannot be replayed: {operation.name} {error.message}"
            raise ArchitectureError(message, where=source.location) from error
    return course.root


def _match_artifact(root: nn.Module, checkpoint: Checkpoint) -> None:
    names = {name for name, _ in tensors_of(root)}
    stored = set(checkpoint.entries) - set(aliases_of(root))
    if names != stored:
        lacks, extra = sorted(names - stored), sorted(stored - names)
        raise ArchitectureError(
            f"{checkpoint.location}: the tensors do not fit the replayed recipe: "
            f"{len(lacks)} lacking {lacks[:3]}, {len(extra)} too many {extra[:3]}",
            hint=_versions(checkpoint),
        )


def _versions(checkpoint: Checkpoint) -> str:
    """Name the packages that the artifact was written with, where the installed versions differ."""
    installed = {name: installed_version(name) for name in ("torch", "torchvision", "transformers")}
    installed["surgeon"] = surgeon_version() or "unknown"
    written = {package: writer_of(checkpoint.manifest or {}, package) for package in installed}
    differing = [
        f"{package} {then} (here {installed[package]})"
        for package, then in written.items()
        if then and installed[package] != then
    ]
    return f"it was written with {', '.join(differing)}" if differing else "make the artifact again from its recipe"


def made_with(source: Source) -> str:
    """Say what an artifact was made with, where its network comes out otherwise: its plugins, and other versions."""
    origins = {origin for surgeries in source.surgeries for origin in surgeries.plugins.values()}
    named = f"its operations came from {', '.join(sorted(origins))}; " if origins else ""
    return named + (_versions(source.checkpoint) if source.checkpoint else "")


def _fit_dtypes(root: nn.Module, checkpoint: Checkpoint, mapping: Mapping[str, str], origins: Origins) -> None:
    """Give the skeleton the dtypes of the checkpoint, so that kept tensors are copied byte for byte."""
    old = dict(tensors_of(root))
    dtypes = {}
    for name, tensor in old.items():
        entry = checkpoint.entries.get(mapping.get(name, name))
        if entry is None:
            continue
        if tuple(entry.shape) != tuple(tensor.shape):
            raise ArchitectureError(
                f"{name} has shape {entry.shape}, not {tuple(tensor.shape)}", where=checkpoint.location
            )
        if entry.dtype != tensor.dtype:
            dtypes[name] = entry.dtype
    fill(root, lambda name: torch.empty_like(old[name], dtype=dtypes[name]), list(dtypes))
    for name, tensor in tensors_of(root):
        origins.remember(old[name], tensor)
