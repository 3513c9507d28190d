"""A trace without memory sees what a real forward does, and leaves no sign of itself."""

from __future__ import annotations

import random
from functools import lru_cache

import numpy as np
import pytest
import torch
import transformers
from families import DETECTION, FAMILIES, build, example
from torch import nn
from transformers.pytorch_utils import compile_compatible_method_lru_cache

from surgeon.errors import OperationError
from surgeon.families.inputs import Inputs, Spec
from surgeon.graph.skeleton import skeleton_of
from surgeon.graph.trace import TensorSpec, TraceError, trace
from surgeon.nn.features import main_tensor
from surgeon.nn.grafts import Inserted, Tap, graft

LOOKS_AT_VALUES = DETECTION | {"t5_classifier"}


def specs(value):
    """The example of a family as inputs: the same shapes, without the values."""
    if isinstance(value, torch.Tensor):
        return Spec(tuple(value.shape), value.dtype, low=1)
    if isinstance(value, (list, tuple)):
        return type(value)(specs(item) for item in value)
    return value


def inputs_of(name: str) -> Inputs:
    args, kwargs = example(name)
    return Inputs(specs(args), {key: specs(value) for key, value in kwargs.items()})


def really(model: nn.Module, name: str) -> tuple[list[str], dict[str, tuple[int, ...] | None], dict[str, int]]:
    """The order of last completions, the shapes and the calls of a real forward."""
    order: list[str] = []
    shapes: dict[str, tuple[int, ...] | None] = {}
    calls: dict[str, int] = {}

    def listen(site):
        def hook(module, args, output):
            if site in order:
                order.remove(site)
            order.append(site)
            tensor = main_tensor(output)
            shapes[site] = None if tensor is None else tuple(tensor.shape)
            calls[site] = calls.get(site, 0) + 1

        return hook

    handles = [module.register_forward_hook(listen(site)) for site, module in model.named_modules()]
    args, kwargs = example(name)
    with torch.no_grad():
        model(*args, **kwargs)
    for handle in handles:
        handle.remove()
    return order, shapes, calls


@pytest.mark.parametrize("name", sorted(set(FAMILIES) - LOOKS_AT_VALUES))
def test_order_shapes_and_calls_are_those_of_a_real_forward(name):
    model = build(name)
    order, shapes, calls = really(model, name)
    traced = trace(skeleton_of(model), inputs_of(name))
    assert traced.evidence in ("meta", "fake")
    assert traced.order == order
    assert {site: traced.calls(site) for site in traced.order} == calls
    for site, shape in shapes.items():
        if shape is not None:
            assert traced.shape(site) == shape, site


@pytest.mark.parametrize("name", sorted(LOOKS_AT_VALUES))
def test_a_network_that_looks_at_values_is_run_for_real_and_says_so(name):
    traced = trace(skeleton_of(build(name)))
    assert traced.evidence == "real"
    assert any(note.startswith("inputs: ") for note in traced.notes)
    assert traced.outputs


@pytest.mark.parametrize("name", sorted(FAMILIES))
def test_inputs_are_found_and_the_network_is_left_as_it_was(name):
    model = skeleton_of(build(name))
    tensors = {id(t) for t in [*model.parameters(), *model.buffers()]}
    hooks = [len(m._forward_hooks) + len(m._forward_pre_hooks) for m in model.modules()]
    keys = [set(m.__dict__) for m in model.modules()]
    model.get_submodule(next(n for n, _ in model.named_children())).train()
    modes = [m.training for m in model.modules()]
    reader = nn.Module.__getattr__
    before = torch.get_rng_state(), random.getstate(), np.random.get_state()[1].tolist()
    for training in (False, True):
        assert trace(model, training=training).order
    assert torch.equal(before[0], torch.get_rng_state())
    assert before[1:] == (random.getstate(), np.random.get_state()[1].tolist())
    assert nn.Module.__getattr__ is reader
    assert {id(t) for t in [*model.parameters(), *model.buffers()]} == tensors
    assert [m.training for m in model.modules()] == modes
    assert [len(m._forward_hooks) + len(m._forward_pre_hooks) for m in model.modules()] == hooks
    assert [set(m.__dict__) for m in model.modules()] == keys


