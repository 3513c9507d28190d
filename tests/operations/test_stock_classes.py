"""replace_head on transformers networks: the stock class for the task, and every tensor with the class count."""

from __future__ import annotations

import json

import pytest
import torch
import transformers as tf
from families import DEPTH, TEXT, VOCABULARY, build, example, whisper

import surgeon
from surgeon import Freeze, Insert, OperationError, ReplaceHead, Truncate
from surgeon.pipeline.prepare import prepare
from surgeon.pipeline.reload_check import check_streamed
from surgeon.plugins import load as load_plugins

NAMES = ["cat", "dog", "owl"]
TOKENS = {**TEXT, **DEPTH, "max_position_embeddings": 64}
IMAGES = {"hidden_size": 32, "intermediate_size": 64, **DEPTH, "image_size": 32, "patch_size": 8}


def bert_lm():
    return tf.BertForMaskedLM(tf.BertConfig(**TOKENS))


def vit_base():
    return tf.ViTModel(tf.ViTConfig(**IMAGES))


def wav2vec2_base():
    return tf.Wav2Vec2Model(build("wav2vec2").config)


def llama_lm():
    return tf.LlamaForCausalLM(tf.LlamaConfig(**TOKENS))


BECOME = {
    "bert_lm": (bert_lm, tf.BertForSequenceClassification),
    "bert": (lambda: build("bert_base"), tf.BertForSequenceClassification),
    "llama": (llama_lm, tf.LlamaForSequenceClassification),
    "t5": (lambda: build("t5"), tf.T5ForSequenceClassification),
    "vit": (vit_base, tf.ViTForImageClassification),
    "wav2vec2": (wav2vec2_base, tf.Wav2Vec2ForSequenceClassification),
    "whisper": (whisper, tf.WhisperForAudioClassification),
}


