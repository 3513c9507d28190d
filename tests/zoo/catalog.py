"""The names of the networks that the sweep covers."""

from __future__ import annotations

TASKS = (
    "SEQUENCE_CLASSIFICATION", "IMAGE_CLASSIFICATION", "AUDIO_CLASSIFICATION", "VIDEO_CLASSIFICATION",
    "TOKEN_CLASSIFICATION", "SEMANTIC_SEGMENTATION", "UNIVERSAL_SEGMENTATION", "INSTANCE_SEGMENTATION",
    "IMAGE_SEGMENTATION", "OBJECT_DETECTION", "TABLE_RECOGNITION", "TIME_SERIES_CLASSIFICATION",
    "QUESTION_ANSWERING", "MULTIPLE_CHOICE", "VISUAL_QUESTION_ANSWERING", "CTC", "MASKED_LM", "CAUSAL_LM",
    "SPEECH_SEQ_2_SEQ", "SEQ_TO_SEQ_CAUSAL_LM", "IMAGE_TEXT_TO_TEXT", "DEPTH_ESTIMATION", "MASKED_IMAGE_MODELING",
    "PRETRAINING",
)  # fmt: skip
"""The auto classes among which the one class with a head is looked for, the most telling first."""


def torchvision_names() -> list[str]:
    """``torchvision/NAME`` for every builder."""
    from torchvision import models

    return [f"torchvision/{name}" for name in models.list_models()]


def transformers_names(*, heads: bool = True) -> list[str]:
    """``transformers/TYPE/CLASS`` for the base class of every model type and, if ``heads``, one class with a head."""
    from transformers.models.auto.modeling_auto import MODEL_MAPPING_NAMES

    names = []
    for model_type, class_names in MODEL_MAPPING_NAMES.items():
        base = class_names if isinstance(class_names, str) else class_names[0]
        task = task_class(model_type, base) if heads else None
        names += [f"transformers/{model_type}/{cls}" for cls in (base, task) if cls is not None]
    return sorted(set(names))


def task_class(model_type: str, base: str) -> str | None:
    """A class of ``model_type`` that has a head, if any auto class knows one."""
    from transformers.models.auto import modeling_auto

    for task in TASKS:
        class_names = getattr(modeling_auto, f"MODEL_FOR_{task}_MAPPING_NAMES").get(model_type)
        if class_names is not None:
            name = class_names if isinstance(class_names, str) else class_names[0]
            if name != base:
                return str(name)
    return None
