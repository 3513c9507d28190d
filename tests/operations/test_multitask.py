"""Several heads on one trunk, each with its loss."""

from __future__ import annotations

import copy

import pytest
import torch
from families import FAMILIES, build, example
from pydantic import ValidationError

import surgeon
from surgeon.errors import OperationError
from surgeon.nn.outputs import Outputs
from surgeon.operations import Freeze, Multitask, ReplaceHead, Truncate
from surgeon.testing import check_operations

SEVERAL_HEADS = {"lraspp": "backbone", "fasterrcnn": "backbone", "ssdlite": "backbone"}
TASKS = {"species": {"classes": ["cat", "dog", "owl"]}, "age": {"kind": "regression", "classes": 1, "hidden": [8]}}


def run(model, name):
    args, kwargs = example(name)
    with torch.no_grad():
        return model(*args, **kwargs)


@pytest.mark.parametrize("name", sorted(set(FAMILIES) - set(SEVERAL_HEADS)))
def test_every_task_is_an_output_beside_the_networks_own(name):
    args, kwargs = example(name)
    edited = check_operations(FAMILIES[name], [Multitask(tasks=TASKS)], args, kwargs)
    model = build(name)
    whole, outputs = run(model, name), run(surgeon.apply(model, [Multitask(tasks=TASKS)]), name)
    assert isinstance(outputs, Outputs)
    assert outputs.species.shape == (2, 3)
    assert outputs.age.shape == (2, 1)
    own_outputs = {"logits": whole} if isinstance(whole, torch.Tensor) else whole
    for key in own_outputs:
        if isinstance(own_outputs[key], torch.Tensor):
            assert torch.equal(outputs[key], own_outputs[key])
    assert set(dict(edited.named_modules())) > set(dict(model.named_modules()))


@pytest.mark.parametrize(
    "name", ["resnet", "densenet", "vit", "fcn", "googlenet", "bert", "bert_base", "gpt2", "hf_swin"]
)
def test_without_the_original_only_the_tasks_come_out(name):
    args, kwargs = example(name)
    edited = check_operations(FAMILIES[name], [Multitask(tasks=TASKS, original="drop")], args, kwargs)
    assert list(edited(*args, **kwargs)) == ["species", "age"]
    lost = {key for key in build(name).state_dict() if key not in edited.state_dict()}
    assert lost, "the original head is still there"
    assert not any("aux" in key for key in edited.state_dict())


@pytest.mark.parametrize("name", ["fasterrcnn", "lraspp"])
def test_a_network_with_several_heads_needs_the_site_of_the_features(name):
    with pytest.raises(OperationError, match="several parts") as caught:
        surgeon.plan(build(name), [Multitask(tasks=TASKS)])
    assert "at: SITE" in str(caught.value)


def test_a_detectors_backbone_takes_a_task_in_the_heads_place():
    tasks = {"scene": {"classes": 3, "at": "backbone.body"}}
    edited = surgeon.apply(build("fasterrcnn"), [Multitask(tasks=tasks, original="drop")])
    assert run(edited, "fasterrcnn").shape == (2, 3)
    assert not any(key.startswith(("rpn", "roi_heads")) for key in edited.state_dict())


@pytest.mark.parametrize("name", ["resnet", "mobilenet", "bert", "vgg"])
def test_a_task_reads_what_the_head_reads(name):
    model = build(name)
    head = {"resnet": "fc", "mobilenet": "classifier.3", "bert": "classifier", "vgg": "classifier.6"}[name]
    seen = []
    model.get_submodule(head).register_forward_pre_hook(lambda module, args: seen.append(args[0].clone()))
    edited = surgeon.apply(model, [Multitask(tasks={"twin": {"classes": 5}})])
    with torch.no_grad():
        layer = edited.grafts["twin"].head.layers
        layer.weight.copy_(model.get_submodule(head).weight)
        layer.bias.copy_(model.get_submodule(head).bias)
    outputs = run(edited, name)
    assert torch.allclose(outputs.twin, outputs["logits"], atol=1e-6)


def test_tasks_stand_at_several_sites_and_on_tokens():
    tasks = {
        "tag": {"kind": "token_classification", "classes": 4, "at": "bert.encoder.layer.1"},
        "topics": {"kind": "multilabel", "classes": 6, "pool": "max", "at": "bert.encoder.layer.2"},
        "mood": {"classes": 2},
    }
    args, kwargs = example("bert")
    edited = check_operations(FAMILIES["bert"], [Multitask(tasks=tasks)], args, kwargs)
    outputs = edited(**kwargs)
    assert {name: tuple(outputs[name].shape) for name in tasks} == {"tag": (2, 8, 4), "topics": (2, 6), "mood": (2, 2)}


