"""Every input is read before training: what is damaged is named, or left out and counted."""

from __future__ import annotations

import pytest
from small_data import folder, images, load, picture, table, tokenizer

from surgeon.data.network import Network
from surgeon.errors import TrainingError


def damaged(path, how):
    whole = path.read_bytes()
    path.write_bytes({"half": whole[:-40], "empty": b"", "html": b"<html>404</html>", "noise": b"\0" * 99}[how])


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ("half", "cannot be read as a picture"),
        ("empty", "is empty"),
        ("html", "is a web page, not a picture"),
        ("noise", "its format is unknown"),
    ],
)
@pytest.mark.parametrize("suffix", ["jpg", "png"])
def test_a_damaged_picture_is_named_with_its_row_or_left_out_and_counted(tmp_path, how, message, suffix):
    bad = folder(tmp_path, suffix=suffix) / "dog" / f"3.{suffix}"
    damaged(bad, how)
    with pytest.raises(TrainingError, match=f"row 8: .*{message}") as caught:
        load(images(tmp_path))
    assert str(bad) in str(caught.value)
    assert "on_error: skip" in str(caught.value)
    loaded = load(images(tmp_path, on_error="skip"))
    assert len(loaded.train) + len(loaded.test) == 14
    assert any("left out 1 row that cannot be read" in note and str(bad) in note for note in loaded.notes)


def test_every_damaged_picture_is_counted_and_none_left_is_an_error(tmp_path):
    folder(tmp_path)
    for path in (tmp_path / "cat").iterdir():
        damaged(path, "html")
    with pytest.raises(TrainingError, match=r"\(and 4 more rows\)"):
        load(images(tmp_path))
    loaded = load(images(tmp_path, on_error="skip"))
    assert loaded.names["labels"] == ("dog", "rabbit")
    for path in tmp_path.rglob("*.png"):
        damaged(path, "empty")
    with pytest.raises(TrainingError, match="no row can be read"):
        load(images(tmp_path, on_error="skip"))


def test_a_path_in_a_table_that_leads_nowhere_is_named(tmp_path):
    picture(tmp_path / "a.png")
    text = "file,y\n" + "a.png,cat\n" * 5 + "b.png,cat\n" + "a.png,dog\n" * 5 + ",dog\n"
    source = table(tmp_path / "t.csv", text, image="file", pixels={"size": 8})
    with pytest.raises(TrainingError, match=r"t\.csv, row 5: .*b\.png does not exist \(and 1 more row\)"):
        load(source)
    loaded = load({**source, "on_error": "skip"})
    assert len(loaded.train) + len(loaded.test) == 10


def test_pictures_inside_a_dataset_are_read_and_named_by_their_row(tmp_path):
    import datasets

    good = picture(tmp_path / "a.png").read_bytes()
    rows = datasets.Dataset.from_dict(
        {"image": [{"bytes": good, "path": None}] * 9 + [{"bytes": good[:60], "path": None}], "y": [0, 1] * 5}
    )
    rows.cast_column("image", datasets.Image()).save_to_disk(tmp_path / "saved")
    source = {
        "source": "saved", "path": str(tmp_path / "saved"), "image": "image", "targets": {"labels": "y"},
        "pixels": {"size": 8},
    }  # fmt: skip
    with pytest.raises(TrainingError, match="saved, row 9: "):
        load(source)
    loaded = load({**source, "on_error": "skip"})
    assert loaded.train[0]["pixel_values"].shape == (3, 8, 8)


def test_a_picture_that_goes_after_it_was_looked_at_is_named(tmp_path):
    loaded = load(images(folder(tmp_path)))
    for path in (tmp_path / "cat").iterdir():
        path.unlink()
    with pytest.raises(TrainingError, match=r"row 0: .*cat/0\.png does not exist"):
        _ = [loaded.train[row] for row in range(len(loaded.train))], [loaded.test[row] for row in range(3)]


@pytest.mark.parametrize("cell", ["", "nan", "inf"])
def test_a_number_that_is_none_is_named_with_its_row(tmp_path, cell):
    source = table(tmp_path / "t.csv", "x,y\n" + "1,0\n2,1\n" * 4 + f"{cell},1\n")
    with pytest.raises(TrainingError, match="row 8: an empty field or a non-finite number in 'x'"):
        load(source)
    assert len(load({**source, "on_error": "skip"}).train) == 6


def test_words_among_numbers_are_refused(tmp_path):
    with pytest.raises(TrainingError, match="'x', an input, has type string, not numbers"):
        load(table(tmp_path / "t.csv", "x,y\n" + "1,0\nmany,1\n" * 4))


# ---- texts


def texts(tmp_path, rows, **more):
    words = tokenizer(tmp_path / "words", ("<new>",))
    return table(tmp_path / "t.csv", "t,y\n" + "".join(rows), text="t", tokenizer=str(words), **more)


def test_texts_are_cut_after_the_positions_of_the_network_and_those_that_were_are_counted(tmp_path):
    rows = ["a good film,1\n", "a bad film,0\n"] * 5 + ["very " * 40 + "good film,1\n", ",0\n"]
    source = texts(tmp_path, rows)
    loaded = load(source, network=Network(positions=16))
    assert max(len(loaded.train[row]["input_ids"]) for row in range(len(loaded.train))) <= 16
    path = source["path"]
    assert f"{path}: 1 of 12 texts are cut after 16 tokens" in loaded.notes
    assert f"{path}: 1 of 12 texts are empty" in loaded.notes
    with pytest.raises(TrainingError, match="max_length is 32, but the network has positions for 16 tokens only"):
        load({**source, "max_length": 32}, network=Network(positions=16))
    assert not any(" cut after " in note for note in load(source).notes)


