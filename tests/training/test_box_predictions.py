"""Predictions of detectors hold masks and keypoints, and the names of COCO where the head is torchvision's own."""

from __future__ import annotations

import json

import pytest
import shapes
import torch
from shapes import draw
from torch import nn
from torchvision.models import detection
from torchvision.ops import MultiScaleRoIAlign

import surgeon
from surgeon.training.box_predictions import run_lengths


def pool(size: int) -> MultiScaleRoIAlign:
    return MultiScaleRoIAlign(featmap_names=["0"], output_size=size, sampling_ratio=2)


def mask_rcnn(classes: int = 3) -> nn.Module:
    return shapes.faster_rcnn(classes, detection.MaskRCNN, mask_roi_pool=pool(14))


def keypoint_rcnn(points: int = 17) -> nn.Module:
    return shapes.faster_rcnn(2, detection.KeypointRCNN, keypoint_roi_pool=pool(14), num_keypoints=points)


def picture_of(path):
    from PIL import Image
    from torchvision.transforms.functional import to_tensor

    return to_tensor(Image.open(path).convert("RGB"))


def test_masks_are_those_of_the_network_in_pixels_of_the_picture(tmp_path):
    pytest.importorskip("pycocotools")
    from pycocotools import mask as coco

    network = mask_rcnn()
    draw(tmp_path, 2)
    predicted = surgeon.predict(network, tmp_path, min_score=0.0)
    with torch.no_grad():
        (expected,) = network([picture_of(tmp_path / "boxes1.png")])
    boxes = predicted.rows[1]["boxes"]
    assert len(boxes) == len(expected["scores"]) > 0
    for box, score, mask in zip(boxes, expected["scores"], expected["masks"], strict=True):
        assert box["score"] == pytest.approx(score.item(), abs=1e-5)
        assert box["mask"]["size"] == [64, 80]
        decoded = coco.decode(coco.frPyObjects(box["mask"], 64, 80))
        assert torch.equal(torch.from_numpy(decoded).bool(), mask[0] >= 0.5)
    header, first, *_ = predicted.to_table()
    assert header == ["sample", "class", "score", "left", "top", "right", "bottom", "mask"]
    assert json.loads(first[-1])["size"] == [64, 80]
    assert not surgeon.predict(network, tmp_path, min_score=1.0).rows[0]["boxes"]


@pytest.mark.parametrize(
    ("points", "names"), [(17, ["nose", "left_eye"]), (5, ["0", "1"])], ids=["as many as COCO's", "others"]
)
def test_keypoints_are_those_of_the_network_by_name(tmp_path, points, names):
    network = keypoint_rcnn(points)
    draw(tmp_path, 1)
    predicted = surgeon.predict(network, tmp_path / "boxes0.png", min_score=0.0)
    with torch.no_grad():
        (expected,) = network([picture_of(tmp_path / "boxes0.png")])
    boxes = predicted.rows[0]["boxes"]
    assert len(boxes) == len(expected["scores"]) > 0
    assert {box["class"] for box in boxes} == {"person"}
    for box, places, scores in zip(boxes, expected["keypoints"], expected["keypoints_scores"], strict=True):
        assert list(box["keypoints"])[:2] == names
        keypoints = torch.tensor(list(box["keypoints"].values()))
        assert torch.allclose(keypoints, torch.cat([places[:, :2], scores[:, None]], 1), atol=1e-4)
    assert predicted.to_table()[0][7:10] == [f"{names[0]} {what}" for what in ("x", "y", "score")]
    assert json.dumps(predicted.to_dict())


def test_a_head_of_torchvisions_size_has_the_names_of_coco_and_says_so(tmp_path):
    network = shapes.faster_rcnn(91)
    draw(tmp_path, 1)
    predicted = surgeon.predict(network, tmp_path / "boxes0.png", min_score=0.0)
    assert (predicted.names[0], predicted.names[15], len(predicted.names)) == ("person", "bird", 90)
    assert any("torchvision's for COCO" in note for note in predicted.notes)
    named = surgeon.predict(network, tmp_path / "boxes0.png", classes=[f"c{number}" for number in range(90)])
    assert named.names[0] == "c0"
    assert not any("COCO" in note for note in named.notes)


def test_a_new_head_of_the_same_size_does_not_have_the_names_of_coco(tmp_path):
    network = surgeon.apply(shapes.faster_rcnn(7), [surgeon.ReplaceHead(classes=90)])
    draw(tmp_path, 1)
    assert surgeon.predict(network, tmp_path / "boxes0.png", min_score=0.0).names[:2] == ("0", "1")


@pytest.mark.parametrize(
    ("rows", "counts"),
    [(["00", "00"], [4]), (["11", "11"], [0, 4]), (["01", "11"], [1, 3]), (["10", "01"], [0, 1, 2, 1])],
)
def test_run_lengths_go_down_the_columns_and_begin_outside(rows, counts):
    mask = torch.tensor([[cell == "1" for cell in row] for row in rows])
    assert run_lengths(mask) == {"size": [2, 2], "counts": counts}
