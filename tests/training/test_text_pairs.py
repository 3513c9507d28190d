"""Networks that write one text by reading another learn from pairs as their own classes do."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import transformers
from language_folders import SENTENCES, byte_tokenizer, t5
from test_language_models import batch_of, loaded, loss_of

import surgeon
from surgeon.data.labels import IGNORED
from surgeon.errors import TrainingError
from surgeon.recipe.train_settings import TrainSettings

SIZES = {
    "vocab_size": 320, "d_model": 16, "encoder_layers": 2, "decoder_layers": 2, "encoder_attention_heads": 2,
    "decoder_attention_heads": 2, "encoder_ffn_dim": 16, "decoder_ffn_dim": 16, "max_position_embeddings": 96,
    "dropout": 0.0, "pad_token_id": 301, "eos_token_id": 0, "forced_eos_token_id": 0,
}  # fmt: skip


def bart_like(kind: str) -> Callable[[Path], Path]:
    def make(folder: Path) -> Path:
        torch.manual_seed(0)
        start = {"Marian": 301, "Bart": 0}[kind]
        config = getattr(transformers, f"{kind}Config")(**SIZES, decoder_start_token_id=start)
        name = {"Marian": "MarianMTModel", "Bart": "BartForConditionalGeneration"}[kind]
        getattr(transformers, name)(config).save_pretrained(folder)
        tokenizer = byte_tokenizer(folder)
        tokenizer.add_special_tokens({"additional_special_tokens": ["<lang>"], "pad_token": "<pad>"})
        tokenizer.save_pretrained(folder)
        return folder

    return make


def pairs(path: Path) -> Path:
    rows = [
        {"long": f"{text} {text}"[: 40 + 7 * number], "short": text[: 5 + 3 * number]}
        for number, text in enumerate(SENTENCES[:16])
    ]
    path.write_text("\n".join(map(json.dumps, rows)))
    return path


MADE = {"T5": t5, "Marian": bart_like("Marian"), "Bart": bart_like("Bart")}
COLUMNS = {"prompt": "long", "completion": "short", "max_length": 64}


@pytest.mark.parametrize("name", sorted(MADE))
def test_the_loss_is_that_of_the_networks_own_class(tmp_path: Path, name: str):
    model, splits = loaded(MADE[name](tmp_path / "m"), pairs(tmp_path / "a.jsonl"), **COLUMNS)
    batch = batch_of(splits, len(splits.train))
    assert (batch["labels"] == IGNORED).any()
    expected = model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"], labels=batch["labels"]).loss
    assert abs(loss_of(model, splits, batch).item() - expected.item()) < 1e-6


def test_the_prompt_is_read_and_the_completion_written_to_its_end(tmp_path: Path):
    _, splits = loaded(t5(tmp_path / "m"), pairs(tmp_path / "a.jsonl"), **COLUMNS)
    tokenizer = splits.collate.tokenizer
    rows = {row["long"]: row["short"] for row in map(json.loads, (tmp_path / "a.jsonl").read_text().splitlines())}
    for number in range(len(splits.train)):
        sample = splits.train[number]
        read = tokenizer.decode(sample["input_ids"], skip_special_tokens=True)
        assert tokenizer.decode(sample["labels"]) == rows[read] + "<end>"


def test_texts_that_are_cut_still_end_and_are_counted(tmp_path: Path):
    _, splits = loaded(t5(tmp_path / "m"), pairs(tmp_path / "a.jsonl"), **{**COLUMNS, "max_length": 8})
    tokenizer = splits.collate.tokenizer
    for number in range(len(splits.train)):
        sample = splits.train[number]
        assert len(sample["input_ids"]) <= 8
        assert len(sample["labels"]) <= 8
        assert sample["labels"][-1] == tokenizer.eos_token_id
    assert any("train texts are cut after 8 tokens" in note for note in splits.notes)


def test_a_network_learns_to_write_and_is_measured_again(tmp_path: Path):
    data = {"source": "corpus", "path": str(pairs(tmp_path / "a.jsonl")), **COLUMNS}
    settings = TrainSettings(data=data, epochs=20, batch_size=8, learning_rate=1e-2)
    model, report = surgeon.finetune(str(t5(tmp_path / "m")), surgeon.Truncate(keep_blocks=0.5), settings=settings)
    assert report.after["logits_loss"] < report.before["logits_loss"] - 0.5
    surgeon.save(model, tmp_path / "out")
    again = surgeon.evaluate(tmp_path / "out", data, part="test")
    assert again.main["perplexity"] == pytest.approx(report.tasks["logits"]["all"]["perplexity"], rel=1e-5)


@pytest.mark.parametrize(
    ("fields", "loss", "problem"),
    [
        ({"whole_words": True}, None, "whole_words is for networks that fill in texts"),
        ({"masked": 0.3}, None, "masked is for networks that fill in texts"),
        ({"packing": "blocks"}, None, "are not packed into blocks"),
        (
            {"prompt": None, "completion": None, "messages": "long"},
            None,
            "messages are for networks",
        ),
        ({}, "masked", "the network writes each completion"),
        ({"tokenizer": "left"}, None, "the tokenizer pads on the left"),
    ],
)
def test_what_does_not_go_with_pairs_is_refused_before_texts_are_read(tmp_path, monkeypatch, fields, loss, problem):
    monkeypatch.delattr("surgeon.data.corpus.texts_by_part")
    folder = t5(tmp_path / "m")
    if "tokenizer" in fields:
        byte_tokenizer(tmp_path / "left", "left")
        fields = {"tokenizer": str(tmp_path / "left")}
    data = {"source": "corpus", "path": str(pairs(tmp_path / "a.jsonl")), **COLUMNS, **fields}
    objectives = None if loss is None else [{"output": "logits", "loss": loss, "label": "labels"}]
    settings = TrainSettings(data=data, objectives=objectives, epochs=1)
    with pytest.raises(TrainingError, match=problem):
        surgeon.finetune(str(folder), [surgeon.Truncate(keep_blocks=0.5)], settings=settings)


def test_a_tokenizer_of_several_languages_marks_both_texts_or_is_refused(tmp_path: Path):
    folder = bart_like("Bart")(tmp_path / "m")
    special = ["<s>", "<pad>", "</s>", "<unk>"]
    vocabulary = {token: number for number, token in enumerate([*special, *"▁abcdefghijklmnopqrstuvwxyz"])}
    tokenizer = transformers.NllbTokenizer(vocab=vocabulary, additional_special_tokens=["eng_Latn", "fra_Latn"])
    tokenizer.save_pretrained(tmp_path / "nllb")
    path = pairs(tmp_path / "a.jsonl")
    with pytest.raises(TrainingError, match="has none for what is written"):
        loaded(folder, path, tokenizer=str(tmp_path / "nllb"), **COLUMNS)
    tokenizer.src_lang, tokenizer.tgt_lang = "eng_Latn", "fra_Latn"
    tokenizer.save_pretrained(tmp_path / "nllb")
    _, splits = loaded(folder, path, tokenizer=str(tmp_path / "nllb"), **COLUMNS)
    read, written = splits.train[0]["input_ids"].tolist(), splits.train[0]["labels"].tolist()
    assert tokenizer.convert_ids_to_tokens([read[0], read[-1]]) == ["eng_Latn", "</s>"]
    assert tokenizer.convert_ids_to_tokens([written[0], written[-1]]) == ["fra_Latn", "</s>"]


def test_a_network_that_does_not_say_how_texts_begin_is_refused(tmp_path: Path):
    folder = t5(tmp_path / "m")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "decoder_start_token_id": None}))
    with pytest.raises(TrainingError, match="does not say which token a text that it writes begins with"):
        loaded(folder, pairs(tmp_path / "a.jsonl"), **COLUMNS)


def test_the_largest_predictions_of_a_teacher_are_those_of_the_tokens_that_are_written(tmp_path: Path):
    data = {"source": "corpus", "path": str(pairs(tmp_path / "a.jsonl")), **COLUMNS}
    losses = []
    for distill in ({"temperature": 2.0}, {"temperature": 2.0, "top": 320}):
        settings = TrainSettings(data=data, epochs=1, batch_size=4, learning_rate=1e-3, distill=distill)
        _, report = surgeon.finetune(str(t5(tmp_path / "m")), surgeon.Truncate(keep_blocks=0.5), settings=settings)
        losses.append(report.after["logits_loss"])
    assert losses[0] == pytest.approx(losses[1], abs=1e-5)


def test_features_of_pairs_are_not_cached(tmp_path: Path):
    data = {"source": "corpus", "path": str(pairs(tmp_path / "a.jsonl")), **COLUMNS}
    settings = TrainSettings(data=data, epochs=1, features="cache")
    with pytest.raises(TrainingError, match="decoder_input_ids is made for each batch"):
        surgeon.finetune(str(t5(tmp_path / "m")), [surgeon.Freeze(sites="encoder")], settings=settings)


def test_an_empty_prompt_is_named_where_the_tokenizer_adds_no_token(tmp_path: Path):
    path = pairs(tmp_path / "a.jsonl")
    path.write_text(path.read_text() + '\n{"long": "", "short": "a"}')
    folder = t5(tmp_path / "m")
    with pytest.raises(TrainingError, match="row 16: a text is empty"):
        loaded(folder, path, **COLUMNS)
    _, splits = loaded(folder, path, on_error="skip", **COLUMNS)
    assert any("left out row 16" in note for note in splits.notes)


def test_predict_says_how_texts_are_written(tmp_path: Path):
    with pytest.raises(TrainingError, match="writes one text by reading another") as refused:
        surgeon.predict(t5(tmp_path / "m"), pairs(tmp_path / "a.jsonl"))
    assert "transformers.pipeline" in str(refused.value.hint)


def test_the_source_that_a_hint_shows_is_that_of_the_training(tmp_path: Path):
    data = {"source": "corpus", "path": str(pairs(tmp_path / "a.jsonl")), **COLUMNS}
    settings = TrainSettings(data=data, epochs=1)
    model, _ = surgeon.finetune(str(t5(tmp_path / "m")), surgeon.Truncate(keep_blocks=0.5), settings=settings)
    with pytest.raises(TrainingError, match="trained on the source 'corpus'") as refused:
        surgeon.evaluate(model, tmp_path / "a.jsonl")
    assert "{source: corpus, path: …, prompt: long, completion: short}" in str(refused.value.hint)