def test_a_network_that_fails_is_left_as_it_was():
    class Fails(nn.Module):
        def __init__(self):
            super().__init__()
            self.norm = nn.BatchNorm1d(4)
            self.linear = nn.Linear(4, 4)

        def forward(self, x):
            self.norm(x)
            raise ValueError("no such luck")

    model = Fails()
    values = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    with pytest.raises(TraceError, match="no such luck") as raised:
        trace(model, training=True)
    assert all(word in str(raised.value) for word in ("on real tensors", "inputs:"))
    assert isinstance(raised.value, OperationError)
    assert all(torch.equal(values[name], tensor) for name, tensor in model.state_dict().items())
    assert model.training
    assert not model.norm._forward_hooks


def test_real_weights_and_their_statistics_stay_where_they_are():
    model = build("fasterrcnn")
    values = {name: (tensor, tensor.clone()) for name, tensor in model.state_dict(keep_vars=True).items()}
    assert trace(model, training=True).evidence == "real"
    for name, tensor in model.state_dict(keep_vars=True).items():
        assert tensor is values[name][0]
        assert torch.equal(tensor, values[name][1])


def test_the_trace_of_half_precision_weights_feeds_half_precision():
    traced = trace(skeleton_of(build("llama").to(torch.bfloat16)))
    assert traced.visits["lm_head"].output == TensorSpec((2, 8, 97), torch.bfloat16)


def test_training_runs_what_only_training_runs():
    model = skeleton_of(build("googlenet"))
    assert trace(model).calls("aux1") == 0
    assert trace(model, training=True).calls("aux1.fc2") == 1
    assert set(trace(model, training=True).outputs) == {"logits", "aux_logits1", "aux_logits2"}


@pytest.mark.parametrize(
    ("name", "outputs"),
    [
        ("resnet", {"output": (2, 5)}),
        ("fcn", {"out": (2, 5, 224, 224), "aux": (2, 5, 224, 224)}),
        ("bert_base", {"last_hidden_state": (2, 8, 32), "pooler_output": (2, 32)}),
    ],
)
def test_outputs_have_the_names_that_the_network_gives_them(name, outputs):
    assert trace(skeleton_of(build(name))).outputs == outputs


def test_what_an_inplace_operation_writes_into_is_overwritten():
    visits = trace(skeleton_of(build("resnet"))).visits
    assert visits["layer1.0.bn1"].overwritten  # by the relu behind it
    assert visits["layer1.0.bn2"].overwritten  # by the addition of the shortcut
    assert not visits["layer1.0.conv1"].overwritten
    assert not visits["layer1.0"].overwritten
    assert not visits["fc"].overwritten


