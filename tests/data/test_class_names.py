"""One truth for the names of classes: the head's, where it has any."""

from __future__ import annotations

import pytest
from small_data import by_x, folder, images, labels, load, table

from surgeon.data.class_names import Levels, in_yaml, natural, number_classes
from surgeon.data.network import Head
from surgeon.errors import TrainingError


def levels(*names: str, kind: str = "text", trained: bool = True) -> Levels:
    return Levels(kind, names, trained, "here")  # type: ignore[arg-type]


def test_names_are_in_the_order_in_which_a_person_counts():
    assert natural(["10", "9", "b10", "b2", "-1", "a", "01"]) == ["-1", "01", "9", "10", "a", "b2", "b10"]
    assert natural(["x1", "1x", "1"]) == ["1", "1x", "x1"]


def test_signs_that_are_digits_but_no_numerals_have_a_place_in_the_order():
    assert natural(["10²", "②", "2²", "x²"]) == ["2²", "10²", "x²", "②"]


def test_names_that_look_alike_are_noted_and_told_apart():
    made = number_classes("labels", [levels("cafe\u0301", "café", "Dog", "dog", "fox ", "hen")], Head())
    assert made.names == ("cafe\u0301", "café", "Dog", "dog", "fox ", "hen")
    assert [note.split(" are different")[0] for note in made.notes] == [
        "labels: 'cafe\\u0301', café",
        "labels: Dog, dog",
    ]


def test_names_that_are_refused_because_of_a_space_say_so():
    with pytest.raises(TrainingError, match="only in the data: 'dog '") as caught:
        number_classes("labels", [levels("cat", "dog", "dog ")], Head(count=2, names=("cat", "dog")))
    assert "dog, 'dog ' differ only in case, spaces or Unicode form" in str(caught.value)


def test_the_same_names_map_by_name_whatever_their_order(tmp_path):
    path = folder(tmp_path, ["digit", "flower", "icon", "temple"], count=3)
    names = ("temple", "icon", "flower", "digit")
    loaded = load(images(path), Head(count=4, names=names))
    rows = [loaded.train.rows[row]["image"].split("/")[-2] for row in range(len(loaded.train))]
    assert [names[label] for label in labels(loaded.train)] == rows
    assert loaded.names["labels"] == names


def test_other_names_are_refused_with_both_lists(tmp_path):
    path = folder(tmp_path, ["cat", "dog", "fox"])
    with pytest.raises(TrainingError, match="only in the head: bird; only in the data: fox") as caught:
        load(images(path), Head(count=3, names=("bird", "cat", "dog")))
    assert "classes: [cat, dog, fox]" in str(caught.value)
    with pytest.raises(TrainingError, match="only in the head: bird; only in the data: none"):
        load(images(path), Head(count=4, names=("bird", "cat", "dog", "fox")))


def test_a_head_with_another_number_of_classes_is_refused_with_the_names():
    with pytest.raises(TrainingError, match="the head has 2 classes, and 'labels' has 3: a, b, ' b'"):
        number_classes("labels", [levels("a", "b", " b")], Head(count=2))


@pytest.mark.parametrize("suffix", ["csv", "parquet"])
def test_whole_numbers_that_do_not_begin_at_0_are_names_where_they_are_as_many_as_the_classes(tmp_path, suffix):
    source = table(tmp_path / "t.csv", "x,y\n" + "1,1\n2,2\n3,3\n" * 4)
    if suffix == "parquet":
        import pandas

        pandas.read_csv(tmp_path / "t.csv").to_parquet(tmp_path / "t.parquet")
        source["path"] = str(tmp_path / "t.parquet")
    loaded = load(source, Head(count=3))
    assert by_x(loaded.train, loaded.test) == {1: 0, 2: 1, 3: 2}
    assert loaded.names["labels"] == ("1", "2", "3")
    assert "labels: the classes 1, 2, 3 are numbered 0 to 2 in this order" in loaded.notes
    with pytest.raises(TrainingError, match="the head has 2 classes, and 'labels' holds the whole numbers 1, 2, 3"):
        load(source, Head(count=2))


def test_whole_numbers_from_0_are_class_numbers_and_places_in_a_heads_names(tmp_path):
    source = table(tmp_path / "t.csv", "x,y\n" + "0,0\n1,1\n" * 5)
    for head in (Head(count=2), Head(count=2, names=("negative", "positive")), Head(count=5)):
        assert by_x(load(source, head).train) == {0: 0, 1: 1}
    with pytest.raises(TrainingError, match="only in the head: 2; only in the data: 0"):
        load(source, Head(count=2, names=("1", "2")))


