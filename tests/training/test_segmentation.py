"""Networks that give each pixel a class, of torchvision and transformers, on pictures that are drawn here."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from small_data import load
from torch import nn

import surgeon
from surgeon.data.network import Head
from surgeon.errors import TrainingError

CLASSES = ["sky", "box", "ball"]
COLOURS = [(30, 60, 220), (220, 40, 30), (40, 210, 60)]
SIDE = 32


def draw(root: Path, count: int = 16, ignored: bool = True) -> Path:
    """Boxes and balls before a sky, with a border that has no class; the masks are of the classes' numbers."""
    random = np.random.default_rng(0)
    rows, columns = np.mgrid[:SIDE, :SIDE]
    for folder in ("images", "masks"):
        (root / folder).mkdir(parents=True, exist_ok=True)
    for number in range(count):
        mask = np.zeros((SIDE, SIDE), np.uint8)
        left, top = random.integers(2, 14, 2)
        mask[top : top + 9, left : left + 9] = 1
        x, y = random.integers(8, 26, 2)
        mask[(columns - x) ** 2 + (rows - y) ** 2 < 30] = 2
        picture = np.array(COLOURS, np.float64)[mask] + random.normal(0, 12, (SIDE, SIDE, 3))
        if ignored:
            mask[:2] = 255
        Image.fromarray(np.clip(picture, 0, 255).astype(np.uint8)).save(root / "images" / f"{number}.jpg", quality=95)
        Image.fromarray(mask).save(root / "masks" / f"{number}.png")
    return root


def source(root: Path, **more: Any) -> dict[str, Any]:
    return {"source": "masks", "path": str(root), "pixels": {"size": SIDE}, **more}


def trained(network: nn.Module, root: Path, data: dict[str, Any], **more: Any) -> Any:
    settings = {"data": data, "epochs": 12, "learning_rate": 0.01, "batch_size": 4, **more}
    recipe = {"operations": [{"op": "replace_head", "classes": CLASSES}], "train": settings}
    (root / "recipe.json").write_text(json.dumps(recipe))
    return surgeon.finetune(network, root / "recipe.json")


def segformer() -> nn.Module:
    from transformers import SegformerConfig, SegformerForSemanticSegmentation

    torch.manual_seed(0)
    sizes = {"hidden_sizes": [16, 16, 16, 16], "depths": [1, 1, 1, 1], "num_attention_heads": [1, 1, 1, 1]}
    return SegformerForSemanticSegmentation(SegformerConfig(decoder_hidden_size=16, num_labels=5, **sizes)).eval()


def lraspp() -> nn.Module:
    from torchvision.models.segmentation import lraspp_mobilenet_v3_large

    torch.manual_seed(0)
    return lraspp_mobilenet_v3_large(weights=None, weights_backbone=None).eval()


@pytest.mark.parametrize("make", [segformer, lraspp])
def test_a_segmenter_learns_is_saved_predicts_and_is_measured(tmp_path, make):
    root = draw(tmp_path / "data")
    data = source(root, mask_values={"classes": CLASSES})
    model, report = trained(make(), tmp_path, data, epochs=12 if make is segformer else 6)
    measured = report.tasks["out" if make is lraspp else "logits"]["all"]
    assert set(measured["per_class"]) == set(CLASSES)
    assert "miou" in measured
    if make is segformer:
        assert measured["miou"] > 0.5
    surgeon.save(model, tmp_path / "out")
    predicted = surgeon.predict(tmp_path / "out", root / "images")
    assert predicted.kind == "pixels"
    assert len(predicted.rows) == 16
    assert set(predicted.rows[0]["shares"]) == set(CLASSES)
    assert sum(predicted.rows[0]["shares"].values()) == pytest.approx(1)
    assert predicted.places[0].shape == (SIDE, SIDE)
    again = surgeon.evaluate(tmp_path / "out", json.dumps(source(root)))
    assert again.samples == 16
    assert again.main["accuracy"] > 0.5


def test_the_measures_of_pixels_are_those_of_torchmetrics():
    from torchmetrics.classification import MulticlassJaccardIndex

    from surgeon.training.measures import confusion_of, of_confusion, of_counts

    generator = torch.Generator().manual_seed(0)
    labels, logits = torch.randint(0, 4, (500,), generator=generator), torch.randn(500, 5, generator=generator)
    logits[:, 4] = -9  # never a label and never predicted
    table = confusion_of(logits, labels, 5)
    official = MulticlassJaccardIndex(5, average="none")(logits, labels)
    expected = MulticlassJaccardIndex(5)(logits, labels).item()
    measured = of_confusion(table, iou=True)
    assert measured["miou"] == pytest.approx(official[:4].mean().item()) == pytest.approx(expected)
    counts = of_counts(torch.stack([table.diagonal(), table.sum(1), table.sum(0)]), iou=True)
    assert counts["per_class"]["2"]["iou"] == pytest.approx(official[2].item())
    assert measured["per_class"]["4"]["iou"] is None


