"""The recorder says what was used before a site finished: what ran by then, and nothing that ran right after."""

from __future__ import annotations

import pytest
import torch
from families import build, example
from torch import nn

import surgeon
from surgeon.families.inputs import Inputs, Spec
from surgeon.graph.skeleton import skeleton_of
from surgeon.graph.trace import TraceError, trace
from surgeon.nn.stems import StemSwitch
from surgeon.operations import Freeze, Transfer

FED = {"x": [2, 4]}


class Straight(nn.Module):
    """Three layers in one expression: Python fetches all of them before the first one runs."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.fc, self.fc2 = nn.Linear(4, 4), nn.Linear(4, 4), nn.Linear(4, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.fc2(self.fc(self.conv(x)))


class Nested(nn.Module):
    """Two parts in one expression, each of which is such an expression itself."""

    def __init__(self) -> None:
        super().__init__()
        self.body, self.tail, self.head = Straight(), Straight(), nn.Linear(4, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.tail(self.body(x)))


class Shared(nn.Module):
    """A layer with two names, which runs under the second one."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(4, 4)
        self.shared = nn.Linear(4, 4)
        self.alias = self.shared
        self.last = nn.Linear(4, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.last(self.alias(self.first(x)))


class Repeated(nn.Module):
    """A layer that runs twice, with another in between."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.twice, self.between, self.last = (nn.Linear(4, 4) for _ in range(4))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.last(self.twice(self.between(self.twice(self.first(x)))))


def sequential() -> nn.Module:
    return nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 4), nn.Linear(4, 2))


BOUNDARIES = [
    (sequential, "0", {"0"}),
    (sequential, "2", {"0", "2"}),
    (Straight, "conv", {"conv"}),
    (Straight, "fc", {"conv", "fc"}),
    (Nested, "body.fc", {"body.conv", "body.fc"}),
    (Nested, "body", {"body.conv", "body.fc", "body.fc2"}),
    (Nested, "tail.conv", {"body.conv", "body.fc", "body.fc2", "tail.conv"}),
    (Shared, "first", {"first"}),
    (Shared, "shared", {"first", "shared"}),
    (Repeated, "first", {"first"}),
    (Repeated, "twice", {"first", "twice"}),
    (Repeated, "between", {"first", "twice", "between"}),
]
"""Networks, a site, and the layers with parameters that have run when the site first finishes."""

by_boundary = pytest.mark.parametrize(
    ("network", "site", "layers"), BOUNDARIES, ids=[f"{network.__name__}-{site}" for network, site, _ in BOUNDARIES]
)


def layers_of(names: set[str]) -> set[str]:
    """The modules that tensors lie in."""
    return {name.rpartition(".")[0] for name in names}


@by_boundary
def test_freezing_up_to_a_site_stops_at_that_site(network, site, layers):
    frozen = surgeon.apply(network(), [Freeze(up_to=site)], inputs=FED if network is not sequential else [[2, 4]])
    assert layers_of({n for n, p in frozen.named_parameters() if not p.requires_grad}) == layers


@by_boundary
def test_a_transfer_up_to_a_site_stops_at_that_site(network, site, layers, tmp_path):
    model, donor = network(), network()
    torch.save(donor.state_dict(), tmp_path / "donor.pt")
    operations = [Transfer(donor=str(tmp_path / "donor.pt"), up_to=site)]
    result = surgeon.apply(model, operations, inputs=FED if network is not sequential else [[2, 4]])
    theirs, ours = dict(donor.named_parameters()), dict(model.named_parameters())
    copied = {n for n, p in result.named_parameters() if torch.equal(p, theirs[n]) and not torch.equal(p, ours[n])}
    assert layers_of(copied) == layers


def started_before(model: nn.Module, name: str, site: str) -> set[str]:
    """The layers whose calls began before ``site`` first finished, in a real forward."""
    started: set[str] = set()
    ended: list[str] = []

    def starts(layer: str) -> None:
        if not ended:
            started.add(layer)

    handles = [
        module.register_forward_pre_hook(lambda module, args, layer=layer: starts(layer))
        for layer, module in model.named_modules()
        if module._parameters
    ]
    handles.append(model.get_submodule(site).register_forward_hook(lambda *_: ended.append(site)))
    args, kwargs = example(name)
    with torch.no_grad():
        model(*args, **kwargs)
    for handle in handles:
        handle.remove()
    return started


@pytest.mark.parametrize(
    ("name", "sites"),
    [
        ("llama", ["model.layers.0.mlp.gate_proj", "model.layers.0.mlp.up_proj", "model.layers.1.self_attn.v_proj"]),
        ("llama", ["model.layers.0.mlp.down_proj", "model.layers.0", "model.norm"]),
        ("resnet", ["conv1", "layer1.0.conv1", "layer2.0.bn1", "layer2.0.downsample.0", "layer3", "layer4.1.bn2"]),
        ("bert", ["bert.embeddings.LayerNorm", "bert.encoder.layer.0.attention.self.query"]),
        ("bert", ["bert.encoder.layer.0.intermediate.dense", "bert.encoder.layer.1", "bert.pooler.dense"]),
    ],
)
def test_what_was_used_before_a_site_is_what_a_real_forward_calls_before_it(name, sites):
    model = build(name)
    traced = trace(skeleton_of(model))
    holders = {layer for layer, module in model.named_modules() if module._parameters}
    for site in sites:
        assert traced.used_before(site) & holders == started_before(model, name, site), site


def test_freezing_a_llama_up_to_its_up_projection_lets_the_down_projection_train():
    frozen = surgeon.apply(build("llama"), [Freeze(up_to="model.layers.0.mlp.up_proj")])
    trains = {n for n, p in frozen.named_parameters() if p.requires_grad}
    assert "model.layers.0.mlp.down_proj.weight" in trains
    assert not {f"model.layers.0.mlp.{name}.weight" for name in ("gate_proj", "up_proj")} & trains
    assert "model.layers.0.post_attention_layernorm.weight" not in trains
    assert "model.layers.1.input_layernorm.weight" in trains


def test_a_layer_whose_weight_is_read_counts_as_used_without_a_call():
    class Reads(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.read, self.called, self.last = nn.Linear(4, 4), nn.Linear(4, 4), nn.Linear(4, 4)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            x = x @ self.read.weight
            return self.last(self.called(x))

    used = trace(Reads(), Inputs((Spec((2, 4)),))).used_before("called")
    assert used == {"", "read", "called"}


def test_a_shared_layer_counts_under_every_name():
    traced = trace(Shared(), Inputs((Spec((2, 4)),)))
    assert traced.used_before("first") == {"", "first"}
    assert traced.used_before("shared") == {"", "first", "shared", "alias"}


def test_before_a_site_starts_only_what_came_earlier_was_used():
    traced = trace(Nested(), Inputs((Spec((2, 4)),)))
    assert traced.used_before_start("tail") == {"", "body", "body.conv", "body.fc", "body.fc2"}
    assert traced.used_before_start("body.fc") == {"", "body", "body.conv"}


def test_the_stems_of_a_switch_are_used_by_the_switch_and_not_before_it():
    model = nn.Sequential(nn.Linear(4, 4), StemSwitch({"a": nn.Linear(4, 4), "b": nn.Linear(4, 4)}), nn.Linear(4, 2))
    traced = trace(model, Inputs((Spec((2, 4)),)))
    stems = {"1.stems", "1.stems.a", "1.stems.b"}
    assert stems <= traced.used_before("1")
    assert not stems & traced.used_before("0")
    assert not stems & traced.used_before_start("1")


def test_a_site_that_never_runs_has_nothing_before_it():
    with pytest.raises(TraceError, match="does not run"):
        trace(Straight(), Inputs((Spec((2, 4)),))).used_before("fc3")


def test_a_shared_layer_may_be_named_by_its_later_name():
    frozen = surgeon.apply(Shared(), [Freeze(up_to="alias")], inputs=FED)
    assert layers_of({n for n, p in frozen.named_parameters() if not p.requires_grad}) == {"first", "shared"}
