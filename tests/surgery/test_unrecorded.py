"""What an operation does behind its journal is refused by the name of the place, with the way that records it."""

from __future__ import annotations

import copy
import re
import time

import pytest
import torch
from families import build
from torch import nn
from transformers import LlamaConfig, LlamaForCausalLM

import surgeon
from surgeon.errors import OperationError
from surgeon.graph.skeleton import build_skeleton
from surgeon.interfaces.operation import Operation
from surgeon.surgery.module_state import ModuleStates

HEADS = {"resnet": "fc", "vit": "heads.head", "bert": "classifier", "vgg": "classifier.6"}
"""The site of a Linear layer in each family."""


def operation(act) -> Operation:
    """An operation whose ``apply`` calls ``act(surgery, head)``."""

    class Act(Operation):
        """Calls a function of the test's."""

        head: str

        def apply(self, model, surgery):
            """Call it."""
            act(surgery, surgery.model.get_submodule(self.head))
            return surgery.model

    return Act


def during(family: str, act) -> nn.Module:
    return surgeon.apply(build(family), [operation(act)(head=HEADS[family])])


def planned(family: str, act) -> list[str]:
    plan = surgeon.plan(build(family), [operation(act)(head=HEADS[family])])
    return [f"{edit.site} {edit.what}" for step in plan.steps for edit in step.edits]


class Louder(nn.Linear):
    """A layer with a forward of its own."""

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        return 2 * super().forward(input)


class Watcher(nn.Module):
    """Doubles what a site returns."""

    def double(self, module: nn.Module, args: object, output: torch.Tensor) -> torch.Tensor:
        return output * 2


def _assign_data(surgery, head):
    head.weight.data = head.weight.data * 2


def _new_head(surgery, head):
    new = surgery.new(nn.Linear, head.in_features, 3, like=head)
    nn.init.zeros_(new.weight)
    surgery.replace(next(name for name, module in surgery.model.named_modules() if module is head), new)


def _no_grad(surgery, head):
    with torch.no_grad():
        head.weight[0] = 0


WRITES = {
    "init": lambda surgery, head: nn.init.zeros_(head.weight),
    "in place": lambda surgery, head: head.weight.detach().zero_(),
    "data": lambda surgery, head: head.weight.data.normal_(0, 0.02),
    "data copied": lambda surgery, head: head.weight.data.copy_(torch.zeros(head.weight.shape)),
    "data assigned": _assign_data,
    "item": _no_grad,
    "reset": lambda surgery, head: head.reset_parameters(),
    "new module": _new_head,
}


@pytest.mark.parametrize("write", WRITES)
@pytest.mark.parametrize("family", HEADS)
def test_values_written_into_a_skeleton_are_refused_with_the_tensor_and_the_right_verb(family, write):
    with pytest.raises(OperationError, match=rf"wrote values into {HEADS[family]}\.weight") as refused:
        during(family, WRITES[write])
    assert "surgery.fill" in str(refused.value)
    assert "surgery.derive" in str(refused.value)


@pytest.mark.parametrize("family", HEADS)
def test_modules_that_initialise_themselves_and_casts_are_no_writes(family):
    def act(surgery, head):
        class Custom(nn.Linear):
            def reset_parameters(self):
                self.weight.data.fill_(3.0)
                nn.init.zeros_(self.bias)

        surgery.trace(training=True)
        surgery.replace(HEADS[family], surgery.new(Custom, head.in_features, 3, like=head).double())

    assert torch.all(during(family, act).get_submodule(HEADS[family]).weight == 3.0)


@pytest.mark.parametrize("family", HEADS)
def test_filled_values_are_seeded_by_the_tensor_shown_and_reloaded(family, tmp_path):
    def act(surgery, head):
        surgery.fill(head.weight, nn.init.normal_)

    model, kind = build(family), operation(act)
    first, again, other = (surgeon.apply(model, [kind(head=HEADS[family])], seed=seed) for seed in (1, 1, 2))
    weights = [edited.get_submodule(HEADS[family]).weight for edited in (first, again, other)]
    assert torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[0], weights[2])
    assert 0.5 < float(weights[0].detach().std()) < 1.5
    assert any("values filled in" in line for line in planned(family, act))


