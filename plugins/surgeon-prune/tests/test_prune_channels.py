"""prune_channels: which channels go and where from, what stays, and choices by data."""

from __future__ import annotations

import copy
import sys

import pytest
import torch
import torchvision
from prune_networks import IMAGES, llama, mobilenet, notes, outputs, resnet, settled
from surgeon_prune import PruneChannels
from torch import nn

import surgeon
from surgeon.testing import check_operations


def test_it_keeps_what_surgeon_promises_of_every_operation():
    check_operations(resnet, [PruneChannels(keep=0.5)], (IMAGES,))


def silence(model, pruned, convs):
    """Return a copy of a network in which channels that ``pruned`` lacks are read by nobody."""
    silent = copy.deepcopy(model)
    with torch.no_grad():
        for writer, reader in convs:
            old, new = (network.get_submodule(writer).weight for network in (model, pruned))
            kept_rows = {i for i in range(len(old)) for row in new if torch.equal(old[i][: row.shape[0]], row)}
            assert len(kept_rows) == len(new)
            removed = [i for i in range(len(old)) if i not in kept_rows]
            silent.get_submodule(reader).weight[:, removed] = 0
    return silent


def test_the_result_computes_what_the_network_does_with_silent_channels():
    model = resnet()
    pruned = surgeon.apply(model, [PruneChannels(keep=0.5)])
    blocks = ["layer1.0", "layer2.0", "layer2.1", "layer3.0", "layer4.0"]
    silent = silence(model, pruned, [(f"{block}.conv1", f"{block}.conv2") for block in blocks])
    torch.testing.assert_close(outputs(pruned, IMAGES), outputs(silent, IMAGES), rtol=1e-4, atol=1e-4)
    assert pruned.layer1[0].conv1.out_channels == 32
    assert pruned.layer1[0].conv2.out_channels == 64


def test_depthwise_convolutions_and_norms_lose_the_same_channels():
    model = mobilenet()
    pruned = surgeon.apply(model, [PruneChannels(keep=0.5, at="features.3")])
    expand, depthwise, project = (pruned.features[3].conv[i] for i in (0, 1, 2))
    width = model.features[3].conv[0][0].out_channels // 2
    assert expand[0].out_channels == expand[1].num_features == width
    assert depthwise[0].groups == depthwise[0].in_channels == depthwise[0].out_channels == width
    assert project.in_channels == width
    assert torch.isin(expand[1].running_mean, model.features[3].conv[0][1].running_mean).all()


def test_coupled_prunes_the_streams_of_residual_connections_too():
    model = resnet()
    pruned = surgeon.apply(model, [PruneChannels(keep=0.5, coupled=True)])
    assert pruned.conv1.out_channels == pruned.layer1[0].conv2.out_channels == 32
    assert pruned.layer2[0].downsample[0].in_channels == 32
    assert (pruned.fc.in_features, pruned.fc.out_features) == (256, 5)
    assert "convolutions keep" not in notes(surgeon.plan(model, [PruneChannels(keep=0.5, coupled=True)]))
    assert "6 convolutions keep" not in notes(surgeon.plan(model, [PruneChannels(keep=0.5)]))
    outputs(pruned, IMAGES)


def test_channels_are_followed_through_flattening_and_concatenation():
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.one, self.two = nn.Conv2d(3, 4, 3, padding=1), nn.Conv2d(3, 6, 3, padding=1)
            self.three, self.fc = nn.Conv2d(10, 8, 3, padding=1), nn.Linear(8 * 16, 5)

        def forward(self, x):
            joined = torch.cat([self.one(x).relu(), self.two(x).relu()], 1)
            return self.fc(nn.functional.adaptive_avg_pool2d(self.three(joined).relu(), 4).flatten(1))

    torch.manual_seed(0)
    model = Net().eval()
    pruned = surgeon.apply(model, [PruneChannels(keep=0.5)], inputs=[[2, 3, 8, 8]])
    assert (pruned.three.in_channels, pruned.three.out_channels, pruned.fc.in_features) == (5, 4, 64)
    kept_channels = [i for i in range(8) if any(torch.equal(model.three.bias[i], bias) for bias in pruned.three.bias)]
    silent = silence(model, surgeon.apply(model, [PruneChannels(keep=0.5, at="one, two")], inputs=[[2, 3, 8, 8]]), [])
    with torch.no_grad():
        removed = [i for i in range(8) if i not in kept_channels]
        silent.fc.weight.view(5, 8, 16)[:, removed] = 0
        for first, old, new in ((0, model.one, pruned.one), (4, model.two, pruned.two)):
            lost = [i for i in range(len(old.bias)) if not torch.isin(old.bias[i], new.bias)]
            silent.three.weight[:, [first + i for i in lost]] = 0
    x = torch.randn(2, 3, 8, 8)
    torch.testing.assert_close(outputs(pruned, x), outputs(silent, x), rtol=1e-4, atol=1e-5)


