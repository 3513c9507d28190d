"""Make the metadata block of a model card, as the hub reads it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from huggingface_hub import EvalResult, ModelCardData

from surgeon.families.transformers.tasks import does
from surgeon.pipeline.publishing.facts import Facts, name_of_data, sources_of_data

PIPELINES = {
    "sequence_classification": "text-classification",
    "token_classification": "token-classification",
    "image_classification": "image-classification",
    "video_classification": "video-classification",
    "audio_classification": "audio-classification",
    "object_detection": "object-detection",
    "semantic_segmentation": "image-segmentation",
    "universal_segmentation": "image-segmentation",
    "instance_segmentation": "image-segmentation",
    "image_segmentation": "image-segmentation",
    "visual_question_answering": "visual-question-answering",
    "document_question_answering": "document-question-answering",
    "question_answering": "question-answering",
    "depth_estimation": "depth-estimation",
    "ctc": "automatic-speech-recognition",
    "masked_lm": "fill-mask",
    "causal_lm": "text-generation",
}
"""The hub's name for each task of transformers' auto mappings."""
KINDS = {
    "digits": "image",
    "images": "image",
    "coco": "object-detection",
    "masks": "image-segmentation",
    "conll": "token-classification",
}
"""What the samples of a source are, where all of its samples are alike."""
INPUTS = {"image": "image", "audio": "audio", "text": "text", "numbers": "tabular"}
"""What a table's samples are, by the key of its inputs."""
DENSE = ("object-detection", "image-segmentation", "token-classification")
METRICS = {"auroc": "roc_auc", "ap": "average_precision", "r2": "r_squared"}
"""The hub's names of measures, where they differ from ours."""
INHERITED = ("license", "license_name", "license_link", "language")
"""What holds for the result as it held for the base model."""


def card_data(facts: Facts, name: str) -> ModelCardData:
    """Make the metadata of a card.

    Args:
        facts: What is known of the artifact.
        name: What the model is called.
    """
    inherited = {key: value for key in INHERITED if (value := facts.base.get(key)) is not None}
    results = list(_results(facts))
    datasets = dict.fromkeys(
        name_of_data(source)
        for entry in facts.record.training
        for source in sources_of_data(entry.get("settings", {}).get("data"))
        if source.get("source") == "hub"
    )
    return ModelCardData(
        **inherited,
        base_model=facts.base_model,
        datasets=list(datasets) or None,
        eval_results=results or None,
        library_name="transformers" if facts.stock_class else "surgeon",
        metrics=list(dict.fromkeys(result.metric_type for result in results)) or None,
        model_name=name,
        pipeline_tag=pipeline_tag(facts),
        tags=["surgeon", "model-surgery"],
    )


def pipeline_tag(facts: Facts) -> str | None:
    """The hub's name for what the network does: by its stock class, or by its last training; None if unknown."""
    if facts.config is not None and facts.stock_class is not None:
        kind = str(facts.config.get("model_type", ""))
        return next((tag for task, tag in PIPELINES.items() if does(facts.stock_class, kind, task)), None)
    if not facts.record.training:
        return None
    entry = facts.record.training[-1]
    return _tag_of_training(list(sources_of_data(entry.get("settings", {}).get("data"))), list(measures_of(entry)))


def _tag_of_training(
    sources: Sequence[Mapping[str, Any]], measured: Sequence[tuple[str, Mapping[str, float]]]
) -> str | None:
    """The hub's name for what a training teaches; None if it has sources of several kinds, or several outputs."""
    kinds = {_kind_of(source) for source in sources}
    if len(kinds) != 1 or len(measured) != 1:
        return None
    (kind,), ((_, values),) = kinds, measured
    if kind in DENSE:
        return kind
    if kind is not None and not values.keys().isdisjoint(("accuracy", "auroc")):
        return f"{kind}-classification"
    return "tabular-regression" if kind == "tabular" and "r2" in values else None


def _kind_of(source: Mapping[str, Any]) -> str | None:
    """What the samples of a source are, as the hub names it."""
    if (kind := KINDS.get(str(source.get("source")))) is not None:
        return kind
    if source.get("mask"):
        return "image-segmentation"
    kinds = [kind for key, kind in INPUTS.items() if source.get(key)]
    return kinds[0] if len(kinds) == 1 else None


def measures_of(entry: Mapping[str, Any]) -> Iterator[tuple[str, dict[str, float]]]:
    """List each output of a training with its measures on the test samples."""
    for output, domains in (entry.get("report", {}).get("tasks") or {}).items():
        values: Mapping[str, Any] = domains.get("all") or next(iter(domains.values()), {})
        yield output, {name: value for name, value in values.items() if type(value) in (int, float)}


def _results(facts: Facts) -> Iterator[EvalResult]:
    if not facts.record.training:
        return
    entry = facts.record.training[-1]
    sources = list(sources_of_data(entry.get("settings", {}).get("data")))
    names = [name_of_data(source) for source in sources] or ["data given in Python"]
    on_hub = next((name_of_data(source) for source in sources if source.get("source") == "hub"), None)
    several = len(list(measures_of(entry))) > 1
    for output, values in measures_of(entry):
        for name, value in values.items():
            if name in ("samples", "loss"):
                continue
            yield EvalResult(
                task_type=pipeline_tag(facts) or "other",
                dataset_type=on_hub or "local",
                dataset_name=", ".join(names),
                dataset_split="test",
                metric_type=METRICS.get(name, name),
                metric_name=f"{output} {name}".replace("_", " ") if several else name.replace("_", " "),
                metric_value=value,
            )
