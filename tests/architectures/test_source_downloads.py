"""Sources that lie in the caches of the hub and of torch: read there, without a network."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import torchvision
from sources import bert, check_values
from torch import nn

from surgeon.architectures.source import open_source
from surgeon.errors import ArchitectureError, CheckpointError
from surgeon.interfaces.architecture_name import Architecture
from surgeon.plugins import Plugins, load


@pytest.fixture(scope="module")
def plugins() -> Plugins:
    return load()


@pytest.fixture(scope="module")
def resnet() -> nn.Module:
    torch.manual_seed(0)
    return torchvision.models.resnet18(num_classes=5)


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache as huggingface_hub keeps it, with one repository in it, and no network."""
    from huggingface_hub import constants

    cache = tmp_path / "hub"
    snapshot = cache / "models--someone--tiny" / "snapshots" / ("0" * 40)
    bert(num_labels=3).save_pretrained(snapshot)
    refs = cache / "models--someone--tiny" / "refs"
    refs.mkdir()
    (refs / "main").write_text("0" * 40)
    (refs / "v1").write_text("0" * 40)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(cache))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    return snapshot


@pytest.mark.parametrize("name", ["hf:someone/tiny", "hf:someone/tiny@v1"])
def test_a_cached_repository_needs_no_network(hub: Path, plugins: Plugins, name: str) -> None:
    source = open_source(name, plugins=plugins)
    assert str(source.architecture) == "hf/BertForSequenceClassification"
    assert source.location == name
    check_values(source, bert(num_labels=3))


def test_a_repositorys_config_serves_as_architecture(hub: Path, tmp_path: Path, plugins: Plugins) -> None:
    torch.save(bert(num_labels=3).state_dict(), tmp_path / "weights.pt")
    source = open_source(tmp_path / "weights.pt", arch="hf:someone/tiny", plugins=plugins)
    assert str(source.architecture) == "hf/BertForSequenceClassification"
    assert not source.missing


@pytest.mark.parametrize("name", ["hf:someone/else", "hf:someone/tiny@v2", "hf:a/b/c"])
def test_a_repository_that_cannot_be_had_is_one_line(hub: Path, plugins: Plugins, name: str) -> None:
    with pytest.raises(CheckpointError, match="cannot be loaded") as caught:
        open_source(name, plugins=plugins)
    assert "\n" not in caught.value.message


@pytest.fixture
def torch_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(torch.hub, "_hub_dir", str(tmp_path / "hub"))
    folder = tmp_path / "hub" / "checkpoints"
    folder.mkdir(parents=True)
    return folder


@pytest.mark.parametrize("member", ["IMAGENET1K_V1", "DEFAULT"])
def test_named_weights_come_from_torchs_cache(torch_home: Path, plugins: Plugins, member: str) -> None:
    model = torchvision.models.shufflenet_v2_x0_5()
    url = torchvision.models.ShuffleNet_V2_X0_5_Weights.DEFAULT.url
    torch.save(model.state_dict(), torch_home / Path(url).name)
    source = open_source(f"torchvision/shufflenet_v2_x0_5@{member}", plugins=plugins)
    assert str(source.architecture) == "torchvision/shufflenet_v2_x0_5"
    check_values(source, model)


def test_named_weights_of_a_detector_are_built_as_torchvision_does(torch_home: Path, plugins: Plugins) -> None:
    weights = torchvision.models.detection.FasterRCNN_ResNet50_FPN_Weights.COCO_V1
    state = plugins.architecture("torchvision").build(
        Architecture(scheme="torchvision", name="fasterrcnn_resnet50_fpn", options={"frozen_norm_eps": 0.0})
    )
    torch.save(state.state_dict(), torch_home / Path(weights.url).name)
    source = open_source("torchvision/fasterrcnn_resnet50_fpn@COCO_V1", plugins=plugins)
    norm = source.skeleton().backbone.body.bn1
    assert type(norm).__name__ == "FrozenBatchNorm2d"
    assert norm.eps == 0.0
    assert not source.filled


def test_weights_that_cannot_be_downloaded_say_where_to_put_the_file(
    torch_home: Path, plugins: Plugins, monkeypatch: pytest.MonkeyPatch
) -> None:
    weights = torchvision.models.ResNet18_Weights.DEFAULT
    monkeypatch.setenv("https_proxy", "http://127.0.0.1:9")  # nothing listens there
    with pytest.raises(CheckpointError, match="cannot download") as caught:
        open_source("torchvision/resnet18@DEFAULT", plugins=plugins)
    assert str(torch_home / Path(weights.url).name) in str(caught.value)
    assert not list(torch_home.iterdir())


def test_unknown_and_quantised_weights_are_refused(torch_home: Path, plugins: Plugins) -> None:
    with pytest.raises(ArchitectureError, match="IMAGENET1K_V1"):
        open_source("torchvision/resnet18@IMAGENET", plugins=plugins)
    with pytest.raises(ArchitectureError, match="torchvision/resnet18@IMAGENET1K_V1"):
        open_source("torchvision/quantized_resnet18@DEFAULT", plugins=plugins)
