"""CSV files: quotes that swallow rows are refused, and numerals that are names stay as they are."""

from __future__ import annotations

import pytest
from small_data import load, table

from surgeon.data.network import Head
from surgeon.errors import TrainingError

ROWS = [f"{number},{'ab'[number % 2]}" for number in range(20)]
OPENED = {
    "at the end": {7: '7,"a'},
    "closed by another": {7: '7,"a', 13: '13,"b'},
    "before a comma": {7: '"7,a', 13: '"13,b'},
}


@pytest.mark.parametrize("changed", OPENED.values(), ids=OPENED)
def test_a_quote_that_swallows_rows_is_refused_with_its_line(tmp_path, changed):
    lines = [changed.get(number, row) for number, row in enumerate(ROWS)]
    with pytest.raises(TrainingError, match="line 9: a quote opens a cell"):
        load(table(tmp_path / "t.csv", "\n".join(["x,y", *lines]) + "\n"))


def test_cells_of_several_lines_and_quotes_inside_cells_are_read(tmp_path):
    lines = ['1,"a\nb"', '2,"c ""d"" e"', '3,f "g" h', "", '4,"a\nb"', '5,f "g" h', '6,"c ""d"" e"']
    source = table(tmp_path / "t.csv", "\n".join(["x,y", *lines]))
    assert load(source).names["labels"] == ("a\nb", 'c "d" e', 'f "g" h')


def test_empty_lines_before_the_header_are_no_header(tmp_path):
    assert load(table(tmp_path / "t.csv", "\n\nx,y\n" + "1,a\n2,b\n" * 4)).names["labels"] == ("a", "b")


def test_a_tsv_with_commas_is_told_its_separator(tmp_path):
    with pytest.raises(TrainingError, match="separator: ','"):
        load(table(tmp_path / "t.tsv", "x,y\n1,a\n2,b\n"))


def test_class_numerals_that_would_be_other_names_as_numbers_are_names(tmp_path):
    source = table(tmp_path / "t.csv", "x,y\n" + "1,1E5\n2,2e3\n" * 4)
    assert load(source, Head(count=2)).names["labels"] == ("1E5", "2e3")
    values = load(source, Head(loss="mse"))
    assert {values.train[row]["labels"].item() for row in range(len(values.train))} == {1e5, 2e3}


@pytest.mark.parametrize("kind", ["csv", "jsonl", "parquet"])
def test_whole_numbers_beyond_floats_are_different_classes(tmp_path, kind):
    import pandas

    frame = pandas.DataFrame({"x": range(12), "y": [2**53 + number % 3 for number in range(12)]})
    source = table(tmp_path / f"t.{kind}", "")
    if kind == "csv":
        frame.to_csv(source["path"], index=False)
    elif kind == "jsonl":
        frame.to_json(source["path"], orient="records", lines=True)
    else:
        frame.to_parquet(source["path"])
    assert load(source, Head(count=3)).names["labels"] == tuple(str(2**53 + number) for number in range(3))


@pytest.mark.parametrize("kind", ["jsonl", "parquet"])
def test_a_table_that_changed_and_kept_its_date_is_read_anew(tmp_path, kind):
    import os

    import pandas

    source = table(tmp_path / f"t.{kind}", "")
    for names in ("ab", "cd"):  # archives give all versions of a file one date
        frame = pandas.DataFrame({"x": range(8), "y": list(names) * 4})
        if kind == "jsonl":
            frame.to_json(source["path"], orient="records", lines=True)
        else:
            frame.to_parquet(source["path"])
        os.utime(source["path"], (315532800, 315532800))
        assert load(source).names["labels"] == tuple(names)


def test_what_is_wrong_in_a_json_file_is_named_with_its_row(tmp_path, capfd):
    source = table(tmp_path / "t.jsonl", '{"x": 1, "y": "a"}\n{"x": 2, "y": "b"}\n{broken\n')
    with pytest.raises(TrainingError, match=r"JSON parse error.* in row 2"):
        load(source)
    assert not capfd.readouterr().err


@pytest.mark.parametrize("large", [1e39, -1e39])
def test_labels_that_float32_cannot_hold_are_refused_with_their_row(tmp_path, large):
    content = "x,y\n" + "".join(f"{row},{large if row == 5 else row}\n" for row in range(8))
    with pytest.raises(TrainingError, match=r"row 5: .* is .*finite in float32"):
        load(table(tmp_path / "t.csv", content), Head(loss="mse"))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("x,y\n" + "1,\n2,\n" * 4, "no training row has a label 'labels'"),
        ("x,y\n" + "1,a\n2,a\n" * 4, "all training rows are of one class of 'labels': a"),
    ],
)
def test_labels_that_teach_nothing_are_refused(tmp_path, content, message):
    with pytest.raises(TrainingError, match=message):
        load(table(tmp_path / "t.csv", content), Head(count=1))


def test_a_column_that_is_listed_twice_is_refused():
    from pydantic import ValidationError

    from surgeon.recipe.train_settings import TrainSettings

    pair = {"source": "table", "path": "t.csv", "text": ["a", "a"], "targets": {"labels": "y"}}
    vector = {"source": "table", "path": "t.csv", "text": "a", "targets": {"labels": ["y", "y"]}}
    for source in (pair, vector):
        with pytest.raises(ValidationError, match="is listed twice"):
            TrainSettings(data=source)
