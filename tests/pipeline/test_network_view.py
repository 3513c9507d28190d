"""Looking at a network from Python: everything that ``surgeon inspect`` prints, as data."""

from __future__ import annotations

import io
import json

import pytest
import torch
from families import build
from rich.console import Console

import surgeon
from surgeon import cli
from surgeon.cli.render.networks import network_dict, render_sites


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


def test_a_selected_site_says_which_terms_name_it_and_on_what_evidence(view):
    why = {site.site: site.why for site in view.select("@head, layer4.*, @blocks[-1:].conv1, layer4.1")}
    assert why["fc"].startswith("@head: ")
    assert why["layer4.1"] == "layer4.*; layer4.1"
    assert why["layer4.1.conv1"] == "@blocks[-1:].conv1: in layer4.1, one of 2 blocks in layer4"
    assert {site.why for site in view.select("!layer1")} == {"everything but layer1"}


def test_every_site_in_the_json_is_an_address_that_a_selector_may_name(view):
    printed = network_dict(view)
    addresses = [role["site"] for roles in printed["roles"].values() for role in roles]
    assert len(printed["roles"]["blocks"]) == 8
    assert all(view.select(address)[0].site == address for address in addresses)


@pytest.mark.parametrize("width", [80, 200])
def test_what_a_selector_names_is_shown_whole_with_the_reason(view, width):
    console = Console(width=width, file=io.StringIO())
    console.print(render_sites(view.select("@blocks[-2:].conv1")))
    text = console.file.getvalue()
    assert "…" not in text
    assert "layer4.1.conv1" in text
    assert "matched by" in text


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
