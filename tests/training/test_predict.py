"""``surgeon predict``: a row for each sample, and classes that were never seen."""

from __future__ import annotations

import csv
import json

import pytest
import torch
from torch import nn

import surgeon
from surgeon import cli
from surgeon.data.digits import load_data
from surgeon.nn.zero_shot import with_classes
from surgeon.recipe.train_settings import Digits

DATA = "{source: digits, classes: [5, 6], per_class: 4, size: 8, canvas: 8, channels: 1}"
TEST = load_data(Digits(classes=[5, 6], per_class=4, size=8, canvas=8, channels=1)).test.columns
NETWORK = """
from torch import nn


def build():
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 8), nn.ReLU(), nn.Linear(8, 4))
"""
ARCH = ["--arch", "python:predicting_network:build"]
TRUST = ["--trust-code", "predicting_network"]


@pytest.fixture
def made(tmp_path, monkeypatch):
    """Makes an artifact by operations."""
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "predicting_network.py").write_text(NETWORK)
    import predicting_network

    torch.manual_seed(0)
    torch.save(predicting_network.build().state_dict(), "net.pt")

    def make(*operations: surgeon.Operation) -> nn.Module:
        edited = surgeon.apply("net.pt", list(operations), arch=ARCH[1])
        surgeon.save(edited, "made", force=True)
        return edited.eval()

    return make


def predict_json(capfd, *arguments: str) -> dict:
    capfd.readouterr()
    assert cli.run(["predict", "made", *TRUST, "--data", DATA, "--part", "test", "--json", *arguments]) == 0
    return json.loads(capfd.readouterr().out)


def values(predicted: dict) -> torch.Tensor:
    """The probabilities, or values, of all rows."""
    return torch.tensor(
        [list(row[next(k for k in ("probabilities", "values") if k in row)].values()) for row in predicted["rows"]]
    )


def given_labels(predicted: dict) -> list | None:
    """The labels of all rows."""
    return [row["label"] for row in predicted["rows"]] if "label" in predicted["rows"][0] else None


def test_classes_come_as_probabilities_under_their_names(made, capfd):
    model = made(surgeon.ReplaceHead(classes=["five", "six"]))
    predicted = predict_json(capfd, "-o", "all.csv")
    with torch.no_grad():
        expected = model(TEST["pixel_values"]).softmax(1)
    assert (predicted["kind"], predicted["names"]) == ("class", ["five", "six"])
    torch.testing.assert_close(values(predicted), expected)
    assert given_labels(predicted) == [["five", "six"][i] for i in TEST["labels"].tolist()]
    with open("all.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == ["sample", "part", "class", "five", "six", "label"]
    assert [row["class"] for row in rows] == [["five", "six"][i] for i in expected.argmax(1).tolist()]
    assert cli.run(["predict", "made", *TRUST, "--data", DATA, "-o", "all.csv"]) == 8, "nothing is replaced unasked"
    assert cli.run(["predict", "made", *TRUST, "--data", DATA]) == 0
    everything = len(rows) + 8
    assert f"{everything} samples, the first 10 shown" in capfd.readouterr().out


def test_yes_no_questions_have_each_their_own_probability_and_values_stay(made, capfd):
    tasks = {"asked": {"kind": "multilabel", "classes": ["a", "b"]}, "size": {"kind": "regression", "classes": 1}}
    model = made(surgeon.Multitask(tasks=tasks))
    with torch.no_grad():
        outputs = model(TEST["pixel_values"])
    predicted = predict_json(capfd, "--of", "asked")
    assert (predicted["kind"], predicted["names"], given_labels(predicted)) == ("yes", ["a", "b"], None)
    torch.testing.assert_close(values(predicted), outputs.asked.sigmoid())
    predicted = predict_json(capfd, "--of", "size")
    assert predicted["kind"] == "value"
    torch.testing.assert_close(values(predicted), outputs.size.reshape(-1, 1))
    assert cli.run(["predict", "made", *TRUST, "--data", DATA, "--of", "sise"]) == 9
    assert "nearest: size" in capfd.readouterr().err


def test_a_new_column_is_predicted_by_default_and_other_outputs_are_named(made, capfd):
    made(surgeon.Progressive(task="new", classes=["a", "b"], at=["1"]))
    predicted = predict_json(capfd)
    assert (predicted["output"], predicted["names"]) == ("new", ["a", "b"])
    assert not any("other outputs" in note for note in predicted["notes"]), "nothing trains the first column's"
    made(surgeon.Multitask(tasks={"one": {"classes": 2}, "two": {"classes": 3}}, original="drop"))
    predicted = predict_json(capfd)
    assert predicted["output"] == "one"
    assert any("other outputs: two; --of NAME" in note for note in predicted["notes"])
    assert not any("other outputs" in note for note in predict_json(capfd, "--of", "two")["notes"])


def test_a_frozen_column_is_not_measured_by_the_labels_of_the_new_one(made, capfd):
    made(surgeon.Progressive(task="new", classes=["6", "5"], at=["1"]))
    capfd.readouterr()
    assert cli.run(["evaluate", "made", *TRUST, "--data", DATA, "--part", "test", "--json"]) == 0
    predicted = json.loads(capfd.readouterr().out)
    assert (list(predicted["measures"]), predicted["names"]) == (["new"], {"new": ["6", "5"]})


def test_classes_never_seen_are_added_on_the_command_line_as_in_python(made, capfd, tmp_path):
    table = {"horse": {"striped": 0.0, "swims": 0.0}, "zebra": {"striped": 1.0, "swims": 0.0}}
    model = made(surgeon.ZeroShot(attributes=table, method="dap"))
    (tmp_path / "more.csv").write_text("name,swims,striped\nwhale,1,0\nclownfish,1,1\n")
    new = {"whale": {"swims": 1.0, "striped": 0.0}, "clownfish": {"swims": 1.0, "striped": 1.0}}
    for more, only in (([], False), (["--only"], True)):
        with torch.no_grad():
            expected = with_classes(model, new, only=only)(TEST["pixel_values"]).logits.softmax(1)
        predicted = predict_json(capfd, "--add-classes", "more.csv", *more)
        assert predicted["names"] == [*([] if only else ["horse", "zebra"]), "whale", "clownfish"]
        torch.testing.assert_close(values(predicted), expected)
    assert predict_json(capfd)["names"] == ["horse", "zebra"], "the artifact is as it was"


def test_a_network_that_surgeon_did_not_make_has_classes_by_number(made, capfd):
    capfd.readouterr()
    assert cli.run(["predict", "net.pt", *ARCH, "--data", DATA, "--part", "train", "--json"]) == 0
    predicted = json.loads(capfd.readouterr().out)
    assert (predicted["kind"], predicted["names"], len(predicted["rows"])) == ("class", ["0", "1", "2", "3"], 8)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--only"], "needs --add-classes"),
        (["--add-classes", "more.csv"], "no head that scores classes by their attributes"),
    ],
)
def test_classes_cannot_be_added_to_a_head_with_weights_of_their_own(made, capfd, tmp_path, arguments, message):
    made(surgeon.ReplaceHead(classes=2))
    (tmp_path / "more.csv").write_text("name,swims\nwhale,1\n")
    assert cli.run(["predict", "made", *TRUST, "--data", DATA, *arguments]) != 0
    assert message in capfd.readouterr().err