def test_a_function_that_fills_sees_the_values_that_were_there_and_may_return_others():
    def act(surgery, head):
        surgery.fill(head.weight, lambda weight: weight.mul_(2))
        surgery.fill(head.bias, lambda bias: bias + 1)

    model = build("resnet")
    edited = surgeon.apply(model, [operation(act)(head="fc")])
    assert torch.equal(edited.fc.weight, model.fc.weight * 2)
    assert torch.equal(edited.fc.bias, model.fc.bias + 1)


def test_two_tensors_filled_alike_get_values_of_their_own():
    def act(surgery, head):
        for layer in (surgery.model.layer1[0].conv1, surgery.model.layer1[0].conv2):
            surgery.fill(layer.weight, nn.init.normal_)

    block = surgeon.apply(build("resnet"), [operation(act)(head="fc")]).layer1[0]
    assert not torch.equal(block.conv1.weight, block.conv2.weight)


def test_a_new_module_is_filled_and_counts_as_new():
    def act(surgery, head):
        new = surgery.new(nn.Linear, 512, 3)
        surgery.fill(new.weight, nn.init.zeros_)
        surgery.replace("fc", new)

    edited = during("resnet", act)
    assert not edited.fc.weight.any()
    assert edited.fc.bias.any()
    plan = surgeon.plan(build("resnet"), [operation(act)(head="fc")])
    assert plan.counts.endswith("2 new by act")


@pytest.mark.parametrize(
    ("name", "wrong", "message"),
    [
        ("derive", lambda *values: None, "returned NoneType"),
        ("derive", lambda *values: 1.0, "returned float"),
        ("derive", lambda *values: values[0][:1], r"act gave shape \(1, 512\), not \(5, 512\)"),
        ("fill", lambda values: "zeros", "returned str"),
        ("fill", lambda values: values[:1], r"act gave shape \(1, 512\), not \(5, 512\)"),
    ],
)
def test_a_function_that_computes_no_such_tensor_is_named(name, wrong, message):
    def act(surgery, head):
        if name == "fill":
            surgery.fill(head.weight, wrong)
        else:
            surgery.derive(head.weight, [head.weight], wrong)

    with pytest.raises(OperationError, match=message):
        during("resnet", act)


def _exchange(surgery, head):
    name, _module = next((n, m) for n, m in surgery.model.named_modules() if n and not list(m.parameters()))
    parent, _, child = name.rpartition(".")
    setattr(surgery.model.get_submodule(parent), child, nn.Tanh())


def _patch(surgery, head):
    head.forward = lambda features: features


def _setting(surgery, head):
    head.out_features += 1


def _class(surgery, head):
    head.__class__ = Louder


EDITS = {
    "a module without parameters": (_exchange, "→ Tanh", "surgery.replace"),
    "a setting": (_setting, r"HEAD\.out_features, \d+ → \d+", "surgery.set"),
    "a class": (_class, "the class of HEAD, Linear → Louder", "'__class__'"),
    "a patched forward": (_patch, r"HEAD\.forward, which is new", "lost or shared"),
    "a hook": (
        lambda surgery, head: head.register_forward_hook(lambda module, args, output: output * 2),
        "the hooks of HEAD",
        "surgery.hook",
    ),
    "a hook before": (
        lambda surgery, head: head.register_forward_pre_hook(lambda module, args: args),
        "the hooks of HEAD",
        "surgery.hook",
    ),
    "a mode": (lambda surgery, head: surgery.model.train(not surgery.model.training), "training", "surgery.freeze"),
    "a parameter's training state": (
        lambda surgery, head: head.weight.requires_grad_(False),
        r"HEAD\.weight",
        "freeze",
    ),
    "a new attribute": (lambda surgery, head: setattr(head, "scale", 2.0), r"HEAD\.scale, which is new", "surgery.set"),
    "a removed attribute": (lambda surgery, head: delattr(head, "in_features"), "which is gone", "surgery.set"),
}


