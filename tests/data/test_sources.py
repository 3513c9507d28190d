"""Data of all kinds, and several sources at once."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from PIL import Image
from pydantic import ValidationError
from torch import nn
from transformers import BertConfig, BertForSequenceClassification

import surgeon
from surgeon import cli
from surgeon.data.combine import load_source
from surgeon.errors import TrainingError
from surgeon.interfaces.training import Objective
from surgeon.recipe.train_settings import TrainSettings
from surgeon.training.load_splits import load_splits
from surgeon.training.session import train

PIXELS = {"size": 8, "channels": 1}
DIGITS = {"source": "digits", "classes": [0, 1], "per_class": 4, "canvas": 8, "size": 8, "channels": 1}


@pytest.fixture(autouse=True)
def own_cache(tmp_path_factory, monkeypatch):
    """datasets keeps what it has read: somewhere of the tests' own."""
    import datasets

    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path_factory.mktemp("cache"))


def pictures(folder: Path, count: int = 10) -> list[str]:
    names = []
    for kind, grey in (("dark", 40), ("light", 215)):
        (folder / kind).mkdir(parents=True)
        for number in range(count):
            pixels = torch.randint(-30, 30, (12, 10), generator=torch.Generator().manual_seed(number)) + grey
            Image.fromarray(pixels.to(torch.uint8).numpy()).save(folder / kind / f"{number}.png")
            names.append(f"{kind}/{number}.png")
    return names


def splits(*sources: dict, evaluate: object = None, seed: int = 0):
    data = list(sources) if len(sources) > 1 else sources[0]
    return load_splits(TrainSettings(data=data, evaluate=evaluate), seed)


def test_settings_are_read_and_digits_loaded_without_the_library_for_tables():
    code = (
        "import sys; from surgeon.recipe.train_settings import TrainSettings;"
        "from surgeon.training.load_splits import load_splits;"
        "load_splits(TrainSettings(data={'source': 'digits'}));"
        "sys.exit('datasets' in sys.modules or 'torchvision' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_a_folder_of_pictures_for_each_class_trains(tmp_path):
    pictures(tmp_path)
    source = {"source": "images", "path": str(tmp_path), "pixels": PIXELS}
    loaded = splits(source)
    assert (len(loaded.train), len(loaded.test), loaded.classes) == (16, 4, {"labels": 2})
    assert loaded.train[0]["pixel_values"].shape == (1, 8, 8)
    assert loaded.train[0]["pixel_values"].abs().max() <= 1
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 2))
    settings = TrainSettings(data=source, epochs=8, batch_size=8, learning_rate=0.03)
    assert train(model, settings, quiet=True).accuracy_after == 1


def test_held_out_rows_are_the_same_whatever_the_seed_and_samples_are_drawn_by_it(tmp_path):
    pictures(tmp_path)
    source = {"source": "images", "path": str(tmp_path), "pixels": PIXELS, "samples": 5}
    one, two = splits(source, seed=0), splits(source, seed=1)
    assert one.test.rows["image"][:] == two.test.rows["image"][:]
    assert one.train.rows["image"][:] != two.train.rows["image"][:]
    assert len(one.train) == 5


def test_a_variation_follows_from_seed_epoch_and_row_alone(tmp_path):
    pictures(tmp_path)
    pixels = {**PIXELS, "augment": ["flip", "crop", "rotate", "colour"]}
    loaded = splits({"source": "images", "path": str(tmp_path), "pixels": pixels})
    first = loaded.train[3]["pixel_values"]
    torch.rand(7)
    drawn = torch.random.get_rng_state()
    assert torch.equal(first, loaded.train[3]["pixel_values"])
    assert torch.equal(drawn, torch.random.get_rng_state()), "nothing else is drawn differently"
    loaded.train.set_epoch(1)
    assert not torch.equal(first, loaded.train[3]["pixel_values"])
    assert torch.equal(loaded.test[0]["pixel_values"], loaded.test[0]["pixel_values"])


def table(folder: Path, kind: str) -> Path:
    import pandas

    rows = pandas.DataFrame(
        {
            "picture": pictures(folder),
            "height": [float(n) for n in range(20)],
            "species": (["owl", None, "cat", "owl", "dog"] * 4),
            "count": ([1, None, 3, 0, 2] * 4),
            "price": ([0.5, None, 1.5, 2.25, -1] * 4),
        }
    )
    path = folder / f"table.{kind}"
    if kind == "csv":
        rows.to_csv(path, index=False)
    elif kind == "parquet":
        rows.to_parquet(path)
    else:
        rows.to_json(path, orient="records", lines=True)
    return path


