"""Lateral connections and the network that they join, on modules built by hand."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from surgeon.errors import OperationError
from surgeon.nn.grafts import Tap, hook, unhook
from surgeon.nn.lateral import Adapter, Lateral, Layout, resample
from surgeon.nn.progressive import ProgressiveNetwork

VECTOR, TOKENS, MAPS = Layout(6, 0, True), Layout(6, 1, True), Layout(6, 2, False)
LAST_MAPS, SIGNAL, VIDEO = Layout(6, 2, True), Layout(6, 1, False), Layout(6, 3, False)
SHAPES = {
    VECTOR: (2, 6), TOKENS: (2, 5, 6), MAPS: (2, 6, 4, 8), LAST_MAPS: (2, 4, 8, 6), SIGNAL: (2, 6, 9),
    VIDEO: (2, 6, 2, 4, 4),
}  # fmt: skip


@pytest.mark.parametrize("target", SHAPES)
@pytest.mark.parametrize("source", SHAPES)
@pytest.mark.parametrize("kind", ["linear", "mlp"])
def test_adapter_gives_the_shape_of_what_it_is_added_to(source, target, kind):
    adapter = Adapter(source, Layout(7, target.rank, target.last), kind, 3, 0.5)
    shape = tuple(7 if size == 6 else size for size in SHAPES[target])
    assert adapter(torch.rand(SHAPES[source]), torch.rand(shape)).shape == shape


@pytest.mark.parametrize("target", [t for t in SHAPES if t.rank])
def test_one_by_one_convolution_is_the_linear_adapter_of_each_position(target):
    linear, conv = (Adapter(MAPS, target, kind, 3, 0.5) for kind in ("linear", "conv"))
    with torch.no_grad():
        conv.project.weight.copy_(linear.project.weight.reshape(conv.project.weight.shape))
    features, like = torch.rand(2, 6, 4, 8), torch.rand(SHAPES[target])
    torch.testing.assert_close(conv(features, like), linear(features, like))


def test_mlp_adapter_is_equation_two_of_the_paper():
    adapter = Adapter(VECTOR, Layout(7, 0, True), "mlp", 3, 0.25)
    v, _, u = adapter.project
    h = torch.randn(4, 6)
    expected = torch.relu((0.25 * h) @ v.weight.T) @ u.weight.T
    torch.testing.assert_close(adapter(h, torch.rand(4, 7)), expected)
    adapter(h, torch.rand(4, 7)).sum().backward()
    assert adapter.alpha.grad.abs() > 0, "the scale is learnt"


def test_resampling_averages_down_and_interpolates_up():
    maps = torch.arange(8.0).reshape(1, 1, 2, 4)
    assert resample(maps, [1, 2]).flatten().tolist() == [2.5, 4.5]
    assert resample(maps, [2, 4]) is maps
    assert resample(torch.tensor([[[0.0, 1.0]]]), [4]).flatten().tolist() == [0.0, 0.25, 0.75, 1.0]
    assert resample(torch.tensor([[3.0]]), [2, 2]).flatten().tolist() == [3.0] * 4
    assert resample(maps, []).tolist() == [[3.5]]


class Column(nn.Module):
    """Writes in place into what its first layer produced, as networks with in-place activations do."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(4, 6)
        self.norm = nn.BatchNorm1d(6)
        self.drop = nn.Dropout(0.5)
        self.last = nn.Linear(6, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.last(self.drop(self.norm(self.first(x).relu_())))


def connect(network: ProgressiveNetwork, *, copies: bool = True) -> Lateral:
    network.columns.append(Column())
    network.tasks.append("second")
    network.sites.append(["first"])
    tap = Tap(copies=copies)
    network.columns[0].first.register_forward_hook(tap.read)
    lateral = Lateral([tap], [Adapter(VECTOR, VECTOR, "linear", 1, 1.0)])
    network.laterals.append(nn.ModuleList([lateral]))
    network.columns[1].first.register_forward_hook(lateral.add, prepend=True)
    return lateral


@pytest.fixture
def network() -> ProgressiveNetwork:
    torch.manual_seed(0)
    network = ProgressiveNetwork(Column(), "first", ["first"])
    connect(network)
    return network


def test_the_first_column_is_what_it_was_and_the_second_is_fed_what_the_site_produced(network):
    x = torch.randn(5, 4)
    network.eval()
    expected = copy.deepcopy(network.columns[0])(x)
    first, second = network.columns
    adapter = network.laterals[1][0].adapters[0]
    direct, fed = (nn.functional.linear(x, c.first.weight, c.first.bias) for c in (second, first))
    h = direct + adapter.project(fed)
    outputs = network(x)
    assert list(outputs) == ["first", "second"]
    assert torch.equal(outputs["first"], expected)
    torch.testing.assert_close(outputs["second"], second.last(second.norm(h.relu())))


def test_without_a_copy_the_overwritten_value_would_be_read(network):
    x = torch.randn(5, 4)
    network.eval()
    before = network(x)["second"]
    network.laterals[1][0].taps[0].copies = False
    assert not torch.equal(network(x)["second"], before)


def test_earlier_columns_stay_in_eval_mode_and_build_no_graph(network):
    network.train()
    assert not any(module.training for module in network.columns[0].modules())
    assert all(module.training for module in network.columns[1].modules())
    x = torch.randn(5, 4)
    statistics = network.columns[0].norm.running_mean.clone()
    outputs = network(x)
    assert outputs["first"].grad_fn is None
    assert outputs["second"].grad_fn is not None
    assert torch.equal(network.columns[0].norm.running_mean, statistics)
    outputs["second"].sum().backward()
    assert all(p.grad is None for p in network.columns[0].parameters())
    assert all(p.grad is not None for p in network.laterals.parameters())


def test_taps_let_go_after_a_forward_and_after_an_exception(network):
    network(torch.randn(5, 4))
    tap = network.laterals[1][0].taps[0]
    assert tap.value is None
    network.columns[1].last = nn.Linear(5, 3)
    with pytest.raises(RuntimeError):
        network(torch.randn(5, 4))
    assert tap.value is None


def test_a_column_on_its_own_says_that_it_needs_the_others(network):
    with pytest.raises(OperationError, match="nothing to read"):
        network.columns[1](torch.randn(5, 4))


def test_a_tap_reads_what_a_lateral_connection_has_added_to(network):
    network.eval()
    site = network.columns[1].first
    early, late = Tap(copies=True), Tap(copies=True)
    site.register_forward_hook(early.read, prepend=True)
    network(x := torch.randn(5, 4))
    bare = early.value
    hook(site, late.read)
    network(x)
    assert torch.equal(early.value, late.value)
    assert not torch.equal(late.value, bare)


def test_a_hook_that_was_there_before_surgery_sees_what_is_added(network):
    network.eval()
    site, seen, late = network.columns[1].first, [], Tap(copies=True)
    lateral = next(method.__self__ for method in site._forward_hooks.values())
    unhook(site, lateral.add)
    site.register_forward_hook(lambda module, args, output: seen.append(output.clone()))  # as transformers does
    hook(site, lateral.add)
    hook(site, late.read)
    network(torch.randn(5, 4))
    assert torch.equal(seen[0], late.value)


def test_a_copy_is_independent_and_compiles_whole(network):
    network.eval()
    x = torch.randn(5, 4)
    twin = copy.deepcopy(network)
    expected = network(x)
    compiled = torch.compile(twin, fullgraph=True, backend="aot_eager")
    for name, value in compiled(x).items():
        torch.testing.assert_close(value, expected[name])
    with torch.no_grad():
        twin.laterals[1][0].adapters[0].alpha.zero_()
    assert not torch.equal(twin(x)["second"], expected["second"])
    assert torch.equal(network(x)["second"], expected["second"])


class Branching(Column):
    """A column with a branch of its own, as grafts leave it."""

    def __init__(self) -> None:
        super().__init__()
        self.grafts = nn.ModuleDict({"domain": nn.Identity()})

    def forward(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
        return {"logits": super().forward(x), "domain": x}


def test_branches_of_a_column_are_named_after_its_task():
    network = ProgressiveNetwork(Branching(), "digits", []).eval()
    assert list(network(torch.randn(2, 4))) == ["digits", "digits_domain"]
