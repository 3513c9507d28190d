"""Files of ``torch.save(model)``: the module itself, which knows what no tensor shows."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel
from torchvision import models

import surgeon
from surgeon import Freeze, ReplaceHead
from surgeon.architectures.source import open_source
from surgeon.errors import ArchitectureError, SurgeonError
from surgeon.pipeline.prepare import prepare
from surgeon.plugins import load

PICTURES = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))


def resnet() -> nn.Module:
    torch.manual_seed(0)
    return models.resnet18(num_classes=5)


def without_pooling() -> nn.Module:
    model = resnet()
    model.maxpool = nn.Identity()
    return model


def with_another_stride() -> nn.Module:
    model = resnet()
    model.conv1.stride = (1, 1)
    return model


def with_another_eps() -> nn.Module:
    model = resnet()
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.eps = 1e-3
    return model


def with_another_activation() -> nn.Module:
    model = resnet()
    model.relu = nn.LeakyReLU()
    return model


CHANGED: list[Callable[[], nn.Module]] = [
    without_pooling,
    with_another_stride,
    with_another_eps,
    with_another_activation,
]


def saved(content: object, folder: Path) -> Path:
    torch.save(content, folder / "whole.pt")
    return folder / "whole.pt"


def output(model: nn.Module) -> torch.Tensor:
    with torch.no_grad():
        return model.eval()(PICTURES)  # type: ignore[no-any-return]


@pytest.mark.parametrize("change", CHANGED)
def test_what_no_tensor_shows_survives(change: Callable[[], nn.Module], tmp_path: Path) -> None:
    model = change()
    path = saved(model, tmp_path)
    source = open_source(path, trust_pickle=True, plugins=load(installed=False))
    assert source.architecture is None
    assert any("holds the module itself (ResNet)" in note for note in source.notes)
    assert torch.equal(output(surgeon.apply(path, Freeze(up_to="layer1"), trust_pickle=True)), output(model))
    assert torch.equal(output(surgeon.load(path, trust_pickle=True)), output(model))


def test_the_artifact_of_one_is_loaded_with_what_builds_it(tmp_path: Path) -> None:
    model = without_pooling()
    edited = surgeon.apply(saved(model, tmp_path), ReplaceHead(classes=3), trust_pickle=True)
    surgeon.save(edited, tmp_path / "artifact")
    assert torch.equal(output(surgeon.load(tmp_path / "artifact", arch=without_pooling)), output(edited))
    with pytest.raises(ArchitectureError, match="it is not known what built the network before surgery"):
        surgeon.load(tmp_path / "artifact")


def test_a_module_that_a_builder_makes_is_recorded_by_the_builder_and_loads_without_arch(tmp_path: Path) -> None:
    model = models.resnet50(num_classes=5, replace_stride_with_dilation=[False, True, True])
    stock = resnet()
    path = saved(stock, tmp_path)
    source = open_source(path, trust_pickle=True, plugins=load(installed=False))
    assert str(source.architecture) == "torchvision/resnet18"
    surgeon.save(surgeon.apply(path, Freeze(up_to="layer1"), trust_pickle=True), tmp_path / "artifact")
    assert torch.equal(output(surgeon.load(tmp_path / "artifact")), output(stock))
    dilated = open_source(saved(model, tmp_path), trust_pickle=True, plugins=load(installed=False))
    assert dilated.architecture is None


@pytest.mark.parametrize("wrap", [nn.DataParallel, AveragedModel, torch.compile])
def test_a_wrapped_module_is_taken_out_of_its_wrapper(wrap: Callable[[nn.Module], nn.Module], tmp_path: Path) -> None:
    model = without_pooling()
    path = saved(wrap(model), tmp_path)
    edited = surgeon.apply(path, Freeze(up_to="layer1"), trust_pickle=True)
    assert type(edited) is models.ResNet
    assert torch.equal(output(edited), output(model))


@pytest.mark.parametrize("key", [None, "model", "net.model"])
def test_a_module_beside_an_optimizer_is_taken_as_the_state_dict_would_be(key: str | None, tmp_path: Path) -> None:
    model = without_pooling()
    content = {"epoch": 3, "model": model, "optimizer": torch.optim.SGD(model.parameters(), lr=0.1).state_dict()}
    path = saved({"net": content} if key == "net.model" else content, tmp_path)
    source = open_source(path, trust_pickle=True, key=key, plugins=load(installed=False))
    assert source.module is not None
    assert torch.equal(output(source.module), output(model))


class Pair(nn.Module):
    """Two networks of which one is wanted."""

    def __init__(self) -> None:
        super().__init__()
        self.backbone = without_pooling()
        self.other = nn.Linear(2, 2)


def test_a_key_may_name_a_part_of_the_module(tmp_path: Path) -> None:
    pair = Pair()
    path = saved(pair, tmp_path)
    source = open_source(path, trust_pickle=True, key="backbone", plugins=load(installed=False))
    assert source.module is not None
    assert torch.equal(output(source.module), output(pair.backbone))


def test_an_architecture_that_the_caller_names_is_built_and_filled_with_the_tensors(tmp_path: Path) -> None:
    path = saved(without_pooling(), tmp_path)
    source = open_source(path, trust_pickle=True, arch="torchvision/resnet18", plugins=load(installed=False))
    assert source.module is None
    assert str(source.architecture) == "torchvision/resnet18"


def test_the_file_of_a_module_is_never_overwritten_by_its_result(tmp_path: Path) -> None:
    path = saved(resnet(), tmp_path)
    with pytest.raises(SurgeonError, match="contains the input"):
        prepare(path, Freeze(up_to="layer1"), trust_pickle=True).write(path, force=True)
