"""Evaluate a network on labelled data, prepared as in training."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

from surgeon.architectures.trust import TrustCode
from surgeon.errors import name_nearest_option
from surgeon.pipeline.given_data import Data, Reading, named_network
from surgeon.pipeline.prediction import PartName, ReadyModel
from surgeon.pipeline.recorded_inputs import recorded_inputs
from surgeon.plugins import Plugins
from surgeon.recipe.train_settings import MetricSettings
from surgeon.surgery.opened import Model
from surgeon.training.evaluation import Evaluation, evaluate_samples
from surgeon.training.further_metrics import make_further
from surgeon.training.language import is_language_model
from surgeon.training.sample_predictions import BATCH


@name_nearest_option
def evaluate(
    model: Model,
    data: Data,
    *,
    classes: Sequence[str] | None = None,
    part: PartName | None = None,
    on_error: Literal["fail", "skip"] = "fail",
    batch_size: int = BATCH,
    metrics: Sequence[str | MetricSettings | Mapping[str, Any]] = (),
    device: str | None = None,
    arch: str | None = None,
    seed: int | None = None,
    key: str | None = None,
    trust_pickle: bool = False,
    trust_code: TrustCode = (),
    trust_recipe: bool = False,
    plugins: Plugins | Sequence[str] | None = None,
) -> Evaluation:
    """Evaluate a network on labelled data, prepared as in training.

    Classes: accuracy, balanced accuracy, F1, per-class metrics and the confusion matrix. Yes/no questions: AUROC and
    average precision, also per question. Values: R², MAE and RMSE. Tokens: perplexity. Boxes: COCO's mAP.

    Args:
        model: A model as for :func:`surgeon.load`, or a network in memory.
        data: Labelled data as for :func:`surgeon.predict`. A class without samples is noted; a class that the network
            does not have is an error. Texts for a language model need no labels.
        classes: The class names in the order of the outputs, if the network has none.
        part: Evaluate on this part of the data only. Default: all of it.
        on_error: ``skip`` leaves out samples that cannot be read, with a note; ``fail`` raises.
        batch_size: Samples per batch.
        metrics: Metrics to add, by name, or ``{"metric": NAME, **options}``: ``calibration_error``, or a plugin's.
        device: The device, such as ``cuda``. Default: that of a network in memory, else a GPU if there is one.
        arch: What builds the network, if the source does not say.
        seed: The seed for sources of data that draw samples.
        key: Which of several state dicts in the source to use.
        trust_pickle: Whether pickles in the source may run code.
        trust_code: Modules named in a manifest that may run.
        trust_recipe: Whether a tokenizer that the record names may be downloaded.
        plugins: The plugins, or files and modules to load beside the built-in and installed ones (the default).

    Raises:
        TrainingError: The data cannot be read, have no labels, or do not fit the network.
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
    named = [metric if isinstance(metric, str) else MetricSettings.model_validate(metric) for metric in metrics]
    further = make_further(named, ready.plugins.metrics())
    facts = named_network(ready.model, ready.operations, classes)
    recorded = recorded_inputs(ready.record, trusted=trust_recipe)
    reading = Reading(
        ready.model, recorded, facts, ready.plugins, part, seed, on_error, True, is_language_model(ready.model)
    )
    samples = reading.samples(data)
    if samples and (note := _of_views(ready)):
        samples[0].notes.append(note)
    return evaluate_samples(
        ready.model,
        samples,
        facts,
        ready.operations,
        ready.plugins.losses(),
        batch_size=batch_size,
        further=further,
    )


def _of_views(ready: ReadyModel) -> str:
    """Return a note if the report of the last training is of averaged views, which are not made here."""
    training = ready.record.training if ready.record is not None else []
    views = (training[-1].get("settings", {}) if training else {}).get("test_views") or []
    listed = ", ".join(map(str, views))
    return (
        f"training's report averages the predictions for {listed} (test_views); here each sample is as it is"
        if views
        else ""
    )
