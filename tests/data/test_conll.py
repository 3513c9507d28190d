"""CoNLL files: sentences with a tag for each word, every line checked."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from data.test_word_texts import wordpiece
from small_data import load

import surgeon
from surgeon.data.conll import read_conll
from surgeon.data.network import Head
from surgeon.errors import TrainingError

TWO = "-DOCSTART- O\n\nparis CITY\nis O\na O\ntown O\n\nberlin CITY\nis O\nin O\nspain LAND\n\n"
FOUR = "# sent_id = 1 of 1\nparis NNP B-NP CITY\nis VB B-VP O\n\n"


def of(tmp_path: Path, content: str = TWO * 4, **more: Any) -> dict[str, Any]:
    (tmp_path / "train.txt").write_text(content)
    tokens = str(wordpiece(tmp_path / "words"))
    return {"source": "conll", "path": str(tmp_path / "train.txt"), "tokenizer": tokens, **more}


def test_the_first_piece_of_each_word_has_the_class_of_its_tag(tmp_path):
    loaded = load(of(tmp_path), Head(names=("O", "CITY", "LAND"), count=3))
    samples = [loaded.train[row] for row in range(len(loaded.train))]
    berlin = next(sample for sample in samples if len(sample["input_ids"]) == 7)
    assert berlin["labels"].tolist() == [-100, 1, -100, 0, 0, 2, -100]
    assert loaded.names["labels"] == ("O", "CITY", "LAND")
    assert any("8 sentences of 32 words" in note for note in loaded.notes)
    assert any("0 comments and 4 lines -DOCSTART-" in note for note in loaded.notes)


def test_other_tags_than_the_heads_are_refused_with_both_lists(tmp_path):
    with pytest.raises(TrainingError, match="only in the head: PER; only in the data: LAND"):
        load(of(tmp_path), Head(names=("O", "CITY", "PER"), count=3))


def test_columns_are_chosen_by_number_and_tabs_are_kept_apart_from_spaces(tmp_path):
    file = tmp_path / "a"
    file.write_text(FOUR)
    columns, notes = read_conll(file, words=1, tags=None, skip=False)
    assert columns == {"words": [["paris", "is"]], "tags": [["CITY", "O"]]}
    assert "1 comments" in notes[-1]
    assert read_conll(file, words=1, tags=2, skip=False)[0]["tags"] == [["NNP", "VB"]]
    file.write_text("1\tNew York\tLOC\r\n2\t#\tO\r\n")
    assert read_conll(file, words=2, tags=None, skip=False)[0]["words"] == [["New York", "#"]]
    with pytest.raises(TrainingError, match="has 3 columns, so tags: 9 is none of them"):
        read_conll(file, words=2, tags=9, skip=False)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ("paris CITY\nis\n", "line 2 has 1 columns, not 2: 'is'"),
        ("paris\tCITY\n\tO\n", "line 2 has 1 columns, not 2"),
        ("paris\nis\n", "line 1 has a single column"),
        ("\n\n", "has no sentence"),
    ],
)
def test_a_wrong_line_is_named(tmp_path, content, reason):
    with pytest.raises(TrainingError, match=reason):
        load(of(tmp_path, content))


def test_sentences_with_a_wrong_line_are_left_out_on_request_and_counted(tmp_path):
    loaded = load(of(tmp_path, TWO * 4 + "paris\n\n", on_error="skip"))
    assert any("left out 1 sentences (line 49 has 1 columns" in note for note in loaded.notes)


def test_files_in_other_encodings_are_named(tmp_path):
    (tmp_path / "x").write_bytes("für O\n".encode("latin-1"))
    with pytest.raises(TrainingError, match="is not UTF-8"):
        read_conll(tmp_path / "x", words=1, tags=None, skip=False)


def test_a_network_learns_tags_is_saved_predicts_words_and_is_measured(tmp_path):
    from transformers import BertConfig, BertForTokenClassification

    torch.manual_seed(0)
    sizes = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}
    network = BertForTokenClassification(BertConfig(vocab_size=12, max_position_embeddings=32, num_labels=3, **sizes))
    data = of(tmp_path)
    recipe = {
        "operations": [{"op": "replace_head", "classes": ["O", "CITY", "LAND"]}],
        "train": {"data": data, "epochs": 20, "learning_rate": 0.01, "batch_size": 4},
    }
    (tmp_path / "recipe.json").write_text(json.dumps(recipe))
    model, report = surgeon.finetune(network.eval(), tmp_path / "recipe.json")
    assert report.tasks["logits"]["all"]["accuracy"] > 0.9
    surgeon.save(model, tmp_path / "out")
    (tmp_path / "new.txt").write_text("berlin is a town\n")
    assert surgeon.predict(model, tmp_path / "new.txt").classes == [["CITY", "O", "O", "O"]]
    assert surgeon.evaluate(model, json.dumps(data)).main["accuracy"] > 0.9
    tagged = (tmp_path / "train.txt").rename(tmp_path / "more.conll")
    assert surgeon.evaluate(model, tagged).main["accuracy"] > 0.9
