"""The names of classes, positions and vocabulary of real networks, and what training makes of them."""

from __future__ import annotations

import json
from pathlib import Path

import families
import pytest
import torch
import transformers
from small_data import folder, tokenizer
from torch import nn
from torch.utils.data import Dataset

import surgeon
from surgeon import cli
from surgeon.data.columns import Columns
from surgeon.errors import TrainingError
from surgeon.interfaces.record import record_of
from surgeon.interfaces.splits import Splits
from surgeon.interfaces.training import Objective
from surgeon.recipe.train_settings import TrainSettings
from surgeon.training.class_names import class_names, network_of, positions, vocabulary
from surgeon.training.session import train

TINY = {
    "vocab_size": 30, "hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16,
    "max_position_embeddings": 32,
}  # fmt: skip
COLOURS = ["cat", "dog", "rabbit"]


def picture_network(names: list[str] | None = None) -> nn.Module:
    torch.manual_seed(0)
    config = transformers.ResNetConfig(
        embedding_size=8, hidden_sizes=[8, 16], depths=[1, 1], layer_type="basic", num_labels=len(names or COLOURS)
    )
    if names:
        config.id2label = dict(enumerate(names))
        config.label2id = {name: number for number, name in enumerate(names)}
    return transformers.ResNetForImageClassification(config)


def by_name(model: nn.Module, path: Path, names: list[str]) -> float:
    """The share of the pictures below ``path`` that ``model`` calls by the name of their folder."""
    from surgeon.training.load_splits import load_splits

    source = {"source": "images", "path": str(path), "pixels": {"size": 32}, "test_fraction": 0.1}
    samples = load_splits(TrainSettings(data=source)).train
    right = 0
    for row in range(len(samples)):
        with torch.no_grad():
            best = int(model(samples[row]["pixel_values"][None]).logits.argmax())
        right += names[best] == Path(samples.rows[row]["image"]).parent.name
    return right / len(samples)


def recipe(path: Path, classes: object, data: Path, **more: object) -> Path:
    source = {"source": "images", "path": str(data), "pixels": {"size": 32}}
    settings = {"data": source, "epochs": 8, "batch_size": 8, "learning_rate": 0.01, **more}
    text = {"operations": [{"op": "replace_head", "classes": classes}], "train": settings}
    path.write_text(json.dumps(text))
    return path


@pytest.mark.parametrize("classes", [["rabbit", "cat", "dog"], 3])
def test_a_trained_head_calls_pictures_by_their_names_wherever_it_is_read(tmp_path, classes, capfd):
    data = folder(tmp_path / "pets", count=8)
    picture_network().save_pretrained(tmp_path / "net")
    made = recipe(tmp_path / "r.json", classes, data)
    capfd.readouterr()
    out = tmp_path / "out"
    assert cli.run(["apply", str(made), str(tmp_path / "net"), "-o", str(out), "--json"]) == 0
    report = json.loads(capfd.readouterr().out)["training"]["data"]
    names = classes if isinstance(classes, list) else COLOURS
    assert report["classes"] == {"labels": names}
    assert report["split"]["counts"] == {"train": 19, "test": 5}
    assert report["notes"][0] == f"{data}: 24 pictures, 3 classes, no splits"
    entry = json.loads((out / "surgeon.json").read_text())["record"]["training"][-1]
    assert entry["classes"] == {"labels": names}
    assert entry["split"]["rule"] == "0.2 held out, by class"
    assert len(entry["split"]["held_out"]["test"]) == 64
    stock = transformers.ResNetForImageClassification.from_pretrained(out).eval()
    assert [stock.config.id2label[number] for number in range(3)] == names
    loaded = surgeon.load(out)
    assert class_names(loaded) == {"labels": names}
    assert [loaded.config.id2label[number] for number in range(3)] == names
    assert by_name(loaded, data, names) == by_name(stock, data, names) == 1


