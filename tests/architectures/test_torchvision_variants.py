"""torchvision networks with another head, other input channels, or numbers for names, as people save them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torchvision import models

import surgeon
from surgeon import Freeze, ReplaceHead
from surgeon.architectures.source import Source, open_source
from surgeon.errors import ArchitectureError
from surgeon.interfaces.architecture_name import Architecture
from surgeon.plugins import load

PICTURES = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))


def opened(state: dict[str, Tensor] | nn.Module, folder: Path, key: str | None = None) -> Source:
    torch.save(state.state_dict() if isinstance(state, nn.Module) else state, folder / "net.pth")
    return open_source(folder / "net.pth", key=key, plugins=load(installed=False))


def resnet(**parts: nn.Module) -> nn.Module:
    torch.manual_seed(0)
    model = models.resnet18(num_classes=7)
    for name, part in parts.items():
        setattr(model, name, part)
    return model.eval()


def classifier(builder: Callable[..., nn.Module], path: str, new: nn.Module) -> nn.Module:
    torch.manual_seed(0)
    model = builder()
    parent, _, name = path.rpartition(".")
    setattr(model.get_submodule(parent), name, new)
    return model.eval()


def noted(source: Source, text: str) -> bool:
    return any(text in note for note in source.notes)


PLAIN: dict[str, Callable[[], nn.Module]] = {
    "dropout and linear": lambda: resnet(fc=nn.Sequential(nn.Dropout(0.3), nn.Linear(512, 7))),
    "linear alone in a Sequential": lambda: resnet(fc=nn.Sequential(nn.Linear(512, 7))),
    "linear without bias": lambda: resnet(fc=nn.Linear(512, 7, bias=False)),
    "norm and linear": lambda: resnet(fc=nn.Sequential(nn.BatchNorm1d(512), nn.Linear(512, 7))),
    "the classifier is a linear layer": lambda: classifier(models.mobilenet_v2, "classifier", nn.Linear(1280, 7)),
    "deep inside the classifier": lambda: classifier(
        models.mobilenet_v3_small, "classifier.3", nn.Sequential(nn.Dropout(), nn.Linear(1024, 7))
    ),
    "one input channel": lambda: resnet(conv1=nn.Conv2d(1, 64, 7, 2, 3, bias=False)),
    "thirteen input channels and a bias": lambda: resnet(conv1=nn.Conv2d(13, 64, 7, 2, 3)),
    "another stem and another head": lambda: resnet(
        conv1=nn.Conv2d(4, 64, 7, 2, 3, bias=False), fc=nn.Sequential(nn.Dropout(), nn.Linear(512, 7))
    ),
}


@pytest.mark.parametrize("form", PLAIN)
def test_a_change_that_the_tensors_show_in_full_is_rebuilt_and_outlasts_saving(form: str, tmp_path: Path) -> None:
    model = PLAIN[form]()
    torch.save(model.state_dict(), tmp_path / "net.pth")
    channels = next(module for module in model.modules() if isinstance(module, nn.Conv2d)).in_channels
    pictures = torch.randn(2, channels, 64, 64)
    edited = surgeon.apply(tmp_path / "net.pth", Freeze(up_to="layer1" if hasattr(model, "layer1") else "features.0"))
    surgeon.save(edited, tmp_path / "artifact")
    with torch.no_grad():
        expected = model(pictures)
        assert torch.equal(edited(pictures), expected)
        assert torch.equal(surgeon.load(tmp_path / "artifact")(pictures), expected)


def test_what_stands_before_a_rebuilt_head_is_said_to_be_taken_for_dropout(tmp_path: Path) -> None:
    source = opened(PLAIN["dropout and linear"](), tmp_path)
    assert noted(source, "its head fc is rebuilt as Sequential(Dropout(), Linear(512, 7)); layers without tensors")


DOUBTFUL = {
    "mlp": lambda: resnet(fc=nn.Sequential(nn.Linear(512, 16), nn.GELU(), nn.Linear(16, 7))),
    "norm, something, linear": lambda: resnet(fc=nn.Sequential(nn.BatchNorm1d(512), nn.ReLU(), nn.Linear(512, 7))),
    "other width": lambda: resnet(fc=nn.Linear(1024, 7)),
    "weight norm": lambda: resnet(fc=nn.utils.parametrizations.weight_norm(nn.Linear(512, 7))),
}


@pytest.mark.parametrize("form", DOUBTFUL)
def test_a_head_whose_layers_no_tensor_shows_is_left_out_with_a_note(form: str, tmp_path: Path) -> None:
    source = opened(DOUBTFUL[form](), tmp_path)
    assert source.architecture == Architecture(scheme="torchvision", name="resnet18")
    assert source.missing == ["fc.weight", "fc.bias"]
    assert noted(source, "its head fc differs")
    assert noted(source, "replace_head")


def test_a_head_that_was_left_out_can_be_replaced_and_the_trunk_is_the_files(tmp_path: Path) -> None:
    model = DOUBTFUL["mlp"]()
    torch.save(model.state_dict(), tmp_path / "net.pth")
    edited = surgeon.apply(tmp_path / "net.pth", ReplaceHead(classes=3))
    edited.fc, model.fc = nn.Identity(), nn.Identity()
    with torch.no_grad():
        assert torch.equal(edited(PICTURES), model(PICTURES))


def test_a_head_that_was_left_out_is_missed_where_nothing_replaces_it(tmp_path: Path) -> None:
    torch.save(DOUBTFUL["mlp"]().state_dict(), tmp_path / "net.pth")
    with pytest.raises(surgeon.errors.SurgeonError, match=r"fc\.weight"):
        surgeon.load(tmp_path / "net.pth")


def test_flatten_before_the_linear_layer_of_a_convnext_is_not_taken_for_dropout(tmp_path: Path) -> None:
    head = nn.Sequential(nn.Flatten(), nn.Linear(768, 7))
    assert noted(opened(classifier(models.convnext_tiny, "classifier", head), tmp_path), "left out")


def test_a_linear_layer_of_another_name_is_taken_for_the_head(tmp_path: Path) -> None:
    model = resnet()
    state = {name.replace("fc.", "head."): tensor for name, tensor in model.state_dict().items()}
    source = opened(state, tmp_path)
    assert source.mapping is not None
    assert source.mapping["fc.weight"] == "head.weight"
    assert source.skeleton().fc.out_features == 7
    assert noted(source, "head of the file is used as the head fc")


def test_a_head_of_mocos_is_left_out_once_an_encoder_is_chosen(tmp_path: Path) -> None:
    query = resnet(fc=nn.Sequential(nn.Linear(512, 512), nn.ReLU(), nn.Linear(512, 128)))
    state = {f"module.encoder_{which}.{k}": v for which in "qk" for k, v in query.state_dict().items()}
    source = opened({"state_dict": {**state, "module.queue": torch.zeros(128, 8)}}, tmp_path, key="encoder_q")
    assert str(source.architecture) == "torchvision/resnet18"
    assert source.missing == ["fc.weight", "fc.bias"]


@pytest.mark.parametrize("kept", [-1, -2, None])
def test_the_children_of_a_network_in_a_sequential_are_read_by_their_order(kept: int | None, tmp_path: Path) -> None:
    model = resnet()
    source = opened(nn.Sequential(*list(model.children())[:kept]), tmp_path)
    assert str(source.architecture) == "torchvision/resnet18"
    assert source.missing == ([] if kept is None else ["fc.weight", "fc.bias"])
    assert source.mapping is not None
    assert source.mapping["layer4.1.bn2.running_var"] == "7.1.bn2.running_var"
    assert noted(source, "by the order of the network's modules")
    assert source.checkpoint is not None
    assert torch.equal(source.checkpoint.read(source.mapping["bn1.weight"]), model.bn1.weight)


def test_a_body_and_a_head_of_fastai_are_read_by_their_order_and_the_head_left_out(tmp_path: Path) -> None:
    model = resnet()
    head = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.BatchNorm1d(512), nn.Dropout(), nn.Linear(512, 7))
    both = nn.Sequential(nn.Sequential(*list(model.children())[:-2]), head)
    source = opened({"model": both.state_dict(), "opt": {}}, tmp_path)
    assert str(source.architecture) == "torchvision/resnet18"
    assert source.missing == ["fc.weight", "fc.bias"]
    assert noted(source, "its head 1 differs, and its tensors do not show all of its layers (1.4.weight 7×512)")


def test_numbered_tensors_of_another_shape_are_not_read_by_their_order(tmp_path: Path) -> None:
    state = nn.Sequential(*list(resnet().children())[:-1]).state_dict()
    with pytest.raises(ArchitectureError, match="unknown"):
        opened({**state, "4.0.conv1.weight": torch.zeros(64, 64, 5, 5)}, tmp_path)


def test_a_smaller_first_convolution_is_refused_with_what_no_tensor_shows(tmp_path: Path) -> None:
    with pytest.raises(ArchitectureError, match=r"conv1 is 3×3, not 7×7: its tensors do not show its stride") as caught:
        opened(resnet(conv1=nn.Conv2d(3, 64, 3, 1, 1, bias=False), maxpool=nn.Identity()), tmp_path)
    assert "--arch python:" in str(caught.value.hint)


@pytest.mark.parametrize("prefix", ["encoder", "module.backbone", "model.backbone"])
def test_a_network_beside_other_parts_is_refused_with_the_key_that_takes_it(prefix: str, tmp_path: Path) -> None:
    trunk = resnet(fc=nn.Identity()).state_dict()
    outer, _, part = prefix.rpartition(".")
    outer = f"{outer}." if outer else ""
    state = {f"{prefix}.{name}": tensor for name, tensor in trunk.items()}
    state[f"{outer}decoder.blocks.0.weight"] = torch.zeros(4, 4, 3, 3)
    with pytest.raises(ArchitectureError, match=rf"under '\S*{part}', are torchvision/resnet18; 1 beside") as caught:
        opened(state, tmp_path)
    key = str(caught.value.hint).split()[1]
    assert str(opened(state, tmp_path, key=key).architecture) == "torchvision/resnet18"


def test_a_segmentation_network_with_another_head_is_not_taken_for_its_backbone(tmp_path: Path) -> None:
    model = models.segmentation.deeplabv3_resnet50(weights=None, weights_backbone=None)
    model.classifier[4] = nn.Sequential(nn.Dropout(), nn.Conv2d(256, 5, 1))
    with pytest.raises(ArchitectureError, match="closest: deeplabv3_resnet50") as caught:
        opened(model, tmp_path)
    assert "--key" not in str(caught.value)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_a_file_of_another_precision_keeps_it_from_end_to_end(dtype: torch.dtype, tmp_path: Path) -> None:
    model = resnet().to(dtype)
    torch.save(model.state_dict(), tmp_path / "net.pth")
    edited = surgeon.apply(tmp_path / "net.pth", ReplaceHead(classes=3))
    surgeon.save(edited, tmp_path / "artifact")
    again = surgeon.load(tmp_path / "artifact")
    assert {parameter.dtype for parameter in again.parameters()} == {dtype}
    edited.fc, model.fc = nn.Identity(), nn.Identity()
    with torch.no_grad():
        assert torch.equal(edited(PICTURES.to(dtype)), model(PICTURES.to(dtype)))


def test_a_manifest_that_asks_for_layers_that_do_not_exist_is_refused() -> None:
    provider = load(installed=False).architectures()["torchvision"]
    for replaced in ({"nowhere": ["Linear", 2, 2, True]}, {"fc": ["Shell", 2]}, {"fc": []}, {"fc": 3}, ["fc"]):
        architecture = Architecture(scheme="torchvision", name="resnet18", options={"replaced": replaced})
        with pytest.raises(ArchitectureError, match="replaced is invalid"):
            provider.build(architecture)
