"""Selectors name the modules that their grammar says, and say what is near when they name none."""

from __future__ import annotations

import pytest
import torchvision
from torch import nn

import surgeon
from surgeon.errors import SiteError
from surgeon.graph.sites import Site, other_heads, select, select_with_heads


@pytest.fixture(scope="module")
def resnet():
    return torchvision.models.resnet18(num_classes=3)


def roles(role: str) -> list[str]:
    return {"head": ["fc"], "blocks": ["layer1.0", "layer1.1", "layer2.0"]}.get(role, [])


@pytest.mark.parametrize(
    ("selector", "expected"),
    [
        ("layer4.1.conv2", ["layer4.1.conv2"]),
        ("layer4[1].conv2", ["layer4.1.conv2"]),
        ("layer4[-1:].conv?", ["layer4.1.conv1", "layer4.1.conv2"]),
        ("layer*", ["layer1", "layer2", "layer3", "layer4"]),
        ("{layer1,layer3}", ["layer1", "layer3"]),
        ("layer{1,3}.0.bn2", ["layer1.0.bn2", "layer3.0.bn2"]),
        ("{layer1.0.conv1,fc}", ["layer1.0.conv1", "fc"]),
        ("**.downsample", ["layer2.0.downsample", "layer3.0.downsample", "layer4.0.downsample"]),
        ("layer2.**.bn1", ["layer2.0.bn1", "layer2.1.bn1"]),
        ("type:Linear", ["fc"]),
        ("type:AdaptiveAvgPool2d, fc", ["avgpool", "fc"]),
        (r"re:layer1\.\d\.conv1", ["layer1.0.conv1", "layer1.1.conv1"]),
        (r"fc,re:layer1\.\d{1,2}\.bn1", ["layer1.0.bn1", "layer1.1.bn1", "fc"]),
        ("@head", ["fc"]),
        ("@blocks[1]", ["layer1.1"]),
        ("@blocks[-2:].bn1", ["layer1.1.bn1", "layer2.0.bn1"]),
        ("layer1.*, !layer1.0", ["layer1.1"]),
        (".", [""]),
    ],
)
def test_a_selector_names_exactly_its_sites(resnet, selector, expected):
    assert [site.name for site in select(resnet, selector, roles)] == expected


@pytest.mark.parametrize(
    ("selector", "says", "hint"),
    [
        ("layer5", "no module matches 'layer5' in ResNet", "layer4"),
        ("layer4.1.cnov2", "no module matches", "layer4.1.conv2"),
        ("type:BatchNorm3d", "no module matches", "type:BatchNorm2d"),
        ("layer4[7]", "out of range: layer4 has 2", ""),
        ("layer4[x]", "not an index", ""),
        ("@aux", "no module in the role @aux", "roles: {aux: SITE}"),
        ("@heads", "no module in the role @heads", "nearest: @head     name the site itself"),
        ("re:(", "not a valid regular expression", ""),
        ("fc,!fc", "excludes everything", ""),
        (" , ", "empty selector", ""),
    ],
)
def test_a_selector_that_names_nothing_is_an_error_that_helps(resnet, selector, says, hint):
    with pytest.raises(SiteError) as caught:
        select(resnet, selector, roles)
    assert says in str(caught.value)
    assert hint in str(caught.value)


def test_leaving_out_alone_means_everything_else(resnet):
    names = {site.name for site in select(resnet, "!layer1.**, !layer1")}
    assert "layer2" in names
    assert not any(name.startswith("layer1") for name in names)


class Network:
    """A network whose sites are selected with the roles of ``roles``."""

    def __init__(self, model: nn.Module, heads: list[str]) -> None:
        self.model = model
        self.heads = heads

    def role(self, name: str) -> list[str]:
        return self.heads if name == "head" else roles(name)

    def select(self, selector: str) -> list[Site]:
        return select(self.model, selector, self.role)


@pytest.mark.parametrize("heads", [["fc"], []])
@pytest.mark.parametrize("selector", ["head", "@head"])
def test_head_means_every_head_where_a_recipe_key_says_so(resnet, selector, heads):
    model = surgeon.apply(resnet, surgeon.Multitask(tasks={"age": {"classes": 2}}))
    others = [str(site) for site in other_heads(model)]
    assert others
    network = Network(model, heads)
    assert [str(site) for site in select_with_heads(network, model, selector)] == [*heads, *others]


def test_a_role_needs_no_sign_where_no_module_has_its_name(resnet):
    network = Network(resnet, ["fc"])
    assert [str(site) for site in select_with_heads(network, resnet, "head")] == ["fc"]
    assert len(select_with_heads(network, resnet, "blocks")) == 3
    assert [str(site) for site in select_with_heads(network, resnet, "layer1")] == ["layer1"]
    with pytest.raises(SiteError, match="layer9"):
        select_with_heads(network, resnet, "layer9")