def test_an_order_that_the_graph_does_not_see_keeps_its_channels_with_a_note():
    class Rolled(nn.Module):
        """Reads channel i + 1 where the dependency graph thinks that it reads channel i."""

        def __init__(self):
            super().__init__()
            self.one, self.two = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 8, 3, padding=1)
            self.three, self.fc = nn.Conv2d(8, 8, 3, padding=1), nn.Linear(8, 5)

        def forward(self, x):
            x = self.two(self.one(x).roll(1, 1).relu()).relu()
            return self.fc(self.three(x).mean((2, 3)))

    torch.manual_seed(0)
    plan = surgeon.plan(Rolled(), [PruneChannels(keep=0.5)], inputs=[[2, 3, 8, 8]])
    assert "keeps its units" in notes(plan)
    assert "computes something else" in notes(plan)
    pruned = surgeon.apply(Rolled(), [PruneChannels(keep=0.5)], inputs=[[2, 3, 8, 8]])
    assert (pruned.one.out_channels, pruned.two.out_channels) == (8, 4)


def test_a_network_whose_parts_alone_the_library_knows_is_pruned_in_these():
    torch.manual_seed(0)
    model = settled(torchvision.models.shufflenet_v2_x0_5(num_classes=5))
    pruned = surgeon.apply(model, [PruneChannels(keep=0.5)])
    assert pruned.stage2[1].branch2[0].out_channels == 12
    assert pruned.stage2[1].branch2[5].in_channels == 12


def test_what_never_fires_on_data_goes_first(tmp_path):
    model = resnet()
    with torch.no_grad():
        model.layer1[0].bn1.bias[1::2] = 1
        model.layer1[0].bn1.bias[::2] = -1e5  # behind a ReLU they are never active
        model.layer1[0].conv1.weight[::2] *= 100  # by magnitude they would stay
    data = {"source": "digits", "per_class": 2, "size": 32, "channels": 3}
    operation = PruneChannels(keep=32, at="layer1", by="activations", data=data, samples=16)
    pruned = surgeon.apply(model, [operation])
    assert torch.equal(pruned.layer1[0].bn1.bias, model.layer1[0].bn1.bias[1::2])
    path = surgeon.save(pruned, tmp_path / "artifact")
    again = surgeon.load(path, arch=resnet)
    assert torch.equal(outputs(again, IMAGES), outputs(pruned, IMAGES))


def test_loading_needs_neither_data_nor_torch_pruning(tmp_path, monkeypatch):
    data = {"source": "digits", "per_class": 2, "size": 32, "channels": 3}
    pruned = surgeon.apply(resnet(), [PruneChannels(keep=0.5, by="activations", data=data, samples=8)])
    path = surgeon.save(pruned, tmp_path / "artifact")
    monkeypatch.setitem(sys.modules, "torch_pruning", None)
    monkeypatch.setattr("surgeon.data.sources.Digits.load", None)
    assert torch.equal(outputs(surgeon.load(path, arch=resnet), IMAGES), outputs(pruned, IMAGES))


def test_a_network_without_such_channels_is_refused():
    with pytest.raises(surgeon.OperationError, match="no convolution there writes channels"):
        surgeon.plan(llama(), [PruneChannels(keep=0.5)])
    with pytest.raises(surgeon.OperationError, match="add coupled: true"):
        surgeon.plan(resnet(), [PruneChannels(keep=0.5, at="layer1.0.conv2")])
