"""The plugin as it is installed, on small networks of the real timm with random weights."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
import torchvision
import transformers
from PIL import Image
from safetensors.torch import load_file
from timm.data import create_transform, resolve_data_config
from timm.models import save_for_hf

import surgeon

PACKAGE = Path(__file__).parents[1]

SMALL = [
    ("resnet10t", {"num_classes": 7}, 64),
    ("vit_tiny_patch16_224", {"num_classes": 7, "img_size": 32}, 32),
    ("convnext_atto", {"num_classes": 7, "in_chans": 1}, 64),
    ("efficientnet_lite0", {"num_classes": 7}, 64),
    ("mixer_s32_224", {"num_classes": 7, "img_size": 64}, 64),
    ("swin_s3_tiny_224", {"num_classes": 7, "img_size": 56}, 56),
    ("mobilenetv3_small_050", {"num_classes": 7}, 64),
]
NAMES = [name for name, *_ in SMALL]


def network(name, options):
    torch.manual_seed(0)
    return timm.create_model(name, **options).eval()


def pictures(options, size):
    return torch.rand(2, options.get("in_chans", 3), size, size, generator=torch.Generator().manual_seed(0))


def difference(one, two, images):
    with torch.no_grad():
        return (one(images) - two(images)).abs().max().item()


def same_values(one, two):
    one, two = one.state_dict(), two.state_dict()
    return one.keys() == two.keys() and all(torch.equal(one[name], two[name]) for name in one)


def architecture(path, **options):
    return surgeon.plan(path, surgeon.Freeze(up_to="@stem"), **options).architecture


def test_every_builder_of_timm_has_a_name():
    provider = surgeon.load_plugins().architectures()["timm"]
    assert provider.names() == timm.list_models()
    assert len(provider.names()) > 1300


@pytest.mark.parametrize(("name", "options", "size"), SMALL, ids=NAMES)
@pytest.mark.parametrize("safe", [True, False], ids=["safetensors", "bin"])
def test_a_folder_of_timm_loads_as_timm_loads_it(name, options, size, safe, tmp_path):
    save_for_hf(network(name, options), tmp_path / "folder", safe_serialization=safe)
    reference = timm.create_model(f"local-dir:{tmp_path / 'folder'}", pretrained=True).eval()
    loaded = surgeon.load(tmp_path / "folder").eval()
    assert type(loaded) is type(reference)
    assert same_values(loaded, reference)
    assert difference(loaded, reference, pictures(options, size)) == 0


@pytest.mark.parametrize(("name", "options", "size"), SMALL, ids=NAMES)
def test_a_result_with_a_new_head_loads_in_timm_alone(name, options, size, tmp_path):
    save_for_hf(network(name, options), tmp_path / "folder", safe_serialization=True)
    surgeon.run_recipe(tmp_path / "folder", [surgeon.ReplaceHead(classes=3)], tmp_path / "out", train=False)
    alone = timm.create_model(f"local-dir:{tmp_path / 'out'}", pretrained=True).eval()
    again = surgeon.load(tmp_path / "out").eval()
    assert alone.num_classes == 3
    assert same_values(alone, again)
    assert difference(alone, again, pictures(options, size)) == 0


@pytest.mark.parametrize(
    ("name", "operations"),
    [
        ("resnet14t", [surgeon.Truncate(keep_blocks=0.5)]),
        ("vit_tiny_patch16_224", [surgeon.Truncate(keep_blocks=3), surgeon.ReplaceHead(classes=4)]),
        ("convnext_atto", [surgeon.Truncate(keep_blocks=0.5), surgeon.AdaptInput(channels=1)]),
        ("swin_s3_tiny_224", [surgeon.Truncate(keep_blocks=0.5)]),
        ("resnet10t", [surgeon.AdaptInput(channels=6, init="repeat"), surgeon.ReplaceHead(classes=2)]),
        ("mobilenetv3_small_050", [surgeon.AdaptInput(channels=1)]),
    ],
)
def test_other_surgery_loads_in_timm_alone_too(name, operations, tmp_path):
    surgeon.run_recipe(f"timm/{name}", operations, tmp_path / "out", train=False)
    alone = timm.create_model(f"local-dir:{tmp_path / 'out'}", pretrained=True).eval()
    again = surgeon.load(tmp_path / "out").eval()
    assert same_values(alone, again)
    size = alone.pretrained_cfg["input_size"]
    assert difference(alone, again, torch.rand(1, *size)) == 0


def test_timm_loads_the_result_in_a_process_without_surgeon(tmp_path):
    surgeon.run_recipe("timm/resnet10t", [surgeon.ReplaceHead(classes=3)], tmp_path / "out", train=False)
    code = (
        "import sys; sys.modules['surgeon'] = None\n"
        "import timm\n"
        f"print(timm.create_model('local-dir:{tmp_path / 'out'}', pretrained=True).num_classes)"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "3"


def test_a_cut_network_is_written_without_timms_config(tmp_path):
    surgeon.run_recipe("timm/resnet10t", [surgeon.Truncate(after="layer2")], tmp_path / "out", train=False)
    assert not (tmp_path / "out" / "config.json").exists()
    assert surgeon.load(tmp_path / "out").eval()(torch.rand(1, 3, 64, 64)) is not None


def test_a_branch_is_written_without_timms_config(tmp_path):
    operation = surgeon.Multitask(tasks={"colour": {"classes": 4, "at": "layer2"}})
    surgeon.run_recipe("timm/resnet10t", [operation], tmp_path / "out", train=False)
    assert not (tmp_path / "out" / "config.json").exists()


AMBIGUOUS = {"efficientnet_lite0"}
"""Builders whose tensors those of another builder equal, which pads in another way."""
SIZED = {"mixer_s32_224", "swin_s3_tiny_224"}
"""Builders with more tensors than a position embedding that depend on the image size."""


@pytest.mark.parametrize(("name", "options", "size"), SMALL, ids=NAMES)
def test_a_bare_state_dict_is_identified(name, options, size, tmp_path):
    if name in SIZED:
        options, size = {"num_classes": 7}, 224
    model = network(name, options)
    torch.save(model.state_dict(), tmp_path / "weights.pth")
    loaded = surgeon.load(tmp_path / "weights.pth", arch=f"timm/{name}" if name in AMBIGUOUS else None).eval()
    assert same_values(loaded, model)
    assert difference(loaded, model, pictures(options, size)) == 0


def test_an_exact_match_has_the_number_of_classes_of_the_file(tmp_path):
    torch.save(network("resnet10t", {"num_classes": 11}).state_dict(), tmp_path / "weights.pth")
    assert architecture(tmp_path / "weights.pth") == "timm/resnet10t"
    assert surgeon.load(tmp_path / "weights.pth").num_classes == 11


def test_builders_with_the_same_tensors_and_other_results_are_listed(tmp_path):
    torch.save(network("efficientnet_lite0", {}).state_dict(), tmp_path / "weights.pth")
    with pytest.raises(surgeon.ArchitectureError, match="tf_efficientnet_lite0"):
        surgeon.load(tmp_path / "weights.pth")
    loaded = surgeon.load(tmp_path / "weights.pth", arch="timm/tf_efficientnet_lite0")
    assert loaded.pretrained_cfg["architecture"] == "tf_efficientnet_lite0"


def test_builders_of_the_same_network_are_named_in_a_note(tmp_path):
    model = network("vit_tiny_patch16_224", {"num_classes": 4})
    torch.save(model.state_dict(), tmp_path / "weights.pth")
    planned = surgeon.plan(tmp_path / "weights.pth", surgeon.ReplaceHead(classes=3))
    assert any("build the same network" in note and "deit_tiny_patch16_224" in note for note in planned.notes)


def test_a_file_of_torchvision_stays_torchvisions(tmp_path):
    torch.save(torchvision.models.resnet18(num_classes=5).state_dict(), tmp_path / "resnet18.pth")
    planned = surgeon.plan(tmp_path / "resnet18.pth", surgeon.ReplaceHead(classes=3))
    assert planned.architecture == "torchvision/resnet18"
    loaded = surgeon.load(tmp_path / "resnet18.pth", arch="timm/resnet18")
    assert type(loaded).__module__ == "timm.models.resnet"


def test_a_network_in_memory_is_saved_and_loaded(tmp_path):
    model = network("convnext_atto", {"num_classes": 5, "in_chans": 1, "drop_path_rate": 0.1})
    surgeon.save(model, tmp_path / "out")
    loaded = surgeon.load(tmp_path / "out").eval()
    assert same_values(loaded, model)
    assert loaded.stages[1].blocks[1].drop_path.drop_prob == model.stages[1].blocks[1].drop_path.drop_prob


def test_a_network_that_its_author_changed_is_not_taken_for_timms():
    model = network("resnet10t", {"num_classes": 5})
    model.layer1[0].act2 = torch.nn.GELU()
    assert surgeon.load_plugins().architectures()["timm"].of_module(model) is None


@pytest.mark.parametrize(("name", "options", "size"), SMALL, ids=NAMES)
def test_head_and_stem_are_those_that_timm_names(name, options, size):
    model = network(name, options)
    view = surgeon.inspect(model)
    assert [site.site for site in view.select("@head")] == [model.pretrained_cfg["classifier"]]
    assert [site.site for site in view.select("@stem")] == [model.pretrained_cfg["first_conv"]]


def test_blocks_are_in_stages():
    view = surgeon.inspect("timm/convnext_atto")
    assert [site.site for site in view.select("@blocks")][:3] == [f"stages.{i}.blocks.{j}" for i, j in
                                                                  [(0, 0), (0, 1), (1, 0)]]  # fmt: skip


@pytest.mark.parametrize(
    "changed",
    [
        {},
        {"crop_pct": 0.9, "interpolation": "bilinear", "mean": (0.5, 0.4, 0.3), "std": (0.2, 0.3, 0.4)},
        {"crop_mode": "squash", "crop_pct": 0.8, "input_size": (3, 48, 48)},
    ],
    ids=["resnet10t", "other values", "squash"],
)
def test_pictures_are_those_of_timms_own_transform(changed, tmp_path):
    from surgeon.architectures.preprocessing import preprocessing_of
    from surgeon.data.pictures import Picture
    from surgeon.data.settings import Pixels

    model = timm.create_model("resnet10t", pretrained_cfg_overlay=changed)
    save_for_hf(model, tmp_path / "folder", safe_serialization=True)
    drawn = np.random.default_rng(0).integers(0, 256, (301, 420, 3), dtype=np.uint8)
    picture = Image.fromarray(drawn)
    official = create_transform(**resolve_data_config(model=model))(picture)
    stated = preprocessing_of(surgeon.load(tmp_path / "folder"))
    pixels = Picture("image", Pixels(), Path(), 0, stated)({"image": picture}, 0, False)["pixel_values"]
    assert pixels.shape == official.shape
    assert (pixels - official).abs().max() <= 1e-6


def test_new_preprocessing_is_written_for_timm(tmp_path):
    surgeon.run_recipe("timm/resnet10t", [surgeon.AdaptInput(channels=1)], tmp_path / "out", train=False)
    config = json.loads((tmp_path / "out" / "config.json").read_text())["pretrained_cfg"]
    assert config["input_size"] == [1, 176, 176]
    assert config["mean"] == pytest.approx([0.449], abs=1e-3)
    assert resolve_data_config(pretrained_cfg=config)["crop_pct"] == pytest.approx(0.875, abs=1e-3)


def test_a_recommended_test_size_is_kept_where_nothing_changes(tmp_path):
    surgeon.run_recipe("timm/resnet10t", [surgeon.ReplaceHead(classes=3)], tmp_path / "out", train=False)
    config = json.loads((tmp_path / "out" / "config.json").read_text())["pretrained_cfg"]
    assert config["test_input_size"] == [3, 224, 224]
    assert config["crop_pct"] == 0.875


@pytest.mark.parametrize("option", ["pretrained", "checkpoint_path", "cache_dir"])
def test_an_option_that_loads_something_is_refused(option):
    provider = surgeon.load_plugins().architectures()["timm"]
    with pytest.raises(surgeon.ArchitectureError, match=option):
        provider.build(surgeon.Architecture(scheme="timm", name="resnet10t", options={option: "x"}))


def test_an_unknown_builder_of_a_folder_is_refused_with_the_nearest(tmp_path):
    save_for_hf(network("resnet10t", {}), tmp_path / "folder", safe_serialization=True)
    path = tmp_path / "folder" / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "architecture": "resnet10tt"}))
    with pytest.raises(surgeon.ArchitectureError, match="resnet10tt") as caught:
        surgeon.load(tmp_path / "folder")
    assert "resnet10t" in caught.value.hint


def test_a_folder_whose_tensors_do_not_fit_is_refused(tmp_path):
    save_for_hf(network("resnet10t", {}), tmp_path / "folder", safe_serialization=True)
    path = tmp_path / "folder" / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "architecture": "resnet34"}))
    with pytest.raises(surgeon.ArchitectureError, match="resnet34"):
        surgeon.load(tmp_path / "folder")


def test_a_tag_gives_its_classes_and_pictures_without_weights():
    provider = surgeon.load_plugins().architectures()["timm"]
    named, _ = provider.locate("vit_tiny_patch16_224.augreg_in21k", weights=False)
    assert provider.build(named).num_classes == 21843
    assert provider.pictures(named)["mean"] == [0.5, 0.5, 0.5]


def test_an_unknown_tag_is_refused_with_the_nearest():
    with pytest.raises(surgeon.ArchitectureError, match="c3_in2k") as caught:
        surgeon.load("timm/resnet10t.c3_in2k")
    assert "c3_in1k" in caught.value.hint


def test_weights_that_cannot_be_downloaded_say_how_to_go_on(monkeypatch, tmp_path):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(surgeon.CheckpointError, match="cannot be downloaded") as caught:
        surgeon.load("timm/resnet10t@DEFAULT")
    assert "timm/resnet10t.c3_in1k" in caught.value.hint


def test_listing_operations_imports_neither_torch_nor_timm():
    code = (
        "import sys, surgeon\n"
        "surgeon.load_plugins(); surgeon.describe_operations()\n"
        "print(sorted({'torch', 'timm', 'surgeon'} & sys.modules.keys()))"
    )
    process = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert process.stdout.strip() == "['surgeon']"


def test_the_recipe_runs_by_the_command_line(tmp_path):
    out = tmp_path / "digits"
    command = [sys.executable, "-m", "surgeon", "apply", str(PACKAGE / "recipe.yaml"), "timm/resnet10t", "-o", str(out)]
    run = subprocess.run(command, capture_output=True, text=True, check=False, cwd=tmp_path)
    assert run.returncode == 0, run.stderr
    alone = timm.create_model(f"local-dir:{out}", pretrained=True).eval()
    assert alone.num_classes == 5
    assert alone.in_chans == 1
    assert same_values(alone, surgeon.load(out))
    written = load_file(out / "model.safetensors")
    assert all(torch.equal(value, written[name]) for name, value in alone.state_dict().items())


def wrapped(folder: Path, **options: Any) -> Path:
    """Write a folder of transformers around a network of timm."""
    config = transformers.TimmWrapperConfig(architecture="resnet10t", num_labels=3, **options)
    transformers.TimmWrapperForImageClassification(config).save_pretrained(folder)
    return folder


def test_the_classes_of_a_network_that_transformers_wraps_are_named_in_its_file(tmp_path: Path) -> None:
    folder = wrapped(tmp_path / "in")
    surgeon.save(surgeon.apply(str(folder), [surgeon.ReplaceHead(classes=["cat", "dog"])]), tmp_path / "out")
    again = transformers.AutoModelForImageClassification.from_pretrained(tmp_path / "out")
    assert again.config.id2label == {0: "cat", 1: "dog"}


def test_the_base_of_a_network_that_transformers_wraps_has_no_head_and_gets_one_again(tmp_path: Path) -> None:
    base = surgeon.apply(str(wrapped(tmp_path / "in")), [surgeon.ReplaceHead(task="base")])
    surgeon.save(base, tmp_path / "base")
    stock = transformers.TimmWrapperModel.from_pretrained(tmp_path / "base")
    assert stock.state_dict().keys() == base.state_dict().keys()
    assert not any(".fc." in name for name in stock.state_dict())
    again = surgeon.apply(str(tmp_path / "base"), [surgeon.ReplaceHead(classes=4, task="image_classification")])
    surgeon.save(again, tmp_path / "again")
    assert (tmp_path / "again" / "config.json").exists()
    assert again.timm_model.fc.weight.shape == (4, 512)
