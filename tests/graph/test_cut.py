"""What has to stay where a forward ends at a site: all that ran by then, and no layer that comes right after."""

from __future__ import annotations

import pytest
import torch
from families import build, example
from torch import nn

import surgeon
from surgeon.errors import OperationError
from surgeon.graph.cut import needed_before
from surgeon.graph.skeleton import skeleton_of
from surgeon.graph.trace import trace
from surgeon.operations import Truncate

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


class InSequence(nn.Sequential):
    """Layers in a list that runs itself."""

    def __init__(self) -> None:
        super().__init__(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 4), nn.Linear(4, 2))


@pytest.mark.parametrize(
    ("network", "site", "layers"),
    [
        (InSequence, "0", {"0"}),
        (InSequence, "2", {"0", "2"}),
        (Straight, "conv", {"conv"}),
        (Straight, "fc", {"conv", "fc"}),
        (Nested, "body.fc", {"body.conv", "body.fc"}),
        (Nested, "body", {"body.conv", "body.fc", "body.fc2"}),
        (Nested, "tail.conv", {"body.conv", "body.fc", "body.fc2", "tail.conv"}),
        (Shared, "first", {"first"}),
        (Shared, "shared", {"first", "shared"}),
        (Repeated, "first", {"first"}),
        (Repeated, "between", {"first", "twice", "between"}),
    ],
)
def test_a_network_cut_at_a_site_keeps_no_layer_that_comes_right_after(network, site, layers):
    model, x, features = network(), torch.rand(2, 4), []
    handle = model.get_submodule(site).register_forward_hook(lambda module, args, output: features.append(output))
    model(x)
    handle.remove()
    cut = surgeon.apply(model, [Truncate(after=site)], inputs=FED if network is not InSequence else [[2, 4]])
    assert {name.rpartition(".")[0] for name, _ in cut.named_parameters()} == layers
    assert torch.equal(cut(x), features[0])


@pytest.mark.parametrize(
    ("name", "site", "gone", "stays"),
    [
        ("llama", "model.layers.0.mlp.up_proj", {"mlp.down_proj"}, {"mlp.gate_proj", "mlp.up_proj"}),
        ("resnet", "layer1.0.conv1", {"layer1.0.bn1", "layer1.0.conv2"}, {"bn1", "layer1.0.conv1"}),
        ("bert", "bert.encoder.layer.0.intermediate.dense", {"layer.0.output.dense"}, {"self.value"}),
    ],
)
def test_a_real_network_cut_inside_a_block_gives_what_the_site_gave(name, site, gone, stays):
    model, features = build(name), []
    args, kwargs = example(name)
    handle = model.get_submodule(site).register_forward_hook(lambda module, args, output: features.append(output))
    with torch.no_grad():
        model(*args, **kwargs)
        handle.remove()
        cut = surgeon.apply(model, [Truncate(after=site)])
        assert torch.equal(cut(*args, **kwargs), features[0].clone())
    layers = {parameter.rpartition(".")[0] for parameter, _ in cut.named_parameters()}
    assert not [layer for layer in layers if layer.endswith(tuple(gone))]
    assert all(any(layer.endswith(end) for layer in layers) for end in stays)


def test_what_is_merely_fetched_is_idle_and_what_ran_is_not():
    model = skeleton_of(Nested())
    traced = trace(model, FED)
    needed = needed_before(model, "body.fc", traced, lambda: trace(model, FED, training=True))
    assert needed.idle == {"body.fc2", "tail", "head"}
    assert needed.sites == {"", "body", "body.conv", "body.fc", *needed.idle}
    assert needed.in_training
    assert needed.unseen == []


def test_the_forward_cannot_end_at_a_layer_that_runs_twice():
    with pytest.raises(OperationError, match="twice, which runs 2 times"):
        surgeon.plan(Repeated(), [Truncate(after="twice")], inputs=FED)


def test_a_shared_layer_that_is_merely_fetched_is_idle_under_every_name():
    model = skeleton_of(Shared())
    needed = needed_before(model, "first", trace(model, FED), lambda: trace(model, FED, training=True))
    assert needed.idle == {"shared", "alias", "last"}