def test_texts_that_are_all_empty_are_refused_and_pairs_that_lack_one_are_counted(tmp_path):
    with pytest.raises(TrainingError, match="every text in 't' is empty"):
        load(texts(tmp_path, [",1\n", "  ,0\n"] * 5))
    words = tokenizer(tmp_path / "words")
    rows = ["a film,good,1\n", ",bad,0\n", "a film, ,1\n", "a,b,0\n"] * 3
    source = table(tmp_path / "p.csv", "t,u,y\n" + "".join(rows), text=["t", "u"], tokenizer=str(words))
    assert f"{source['path']}: 6 of 12 pairs lack a text" in load(source).notes


def test_texts_are_as_long_as_in_the_networks_training_unless_more_is_asked_for(tmp_path):
    source = texts(tmp_path, ["a good film,1\n", "a bad film,0\n"] * 5 + ["very " * 40 + "good film,1\n"])
    assert f"{source['path']}: 1 of 11 texts are cut after 16 tokens" in load(source, network=Network(context=16)).notes
    longer = load({**source, "max_length": 32}, network=Network(context=16))  # rotary positions go on
    assert f"{source['path']}: 1 of 11 texts are cut after 32 tokens" in longer.notes
    assert not any(" cut after " in note for note in load(source, network=Network(context=10**5)).notes)


def test_a_token_that_the_embedding_does_not_know_is_named_with_its_row(tmp_path):
    source = texts(tmp_path, ["a good film,1\n", "a bad film,0\n"] * 5 + ["a <new> film,1\n"])
    message = r"row 10: the token '<new>' has id 10, but the embedding has 10 rows"
    with pytest.raises(TrainingError, match=message):
        load(source, network=Network(vocabulary=10))
    assert len(load({**source, "on_error": "skip"}, network=Network(vocabulary=10)).train) == 8
    load(source, network=Network(vocabulary=11))


def test_a_value_that_is_not_text_is_refused_with_its_row(tmp_path):
    import json

    rows = [{"t": [1, 2], "y": 1}, {"t": [1], "y": 0}]
    words = tokenizer(tmp_path / "words")
    source = table(
        tmp_path / "t.jsonl", "\n".join(map(json.dumps, rows * 3)), text="t", tokenizer=str(words)
    )  # fmt: skip
    with pytest.raises(TrainingError, match="row 0: 't' contains a list, but the tokenizer takes one text"):
        load(source)


# ---- tables


def test_a_table_with_another_separator_says_so_and_reads_with_it(tmp_path):
    source = table(tmp_path / "t.csv", "x;y\n" + "1;0\n2;1\n" * 4)
    with pytest.raises(TrainingError, match="no column 'x'") as caught:
        load(source)
    assert "separator: ';'" in str(caught.value)
    assert len(load({**source, "separator": ";"}).train) == 6


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (b"", "is empty"),
        (b"x,y\n", "has no rows"),
        (b"x,y\n1,0\n1,0,3\n", "cannot be read"),
        (b"x,y,y\n1,0,1\n2,1,1\n", "has the column 'y' twice"),
        ("x,y\n1,caf\xe9\n2,b\n".encode("latin-1"), "save it as UTF-8"),
    ],
)
def test_a_table_that_cannot_be_read_says_why(tmp_path, text, message):
    source = table(tmp_path / "t.csv", "")
    (tmp_path / "t.csv").write_bytes(text)
    with pytest.raises(TrainingError, match=message):
        load(source)


def test_a_mark_at_the_beginning_and_line_breaks_in_cells_are_read(tmp_path):
    source = table(tmp_path / "t.csv", "")
    (tmp_path / "t.csv").write_text("\ufeffx,y\n" + '1,"a\nb"\n2,c\n' * 4, encoding="utf-8")
    assert load(source).names["labels"] == ("a\nb", "c")


def test_groups_and_folds_of_a_table_are_held_out_and_recorded(tmp_path):
    rows = "".join(f"{x},{x % 2},p{x // 4}\n" for x in range(40))
    source = table(tmp_path / "t.csv", "x,y,patient\n" + rows, group="patient")
    one, two = (load({**source, "folds": {"count": 5, "index": index}}) for index in range(2))
    for loaded in (one, two):
        sides = [{int(part[row]["x"][0]) // 4 for row in range(len(part))} for part in (loaded.train, loaded.test)]
        assert not sides[0] & sides[1]
        assert (len(loaded.train), len(loaded.test)) == (32, 8)
    assert one.split["rule"] == "fold 0 of 5, by class, by patient"
    assert one.split["held_out"]["test"] != two.split["held_out"]["test"]
    assert load(source).split == load(source).split
    (tmp_path / "t.csv").write_text("x,y,patient\n" + rows + "50,1,\n")
    with pytest.raises(TrainingError, match="rows without a group in 'patient'"):
        load(source)


def test_one_reason_for_many_rows_is_said_once(tmp_path):
    rows = [f"{'' if n % 4 == 0 else n},{'ab'[n % 2]}" for n in range(20)]
    source = table(tmp_path / "t.csv", "x,y\n" + "\n".join(rows) + "\n", on_error="skip")
    (note,) = (note for note in load(source).notes if "left out 5" in note)
    assert note.count("an empty field") == 1