@pytest.mark.parametrize("kind", ["csv", "jsonl", "parquet"])
def test_a_table_gives_pictures_numbers_and_labels_whose_empty_fields_are_missing(tmp_path, kind):
    loaded = splits(
        {
            "source": "table",
            "path": str(table(tmp_path, kind)),
            "image": "picture",
            "numbers": {"x": ["height", "height"]},
            "targets": {"labels": "species", "n": "count", "value": "price", "both": ["count", "price"]},
            "pixels": PIXELS,
            "test_fraction": 0.05,
        }
    )
    assert (loaded.inputs, loaded.classes) == (("pixel_values", "x"), {"labels": 3})
    batch = loaded.collate([loaded.train[row] for row in range(len(loaded.train))])
    height = batch["x"][:, 0].long()
    expected = torch.tensor([2, -100, 0, 2, 1])[height % 5]
    assert torch.equal(batch["labels"], expected)
    assert torch.equal(batch["n"], torch.tensor([1, -100, 3, 0, 2])[height % 5])
    assert batch["value"].isnan().tolist() == (height % 5 == 1).tolist()
    assert batch["both"].shape == (17, 2)  # one of each class is held out
    assert batch["both"].dtype == torch.float32
    assert (batch["pixel_values"].mean((1, 2, 3)) > 0).tolist() == (height >= 10).tolist()