def test_a_write_through_a_view_is_seen():
    class Writes(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b = nn.Linear(4, 4), nn.Linear(4, 4)

        def forward(self, x):
            first = self.a(x)
            first.view(-1)[:2].zero_()
            return self.b(first)

    visits = trace(Writes()).visits
    assert visits["a"].overwritten
    assert not visits["b"].overwritten


@pytest.mark.parametrize(
    ("name", "end", "read"),
    [
        ("swin", "features.1.0.attn", {"features.1.0.attn.qkv", "features.1.0.attn.proj"}),
        ("vit", "encoder.layers.encoder_layer_0", {"encoder.layers.encoder_layer_0.self_attention.out_proj"}),
    ],
)
def test_a_child_that_is_read_but_not_called_counts_as_accessed(name, end, read):
    traced = trace(skeleton_of(build(name)))
    assert all(traced.calls(site) == 0 for site in read)
    assert read <= traced.accessed_before(end)


def test_a_child_that_is_only_asked_for_counts_as_accessed():
    class Asks(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.maybe, self.last = nn.Linear(4, 4), nn.Linear(4, 4), nn.Linear(4, 4)

        def forward(self, x):
            x = self.first(x) if self.maybe is not None else x
            return self.last(x)

    accessed = trace(Asks()).accessed_before("first")
    assert "maybe" in accessed
    assert "last" not in accessed


def test_random_states_are_as_before_however_much_the_forward_draws():
    class Draws(nn.Module):
        def __init__(self):
            super().__init__()
            self.linear = nn.Linear(4, 4)

        def forward(self, x):
            return self.linear(x) * random.random() * np.random.rand() + torch.rand(4, device=x.device)

    model = Draws()
    before = torch.get_rng_state(), random.getstate(), np.random.get_state()[1:3]
    for fed in (None, Inputs((Spec((2, 4)),), values=True)):
        trace(model, fed)
        assert torch.equal(before[0], torch.get_rng_state())
        assert before[1] == random.getstate()
        np.testing.assert_equal(np.random.get_state()[1:3], before[2])


def test_accessed_before_holds_what_came_earlier_and_nothing_later():
    accessed = trace(skeleton_of(build("resnet"))).accessed_before("layer2")
    assert {"", "conv1", "bn1", "layer1.1.conv2", "layer2", "layer2.0.downsample.0"} <= accessed
    assert not {"layer3", "layer3.0", "layer4.0.conv1", "avgpool", "fc"} & accessed


def test_accessed_before_counts_every_name_of_a_shared_module():
    class Shares(nn.Module):
        def __init__(self):
            super().__init__()
            self.first = nn.Sequential(nn.Linear(4, 4))
            self.second = nn.Sequential(self.first[0])
            self.last = nn.Linear(4, 2)

        def forward(self, x):
            x = self.first(x)  # in one expression, self.last would be read first
            return self.last(x)

    traced = trace(Shares())
    assert traced.calls("first.0") == 1
    assert {"first.0", "second.0", "second"} <= traced.accessed_before("first")
    assert "last" not in traced.accessed_before("first")


def test_a_site_that_does_not_run_is_an_error_with_the_nearest_that_do():
    traced = trace(skeleton_of(build("resnet")))
    for question in (traced.shape, traced.accessed_before):
        with pytest.raises(TraceError, match="layer3"):
            question("layer33")
    assert traced.calls("layer33") == 0


def test_a_network_that_ends_early_is_traced_up_to_its_end():
    model = skeleton_of(build("resnet"))
    graft(model)
    tap = Tap(exits=True)
    model.exit = tap
    model.layer2.register_forward_hook(tap.read)
    traced = trace(model)
    assert traced.outputs == {"output": (2, 128, 28, 28)}
    assert traced.order[-2:] == ["layer2", ""]
    assert traced.calls("layer3") == 0
    assert tap.value is None


def test_what_is_inserted_before_an_early_end_shows_in_the_shape_of_the_site():
    model = skeleton_of(build("resnet"))
    graft(model)
    inserted, tap = Inserted(nn.Conv2d(128, 7, 1)), Tap(exits=True)
    model.exit, model.more = tap, inserted
    model.layer2.register_forward_hook(inserted.after)
    model.layer2.register_forward_hook(tap.read)
    hooks = list(model.layer2._forward_hooks)
    traced = trace(model)
    assert traced.outputs == {"output": (2, 7, 28, 28)}
    assert traced.shape("layer2") == (2, 7, 28, 28)
    assert "more.module" in traced.accessed_before("layer2")
    assert list(model.layer2._forward_hooks) == hooks


def test_a_seventy_billion_parameter_network_is_traced_on_meta():
    from surgeon.graph.skeleton import build_skeleton

    config = transformers.LlamaConfig(
        hidden_size=8192, intermediate_size=28672, num_hidden_layers=80, num_attention_heads=64,
        num_key_value_heads=8, vocab_size=128256,
    )  # fmt: skip
    traced = trace(build_skeleton(lambda: transformers.LlamaForCausalLM(config)))
    assert traced.evidence == "meta"
    assert traced.shape("model.layers.79") == (2, 8, 8192)


def test_too_many_weights_to_make_up_are_not_made_up():
    class Big(nn.Module):
        def __init__(self):
            super().__init__()
            self.linear = nn.Linear(40_000, 40_000, device="meta")

        def forward(self, x):
            return self.linear(x) if x.sum().item() else x

    with pytest.raises(TraceError, match="GB of weights"):
        trace(Big())


class Remembering(nn.Module):
    """Keeps its positions in a cache of its class, as XCodec and, wrapped by transformers, SAM 3 do."""

    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(4, 4)

    @staticmethod
    @lru_cache
    def scaled(linear):
        return 2 * linear.bias

    @compile_compatible_method_lru_cache(maxsize=1)
    def shifted(self):
        return 1 + self.linear.bias

    def forward(self, values):
        return self.linear(values) + self.scaled(self.linear) + self.shifted()


def test_a_network_remembers_nothing_of_a_trace():
    model, values = Remembering().eval(), torch.rand(2, 4)
    trace(model, {"values": [2, 4]})
    expected = model.linear(values) + 2 * model.linear.bias + (1 + model.linear.bias)
    assert torch.equal(model(values), expected)
