"""List the tasks that transformers has classes for, as its auto mappings name them.

``MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING_NAMES`` says that the sequence classifier of ``bert`` is
``BertForSequenceClassification``; here that task is called ``sequence_classification``.
"""

from __future__ import annotations

import inspect
from typing import Any, Literal, get_args

CountedTask = Literal[
    "image_classification",
    "video_classification",
    "audio_classification",
    "sequence_classification",
    "time_series_classification",
    "token_classification",
    "audio_frame_classification",
    "audio_xvector",
    "semantic_segmentation",
    "universal_segmentation",
    "instance_segmentation",
    "image_segmentation",
    "object_detection",
    "visual_question_answering",
]
"""Tasks whose classes count labels."""
OtherTask = Literal[
    "base",
    "masked_lm",
    "causal_lm",
    "seq_to_seq_causal_lm",
    "question_answering",
    "document_question_answering",
    "multiple_choice",
    "next_sentence_prediction",
    "masked_image_modeling",
    "depth_estimation",
    "ctc",
]
"""Tasks whose classes take no label count from the recipe; ``base`` is a network without a head."""
COUNTED: tuple[str, ...] = get_args(CountedTask)
OTHER: tuple[str, ...] = get_args(OtherTask)

AUTOMATIC = (
    "image_classification", "video_classification", "audio_classification", "sequence_classification",
    "time_series_classification", "token_classification", "semantic_segmentation", "object_detection",
    "universal_segmentation", "instance_segmentation", "image_segmentation", "visual_question_answering",
)  # fmt: skip
"""Tasks to try for a network without a classification head when the recipe names none: the first with a class wins."""

FIXED = ("question_answering", "document_question_answering", "multiple_choice", "next_sentence_prediction")
"""Tasks with a fixed number of outputs, independent of ``num_labels``."""

FEATURES_READ = {"BeitForSemanticSegmentation": ("out_indices", (1 / 3, 1 / 2, 2 / 3, 1))}
"""Classes that insist on which blocks their head reads: the config's field, and the depths as shares of all blocks."""

READS_BACK = ("is_decoder", "causal")
"""Fields of configs by which an encoder's attention is to earlier tokens only."""

CLASSIFIES_TEXTS = "ForSequenceClassification"
"""The end of the names of classes that classify whole texts."""

OF_A_PART = {"musicgen_decoder": "musicgen", "musicgen_melody_decoder": "musicgen_melody"}
"""Model types whose classes the mappings list under the model type of the network that they are a part of."""


def class_for(task: str, model_type: str) -> str | None:
    """Return the name of a model type's class for a task; None if transformers has none.

    Args:
        task: One of :data:`COUNTED` or :data:`OTHER`.
        model_type: As in a config: ``bert``.
    """
    return next(iter(classes_for(task, model_type)), None)


def classes_for(task: str, model_type: str) -> list[str]:
    """List the names of a model type's classes for a task: Funnel has a base with a decoder and one without."""
    names = _names(task, model_type) or ()
    return [names] if isinstance(names, str) else list(names)


def tasks_of(model_type: str) -> list[str]:
    """List the tasks that a model type has classes for, those of :data:`AUTOMATIC` first."""
    order = dict.fromkeys((*AUTOMATIC, *COUNTED, *OTHER))
    return [task for task in order if class_for(task, model_type) is not None]


def does(class_name: str, model_type: str, *tasks: str) -> bool:
    """Return whether a class is one of a model type's classes for ``tasks``."""
    return any(class_name in classes_for(task, model_type) for task in tasks)


def _names(task: str, model_type: str) -> Any:
    mapping = _mapping(task)
    return mapping.get(model_type, mapping.get(OF_A_PART.get(model_type, "")))


def _mapping(task: str) -> dict[str, Any]:
    from transformers.models.auto import modeling_auto

    name = "MODEL_MAPPING_NAMES" if task == "base" else f"MODEL_FOR_{task.upper()}_MAPPING_NAMES"
    return getattr(modeling_auto, name, {})


def reads_padding(cls: type) -> bool:
    """Whether the forward of ``cls`` looks for padding, because it reads a text's class at the token before that."""
    forward = getattr(cls, "forward", None) if cls.__name__.endswith(CLASSIFIES_TEXTS) else None
    try:
        return forward is not None and "pad_token_id" in inspect.getsource(forward)
    except (OSError, TypeError):  # its source lies nowhere
        return False
