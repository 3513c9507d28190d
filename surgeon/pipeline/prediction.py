"""Predict with a network, with the preprocessing of its training and its classes by name."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch import nn

from surgeon.architectures.trust import TrustCode, with_trust
from surgeon.data.network import SEQUENCES, SIZES
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
from surgeon.training.box_predictions import predict_boxes
from surgeon.training.detection import DETECTIONS
from surgeon.training.language import language_of
from surgeon.training.predictions import Predictions
from surgeon.training.sample_predictions import BATCH, predict_samples

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
    min_score: float = 0.5,
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
    """Return a network's predictions for samples: one row per sample, classes by name.

    Samples are prepared as in training, following the network's record. All samples are predicted.

    Args:
        model: A model as for :func:`surgeon.load`, or a network in memory.
        data: A picture, a sound, a text file (one text per line), a table, a folder of these, with or without a folder
            per class, a glob pattern (``shots/*.png``), or several of these; a source as in a recipe; a recipe with a
            ``train:`` section; or datasets from Python. Labels may be missing.
        output: The name of the output. Default: the network's own prediction.
        classes: The class names in the order of the outputs, if the network has none.
        part: Predict this part of the data only.
        on_error: ``skip`` leaves out samples that cannot be read, with a note; ``fail`` raises.
        add_classes: For a head that scores by attributes: more classes to score, or a CSV file of them.
        only: Whether to score the added classes only.
        min_score: For a detector: the least score of a box.
        batch_size: Samples per batch.
        device: The device, such as ``cuda``. Default: that of a network in memory, else a GPU if there is one.
        arch: What builds the network, if the source does not say.
        seed: The seed for sources of data that draw samples.
        key: Which of several state dicts in the source to use.
        trust_pickle: Whether pickles in the source may run code.
        trust_code: Modules named in a manifest that may run.
        trust_recipe: Whether a tokenizer that the record names may be downloaded.
        plugins: The plugins, or files and modules to load beside the built-in and installed ones (the default).

    Raises:
        TrainingError: The data cannot be read, or do not fit the network.
        SurgeonError: The network cannot be loaded; the class of the error says why.
    """
    if only and add_classes is None:
        raise TrainingError("only needs add_classes")
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
    if language_of(network) == SEQUENCES:
        raise TrainingError(
            f"{type(network).__name__} writes one text by reading another, and predict gives numbers for each sample",
            hint="write texts with transformers.pipeline, or surgeon evaluate for its perplexity",
        )
    if add_classes is not None:
        table = add_classes if isinstance(add_classes, Mapping) else mapping_of(read_table(add_classes))
        network = with_classes(network, table, only=only)
    facts = named_network(network, ready.operations, classes)
    recorded = recorded_inputs(ready.record, trusted=trust_recipe)
    reading = Reading(ready.model, recorded, facts, ready.plugins, part, seed, on_error)
    samples = reading.samples(data)
    if any(SIZES in some.inputs for some in samples):
        if output not in (None, DETECTIONS):
            raise TrainingError(f"unknown output {output!r} (available: {DETECTIONS})")
        return predict_boxes(network, samples, facts, min_score=min_score, batch_size=batch_size)
    return predict_samples(network, samples, facts, ready.operations, output=output, batch_size=batch_size)


@dataclass(frozen=True)
class ReadyModel:
    """A network to predict with.

    Attributes:
        model: The network.
        record: How it was made; None if surgeon did not make it.
        operations: The operations that were applied to it.
        plugins: The plugins, with the code that the caller trusts.
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
        """Load a network; a network in memory is used directly."""
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