def test_masks_move_with_their_pictures(tmp_path):
    root = draw(tmp_path / "data", 8, ignored=False)
    for path in (root / "images").glob("*"):  # pictures of which each pixel says its class
        mask = np.asarray(Image.open(root / "masks" / f"{path.stem}.png"))
        path.unlink()
        Image.fromarray(np.repeat(mask[..., None] * 100, 3, 2)).save(path.with_suffix(".png"))
    plain = {"size": SIDE, "mean": [0.0] * 3, "std": [1.0] * 3}
    loaded = load(source(root, pixels={**plain, "augment": ["flip", "rotate", "crop"]}))
    moved = agree = 0
    for row in range(len(loaded.train)):
        sample = loaded.train[row]
        values = (sample["pixel_values"][0] * 255 / 100).round().long()
        labelled = sample["labels"] >= 0
        agree += (values == sample["labels"])[labelled].float().mean().item() / len(loaded.train)
        moved += int((~labelled).any())
    assert moved > 0  # a rotation leaves corners without a class
    assert agree > 0.9


def test_labels_are_numbers_of_the_heads_classes_by_name_and_255_has_none(tmp_path):
    root = draw(tmp_path / "data")
    order = source(root, mask_values={"classes": CLASSES})
    loaded = load(order, Head(names=("ball", "box", "sky"), count=3))
    numbers = {int(number) for row in range(4) for number in loaded.train[row]["labels"].unique()}
    assert numbers == {-100, 0, 1, 2}
    assert (loaded.train[0]["labels"][4:] == 2).float().mean() > 0.4  # the sky is the most of each picture
    with pytest.raises(TrainingError, match="only in the head: tree; only in the data: ball"):
        load(order, Head(names=("sky", "box", "tree"), count=3))


def test_a_mask_that_does_not_fit_its_picture_is_refused_with_its_row(tmp_path):
    root = draw(tmp_path / "data", 6)
    with pytest.raises(TrainingError, match="holds the number 2, and the classes have 0 to 1"):
        load(source(root), Head(count=2))
    with pytest.raises(TrainingError, match="holds the number 255, and the classes have 0 to 2"):
        load(source(root, mask_values={"ignore": None}), Head(count=3))
    Image.new("L", (SIDE, 7)).save(root / "masks" / "3.png")
    with pytest.raises(TrainingError, match="row 3: the mask has 32 x 7 pixels and its picture 32 x 32"):
        load(source(root))
    Image.new("RGB", (SIDE, SIDE)).save(root / "masks" / "3.png")
    with pytest.raises(TrainingError, match=r"row 3: the mask is a picture in colours \(RGB\)"):
        load(source(root))
    assert any("left out 1" in note for note in load(source(root, on_error="skip")).notes)
    (root / "masks" / "3.png").unlink()
    with pytest.raises(TrainingError, match=r"1 pictures have no mask of that name in masks \(3\)"):
        load(source(root))
    with pytest.raises(TrainingError, match="labels is not a folder") as error:
        load(source(root, masks="labels"))
    assert error.value.hint == "give the folder's name: masks: NAME"


def test_masks_are_named_in_a_table_and_lie_in_folders_of_splits_too(tmp_path):
    root = draw(tmp_path / "data", 6)
    rows = "".join(f"data/images/{n}.jpg,data/masks/{n}.png\n" for n in range(6))
    (tmp_path / "t.csv").write_text("picture,mask\n" + rows)
    table = {"source": "table", "path": str(tmp_path / "t.csv"), "image": "picture", "mask": "mask"}
    loaded = load({**table, "pixels": {"size": 16}})
    assert loaded.train[0]["labels"].shape == (16, 16)
    with pytest.raises(ValueError, match="there are no labels: name their columns with targets, or that of masks"):
        load({name: value for name, value in table.items() if name != "mask"})
    for part in ("train", "test"):
        draw(tmp_path / "split" / part, 3 if part == "train" else 2)
    for path in (tmp_path / "split" / "test").rglob("*.*"):
        path.rename(path.with_stem(f"t{path.stem}"))
    split = load(source(tmp_path / "split"))
    assert (len(split.train), len(split.test)) == (3, 2)
    assert root.exists()


