"""Predicting from people's own pictures: as trained, all of them, by name."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
import torchvision
from PIL import Image

import surgeon
from surgeon import cli
from surgeon.errors import RecipeError, TrainingError

NAMES = {2: "temple", 5: "icon", 7: "flower"}
"""Digits under other names: neither the order of the recipe nor that of the digits is that of the folders."""
ORDER = ["temple", "icon", "flower"]
RECIPE = """
seed: 1
operations:
  - {{op: replace_head, classes: {classes}}}
train:
  data: {{source: images, path: {path}, pixels: {{size: 32, mean: [0.9, 0.1, 0.4], std: [0.2, 0.5, 0.9]}}}}
  epochs: 15
  batch_size: 8
  learning_rate: 0.005
"""


def write_digits(root: Path, per_class: int = 24, names: dict[int, str] | None = None) -> Path:
    from sklearn.datasets import load_digits

    scans = load_digits()
    for digit, name in (names or NAMES).items():
        (root / name).mkdir(parents=True)
        for number, scan in enumerate(scans.images[scans.target == digit][:per_class]):
            Image.fromarray(np.uint8(scan * 15.9)).resize((16, 16)).save(root / name / f"{number}.png")
    return root


@pytest.fixture(scope="module")
def pets(tmp_path_factory) -> Path:
    """The folder ``digits`` and what was trained on it, ``out``."""
    root = tmp_path_factory.mktemp("pets")
    write_digits(root / "digits")
    torch.manual_seed(0)
    torch.save(torchvision.models.shufflenet_v2_x0_5(num_classes=5).state_dict(), root / "net.pt")
    (root / "recipe.yaml").write_text(RECIPE.format(classes="[temple, icon, flower]", path=root / "digits"))
    assert cli.run(["apply", str(root / "recipe.yaml"), str(root / "net.pt"), "-q", "-o", str(root / "out")]) == 0
    return root


def trained_accuracy(root: Path) -> float:
    return surgeon.record_of(surgeon.load(root / "out")).training[-1]["report"]["after"]["logits_accuracy"]


def right(predicted: surgeon.Predictions) -> list[bool]:
    return [row["class"] == Path(row["sample"]).parent.name for row in predicted.rows]


def test_the_folder_that_was_trained_on_gives_the_accuracy_of_training_by_names(pets):
    predicted = surgeon.predict(pets / "out", pets / "digits", part="test")
    assert predicted.names == tuple(ORDER)
    assert sum(right(predicted)) / len(predicted) == pytest.approx(trained_accuracy(pets))
    assert trained_accuracy(pets) > 0.6, "or nothing is tested"


def test_all_of_a_folder_is_predicted_with_a_row_for_each_file(pets):
    predicted = surgeon.predict(pets / "out", pets / "digits")
    files = sorted(path.relative_to(pets / "digits").as_posix() for path in (pets / "digits").rglob("*.png"))
    assert sorted(predicted.samples) == files
    for row in predicted.rows:
        assert set(row["probabilities"]) == set(ORDER)
        assert sum(row["probabilities"].values()) == pytest.approx(1, abs=1e-5)
        assert row["label"] == Path(row["sample"]).parent.name


def test_probabilities_are_those_of_the_recorded_preprocessing(pets):
    from torchvision.transforms import v2

    path = pets / "digits" / "icon" / "3.png"
    prepare = v2.Compose(
        [
            v2.ToImage(),
            v2.Resize((32, 32), antialias=True),
            v2.ToDtype(torch.float32, scale=True),
            v2.Normalize([0.9, 0.1, 0.4], [0.2, 0.5, 0.9]),
        ]
    )
    with torch.no_grad():
        expected = surgeon.load(pets / "out")(prepare(Image.open(path).convert("RGB"))[None]).softmax(1)
    torch.testing.assert_close(surgeon.predict(pets / "out", path).values, expected)


@pytest.mark.parametrize("form", ["one", "flat", "pattern", "several", "deep pattern"])
def test_pictures_come_as_people_have_them(pets, tmp_path, form, monkeypatch):
    flat = tmp_path / "shots"
    flat.mkdir()
    for number in range(3):
        shutil.copy(pets / "digits" / "icon" / f"{number}.png", flat / f"{number}.png")
    (flat / "notes.doc").write_text("x")
    given = {
        "one": flat / "1.png",
        "flat": flat,
        "pattern": str(flat / "*.png"),
        "several": [flat / "2.png", flat / "0.png"],
        "deep pattern": str(tmp_path / "**" / "*.png"),
    }[form]
    predicted = surgeon.predict(pets / "out", given)
    names = {"one": ["1.png"], "several": ["2.png", "0.png"]}.get(form, ["0.png", "1.png", "2.png"])
    assert [Path(name).name for name in predicted.samples] == names
    assert predicted.labels is None
    whole = surgeon.predict(pets / "out", pets / "digits")
    rows = {row["sample"]: row for row in whole.rows}
    for row in predicted.rows:
        same = rows[f"icon/{Path(row['sample']).name}"]["probabilities"]
        assert row["probabilities"] == pytest.approx(same, abs=1e-5)


def test_folders_that_are_no_classes_of_the_network_are_not_read_as_labels(pets, tmp_path):
    for year in ("2024", "2025"):
        shutil.copytree(pets / "digits" / "icon", tmp_path / "shots" / year)
    predicted = surgeon.predict(pets / "out", tmp_path / "shots")
    assert (len(predicted), predicted.labels) == (48, None)
    assert any("2024, 2025 are not classes of the network" in note for note in predicted.notes)


def test_a_class_more_is_shown_as_it_stands_when_predicting_and_refused_when_measuring(pets, tmp_path):
    data = shutil.copytree(pets / "digits", tmp_path / "digits")
    shutil.copytree(data / "icon", data / "unsorted")
    predicted = surgeon.predict(pets / "out", data)
    assert {row["label"] for row in predicted.rows} == {*ORDER, "unsorted"}
    with pytest.raises(TrainingError, match="only in the data: unsorted"):
        surgeon.evaluate(pets / "out", data)


def test_a_class_less_is_measured_by_the_names_of_training_and_noted(pets, tmp_path):
    data = shutil.copytree(pets / "digits", tmp_path / "digits")
    shutil.rmtree(data / "flower")
    predicted, measured = surgeon.predict(pets / "out", data), surgeon.evaluate(pets / "out", data)
    assert measured.main["accuracy"] == pytest.approx(sum(right(predicted)) / 48)
    assert measured.main["per_class"]["flower"]["samples"] == 0
    assert any("no sample of flower" in note for note in measured.notes)


def test_a_folder_is_measured_with_confusion_by_class(pets):
    measured = surgeon.evaluate(pets / "out", pets / "digits")
    assert measured.samples == 72
    matrix = torch.tensor(measured.main["confusion"])
    assert matrix.sum(1).tolist() == [24, 24, 24]
    recall = (matrix.diagonal() / matrix.sum(1)).tolist()
    assert measured.main["balanced_accuracy"] == pytest.approx(sum(recall) / 3)
    assert [measured.main["per_class"][name]["accuracy"] for name in ORDER] == pytest.approx(recall)
    assert any("was mostly used in training" in note for note in measured.notes)


def test_folders_of_splits_are_parts(pets, tmp_path):
    for part, name in (("train", "icon"), ("val", "icon"), ("test", "temple")):
        shutil.copytree(pets / "digits" / name, tmp_path / "data" / part / name)
    predicted = surgeon.predict(pets / "out", tmp_path / "data")
    assert set(predicted.parts) == {"train", "validation", "test"}
    alone = surgeon.predict(pets / "out", tmp_path / "data", part="test")
    assert set(alone.labels or ()) == {"temple"}
    assert len(alone) == 24


def test_a_network_in_memory_predicts_like_its_artifact(pets):
    model = surgeon.load(pets / "out")
    path = pets / "digits" / "temple"
    torch.testing.assert_close(surgeon.predict(model, path).values, surgeon.predict(pets / "out", path).values)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_a_network_of_another_dtype_predicts_and_is_measured_as_it_is(pets, dtype):
    plain = surgeon.predict(surgeon.load(pets / "out"), pets / "digits")
    model = surgeon.load(pets / "out").to(dtype)
    predicted = surgeon.predict(model, pets / "digits")
    # on average: how bfloat16 is rounded depends on the processor, and one sample lies between two classes
    assert (predicted.values - plain.values).abs().mean() < 0.005
    agreeing = [name == other for name, other in zip(predicted.classes, plain.classes, strict=True)]
    assert sum(agreeing) >= len(plain) - 1
    assert next(model.parameters()).dtype == dtype
    assert surgeon.evaluate(model, pets / "digits").samples == len(plain)


def test_the_plan_of_a_training_names_weights_that_are_not_of_32_bits():
    recipe = surgeon.Recipe(operations=[surgeon.ReplaceHead(classes=2)], train={"data": {"source": "digits"}})
    half = torchvision.models.resnet18(num_classes=4).half()
    said = "the weights to train are float16; {op: convert, dtype: float32}"
    assert any(said in note for note in surgeon.plan(half, recipe).notes)
    upcast = recipe.model_copy(update={"operations": [surgeon.Convert(dtype="float32"), *recipe.operations]})
    assert not any("weights to train" in note for note in surgeon.plan(half, upcast).notes)


def test_a_source_written_out_takes_what_it_leaves_out_from_training(pets):
    source = {"source": "images", "path": str(pets / "digits")}
    whole = {row["sample"]: row["probabilities"] for row in surgeon.predict(pets / "out", pets / "digits").rows}
    for row in surgeon.predict(pets / "out", source).rows:
        assert row["probabilities"] == pytest.approx(whole[row["sample"]], abs=1e-5)


def test_the_recipe_itself_is_measured_on_what_it_holds_out(pets):
    measured = surgeon.evaluate(pets / "out", pets / "recipe.yaml")
    assert measured.main["accuracy"] == pytest.approx(trained_accuracy(pets))
    assert measured.samples < 72


def test_a_damaged_picture_is_named_or_skipped(pets, tmp_path):
    data = shutil.copytree(pets / "digits" / "icon", tmp_path / "shots")
    (data / "5.png").write_bytes(b"<html>gone</html>")
    with pytest.raises(TrainingError, match=r"5\.png is a web page"):
        surgeon.predict(pets / "out", data)
    predicted = surgeon.predict(pets / "out", data, on_error="skip")
    assert "5.png" not in predicted.samples
    assert len(predicted) == 23


@pytest.mark.parametrize(
    ("given", "message"),
    [("nowhere.png", "does not exist"), ("*.jpeg", "no file matches"), ("recipe.txt", "is read as text")],
)
def test_what_cannot_be_read_is_named(pets, given, message):
    (pets / "recipe.txt").write_text("a text\n")
    with pytest.raises(TrainingError, match=message):
        surgeon.predict(pets / "out", str(pets / given))


def test_a_word_that_is_neither_a_file_nor_a_source_is_said_to_be_neither(pets, monkeypatch):
    monkeypatch.chdir(pets)
    with pytest.raises(RecipeError) as refused:
        surgeon.predict(pets / "out", "digitss")
    assert "'digitss' is neither a file or folder nor a source of data" in str(refused.value)
    assert "nearest: digits" in str(refused.value)


def test_networks_without_names_are_not_given_the_datas_in_any_order(pets):
    model = torchvision.models.shufflenet_v2_x0_5(num_classes=3)
    with pytest.raises(TrainingError, match="the network has no class names"):
        surgeon.evaluate(model, pets / "digits")
    assert surgeon.evaluate(model, pets / "digits", classes=ORDER).samples == 72


def test_the_commands_say_the_same_as_the_calls(pets, capfd, tmp_path):
    out, data = str(pets / "out"), str(pets / "digits")
    capfd.readouterr()
    assert cli.run(["predict", out, data, "--json", "-o", str(tmp_path / "all.csv")]) == 0
    assert json.loads(capfd.readouterr().out)["rows"] == surgeon.predict(out, data).rows
    assert (tmp_path / "all.csv").read_text().splitlines()[0] == "sample,class,temple,icon,flower,label"
    assert cli.run(["evaluate", out, data, "--json"]) == 0
    assert json.loads(capfd.readouterr().out) == surgeon.evaluate(out, data).to_dict()
    assert cli.run(["evaluate", out, data]) == 0
    assert "balanced_accuracy" in capfd.readouterr().out
    assert cli.run(["predict", out, str(pets / "digits" / "icon" / "0.png")]) == 0
    assert "probability" in capfd.readouterr().out
    assert cli.run(["evaluate", out]) == 2
