"""Facts about transformers' families: the names that its heads go by.

Those of a task are only where to look first: a head counts if its width is what the config says; else the
traced dataflow tells. Those of one class hold as they are: its heads' widths stand nowhere else.
``tests/graph/test_roles.py`` holds each entry against real classes.
"""

from __future__ import annotations

from surgeon.interfaces.family import Family


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