@pytest.mark.parametrize("name", sorted(BECOME))
def test_a_network_becomes_what_from_pretrained_makes_of_its_files(name, tmp_path):
    make, cls = BECOME[name]
    make().save_pretrained(tmp_path / "source")
    prepared = prepare(str(tmp_path / "source"), [ReplaceHead(classes=NAMES)])
    prepared.write(tmp_path / "edited")
    assert check_streamed(prepared, tmp_path / "edited", load_plugins()).outputs
    stock, loading = cls.from_pretrained(tmp_path / "edited", output_loading_info=True)
    assert not any(loading[kind] for kind in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    reference, loading = cls.from_pretrained(
        tmp_path / "source", num_labels=3, ignore_mismatched_sizes=True, output_loading_info=True
    )
    values, expected = stock.state_dict(), reference.state_dict()
    assert {n: t.shape for n, t in values.items()} == {n: t.shape for n, t in expected.items()}
    assert all(torch.equal(values[n], expected[n]) for n in expected.keys() - loading["missing_keys"])
    assert stock.config.id2label == dict(enumerate(NAMES))


def test_a_result_runs_in_a_pipeline_and_in_surgeon_alike(tmp_path):
    surgeon.save(surgeon.apply(llama_lm(), [ReplaceHead(classes=NAMES)]), tmp_path / "edited")
    stock = tf.AutoModelForSequenceClassification.from_pretrained(tmp_path / "edited").eval()
    _, kwargs = example("llama")
    with torch.no_grad():
        assert torch.equal(stock(**kwargs).logits, surgeon.load(tmp_path / "edited")(**kwargs).logits)


def test_a_decoder_pads_with_the_end_of_a_text_and_the_plan_says_so():
    prepared = prepare(llama_lm(), [ReplaceHead(classes=3)])
    assert prepared.model.config.pad_token_id == prepared.model.config.eos_token_id == 2
    assert any("pad_token_id" in note for note in prepared.plan.steps[0].notes)


def test_new_parts_are_drawn_as_the_class_initialises_them_and_named():
    first, second = (prepare(bert_lm(), [ReplaceHead(classes=3)], seed=seed) for seed in (1, 2))
    assert any(note.startswith("new: ") and "bert.pooler" in note for note in first.plan.steps[0].notes)
    one, two = (p.materialise().state_dict() for p in (first, second))
    assert 0.01 < float(one["bert.pooler.dense.weight"].std()) < 0.03  # initializer_range
    assert not one["classifier.bias"].any()
    assert not torch.equal(one["classifier.weight"], two["classifier.weight"])
    again = surgeon.apply(bert_lm(), [ReplaceHead(classes=3)], seed=1).state_dict()
    assert torch.equal(one["classifier.weight"], again["classifier.weight"])


def test_a_named_task_takes_the_place_of_another(tmp_path):
    edited = surgeon.apply(build("bert"), [ReplaceHead(classes=NAMES, task="token_classification")])
    assert type(edited) is tf.BertForTokenClassification
    assert edited.classifier.weight.shape == (3, 32)


def test_a_classifier_goes_back_to_its_base_with_its_pooler():
    model = build("bert")
    edited = surgeon.apply(model, [ReplaceHead(task="base")])
    assert type(edited) is tf.BertModel
    assert torch.equal(edited.pooler.dense.weight, model.bert.pooler.dense.weight)


def test_a_classifier_without_the_decoder_of_its_base_goes_back_to_the_base_without_one():
    config = tf.FunnelConfig(
        vocab_size=VOCABULARY, block_sizes=[1, 1], num_decoder_layers=1, d_model=16, n_head=2, d_head=8, d_inner=16
    )
    edited = surgeon.apply(tf.FunnelForSequenceClassification(config), [ReplaceHead(task="base")])
    assert type(edited) is tf.FunnelBaseModel


@pytest.mark.parametrize("tied", [True, False])
def test_a_base_gets_a_language_head_tied_as_its_config_says(tied, tmp_path):
    model = tf.LlamaModel(tf.LlamaConfig(**TOKENS, tie_word_embeddings=tied))
    edited = surgeon.apply(model, [ReplaceHead(task="causal_lm")])
    assert type(edited) is tf.LlamaForCausalLM
    assert (edited.lm_head.weight is edited.model.embed_tokens.weight) is tied
    assert torch.equal(edited.model.embed_tokens.weight, model.embed_tokens.weight)
    surgeon.save(edited, tmp_path / "edited")
    loaded = surgeon.load(tmp_path / "edited")
    assert torch.equal(loaded.lm_head.weight, edited.lm_head.weight)


def test_a_tied_embedding_stays_where_the_head_comes_first_in_the_tree():
    model = tf.CamembertModel(tf.CamembertConfig(**TOKENS, pad_token_id=1))
    edited = surgeon.apply(model, [ReplaceHead(task="masked_lm")])
    assert next(iter(edited._modules)) == "lm_head"
    assert torch.equal(edited.roberta.embeddings.word_embeddings.weight, model.embeddings.word_embeddings.weight)
    assert edited.lm_head.decoder.weight is edited.roberta.embeddings.word_embeddings.weight


def test_a_trained_language_head_stays_in_another_class_that_has_it():
    model = tf.BertForPreTraining(tf.BertConfig(**TOKENS))
    edited = surgeon.apply(model, [ReplaceHead(task="masked_lm")])
    assert torch.equal(edited.cls.predictions.transform.dense.weight, model.cls.predictions.transform.dense.weight)


def test_what_came_before_and_after_on_the_trunk_stays(tmp_path):
    operations = [Truncate(keep_blocks=2), Freeze(up_to="bert.encoder.layer.0"), ReplaceHead(classes=3)]
    model = bert_lm()
    edited = surgeon.apply(model, operations)
    assert len(edited.bert.encoder.layer) == edited.config.num_hidden_layers == 2
    assert not any(p.requires_grad for p in edited.bert.encoder.layer[0].parameters())
    assert all(p.requires_grad for p in edited.bert.encoder.layer[1].parameters())
    later = surgeon.apply(model, [ReplaceHead(classes=3), Freeze(up_to="bert.encoder.layer.0")])
    assert not any(p.requires_grad for p in later.bert.encoder.layer[0].parameters())
    surgeon.save(edited, tmp_path / "edited")
    assert not surgeon.load(tmp_path / "edited").bert.encoder.layer[0].attention.output.dense.weight.requires_grad


def test_an_adapter_in_a_block_moves_with_it():
    operations = [Insert(at="bert.encoder.layer.0", kind="adapter", hidden=4), ReplaceHead(classes=3)]
    edited = surgeon.apply(bert_lm(), operations)
    assert type(edited) is tf.BertForSequenceClassification
    assert any("adapter" in name for name, _ in edited.bert.encoder.layer[0].named_modules())


def test_a_graft_is_made_where_transformers_has_no_class_and_the_plan_says_so():
    config = tf.CLIPTextConfig(vocab_size=VOCABULARY, **{k: v for k, v in TOKENS.items() if k != "vocab_size"})
    plan = surgeon.plan(tf.CLIPTextModel(config), [ReplaceHead(classes=3)])
    assert any("a graft" in note and "no class" in note for note in plan.steps[0].notes)


def test_task_graft_leaves_the_class_alone():
    edited = surgeon.apply(build("bert_base"), [ReplaceHead(classes=3, task="graft")])
    assert isinstance(edited, tf.BertModel)
    assert list(edited.grafts) == ["logits"]


@pytest.mark.parametrize(
    ("name", "fields", "words"),
    [
        ("bert", {"classes": 3, "task": "object_detection"}, "no class for that of model type 'bert'"),
        ("resnet", {"classes": 3, "task": "image_classification"}, "not a class of transformers"),
    ],
)
def test_a_task_that_cannot_be_done_is_refused(name, fields, words):
    with pytest.raises(OperationError, match=words):
        surgeon.plan(build(name), [ReplaceHead(**fields)])


def test_an_artifact_from_before_tasks_keeps_its_graft(tmp_path):
    edited = surgeon.apply(build("bert_base"), [ReplaceHead(classes=3, task="graft")])
    surgeon.save(edited, tmp_path / "old")
    manifest = json.loads((tmp_path / "old" / "surgeon.json").read_text())
    del manifest["record"]["surgeries"][0]["operations"][0]["task"]
    manifest["format"] = 1
    (tmp_path / "old" / "surgeon.json").write_text(json.dumps(manifest))
    assert list(surgeon.load(tmp_path / "old").grafts) == ["logits"]


@pytest.mark.parametrize(("depth", "chosen"), [(12, [3, 5, 7, 11]), (24, [7, 11, 15, 23]), (4, [1, 2, 3, 4])])
def test_beit_reads_blocks_at_the_depths_that_it_was_published_with(depth, chosen, tmp_path):
    config = tf.BeitConfig(**{**IMAGES, "num_hidden_layers": depth, "hidden_size": 16, "intermediate_size": 16})
    prepared = prepare(tf.BeitModel(config), [ReplaceHead(classes=NAMES, task="semantic_segmentation")])
    assert prepared.model.config.out_indices == chosen
    assert any(f"the head reads the blocks {', '.join(map(str, chosen))} of" in n for n in prepared.plan.steps[0].notes)
    if depth == 4:
        prepared.write(tmp_path / "edited")
        assert check_streamed(prepared, tmp_path / "edited", load_plugins()).outputs
        tf.BeitForSemanticSegmentation.from_pretrained(tmp_path / "edited")


def test_beit_of_too_few_blocks_for_segmentation_is_refused_with_the_field():
    config = tf.BeitConfig(**{**IMAGES, "num_hidden_layers": 3})
    with pytest.raises(OperationError, match=r"reads 4 blocks \(out_indices of the config\), and this network has 3"):
        surgeon.plan(tf.BeitModel(config), [ReplaceHead(classes=NAMES, task="semantic_segmentation")])


def test_a_count_that_a_config_keeps_as_a_field_changes_with_the_head():
    config = tf.PvtConfig(image_size=32, hidden_sizes=[8, 8, 16, 16], depths=[1] * 4, num_attention_heads=[1, 1, 2, 2])
    edited = surgeon.apply(tf.PvtForImageClassification(config), [ReplaceHead(classes=NAMES)])
    assert edited.config.num_labels == 3
    assert edited.classifier.out_features == 3
    assert edited.config.id2label == dict(enumerate(NAMES))


def test_a_class_for_the_text_part_alone_is_refused_by_name():
    from surgeon.architectures.hf_siblings import build_stock

    with pytest.raises(surgeon.ArchitectureError, match=r"text part alone \(Dots3NoteTextConfig\)"):
        build_stock(tf.Dots3NoteForCausalLM, tf.Dots3NoteConfig())


@pytest.mark.parametrize("name", ["bert", "reformer", "xlm"])
def test_an_encoder_with_a_head_for_the_next_token_sees_no_later_token(name, tmp_path):
    sizes = {"axial_pos_embds": False, "attn_layers": ["local"], "is_decoder": False, "eos_token_id": 1}
    config = {
        "bert": lambda: tf.BertConfig(**TOKENS),
        "reformer": lambda: tf.ReformerConfig(vocab_size=VOCABULARY, hidden_size=16, num_attention_heads=2, **sizes),
        "xlm": lambda: tf.XLMConfig(vocab_size=VOCABULARY, emb_dim=16, n_layers=2, n_heads=2),
    }[name]()
    tf.AutoModel.from_config(config).save_pretrained(tmp_path / "source")
    prepared = prepare(str(tmp_path / "source"), [ReplaceHead(task="causal_lm")])
    assert any("from left to right" in note for note in prepared.plan.steps[0].notes)
    prepared.write(tmp_path / "edited")
    edited = surgeon.apply(str(tmp_path / "source"), [ReplaceHead(task="causal_lm")]).eval()
    stock = tf.AutoModelForCausalLM.from_pretrained(tmp_path / "edited").eval()
    tokens = torch.arange(5, 13)[None]
    other = torch.cat([tokens[:, :-1], tokens[:, :1]], 1)
    for model in (stock, edited):
        with torch.no_grad():
            assert torch.equal(model(tokens).logits[:, :-1], model(other).logits[:, :-1])
    back = surgeon.apply(str(tmp_path / "edited"), [ReplaceHead(task="masked_lm")])
    assert not any(getattr(back.config, field, False) for field in ("is_decoder", "causal"))


def test_a_trunk_under_another_name_than_its_class_says_is_found(tmp_path):
    """Llama4ForCausalLM names language_model as its base model, and has it as model: transformers loads none of it."""
    config = tf.Llama4TextConfig(
        **{**TOKENS, "num_key_value_heads": 2, "head_dim": 16, "intermediate_size_mlp": 32, "num_local_experts": 2}
    )
    trunk = tf.Llama4TextModel(config)
    edited = surgeon.apply(trunk, [ReplaceHead(task="causal_lm")])
    assert type(edited) is tf.Llama4ForCausalLM
    for name, tensor in trunk.state_dict().items():
        assert torch.equal(edited.state_dict()[f"model.{name}"], tensor)
    surgeon.save(edited, tmp_path / "edited")
    _, loading = tf.Llama4ForCausalLM.from_pretrained(tmp_path / "edited", output_loading_info=True)
    assert not any(loading[kind] for kind in ("missing_keys", "unexpected_keys", "mismatched_keys"))


def test_a_trunk_inside_another_network_is_found():
    """DetrForSegmentation holds a whole detector, and its trunk is in that."""
    from surgeon.operations.replace_head.sibling import _trunk

    trunk = torch.nn.Linear(2, 2)
    outer = torch.nn.ModuleDict({"detector": torch.nn.ModuleDict({"model": torch.nn.Linear(2, 2)})})
    assert _trunk(outer, trunk) == "detector.model"


def test_a_class_that_answers_in_words_is_not_taken_for_one_of_classes():
    text = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
    vision = {**text, "image_size": 16, "patch_size": 8}
    config = tf.BlipConfig(
        text_config={**text, "vocab_size": 50, "encoder_hidden_size": 16}, vision_config=vision, projection_dim=8
    )
    prepared = prepare(tf.BlipModel(config), [ReplaceHead(classes=3)])
    assert isinstance(prepared.model, tf.BlipModel)
    assert any(
        "BlipForQuestionAnswering has no layer with an output for each class" in n for n in prepared.plan.steps[0].notes
    )


def test_a_decoder_whose_config_names_no_token_that_pads_is_noted():
    config = tf.Qwen2Config(**TOKENS, bos_token_id=None, eos_token_id=None, pad_token_id=None)
    notes = prepare(tf.Qwen2Model(config), [ReplaceHead(classes=3)]).plan.steps[0].notes
    assert any(
        "names no token that pads, without which Qwen2ForSequenceClassification takes one text" in n for n in notes
    )