def test_a_saved_dataset_gives_its_splits(tmp_path):
    import datasets

    whole = datasets.DatasetDict(
        {
            name: datasets.Dataset.from_dict({"v": [[1.0, 2.0]] * n, "a": [0.5] * n, "y": [0, 1] * (n // 2)})
            for name, n in (("train", 6), ("held", 4))
        }
    )
    whole.save_to_disk(tmp_path / "saved")
    source = {"source": "saved", "path": str(tmp_path / "saved"), "numbers": {"x": ["a"]}, "targets": {"labels": "y"}}
    loaded = splits({**source, "test_split": "held", "targets": {"labels": "y", "vector": "v"}})
    assert (len(loaded.train), len(loaded.test)) == (6, 4)
    assert loaded.train[1]["vector"].tolist() == [1, 2]
    with pytest.raises(TrainingError, match=r"no split 'hold'.*\n.*nearest: held"):
        splits({**source, "test_split": "hold"})


def test_a_name_on_the_hub_that_cannot_be_reached_is_an_error_that_says_so(monkeypatch):
    import datasets

    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    source = {"source": "hub", "name": "surgeon-tests/nothing", "image": "image", "targets": {"labels": "label"}}
    with pytest.raises(TrainingError, match="surgeon-tests/nothing cannot be read") as caught:
        splits(source)
    assert "HF_HUB_OFFLINE" in str(caught.value)


@pytest.mark.parametrize(
    ("source", "message"),
    [
        (
            {"source": "table", "path": "none.csv", "numbers": {"x": ["a"]}, "targets": {"labels": "y"}},
            "does not exist",
        ),
        ({"source": "table", "path": "t.csv", "numbers": {"x": ["b"]}, "targets": {"labels": "y"}}, "no column 'b'"),
        ({"source": "table", "path": "t.xls", "numbers": {"x": ["a"]}, "targets": {"labels": "y"}}, "not a supported"),
        (
            {"source": "table", "path": "t.csv", "text": "a", "tokenizer": "./no", "targets": {"labels": "y"}},
            "tokenizer './no' cannot be loaded",
        ),
    ],
)
def test_data_that_cannot_be_read_are_an_error_that_says_why(source, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("t.csv", "t.xls"):
        (tmp_path / name).write_text("a,y\n" + "1,0\n2,1\n" * 5)
    with pytest.raises(TrainingError, match=message):
        splits(source)


@pytest.mark.parametrize(
    "data",
    [
        {"source": "table", "path": "t.csv", "targets": {"labels": "y"}},
        {"source": "table", "path": "t.csv", "numbers": {"x": ["a"]}, "tokenizer": "t", "targets": {"labels": "y"}},
        {"source": "images", "path": "p", "pixels": {"channels": 1, "mean": [0.1, 0.2, 0.3]}},
        [{**DIGITS, "domain": "a"}, DIGITS],
        [],
    ],
)
def test_settings_of_data_that_make_no_sense_are_refused(data):
    with pytest.raises(ValidationError):
        TrainSettings(data=data)


# ---- several sources


def test_several_sources_have_domains_and_a_hidden_label_reaches_no_loss():
    source = {**DIGITS, "domain": "source"}
    target = {**DIGITS, "seed": 5, "domain": "target", "labels": "hidden"}
    loaded = splits(source, target)
    assert loaded.domains == ("source", "target")
    assert loaded.classes == {"labels": 2, "domain": 2}
    batch = loaded.collate([loaded.train[row] for row in range(16)])
    assert batch["domain"].tolist() == [0] * 8 + [1] * 8
    assert batch["labels"][8:].tolist() == [-100] * 8
    assert (batch["labels"][:8] >= 0).all()
    assert (loaded.collate([loaded.test[row] for row in range(len(loaded.test))])["labels"] >= 0).all()


def test_what_hidden_labels_are_does_not_matter():
    def trained(classes: list[int]) -> dict[str, torch.Tensor]:
        torch.manual_seed(0)
        model = nn.Sequential(nn.Flatten(), nn.Linear(64, 2))
        hidden = {**DIGITS, "classes": classes, "domain": "b", "labels": "hidden", "seed": 1}
        settings = TrainSettings(
            data=[{**DIGITS, "domain": "a"}, hidden], epochs=1, batch_size=16, arguments={"optim": "sgd"}
        )
        train(model, settings, quiet=True)
        return model.state_dict()

    one, other = trained([0, 1]), trained([1, 0])  # the same samples, their labels swapped
    for name, tensor in one.items():
        torch.testing.assert_close(other[name], tensor)


def test_classes_given_by_name_are_numbered_over_all_sources(tmp_path):
    for name, kinds in (("a", "cat owl"), ("b", "dog owl")):
        one, two = kinds.split()
        (tmp_path / f"{name}.csv").write_text("x,y\n" + f"1,{one}\n2,{two}\n" * 5)
    sources = [
        {"source": "table", "path": str(tmp_path / f"{n}.csv"), "numbers": {"x": ["x"]}, "targets": {"labels": "y"}}
        for n in "ab"
    ]
    loaded = splits(*sources)
    assert loaded.classes == {"labels": 3}
    pairs = {(float(s["x"]), int(s["labels"])) for s in (loaded.train[row] for row in range(len(loaded.train)))}
    assert pairs == {(1.0, 0), (2.0, 2), (1.0, 1)}


def test_sources_that_feed_different_things_are_refused(tmp_path):
    (tmp_path / "a.csv").write_text("x,y\n" + "1,0\n2,1\n" * 5)
    numbers = {
        "source": "table", "path": str(tmp_path / "a.csv"), "numbers": {"x": ["x"]}, "targets": {"labels": "y"}
    }  # fmt: skip
    with pytest.raises(TrainingError, match="have different inputs"):
        splits(DIGITS, numbers)


def test_an_objective_on_the_domain_trains_from_declared_domains():
    net = nn.Sequential(nn.Flatten(), nn.Linear(64, 8), nn.ReLU(), nn.Linear(8, 2))
    edited = surgeon.apply(net, [surgeon.GradientReversal(output="domain")])
    data = [{**DIGITS, "domain": "a"}, {**DIGITS, "domain": "b", "labels": "hidden", "seed": 2}]
    objective = Objective(output="domain", label="domain")
    settings = TrainSettings(data=data, epochs=1, batch_size=8)
    report = train(edited, settings, objectives=[objective], quiet=True)
    assert report.history[0]["logits_labels"] == 8
    assert report.history[0]["domain_labels"] == 16
    assert load_source(TrainSettings(data=DIGITS).data).classes == {"labels": 2}


# ---- text, end to end


def tokenizer(folder: Path) -> None:
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "good", "bad", "very", "film", "a", "the"]
    word_tokenizer = Tokenizer(models.WordLevel({word: number for number, word in enumerate(words)}, unk_token="[UNK]"))
    word_tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    word_tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    PreTrainedTokenizerFast(
        tokenizer_object=word_tokenizer, pad_token="[PAD]", unk_token="[UNK]", cls_token="[CLS]", sep_token="[SEP]"
    ).save_pretrained(folder)


RECIPE = """
operations:
  - {op: replace_head, classes: [bad, good]}
train:
  data: {source: table, path: films.jsonl, text: review, tokenizer: words, targets: {labels: verdict}, max_length: 12}
  epochs: 12
  batch_size: 8
  learning_rate: 0.01
"""


def test_a_text_model_is_fine_tuned_from_a_recipe_end_to_end(tmp_path, capfd):
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=10, hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16, num_labels=3
    )  # fmt: skip
    BertForSequenceClassification(config).save_pretrained(tmp_path / "bert")
    tokenizer(tmp_path / "words")
    rows = [
        {"review": f"{how} {word} film".strip(), "verdict": word}
        for word in ("good", "bad")
        for how in ["", "a", "the", "a very", "the very", "very", "very very", "a very very very very"]
    ] * 3
    (tmp_path / "films.jsonl").write_text("\n".join(map(json.dumps, rows)))
    (tmp_path / "recipe.yaml").write_text(RECIPE)
    capfd.readouterr()
    out = tmp_path / "out"
    assert cli.run(["apply", str(tmp_path / "recipe.yaml"), str(tmp_path / "bert"), "--json", "-o", str(out)]) == 0
    report = json.loads(capfd.readouterr().out)["training"]
    assert report["accuracy_after"] == 1
    assert BertForSequenceClassification.from_pretrained(out).config.num_labels == 2
