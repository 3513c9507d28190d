"""Surgery: authors see its documented verbs only, and each verb refuses what it cannot do."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest
import torch
from families import build, example
from torch import nn

import surgeon
from surgeon.errors import OperationError, SiteError
from surgeon.interfaces.operation import Operation
from surgeon.interfaces.registered import registered
from surgeon.surgery.context import Surgery
from surgeon.surgery.origins import Flow

ROOT = Path(__file__).resolve().parents[2]


def during(model: nn.Module, act) -> nn.Module:
    """Apply an operation whose ``apply`` calls ``act(surgery)``."""

    class Act(Operation):
        """Calls a function of the test's."""

        def apply(self, model, surgery):
            """Call it."""
            act(surgery)
            return surgery.model

    return surgeon.apply(model, [Act()])


def documented() -> set[str]:
    return set(re.findall(r"``(\w+)``", Surgery.__doc__ or ""))


def test_an_author_sees_the_documented_verbs_and_nothing_else():
    seen: set[str] = set()
    during(build("resnet"), lambda surgery: seen.update(name for name in dir(surgery) if not name.startswith("_")))
    assert seen == documented() | {"check_roles"}


@pytest.mark.parametrize("folder", ["surgeon/operations", "surgeon/advising", "plugins", "recipes"])
def test_operations_use_documented_verbs_only(folder):
    used = {
        (path.name, node.attr)
        for path in (ROOT / folder).rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "surgery"
    }
    assert {(name, attribute) for name, attribute in used if attribute not in documented()} == set()


def test_drawn_tensors_take_the_values_of_the_module_that_the_factory_builds():
    def twos() -> nn.Module:
        layer = nn.Linear(512, 5)
        nn.init.constant_(layer.weight, 2.0)
        return layer

    edited = during(build("resnet"), lambda surgery: surgery.draw({"weight": surgery.model.fc.weight}, twos))
    assert edited.fc.weight.eq(2).all()
    assert torch.equal(edited.fc.bias, build("resnet").fc.bias)


def test_a_copied_origin_gives_both_tensors_the_same_values():
    def act(surgery: Surgery) -> None:
        first, second = (surgery.model.layer1[i].conv1.weight for i in (0, 1))
        surgery.copy_origin(second, first)

    model = build("resnet")
    edited = during(model, act)
    assert torch.equal(edited.layer1[1].conv1.weight, model.layer1[0].conv1.weight)
    assert not torch.equal(model.layer1[1].conv1.weight, model.layer1[0].conv1.weight)


@pytest.mark.parametrize(
    "act",
    [
        lambda surgery: surgery.copy_origin(surgery.model.fc.weight, torch.zeros(2)),
        lambda surgery: surgery.derive(surgery.model.fc.weight, [torch.zeros(2)], lambda value: value),
        lambda surgery: surgery.fill(torch.zeros(2), nn.init.zeros_),
        lambda surgery: surgery.weight(torch.zeros(2)),
    ],
    ids=["copy_origin", "derive", "fill", "weight"],
)
def test_a_tensor_from_elsewhere_is_refused_with_where_to_take_one(act):
    with pytest.raises(OperationError, match=r"of shape \(2,\) belongs neither to this network nor to a new module"):
        during(build("resnet"), act)


def test_weights_are_read_while_operations_run():
    model, read = build("resnet"), []

    def act(surgery: Surgery) -> None:
        surgery.recall("bias", lambda: read.append(surgery.weight(surgery.model.fc.bias)))

    during(model, act)
    assert torch.equal(read[0], model.fc.bias)


def test_weights_read_outside_recall_are_refused_before_anything_is_written():
    with pytest.raises(OperationError, match=r"weight\(\) is called outside recall") as refused:
        during(build("resnet"), lambda surgery: surgery.weight(surgery.model.fc.bias))
    assert "surgery.recall('the largest'" in str(refused.value)


def test_a_filled_copy_runs_with_the_values_that_the_network_will_have():
    model, outputs = build("gpt2").eval(), []
    ids = torch.tensor([[1, 2, 3]])

    def act(surgery: Surgery) -> None:
        surgery.fill(surgery.model.transformer.h[0].ln_1.weight, nn.init.zeros_)
        with torch.no_grad():
            surgery.recall("logits", lambda: outputs.append(surgery.filled()(ids).logits))

    edited = during(model, act)
    with torch.no_grad():
        assert torch.equal(outputs[0], edited(ids).logits)
        assert not torch.equal(outputs[0], model(ids).logits)


