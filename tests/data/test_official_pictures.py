"""Pictures become what the checkpoint's own processor, torchvision's transforms or timm's config make of them."""

from __future__ import annotations

import json
from pathlib import Path

import companion_folders as folders
import numpy as np
import pytest
import torch
import torchvision
import transformers
from PIL import Image
from torchvision.transforms import InterpolationMode
from torchvision.transforms import functional as F

import surgeon
from surgeon.architectures.preprocessing import preprocessing_of
from surgeon.data.pictures import Picture
from surgeon.data.settings import Pixels
from surgeon.interfaces.preprocessing import Preprocessing
from surgeon.interfaces.record import Record

FEW = [
    *(
        "vit",
        "beit",
        "bit",
        "clip",
        "convnext",
        "deit",
        "efficientnet",
        "levit",
        "mobilevit",
        "poolformer",
        "siglip",
        "swin",
    ),
]
MANY = [
    *("blip", "chinese_clip", "cvt", "data2vec-vision", "depth_anything", "dinov2", "dpt"),
    *("donut-swin", "flava", "focalnet", "git", "groupvit", "ijepa", "kosmos-2", "mobilenet_v1"),
    *("mobilenet_v2", "owlvit", "perceiver", "pvt", "pvt_v2", "regnet", "resnet", "segformer", "swiftformer"),
    *("swinv2", "textnet", "vit_mae", "vit_msn", "xclip", "yolos", "detr", "rt_detr", "conditional_detr"),
]


def picture(width: int = 70, height: int = 50) -> Image.Image:
    """A coloured picture in which no two rows or columns are alike."""
    draw = np.random.default_rng(0)
    return Image.fromarray(draw.integers(0, 256, (height, width, 3), dtype=np.uint8))


def processor_of(model_type: str):
    from transformers.models.auto.image_processing_auto import IMAGE_PROCESSOR_MAPPING_NAMES

    names = IMAGE_PROCESSOR_MAPPING_NAMES[model_type]
    name = names if isinstance(names, str) else names.get("torchvision") or names["pil"]
    return getattr(transformers, name)()


def record_with(folder: Path, preprocessing: dict | None = None) -> Record:
    """The record of a network whose folder holds a processor."""
    from surgeon.checkpoint.companions import read_companions

    record = Record(architecture=None, source=str(folder), preprocessing=preprocessing or {})
    record.carry(read_companions(folder))
    return record


def check_official(model_type: str, folder: Path) -> None:
    processor_of(model_type).save_pretrained(folder)
    official = transformers.AutoImageProcessor.from_pretrained(folder)(images=picture(), return_tensors="pt")
    stated = preprocessing_of(record_with(folder), {"pictures"})
    inputs = Picture("image", Pixels(), Path(), 0, stated)({"image": picture()}, 0, False)
    name = next(iter(inputs))
    assert torch.equal(inputs[name], official[name][0])


