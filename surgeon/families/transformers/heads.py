"""Declare the names and widths of the heads of transformers' classes.

Entries for a task are candidates: a head counts if its width is what the config says; otherwise the traced dataflow
decides. Entries for one class are certain. ``tests/graph/test_roles.py`` checks each entry against real classes.
"""

from __future__ import annotations

from fnmatch import fnmatchcase
from typing import Any

from surgeon.families.transformers.fields import TRANSFORMERS_CONFIG
from surgeon.interfaces.family import Family

HEADED = ("*For[A-Z]*", "*HeadModel", "*HeadsModel", "*MTModel", "*EncoderDecoderModel")
"""Patterns of names of classes with a head; other classes return features: ``BertModel``, ``ViTModel``."""

WIDTHS: tuple[tuple[str, tuple[str, ...]], ...] = (
    ("*ForMultipleChoice", ("scores of a choice",)),
    ("*DepthEstimation*", ("a depth", "vocab_size", "num_labels")),
    ("*Detection*", ("num_labels", "vocab_size", "num_labels + 1")),
    ("*Segmentation*", ("num_labels", "vocab_size", "num_labels + 1")),
    ("*Classification*", ("num_labels", "vocab_size")),
    ("*QuestionAnswering*", ("num_labels", "vocab_size")),
    ("*NextSentence*", ("num_labels", "vocab_size")),
    ("*Regression*", ("num_labels", "vocab_size")),
    ("*", ("vocab_size", "num_labels")),
)
"""The possible widths of a class's head, the likeliest first: a config field, or one score.

Detectors with a no-object class have ``num_labels + 1`` outputs.
"""
SINGLE = ("scores of a choice", "a depth")


def has_head(name: str) -> bool:
    """Return whether a class of this name has a head."""
    return any(fnmatchcase(name, pattern) for pattern in HEADED)


def class_counts(name: str, config: Any) -> dict[str, int]:
    """Return the possible widths of a class's head, the likeliest first, by the config field that gives them.

    Args:
        name: The class's name.
        config: Its config.
    """
    text = config.get_text_config() if hasattr(config, "get_text_config") else config
    labels = getattr(config, "num_labels", None)
    values = {
        "num_labels": labels,
        "num_labels + 1": labels + 1 if isinstance(labels, int) else None,
        "vocab_size": getattr(text, "vocab_size", None) or getattr(config, "vocab_size", None),
    }
    widths = next(widths for pattern, widths in WIDTHS if fnmatchcase(name, pattern))
    counts = {w if w in SINGLE else f"config.{w}": 1 if w in SINGLE else values[w] for w in widths}
    return {place: count for place, count in counts.items() if isinstance(count, int)}


def _task(task: str, *head: str) -> Family:
    return Family(f"transformers *{task}", (f"transformers.models.*{task}",), head=head)


CLASSIFIER = (
    "classifier", "classifier.out_proj", "classification_head.out_proj", "score", "sequence_summary.summary",
    "logits_proj",
)  # fmt: skip


def _class(path: str, *head: str) -> Family:
    return Family(f"transformers {path.rpartition('.')[2]}", (f"transformers.models.{path}",), head=head)


TRANSFORMERS: tuple[Family, ...] = (
    _class(
        "higgs_audio_v2.modeling_higgs_audio_v2.HiggsAudioV2ForConditionalGeneration", "audio_lm_head", "text_lm_head"
    ),
    _class("lxmert.modeling_lxmert.LxmertForQuestionAnswering", "answer_head.logit_fc.3"),
    _class("mgp_str.modeling_mgp_str.MgpstrForSceneTextRecognition", "char_head", "bpe_head", "wp_head"),
    _class("parakeet.modeling_parakeet.ParakeetForTDT", "joint.head"),
    _class("patchtst.modeling_patchtst.PatchTSTForClassification", "head.linear"),
    _class("pi0.modeling_pi0.PI0ForConditionalGeneration", "action_out_proj"),
    _class("splinter.modeling_splinter.SplinterForQuestionAnswering", "splinter_qass"),
    _class("vit_mae.modeling_vit_mae.ViTMAEForPreTraining", "decoder.decoder_pred"),
    _task("ForSequenceClassification", *CLASSIFIER),
    _task("ForTokenClassification", "classifier", "score"),
    _task("ForImageClassification", "classifier"),
    _task("ForVideoClassification", "classifier"),
    _task("ForAudioClassification", "classifier"),
    _task("ForMultipleChoice", "classifier"),
    _task("ForQuestionAnswering", "qa_outputs"),
    _task("ForCausalLM", "lm_head", "cls.predictions.decoder", "lm_head.decoder", "embed_out"),
    Family(
        "transformers *ForCTC", ("transformers.models.*ForCTC",), head=("lm_head", "ctc_head"),
        counted_by=("vocab_size",),
    ),
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
    Family("transformers", ("transformers.modeling_utils.PreTrainedModel",), config=TRANSFORMERS_CONFIG),
)  # fmt: skip
