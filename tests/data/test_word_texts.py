"""Lists of words with a class for each, and pairs of texts."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from small_data import load, table

from surgeon.data.network import Head, Network
from surgeon.errors import TrainingError

PIECES = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "paris", "ber", "##lin", "is", "in", "spain", "a", "town"]
ROWS = [
    {"tokens": ["paris", "is", "a", "town"], "tags": ["CITY", "O", "O", "O"]},
    {"tokens": ["berlin", "is", "in", "spain"], "tags": ["CITY", "O", "O", "LAND"]},
]


def wordpiece(path: Path) -> Path:
    """A real BERT tokenizer of a few pieces, which takes "berlin" apart."""
    from transformers import BertTokenizerFast

    path.mkdir(parents=True, exist_ok=True)
    (path / "vocab.txt").write_text("\n".join(PIECES))
    BertTokenizerFast(vocab=str(path / "vocab.txt")).save_pretrained(path)
    return path


def lines(path: Path, rows: list[dict[str, Any]]) -> str:
    return "\n".join(map(json.dumps, rows)) + "\n"


def words(tmp_path: Path, rows: Any = None, **more: Any) -> dict[str, Any]:
    tokens = str(wordpiece(tmp_path / "words"))
    content = lines(tmp_path, rows or ROWS * 5)
    return table(tmp_path / "t.jsonl", content, {"labels": "tags"}, text="tokens", tokenizer=tokens, **more)


def test_the_first_piece_of_each_word_has_its_label_and_batches_are_filled(tmp_path):
    loaded = load(words(tmp_path), Head(names=("O", "CITY", "LAND"), count=3))
    samples = [loaded.train[row] for row in range(len(loaded.train))]
    berlin = next(sample for sample in samples if len(sample["input_ids"]) == 7)
    paris = next(sample for sample in samples if len(sample["input_ids"]) == 6)
    assert berlin["labels"].tolist() == [-100, 1, -100, 0, 0, 2, -100]
    assert paris["labels"].tolist() == [-100, 1, 0, 0, 0, -100]
    batch = loaded.collate([berlin, paris])
    assert batch["labels"].shape == batch["input_ids"].shape
    assert batch["labels"][1, -1] == -100
    assert "word_ids" not in batch
    assert loaded.names["labels"] == ("O", "CITY", "LAND")


def test_labels_of_words_are_numbers_or_names_of_the_dataset_too(tmp_path):
    import datasets

    features = datasets.Features(
        {
            "tokens": datasets.List(datasets.Value("string")),
            "tags": datasets.List(datasets.ClassLabel(names=["O", "CITY", "LAND"])),
        }
    )
    datasets.Dataset.from_list(ROWS * 5, features=features).to_parquet(tmp_path / "named.parquet")
    source = words(tmp_path, [{**row, "tags": [len(tag) % 4 for tag in row["tags"]]} for row in ROWS * 5])
    named = load({**source, "path": str(tmp_path / "named.parquet")})
    assert named.names["labels"] == ("O", "CITY", "LAND")
    assert named.classes == {"labels": 3}
    numbered = load(source, Head(count=3))
    assert {int(v) for row in range(4) for v in numbered.train[row]["labels"]} <= {-100, 0, 1}


def test_labels_of_words_that_do_not_fit_are_refused_with_their_row(tmp_path):
    short = {**ROWS[0], "tags": ["O"]}
    source = words(tmp_path, [*ROWS * 3, short])
    with pytest.raises(TrainingError, match=r"row 6: 'tokens' has 4 words and 'tags' 1 labels"):
        load(source)
    assert len(load({**source, "on_error": "skip"}).train) == 5
    with pytest.raises(TrainingError, match="only in the data: LAND"):
        load(words(tmp_path), Head(names=("O", "CITY"), count=2))
    with pytest.raises(TrainingError, match="row 0: 'tokens' contains a list"):
        load(words(tmp_path, [{"tokens": [3, 4], "tags": ["O", "O"]}] * 4))


def test_words_without_labels_of_their_own_are_a_text(tmp_path):
    source = words(tmp_path, [{**row, "tags": row["tags"][-1]} for row in ROWS * 5])
    loaded = load(source)
    assert loaded.train[0]["labels"].ndim == 0
    assert "word_ids" not in loaded.train[0]


def test_words_beyond_the_longest_text_are_cut_with_their_labels_and_counted(tmp_path):
    loaded = load(words(tmp_path, max_length=4))
    assert all(len(loaded.train[row]["labels"]) == 4 for row in range(len(loaded.train)))
    assert any("10 of 10 texts are cut after 4 tokens" in note for note in loaded.notes)


def test_two_columns_of_texts_are_a_pair_by_the_tokenizers_own_way(tmp_path):
    rows = "".join(f"paris is a town,berlin is,{n % 2}\n" for n in range(10))
    tokens = str(wordpiece(tmp_path / "words"))
    source = table(tmp_path / "p.csv", f"a,b,y\n{rows}", text=["a", "b"], tokenizer=tokens)
    sample = load(source, network=Network(vocabulary=12)).train[0]
    assert sample["input_ids"].tolist() == [2, 4, 7, 10, 11, 3, 5, 6, 7, 3]
    assert sample["token_type_ids"].tolist() == [0] * 6 + [1] * 4
    cut = load({**source, "max_length": 8})
    assert len(cut.train[0]["input_ids"]) == 8
    assert any("10 of 10 texts are cut" in note for note in cut.notes)
    with pytest.raises(TrainingError, match="row 0: the token 'town' has id 11, but the embedding has 5 rows"):
        load(source, network=Network(vocabulary=5))
