"""COCO files as sources: categories by name, every annotation checked, boxes that follow their pictures."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from shapes import NAMES, SIDE, content, draw
from small_data import load

from surgeon.data.network import Head, Network
from surgeon.errors import TrainingError
from surgeon.interfaces.preprocessing import UNCHANGED, Preprocessing

WIDE = SIDE + 16


def of(file: Path, **more: Any) -> dict[str, Any]:
    return {"source": "coco", "path": str(file), **more}


def network(names: tuple[str, ...] = ("box", "ball"), **more: Any) -> Network:
    head = Head(count=len(names) or None, names=names)
    return Network({"labels": head}, preprocessing=Preprocessing(pictures=UNCHANGED), detector="torchvision", **more)


def rewritten(file: Path, change: Any) -> Path:
    document = content(file)
    change(document)
    file.write_text(json.dumps(document))
    return file


def test_categories_are_numbered_by_the_heads_names_whatever_their_ids(tmp_path):
    splits = load(of(draw(tmp_path)), network=network(("box", "ball")))
    assert splits.names == {"labels": ("box", "ball")}
    sample = splits.train[0]
    assert sample["labels"].tolist() == [0, 1]
    box = sample["boxes"][0]
    assert (box[2:] - box[:2]).tolist() == [24, 20]
    assert sample["sizes"].tolist() == [SIDE, WIDE]
    swapped = load(of(draw(tmp_path)), network=network(("ball", "box")))
    assert swapped.train[0]["labels"].tolist() == [1, 0]


def test_without_names_in_the_head_the_categories_of_the_file_are_taken_but_for_unused_ones(tmp_path):
    splits = load(of(draw(tmp_path)), network=network(()))
    assert splits.names == {"labels": tuple(NAMES)}
    assert any("no annotation of shape" in note for note in splits.notes)


def test_other_categories_than_the_heads_are_refused_with_both_lists(tmp_path):
    with pytest.raises(TrainingError, match="only in the head: cone; only in the data: box"):
        load(of(draw(tmp_path)), network=network(("ball", "cone")))
    with pytest.raises(TrainingError, match="the head has 5 classes"):
        load(of(draw(tmp_path)), network=Network({"labels": Head(count=5)}, detector="torchvision"))


def test_a_category_of_test_boxes_that_is_not_in_training_is_refused(tmp_path):
    test = draw(tmp_path, 3, "test.json", seed=1, categories=[{"id": 3, "name": "ball"}, {"id": 7, "name": "cone"}])
    with pytest.raises(TrainingError, match="not in training: cone"):
        load(of(draw(tmp_path), test_path=str(test)), network=network())


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"bbox": [4, 4, 0, 9]}, "annotation 5 of boxes2.png: its box has no area"),
        ({"bbox": [70, 4, 30, 9]}, "its box reaches out of the picture of 80 x 64 pixels"),
        ({"bbox": [-30, 4, 20, 9]}, "reaches out of the picture"),
        ({"bbox": [4, 4, 9]}, "not four numbers"),
        ({"bbox": [4, 4, float("nan"), 9]}, "not four numbers"),
        ({"bbox": None}, "not four numbers"),
        ({"category_id": 99}, "no category has the id 99"),
        ({"image_id": 1}, "no picture has the id 1"),
        ({"category_id": [3]}, r"no category has the id \[3\]"),
        ({"image_id": {}}, "no picture has the id {}"),
    ],
)
def test_a_wrong_annotation_is_named_or_counted(tmp_path, change, reason):
    file = rewritten(draw(tmp_path), lambda document: document["annotations"][5].update(change))
    with pytest.raises(TrainingError, match=reason) as error:
        load(of(file), network=network())
    assert "on_error: skip" in (error.value.hint or "")
    splits = load(of(file, on_error="skip"), network=network())
    assert any("left out 1 annotations" in note and "annotation 5" in note for note in splits.notes)
    every = [splits.train[i]["labels"] for i in range(len(splits.train))]
    every += [splits.test[i]["labels"] for i in range(len(splits.test))]
    assert sum(int((labels >= 0).sum()) for labels in every) == 15


@pytest.mark.parametrize("name", [None, "", [1]])
def test_a_category_without_a_name_is_refused(tmp_path, name):
    file = rewritten(draw(tmp_path), lambda document: document["categories"][0].update(name=name))
    with pytest.raises(TrainingError, match="has no name"):
        load(of(file), network=network())


def test_boxes_that_cross_the_edge_by_rounding_are_cut_and_counted(tmp_path):
    file = rewritten(draw(tmp_path, 2), lambda document: document["annotations"][0].update(bbox=[-0.5, 3, 20, 10]))
    splits = load(of(file, test_path=str(draw(tmp_path, 2, "test.json"))), network=network())
    assert splits.train[0]["boxes"][0].tolist() == [0, 3, 19.5, 13]
    assert any("1 boxes that cross the edge" in note for note in splits.notes)


def test_crowds_and_pictures_without_boxes_are_kept_and_counted(tmp_path):
    def change(document: dict[str, Any]) -> None:
        document["annotations"][0]["iscrowd"] = 1
        document["annotations"] = [a for a in document["annotations"] if a["image_id"] != 103]

    splits = load(of(rewritten(draw(tmp_path), change), test_path=str(draw(tmp_path, 2, "t.json"))), network=network())
    assert len(splits.train) == 8
    assert splits.train[0]["crowd"].tolist() == [True, False]
    assert splits.train[3]["labels"].tolist() == [-100, -100]
    assert any("1 crowd annotations" in note for note in splits.notes)
    assert any("1 pictures have no box" in note for note in splits.notes)


def test_a_picture_of_another_size_than_the_file_says_is_refused(tmp_path):
    file = draw(tmp_path)
    Image.new("RGB", (SIDE, WIDE)).save(tmp_path / "boxes3.png")
    with pytest.raises(TrainingError, match=r"row 3.*has 64 x 80 pixels, and the file says 80 x 64"):
        load(of(file), network=network())
    assert len(load(of(file, on_error="skip"), network=network()).train) < 8


def test_a_picture_that_its_exif_data_turn_fits_only_if_the_file_says_the_upright_size(tmp_path):
    file = draw(tmp_path)
    exif = Image.Exif()
    exif[274] = 6  # a quarter turn
    Image.new("RGB", (SIDE, WIDE)).save(tmp_path / "boxes3.png", exif=exif)
    assert load(of(file), network=network())
    Image.new("RGB", (WIDE, SIDE)).save(tmp_path / "boxes3.png", exif=exif)
    with pytest.raises(TrainingError, match="upright by its EXIF data"):
        load(of(file), network=network())

    def forget(document: dict[str, Any]) -> None:
        for image in document["images"]:
            del image["width"], image["height"]

    rewritten(file, forget)
    with pytest.raises(TrainingError, match="is turned by its EXIF data, and its boxes may not be"):
        load(of(file), network=network())


@pytest.mark.parametrize(
    ("lists", "reason"),
    [
        ({"images": []}, "lists no picture"),
        ({"images": [{"id": 1}]}, r"images\[0\] has no file_name"),
        ({"categories": [{"id": 3, "name": "a"}, {"id": 7, "name": "a"}]}, "two categories are called 'a'"),
        ({"categories": [{"id": 3, "name": "a"}, {"id": 3, "name": "b"}]}, "an id that an earlier one has"),
        ({"annotations": None}, "no list 'annotations'"),
        ({"annotations": []}, "has no box"),
    ],
)
def test_a_file_that_is_no_coco_file_says_so(tmp_path, lists, reason):
    with pytest.raises(TrainingError, match=reason):
        load(of(draw(tmp_path, 4, **lists)), network=network())


def test_boxes_and_masks_move_with_their_pictures(tmp_path):
    pytest.importorskip("pycocotools")
    file = draw(tmp_path, 12)
    raw = of(file, masks=True, pixels={"augment": ["flip"]}, test_path=str(draw(tmp_path, 2, "t.json")))
    splits = load(raw, network=network(masks=True))
    still = load({**raw, "pixels": {}}, network=network(masks=True))
    moved = 0
    for number in range(12):
        sample = splits.train[number]
        for label, box, mask in zip(sample["labels"], sample["boxes"].int(), sample["masks"], strict=True):
            left, top, right, bottom = box.tolist()
            inside = sample["pixel_values"][:, top + 3 : bottom - 3, left + 3 : right - 3].mean((1, 2))
            assert int(inside.argmax()) == int(label), "red boxes, green balls"
            rows, columns = np.nonzero(mask.numpy())
            assert abs(columns.min() - left) <= 1
            assert abs(columns.max() + 1 - right) <= 1
            assert abs(rows.min() - top) <= 1
        moved += not torch.equal(sample["boxes"], still.train[number]["boxes"])
    assert 2 < moved < 10


@pytest.mark.parametrize("name", ["crop", "rotate", "randaugment"])
def test_variations_that_boxes_cannot_follow_are_refused(tmp_path, name):
    with pytest.raises(TrainingError, match=f"{name} moves pictures"):
        load(of(draw(tmp_path), pixels={"augment": [name]}), network=network())


def test_the_same_picture_in_two_parts_is_refused(tmp_path):
    file = draw(tmp_path)
    (tmp_path / "test.json").write_text(file.read_text())
    with pytest.raises(TrainingError, match="a train sample and a test sample"):
        load(of(file, test_path=str(tmp_path / "test.json")), network=network())


def test_a_rare_category_is_in_both_parts(tmp_path):
    def change(document: dict[str, Any]) -> None:
        document["annotations"] = [a for a in document["annotations"] if a["category_id"] == 7 or a["image_id"] < 102]

    splits = load(of(rewritten(draw(tmp_path, 20), change)), network=network())
    for part in (splits.train, splits.test):
        assert any(1 in part[i]["labels"].tolist() for i in range(len(part)))  # type: ignore[arg-type]


def test_hidden_labels_are_refused_since_a_picture_without_boxes_is_background(tmp_path):
    with pytest.raises(ValueError, match="not unlabelled"):
        load(of(draw(tmp_path), labels="hidden"), network=network())
