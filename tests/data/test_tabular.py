"""Tables of numbers and categories: standardised by the training samples, coded by name, and alike ever after."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from small_data import load, table
from torch import nn

import surgeon
from surgeon.errors import TrainingError

CITIES = ("Rome", "Paris", "Oslo")
HEAD = "area,city,size,y\n"
ROWS = [f"{100 + 10 * n},{CITIES[n % 3]},{'SML'[n % 3]},{['no', 'yes'][n % 3 == 1]}\n" for n in range(30)]
INPUTS = {"numbers": {"x": ["area", "city", "size"]}, "scale": True}
CODED = {**INPUTS, "categories": {"city": "one_hot", "size": {"ordinal": ["S", "M", "L"]}}}


def data(path: Path, rows: Any = ROWS, **more: Any) -> dict[str, Any]:
    return table(path / "t.csv", HEAD + "".join(rows), **{**CODED, **more})


def test_numbers_are_standardised_by_the_training_samples_and_categories_have_places(tmp_path):
    loaded = load(data(tmp_path))
    rows = torch.stack([loaded.train[row]["x"] for row in range(len(loaded.train))])
    assert rows.shape == (24, 5)
    assert rows[:, 0].mean().abs() < 1e-6
    assert abs(rows[:, 0].std(unbiased=False) - 1) < 1e-6
    held_out = torch.stack([loaded.test[row]["x"] for row in range(len(loaded.test))])
    assert held_out[:, 0].mean().abs() > 1e-6  # by the training samples' numbers, not by its own
    assert {tuple(row) for row in rows[:, 1:].tolist()} == {(0, 0, 1, 0), (0, 1, 0, 1), (1, 0, 0, 2)}
    used = loaded.preprocessing["numbers"]["x"]
    assert used["categories"] == {"city": {"one_hot": ["Oslo", "Paris", "Rome"]}, "size": {"ordinal": ["S", "M", "L"]}}
    assert set(used["mean"]) == set(used["std"]) == {"area"}


def test_a_constant_column_stays_finite_and_plain_numbers_stay_as_they_are(tmp_path):
    rows = [f"5,{CITIES[n % 3]},S,{n % 2}\n" for n in range(12)]
    loaded = load(data(tmp_path, rows))
    assert loaded.train[0]["x"][0] == 0
    plain = load(table(tmp_path / "p.csv", HEAD + "".join(rows), numbers={"x": ["area"]}))
    assert plain.train[0]["x"].tolist() == [5]
    assert "numbers" not in plain.preprocessing


@pytest.mark.parametrize("constant", [0.1, 0.3, 1.1, 3.7, -0.1, 1e-9])
def test_rounding_in_the_deviation_of_a_constant_column_is_no_scale(tmp_path, constant):
    rows = "".join(f"{constant},{n % 7},{'ab'[n % 2]}\n" for n in range(150))
    source = table(tmp_path / "t.csv", "c,x,y\n" + rows, numbers={"x": ["c", "x"]}, scale=True)
    loaded = load(source)
    used = loaded.preprocessing["numbers"]["x"]
    assert used["std"]["c"] == 1
    assert used["mean"]["c"] == pytest.approx(constant)
    assert loaded.train[0]["x"][0].abs() < 1e-12
    (tmp_path / "new.csv").write_text("c,x,y\n" + f"{constant + 0.01},1,a\n{constant},2,b\n")
    later = load({**source, "test_path": str(tmp_path / "new.csv")})
    assert later.test[0]["x"][0].item() == pytest.approx(0.01), "a later change keeps its size"


@pytest.mark.parametrize(
    ("start", "step"), [(1e6, 1), (1.7e12, 1), (0.1, 1e-9), (0, 1e-30)], ids=["1e6", "times", "0.1", "near 0"]
)
def test_a_small_but_real_spread_is_scaled(tmp_path, start, step):
    rows = "".join(f"{start + step * (n % 2)!r},{'ab'[n % 3 == 0]}\n" for n in range(150))
    loaded = load(table(tmp_path / "t.csv", "x,y\n" + rows, scale=True))
    column = torch.stack([loaded.train[row]["x"] for row in range(len(loaded.train))])
    assert column.std(unbiased=False).item() == pytest.approx(1, rel=1e-3)
    assert column.mean().abs() < 1e-3


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ("5,Lima,S,yes\n", r"row 0: 'Lima' in 'city' is not one of the categories Oslo, Paris, Rome"),
        ("5,,S,yes\n", r"row 0: an empty field in 'city'"),
        ("5,Rome,XL,yes\n", r"row 0: 'XL' in 'size' is not one of the categories S, M, L"),
    ],
)
def test_a_category_that_training_has_not_seen_is_named_or_left_out(tmp_path, row, message):
    (tmp_path / "test.csv").write_text(HEAD + row + ROWS[0] + ROWS[1])
    source = data(tmp_path, test_path=str(tmp_path / "test.csv"))
    with pytest.raises(TrainingError, match=message):
        load(source)
    assert len(load({**source, "on_error": "skip"}).test) == 2


def test_settings_that_do_not_go_together_are_refused(tmp_path):
    with pytest.raises(TrainingError, match="has type string, not numbers") as error:
        load({**data(tmp_path), "categories": {"size": "ordinal"}})
    assert error.value.hint == "if they are categories: categories: {city: one_hot}"
    with pytest.raises(ValueError, match="categories: town is not a column of numbers"):
        load({**data(tmp_path), "categories": {"town": "one_hot"}})


def test_several_sources_are_standardised_together_and_have_the_same_categories(tmp_path):
    (tmp_path / "b").mkdir()
    second = data(tmp_path / "b", [row.replace("1", "9", 1) for row in ROWS])
    loaded = load([data(tmp_path), second])
    rows = torch.stack([loaded.train[row]["x"] for row in range(len(loaded.train))])
    assert rows[:, 0].mean().abs() < 1e-5
    fewer = data(tmp_path / "b", ROWS[::3] + ROWS[1::3])
    with pytest.raises(TrainingError, match="the sources differ in the categories of 'city'"):
        load([data(tmp_path), fewer])


def test_predictions_use_the_means_and_categories_of_training(tmp_path):
    source = data(tmp_path)
    settings = {"data": source, "epochs": 40, "learning_rate": 0.05}
    task = {"op": "replace_head", "classes": ["yes", "no"]}
    recipe = {"operations": [task], "train": settings, "roles": {"head": "2"}, "inputs": [[2, 5]]}
    (tmp_path / "recipe.json").write_text(json.dumps(recipe))
    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(5, 16), nn.ReLU(), nn.Linear(16, 4))
    model, report = surgeon.finetune(network, tmp_path / "recipe.json")
    assert report.accuracy_after == 1
    (tmp_path / "new.csv").write_text("size,city,area\nM,Paris,400\nS,Rome,100\n")
    assert surgeon.predict(model, tmp_path / "new.csv").classes == ["yes", "no"]
    assert surgeon.evaluate(model, tmp_path / "t.csv").main["accuracy"] == 1
    mean = model.surgeon_record.preprocessing["numbers"]["x"]["mean"]["area"]
    predictions = surgeon.predict(model, json.dumps({**source, "scale": None}))
    assert predictions.values.shape == (30, 2)
    assert 150 < mean < 350
    (tmp_path / "new.csv").write_text("size,city,area\nM,Lima,400\n")
    with pytest.raises(TrainingError, match=r"row 0: 'Lima' in 'city' is not one of the categories"):
        surgeon.predict(model, tmp_path / "new.csv")


def test_decimals_are_numbers_and_times_are_told_what_to_be(tmp_path):
    import datetime
    import decimal

    import pandas

    frame = pandas.DataFrame({"x": [decimal.Decimal(f"{row}.25") for row in range(8)], "y": list("ab") * 4})
    frame["t"] = datetime.datetime(2024, 1, 1)
    source = {**table(tmp_path / "t.parquet", ""), "test_fraction": 0.25}
    frame.to_parquet(source["path"])
    loaded = load(source)
    assert {loaded.train[row]["x"].item() % 1 for row in range(len(loaded.train))} == {0.25}
    with pytest.raises(TrainingError, match=r"(?s)timestamp.*write times as numbers"):
        load({**source, "numbers": {"x": ["t"]}})


def test_numbers_that_float32_cannot_hold_or_tell_apart_are_refused_or_noted(tmp_path):
    times = [1_700_000_000_000 + row for row in range(8)]
    source = table(tmp_path / "t.csv", "x,y\n" + "".join(f"{time},{'ab'[time % 2]}\n" for time in times))
    assert any("of 8 numbers in 'x' float32 tells 1 apart; use scale: true" in note for note in load(source).notes)
    scaled = load({**source, "scale": True})
    assert len({scaled.train[row]["x"].item() for row in range(len(scaled.train))}) == len(scaled.train)
    assert not any("use scale" in note for note in scaled.notes)
    with pytest.raises(TrainingError, match="row 1: a number in 'x' is too large for float32"):
        load(table(tmp_path / "u.csv", "x,y\n1,a\n1e39,b\n2,a\n3,b\n"))


def test_whole_numbers_are_the_same_categories_where_an_empty_field_makes_them_floats(tmp_path):
    path = tmp_path / "rows.csv"
    path.write_text("x,y\n" + "1,a\n2,b\n" * 5)
    source = {
        "source": "table", "path": str(path), "numbers": {"x": ["x"]}, "targets": {"labels": "y"},
        "categories": {"x": "one_hot"},
    }  # fmt: skip
    splits = load(source)
    numbers = splits.preprocessing["numbers"]["x"]
    assert numbers["categories"] == {"x": {"one_hot": ["1", "2"]}}
    encoder = splits.train.encoders[0]
    assert torch.equal(encoder.batch({"x": [2.0, 1]}), torch.tensor([[0.0, 1.0], [1.0, 0.0]]))
