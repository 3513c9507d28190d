"""Folders of pictures: which folder is a class, which a split, which file is left out."""

from __future__ import annotations

import shutil

import pytest
from pydantic import ValidationError
from small_data import COLOURS, folder, images, labels, load, picture

from surgeon.data.folders import read_folder
from surgeon.errors import TrainingError


@pytest.mark.parametrize("names", [["bus", "car", "train"], ["test", "blood test", "x-ray"], ["validation", "train-b"]])
def test_a_folder_with_the_name_of_a_split_beside_others_is_a_class(tmp_path, names):
    pictures = read_folder(folder(tmp_path, names))
    assert (pictures.classes, list(pictures.parts)) == (sorted(names), ["train"])
    assert len(pictures.parts["train"]) == 5 * len(names)


@pytest.mark.parametrize("validation", ["val", "valid", "Validation"])
def test_folders_that_are_all_called_like_splits_are_splits(tmp_path, validation):
    for name, count in (("train", 4), (validation, 2), ("test", 3)):
        folder(tmp_path / name, count=count)
    loaded = load(images(tmp_path))
    assert [len(part) for part in (loaded.train, loaded.validation, loaded.test)] == [12, 6, 9]
    assert loaded.names["labels"] == ("cat", "dog", "rabbit")
    assert loaded.split["rule"] == "by folder"
    assert f"{tmp_path}: 27 pictures, 3 classes, 3 splits (train 12, validation 6, test 9)" in loaded.notes


def test_what_files_are_called_does_not_matter(tmp_path):
    for name in COLOURS:
        for number in range(5):
            picture(tmp_path / name / f"{'train' if number < 3 else 'test'}_{number}.png")
    assert len(read_folder(tmp_path).parts["train"]) == 15


def test_nested_folders_belong_to_their_class(tmp_path):
    folder(tmp_path)
    picture(tmp_path / "cat" / "persian" / "white" / "p.JPG")
    pictures = read_folder(tmp_path)
    assert pictures.classes == ["cat", "dog", "rabbit"]
    assert ("cat/persian/white/p.JPG", "cat") in pictures.parts["train"]


def test_what_systems_leave_behind_is_left_out_and_counted(tmp_path):
    folder(tmp_path)
    (tmp_path / "cat" / ".DS_Store").write_text("x")
    (tmp_path / "dog" / "Thumbs.db").write_bytes(b"\xd0\xcf")
    (tmp_path / "dog" / "notes.txt").write_text("x")
    (tmp_path / "bird").mkdir()
    for hidden in (".ipynb_checkpoints", "__MACOSX"):
        picture(tmp_path / hidden / "0.png")
    picture(tmp_path / "lone.png")
    pictures = read_folder(tmp_path)
    assert (len(pictures.parts["train"]), pictures.classes) == (15, ["cat", "dog", "rabbit"])
    lines = pictures.notes()
    assert lines[0] == f"{tmp_path}: 15 pictures, 3 classes, no splits"
    assert "left out 5 hidden files and files that are not pictures" in lines[1]
    assert "left out 1 pictures outside class folders (lone.png)" in lines[2]
    assert "left out 1 folders without a picture (bird/)" in lines[3]


def test_folders_that_are_links_are_followed_once(tmp_path):
    folder(tmp_path / "real", ["cat"])
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "cat").symlink_to(tmp_path / "real" / "cat", target_is_directory=True)
    (tmp_path / "real" / "cat" / "loop").symlink_to(tmp_path / "real" / "cat", target_is_directory=True)
    folder(tmp_path / "data", ["dog"])
    assert len(read_folder(tmp_path / "data").parts["train"]) == 10


def test_a_class_that_is_a_link_to_another_is_noted(tmp_path):
    path = folder(tmp_path, ["cat", "dog"], count=3)
    (path / "kitten").symlink_to(path / "cat")
    notes = " ".join(load(images(path)).notes)
    assert f"3 files are read twice, by links ({path}/kitten/0.png is {path}/cat/0.png)" in notes


def test_a_file_whose_name_is_not_utf_8_is_named(tmp_path):
    path = folder(tmp_path, ["cat", "dog"], count=3)
    (path / "cat" / "0.png").rename(path / "cat" / "b\udce4r.png")
    with pytest.raises(TrainingError, match=r"b\\udce4r.png' is not UTF-8"):
        load(images(path))


def test_folders_that_cannot_be_read_so_are_refused_with_what_they_lack(tmp_path):
    picture(tmp_path / "flat" / "1.png")
    with pytest.raises(TrainingError, match="has no class folders"):
        load(images(tmp_path / "flat"))
    folder(tmp_path / "two" / "val")
    folder(tmp_path / "two" / "test")
    with pytest.raises(TrainingError, match="has validation and test folders, but none for train"):
        load(images(tmp_path / "two"))
    folder(tmp_path / "two" / "valid")
    with pytest.raises(TrainingError, match="several folders for the split validation"):
        load(images(tmp_path / "two"))
    with pytest.raises(TrainingError, match="is a file"):
        load(images(tmp_path / "flat" / "1.png"))
    folder(tmp_path / "all" / "train")
    folder(tmp_path / "all" / "test")
    with pytest.raises(TrainingError, match="test samples are given twice"):
        load(images(tmp_path / "all", test_path=str(folder(tmp_path / "more"))))


def test_a_test_folder_that_lacks_a_class_keeps_the_numbers_of_the_training(tmp_path):
    path = folder(tmp_path / "pets")
    held = folder(tmp_path / "held", ["dog", "rabbit"], count=2)
    loaded = load(images(path, test_path=str(held)))
    assert labels(loaded.test) == [1, 1, 2, 2]
    assert f"{held}: no test sample of cat" in loaded.notes
    also = load(images(path), evaluate=images(held, test_fraction=0.5))
    assert sorted(labels(also.test)) == [1, 2]


def test_a_test_folder_with_a_class_more_is_refused_with_its_name(tmp_path):
    path, held = folder(tmp_path / "pets"), folder(tmp_path / "held", ["cat", "dog", "rabbit", "bird"], count=2)
    for data, evaluate in ((images(path, test_path=str(held)), None), (images(path), images(held))):
        with pytest.raises(TrainingError, match="not in training: bird") as caught:
            load(data, evaluate=evaluate)
        assert str(held) in str(caught.value)


def test_classes_that_are_numerals_are_counted_in_their_order(tmp_path):
    names = [str(number) for number in range(1, 12)]
    loaded = load(images(folder(tmp_path, names, count=2)))
    assert loaded.names["labels"] == tuple(names)
    shutil.rmtree(tmp_path / "10")
    assert load(images(tmp_path)).names["labels"] == tuple(name for name in names if name != "10")


def test_a_picture_that_is_trained_on_is_not_tested_on(tmp_path):
    path = folder(tmp_path / "pets")
    (tmp_path / "linked").symlink_to(path, target_is_directory=True)
    with pytest.raises(TrainingError, match=r"0\.png is a train sample and a test sample"):
        load(images(path, test_path=str(tmp_path / "linked")))
    with pytest.raises(ValidationError, match="test_path and path are the same"):
        load(images(path, test_path=str(path)))
    with pytest.raises(ValidationError, match="folds and test_path both define the held-out part"):
        load(images(path, test_path=str(tmp_path / "linked"), folds={"count": 2, "index": 0}))
    with pytest.raises(ValidationError, match="index is 2, but folds are numbered 0 to 1"):
        load(images(path, folds={"count": 2, "index": 2}))
