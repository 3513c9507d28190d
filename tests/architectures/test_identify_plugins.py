"""Providers of plugins beside ours: what a file is taken for does not depend on what is installed."""

from __future__ import annotations

import pytest
import torch
import torchvision
from torch import nn

from surgeon.architectures.fit import fit
from surgeon.architectures.identify import build, identify
from surgeon.checkpoint.formats import memory_checkpoint
from surgeon.errors import ArchitectureError
from surgeon.interfaces.architecture import ArchitectureProvider
from surgeon.interfaces.architecture_name import Architecture
from surgeon.interfaces.checked_provider import CheckedProvider
from surgeon.interfaces.match import Match
from surgeon.plugins import load


class Twin(ArchitectureProvider):
    """Builds torchvision's ResNet-18 under another scheme, and recognises it."""

    def __init__(self, scheme: str) -> None:
        self.scheme = scheme  # type: ignore[misc]

    def names(self) -> list[str]:
        return ["twin"]

    def build(self, architecture: Architecture) -> nn.Module:
        return torchvision.models.resnet18()

    def identify(self, checkpoint):
        architecture = Architecture(scheme=self.scheme, name="twin")
        skeleton = build(self, architecture)
        return Match(architecture, checkpoint, skeleton, fit(skeleton, checkpoint, {n: n for n in checkpoint.entries}))


class Raising(Twin):
    def identify(self, checkpoint):
        raise KeyError("pretrained_cfg")


@pytest.fixture(scope="module")
def checkpoint():
    return memory_checkpoint(torchvision.models.resnet18().state_dict())


def test_a_file_of_torchvision_stays_one_and_the_other_reading_is_noted(checkpoint):
    match = identify(checkpoint, {"aaa": CheckedProvider(Twin("aaa")), **load(installed=False).architectures()})
    assert str(match.architecture) == "torchvision/resnet18"
    assert any("aaa/twin fits too" in note for note in match.notes)


def test_a_provider_that_raises_is_left_out_and_noted(checkpoint):
    match = identify(checkpoint, {"aaa": CheckedProvider(Raising("aaa")), **load(installed=False).architectures()})
    assert str(match.architecture) == "torchvision/resnet18"
    assert any("'aaa' failed on this file: " in note and "KeyError" in note for note in match.notes)


def test_two_plugins_that_recognise_a_file_are_both_named():
    stored = memory_checkpoint({"w": torch.ones(2)})
    with pytest.raises(ArchitectureError, match="fit aaa/twin and bbb/twin"):
        identify(stored, {"aaa": CheckedProvider(Twin("aaa")), "bbb": CheckedProvider(Twin("bbb"))})


class WithMlp(Twin):
    """Builds a ResNet-18 with a head of its own."""

    def build(self, architecture: Architecture) -> nn.Module:
        model = torchvision.models.resnet18()
        model.fc = nn.Sequential(nn.Linear(512, 16), nn.GELU(), nn.Linear(16, 4))
        return model


def test_a_plugin_whose_network_fits_as_it_is_comes_before_one_with_its_head_left_out():
    provider = WithMlp("mlps")
    checkpoint = memory_checkpoint(provider.build(Architecture(scheme="mlps", name="twin")).state_dict())
    providers = load(installed=False).architectures()
    assert identify(checkpoint, providers).fit.missing == ["fc.weight", "fc.bias"]
    assert str(identify(checkpoint, {"mlps": CheckedProvider(provider), **providers}).architecture) == "mlps/twin"


class Ambiguous(Twin):
    def identify(self, checkpoint):
        raise ArchitectureError("its tensors fit one and two")


def test_a_plugin_that_names_candidates_is_heard_before_a_provider_that_recognises_nothing():
    strange = memory_checkpoint({"layer1.0.conv1.weight": torch.ones(2, 2, 3, 3), "fc.weight": torch.ones(2, 2)})
    providers = {**load(installed=False).architectures(), "twins": CheckedProvider(Ambiguous("twins"))}
    with pytest.raises(ArchitectureError, match="fit one and two"):
        identify(strange, providers)