@pytest.mark.parametrize("edit", EDITS)
@pytest.mark.parametrize("family", HEADS)
def test_an_edit_outside_the_journal_is_refused_with_its_site_and_the_right_verb(family, edit):
    act, message, way = EDITS[edit]
    with pytest.raises(OperationError, match=message.replace("HEAD", HEADS[family].replace(".", r"\."))) as refused:
        during(family, act)
    assert "outside its journal" in str(refused.value)
    assert way in str(refused.value)


def test_a_tied_tensor_is_written_to_under_its_first_name():
    with pytest.raises(OperationError, match=r"wrote values into transformer\.wte\.weight"):
        surgeon.plan(build("gpt2"), [operation(lambda surgery, head: nn.init.zeros_(head.weight))(head="lm_head")])


@pytest.mark.parametrize("family", ["bert", "gpt2", "llama", "t5"])
def test_a_field_of_a_config_is_compared_once_and_by_its_path(family):
    with pytest.raises(OperationError, match=r"config\.use_cache, True → False") as refused:
        surgeon.plan(build(family), [operation(lambda surgery, head: _use_cache(surgery.model))(head="")])
    assert "surgery.set('', 'config.use_cache', value)" in str(refused.value)


def _use_cache(model) -> None:
    model.config.use_cache = False


def test_statistics_buffers_and_lists_are_compared_too():
    def rotate(surgery, head):
        surgery.model.model.rotary_emb.inv_freq.mul_(2)

    with pytest.raises(OperationError, match=r"model\.rotary_emb\.inv_freq"):
        surgeon.plan(build("llama"), [operation(rotate)(head="")])


@pytest.mark.parametrize("family", HEADS)
def test_a_setting_and_a_class_are_recorded_shown_and_made_again(family, tmp_path):
    def act(surgery, head):
        surgery.set(HEADS[family], "__class__", Louder)
        surgery.set(HEADS[family], "out_features", 77)

    head = during(family, act).get_submodule(HEADS[family])
    assert type(head) is Louder
    assert head.out_features == 77
    lines = planned(family, act)
    assert f"{HEADS[family]} Linear → Louder" in lines
    assert any(line.endswith("→ 77") and "out_features" in line for line in lines)


def test_a_field_of_a_config_is_set_through_its_module():
    def act(surgery, head):
        surgery.set("", "config.use_cache", False)

    assert during("bert", act).config.use_cache is False
    assert planned("bert", act) == [" config.use_cache True → False"]


def test_a_value_that_a_config_refuses_is_reported_with_the_reason():
    with pytest.raises(OperationError, match=r"config\.use_cache cannot be set to 'x': .*expected bool"):
        during("bert", lambda surgery, head: surgery.set("", "config.use_cache", "x"))


@pytest.mark.parametrize(
    ("site", "attribute", "value", "message"),
    [
        ("fc", "weight", None, "a tensor of the state dict"),
        ("layer1", "0", nn.ReLU(), "a module"),
        ("bn1", "running_mean", None, "a tensor of the state dict"),
        ("conv1", "strides", (2, 2), "nearest.*stride"),
        ("conv1", "forward", len, "in the place of a method"),
        ("conv1", "training", False, "surgery.freeze"),
        ("conv1", "__class__", "Louder", "not a class of modules"),
        ("", "fc.bias", 1, "name it as the site"),
    ],
)
def test_only_settings_can_be_set_and_the_error_names_the_right_verb(site, attribute, value, message):
    with pytest.raises(OperationError) as refused:
        during("resnet", lambda surgery, head: surgery.set(site, attribute, value))
    assert re.search(message, str(refused.value), re.DOTALL)


