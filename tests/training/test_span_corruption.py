"""Encoder-decoders learn from texts by span corruption, as T5 was trained."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from language_folders import SENTENCES, sentences, t5
from test_language_models import batch_of, loaded, loss_of

import surgeon
from surgeon.data.labels import IGNORED
from surgeon.data.spans import SpanCorruption
from surgeon.errors import TrainingError
from surgeon.recipe.train_settings import TrainSettings


def filled(sample: dict[str, torch.Tensor], sentinels: list[int], end: int) -> list[int]:
    """Put what is written in the places of the sentinels in what is read."""
    spans: dict[int, list[int]] = {}
    for token in sample["labels"].tolist()[:-1]:
        if token in sentinels:
            spans[token] = []
        else:
            spans[list(spans)[-1]].append(token)
    assert spans.pop(list(spans)[-1]) == [], "the last sentinel ends the spans"
    tokens: list[int] = []
    for token in sample["input_ids"].tolist()[:-1]:
        tokens += spans.pop(token) if token in sentinels else [token]
    assert not spans
    return [*tokens, end]


def test_what_is_read_with_what_is_written_is_the_text(tmp_path: Path):
    _, splits = loaded(t5(tmp_path / "m", 10), sentences(tmp_path / "a.txt"), packing="none", max_length=64)
    tokenizer, masking = splits.collate.tokenizer, splits.train.masking
    names = [tokenizer.convert_ids_to_tokens(number) for number in masking.sentinels]
    assert names == [f"<extra_id_{number}>" for number in range(10)]
    shares, sizes, ends = [], [], set()
    for epoch in range(20):
        splits.train.set_epoch(epoch)
        for number in range(len(splits.train)):
            sample = splits.train[number]
            whole = filled(sample, masking.sentinels, tokenizer.eos_token_id)
            assert tokenizer.decode(whole[:-1]) in SENTENCES
            used = [token for token in sample["labels"].tolist() if token in masking.sentinels]
            assert used == masking.sentinels[: len(used)], "sentinels come in their order"
            left_out = len(sample["labels"]) - len(used) - 1
            shares.append(left_out / (len(whole) - 1))
            sizes.append(left_out / (len(used) - 1))
            read = sample["input_ids"].tolist()[:-1]
            ends.add((read[0] in used, read[-1] in used))
    assert sum(shares) / len(shares) == pytest.approx(0.15, abs=0.02)
    assert {(True, False), (False, True), (False, False)} <= ends, "spans are left out anywhere"
    assert 2 < sum(sizes) / len(sizes) < 4


def test_spans_change_with_every_epoch_and_never_for_a_measure(tmp_path: Path):
    folder, path = t5(tmp_path / "m", 10), sentences(tmp_path / "a.txt")
    _, splits = loaded(folder, path)
    _, other = loaded(folder, path, seed=1)

    def written(rows: object) -> list[list[int]]:
        return [rows[number]["labels"].tolist() for number in range(len(rows))]

    first = written(splits.train)
    assert written(other.train) != first
    splits.train.set_epoch(1)
    assert written(splits.train) != first
    splits.train.set_epoch(0)
    assert written(splits.train) == first
    splits.test.set_epoch(3)
    assert written(splits.test) == written(other.test)


@pytest.mark.parametrize(("packing", "length"), [("blocks", 32), ("none", 64)])
def test_the_loss_is_that_of_the_networks_own_class(tmp_path: Path, packing: str, length: int):
    path = tmp_path / "a.txt"
    path.write_text("\n".join([*SENTENCES, *["the cat sleeps and the dog walks " * 4] * 4]))
    model, splits = loaded(t5(tmp_path / "m", 10), path, packing=packing, max_length=length)
    batch = batch_of(splits, len(splits.train))
    assert (batch["labels"] == IGNORED).any() == (packing == "none")
    assert "decoder_input_ids" in splits.inputs
    assert batch["decoder_input_ids"][:, 0].tolist() == [5] * len(splits.train)
    expected = model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"], labels=batch["labels"]).loss
    assert (batch["labels"] == IGNORED).any() == (packing == "none") or packing == "blocks"
    assert abs(loss_of(model, splits, batch).item() - expected.item()) < 1e-6


@pytest.mark.parametrize(("loss", "name"), [(None, "perplexity"), ("masked", "pseudo_perplexity")])
def test_it_is_trained_measured_and_measured_again(tmp_path: Path, loss: str | None, name: str):
    data = {"source": "corpus", "path": str(sentences(tmp_path / "a.txt")), "unit": "line", "max_length": 32}
    objectives = None if loss is None else [{"output": "logits", "loss": loss, "label": "labels"}]
    settings = TrainSettings(data=data, objectives=objectives, epochs=20, batch_size=8, learning_rate=1e-2)
    model, report = surgeon.finetune(str(t5(tmp_path / "m", 10)), surgeon.Truncate(keep_blocks=0.5), settings=settings)
    assert report.after["logits_loss"] < report.before["logits_loss"] - 0.5
    surgeon.save(model, tmp_path / "out")
    again = surgeon.evaluate(tmp_path / "out", data, part="test")
    measured = report.tasks["logits"]["all"][name]
    assert again.main[name] == pytest.approx(measured, rel=1e-5)


@pytest.mark.parametrize(
    ("fields", "loss", "problem"),
    [
        ({"whole_words": True}, None, "whole_words is for networks that predict masked tokens"),
        ({}, "next_token", "next_token needs one that continues its text"),
        ({"tokenizer": "without"}, None, "the tokenizer has no sentinels"),
    ],
)
def test_what_does_not_go_with_it_is_refused_before_texts_are_read(tmp_path: Path, monkeypatch, fields, loss, problem):
    monkeypatch.delattr("surgeon.data.corpus.texts_by_part")
    folder = t5(tmp_path / "m", 10)
    if "tokenizer" in fields:
        fields = {"tokenizer": str(t5(tmp_path / "without"))}
    data = {"source": "corpus", "path": str(sentences(tmp_path / "a.txt")), "unit": "line", "max_length": 16, **fields}
    objectives = None if loss is None else [{"output": "logits", "loss": loss, "label": "labels"}]
    settings = TrainSettings(data=data, objectives=objectives, epochs=1)
    with pytest.raises(TrainingError, match=problem):
        surgeon.finetune(str(folder), [surgeon.Truncate(keep_blocks=0.5)], settings=settings)


def test_a_text_of_one_token_is_read_as_a_sentinel(tmp_path: Path):
    _, splits = loaded(t5(tmp_path / "m", 10), sentences(tmp_path / "a.txt"))
    corrupt = SpanCorruption(splits.collate.tokenizer, 0.15, 0)
    sample = corrupt({"input_ids": torch.tensor([7, corrupt.end])}, 0, 0)
    assert sample["input_ids"].tolist() == [corrupt.sentinels[0], corrupt.end]
    assert sample["labels"].tolist() == [corrupt.sentinels[0], 7, corrupt.sentinels[1], corrupt.end]


def byt5(folder: Path) -> Path:
    from transformers import ByT5Tokenizer, T5Config, T5ForConditionalGeneration

    torch.manual_seed(0)
    sizes = {"d_model": 16, "d_kv": 8, "d_ff": 32, "num_layers": 2, "num_heads": 2, "dropout_rate": 0.0}
    config = T5Config(vocab_size=384, decoder_start_token_id=0, **sizes)
    T5ForConditionalGeneration(config).save_pretrained(folder)
    ByT5Tokenizer().save_pretrained(folder)
    return folder


def test_bytes_are_left_out_as_byt5_was_trained(tmp_path: Path):
    path = tmp_path / "a.txt"
    path.write_text("\n".join(f"{sentence} près de l'été, 猫 {'и так далее ' * 9}" for sentence in SENTENCES))
    _, splits = loaded(byt5(tmp_path / "m"), path, packing="none", max_length=512)
    masking, sizes = splits.train.masking, []
    assert masking.sentinels[:3] == [258, 257, 256]
    for number in range(len(splits.train)):
        sample = splits.train[number]
        whole = filled(sample, masking.sentinels, 1)
        assert whole == splits.train.rows[number]["input_ids"].tolist(), "no byte of a text is taken for a sentinel"
        used = [token for token in sample["labels"].tolist() if token in masking.sentinels]
        sizes.append((len(sample["labels"]) - len(used) - 1) / (len(used) - 1))
    assert 12 < sum(sizes) / len(sizes) < 28, "a span has about 20 bytes"


def test_the_pieces_of_mt5_are_sentinels(tmp_path: Path):
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(t5(tmp_path / "m"))
    pieces = [f"▁<extra_id_{number}>" for number in reversed(range(5))]
    tokenizer.add_tokens(pieces)
    ids = tokenizer.convert_tokens_to_ids(pieces[::-1])
    assert SpanCorruption(tokenizer, 0.15, 0).sentinels == ids
    # what transformers adds behind them was in no training
    tokenizer.add_special_tokens({"additional_special_tokens": [f"<extra_id_{number}>" for number in range(3)]})
    assert SpanCorruption(tokenizer, 0.15, 0).sentinels == ids