def test_a_kept_head_keeps_its_names_and_refuses_data_of_others(tmp_path):
    names = ["rabbit", "dog", "cat"]
    picture_network(names).save_pretrained(tmp_path / "net")
    data = folder(tmp_path / "pets", count=8)
    source = {"source": "images", "path": str(data), "pixels": {"size": 32}}
    model = surgeon.load(tmp_path / "net").requires_grad_(True)
    train(model, TrainSettings(data=source, epochs=8, batch_size=8, learning_rate=0.01), quiet=True)
    assert by_name(model, data, names) == 1
    folder(tmp_path / "pets", ["bird"])
    with pytest.raises(TrainingError, match="only in the head: none; only in the data: bird"):
        train(model, TrainSettings(data=source), quiet=True)


def test_names_that_were_trained_last_until_another_head_stands_there(tmp_path):
    data = folder(tmp_path / "pets", count=4)
    picture_network().save_pretrained(tmp_path / "net")
    made = recipe(tmp_path / "r.json", 3, data, epochs=1)
    out = str(tmp_path / "out")
    assert cli.run(["apply", str(made), str(tmp_path / "net"), "-o", out, "--quiet"]) == 0
    frozen = surgeon.apply(surgeon.load(out), [surgeon.Freeze(all_but="head")])
    assert class_names(frozen) == {"labels": COLOURS}
    again = surgeon.apply(surgeon.load(out), [surgeon.ReplaceHead(classes=2)])
    assert class_names(again) == {}
    assert network_of(again).heads["labels"].count == 2
    named = surgeon.apply(surgeon.load(out), [surgeon.ReplaceHead(classes=["no", "yes"])])
    assert class_names(named) == {"labels": ["no", "yes"]}


def test_an_artifact_that_is_trained_further_refuses_other_classes(tmp_path, capfd):
    data = folder(tmp_path / "pets", count=4)
    picture_network().save_pretrained(tmp_path / "net")
    made, out = recipe(tmp_path / "r.json", 3, data, epochs=1), str(tmp_path / "out")
    assert cli.run(["apply", str(made), str(tmp_path / "net"), "-o", out, "--quiet"]) == 0
    (data / "cat").rename(data / "ant")
    capfd.readouterr()
    assert cli.run(["train", out, "-o", str(tmp_path / "more"), "--quiet", "--trust-recipe"]) == TrainingError.exit_code
    assert "only in the head: cat; only in the data: ant" in " ".join(capfd.readouterr().err.split())


def test_a_torchvision_network_keeps_the_names_in_its_record(tmp_path):
    data = folder(tmp_path / "pets", count=4)
    source = {"source": "images", "path": str(data), "pixels": {"size": 32}}
    model = surgeon.apply(nn.Sequential(nn.Conv2d(3, 4, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 9)),
                          [surgeon.ReplaceHead(classes=["dog", "rabbit", "cat"])])  # fmt: skip
    assert record_of(model) is not None
    assert class_names(model) == {"labels": ["dog", "rabbit", "cat"]}
    report = train(model, TrainSettings(data=source, epochs=1), quiet=True)
    assert report.data["classes"] == {"labels": ["dog", "rabbit", "cat"]}


def test_tasks_have_names_of_their_own():
    net = nn.Sequential(nn.Flatten(), nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2))
    tasks = {
        "kind": {"classes": ["b", "a"], "label": "kind"},
        "age": {"classes": 1, "kind": "regression", "label": "age"},
    }
    edited = surgeon.apply(net, [surgeon.Multitask(tasks=tasks, original="keep")])
    objectives = [Objective(output="kind", label="kind"), Objective(output="age", loss="mse", label="age")]
    assert class_names(edited, objectives) == {"kind": ["b", "a"]}
    assert network_of(edited, objectives).heads["age"].loss == "mse"


# ---- positions and vocabulary


