"""A domain branch whose gradient reaches the trunk with the other sign."""

from __future__ import annotations

import copy
import math

import pytest
import torch
from families import FAMILIES, build, example
from pydantic import ValidationError

import surgeon
from surgeon.errors import OperationError
from surgeon.operations import GradientReversal, Multitask, ReplaceHead, Truncate
from surgeon.testing import check_operations

AT = {"lraspp": "backbone", "fasterrcnn": "backbone.body"}
STRENGTH = "grafts.domain.head.reversal.strength"


@pytest.mark.parametrize("name", sorted(set(FAMILIES) - {"ssdlite", "fasterrcnn"}))
def test_the_domain_is_one_more_output(name):
    args, kwargs = example(name)
    operation = GradientReversal(domains=3, hidden=[8], at=AT.get(name))
    edited = check_operations(FAMILIES[name], [operation], args, kwargs)
    assert edited(*args, **kwargs)["domain"].shape == (2, 3)


def trunk_gradient(model, name, output):
    model.zero_grad()
    args, kwargs = example(name)
    weights = torch.arange(1.0, 1 + model(*args, **kwargs)[output].shape[1])
    (model(*args, **kwargs)[output] * weights).sum().backward()
    return {n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("name", ["resnet", "vit", "bert", "hf_convnext"])
@pytest.mark.parametrize("strength", [0.0, 0.25, 2.0])
def test_the_trunk_gets_minus_lambda_times_the_gradient_and_the_branch_its_own(name, strength):
    """Against the same head without a reversal: the powers of two make the comparison exact."""
    operation = GradientReversal(domains=2, hidden=[8], strength=strength)
    edited = surgeon.apply(build(name), [operation])
    plain = copy.deepcopy(edited)
    plain.grafts["domain"].head.reversal = None
    reversed_, straight = (trunk_gradient(model, name, "domain") for model in (edited, plain))
    trunk = [key for key in straight if not key.startswith("grafts")]
    branch = [key for key in straight if key.startswith("grafts")]
    assert any(straight[key].abs().max() > 0 for key in trunk)
    assert branch
    for key in trunk:
        assert torch.allclose(reversed_[key], -strength * straight[key], rtol=1e-5, atol=1e-7), key
    for key in branch:
        assert torch.equal(reversed_[key], straight[key])


def test_the_gradient_is_what_pencil_and_paper_say():
    """Features f = mean of the map, domain scores W f + b: dL/df = W' g, and the trunk gets -λ of it."""
    edited = surgeon.apply(build("resnet"), [GradientReversal(at="layer4", strength=0.5)])
    head = edited.grafts["domain"].head
    maps = torch.randn(2, 512, 2, 2, requires_grad=True)
    head(maps).backward(gradient=torch.tensor([[1.0, -1.0], [2.0, 0.5]]))
    weight = head.layers.weight
    for sample, (first, second) in enumerate([(1.0, -1.0), (2.0, 0.5)]):
        expected = -0.5 * (first * weight[0] + second * weight[1]) / 4
        assert torch.allclose(maps.grad[sample], expected[:, None, None].expand(512, 2, 2), atol=1e-7)


def test_lambda_is_stored_with_the_model(tmp_path):
    edited = surgeon.apply(build("resnet"), [GradientReversal(strength=0.75)])
    assert edited.state_dict()[STRENGTH] == 0.75
    edited.get_buffer(STRENGTH).fill_(0.3)
    surgeon.save(edited, tmp_path / "edited")
    again = surgeon.load(tmp_path / "edited", arch=FAMILIES["resnet"])
    assert again.get_buffer(STRENGTH) == edited.get_buffer(STRENGTH)
    assert copy.deepcopy(again).get_buffer(STRENGTH) == edited.get_buffer(STRENGTH)


@pytest.mark.parametrize("kind", ["dann", "linear"])
def test_a_scheduled_lambda_starts_at_zero_and_its_buffer_exists(kind):
    operation = GradientReversal(schedule=kind, strength=0.5, gamma=5)
    (schedule,) = operation.schedules()
    assert (schedule.buffer, schedule.kind, schedule.peak, schedule.gamma) == (STRENGTH, kind, 0.5, 5)
    edited = surgeon.apply(build("resnet"), [operation])
    assert edited.get_buffer(schedule.buffer) == 0


def test_a_fixed_lambda_has_no_schedule():
    operation = GradientReversal(strength=0.5, label="site", weight=0.1)
    assert operation.schedules() == []
    (objective,) = operation.objectives()
    assert (objective.output, objective.loss, objective.label, objective.weight) == (
        "domain", "cross_entropy", "site", 0.1,
    )  # fmt: skip


def test_several_branches_stand_at_once_each_with_its_own_lambda():
    operations = [
        GradientReversal(at="layer2", output="scanner", domains=4, strength=0.25),
        GradientReversal(output="hospital", domains=3, schedule="dann", pool="max"),
        Multitask(tasks={"species": {"classes": 2}}),
    ]
    args, kwargs = example("resnet")
    edited = check_operations(FAMILIES["resnet"], operations, args, kwargs)
    outputs = edited(*args)
    assert {name: tuple(value.shape) for name, value in outputs.items()} == {
        "logits": (2, 5), "scanner": (2, 4), "hospital": (2, 3), "species": (2, 2),
    }  # fmt: skip
    buffers = [schedule.buffer for operation in operations for schedule in operation.schedules()]
    assert buffers == ["grafts.hospital.head.reversal.strength"]
    assert edited.get_buffer("grafts.scanner.head.reversal.strength") == 0.25


def test_a_branch_reads_what_a_new_head_on_a_truncated_network_reads():
    operations = [Truncate(after="layer3"), ReplaceHead(classes=3), GradientReversal()]
    args, kwargs = example("resnet")
    edited = check_operations(FAMILIES["resnet"], operations, args, kwargs)
    assert {name: tuple(value.shape) for name, value in edited(*args).items()} == {"logits": (2, 3), "domain": (2, 2)}
    assert edited.grafts["domain"].head.layers.in_features == 256


def test_training_makes_the_trunk_forget_the_domain():
    """A trunk that only ever sees the reversed loss makes the domains harder to tell apart."""
    torch.manual_seed(0)
    trunk = torch.nn.Sequential(torch.nn.Linear(4, 4), torch.nn.Linear(4, 2))
    domain = torch.arange(64) % 2
    data = torch.randn(64, 4) + domain[:, None] * 2.0
    edited = surgeon.apply(trunk, [GradientReversal(at="0", hidden=[8])], inputs=[[2, 4]]).train()
    branch, body = edited.grafts.parameters(), [p for n, p in edited.named_parameters() if not n.startswith("grafts")]

    def gap():
        features = edited[0](data).detach()
        return float((features[domain == 0].mean(0) - features[domain == 1].mean(0)).norm())

    before = gap()
    optimizer = torch.optim.SGD([{"params": branch, "lr": 0.5}, {"params": body, "lr": 0.05}])
    for _ in range(60):
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(edited(data).domain, domain).backward()
        optimizer.step()
    assert gap() < 0.6 * before


@pytest.mark.parametrize("name", ["resnet", "bert"])
def test_the_branch_compiles_whole_with_its_gradient(name):
    args, kwargs = example(name)
    edited = surgeon.apply(build(name), [GradientReversal(strength=0.5)])
    compiled = torch.compile(copy.deepcopy(edited), fullgraph=True, backend="aot_eager")
    gradients = []
    for model in (edited, compiled):
        model(*args, **kwargs)["domain"].square().sum().backward()
        gradients.append(next(p.grad for p in model.parameters() if p.grad is not None))
    assert torch.allclose(*gradients, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"strength": -1.0}, "greater than or equal to 0"),
        ({"strength": math.inf}, "finite"),
        ({"domains": 1}, "greater than or equal to 2"),
        ({"output": "items"}, "cannot name an output"),
        ({"schedule": "cosine"}, "dann"),
        ({"gamma": 0}, "greater than 0"),
    ],
)
def test_fields_out_of_range_are_refused(fields, words):
    with pytest.raises(ValidationError, match=words):
        GradientReversal(**fields)


def test_a_name_that_is_taken_is_refused():
    with pytest.raises(OperationError, match="already has an output 'logits'"):
        surgeon.plan(build("resnet"), [GradientReversal(output="logits")])