def test_a_filled_copy_shares_nothing_with_the_source():
    model = build("resnet")

    def act(surgery: Surgery) -> None:
        with torch.no_grad():
            surgery.recall("zeroed", lambda: surgery.filled().fc.bias.fill_(7.0).tolist())

    edited = during(model, act)
    assert not (model.fc.bias == 7).any()
    assert torch.equal(edited.fc.bias, model.fc.bias)


def test_a_network_is_filled_in_recall_only():
    with pytest.raises(OperationError, match=r"filled\(\) is called outside recall"):
        during(build("resnet"), lambda surgery: surgery.filled())


def test_the_record_says_where_the_network_comes_from(tmp_path):
    path = surgeon.save(surgeon.apply(build("resnet"), [surgeon.Freeze(sites="layer1")]), tmp_path / "artifact")
    sources: list[str] = []

    class Look(Operation):
        """Reads the record."""

        def apply(self, model, surgery):
            """Read it."""
            surgery.recall("source", lambda: sources.append(surgery.record.surgeries[0].operations[0]["op"]))
            return surgery.model

    surgeon.plan(path, [Look()], arch=lambda: build("resnet"))
    assert sources == ["freeze"]


def test_a_reshaped_parameter_has_the_computed_values_under_every_name():
    model = build("gpt2")
    width = model.transformer.wte.weight.shape[1]

    def act(surgery: Surgery) -> None:
        surgery.reshape("transformer.wte", "weight", (8, width), lambda weight: weight[:8])

    edited = during(model, act)
    assert edited.lm_head.weight is edited.transformer.wte.weight
    assert torch.equal(edited.lm_head.weight, model.lm_head.weight[:8])


def test_a_site_that_an_operation_removed_is_named_with_it():
    from surgeon.operations import Freeze, Truncate

    with pytest.raises(SiteError, match=r"'layer4' does not exist any more: truncate removed layer4"):
        surgeon.plan(build("resnet"), [Truncate(after="layer2"), Freeze(sites="layer4")])


@pytest.mark.parametrize(
    ("name", "says"), [("extra", "an output 'extra' already exists"), ("two words", "cannot name an output")]
)
def test_a_branch_needs_a_new_name_that_is_an_identifier(name, says):
    def act(surgery: Surgery) -> None:
        surgery.branch("extra", "layer1", surgery.new(nn.Identity))
        surgery.branch(name, "layer2", surgery.new(nn.Identity))

    with pytest.raises(OperationError, match=says):
        during(build("resnet"), act)


def test_a_module_that_a_branch_reads_is_not_removed():
    def act(surgery: Surgery) -> None:
        surgery.branch("extra", "layer4", surgery.new(nn.Identity))
        surgery.cut("layer2")

    with pytest.raises(OperationError, match="act would remove layer4, which the branch 'extra' of act reads"):
        during(build("resnet"), act)


def test_an_attached_module_needs_a_free_name():
    with pytest.raises(OperationError, match="layer1 already has '0'"):
        during(build("resnet"), lambda surgery: surgery.attach("layer1", "0", surgery.new(nn.Identity)))


