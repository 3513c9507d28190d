"""Part of a network is initialised again."""

from __future__ import annotations

import pytest
import torch
from families import FAMILIES, build, example
from pydantic import ValidationError
from torch import nn

import surgeon
from surgeon.errors import OperationError
from surgeon.nn.progressive import ProgressiveNetwork
from surgeon.operations import Freeze, Multitask, Progressive, Reinit, ReplaceHead
from surgeon.testing import check_operations

LAST = {
    "resnet": ("layer4.1.", "fc."),
    "densenet": ("features.denseblock4.denselayer2.", "features.norm5.", "classifier."),
    "googlenet": ("inception5b.", "fc.", "aux"),
    "bert": ("bert.encoder.layer.3.", "bert.pooler.", "classifier."),
    "llama": ("model.layers.3.", "model.norm.", "lm_head."),
    "hf_convnext": ("convnext.encoder.stages.2.layers.1.", "convnext.layernorm.", "classifier."),
}
"""What runs from the last block on."""


class Custom(nn.Module):
    """A network that only its author can build, with a parameter that no layer resets."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(1))
        self.attention = nn.MultiheadAttention(8, 2, batch_first=True)
        self.out = nn.Linear(8, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.out(self.attention(x * self.scale, x, x)[0])


def differing(one: nn.Module, other: nn.Module) -> set[str]:
    state = other.state_dict()
    return {name for name, tensor in one.state_dict().items() if not torch.equal(tensor, state[name])}


@pytest.mark.parametrize("name", list(LAST))
def test_the_last_block_and_what_runs_after_it_are_reinitialised(name):
    args, kwargs = example(name)
    edited = check_operations(FAMILIES[name], [Reinit(last=1)], args, kwargs)
    model = build(name)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(1)  # so that a new value differs for certain, also that of a bias of zeros
    edited = surgeon.apply(model, [Reinit(last=1)])
    changed = differing(model, edited)
    expected = {key for key, _ in model.named_parameters() if key.startswith(LAST[name])}
    assert changed == expected


def test_values_are_those_of_the_architectures_own_initialisation():
    model = build("hf_vit")
    with torch.no_grad():
        model.vit.layers[3].mlp.fc1.weight.zero_()
    edited = surgeon.apply(model, [Reinit(sites="vit.layers.3")])
    drawn = edited.vit.layers[3].mlp.fc1
    assert 0.015 < drawn.weight.std() < 0.025, "transformers draws with a standard deviation of 0.02"
    assert not drawn.bias.any()
    resnet = surgeon.apply(build("resnet"), [Reinit(sites="layer4.1.conv2")])
    assert abs(resnet.layer4[1].conv2.weight.std() / (2 / (512 * 9)) ** 0.5 - 1) < 0.02, "kaiming_normal_, fan_out"


def test_statistics_are_reinitialised_with_the_parameters():
    model = build("resnet")
    model.layer4[1].bn2.running_mean.fill_(3)
    edited = surgeon.apply(model, [Reinit(sites="layer4.1")])
    assert not edited.layer4[1].bn2.running_mean.any()


def test_a_layer_that_initialises_its_parts_has_the_last_word():
    edited = surgeon.apply(Custom().eval(), [Reinit(sites="attention")])
    assert not edited.attention.out_proj.bias.any(), "MultiheadAttention puts zeros there"


def test_the_seed_decides_and_nothing_else():
    model = build("resnet")
    one, other = (surgeon.apply(model, [Reinit(last=2)], seed=seed) for seed in (1, 2))
    again = surgeon.apply(model, [Freeze(up_to="layer1"), Reinit(last=2)], seed=1)
    assert not differing(one, again)
    assert differing(one, other) >= {"layer4.0.conv1.weight", "fc.weight"}


def test_a_new_head_and_branches_are_drawn_by_their_layers():
    operations = [ReplaceHead(classes=3), Multitask(tasks={"a": {"classes": 2}})]
    model = surgeon.apply(build("resnet"), operations, seed=1)
    edited = surgeon.apply(model, [Reinit(sites=["@head", "grafts"])], seed=2)
    assert differing(model, edited) == {f"grafts.a.head.layers.{key}" for key in ("weight", "bias")} | {
        "fc.weight",
        "fc.bias",
    }


def test_the_newest_of_several_columns_is_drawn_as_its_architecture_does():
    model = surgeon.apply(build("resnet"), [Progressive(task="second")])
    edited = surgeon.apply(model, [Reinit(sites="columns.1.layer4")])
    assert isinstance(edited, ProgressiveNetwork)
    assert abs(edited.columns[1].layer4[1].conv2.weight.std() / (2 / (512 * 9)) ** 0.5 - 1) < 0.02


def test_what_is_tied_to_a_kept_tensor_keeps_its_values():
    model = build("gpt2")
    plan = surgeon.plan(model, [Reinit(last=1)])
    assert plan.steps[0].notes == ("lm_head.weight is one tensor with transformer.wte.weight, which keeps its values",)
    edited = surgeon.apply(model, [Reinit(last=1)])
    assert edited.lm_head.weight is edited.transformer.wte.weight
    assert torch.equal(edited.lm_head.weight, model.lm_head.weight)


def test_the_plan_shows_what_is_reinitialised_and_reads_none_of_it():
    plan = surgeon.plan(build("resnet"), [Reinit(last=2)])
    assert [(edit.mark, edit.site, edit.what) for edit in plan.steps[0].edits] == [
        ("~", "layer4", "reinitialised"),
        ("~", "fc", "reinitialised"),
    ]
    assert plan.counts == "90 of 122 tensors kept, 32 new by reinit"
    assert plan.bytes_read < plan.bytes_written / 3


def test_frozen_parameters_that_become_random_are_noted():
    plan = surgeon.plan(build("resnet"), [Freeze(sites="fc"), Reinit(sites="fc")])
    assert plan.steps[1].notes == ("2 of the initialised parameters are frozen, and stay random",)


@pytest.mark.parametrize(
    ("fields", "words"),
    [({}, "exactly one"), ({"sites": "fc", "last": 1}, "exactly one"), ({"last": 0}, "greater than 0")],
)
def test_what_to_draw_is_said_in_one_way(fields, words):
    with pytest.raises(ValidationError, match=words):
        Reinit(**fields)


@pytest.mark.parametrize(
    ("model", "fields", "words"),
    [
        (build("resnet"), {"last": 9}, "has 8 blocks, not 9"),
        (build("resnet"), {"sites": "relu"}, "hold no tensors"),
        (Custom().eval(), {"sites": "."}, "cannot reinitialise 1 parameters: scale"),
    ],
)
def test_what_cannot_be_drawn_is_refused(model, fields, words):
    with pytest.raises(OperationError, match=words):
        surgeon.plan(model, [Reinit(**fields)], inputs=[[2, 4, 8]] if isinstance(model, Custom) else None)
