"""Layers put into trained networks, and at the end of their features."""

from __future__ import annotations

import copy

import pytest
import torch
from families import FAMILIES, build, example
from pydantic import ValidationError
from torch import nn

import surgeon
from surgeon.errors import OperationError, SiteError
from surgeon.nn.features import main_tensor
from surgeon.nn.inserted import BottleneckAdapter
from surgeon.operations import Append, Freeze, Insert, Multitask, Reinit, ReplaceHead, Truncate
from surgeon.testing import check_operations

BLOCKS = ["resnet", "vit", "swin", "gpt2", "t5", "hf_convnext"]
HEADS = {"resnet": "fc", "densenet": "classifier", "bert": "classifier", "hf_vit": "classifier", "llama": "lm_head"}


@torch.no_grad()
def run(model, name):
    args, kwargs = example(name)
    return main_tensor(model(*args, **kwargs))


def with_a_head(name):
    """The family with a head that is not zero, so that outputs tell something."""
    model = build(name)
    if name == "vit":
        nn.init.normal_(model.heads.head.weight)
    return model


def step(model, name):
    """One training step, in eval mode so that only the weights differ after it."""
    args, kwargs = example(name)
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=0.1)
    (main_tensor(model(*args, **kwargs)).float() - 1).square().mean().backward()
    optimizer.step()


@pytest.mark.parametrize("name", BLOCKS)
def test_adapters_change_nothing_at_first_and_then_learn_alone(name):
    args, kwargs = example(name)
    operations = [Insert(at="@blocks", hidden=3), Freeze(all_but="**.adapter")]

    def loss(model):
        return (main_tensor(model(*args, **kwargs)).float() - 1).square().mean()

    model = with_a_head(name)
    check_operations(lambda: copy.deepcopy(model), operations, args, kwargs, loss=loss)
    edited = surgeon.apply(model, operations)
    assert set(model.state_dict()) < set(edited.state_dict())
    adapters = [module for module in edited.modules() if isinstance(module, BottleneckAdapter)]
    assert len(adapters) >= 4
    assert all(adapter.down.out_features == 3 for adapter in adapters)
    before = run(model, name)
    assert torch.equal(run(edited, name), before)
    step(edited, name)
    assert all(adapter.up.weight.abs().sum() > 0 for adapter in adapters[-2:])
    assert not torch.equal(run(edited, name), before)
    moved = {key for key, value in model.state_dict().items() if not torch.equal(value, edited.state_dict()[key])}
    assert not moved


@pytest.mark.parametrize(
    ("name", "fields"),
    [
        ("resnet", {"at": "layer2", "kind": "conv", "kernel": 3}),
        ("resnet", {"at": "layer2.1.conv1", "kind": "linear"}),
        ("video", {"at": "layer1", "kind": "conv"}),
        ("bert", {"at": "bert.encoder.layer.1", "kind": "linear"}),
        ("swin", {"at": "features.1", "kind": "linear"}),
        ("hf_vit", {"at": "vit.layers.2", "kind": "adapter", "activation": "relu"}),
        ("resnet", {"at": ["layer1", "layer3"], "kind": "dropout", "share": 0.5}),
        ("bert", {"at": "bert.encoder.layer[:2]", "kind": "adapter", "where": "before"}),
        ("resnet", {"at": "layer4", "kind": "conv", "where": "before"}),
        ("resnet", {"at": "fc", "kind": "linear", "where": "before"}),
    ],
)
def test_every_kind_starts_as_the_identity_behind_or_before_a_site(name, fields):
    args, kwargs = example(name)
    if fields["kind"] in ("conv", "dropout") or "where" in fields:
        check_operations(FAMILIES[name], [Insert(**fields)], args, kwargs)
    edited = surgeon.apply(build(name), [Insert(**fields)])
    torch.testing.assert_close(run(edited, name), run(build(name), name), atol=1e-5, rtol=1e-5)
    if fields["kind"] != "dropout":
        inserted = [p for key, p in edited.named_parameters() if f".{fields['kind']}." in key and key.endswith("bias")]
        assert inserted
        with torch.no_grad():
            for parameter in inserted:
                parameter.add_(torch.randn(parameter.shape, generator=torch.Generator().manual_seed(0)))
        assert not torch.allclose(run(edited, name), run(build(name), name)), "what was inserted has no effect"


@pytest.mark.parametrize(
    ("name", "at", "axis"), [("resnet", "layer1", 1), ("swin", "features.1", -1), ("bert", "bert.encoder.layer.0", -1)]
)
def test_a_norm_is_over_the_channels_of_any_layout(name, at, axis):
    model = surgeon.apply(build(name), [Insert(at=at, kind="norm")])
    seen = []
    hook = model.get_submodule(at).register_forward_hook(lambda module, args, output: seen.append(main_tensor(output)))
    run(model, name)
    hook.remove()
    assert seen[0].mean(axis).abs().max() < 1e-5
    torch.testing.assert_close(seen[0].var(axis, unbiased=False).median(), torch.tensor(1.0), atol=1e-2, rtol=0)


def test_an_adapter_is_redrawn_as_the_identity_that_it_was():
    model = surgeon.apply(build("resnet"), [Insert(at="layer2", hidden=4)])
    with torch.no_grad():
        model.layer2.adapter.layer.up.weight.fill_(1)
    edited = surgeon.apply(model, [Reinit(sites="layer2.adapter")], seed=1)
    assert not edited.layer2.adapter.layer.up.weight.any()
    assert not torch.equal(edited.layer2.adapter.layer.down.weight, model.layer2.adapter.layer.down.weight)