def test_the_checkpoints_own_processor_makes_pictures_and_masks(tmp_path):
    from transformers import SegformerImageProcessor

    from surgeon.data.network import Network
    from surgeon.interfaces.preprocessing import Preprocessing

    root = draw(tmp_path / "data", 6)
    processor = SegformerImageProcessor(size={"height": 24, "width": 24}, do_reduce_labels=True)
    config = {"library": "transformers", "config": json.loads(processor.to_json_string())}
    network = Network({"labels": Head(count=2)}, preprocessing=Preprocessing(pictures=config))
    plain = {**source(root), "pixels": {}}
    loaded = load(plain, network=network)
    picture, mask = (Image.open(root / folder) for folder in ("images/0.jpg", "masks/0.png"))
    official = processor(images=picture, segmentation_maps=mask, return_tensors="pt")
    samples = [part[row] for part in (loaded.train, loaded.test) for row in range(len(part))]
    sample = next(s for s in samples if torch.equal(s["pixel_values"], official["pixel_values"][0]))
    expected = official["labels"][0].masked_fill(official["labels"][0] == 255, -100)
    assert torch.equal(sample["labels"], expected)
    assert sample["labels"].unique().tolist() == [-100, 0, 1]


def processor_of(name: str, **more: Any) -> Any:
    import transformers

    settings = {"size": {"height": 24, "width": 24}, "do_center_crop": False, **more}
    return getattr(transformers, f"{name}ImageProcessor")(**settings)


def loaded_by(processor: Any, root: Path, count: int, **fields: Any) -> Any:
    from surgeon.data.network import Network
    from surgeon.interfaces.preprocessing import Preprocessing

    config = {"library": "transformers", "config": json.loads(processor.to_json_string())}
    network = Network({"labels": Head(count=count)}, preprocessing=Preprocessing(pictures=config))
    return load({**source(root), "pixels": {}, **fields}, network=network)


@pytest.mark.parametrize("name", ["Beit", "DPT", "Segformer", "MobileViT", "Sapiens2"])
@pytest.mark.parametrize("side", [20, 70])
def test_a_processor_makes_no_new_numbers_in_masks(tmp_path, name, side):
    root = draw(tmp_path / "data", 6)
    for path in (root / "masks").iterdir():  # 1 would lie between them, and is the number of another class
        mask = np.asarray(Image.open(path)).copy()
        mask[mask == 1] = 7
        Image.fromarray(mask).save(path)
    processor = processor_of(name, size={"height": side, "width": side}, do_reduce_labels=False)
    samples = loaded_by(processor, root, 8).train
    for row in range(len(samples)):
        labels = samples[row]["labels"]
        assert labels.unique().tolist() == [-100, 0, 2, 7]
        assert labels.shape == samples[row]["pixel_values"].shape[-2:]


@pytest.mark.parametrize("name", ["Beit", "Segformer"])
def test_masks_lie_where_their_pictures_do(tmp_path, name):
    root = draw(tmp_path / "data", 6, ignored=False)
    for path in (root / "images").glob("*"):
        mask = np.asarray(Image.open(root / "masks" / f"{path.stem}.png"))
        path.unlink()
        Image.fromarray(np.repeat(mask[..., None] * 100, 3, 2)).save(path.with_suffix(".png"))
    processor = processor_of(name, do_normalize=False, do_reduce_labels=False, size={"height": 96, "width": 96})
    samples = loaded_by(processor, root, 3).train
    agree = [(s["pixel_values"][0] * 255 / 100).round().long() == s["labels"] for s in map(samples.__getitem__, (0, 1))]
    assert all(share.float().mean() > 0.93 for share in agree)


def test_what_a_processor_fills_up_has_no_class(tmp_path):
    root = draw(tmp_path / "data", 6, ignored=False)
    processor = processor_of("DPT", do_pad=True, size_divisor=16, do_reduce_labels=False)
    labels = loaded_by(processor, root, 3).train[0]["labels"]
    assert labels.shape == (32, 32)
    assert (labels == -100).sum() == 32 * 32 - 24 * 24