@pytest.mark.parametrize(
    ("kind", "config", "expected"),
    [
        ("BertForSequenceClassification", transformers.BertConfig(**TINY), 32),
        ("RobertaForSequenceClassification", transformers.RobertaConfig(**{**TINY, "pad_token_id": 1}), 30),
        ("GPT2ForSequenceClassification", transformers.GPT2Config(n_embd=16, n_layer=1, n_head=2, n_positions=24), 24),
        ("OPTForSequenceClassification",
         transformers.OPTConfig(**{**TINY, "ffn_dim": 16, "word_embed_proj_dim": 16}), 32),
        ("DistilBertForSequenceClassification",
         transformers.DistilBertConfig(vocab_size=30, dim=16, n_layers=1, n_heads=2, hidden_dim=16,
                                       max_position_embeddings=20), 20),
        ("ResNetForImageClassification",
         transformers.ResNetConfig(embedding_size=8, hidden_sizes=[8], depths=[1], layer_type="basic"), None),
    ],
)  # fmt: skip
def test_positions_are_those_that_the_network_takes(kind, config, expected):
    model = getattr(transformers, kind)(config).eval()
    assert positions(model) == expected
    if expected is None:
        return
    model.config.pad_token_id = 1
    ids = torch.full((1, expected + 1), 5)
    model(input_ids=ids[:, :-1], attention_mask=torch.ones_like(ids[:, :-1]))
    with pytest.raises((IndexError, RuntimeError)):
        model(input_ids=ids, attention_mask=torch.ones_like(ids))
    assert vocabulary(model) == model.get_input_embeddings().num_embeddings


def test_a_columns_classes_have_the_names_and_the_order_that_its_operation_gives():
    column = surgeon.Progressive(task="new", classes=["zebra", "ant"], at=["layer3"])
    model = surgeon.apply(families.build("resnet"), [column])
    head = network_of(model, [Objective(output="new", label="kind")]).heads["kind"]
    assert (head.names, head.count) == (("zebra", "ant"), 2)


def test_the_length_of_training_is_the_configs():
    sizes = {"vocab_size": 30, "hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    config = transformers.LlamaConfig(**sizes, intermediate_size=16, max_position_embeddings=24)
    network = network_of(transformers.LlamaForCausalLM(config))
    assert (network.context, network.positions) == (24, None)
    assert network_of(nn.Linear(2, 2)).context is None


def test_long_texts_and_unknown_tokens_never_reach_the_network(tmp_path, capfd):
    transformers.RobertaForSequenceClassification(
        transformers.RobertaConfig(**{**TINY, "pad_token_id": 1})
    ).save_pretrained(tmp_path / "net")
    tokenizer(tmp_path / "words")
    rows = ["a good film,yes\n", "a bad film,no\n"] * 10 + ["very " * 99 + "bad,no\n"]
    (tmp_path / "t.csv").write_text("t,y\n" + "".join(rows))
    (tmp_path / "r.yaml").write_text(
        "operations: [{op: replace_head, classes: 2}]\ntrain:\n  epochs: 1\n"
        "  data: {source: table, path: t.csv, text: t, tokenizer: words, targets: {labels: y}}\n"
    )
    capfd.readouterr()
    arguments = ["apply", str(tmp_path / "r.yaml"), str(tmp_path / "net"), "-o", str(tmp_path / "out"), "--json"]
    assert cli.run(arguments) == 0
    report = json.loads(capfd.readouterr().out)["training"]["data"]
    assert any("1 of 21 texts are cut after 30 tokens" in note for note in report["notes"])
    tokenizer(tmp_path / "words", tuple(f"<new{number}>" for number in range(30)))
    (tmp_path / "t.csv").write_text("t,y\n" + "".join(rows) + "<new25>,yes\n")
    assert cli.run([*arguments, "--force"]) == TrainingError.exit_code
    assert "row 21: the token '<new25>' has id 35" in " ".join(capfd.readouterr().err.split())


# ---- what choices are made by, and labels of datasets from Python


class Plain(Dataset):  # type: ignore[type-arg]
    """A dataset that says nothing of itself."""

    def __init__(self, labels: torch.Tensor) -> None:
        self.labels = labels

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
        return {"pixel_values": torch.randn(4), "labels": self.labels[index]}


def linear() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Flatten(), nn.Linear(4, 2))