def test_several_layers_at_one_site_want_names():
    again = [Insert(at="layer2"), Insert(at="layer2", called="second")]
    args, kwargs = example("resnet")
    edited = check_operations(FAMILIES["resnet"], again, args, kwargs)
    assert [name for name, _ in edited.layer2.named_children()] == ["0", "1", "adapter", "second"]
    with pytest.raises(OperationError, match="already has 'adapter'") as caught:
        surgeon.plan(build("resnet"), [Insert(at="layer2"), Insert(at="layer2")])
    assert "called: NAME" in str(caught.value)


def test_branches_read_what_was_inserted_at_their_site():
    operations = [Multitask(tasks={"a": {"classes": 2, "at": "layer2"}}), Insert(at="layer2", kind="linear")]
    edited = surgeon.apply(build("resnet"), operations)
    args, _ = example("resnet")
    before = edited(*args)["a"]
    with torch.no_grad():
        edited.layer2.linear.layer.bias.fill_(3)
    assert not torch.allclose(edited(*args)["a"], before)


@pytest.mark.parametrize("name", ["resnet", "bert"])
def test_adapters_compile_whole(name):
    args, kwargs = example(name)
    edited = surgeon.apply(build(name), [Insert(at="@blocks[:2]")])
    torch.nn.init.normal_(next(m for m in edited.modules() if isinstance(m, BottleneckAdapter)).up.weight)
    compiled = torch.compile(copy.deepcopy(edited), fullgraph=True, backend="aot_eager")
    with torch.no_grad():
        compiled_output = main_tensor(compiled(*args, **kwargs))
    torch.testing.assert_close(compiled_output, run(edited, name), atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("name", list(HEADS))
def test_appended_layers_stand_between_features_and_head(name):
    args, kwargs = example(name)
    operations = [Append(kind="adapter"), Append(kind="linear", activation="relu", init="default")]
    edited = check_operations(FAMILIES[name], operations, args, kwargs)
    assert {"adapter", "linear"} <= {child for child, _ in edited.get_submodule(HEADS[name]).named_children()}
    same = surgeon.apply(build(name), [Append(kind="linear")])
    torch.testing.assert_close(run(same, name), run(build(name), name), atol=1e-5, rtol=1e-5)
    with torch.no_grad():
        same.get_submodule(f"{HEADS[name]}.linear.module").weight.zero_()
    assert not torch.allclose(run(same, name), run(build(name), name)), "the head does not read what was appended"


def test_a_cut_network_grows_and_gets_a_head_for_the_new_width():
    operations = [
        Truncate(after="layer2"),
        Append(kind="conv", width=24, kernel=3, activation="relu"),
        Append(kind="norm"),
        ReplaceHead(classes=3),
    ]
    args, kwargs = example("resnet")
    edited = check_operations(FAMILIES["resnet"], operations, args, kwargs)
    assert edited(*args).shape == (2, 3)
    assert surgeon.plan(build("resnet"), operations[:2]).outputs == {"output": (2, 24, 28, 28)}


def test_a_network_without_a_head_gives_what_was_appended():
    with pytest.raises(OperationError, match="does not run with another width") as caught:
        surgeon.plan(build("bert_base"), [Append(kind="linear", width=5)])
    assert "truncate: after: encoder" in str(caught.value)
    operations = [Truncate(after="encoder.layer.3"), Append(kind="linear", width=5)]
    edited = check_operations(FAMILIES["bert_base"], operations, *example("bert_base"))
    assert run(edited, "bert_base").shape == (2, 8, 5)


def test_a_layer_goes_before_the_pool_of_a_head_on_a_map():
    operations = [Truncate(after="layer2"), ReplaceHead(classes=3), Append(kind="conv", kernel=3)]
    args, kwargs = example("resnet")
    check_operations(FAMILIES["resnet"], operations, args, kwargs)


@pytest.mark.parametrize(
    ("name", "operation", "error", "words"),
    [
        ("bert", Insert(at="bert.encoder.layer.0", kind="conv"), OperationError, "not a channels-first feature map"),
        ("resnet", Insert(at="layer9"), SiteError, "nearest: layer4"),
        ("resnet", Append(kind="conv"), OperationError, "not a channels-first feature map"),
        ("resnet", Append(kind="linear", width=9), OperationError, "needs the current number of channels"),
        ("lraspp", Append(), OperationError, "several parts"),
    ],
)
def test_what_does_not_fit_is_refused(name, operation, error, words):
    with pytest.raises(error) as caught:
        surgeon.plan(build(name), [operation])
    assert words in str(caught.value)


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"kind": "linear", "hidden": 3}, "hidden is for kind: adapter"),
        ({"kind": "adapter", "share": 0.3}, "share is for kind: dropout"),
        ({"kind": "conv", "kernel": 2}, "odd"),
        ({"kind": "norm", "activation": "relu"}, "activation is for"),
        ({"kind": "pool"}, "Input should be"),
        ({"called": "a.b"}, "cannot name a module"),
    ],
)
def test_keys_that_do_not_go_with_the_kind_are_refused(fields, words):
    with pytest.raises(ValidationError, match=words):
        Insert(at="x", **fields)
    with pytest.raises(ValidationError, match=words):
        Append(**fields)