def test_zeros_in_front_belong_to_the_name(tmp_path):
    source = table(tmp_path / "t.csv", "x,y\n" + "1,01\n2,02\n10,10\n" * 4)
    loaded = load(source, Head(count=3))
    assert loaded.names["labels"] == ("01", "02", "10")
    assert by_x(loaded.train) == {1: 0, 2: 1, 10: 2}
    assert by_x(load(source, Head(count=3, names=("10", "02", "01"))).train) == {1: 2, 2: 1, 10: 0}


def test_whole_numbers_that_a_missing_one_made_floats_are_whole(tmp_path):
    source = table(tmp_path / "t.csv", "x,y\n" + "1,1.0\n2,0.0\n3,\n" * 4)
    loaded = load(source, Head(count=2))
    assert by_x(loaded.train, loaded.test) == {1: 1, 2: 0, 3: -100}


@pytest.mark.parametrize("words", [("True", "False"), ("true", "false")])
def test_truth_values_are_the_classes_false_and_true(tmp_path, words):
    source = table(tmp_path / "t.csv", "x,y\n" + f"1,{words[0]}\n0,{words[1]}\n" * 5)
    loaded = load(source, Head(count=2))
    assert (by_x(loaded.train), loaded.names["labels"]) == ({1: 1, 0: 0}, ("False", "True"))
    assert by_x(load(source, Head(loss="bce")).train) == {1: 1.0, 0: 0.0}
    with pytest.raises(TrainingError, match="only in the head: no, yes; only in the data: False, True"):
        load(source, Head(count=2, names=("no", "yes")))


def test_columns_of_questions_come_in_the_order_of_the_heads_names(tmp_path):
    source = table(tmp_path / "t.csv", "x,toxic,insult\n" + "1,1,0\n2,0,1\n" * 5, {"labels": ["toxic", "insult"]})
    loaded = load(source, Head(loss="bce", count=2, names=("insult", "toxic")))
    assert by_x(loaded.train) == {1: [0, 1], 2: [1, 0]}
    assert loaded.names["labels"] == ("insult", "toxic")
    assert load(source, Head(loss="bce", count=2)).names["labels"] == ("toxic", "insult")
    with pytest.raises(TrainingError, match="only in the head: hate; only in the data: toxic"):
        load(source, Head(loss="bce", count=2, names=("insult", "hate")))
    assert by_x(load(source, Head(loss="mse", count=2, names=("a", "b"))).train) == {1: [1, 0], 2: [0, 1]}


def test_several_sources_are_numbered_together_and_a_hidden_one_follows(tmp_path):
    one = table(tmp_path / "a.csv", "x,y\n" + "1,cat\n2,owl\n" * 4)
    two = table(tmp_path / "b.csv", "x,y\n" + "3,dog\n2,owl\n" * 4)
    loaded = load([one, two], Head(count=3, names=("owl", "dog", "cat")))
    assert by_x(loaded.train) == {1: 2, 2: 0, 3: 1}
    hidden = [{**one, "domain": "a"}, {**two, "domain": "b", "labels": "hidden"}]
    with pytest.raises(TrainingError, match="not in training: dog"):
        load(hidden, Head(count=2))
    with pytest.raises(TrainingError, match="holds texts in one source and numbers in another"):
        load([one, table(tmp_path / "c.csv", "x,y\n" + "3,1\n2,0\n" * 4)], Head(count=3))


def test_a_head_whose_classes_need_no_samples_takes_some_of_them():
    head = Head(count=3, names=("zebra", "horse", "whale"), partial=True)
    assert number_classes("labels", [levels("horse", "whale")], head).positions(["whale"], "labels", "") == [2]


def test_the_classes_that_a_dataset_lists_keep_its_order_until_the_head_has_names(tmp_path):
    import datasets

    features = datasets.Features({"x": datasets.Value("float32"), "y": datasets.ClassLabel(names=["owl", "cat"])})
    rows = datasets.Dataset.from_dict({"x": [0.0, 1.0] * 5, "y": [0, 1] * 5}, features=features)
    rows.save_to_disk(tmp_path / "saved")
    source = {
        "source": "saved", "path": str(tmp_path / "saved"), "numbers": {"x": ["x"]}, "targets": {"labels": "y"}
    }  # fmt: skip
    loaded = load(source, Head(count=2))
    assert (by_x(loaded.train), loaded.names["labels"]) == ({0: 0, 1: 1}, ("owl", "cat"))
    assert by_x(load(source, Head(count=2, names=("cat", "owl"))).train) == {0: 1, 1: 0}


@pytest.mark.parametrize("names", [["False", "True"], ["01", "2"], ["a, b", "c"], ["null", "käse"], ["x y", "-1"]])
def test_the_classes_that_a_hint_names_are_read_as_they_are(names):
    from surgeon.recipe.document import parse

    assert parse(f"classes: {in_yaml(names)}", "r.yaml").data == {"classes": names}
    assert in_yaml([str(number) for number in range(40)]) == "40"
