"""Looking at a network from Python: everything that ``surgeon inspect`` prints, as data."""

from __future__ import annotations

import json

import pytest
import torch
from families import build

import surgeon
from surgeon import cli


@pytest.fixture(scope="module")
def view() -> surgeon.NetworkView:
    return surgeon.inspect(build("resnet"))


def test_every_module_is_listed_with_its_class_shape_and_size(view):
    model = build("resnet")
    sites = {site.site: site for site in view.sites}
    assert len(sites) == len(list(model.modules()))
    assert sites["fc"].kind == "Linear"
    assert sites["fc"].parameters == model.fc.weight.numel() + model.fc.bias.numel()
    assert sites["layer1"].shape[1] == 64


def test_roles_have_their_sites_and_the_evidence(view):
    assert [role.site for role in view.roles["head"]] == ["fc"]
    assert view.roles["head"][0].evidence
    blocks = [role.site for role in view.roles["blocks"]]
    assert blocks[0] == "layer1.0"
    assert all("blocks in" in role.evidence for role in view.roles["blocks"])


def test_outputs_and_notes_say_what_the_trace_gave(view):
    assert [shape[-1] for shape in view.outputs.values()] == [build("resnet").fc.out_features]
    assert any(note.startswith("shapes traced on") for note in view.notes)


def test_no_weight_is_read(view):
    assert all(parameter.is_meta for parameter in view.model.parameters())


def test_sites_are_selected_by_the_selectors_of_recipes(view):
    assert [site.site for site in view.select("@head")] == ["fc"]
    assert [site.site for site in view.select("layer1, layer2")] == ["layer1", "layer2"]
    with pytest.raises(surgeon.SiteError, match="layer9"):
        view.select("layer9")


def test_a_network_that_cannot_be_traced_has_no_shapes_and_says_why():
    class Odd(torch.nn.Module):
        def forward(self, one, two, three):
            return one[two][three]

    view = surgeon.inspect(Odd())
    assert view.outputs == {}
    assert view.trace is None
    assert any(note.startswith("no shapes") for note in view.notes)


def test_the_command_prints_what_the_function_returns(tmp_path, capsys):
    torch.save(build("resnet").state_dict(), tmp_path / "net.pt")
    capsys.readouterr()
    assert cli.run(["inspect", str(tmp_path / "net.pt"), "--json"]) == 0
    printed = json.loads(capsys.readouterr().out)
    view = surgeon.inspect(tmp_path / "net.pt")
    assert printed["architecture"] == view.architecture == "torchvision/resnet18"
    assert [site["site"] for site in printed["sites"]] == [site.site for site in view.sites]
    assert [site["parameters"] for site in printed["sites"]] == [site.parameters for site in view.sites]
