"""From a source to an edited skeleton with every tensor accounted for."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from surgeon.architectures.source import Source, open_source
from surgeon.checkpoint.artifact import check_output, write
from surgeon.checkpoint.contents import ByteRange
from surgeon.checkpoint.pieces import Piece
from surgeon.data.sources import BUNDLED
from surgeon.errors import OperationError
from surgeon.graph.inputs.resolve import described
from surgeon.graph.tensors import fill, tensors_of
from surgeon.interfaces.operation import Operation
from surgeon.interfaces.record import Record, Surgeries
from surgeon.pipeline.companions import Sizes, adapt, adapt_preprocessing, unsaid
from surgeon.pipeline.gc_pause import paused_collection
from surgeon.pipeline.manifest import contents
from surgeon.plugins import Plugins
from surgeon.plugins import load as load_plugins
from surgeon.recipe.load import Recipe, load_recipe, operation_dict
from surgeon.surgery.carry_out import make_surgery, operate
from surgeon.surgery.make_plan import make_plan
from surgeon.surgery.make_record import companions_of, make_record
from surgeon.surgery.origins import Flow
from surgeon.surgery.plan import Plan
from surgeon.surgery.replay import open_skeleton

Operations = Recipe | str | Path | Operation | Sequence[Operation]
Model = str | Path | nn.Module


@dataclass
class Prepared:
    """An edited skeleton, and all that it takes to fill it."""

    model: nn.Module
    flow: Flow
    plan: Plan
    record: Record
    source: Source
    recipe: Recipe
    inputs: list[Path]
    """The files that values come from: nothing is written there."""

    def materialise(self, progress: Callable[[int], None] | None = None) -> nn.Module:
        """Let the weights flow in, and return the network.

        Args:
            progress: Called with a number of bytes each time some have arrived.
        """

        def value(name: str) -> torch.Tensor:
            tensor = self.flow.value(name)
            if progress:
                progress(tensor.nbytes)
            return tensor

        # in place, what is kept is real already
        wanted = [name for name, tensor in self.flow.tensors.items() if tensor.is_meta or self._is_derived(name)]
        fill(self.model, value, wanted)
        return self.model

    def _is_derived(self, name: str) -> bool:
        return self.flow.entry(name) is None

    def write(self, path: str | Path, *, force: bool = False, progress: Callable[[int], None] | None = None) -> Path:
        """Stream the result to disk without ever holding it in memory.

        Raises:
            OutputError: The place exists (and ``force`` is not set), is the input, or cannot be written to.
        """
        path = Path(path)
        check_output(path, force=force, inputs=self.inputs)
        pieces = [self._piece(name, tensor) for name, tensor in self.flow.tensors.items()]
        write(path, contents(self.model, pieces, self.record), progress)
        return path

    def _piece(self, name: str, tensor: torch.Tensor) -> Piece:
        entry = self.flow.entry(name)
        stored: tuple[ByteRange, ...] = ()
        if entry is not None and self.source.checkpoint is not None:
            found = self.source.checkpoint.entries[entry]
            # One that was cast goes through memory, and so does one of another shape, which is found out there.
            stored = found.stored() if (found.dtype, found.shape) == (tensor.dtype, tuple(tensor.shape)) else ()
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
    plugins: Plugins | None = None,
    inplace: bool = False,
    outputs: bool = True,
) -> Prepared:
    """Open the source, edit its skeleton and account for every tensor; nothing is read or written yet.

    Args:
        model: What to operate on: a path, ``torchvision/NAME[@WEIGHTS]``, ``hf:ORG/NAME``, an artifact, a
            module in memory; None takes the recipe's ``model``.
        operations: A recipe, the path of one, or operations.
        arch: The architecture, where neither the source nor the recipe says.
        seed: Overrides the recipe's seed.
        roles: Overrides of roles: ``{"head": "fc"}``.
        inputs: Overrides of the inputs that traces use: shapes, or tensors like those that it is called with.
        trust_pickle: Let pickles in the source execute.
        key: Which of several state dicts in the source.
        plugins: The plugins at hand; by default the built-in and installed ones.
        inplace: Edit a module in memory itself, not a copy.
        outputs: Whether the plan is to say what the result puts out, for which it is traced once more.

    Raises:
        SurgeonError: The recipe, the source or an operation is at fault; the children say which.
    """
    plugins = plugins or load_plugins()
    recipe = as_recipe(operations, plugins)
    chosen = model if model is not None else recipe.model
    if chosen is None:
        raise OperationError("there is no model to operate on", hint="name one: surgeon apply RECIPE MODEL")
    source = open_source(chosen, arch=arch or recipe.arch, trust_pickle=trust_pickle, key=key, plugins=plugins)
    surgeries = Surgeries(
        operations=[operation_dict(operation) for operation in recipe.operations],
        seed=recipe.seed if seed is None else seed,
        roles={**recipe.roles, **(roles or {})},
        inputs=described(inputs) if inputs is not None else recipe.inputs,
    )
    companions = companions_of(source)
    root, origins, mapping = open_skeleton(source, plugins, inplace=inplace)
    before, sizes = dict(tensors_of(root)), Sizes.of(root)
    flow = Flow(root, origins, source.checkpoint, mapping, surgeries.seed)
    surgery = make_surgery(root, origins, surgeries, plugins, flow.evaluate, architecture=source.architecture)
    surgery.check_roles()
    steps = [
        operate(surgery, operation, recipe.where("operations", index))
        for index, operation in enumerate(recipe.operations)
    ]
    flow = Flow(surgery.model, origins, source.checkpoint, mapping, surgeries.seed)
    flow.check()
    planned = make_plan(source, steps, surgery, flow, before, outputs=outputs)
    beside = adapt(companions, recipe.operations, sizes, surgery.model)
    donated = [file for donor in surgery.donors.values() for file in donor.checkpoint.files]
    surgeries = surgeries.model_copy(
        update={
            "answers": surgery.answers,
            "source": source.location,
            "text": recipe.text,
            "plugins": _foreign(recipe, plugins),
            "kept": {fact.name: fact.source for fact in planned.tensors if fact.origin == "kept"},
            "made": {fact.name: fact.by for fact in planned.tensors if fact.origin != "kept"},
            "donors": {name: donor.fingerprint for name, donor in surgery.donors.items()},
        }
    )
    record = make_record(source, surgeries, beside.companions)
    record.preprocessing = adapt_preprocessing(record.preprocessing, recipe.operations)
    notes = [*planned.notes, *beside.notes, *unsaid(record, recipe.sources)]
    planned = dataclasses.replace(planned, notes=tuple(notes))
    return Prepared(
        model=surgery.model,
        flow=flow,
        plan=planned,
        record=record,
        source=source,
        recipe=recipe,
        inputs=[*(source.checkpoint.files if source.checkpoint else []), *donated],
    )


def _foreign(recipe: Recipe, plugins: Plugins) -> dict[str, str]:
    used: dict[str, set[type]] = {"operation": {type(operation) for operation in recipe.operations}}
    if sources := {type(source) for source in recipe.sources} - set(BUNDLED):
        used["source"] = sources
    return plugins.foreign(used)


def as_recipe(operations: Operations, plugins: Plugins) -> Recipe:
    """A recipe from whatever says what to do."""
    if isinstance(operations, Recipe):
        return operations
    if isinstance(operations, (str, Path)):
        return load_recipe(operations, plugins=plugins)
    if isinstance(operations, Operation):
        operations = [operations]
    for operation in operations:
        if not isinstance(operation, Operation):
            raise OperationError(f"{operation!r} is no operation", hint="for example surgeon.Truncate(after='layer3')")
    if not operations:
        raise OperationError("there is no operation to apply", hint="for example surgeon.Truncate(after='layer3')")
    return Recipe(operations=list(operations))