def data(*labels: list[int]) -> list[Columns]:
    draw = torch.Generator().manual_seed(0)
    return [Columns(pixel_values=torch.randn(len(y), 4, generator=draw), labels=torch.tensor(y)) for y in labels]


STOP = TrainSettings(epochs=2, callbacks=["early_stopping"])


def test_choices_are_made_by_a_part_of_the_training_samples_and_never_by_the_test_samples():
    parts = data([0, 1] * 20 + [1] * 10, [0, 1])
    report = train(linear(), STOP, data=Splits(*parts), quiet=True)
    assert (report.train_samples, report.validation_samples, report.test_samples) == (40, 10, 2)
    assert report.data["split"]["validation"] == "0.2 of the training samples, by class"
    assert set(report.data["split"]["held_out"]) == {"validation"}
    plain = train(linear(), TrainSettings(epochs=1), data=Splits(*parts), quiet=True)
    assert (plain.train_samples, plain.validation_samples) == (50, 0)


def test_other_test_samples_choose_no_other_weights():
    draw = torch.Generator().manual_seed(0)
    x = torch.randn(60, 4, generator=draw)
    right = (x[:, 0] > 0).long()
    samples = Columns(pixel_values=x[:40], labels=right[:40])
    states = []
    for labels in (right, 1 - right):  # of the second, what is learnt makes the test samples worse from the first epoch
        model = linear()
        test = Columns(pixel_values=x[40:], labels=labels[40:])
        train(
            model, STOP.model_copy(update={"epochs": 5, "learning_rate": 0.1}), data=Splits(samples, test), quiet=True
        )
        states.append(model.state_dict())
    assert all(torch.equal(tensor, states[0][name]) for name, tensor in states[1].items())


@pytest.mark.parametrize("part", ["train", "validation", "test"])
def test_a_class_out_of_range_is_refused_with_its_sample_before_the_first_step(part):
    parts = {name: data([0, 1, 1, -100])[0] for name in ("train", "validation", "test")}
    parts[part] = data([0, 1, 0, 2])[0]
    shown = {"train": "training"}.get(part, part)
    with pytest.raises(TrainingError, match=f"{shown} sample 3: 'labels' is 2, and cross_entropy .* takes 0 to 1"):
        train(linear(), TrainSettings(epochs=1), data=Splits(**parts), quiet=True)


def test_an_answer_outside_0_to_1_is_refused_with_its_sample():
    bad = Columns(pixel_values=torch.randn(3, 4), labels=torch.tensor([[0.0, 1.0], [torch.nan, 1.0], [-1.0, 0.0]]))
    settings = TrainSettings(epochs=1, objectives=[Objective(output="logits", loss="bce")])
    with pytest.raises(TrainingError, match="training sample 2: 'labels' is -1, and bce"):
        train(linear(), settings, data=Splits(bad, bad), quiet=True)


def test_a_class_out_of_range_in_an_undescribed_dataset_is_reported_as_the_datas_fault():
    samples = Plain(torch.tensor([0, 1, 1, 0, 5, 1]))
    with pytest.raises(TrainingError, match="a label is out of range"):
        train(linear(), TrainSettings(epochs=1), data=Splits(samples, samples), quiet=True)


def test_a_source_that_names_its_classes_is_numbered_by_the_heads_names():
    model = surgeon.apply(linear(), [surgeon.ReplaceHead(classes=["yes", "no"])])
    parts = data([0, 1, -100, 1], [1, 0])
    made = Splits(*parts, names={"labels": ("no", "yes")})
    report = train(model, TrainSettings(epochs=1), data=made, quiet=True)
    assert report.data["classes"] == {"labels": ["yes", "no"]}
    from surgeon.data.combine import by_names_of

    turned = by_names_of(network_of(model), made)
    assert [turned.train[row]["labels"].item() for row in range(4)] == [1, 0, -100, 0]
    with pytest.raises(TrainingError, match="only in the head: no; only in the data: maybe"):
        train(model, TrainSettings(epochs=1), data=Splits(*parts, names={"labels": ("maybe", "yes")}), quiet=True)
