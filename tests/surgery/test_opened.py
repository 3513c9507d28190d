"""An opened network: how it is opened is said once, and everything else follows from it."""

from __future__ import annotations

import pytest
import torch
from families import build

from surgeon.errors import ArchitectureError, OperationError
from surgeon.operations import ReplaceHead, Truncate
from surgeon.pipeline.api import apply, load, save
from surgeon.plugins import load as load_plugins
from surgeon.surgery.opened import OpenOptions
from surgeon.surgery.replay import open_network


@pytest.fixture(scope="module")
def options():
    return OpenOptions(plugins=load_plugins(installed=False))


def test_a_module_is_opened_as_a_skeleton_and_left_alone(options):
    model = build("resnet")
    opened = open_network(model, options)
    assert opened.root is not model
    assert all(parameter.is_meta for parameter in opened.root.parameters())
    assert not any(parameter.is_meta for parameter in model.parameters())


def test_the_flow_gives_the_values_that_were_opened(options):
    model = build("resnet")
    flow = open_network(model, options).flow()
    flow.check()
    assert torch.equal(flow.value("fc.weight"), model.fc.weight)
    assert flow.entry("fc.weight") == "fc.weight"


def test_inspecting_uses_the_roles_that_an_artifact_was_made_with(options, tmp_path):
    edited = apply(build("resnet"), [ReplaceHead(classes=3)], roles={"head": "fc", "mine": "layer2"})
    opened = open_network(save(edited, tmp_path / "out"), options)
    assert opened.inspect().role("mine") == ["layer2"]
    assert opened.inspect().shape("fc") == (2, 3)


def test_a_file_in_half_precision_is_opened_in_half_precision(options, tmp_path):
    torch.save(build("resnet").half().state_dict(), tmp_path / "half.pt")
    assert open_network(tmp_path / "half.pt", options).root.fc.weight.dtype == torch.float16


def test_only_a_module_is_edited_in_place(options, tmp_path):
    torch.save(build("resnet").state_dict(), tmp_path / "net.pt")
    with pytest.raises(OperationError, match="only a module in memory can be edited in place"):
        open_network(tmp_path / "net.pt", options, inplace=True)
    model = build("resnet")
    assert open_network(model, options, inplace=True).root is model


def test_a_function_builds_what_the_manifest_does_not_name(options, tmp_path):
    network = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.Flatten(), torch.nn.Linear(4, 2))

    def builder():
        return torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.Flatten(), torch.nn.Linear(4, 2))

    save(apply(network, [Truncate(after="1")], inputs=[[2, 3, 3, 3]]), tmp_path / "out")
    with pytest.raises(ArchitectureError, match="it is not known what built the network before surgery"):
        load(tmp_path / "out")
    opened = open_network(tmp_path / "out", OpenOptions(arch=builder, plugins=options.plugins))
    assert opened.inspect().trace().outputs == {"output": (2, 4)}
