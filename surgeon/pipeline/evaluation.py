"""Measure a network on data with labels, read as it was trained."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from surgeon.architectures.trust import TrustCode
from surgeon.errors import name_nearest_option
from surgeon.pipeline.given_data import Data, Reading, named_network
from surgeon.pipeline.prediction import PartName, ReadyModel
from surgeon.pipeline.recorded_inputs import recorded_inputs
from surgeon.plugins import Plugins
from surgeon.surgery.opened import Model
from surgeon.training.evaluating import Evaluation, evaluate_samples
from surgeon.training.language import is_language_model
from surgeon.training.predicting import BATCH


@name_nearest_option
def evaluate(
    model: Model,
    data: Data,
    *,
    classes: Sequence[str] | None = None,
    part: PartName | None = None,
    on_error: Literal["fail", "skip"] = "fail",
    batch_size: int = BATCH,
    device: str | None = None,
    arch: str | None = None,
    seed: int | None = None,
    key: str | None = None,
    trust_pickle: bool = False,
    trust_code: TrustCode = (),
    trust_recipe: bool = False,
    plugins: Plugins | None = None,
) -> Evaluation:
    """Measure how good a network is on data with labels, read as it was trained.

    Classes: accuracy, balanced accuracy, F1, measures of each class and the confusion matrix. Yes/no questions: AUROC
    and average precision, of each too. Values: R², MAE and RMSE. Tokens: perplexity.

    Args:
        model: What :func:`surgeon.load` takes, or a network in memory.
        data: What :func:`surgeon.predict` takes, with labels. A class that the network has and the data lack is noted;
            one that the network lacks is an error. Texts for a language model need no labels.
        classes: The names of the classes in the order of the outputs, where the network has none.
        part: Measure on this part of the data only; on all of them if left out.
        on_error: ``skip`` leaves out a sample that cannot be read, with a note; else it is an error.
        batch_size: How many samples are computed at a time.
        device: Where to compute, as in ``cuda``; where a network in memory lies, else the GPU if there is one.
        arch: What builds the network, where the source does not say.
        seed: Draws samples, where a source of data draws.
        key: Which of several state dicts in the source to take.
        trust_pickle: Let pickles in the source run code.
        trust_code: Modules that a manifest names and that may run.
        trust_recipe: Let a tokenizer be fetched that the record names.
        plugins: The plugins; the built-in and installed ones if left out.

    Raises:
        TrainingError: The data cannot be read, have no labels, or do not go with the network.
        SurgeonError: The network cannot be loaded; the class of the error says why.
    """
    ready = ReadyModel.of(
        model,
        device=device,
        arch=arch,
        key=key,
        trust_pickle=trust_pickle,
        trust_code=trust_code,
        plugins=plugins,
    )
    facts = named_network(ready.model, ready.operations, classes)
    recorded = recorded_inputs(ready.record, trusted=trust_recipe)
    reading = Reading(
        ready.model, recorded, facts, ready.plugins, part, seed, on_error, True, is_language_model(ready.model)
    )
    samples = reading.samples(data)
    return evaluate_samples(
        ready.model, samples, facts, ready.operations, ready.plugins.losses(), batch_size=batch_size
    )
