"""Predicting from texts, tables and other data without targets, by the meaning of each output."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from small_data import tokenizer
from torch import nn

import surgeon
from surgeon.errors import TrainingError

WORDS = ("good", "bad")


def bert(classes: int = 2) -> nn.Module:
    from transformers import BertConfig, BertForSequenceClassification

    torch.manual_seed(0)
    sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
    config = BertConfig(vocab_size=10, num_labels=classes, max_position_embeddings=16, **sizes)
    return BertForSequenceClassification(config).eval()


@pytest.fixture(scope="module")
def texts(tmp_path_factory) -> Path:
    """A text network trained on a table, with its classes against the order of the alphabet."""
    root = tmp_path_factory.mktemp("texts")
    tokenizer(root / "tokens")
    rows = [(f"a {'very ' * (n % 3)}{WORDS[n % 2]} film", ["like", "dislike"][n % 2]) for n in range(40)]
    lines = "".join(f"{text},{label}\n" for text, label in rows)
    (root / "films.csv").write_text("review,opinion\n" + lines)
    source = {"source": "table", "path": str(root / "films.csv"), "text": "review", "targets": {"labels": "opinion"}}
    settings = {"data": {**source, "tokenizer": str(root / "tokens")}, "epochs": 12, "learning_rate": 0.02}
    recipe = {"operations": [{"op": "replace_head", "classes": ["like", "dislike"]}], "train": settings}
    (root / "recipe.json").write_text(json.dumps(recipe))
    trained, report = surgeon.finetune(bert(), root / "recipe.json")
    assert report.accuracy_after == 1
    surgeon.save(trained, root / "out")
    return root


def of_numbers(
    root: Path, task: dict, columns: str, lines: list[str], targets: dict, epochs: int = 40, **more: object
) -> nn.Module:
    """An MLP with a head for ``task``, trained on a CSV file of ``lines``."""
    (root / "rows.csv").write_text("\n".join([columns, *lines]) + "\n")
    data = {"source": "table", "path": str(root / "rows.csv"), "numbers": {"x": ["p", "q"]}, "targets": targets}
    settings = {"data": data, "epochs": epochs, "learning_rate": 0.05, "batch_size": 16, **more}
    recipe = {"operations": [task], "train": settings, "roles": {"head": "2"}, "inputs": [[2, 2]]}
    (root / "recipe.json").write_text(json.dumps(recipe))
    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(2, 16), nn.ReLU(), nn.Linear(16, 4))
    return surgeon.finetune(network, root / "recipe.json")[0]


def grid() -> list[tuple[float, float]]:
    return [(p / 4 - 1, q / 4 - 1) for p in range(9) for q in range(9)]


def test_a_table_without_targets_is_predicted_row_by_row(texts, tmp_path):
    (tmp_path / "new.csv").write_text("id,review\n7,a good film\n8,a very bad film\n")
    predicted = surgeon.predict(texts / "out", tmp_path / "new.csv")
    assert [(row["sample"], row["class"]) for row in predicted.rows] == [("0", "like"), ("1", "dislike")]
    assert predicted.labels is None
    assert predicted.to_table()[0] == ["sample", "class", "like", "dislike"]


def test_a_text_file_is_a_text_a_line(texts, tmp_path):
    (tmp_path / "new.txt").write_text("a bad film\n\na very good film\n")
    predicted = surgeon.predict(texts / "out", tmp_path / "new.txt")
    lines = [(Path(row["sample"]).name, row["class"]) for row in predicted.rows]
    assert lines == [("new.txt:1", "dislike"), ("new.txt:3", "like")]


def test_tables_and_texts_come_together(texts, tmp_path):
    (tmp_path / "a.csv").write_text("review\na bad film\n")
    (tmp_path / "b.txt").write_text("a good film\n")
    predicted = surgeon.predict(texts / "out", [tmp_path / "a.csv", tmp_path / "b.txt"])
    assert [(Path(row["sample"]).name, row["class"]) for row in predicted.rows] == [
        ("a.csv:0", "dislike"),
        ("b.txt:1", "like"),
    ]


def test_other_formats_of_tables_have_the_same_columns(texts, tmp_path):
    import datasets

    rows = datasets.Dataset.from_dict({"review": ["a bad film", "a good film"]})
    rows.to_parquet(tmp_path / "new.parquet")
    rows.to_json(tmp_path / "new.jsonl")
    (tmp_path / "new.json").write_text(json.dumps([{"review": "a bad film"}, {"review": "a good film"}]))
    datasets.DatasetDict({"test": rows}).save_to_disk(tmp_path / "saved")
    for name in ("new.parquet", "new.jsonl", "new.json", "saved"):
        assert surgeon.predict(texts / "out", tmp_path / name).classes == ["dislike", "like"], name


def test_the_table_that_was_trained_on_is_measured_as_in_training(texts):
    measured = surgeon.evaluate(texts / "out", texts / "films.csv")
    assert (measured.samples, measured.main["accuracy"]) == (40, 1)
    assert list(measured.main["per_class"]) == ["like", "dislike"]
    assert surgeon.evaluate(texts / "out", texts / "films.csv", part="test").samples == 8


def test_a_table_without_labels_cannot_be_measured(texts, tmp_path):
    (tmp_path / "new.csv").write_text("review\na good film\n")
    with pytest.raises(TrainingError, match=r"no column 'opinion'.*\(available: review\)"):
        surgeon.evaluate(texts / "out", tmp_path / "new.csv")


def test_a_table_without_the_input_names_its_columns(texts, tmp_path):
    (tmp_path / "new.csv").write_text("text\na good film\n")
    with pytest.raises(TrainingError, match=r"no column 'review' \(available: text\)"):
        surgeon.predict(texts / "out", tmp_path / "new.csv")


@pytest.mark.parametrize("content", [b"\xff\xfe\x00r\n", b"", b'{"review": '])
@pytest.mark.parametrize("suffix", [".csv", ".jsonl", ".parquet"])
def test_a_damaged_table_is_named(texts, tmp_path, content, suffix):
    (tmp_path / f"new{suffix}").write_bytes(content)
    with pytest.raises(TrainingError, match=rf"new{suffix}"):
        surgeon.predict(texts / "out", tmp_path / f"new{suffix}")
    with pytest.raises(TrainingError, match=r"gone\.csv does not exist"):
        surgeon.predict(texts / "out", {"source": "table", "path": str(tmp_path / "gone.csv")})


def test_a_tokenizer_beside_the_weights_comes_first_and_none_is_fetched_unasked(texts, tmp_path):
    (tmp_path / "new.txt").write_text("a bad film\n")
    model = surgeon.load(texts / "out")
    record = surgeon.record_of(model)
    record.training[-1]["settings"]["data"]["tokenizer"] = "somebody/tokens"
    assert surgeon.predict(model, tmp_path / "new.txt").classes == ["dislike"]
    record.carry([])
    with pytest.raises(TrainingError, match="'somebody/tokens', which would have to be downloaded"):
        surgeon.predict(model, tmp_path / "new.txt")
    with pytest.raises(TrainingError, match="cannot be loaded"):  # nothing can be fetched here
        surgeon.predict(model, tmp_path / "new.txt", trust_recipe=True)


def test_pictures_are_refused_by_a_network_of_texts(texts, tmp_path):
    from PIL import Image

    Image.new("RGB", (8, 8)).save(tmp_path / "a.png")
    with pytest.raises(TrainingError, match="trained on the inputs text"):
        surgeon.predict(texts / "out", tmp_path / "a.png")


def test_whole_numbers_that_are_names_are_looked_up_as_names(tmp_path):
    lines = [f"{p},{q},{'other' if p < 0 else 1 if q < 0 else 2}" for p, q in grid()]
    task = {"op": "replace_head", "classes": ["2", "1", "other"]}
    model = of_numbers(tmp_path, task, "p,q,kind", lines, {"labels": "kind"})
    (tmp_path / "some.csv").write_text("p,q,kind\n0.7,-0.7,1\n0.7,0.7,2\n")
    assert surgeon.evaluate(model, tmp_path / "some.csv").main["accuracy"] == 1
    assert surgeon.predict(model, tmp_path / "some.csv").labels == ["1", "2"]


def test_questions_are_answered_each_by_its_name(tmp_path):
    task = {"op": "replace_head", "classes": ["right", "up"], "problem_type": "multi_label_classification"}
    lines = [f"{p},{q},{int(q > 0)},{int(p > 0)}" for p, q in grid()]
    model = of_numbers(tmp_path, task, "p,q,up,right", lines, {"labels": ["up", "right"]})
    (tmp_path / "new.csv").write_text("p,q\n0.8,-0.8\n-0.8,-0.8\n0.8,0.8\n")
    predicted = surgeon.predict(model, tmp_path / "new.csv")
    assert (predicted.kind, predicted.names) == ("yes", ("right", "up"))
    assert predicted.classes == [["right"], [], ["right", "up"]]
    with torch.no_grad():
        torch.testing.assert_close(
            predicted.values, model(torch.tensor([[0.8, -0.8], [-0.8, -0.8], [0.8, 0.8]])).sigmoid()
        )
    measured = surgeon.evaluate(model, tmp_path / "rows.csv").main
    assert measured["auroc"] > 0.9
    assert set(measured["per_label"]) == {"right", "up"}
    assert "ap" in measured


def test_two_answers_of_one_logit_keep_the_names_of_training(tmp_path):
    lines = [f"{p},{q},{'yes' if q > 0 else 'no'}" for p, q in grid()]
    objectives = [{"output": "logits", "loss": "bce"}]
    task = {"op": "replace_head", "classes": 1}
    model = of_numbers(tmp_path, task, "p,q,fit", lines, {"labels": "fit"}, objectives=objectives)
    (tmp_path / "some.csv").write_text("p,q,fit\n0.5,0.8,yes\n-0.2,0.9,yes\n")
    predicted = surgeon.predict(model, tmp_path / "some.csv")
    assert (predicted.kind, predicted.names, predicted.classes) == ("class", ("no", "yes"), ["yes", "yes"])
    with torch.no_grad():
        expected = model(torch.tensor([[0.5, 0.8], [-0.2, 0.9]])).sigmoid()
    torch.testing.assert_close(predicted.values[:, 1:], expected)
    assert surgeon.evaluate(model, tmp_path / "some.csv").main["accuracy"] == 1
    (tmp_path / "more.csv").write_text("p,q,fit\n0.5,0.8,perhaps\n")
    with pytest.raises(TrainingError, match="only in the data: perhaps"):
        surgeon.evaluate(model, tmp_path / "more.csv")


def test_a_head_with_a_count_has_the_names_of_the_data_it_was_trained_on(tmp_path):
    lines = [f"{p},{q},{'up' if q > 0 else 'down'}" for p, q in grid()]
    task = {"op": "replace_head", "classes": 2}
    model = of_numbers(tmp_path, task, "p,q,way", lines, {"labels": "way"})
    (tmp_path / "some.csv").write_text("p,q,way\n0.5,0.8,up\n")
    assert surgeon.predict(model, tmp_path / "some.csv").classes == ["up"]
    assert surgeon.evaluate(model, tmp_path / "some.csv").main["accuracy"] == 1


def test_values_are_numbers_and_measured_by_r2_and_mae(tmp_path):
    task = {"op": "replace_head", "classes": 1, "problem_type": "regression"}
    lines = [f"{p},{q},{3 * p - q + 10}" for p, q in grid()]
    model = of_numbers(tmp_path, task, "p,q,price", lines, {"labels": "price"}, epochs=80)
    predicted = surgeon.predict(model, tmp_path / "rows.csv")
    with torch.no_grad():
        expected = model(torch.tensor(grid()))
    assert predicted.kind == "value"
    torch.testing.assert_close(predicted.values, expected.reshape(-1, 1))
    assert predicted.rows[0]["label"] == pytest.approx(3 * grid()[0][0] - grid()[0][1] + 10)
    measured = surgeon.evaluate(model, tmp_path / "rows.csv").main
    errors = expected.reshape(-1) - torch.tensor([3 * p - q + 10 for p, q in grid()])
    assert measured["mae"] == pytest.approx(errors.abs().mean().item(), rel=1e-4)
    assert measured["r2"] > 0.8


def test_one_logit_is_the_probability_of_yes(tmp_path):
    tokenizer(tmp_path / "tokens")
    model = bert(1)
    (tmp_path / "new.csv").write_text("review\na good film\n")
    source = {"source": "table", "path": str(tmp_path / "new.csv"), "text": "review"}
    predicted = surgeon.predict(model, {**source, "tokenizer": str(tmp_path / "tokens")})
    with torch.no_grad():
        logit = model(torch.tensor([[2, 8, 4, 7, 3]])).logits
    assert (predicted.kind, predicted.names) == ("yes", ("yes",))
    torch.testing.assert_close(predicted.values, logit.sigmoid())


def test_the_perplexity_of_a_language_model_needs_no_labels(tmp_path):
    from transformers import GPT2Config, GPT2LMHeadModel

    torch.manual_seed(0)
    config = GPT2Config(vocab_size=10, bos_token_id=2, eos_token_id=3, n_embd=16, n_layer=1, n_head=2, n_positions=16)
    model = GPT2LMHeadModel(config).eval()
    model.save_pretrained(tmp_path / "gpt")
    tokenizer(tmp_path / "gpt")
    (tmp_path / "new.txt").write_text("a good film\na very very bad film\n")
    measured = surgeon.evaluate(tmp_path / "gpt", tmp_path / "new.txt")
    losses, count = 0.0, 0
    for ids in ([2, 8, 4, 7, 3], [2, 8, 6, 6, 5, 7, 3]):
        with torch.no_grad():
            losses += model(torch.tensor([ids]), labels=torch.tensor([ids])).loss.item() * (len(ids) - 1)
        count += len(ids) - 1
    assert measured.main["perplexity"] == pytest.approx(torch.tensor(losses / count).exp().item(), rel=1e-4)
    with pytest.raises(TrainingError, match="not one row of numbers per sample"):
        surgeon.predict(tmp_path / "gpt", tmp_path / "new.txt")


def test_datasets_from_python_are_predicted_in_all_parts(tmp_path):
    from surgeon.data.columns import Columns

    x = torch.randn(10, 4)
    splits = surgeon.Splits(Columns(x=x[:6]), Columns(x=x[6:]), inputs=("x",))
    model = nn.Linear(4, 3)
    predicted = surgeon.predict(model, splits)
    assert predicted.parts == ("train",) * 6 + ("test",) * 4
    with torch.no_grad():
        torch.testing.assert_close(predicted.values, model(x).softmax(1))
    with pytest.raises(TrainingError, match="no labels"):
        surgeon.evaluate(model, splits)


def test_columns_that_a_source_lists_in_another_order_are_read_as_in_training(tmp_path):
    lines = [f"{p},{q},{2 * p},{q + 30}" for p, q in grid()]
    task = {"op": "replace_head", "classes": 2, "problem_type": "regression"}
    targets = {"labels": ["a", "b"]}
    model = of_numbers(tmp_path, task, "p,q,a,b", lines, targets, epochs=2)
    source = {"source": "table", "path": str(tmp_path / "rows.csv")}
    as_trained = {**source, "numbers": {"x": ["p", "q"]}, "targets": targets}
    turned = {**source, "numbers": {"x": ["q", "p"]}, "targets": {"labels": ["b", "a"]}}
    assert torch.equal(surgeon.predict(model, as_trained).values, surgeon.predict(model, turned).values)
    first, second = (surgeon.evaluate(model, data).measures["logits"]["all"] for data in (as_trained, turned))
    assert first["per_value"] == second["per_value"]
