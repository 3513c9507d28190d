"""Facts about transformers' families: the names that its heads go by.

They are only where to look first: a head counts if its width is what the config says; else the traced
dataflow tells. ``tests/graph/test_roles.py`` holds each entry against real classes.
"""

from __future__ import annotations

from surgeon.graph.families import Family


def _task(task: str, *head: str) -> Family:
    return Family(f"transformers *{task}", (f"transformers.models.*{task}",), head=head)


CLASSIFIER = (
    "classifier", "classifier.out_proj", "classification_head.out_proj", "score", "sequence_summary.summary",
    "logits_proj",
)  # fmt: skip

TRANSFORMERS: tuple[Family, ...] = (
    _task("ForSequenceClassification", *CLASSIFIER),
    _task("ForTokenClassification", "classifier", "score"),
    _task("ForImageClassification", "classifier"),
    _task("ForVideoClassification", "classifier"),
    _task("ForAudioClassification", "classifier"),
    _task("ForMultipleChoice", "classifier"),
    _task("ForQuestionAnswering", "qa_outputs"),
    _task("ForCausalLM", "lm_head", "cls.predictions.decoder", "lm_head.decoder", "embed_out"),
    _task("LMHeadModel", "lm_head"),
    _task("ForConditionalGeneration", "lm_head", "proj_out"),
    _task(
        "ForMaskedLM", "cls.predictions.decoder", "lm_head.decoder", "predictions.decoder", "vocab_projector",
        "lm_head", "generator_lm_head",
    ),
    Family(
        "transformers *ForSemanticSegmentation", ("transformers.models.*ForSemanticSegmentation",),
        head=("decode_head.classifier",), aux=("auxiliary_head",),
    ),
)  # fmt: skip
