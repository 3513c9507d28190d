"""The flow of values holds no more of new modules than is still to be handed out."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch
from torch import nn

from surgeon.graph.tensors import tensors_of
from surgeon.surgery.origins import Flow, Fresh, New, Origins


def network(count: int, width: int) -> tuple[nn.Module, Origins, list[int]]:
    """A stack of new layers on the meta device, and how often each has been made."""
    counts = [0] * count

    def factory(number: int) -> Fresh:
        def make() -> nn.Module:
            counts[number] += 1
            return nn.Linear(width, width)

        return Fresh(make)

    with torch.device("meta"):
        model = nn.Sequential(*[nn.Linear(width, width) for _ in range(count)])
    origins = Origins()
    fresh = [factory(number) for number in range(count)]
    for name, tensor in tensors_of(model):
        layer, key = name.split(".")
        origins.set(tensor, New(fresh[int(layer)], key, "a test"))
    return model, origins, counts


@pytest.mark.parametrize("backwards", [True, False])
def test_a_new_module_is_made_once_whatever_the_order_of_its_tensors(backwards: bool) -> None:
    model, origins, counts = network(5, 4)
    flow = Flow(model, origins, None, {}, seed=3)
    names = sorted(flow.tensors, key=lambda name: (name.endswith("bias"), name), reverse=backwards)
    values = {name: flow.value(name) for name in names}
    assert counts == [1] * 5
    again = Flow(model, origins, None, {}, seed=3)
    assert all(torch.equal(again.value(name), values[name]) for name in flow.tensors)


def test_a_value_that_is_asked_for_again_is_the_same() -> None:
    model, origins, counts = network(1, 4)
    flow = Flow(model, origins, None, {}, seed=3)
    first = flow.value("0.weight")
    first_values = first.clone()
    first.zero_()
    assert torch.equal(flow.value("0.weight"), first_values)
    assert counts == [2]


PEAK = """
import resource
import test_weights
from surgeon.surgery.origins import Flow
model, origins, _ = test_weights.network(20, 2000)
flow = Flow(model, origins, None, {}, seed=3)
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
for name in sorted(flow.tensors, key=lambda name: name.endswith("bias")):
    flow.value(name)
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024)
"""


def test_memory_grows_with_the_largest_new_module_and_not_with_their_number() -> None:
    code = f"import sys; sys.path.insert(0, {str(__file__).rpartition('/')[0]!r})" + PEAK
    process = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert float(process.stdout) < 100  # megabytes; the twenty of them have 320
