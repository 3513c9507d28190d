"""Which files a path, a folder or a pattern names, and what of them is read."""

from __future__ import annotations

import pytest
from small_data import folder, picture

from surgeon.data.plain_files import is_path, sort_files
from surgeon.errors import TrainingError


def names(files):
    return [file.name for group in files for file in group.files]


def test_a_folder_is_read_however_deep_and_what_is_not_is_counted(tmp_path):
    folder(tmp_path, ["cat", "dog"], count=2)
    picture(tmp_path / "cat" / "persian" / "white.PNG")
    picture(tmp_path / "lone.png")
    picture(tmp_path / ".cache" / "0.png")
    (tmp_path / "Thumbs.db").write_bytes(b"x")
    (files,) = sort_files([str(tmp_path)], ())
    labels = {file.name: file.label for file in files.files}
    assert labels == {
        "cat/0.png": "cat",
        "cat/1.png": "cat",
        "cat/persian/white.PNG": "cat",
        "dog/0.png": "dog",
        "dog/1.png": "dog",
        "lone.png": None,
    }
    assert "left out 2 files" in files.notes[0]


def test_of_several_kinds_those_are_read_that_the_network_takes(tmp_path):
    picture(tmp_path / "a.png")
    (tmp_path / "b.txt").write_text("x")
    (texts,) = sort_files([str(tmp_path)], {"text"})
    assert (texts.kind, names([texts])) == ("text", ["b.txt"])
    assert "left out 1 file (a.png)" in texts.notes[0]


def test_only_folders_that_are_all_called_like_splits_are_parts(tmp_path):
    folder(tmp_path / "a" / "train", ["cat"], count=1)
    folder(tmp_path / "a" / "val", ["cat"], count=1)
    folder(tmp_path / "b", ["train", "bus"], count=1)
    (parts,) = sort_files([str(tmp_path / "a")], ())
    assert [(file.part, file.label) for file in parts.files] == [("train", "cat"), ("validation", "cat")]
    (classes,) = sort_files([str(tmp_path / "b")], ())
    assert [(file.part, file.label) for file in classes.files] == [(None, "bus"), (None, "train")]


def test_files_keep_the_order_in_which_they_are_given(tmp_path):
    paths = [str(picture(tmp_path / f"{name}.png")) for name in ("z", "a", "m")]
    assert names(sort_files(paths, ())) == paths


@pytest.mark.parametrize(("given", "message"), [("none.png", "does not exist"), ("*.bmp", "no file matches")])
def test_what_is_not_there_is_named(tmp_path, given, message):
    with pytest.raises(TrainingError, match=message):
        sort_files([str(tmp_path / given)], ())


def test_a_file_of_no_kind_that_is_read_and_a_folder_without_any_are_refused(tmp_path):
    (tmp_path / "a.docx").write_text("x")
    with pytest.raises(TrainingError, match=r"a\.docx has no suffix of a picture, sound, text or table"):
        sort_files([str(tmp_path / "a.docx")], ())
    with pytest.raises(TrainingError, match="has no picture, sound, text or table"):
        sort_files([str(tmp_path)], ())


@pytest.mark.parametrize(("text", "expected"), [("shots/", True), ("a.png", True), ("*.png", True), ("digits", False)])
def test_the_name_of_a_source_is_not_a_path(tmp_path, monkeypatch, text, expected):
    monkeypatch.chdir(tmp_path)
    assert is_path(text) is expected