def test_tasks_compose_with_truncation_freezing_and_a_later_round():
    first = [
        Truncate(after="layer3"),
        ReplaceHead(classes=7),
        Multitask(tasks={"a": {"classes": 2}}),
        Freeze(up_to="layer2"),
    ]
    args, kwargs = example("resnet")
    edited = check_operations(FAMILIES["resnet"], first, args, kwargs)
    assert list(edited(*args)) == ["logits", "a"]
    model = surgeon.apply(build("resnet"), first)
    again = surgeon.apply(model, [Multitask(tasks={"b": {"classes": 3}}, original="drop")])
    assert {name: tuple(value.shape) for name, value in again(*args).items()} == {"a": (2, 2), "b": (2, 3)}
    assert len([m for m in again.modules() if type(m).__name__ == "Tap"]) == 3


def test_features_without_a_head_keep_coming_out_by_their_own_name():
    model = surgeon.apply(build("resnet"), [Truncate(after="layer3"), Multitask(tasks={"a": {"classes": 2}})])
    assert {name: tuple(value.shape) for name, value in run(model, "resnet").items()} == {
        "features": (2, 256, 4, 4),
        "a": (2, 2),
    }


def test_a_step_on_the_tasks_moves_the_shared_trunk():
    edited = surgeon.apply(build("resnet"), [Multitask(tasks=TASKS, original="drop")])
    args, _ = example("resnet")
    outputs = edited.train()(*args)
    (outputs.species.sum() + outputs.age.sum()).backward()
    assert edited.conv1.weight.grad.abs().sum() > 0


def test_each_task_brings_its_loss_label_and_weight():
    tasks = {**TASKS, "topics": {"kind": "multilabel", "classes": 4, "weight": 0.5, "label": "tags"}, "size": {
        "kind": "regression", "classes": 2, "loss": "huber"}}  # fmt: skip
    objectives = {o.output: (o.loss, o.label, o.weight) for o in Multitask(tasks=tasks).objectives()}
    assert objectives == {
        "species": ("cross_entropy", "species", 1.0),
        "age": ("mse", "age", 1.0),
        "topics": ("bce", "tags", 0.5),
        "size": ("huber", "size", 1.0),
    }


@pytest.mark.parametrize("name", ["resnet", "bert"])
def test_tasks_compile_whole(name):
    args, kwargs = example(name)
    edited = surgeon.apply(build(name), [Multitask(tasks=TASKS)])
    compiled = torch.compile(copy.deepcopy(edited), fullgraph=True, backend="aot_eager")
    with torch.no_grad():
        assert torch.allclose(compiled(*args, **kwargs)["species"], edited(*args, **kwargs).species, atol=1e-5)


@pytest.mark.parametrize("name", ["items", "two words", "", "_x"])
def test_a_task_needs_a_name_that_an_output_can_have(name):
    with pytest.raises(ValidationError, match="cannot name an output"):
        Multitask(tasks={name: {"classes": 2}})


@pytest.mark.parametrize(
    ("tasks", "words"),
    [
        ({}, "at least 1"),
        ({"a": {"classes": 2, "kind": "token_classification", "pool": "avg"}}, "leave pool out"),
        ({"a": {"classes": ["x", "x"]}}, "named twice"),
        ({"a": {"classes": 2, "colour": 1}}, "Extra inputs"),
    ],
)
def test_tasks_that_contradict_themselves_are_refused(tasks, words):
    with pytest.raises(ValidationError, match=words):
        Multitask(tasks=tasks)


@pytest.mark.parametrize(
    ("name", "tasks", "words"),
    [
        ("resnet", {"logits": {"classes": 2}}, "already has an output 'logits'"),
        ("bert_base", {"pooler_output": {"classes": 2}}, "already has an output 'pooler_output'"),
        ("resnet", {"a": {"classes": 2, "kind": "token_classification"}}, "not tokens"),
        ("resnet", {"a": {"classes": 2, "at": "layer9"}}, "layer9"),
    ],
)
def test_what_cannot_be_done_is_refused(name, tasks, words):
    with pytest.raises(OperationError, match=words):
        surgeon.plan(build(name), [Multitask(tasks=tasks)])


def test_a_name_can_be_given_once():
    model = surgeon.apply(build("resnet"), [Multitask(tasks={"a": {"classes": 2}})])
    with pytest.raises(OperationError, match="already has an output 'a'"):
        surgeon.plan(model, [Multitask(tasks={"a": {"classes": 2}})])
