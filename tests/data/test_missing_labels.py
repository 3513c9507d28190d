"""Missing is what the user says is missing; a label that its loss cannot compute with is refused with its row."""

from __future__ import annotations

import json
import math

import pytest
import torch
from small_data import alone, by_x, load, table

from surgeon.data.network import Head
from surgeon.errors import TrainingError

VALUES = Head(loss="mse")


def test_words_for_nothing_are_names_of_classes_and_empty_cells_are_missing(tmp_path):
    source = table(tmp_path / "t.csv", "x,y\n" + "1,NA\n2,None\n3,null\n4,yes\n5,\n6,NaN\n" * 3)
    loaded = load(source, Head(count=4))
    assert loaded.names["labels"] == ("NA", "None", "null", "yes")
    assert by_x(loaded.train, loaded.test) == {1: 0, 2: 1, 3: 2, 4: 3, 5: -100, 6: -100}
    lost = [note for note in loaded.notes if "have no 'labels'" in note]
    assert sum(int(note.split(": ")[1].split(" of ")[0]) for note in lost) == 6
    also = load({**source, "na": ["NA", "None"]}, Head(count=2))
    assert by_x(also.train, also.test) == {1: -100, 2: -100, 3: 0, 4: 1, 5: -100, 6: -100}


def test_words_for_nothing_in_json_are_names_too_and_null_is_missing(tmp_path):
    rows = [{"x": x, "y": y} for x, y in ((1, "NA"), (2, "None"), (3, None), (4, ""))] * 4
    source = table(tmp_path / "t.jsonl", "\n".join(map(json.dumps, rows)))
    loaded = load(source, Head(count=2))
    assert by_x(loaded.train, loaded.test) == {1: 0, 2: 1, 3: -100, 4: -100}


def test_minus_one_is_missing_where_declared_and_refused_with_its_row_where_not(tmp_path):
    source = table(tmp_path / "t.csv", "x,y\n" + "1,1\n0,0\n5,-1\n" * 4)
    with pytest.raises(TrainingError, match=r"holds the whole numbers -1, 0, 1") as caught:
        load(source, Head(count=2))
    assert "na: [-1]" in str(caught.value)
    declared = load({**source, "na": [-1]}, Head(count=2))
    assert by_x(declared.train, declared.test) == {1: 1, 0: 0, 5: -100}
    with pytest.raises(
        TrainingError, match=r"t\.csv, row 2: 'y' is -1 \(and 3 more rows\); bce needs labels from 0 to 1"
    ):
        load(alone(source), Head(loss="bce"))


def test_questions_with_a_mark_for_uncertain_are_refused_until_it_is_declared(tmp_path):
    text = "x,a,b\n" + "1,1.0,\n2,-1.0,0.0\n3,0.0,1.0\n" * 4
    source = alone(table(tmp_path / "t.csv", text, {"labels": ["a", "b"]}))
    with pytest.raises(TrainingError, match=r"row 1: 'a' is -1 .*bce needs labels from 0 to 1") as caught:
        load(source, Head(loss="bce", count=2))
    assert "na: [-1]" in str(caught.value)
    labels = by_x(load({**source, "na": [-1]}, Head(loss="bce", count=2)).train)
    assert labels[3] == [0, 1]
    assert labels[1][0] == 1
    assert math.isnan(labels[1][1])
    assert math.isnan(labels[2][0])


@pytest.mark.parametrize("target", ["y", ["y", "z"]])
def test_minus_100_among_values_is_refused_with_its_row_until_it_is_said_what_it_is(tmp_path, target):
    text = "x,y,z\n" + "1,0.5,1\n2,-100,2\n" * 4
    source = alone(table(tmp_path / "t.csv", text, {"labels": target}))
    for head in (VALUES, Head(loss=None)):
        with pytest.raises(TrainingError, match=r"row 1: 'y' is -100 .*may mark a missing label"):
            load(source, head)
    missing = torch.tensor(by_x(load({**source, "na": [-100]}, VALUES).train)[2])
    assert missing.reshape(-1)[0].isnan()
    value = torch.tensor(by_x(load({**source, "na": []}, VALUES).train)[2])
    assert value.reshape(-1)[0] == -100