def test_an_inserted_module_runs_before_its_site_where_that_is_said():
    class Double(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x * 2

    model = build("resnet")
    edited = during(model, lambda surgery: surgery.insert("fc", surgery.new(Double), where="before"))
    args, _ = example("resnet")
    with torch.no_grad():
        features = nn.Sequential(*list(model.children())[:-1])(*args).flatten(1)
        assert torch.allclose(edited(*args), model.fc(features * 2), atol=1e-5)


def test_spared_sites_go_on_training_when_a_tied_tensor_is_frozen():
    def act(surgery: Surgery) -> None:
        surgery.freeze(surgery.select("transformer.wte"), spare=surgery.select("lm_head"))

    edited = during(build("gpt2"), act)
    assert edited.lm_head.weight.requires_grad


def svd(weight: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    left, values, right = torch.linalg.svd(weight.float(), full_matrices=False)
    return left[:, :2] * values[:2], right[:2]


def test_several_tensors_are_derived_from_one_computation():
    model, calls = build("resnet"), []

    def counted(weight: torch.Tensor) -> tuple[torch.Tensor, ...]:
        calls.append(weight)
        return svd(weight)

    def act(surgery: Surgery) -> None:
        weight = surgery.model.fc.weight
        factors = surgery.new(nn.Sequential, nn.Linear(512, 2, bias=False), nn.Linear(2, weight.shape[0]))
        surgery.derive([factors[1].weight, factors[0].weight], [weight], counted)
        surgery.copy_origin(factors[1].bias, surgery.model.fc.bias)
        surgery.replace("fc", factors)

    edited = during(model, act)
    left, right = svd(model.fc.weight.detach())
    assert len(calls) == 1
    assert torch.equal(edited.fc[1].weight, left)
    assert torch.equal(edited.fc[0].weight, right)


@pytest.mark.parametrize("wrong", [lambda w: w, lambda w: (w,), lambda w: None], ids=["tensor", "one", "None"])
def test_one_computation_for_several_tensors_must_return_as_many(wrong):
    def act(surgery: Surgery) -> None:
        surgery.derive([surgery.model.fc.weight, surgery.model.fc.bias], [surgery.model.fc.weight], wrong)

    with pytest.raises(OperationError, match=r"where the values of 2 tensors were expected[\s\S]*a tuple"):
        during(build("resnet"), act)


class Strongest(Operation):
    """Keep the strongest classes of the head."""

    count: int = 3
    assumed: int = 3

    def apply(self, model, surgery):
        """Choose them by their weights."""
        weight = model.fc.weight

        def strongest() -> list[int]:
            return surgery.weight(weight).norm(dim=1).topk(self.count).indices.tolist()

        kept = surgery.choose("strongest", strongest, plan=list(range(self.assumed)), subject="fc")
        surgery.reshape("fc", "weight", (len(kept), weight.shape[1]), lambda old: old[kept])
        surgery.reshape("fc", "bias", (len(kept),), lambda old: old[kept])
        surgery.set("fc", "out_features", len(kept))
        return surgery.model


def test_a_choice_by_weights_reads_none_in_a_plan_and_says_what_it_assumes(monkeypatch):
    model = build("resnet")
    with monkeypatch.context() as patch:
        patch.setattr(Flow, "evaluate", lambda *_: pytest.fail("a plan reads no weight"))
        planned = surgeon.plan(model, [Strongest()])
    assert {fact.name: fact.shape for fact in planned.tensors}["fc.weight"][0] == 3
    (note,) = planned.steps[0].notes
    assert "'strongest' of fc is chosen by weights" in note
    assert "[0, 1, 2]" in note
    edited = surgeon.apply(model, [Strongest()])
    expected = model.fc.weight.norm(dim=1).topk(3).indices
    assert torch.equal(edited.fc.weight, model.fc.weight[expected])


def test_a_choice_is_recorded_and_not_made_again_on_loading(tmp_path):
    with registered(Strongest):
        model = build("resnet")
        edited = surgeon.apply(model, [Strongest()])
        surgeon.save(edited, tmp_path / "out")
        again = surgeon.load(tmp_path / "out", arch=lambda: build("resnet"))
    assert torch.equal(again.fc.weight, edited.fc.weight)


def test_a_choice_of_another_form_than_plans_assume_is_refused():
    with pytest.raises(OperationError, match=r"another form than \[0, 1\], which plans assume[\s\S]*plan="):
        surgeon.apply(build("resnet"), [Strongest(assumed=2)])


@pytest.mark.parametrize("place", ["layer1.0", "layer1", "layer1.0.conv1"])
@pytest.mark.parametrize("where", ["after", "before"])
def test_insert_returns_the_site_of_the_new_module(place, where):
    sites = []
    edited = during(
        build("resnet"),
        lambda surgery: sites.append(surgery.insert(place, surgery.new(nn.Dropout, 0.1), where=where)),
    )
    assert isinstance(edited.get_submodule(sites[0].name), nn.Dropout)
    assert type(sites[0].module) is nn.Dropout
