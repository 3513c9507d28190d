"""Token classification, pairs of texts and decoders that classify: trained, saved, predicted and measured."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from small_data import tokenizer
from torch import nn

import surgeon
from surgeon.errors import TrainingError

SIZES = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}


def bert(kind: str, **more: Any) -> nn.Module:
    import transformers

    torch.manual_seed(0)
    config = transformers.BertConfig(vocab_size=11, max_position_embeddings=24, **SIZES, **more)
    return getattr(transformers, kind)(config).eval()


def trained(network: nn.Module, root: Path, data: dict[str, Any], operations: Any, **more: Any) -> Any:
    settings = {"data": data, "epochs": 15, "learning_rate": 0.03, **more}
    (root / "recipe.json").write_text(json.dumps({"operations": operations, "train": settings}))
    return surgeon.finetune(network, root / "recipe.json")


@pytest.fixture(scope="module")
def tagger(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("tags")
    tokenizer(root / "tokens")
    tags = {"film": "THING", "good": "VALUE", "bad": "VALUE"}
    texts = [f"{'very ' * (n % 3)}{['good', 'bad'][n % 2]} film a" for n in range(40)]
    rows = [{"words": text.split(), "tags": [tags.get(word, "O") for word in text.split()]} for text in texts]
    (root / "t.jsonl").write_text("\n".join(map(json.dumps, rows)))
    data = {"source": "table", "path": str(root / "t.jsonl"), "text": "words", "targets": {"labels": "tags"}}
    operations = [{"op": "replace_head", "classes": ["VALUE", "O", "THING"]}]
    source = {**data, "tokenizer": str(root / "tokens")}
    model, report = trained(bert("BertForTokenClassification"), root, source, operations)
    assert report.accuracy_after == 1
    assert report.tasks["logits"]["all"]["per_class"]["THING"]["f1"] == 1
    surgeon.save(model, root / "out")
    return root


def test_words_are_tagged_by_name_from_a_table_and_from_plain_texts(tagger, tmp_path):
    assert json.loads((tagger / "out" / "config.json").read_text())["id2label"] == {
        "0": "VALUE",
        "1": "O",
        "2": "THING",
    }
    predicted = surgeon.predict(tagger / "out", tagger / "t.jsonl")
    assert len(predicted) == 40
    assert predicted.rows[1]["class"] == predicted.rows[1]["label"] == ["O", "VALUE", "THING", "O"]
    (tmp_path / "new.txt").write_text("a film\nvery very bad film\n")
    plain = surgeon.predict(tagger / "out", tmp_path / "new.txt")
    assert [row["class"] for row in plain.rows] == [["O", "THING"], ["O", "O", "VALUE", "THING"]]
    assert [row["words"] for row in plain.rows] == [["a", "film"], ["very", "very", "bad", "film"]]
    assert plain.to_table()[:3] == [
        ["sample", "word", "class"],
        [str(tmp_path / "new.txt:1"), "a", "O"],
        [str(tmp_path / "new.txt:1"), "film", "THING"],
    ]
    assert plain.summary(1)[1] == [[str(tmp_path / "new.txt:1"), "a/O film/THING"]]


def test_a_word_without_a_token_keeps_its_place_and_has_no_class(tagger, tmp_path):
    rows = [["a", "", "film"], ["a"] * 30 + ["film"]]
    tags = [["O", "O", "THING"], ["O"] * 30 + ["THING"]]
    lines = [json.dumps({"words": words, "tags": tag}) for words, tag in zip(rows, tags, strict=True)]
    (tmp_path / "odd.jsonl").write_text("\n".join(lines))
    predicted = surgeon.predict(tagger / "out", tmp_path / "odd.jsonl")
    first, second = predicted.rows
    assert first["words"] == rows[0]
    assert first["class"] == ["O", None, "THING"]
    assert first["label"] == ["O", None, "THING"]
    assert len(second["class"]) == 31
    assert second["class"][-1] is None
    dropped = sum(name is None for row in predicted.rows for name in row["class"])
    assert any(note.startswith(f"{dropped} words have no class: dropped") for note in predicted.notes)
    assert ["0", "", "", ""] in predicted.to_table()


def test_words_are_measured_by_class(tagger):
    evaluation = surgeon.evaluate(tagger / "out", tagger / "t.jsonl")
    assert [note for note in evaluation.notes if "have no 'labels'" in note] == []  # lists of tags are padded
    measured = evaluation.main
    assert "perplexity" not in measured
    assert measured["accuracy"] == 1
    assert set(measured["per_class"]) == {"VALUE", "O", "THING"}
    assert measured["per_class"]["VALUE"]["samples"] == 40


def test_a_head_with_other_names_than_the_tags_is_refused(tagger, tmp_path):
    source = {"source": "table", "path": str(tagger / "t.jsonl"), "text": "words", "targets": {"labels": "tags"}}
    with pytest.raises(TrainingError, match="only in the head: PLACE"):
        trained(
            bert("BertForTokenClassification"),
            tmp_path,
            {**source, "tokenizer": str(tagger / "tokens")},
            [{"op": "replace_head", "classes": ["O", "VALUE", "PLACE"]}],
        )


def pairs(root: Path, label: Any) -> dict[str, Any]:
    words = str(tokenizer(root / "tokens"))
    rows = [(["good", "bad"][n % 2], ["good", "bad"][n // 2 % 2]) for n in range(64)]
    lines = "".join(f"a {a} film,the {b} film,{label(b == 'good')}\n" for a, b in rows)
    (root / "p.csv").write_text("first,second,y\n" + lines)
    common = {"source": "table", "path": str(root / "p.csv"), "targets": {"labels": "y"}}
    return {**common, "text": ["first", "second"], "tokenizer": words}


def test_pairs_are_classified_and_predicted(tmp_path):
    data = pairs(tmp_path, lambda good: ["con", "pro"][good])
    operations = [{"op": "replace_head", "classes": ["pro", "con"]}]
    model, report = trained(
        bert("BertForSequenceClassification"), tmp_path, data, operations, epochs=60, learning_rate=0.01
    )
    assert report.accuracy_after == 1
    surgeon.save(model, tmp_path / "out")
    (tmp_path / "new.csv").write_text("second,first\nthe bad film,a good film\nthe good film,a bad film\n")
    predicted = surgeon.predict(tmp_path / "out", tmp_path / "new.csv")
    assert predicted.classes == ["con", "pro"]
    assert surgeon.evaluate(tmp_path / "out", tmp_path / "p.csv").main["accuracy"] == 1
    (tmp_path / "new.txt").write_text("a film\n")
    with pytest.raises(TrainingError, match=r"(?s)pairs of texts.*first and second"):
        surgeon.predict(tmp_path / "out", tmp_path / "new.txt")


def test_pairs_have_values_too(tmp_path):
    data = pairs(tmp_path, lambda good: f"{0.5 + good}")
    network = bert("BertForSequenceClassification", num_labels=1, problem_type="regression")
    objectives = [{"output": "logits", "loss": "mse", "label": "labels"}]
    model, _ = trained(
        network,
        tmp_path,
        data,
        [{"op": "replace_head", "classes": 1}],
        objectives=objectives,
        epochs=60,
        learning_rate=0.01,
    )
    measured = surgeon.evaluate(model, tmp_path / "p.csv").main
    assert measured["r2"] > 0.9


@pytest.mark.parametrize("family", ["Llama", "GPT2"])
def test_a_decoder_without_a_token_for_padding_gets_that_of_its_tokenizer(tmp_path, family):
    import transformers

    torch.manual_seed(0)
    sizes = {"vocab_size": 11, "eos_token_id": 3, "bos_token_id": 2}
    if family == "GPT2":
        sizes |= {"n_embd": 16, "n_layer": 1, "n_head": 2, "n_positions": 16}
    else:
        sizes |= {**SIZES, "max_position_embeddings": 16}
    config = getattr(transformers, f"{family}Config")(num_labels=2, **sizes)
    network = getattr(transformers, f"{family}ForSequenceClassification")(config)
    assert network.config.pad_token_id is None
    words = tokenizer(tmp_path / "tokens")
    rows = "".join(f"{'very ' * (n % 4)}{['good', 'bad'][n % 2]},{['yes', 'no'][n % 2]}\n" for n in range(40))
    (tmp_path / "t.csv").write_text("t,y\n" + rows)
    common = {"source": "table", "path": str(tmp_path / "t.csv"), "targets": {"labels": "y"}, "text": "t"}
    model, report = trained(
        network, tmp_path, {**common, "tokenizer": str(words)}, [{"op": "replace_head", "classes": 2}]
    )
    assert report.accuracy_after == 1
    surgeon.save(model, tmp_path / "out")
    assert surgeon.evaluate(tmp_path / "out", tmp_path / "t.csv", batch_size=7).main["accuracy"] == 1
    stock = getattr(transformers, f"{family}ForSequenceClassification").from_pretrained(tmp_path / "out")
    assert stock.config.pad_token_id == 0


def decoder_folder(root: Path, kind: str, pad: int | None) -> Path:
    """A decoder that ends its texts with 3, beside a tokenizer that pads with 0."""
    import transformers

    torch.manual_seed(0)
    tokenizer(root)
    sizes = {"vocab_size": 11, "eos_token_id": [3, 4], "bos_token_id": 2, "pad_token_id": pad}
    config = transformers.LlamaConfig(**sizes, **SIZES, max_position_embeddings=16)
    getattr(transformers, kind)(config).save_pretrained(root)
    return root


@pytest.mark.parametrize("pad", [None, 5])
def test_a_decoder_is_padded_as_the_tokenizer_beside_it_pads(tmp_path, pad):
    folder = decoder_folder(tmp_path / "lm", "LlamaForCausalLM", pad)
    surgeon.save(surgeon.apply(folder, [surgeon.ReplaceHead(classes=2)]), tmp_path / "out")
    assert json.loads((tmp_path / "out" / "config.json").read_text())["pad_token_id"] == 0
    assert surgeon.load(tmp_path / "out").config.pad_token_id == 0
    plan = surgeon.plan(folder, [surgeon.ReplaceHead(classes=2)])
    assert any("pad_token_id is 0, as the tokenizer pads" in note for step in plan.steps for note in step.notes)


def test_a_padded_text_gets_the_class_that_it_gets_alone_whatever_token_the_config_named(tmp_path):
    folder = decoder_folder(tmp_path / "lm", "LlamaForSequenceClassification", 3)
    rows = "".join(f"{'very ' * (n % 4)}{['good', 'bad'][n % 2]},{['yes', 'no'][n % 2]}\n" for n in range(24))
    (tmp_path / "t.csv").write_text("t,y\n" + rows)
    data = {"source": "table", "path": str(tmp_path / "t.csv"), "targets": {"labels": "y"}, "text": "t"}
    model, _ = trained(folder, tmp_path, data, [{"op": "freeze", "up_to": "model.layers.0"}], epochs=1)
    surgeon.save(model, tmp_path / "out")
    assert surgeon.load(tmp_path / "out").config.pad_token_id == 0
    alone, padded = (surgeon.predict(tmp_path / "out", tmp_path / "t.csv", batch_size=size).rows for size in (1, 8))
    for one, other in zip(alone, padded, strict=True):
        assert one["probabilities"] == pytest.approx(other["probabilities"], abs=1e-5)


def table_of_texts(root: Path) -> dict[str, Any]:
    rows = "".join(f"{'very ' * (n % 4)}{['good', 'bad'][n % 2]},{['yes', 'no'][n % 2]}\n" for n in range(24))
    (root / "t.csv").write_text("t,y\n" + rows)
    return {"source": "table", "path": str(root / "t.csv"), "targets": {"labels": "y"}, "text": "t"}


def test_a_tokenizer_without_a_token_that_pads_is_refused_for_a_decoder_that_classifies(tmp_path):
    folder = decoder_folder(tmp_path / "lm", "LlamaForCausalLM", None)
    settings = json.loads((folder / "tokenizer_config.json").read_text())
    for name in ("pad_token", "eos_token"):
        settings.pop(name, None)
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    with pytest.raises(TrainingError, match="names no token that pads"):
        trained(folder, tmp_path, table_of_texts(tmp_path), [{"op": "replace_head", "classes": 2}])


def test_a_token_that_pads_beyond_the_embedding_is_named(tmp_path):
    from transformers import AutoTokenizer

    folder = decoder_folder(tmp_path / "lm", "LlamaForCausalLM", None)
    words = AutoTokenizer.from_pretrained(folder)
    words.add_tokens(["zz"])
    words.add_special_tokens({"pad_token": "<new>"})
    words.save_pretrained(folder)
    network = surgeon.apply(folder, [surgeon.ReplaceHead(classes=2)])
    assert network.config.pad_token_id == 3
    with pytest.raises(TrainingError, match="pads with '<new>', id 11, but the embedding has 11 rows"):
        trained(folder, tmp_path, table_of_texts(tmp_path), [{"op": "replace_head", "classes": 2}])


def test_a_teacher_and_a_network_from_scratch_are_padded_alike(tmp_path, monkeypatch):
    from surgeon.training.job import Job

    padded = []
    run = Job.run

    def noted(job: Any, model: nn.Module, *args: Any, **options: Any) -> Any:
        padded.extend(net.config.pad_token_id for net in (model, job.teacher) if net is not None)
        return run(job, model, *args, **options)

    monkeypatch.setattr(Job, "run", noted)
    folder = decoder_folder(tmp_path / "lm", "LlamaForSequenceClassification", 3)
    for more in ({"distill": {"temperature": 1.0}}, {"baseline": "scratch"}):
        trained(folder, tmp_path, table_of_texts(tmp_path), [{"op": "reinit", "sites": "score"}], epochs=1, **more)
    assert padded == [0, 0, 0, 0]


def test_an_empty_text_without_tokens_is_named_by_its_row(tmp_path):
    data = table_of_texts(tmp_path)
    (tmp_path / "t.csv").write_text((tmp_path / "t.csv").read_text() + '"",yes\n')
    folder = decoder_folder(tmp_path / "lm", "LlamaForSequenceClassification", 0)
    trained(folder, tmp_path, data, [{"op": "reinit", "sites": "score"}], epochs=1)
    fast = json.loads((folder / "tokenizer.json").read_text())
    (folder / "tokenizer.json").write_text(json.dumps({**fast, "post_processor": None}))
    with pytest.raises(TrainingError, match=r"row 24.*adds no token to it"):
        trained(folder, tmp_path, data, [{"op": "reinit", "sites": "score"}])


def test_a_network_of_an_earlier_record_without_a_token_that_pads_still_loads():
    import transformers

    from surgeon.training.class_names import adopt_padding, check_padding

    config = transformers.LlamaConfig(vocab_size=11, pad_token_id=3, **SIZES)
    network = transformers.LlamaForSequenceClassification(config)
    recorded = {"texts": {"max_length": 8, "pad_token_id": None}}
    assert adopt_padding(network, recorded) == ""
    with pytest.raises(TrainingError, match="names no token that pads"):
        check_padding(network, recorded)