@pytest.mark.parametrize("model_type", FEW)
def test_pictures_are_those_of_the_official_processor(model_type: str, tmp_path: Path) -> None:
    check_official(model_type, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("model_type", MANY)
def test_pictures_of_many_types_are_those_of_the_official_processor(model_type: str, tmp_path: Path) -> None:
    check_official(model_type, tmp_path)


def made(pixels: Pixels, stated: Preprocessing) -> torch.Tensor:
    return Picture("image", pixels, Path(), 0, stated)({"image": picture()}, 0, False)["pixel_values"]


def test_white_is_one_for_a_network_normalised_by_a_half(tmp_path: Path) -> None:
    stated = preprocessing_of(surgeon.load(folders.vit(tmp_path / "vit")))
    white = Picture("image", Pixels(), Path(), 0, stated)({"image": Image.new("RGB", (40, 40), "white")}, 0, False)
    assert (white["pixel_values"] == 1).all()


@pytest.mark.parametrize(
    ("name", "weights"),
    [("resnet50", "IMAGENET1K_V2"), ("efficientnet_b1", "IMAGENET1K_V1"), ("fcn_resnet50", "COCO_WITH_VOC_LABELS_V1")],
)
def test_pictures_are_those_of_torchvisions_weights(name: str, weights: str) -> None:
    from surgeon.architectures.preprocessing import stated_by
    from surgeon.architectures.source import Source

    source = Source(None, None, None, f"torchvision/{name}@{weights}")
    stated = Preprocessing(**stated_by(source))
    official = torchvision.models.get_model_weights(name)[weights].transforms()(picture())
    assert torch.equal(made(Pixels(), stated), official)


def test_pictures_follow_timms_data_config() -> None:
    from surgeon.architectures.preprocessing import stated_by
    from surgeon.architectures.source import Source
    from surgeon.checkpoint.contents import Checkpoint

    config = {
        "input_size": [3, 32, 32], "interpolation": "bicubic", "crop_pct": 0.9, "crop_mode": "center",
        "mean": [0.5, 0.4, 0.3], "std": [0.2, 0.3, 0.4],
    }  # fmt: skip
    checkpoint = Checkpoint("x", "x", {}, config={"pretrained_cfg": config})
    stated = Preprocessing(**stated_by(Source(None, checkpoint, None, "x")))
    scaled = F.resize(picture(), 35, InterpolationMode.BICUBIC)
    official = F.normalize(F.to_tensor(F.center_crop(scaled, [32, 32])), config["mean"], config["std"])
    assert torch.allclose(made(Pixels(), stated), official, atol=1e-6)


def test_without_a_word_pictures_are_normalised_by_imagenet_and_it_is_said(tmp_path: Path) -> None:
    stated = preprocessing_of(torchvision.models.resnet18(num_classes=2))
    assert any("ImageNet's mean" in note for note in stated.notes)
    white = Picture("image", Pixels(), Path(), 0, stated)({"image": Image.new("RGB", (9, 9), "white")}, 0, False)
    assert white["pixel_values"].shape == (3, 224, 224)
    assert white["pixel_values"][:, 0, 0].tolist() == pytest.approx([2.2489, 2.4286, 2.64], abs=1e-4)


def test_a_network_that_knows_its_size_is_given_pictures_of_it() -> None:
    config = transformers.ViTConfig(
        hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=8, image_size=48, patch_size=8
    )
    assert made(Pixels(), preprocessing_of(transformers.ViTModel(config))).shape == (3, 48, 48)


def test_a_recipe_overrides_single_values(tmp_path: Path) -> None:
    transformers.CLIPImageProcessor(size={"shortest_edge": 48}, crop_size=32).save_pretrained(tmp_path)
    stated = preprocessing_of(record_with(tmp_path))
    pictures = Picture("image", Pixels(size=16), Path(), 0, stated).used["config"]
    assert (pictures["crop_size"], pictures["size"]) == ({"height": 16, "width": 16}, {"shortest_edge": 24})
    assert list(pictures["image_mean"]) == list(transformers.CLIPImageProcessor().image_mean)
    assert made(Pixels(size=16, mean=[0, 0, 0], std=[1, 1, 1]), stated).min() >= 0


def test_grey_pictures_for_one_channel_have_the_mean_of_the_means(tmp_path: Path) -> None:
    folders.vit(tmp_path / "vit")
    stated = preprocessing_of(surgeon.load(tmp_path / "vit"))
    assert made(Pixels(channels=1), stated).shape == (1, 32, 32)


def test_what_training_used_goes_before_the_processor(tmp_path: Path) -> None:
    transformers.ViTImageProcessor().save_pretrained(tmp_path)
    used = Picture("image", Pixels(size=40), Path(), 0, preprocessing_of(record_with(tmp_path))).used
    again = preprocessing_of(record_with(tmp_path, {"pictures": json.loads(json.dumps(used))}))
    assert made(Pixels(), again).shape == (3, 40, 40)
