"""Detectors of torchvision and transformers learn boxes, are saved, predict by name and are measured as COCO does."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import shapes
import torch
from shapes import SIDE, draw
from small_data import load
from torch import nn

import surgeon
from surgeon.data.network import Head, Network
from surgeon.errors import TrainingError
from surgeon.training.calls import Batch
from surgeon.training.class_names import network_of
from surgeon.training.detection import DETECTIONS, MOST, PREDICTED, DetectorCall
from surgeon.training.load_splits import prepared_as
from surgeon.training.measures import of_boxes

pytest.importorskip("pycocotools")
NAMES = ["box", "ball"]  # not the order of the file


def trained(network: nn.Module, file: Path, settings: Any = None, **data: Any) -> Any:
    source = {"source": "coco", "path": str(file), **data}
    training = {"data": source, "epochs": 1, "learning_rate": 0.001, "batch_size": 4, **(settings or {})}
    recipe = {"operations": [{"op": "replace_head", "classes": NAMES}], "train": training}
    (file.parent / "recipe.json").write_text(json.dumps(recipe))
    return surgeon.finetune(network, file.parent / "recipe.json")


def batch_for(network: nn.Module, file: Path, **data: Any) -> tuple[Any, Batch]:
    source = {"source": "coco", "path": str(file), "test_fraction": 0.3, **data}
    from surgeon.recipe.train_settings import TrainSettings
    from surgeon.training.load_splits import sources_of

    facts = prepared_as(network_of(network), network, sources_of(TrainSettings(data=source)))
    splits = load(source, network=facts)
    return splits, splits.collate([splits.train[0], splits.train[1]])


def test_a_detector_learns_and_predicts_boxes_by_name_in_pixels_of_the_picture(tmp_path):
    file = draw(tmp_path / "data", 10)
    model, report = trained(shapes.faster_rcnn(), file, {"epochs": 16, "learning_rate": 0.003, "batch_size": 2})
    assert report.after["detections_loss"] < 0.4 * report.before["detections_loss"]
    measured = report.tasks[DETECTIONS]["all"]
    assert measured["map_50"] > 0.8
    assert list(measured["per_class"]) == NAMES
    surgeon.save(model, tmp_path / "out")
    again = surgeon.load(tmp_path / "out", arch=shapes.faster_rcnn)
    predicted = surgeon.predict(again, tmp_path / "data" / "boxes0.png")
    best = {box["class"]: box["box"] for box in reversed(predicted.rows[0]["boxes"])}
    given = {a["category_id"]: a["bbox"] for a in shapes.content(file)["annotations"][:2]}
    for name, key in (("box", 7), ("ball", 3)):
        left, top, wide, high = given[key]
        assert best[name] == pytest.approx([left, top, left + wide, top + high], abs=5)
    assert predicted.to_table()[0] == ["sample", "class", "score", "left", "top", "right", "bottom"]
    assert all(float(row[2]) >= 0.5 for row in predicted.to_table()[1:])
    few = surgeon.predict(again, tmp_path / "data" / "boxes0.png", min_score=0.999)
    assert len(few.boxes[0]) < len(predicted.boxes[0])
    assert any("score below 0.999" in note for note in few.notes)
    evaluated = surgeon.evaluate(again, {"source": "coco", "path": str(file)})
    assert evaluated.samples == 10
    assert evaluated.main["boxes"] == 20
    assert evaluated.main["map_50"] > 0.8


@pytest.mark.parametrize("make", [shapes.ssdlite, shapes.retinanet, shapes.detr, shapes.yolos])
def test_every_family_trains_with_its_own_loss(tmp_path, make):
    file = draw(tmp_path / "data", 5)
    model, report = trained(make(), file, {"batch_size": 2})
    assert set(report.after) == {"detections_loss", "detections_map"}
    assert report.history[-1]["loss"] > 0
    predicted = surgeon.predict(model, tmp_path / "data" / "boxes1.png", min_score=0.0)
    assert predicted.kind == "boxes"
    assert predicted.names == tuple(NAMES)
    for box in predicted.rows[0]["boxes"]:
        assert -SIDE < box["box"][0] < box["box"][2] < 2 * SIDE


def test_the_loss_is_that_of_the_network_on_the_same_boxes(tmp_path):
    network = shapes.faster_rcnn(3)
    splits, batch = batch_for(network, draw(tmp_path, 4))
    call = DetectorCall.of_detector(network, splits.inputs)
    pictures = list(batch["pixel_values"])
    targets = [
        {"boxes": b, "labels": n + 1} for b, n in zip(batch["boxes"], batch["labels"], strict=True)
    ]  # 0 is the background
    network.train()
    torch.manual_seed(3)
    expected = sum(network(pictures, targets).values())
    torch.manual_seed(3)
    assert torch.equal(call(network, batch)[DETECTIONS], expected.expand(2))


def test_measuring_the_loss_of_a_detector_changes_nothing_and_draws_the_same(tmp_path):
    network = shapes.faster_rcnn(3)
    splits, batch = batch_for(network, draw(tmp_path, 4))
    call = DetectorCall.of_detector(network, splits.inputs)
    before = {name: value.clone() for name, value in network.state_dict().items()}
    torch.manual_seed(5)
    first = call(network, batch)[DETECTIONS]
    after = torch.rand(1)
    torch.manual_seed(6)
    assert torch.equal(first, call(network, batch)[DETECTIONS])
    torch.manual_seed(5)
    assert torch.equal(after, torch.rand(1)), "the random state is untouched"
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
    assert not any(module.training for module in network.modules())


def test_crowds_train_nothing(tmp_path):
    network = shapes.faster_rcnn(3)
    splits, batch = batch_for(network, draw(tmp_path, 4))
    call = DetectorCall.of_detector(network, splits.inputs)
    crowded = {**batch, "crowd": torch.tensor([[True, False]] * 2)}
    alone = {**batch, "labels": batch["labels"].clone()}
    alone["labels"][:, 0] = -100
    assert torch.equal(call(network, crowded)[DETECTIONS], call(network, alone)[DETECTIONS])
    assert not torch.equal(call(network, batch)[DETECTIONS], call(network, alone)[DETECTIONS])


@pytest.mark.parametrize("make", [shapes.detr, shapes.yolos])
def test_a_transformers_detector_gets_what_its_own_processor_makes_of_the_annotations(tmp_path, make, monkeypatch):
    import transformers as tf
    from PIL import Image

    kind = tf.DetrImageProcessor if make is shapes.detr else tf.YolosImageProcessor
    folder = tmp_path / "network"
    make(2).save_pretrained(folder)
    kind(size={"shortest_edge": 48, "longest_edge": 100}).save_pretrained(folder)
    network = surgeon.load(folder)
    file = draw(tmp_path / "data", 4)
    splits, batch = batch_for(network, file)
    seen: dict[str, Any] = {}
    forward = network.forward

    def spied(**given: Any) -> Any:
        seen.update(given)
        return forward(**given)

    monkeypatch.setattr(network, "forward", spied)
    DetectorCall.of_detector(network, splits.inputs)(network, batch)
    content = shapes.content(file)
    number = next(i for i, image in enumerate(content["images"]) if image["file_name"] == splits.train.row_ids([0])[0])
    annotations = [
        {**a, "category_id": int(a["category_id"] == 7)} for a in content["annotations"][2 * number : 2 * number + 2]
    ]
    picture = Image.open(tmp_path / "data" / content["images"][number]["file_name"])
    processor = tf.AutoImageProcessor.from_pretrained(folder)
    made = processor(picture, annotations={"image_id": number, "annotations": annotations}, return_tensors="pt")
    assert torch.equal(seen["pixel_values"][0], made["pixel_values"][0])
    assert torch.allclose(seen["labels"][0]["boxes"], made["labels"][0]["boxes"], atol=1e-6)
    assert torch.equal(seen["labels"][0]["class_labels"], made["labels"][0]["class_labels"])


def test_mask_rcnn_trains_on_segmentations_and_says_when_they_are_not_read(tmp_path):
    from torchvision.models.detection import MaskRCNN
    from torchvision.ops import MultiScaleRoIAlign

    def make() -> nn.Module:
        pool = MultiScaleRoIAlign(featmap_names=["0"], output_size=14, sampling_ratio=2)
        return shapes.faster_rcnn(91, MaskRCNN, mask_roi_pool=pool)

    file = draw(tmp_path / "data", 4)
    with pytest.raises(TrainingError, match="predicts masks, and none are read"):
        trained(make(), file)
    with pytest.raises(TrainingError, match="the network predicts no masks"):
        trained(shapes.faster_rcnn(), file, masks=True)
    network = surgeon.apply(make(), [surgeon.ReplaceHead(classes=NAMES)])
    _, batch = batch_for(network, file, masks=True)
    network.train()
    seen = network(
        list(batch["pixel_values"]),
        [
            {"boxes": b, "labels": n + 1, "masks": m}
            for b, n, m in zip(batch["boxes"], batch["labels"], batch["masks"], strict=True)
        ],
    )
    assert seen["loss_mask"] > 0
    _, report = trained(make(), file, masks=True)
    assert report.after["detections_loss"] > 0


def test_keypoints_and_classifiers_are_refused(tmp_path):
    from torchvision.models import resnet18
    from torchvision.models.detection import keypointrcnn_resnet50_fpn

    from surgeon.recipe.train_settings import TrainSettings
    from surgeon.training.session import train

    settings = TrainSettings(data={"source": "coco", "path": str(draw(tmp_path, 4))})
    with pytest.raises(TrainingError, match="not a detector") as error:
        train(resnet18(weights=None), settings, quiet=True)
    assert "ForObjectDetection" in (error.value.hint or "")
    keypoints = keypointrcnn_resnet50_fpn(weights=None, weights_backbone=None, num_classes=2)
    with pytest.raises(TrainingError) as error:
        train(keypoints, settings, quiet=True)
    assert "keypoints" in f"{error.value} {error.value.hint}"


@pytest.mark.parametrize(
    ("key", "value"),
    [("mix", {"mixup": 0.2}), ("label_smoothing", 0.1), ("features", "cache"), ("sampling", "balanced")],
)
def test_settings_that_a_detectors_own_loss_has_no_place_for_are_refused(tmp_path, key, value):
    with pytest.raises(TrainingError) as error:
        trained(shapes.faster_rcnn(), draw(tmp_path, 4), {key: value})
    assert error.value.where == f"train.{key}"


def test_the_size_of_pictures_is_the_detectors(tmp_path):
    with pytest.raises(TrainingError, match="resize and normalise pictures themselves"):
        trained(shapes.faster_rcnn(), draw(tmp_path, 4), pixels={"size": 32})


def test_early_stopping_by_map(tmp_path):
    stop = {"callback": "early_stopping", "patience": 1, "metric": "detections_map"}
    file = draw(tmp_path / "data", 8)
    _, report = trained(shapes.detr(), file, {"epochs": 3, "callbacks": [stop]})
    assert report.validation_samples
    assert "eval_detections_map" in report.history[-1]


def test_a_kept_head_with_names_is_compared_by_name(tmp_path):
    network = shapes.detr()
    network.config.id2label = dict(enumerate(["N/A", "ball", "box", "cone"]))
    assert network_of(network).head("labels").partial
    splits, _ = batch_for(network, draw(tmp_path, 4))
    assert splits.train[0]["labels"].tolist() == [2, 1]


def test_the_count_of_a_head_without_names_is_compared(tmp_path):
    assert network_of(shapes.faster_rcnn(5)).head("labels").count == 4
    with pytest.raises(TrainingError, match="the head has 4 classes, and 'labels' has 2"):
        batch_for(shapes.faster_rcnn(5), draw(tmp_path, 4))


def test_the_measures_are_those_of_coco():
    """One of two boxes is found exactly, beside a false one of a higher score: precision is 1/2."""
    none = [-100.0] * 6
    boxes = [[0.9, 0, 50, 50, 60, 60], [0.8, 0, 0, 0, 10, 10]]
    given = [[0, 0, 0, 0, 10, 10], [0, 0, 20, 20, 30, 30]]
    row = torch.tensor([*boxes, *[none] * (MOST - 2), *given, none]).flatten()
    measured = of_boxes(row[None], MOST, ["thing", "other"])
    points = sum(recall <= 0.5 for recall in torch.linspace(0, 1, 101).tolist())
    assert measured["map"] == pytest.approx(0.5 * points / 101, abs=1e-3)
    assert measured["mar"] == pytest.approx(0.5)
    assert measured["boxes"] == 2
    assert measured["per_class"]["other"] == {"boxes": 0, "map": None, "mar": None}
    crowd = torch.tensor([*boxes, *[none] * (MOST - 2), given[0], [0, 1, 48, 48, 64, 64]]).flatten()
    assert of_boxes(crowd[None], MOST)["map"] == pytest.approx(1.0), "a box inside a crowd is not wrong"


def test_predictions_follow_the_picture_not_the_size_that_the_network_sees(tmp_path):
    import transformers as tf

    folder = tmp_path / "network"
    shapes.detr(2).save_pretrained(folder)
    tf.DetrImageProcessor(size={"shortest_edge": 48, "longest_edge": 100}).save_pretrained(folder)
    file = draw(tmp_path / "data", 4)
    network = surgeon.load(folder)
    splits, batch = batch_for(network, file)
    predicted = DetectorCall.of_detector(network, splits.inputs)(network, batch)[PREDICTED][0]
    inputs = {name: batch[name] for name in ("pixel_values", "pixel_mask")}
    with torch.no_grad():
        raw = network(**inputs).pred_boxes[0]
    centre = (predicted[:8, 2:4] + predicted[:8, 4:]) / 2
    expected = raw[:, :2] * torch.tensor([SIDE + 16, SIDE])
    assert torch.allclose(centre.sort(0).values, expected.sort(0).values, atol=0.01)


def test_a_detector_that_surgeon_did_not_train_takes_pictures_with_their_coco_file_beside_them(tmp_path):
    network = shapes.detr(2)
    network.config.id2label, network.config.label2id = {0: "box", 1: "ball"}, {"box": 0, "ball": 1}
    network.save_pretrained(tmp_path / "network")
    file = draw(tmp_path / "data", 3)
    predicted = surgeon.predict(tmp_path / "network", file.parent, min_score=0.0)
    assert list(predicted.samples) == ["boxes0.png", "boxes1.png", "boxes2.png"]
    assert predicted.names == ("box", "ball")
    assert surgeon.evaluate(tmp_path / "network", file).main["boxes"] == 6
    network.config.id2label = {0: "box", 1: "cone"}
    with pytest.raises(TrainingError, match="only in the data: ball"):
        surgeon.evaluate(network, file)


def test_an_unknown_detector_head_is_not_numbered():
    assert network_of(nn.Linear(2, 2)) == Network({"labels": Head("cross_entropy", None, ())})