def test_a_class_out_of_range_among_tokens_or_a_fraction_is_refused_with_its_row(tmp_path):
    rows = [{"x": x, "y": [0, 1, 2 + 7 * (x == 3)]} for x in range(8)]
    source = alone(table(tmp_path / "t.jsonl", "\n".join(map(json.dumps, rows))))
    with pytest.raises(TrainingError, match=r"row 3: 'y' is \[0, 1, 9\]; classes are numbered from 0, up to 2"):
        load(source, Head(count=3))
    assert by_x(load(source, Head(count=10)).train)[3] == [0, 1, 9]
    half = alone(table(tmp_path / "h.csv", "x,y\n" + "1,1\n2,0.5\n" * 4))
    with pytest.raises(TrainingError, match=r"row 1: 'y' is 0.5 .*cross_entropy needs whole numbers"):
        load(half, Head(count=2))


def test_tokens_without_a_label_are_declared(tmp_path):
    rows = [{"x": x, "y": [-100, x % 2, -100]} for x in range(8)]
    source = alone(table(tmp_path / "t.jsonl", "\n".join(map(json.dumps, rows))))
    with pytest.raises(TrainingError, match=r"row 0: 'y' is \[-100, 0, -100\]") as caught:
        load(source, Head(count=2))
    assert "na: [-100]" in str(caught.value)
    assert by_x(load({**source, "na": [-100]}, Head(count=2)).train)[1] == [-100, 1, -100]


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ([[0, 1], [0, 1, 1]], r"row 1: 'y' is a list of another shape"),
        ([[0, 1], ["a", 1]], "t.jsonl"),
        ([["O", "B"], ["O", "I"]], "contain non-numbers"),
        ([{"a": 1}, {"a": 2}], "which cannot be labels"),
    ],
)
def test_lists_that_are_no_labels_are_refused(tmp_path, values, message):
    rows = [{"x": float(x), "y": value} for x, value in enumerate(values)]
    source = alone(table(tmp_path / "t.jsonl", "\n".join(map(json.dumps, rows))))
    with pytest.raises(TrainingError, match=message):
        load(source, Head(count=2))


def test_texts_in_place_of_numbers_are_refused_and_two_classes_are_numbered_with_a_note(tmp_path):
    source = table(tmp_path / "t.csv", "x,y,z\n" + "1,yes,1\n2,no,2\n" * 5)
    with pytest.raises(TrainingError, match=r"'labels' holds texts \(no, yes\), and mse compares numbers"):
        load(source, VALUES)
    loaded = load(source, Head(loss="bce"))
    assert by_x(loaded.train) == {1: 1.0, 2: 0.0}
    assert "labels: no is 0 and yes is 1" in loaded.notes
    with pytest.raises(TrainingError, match="numbers are needed here"):
        load({**source, "targets": {"labels": ["y", "z"]}}, VALUES)


def test_values_and_their_gaps_are_left_as_they_are(tmp_path):
    source = table(tmp_path / "t.csv", "x,y\n" + "1,4\n2,\n3,-7.5\n" * 4)
    for head in (VALUES, Head(loss=None)):
        labels = by_x(*(lambda s: (s.train, s.test))(load(source, head)))
        assert (labels[1], labels[3]) == (4, -7.5)
        assert math.isnan(labels[2])


def test_an_endless_value_is_refused(tmp_path):
    import pandas

    pandas.DataFrame({"x": [1.0, 2.0], "y": [0.5, math.inf]}).to_parquet(tmp_path / "t.parquet")
    source = table(tmp_path / "t.csv", "")
    with pytest.raises(TrainingError, match="row 1: 'y' is inf; labels must be finite"):
        load({**source, "path": str(tmp_path / "t.parquet")}, VALUES)
