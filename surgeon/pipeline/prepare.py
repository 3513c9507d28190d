"""Open a source and edit its skeleton, accounting for every tensor; reads no weights and writes nothing."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from surgeon.architectures.limits import check_request
from surgeon.architectures.source import Source
from surgeon.architectures.trust import TrustCode, with_trust
from surgeon.checkpoint.artifact import check_output, write
from surgeon.checkpoint.contents import ByteRange, Checkpoint
from surgeon.checkpoint.pieces import Piece
from surgeon.checkpoint.unchanged import unchanged
from surgeon.data.sources import BUNDLED
from surgeon.errors import OperationError
from surgeon.graph.inputs.resolve import described
from surgeon.graph.tensors import fill, tensors_of
from surgeon.interfaces.data import source_name
from surgeon.interfaces.operation import Operation
from surgeon.interfaces.record import Record, Surgeries
from surgeon.interfaces.registered import UNREGISTERED
from surgeon.interfaces.returned import origin_of
from surgeon.pipeline.companions import Sizes, adapt, adapt_preprocessing, missing_statistics_notes
from surgeon.pipeline.gc_pause import paused_collection
from surgeon.pipeline.manifest import contents, reload_note
from surgeon.pipeline.reference_outputs import Reference
from surgeon.pipeline.still_runs import refuse_if_broken
from surgeon.pipeline.unregistered import refuse_unregistered
from surgeon.plugins import Plugins, as_plugins
from surgeon.recipe.load import Recipe, load_recipe, operation_dict
from surgeon.recipe.reach import reaches
from surgeon.recipe.recorded import resolved
from surgeon.recipe.recorded_plugins import foreign
from surgeon.surgery.make_plan import make_plan
from surgeon.surgery.make_record import companions_of, make_record
from surgeon.surgery.opened import Model, OpenedNetwork, OpenOptions
from surgeon.surgery.origins import Flow
from surgeon.surgery.plan import Plan
from surgeon.surgery.replay import open_network

Operations = Recipe | str | Path | Operation | Sequence[Operation]
"""The operations to apply: a recipe, the path of one, one operation, or several."""

EXAMPLE = "for example surgeon.Truncate(after='layer3')"


@dataclass
class Prepared:
    """An edited skeleton, with everything needed to fill it.

    Attributes:
        model: The edited skeleton.
        flow: Returns the values of its tensors.
        plan: What the operations change.
        record: How the network was made.
        opened: The network before the operations.
        recipe: The recipe.
        read_from: The checkpoints with the values.
    """

    model: nn.Module
    flow: Flow
    plan: Plan
    record: Record
    opened: OpenedNetwork
    recipe: Recipe
    read_from: list[Checkpoint]

    @property
    def inputs(self) -> list[Path]:
        """The files that values are read from: nothing may be written there."""
        return [file for checkpoint in self.read_from for file in checkpoint.files]

    @property
    def source(self) -> Source:
        """The source that was opened."""
        return self.opened.source

    @property
    def plugins(self) -> Plugins:
        """The plugins of the run, with the trusted code."""
        return self.opened.options.plugins

    def materialise(self, progress: Callable[[int], None] | None = None) -> nn.Module:
        """Fill the skeleton with its weights and return it.

        Args:
            progress: Called with the number of bytes after each read.
        """

        def value(name: str) -> torch.Tensor:
            tensor = self.flow.value(name)
            if progress:
                progress(tensor.nbytes)
            return tensor

        # kept tensors of a network edited in place have their values
        empty = [name for name, tensor in self.flow.tensors.items() if tensor.is_meta or self._is_derived(name)]
        with unchanged(self.read_from):
            fill(self.model, value, empty)
        return self.model

    def _is_derived(self, name: str) -> bool:
        return self.flow.entry(name) is None

    def write(
        self,
        path: str | Path,
        *,
        force: bool = False,
        progress: Callable[[int], None] | None = None,
        check: Callable[[Path], object] | None = None,
        reference: Reference | None = None,
    ) -> Path:
        """Stream the result to disk without holding it in memory.

        Args:
            path: A folder, or a file that ends in ``.safetensors`` or ``.pt``.
            force: Whether to replace what exists.
            progress: Called with the number of bytes after each write.
            check: Inspects the written artifact before it replaces the path; if it raises, the path stays as it was.
            reference: A forward of the result, to be recorded.

        Raises:
            CheckpointError: A file changed while it was read.
            OutputError: The path exists (and ``force`` is not set), is the input, or cannot be written to.
        """
        path = Path(path)
        refuse_unregistered(self.record, path)
        check_output(path, force=force, inputs=self.inputs)

        def checked(written: Path) -> None:
            with unchanged(self.read_from):
                if check is not None:
                    check(written)

        pieces = [self._piece(name, tensor) for name, tensor in self.flow.tensors.items()]
        write(
            path,
            contents(self.model, pieces, self.record, self.plugins.architectures(), reference),
            progress,
            force=force,
            check=checked,
        )
        return path

    def _piece(self, name: str, tensor: torch.Tensor) -> Piece:
        entry = self.flow.entry(name)
        stored: tuple[ByteRange, ...] = ()
        if entry is not None and self.source.checkpoint is not None:
            stored_entry = self.source.checkpoint.entries[entry]
            # a cast tensor is read into memory; so is one of another shape, which is then refused
            stored = (
                stored_entry.stored()
                if (stored_entry.dtype, stored_entry.shape) == (tensor.dtype, tuple(tensor.shape))
                else ()
            )
        value = lambda: self.flow.value(name)  # noqa: E731
        return Piece(name, tensor.dtype, tuple(tensor.shape), tensor.nbytes, stored, value)


@paused_collection()
def prepare(
    model: Model | None,
    operations: Operations,
    *,
    arch: str | None = None,
    seed: int | None = None,
    roles: Mapping[str, Any] | None = None,
    inputs: Any = None,
    trust_pickle: bool = False,
    key: str | None = None,
    trust_code: TrustCode = (),
    plugins: Plugins | Sequence[str] | None = None,
    inplace: bool = False,
    outputs: bool = True,
    planning: bool = False,
) -> Prepared:
    """Open a model, edit its skeleton and account for every tensor; reads no weights and writes nothing.

    Args:
        model: The network: a path, ``torchvision/NAME[@WEIGHTS]``, ``hf:ORG/NAME``, an artifact, or a module in memory;
            None for the recipe's ``model``.
        operations: A recipe, the path of one, one operation, or several.
        arch: What builds the network, if neither the source nor the recipe says.
        seed: The seed of new values, overriding the recipe's.
        roles: Roles of sites, such as ``{"head": "fc"}``, added to the recipe's or overriding them by name.
        inputs: The inputs to trace with, overriding the recipe's: shapes, or tensors like those of a call.
        trust_pickle: Whether pickles in the source may run code.
        key: Which of several state dicts in the source to use.
        trust_code: Modules, named in the recipe or a manifest (``python:package.module:function``), that may run.
        plugins: The plugins, or files and modules to load beside the built-in and installed ones (the default).
        inplace: Whether to edit a module in memory itself instead of a copy.
        outputs: Whether to trace the result, so that the plan lists its outputs.
        planning: Whether only the plan is wanted; choices that need weights are not made then, and nothing can be
            written.

    Raises:
        SurgeonError: The recipe, the source or an operation is invalid; the class of the error says which.
    """
    plugins = as_plugins(plugins)
    recipe = as_recipe(operations, plugins)
    plugins = with_trust(plugins, trust_code, model, arch, *recipe.typed)
    chosen = model if model is not None else recipe.model
    if chosen is None:
        raise OperationError("no model is given", hint="give one: surgeon apply RECIPE MODEL")
    surgeries = Surgeries(
        operations=[operation_dict(operation) for operation in recipe.operations],
        resolved=resolved(recipe.operations, plugins),
        seed=recipe.seed if seed is None else seed,
        roles={**recipe.roles, **(roles or {})},
        inputs=described(inputs) if inputs is not None else recipe.inputs,
    )
    check_request(surgeries.operations, surgeries.inputs, str(recipe.path or "the recipe"))
    options = OpenOptions(arch or recipe.arch, key, trust_pickle, plugins, surgeries.seed)
    opened = open_network(chosen, options, inplace=inplace)
    companions = companions_of(opened.source)
    before, sizes = dict(tensors_of(opened.root)), Sizes.of(opened.root)
    course = opened.course(surgeries, planning=planning)
    course.surgery.check_roles()
    steps = [
        course.operate(operation, recipe.where("operations", index))
        for index, operation in enumerate(recipe.operations)
    ]
    flow = opened.flow(seed=surgeries.seed, root=course.root)
    flow.check()
    source, journal = opened.source, course.journal
    if outputs and recipe.must_run:
        refuse_if_broken(course.surgery, opened, surgeries)
    planned = make_plan(source, steps, course.surgery, flow, before, read=journal.read, outputs=outputs)
    if outputs and (note := reload_note(course.root, surgeries.inputs)):
        planned = replace(planned, notes=(*planned.notes, note))
    kept_names = {fact.name: fact.source for fact in planned.tensors if fact.origin == "kept"}
    adapted = adapt(
        companions, recipe.operations, sizes, course.root, {new: old for new, old in kept_names.items() if old}
    )
    surgeries = surgeries.model_copy(
        update={
            "answers": journal.answers,
            "source": source.location,
            "text": recipe.text,
            "plugins": _foreign(recipe, plugins, source, journal.answers),
            "kept": kept_names,
            "derived": [fact.name for fact in planned.tensors if fact.origin == "derived"],
            "made": {fact.name: fact.by for fact in planned.tensors if fact.origin != "kept"},
            "donors": {name: donor.fingerprint for name, donor in journal.donors.items()},
        }
    )
    record = make_record(source, surgeries, adapted.companions)
    record.preprocessing = adapt_preprocessing(record.preprocessing, recipe.operations)
    notes = [*planned.notes, *adapted.notes, *missing_statistics_notes(record, recipe.sources)]
    notes += _other_dtypes(course.root) if recipe.train is not None else []
    planned = dataclasses.replace(planned, notes=tuple(notes))
    read_from = [source.checkpoint, *(donor.checkpoint for donor in journal.donors.values())]
    return Prepared(
        model=course.root,
        flow=flow,
        plan=dataclasses.replace(planned, reaches=tuple(reaches(recipe))),
        record=record,
        opened=opened,
        recipe=recipe,
        read_from=[checkpoint for checkpoint in read_from if checkpoint is not None],
    )


def _foreign(recipe: Recipe, plugins: Plugins, source: Source, answers: Mapping[str, Any]) -> dict[str, str]:
    """Return what plugins offered for a recipe: operations, sources, and what builds its networks."""
    used = {"operation": [o.name for o in recipe.operations if plugins.operations().get(o.name) is type(o)]}
    if sources := [source_name(type(data)) for data in recipe.sources if type(data) not in BUNDLED]:
        used["source"] = sources
    located = [answer["scheme"] for name, answer in answers.items() if "/architecture" in name]
    used["architecture"] = [*located, *([source.architecture.scheme] if source.architecture else [])]
    unregistered = {
        f"operation {operation.name}": f"{origin_of(type(operation))}{UNREGISTERED}"
        for operation in recipe.operations
        if plugins.operations().get(operation.name) is not type(operation)
    }
    return {**foreign(plugins, used), **unregistered}


def as_recipe(operations: Operations, plugins: Plugins) -> Recipe:
    """Convert operations in any form of :data:`Operations` to a recipe."""
    if isinstance(operations, Recipe):
        return operations
    if isinstance(operations, (str, Path)):
        return load_recipe(operations, plugins=plugins)
    if isinstance(operations, Operation):
        operations = [operations]
    for operation in operations:
        if not isinstance(operation, Operation):
            raise OperationError(f"{operation!r} is not an operation", hint=EXAMPLE)
    if not operations:
        raise OperationError("there is no operation to apply", hint=EXAMPLE)
    return Recipe(operations=list(operations))


def _other_dtypes(root: nn.Module) -> list[str]:
    """Return a note if the weights to train are not of 32 bits."""
    kinds = sorted({str(p.dtype).removeprefix("torch.") for p in root.parameters() if p.is_floating_point()})
    if not kinds or kinds == ["float32"]:
        return []
    return [
        f"the weights to train are {', '.join(kinds)}; {{op: convert, dtype: float32}} as an operation upcasts them"
    ]
