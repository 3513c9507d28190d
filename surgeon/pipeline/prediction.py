"""Predict with a network as it was trained: its preprocessing, its classes by name, all samples."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch import nn

from surgeon.architectures.trust import TrustCode, with_trust
from surgeon.errors import TrainingError, name_nearest_option
from surgeon.interfaces.operation import Operation
from surgeon.interfaces.record import Record, record_of
from surgeon.nn.attribute_table import Row, mapping_of, read_table
from surgeon.nn.zero_shot import with_classes
from surgeon.pipeline.api import load
from surgeon.pipeline.given_data import Data, Reading, named_network
from surgeon.pipeline.recorded_inputs import recorded_inputs
from surgeon.plugins import Plugins, as_plugins
from surgeon.recipe.recorded import recorded_operations
from surgeon.surgery.opened import Model
from surgeon.training.predicting import BATCH, Predictions, predict_samples

PartName = Literal["train", "validation", "test"]


@name_nearest_option
def predict(
    model: Model,
    data: Data,
    *,
    output: str | None = None,
    classes: Sequence[str] | None = None,
    part: PartName | None = None,
    on_error: Literal["fail", "skip"] = "fail",
    add_classes: str | Path | Mapping[str, Row] | None = None,
    only: bool = False,
    batch_size: int = BATCH,
    device: str | None = None,
    arch: str | None = None,
    seed: int | None = None,
    key: str | None = None,
    trust_pickle: bool = False,
    trust_code: TrustCode = (),
    trust_recipe: bool = False,
    plugins: Plugins | Sequence[str] | None = None,
) -> Predictions:
    """Say what a network makes of samples, a row for each, classes by their names.

    Samples become inputs as they did in training, by the record of the network. All of the data are predicted.

    Args:
        model: What :func:`surgeon.load` takes, or a network in memory.
        data: A picture, a sound, a text file (a text a line), a table, a folder of these, with or without a folder
            for each class, a pattern (``shots/*.png``), or several of these; a source as a recipe writes it; a recipe
            with a ``train:`` section; or datasets from Python. Labels may be missing.
        output: Which output; the network's own prediction if left out.
        classes: The names of the classes in the order of the outputs, where the network has none.
        part: Predict this part of the data only.
        on_error: ``skip`` leaves out a sample that cannot be read, with a note; else it is an error.
        add_classes: For a head that scores by attributes: classes to score too, or a CSV file of them.
        only: Score the added classes alone.
        batch_size: How many samples are computed at a time.
        device: Where to compute, as in ``cuda``; where a network in memory lies, else the GPU if there is one.
        arch: What builds the network, where the source does not say.
        seed: Draws samples, where a source of data draws.
        key: Which of several state dicts in the source to take.
        trust_pickle: Let pickles in the source run code.
        trust_code: Modules that a manifest names and that may run.
        trust_recipe: Let a tokenizer be fetched that the record names.
        plugins: The plugins, or files and modules to load beside the built-in and installed ones.

    Raises:
        TrainingError: The data cannot be read, or do not go with the network.
        SurgeonError: The network cannot be loaded; the class of the error says why.
    """
    if only and add_classes is None:
        raise TrainingError("only is of the classes that add_classes adds, and none are added")
    ready = ReadyModel.of(
        model,
        device=device,
        arch=arch,
        key=key,
        trust_pickle=trust_pickle,
        trust_code=trust_code,
        plugins=plugins,
    )
    network = ready.model
    if add_classes is not None:
        table = add_classes if isinstance(add_classes, Mapping) else mapping_of(read_table(add_classes))
        network = with_classes(network, table, only=only)
    facts = named_network(network, ready.operations, classes)
    recorded = recorded_inputs(ready.record, trusted=trust_recipe)
    reading = Reading(ready.model, recorded, facts, ready.plugins, part, seed, on_error)
    samples = reading.samples(data)
    return predict_samples(network, samples, facts, ready.operations, output=output, batch_size=batch_size)


@dataclass(frozen=True)
class ReadyModel:
    """A network to predict with.

    Attributes:
        model: The network.
        record: How it was made; None where surgeon did not make it.
        operations: The operations that it has been through.
        plugins: The plugins, with the trust that the caller gave.
    """

    model: nn.Module
    record: Record | None
    operations: list[Operation]
    plugins: Plugins

    @classmethod
    def of(
        cls,
        model: Model,
        *,
        device: str | None,
        arch: str | None,
        key: str | None,
        trust_pickle: bool,
        trust_code: TrustCode,
        plugins: Plugins | Sequence[str] | None,
    ) -> ReadyModel:
        """Load a network; one in memory is taken as it is."""
        typed: list[Any] = [arch] if isinstance(model, nn.Module) else [str(model), arch]
        plugins = with_trust(as_plugins(plugins), trust_code, *typed)
        if not isinstance(model, nn.Module):
            model = load(model, arch=arch, key=key, trust_pickle=trust_pickle, trust_code=trust_code, plugins=plugins)
            device = device or ("cuda" if torch.cuda.is_available() else None)
        if device is not None:
            model = model.to(device)
        record = record_of(model)
        past = record.surgeries if record else []
        operations = [operation for surgeries in past for operation in recorded_operations(surgeries, plugins)]
        return cls(model, record, operations, plugins)