@pytest.mark.parametrize("family", HEADS)
@pytest.mark.parametrize("kwargs", [False, True])
def test_a_hook_is_a_method_of_a_module_in_the_network_and_is_shown(family, kwargs):
    class WithKwargs(Watcher):
        def double(self, module, args, kwargs, output):
            return output * 2

    def act(surgery, head):
        watcher = (WithKwargs if kwargs else Watcher)()
        surgery.attach("", "watcher", watcher)
        surgery.hook(HEADS[family], watcher.double, kwargs=kwargs)

    model, edited = build(family), during(family, act)
    copied = copy.deepcopy(edited)
    features = torch.randn(2, edited.get_submodule(HEADS[family]).in_features)
    expected = model.get_submodule(HEADS[family])(features) * 2
    assert torch.equal(copied.get_submodule(HEADS[family])(features), expected)
    assert any("double after its forward" in line for line in planned(family, act))


def test_a_closure_and_a_method_of_a_module_elsewhere_are_refused_as_hooks():
    with pytest.raises(OperationError, match="not a method of a module") as refused:
        during("resnet", lambda surgery, head: surgery.hook("fc", lambda module, args, output: output))
    assert "surgery.hook(site, module.method)" in str(refused.value)
    with pytest.raises(OperationError, match="a Watcher that is not in the network"):
        during("resnet", lambda surgery, head: surgery.hook("fc", Watcher().double))


def test_bookkeeping_records_settings_without_a_line_and_neither_classes_nor_hooks():
    def act(surgery, head):
        with surgery.bookkeeping():
            head.out_features += 1

    assert planned("resnet", act) == []

    def hidden(surgery, head):
        with surgery.bookkeeping():
            head.__class__ = Louder

    with pytest.raises(OperationError, match="the class of fc"):
        during("resnet", hidden)


def test_a_frozen_norm_inside_what_is_replaced_or_attached_keeps_its_mode():
    def act(surgery, head):
        surgery.freeze(surgery.select("layer1"))
        surgery.replace("layer1", nn.Sequential(surgery.model.layer1))
        surgery.tap("layer2")
        surgery.insert("layer3", surgery.new(nn.Dropout, 0.1))

    assert not during("resnet", act).train().layer1[0][0].bn1.training


def test_comparing_costs_little_in_a_network_of_eighty_layers():
    model = build_skeleton(lambda: LlamaForCausalLM(LlamaConfig(num_hidden_layers=80)))
    times = []
    for _ in range(3):
        start = time.process_time()
        before, after = (ModuleStates(model.named_modules()) for _ in range(2))
        assert list(before.changes(after)) == []
        times.append(time.process_time() - start)
    assert min(times) < 0.15


def test_a_value_that_does_not_equal_itself_is_not_a_change():
    module = nn.Linear(1, 1)
    module.threshold = float("nan")
    module.table = {"a": [1, {2}], "b": torch.ones(2)}
    before = ModuleStates([("", module)])
    assert list(before.changes(ModuleStates([("", module)]))) == []
    module.table["b"].add_(1)
    assert [change.attribute for change in before.changes(ModuleStates([("", module)]))] == ["table"]


@pytest.mark.parametrize("family", HEADS)
@pytest.mark.parametrize("way", ["derive", "fill", "new"])
def test_values_laid_out_by_columns_are_stored_by_rows(family, way):
    def by_columns(weight: torch.Tensor) -> torch.Tensor:
        return torch.linalg.svd(weight, full_matrices=False)[2].T.contiguous().T

    class Factored(nn.Linear):
        def reset_parameters(self) -> None:
            super().reset_parameters()
            self.weight = nn.Parameter(torch.empty(self.weight.shape[::-1]).T)
            nn.init.ones_(self.weight)

    def act(surgery, head):
        if way == "new":
            surgery.replace(HEADS[family], surgery.new(Factored, head.in_features, 3, like=head))
        else:
            arguments = (head.weight, [head.weight], by_columns) if way == "derive" else (head.weight, by_columns)
            getattr(surgery, way)(*arguments)

    assert during(family, act).get_submodule(HEADS[family]).weight.is_contiguous()