@pytest.mark.parametrize("name", ["Beit", "Segformer"])
def test_named_numbers_count_from_0_whatever_the_processor_does(tmp_path, name):
    root = draw(tmp_path / "data", 6)
    processor = processor_of(name, do_reduce_labels=True)
    loaded = loaded_by(processor, root, 3, mask_values={"classes": CLASSES})
    assert loaded.train[0]["labels"].unique().tolist() == [-100, 0, 1, 2]
    assert loaded.preprocessing["pictures"]["config"]["do_reduce_labels"] is False
    assert not any("counts classes from 1" in note for note in loaded.notes)
    unnamed = loaded_by(processor, root, 2)
    assert unnamed.train[0]["labels"].unique().tolist() == [-100, 0, 1]
    assert unnamed.preprocessing["pictures"]["config"]["do_reduce_labels"] is True
    assert sum("counts classes from 1: 0 in masks stands for none" in note for note in unnamed.notes) == 1


def test_the_processor_beside_the_result_counts_as_the_recipe_does(tmp_path):
    root = draw(tmp_path / "data", 8)
    segformer().save_pretrained(tmp_path / "net")
    processor = processor_of("Segformer", do_reduce_labels=True, size={"height": SIDE, "width": SIDE})
    processor.save_pretrained(tmp_path / "net")
    data = {"source": "masks", "path": str(root), "mask_values": {"classes": CLASSES}}
    model, _ = trained(str(tmp_path / "net"), tmp_path, data, epochs=1)
    surgeon.save(model, tmp_path / "out")
    assert json.loads((tmp_path / "out" / "preprocessor_config.json").read_text())["do_reduce_labels"] is False
    plain = surgeon.evaluate(tmp_path / "out", json.dumps({"source": "masks", "path": str(root)}), part="test")
    named = surgeon.evaluate(tmp_path / "out", json.dumps(data), part="test")
    assert plain.main == named.main


def test_an_auxiliary_output_is_trained_beside_the_main_one_with_half_the_weight(tmp_path):
    from torchvision.models.segmentation import fcn_resnet50

    torch.manual_seed(0)
    network = fcn_resnet50(weights=None, weights_backbone=None, aux_loss=True).eval()
    root = draw(tmp_path / "data", 6)
    _, report = trained(network, tmp_path, source(root, mask_values={"classes": CLASSES}), epochs=1)
    assert {"out_loss", "aux_loss"} <= set(report.after)
    assert report.history[-1]["loss"] == pytest.approx(
        report.history[-1]["out_loss"] + 0.5 * report.history[-1]["aux_loss"], rel=0.02
    )


def test_a_detector_is_refused_for_what_it_is(tmp_path):
    from small_data import folder, images
    from torchvision.models.detection import ssdlite320_mobilenet_v3_large

    from surgeon.recipe.train_settings import TrainSettings
    from surgeon.training.session import train

    network = ssdlite320_mobilenet_v3_large(weights=None, weights_backbone=None)
    with pytest.raises(TrainingError, match="the network detects boxes, and the data have none") as error:
        train(network, TrainSettings(data=images(folder(tmp_path / "data"))), quiet=True)
    assert "source: coco" in (error.value.hint or "")


def test_a_folder_of_masks_is_measured_as_it_was_trained(tmp_path):
    root = draw(tmp_path / "data", count=8)
    data = source(root, mask_values={"classes": CLASSES})
    model, _ = trained(segformer(), tmp_path, data, epochs=1)
    by_path = surgeon.evaluate(model, str(root)).measures["logits"]["all"]
    assert by_path["per_class"] == surgeon.evaluate(model, data).measures["logits"]["all"]["per_class"]


def test_a_network_that_matches_masks_with_objects_is_refused_before_any_work(tmp_path):
    from transformers import DetrConfig, MaskFormerConfig, MaskFormerForInstanceSegmentation, ResNetConfig

    stages = {"embedding_size": 8, "hidden_sizes": [8, 8, 16, 16], "depths": [1, 1, 1, 1], "layer_type": "basic"}
    backbone = ResNetConfig(**stages, out_features=["stage1", "stage2", "stage3", "stage4"])
    decoder = DetrConfig(
        d_model=16, decoder_layers=1, decoder_ffn_dim=32, decoder_attention_heads=2, num_queries=8,
        use_timm_backbone=False, use_pretrained_backbone=False, backbone=None, backbone_config=backbone,
    )  # fmt: skip
    sizes = {"fpn_feature_size": 32, "mask_feature_size": 32, "num_labels": 5}
    network = MaskFormerForInstanceSegmentation(
        MaskFormerConfig(backbone_config=backbone, decoder_config=decoder, **sizes)
    )
    with pytest.raises(TrainingError, match="predicts masks for queries"):
        trained(network, tmp_path, source(draw(tmp_path / "data", count=4)))
