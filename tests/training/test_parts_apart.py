"""Rows and groups that training has seen never measure it: several sources, several files, one file twice."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from small_data import folder, images

from surgeon.data.combine import with_validation
from surgeon.data.network import Head, Network
from surgeon.errors import TrainingError
from surgeon.recipe.train_settings import TrainSettings
from surgeon.training.load_splits import load_splits

PATIENTS = [f"p{number}" for number in range(20)]


def patients(path: Path, names: list[str], start: int = 0) -> dict[str, Any]:
    """A table of five rows a patient; ``x`` is the number of the row, from which the patient follows."""
    rows = [f"{start + number},{'ab'[number % 2]},{names[number % len(names)]}" for number in range(5 * len(names))]
    path.write_text("\n".join(["x,y,patient", *rows]))
    numbers = {"x": ["x"]}
    return {
        "source": "table", "path": str(path), "numbers": numbers, "targets": {"labels": "y"}, "group": "patient",
    }  # fmt: skip


def read(data: Any, evaluate: Any = None) -> Any:
    return load_splits(TrainSettings(data=data, evaluate=evaluate), 0, Network({"labels": Head()}))


def rows(samples: Any) -> set[float]:
    return {float(samples[row]["x"][0]) for row in range(len(samples))}


SOURCES = {
    "one": lambda path: [patients(path / "a.csv", PATIENTS)],
    "one with a domain": lambda path: [{**patients(path / "a.csv", PATIENTS), "domain": "clinic"}],
    "two": lambda path: [
        patients(path / "a.csv", PATIENTS),
        patients(path / "b.csv", [f"q{number}" for number in range(20)], start=1000),
    ],
    "one of two with groups": lambda path: [
        patients(path / "a.csv", PATIENTS),
        {**patients(path / "b.csv", PATIENTS, start=1000), "group": None},
    ],
}


@pytest.mark.parametrize("kind", SOURCES)
def test_validation_that_is_held_out_divides_no_group(kind, tmp_path):
    splits = with_validation(read(SOURCES[kind](tmp_path)), 0.2, "labels")
    trained, held_out = (
        {int(row) % 20 for row in rows(samples) if row < 1000} for samples in (splits.train, splits.validation)
    )
    assert held_out
    assert not trained & held_out
    if kind == "two":
        seconds = [{int(row) % 20 for row in rows(s) if row >= 1000} for s in (splits.train, splits.validation)]
        assert not seconds[0] & seconds[1]


@pytest.mark.parametrize("part", ["test", "validation"])
def test_a_group_in_training_and_in_another_file_is_refused(part, tmp_path):
    other = patients(tmp_path / "b.csv", ["p3", "q1"])["path"]
    with pytest.raises(TrainingError, match=rf"training and {part} samples have 1 group of rows in common: p3"):
        read({**patients(tmp_path / "a.csv", PATIENTS), f"{part}_path": other})


def test_a_group_of_two_sources_is_not_divided_between_training_and_test(tmp_path):
    sources = [patients(tmp_path / "a.csv", PATIENTS), patients(tmp_path / "b.csv", PATIENTS[:3], start=1000)]
    with pytest.raises(TrainingError, match=r"training and test samples have \d groups? of rows in common"):
        read(sources)


OTHERWISE = [
    ({}, {"test_fraction": 0.5}),
    ({"folds": {"count": 5, "index": 0}}, {"folds": {"count": 5, "index": 1}}),
    ({}, {"group": "patient"}),
]


@pytest.mark.parametrize(("data", "evaluate"), OTHERWISE)
def test_one_file_that_data_and_evaluate_divide_in_different_ways_is_refused(data, evaluate, tmp_path):
    table = {**patients(tmp_path / "a.csv", PATIENTS), "group": None}
    with pytest.raises(TrainingError, match=r"\d+ of \d+ test rows of .*a.csv are trained on"):
        read({**table, **data}, {**table, **evaluate})
    assert len(read({**table, **data}, {**table, **data}).test)


def test_one_folder_that_is_divided_in_different_ways_is_refused_and_one_with_parts_is_not(tmp_path):
    folder(tmp_path / "flat")
    with pytest.raises(TrainingError, match=r"test rows of .* are trained on"):
        read(images(tmp_path / "flat"), images(tmp_path / "flat", test_fraction=0.5))
    folder(tmp_path / "parts" / "train")
    folder(tmp_path / "parts" / "test")
    assert len(read(images(tmp_path / "parts"), images(tmp_path / "parts")).test) == 15
