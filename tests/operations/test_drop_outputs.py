"""drop_outputs: a network is delivered without the branches that its training needed."""

from __future__ import annotations

import pytest
import torch
from families import build, example
from safetensors.torch import load_file
from torch import nn
from torchvision.models import resnet18
from transformers import AutoModelForSequenceClassification

import surgeon
from surgeon.data.columns import Columns
from surgeon.errors import OperationError
from surgeon.operations import DropOutputs, GradientReversal, Multitask, ReplaceHead, Truncate
from surgeon.testing import check_operations

DOMAIN = GradientReversal(hidden=[8], schedule="dann")


def outputs_of(model: nn.Module, name: str) -> torch.Tensor:
    args, kwargs = example(name)
    with torch.no_grad():
        output = model.eval()(*args, **kwargs)
    return output if isinstance(output, torch.Tensor) else output["logits"]


@pytest.mark.parametrize("name", ["resnet", "vit", "bert", "hf_convnext"])
def test_the_network_is_what_it_was_before_the_branch(name):
    original = build(name)
    branched = surgeon.apply(original, [DOMAIN])
    assert type(branched) is not type(original)
    dropped = surgeon.apply(branched, [DropOutputs(outputs="domain")])
    assert type(dropped) is type(original)
    assert dropped.state_dict().keys() == original.state_dict().keys()
    assert vars(dropped).keys() - {"surgeon_record"} == vars(original).keys()
    assert not any(module._forward_hooks for module in dropped.modules())
    assert torch.equal(outputs_of(dropped, name), outputs_of(original, name))
    assert "domain" in outputs_of_branched(branched, name)


def outputs_of_branched(model: nn.Module, name: str) -> dict[str, torch.Tensor]:
    args, kwargs = example(name)
    return model(*args, **kwargs)


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Linear(4, 8)
        self.fc = nn.Linear(8, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.fc(self.body(x).relu())


def test_it_keeps_what_the_kit_checks():
    def branched() -> nn.Module:
        model = surgeon.apply(Net(), [DOMAIN], seed=3, inputs=[2, 4])
        model.load_state_dict({name: torch.ones_like(tensor) for name, tensor in model.state_dict().items()})
        del model.surgeon_record  # the kit builds the network by this function, not from the record
        return model

    check_operations(branched, [DropOutputs(outputs="domain")], (torch.randn(2, 4),))


def test_what_is_shipped_after_training_is_the_stock_class(tmp_path):
    """As one uses it: adversarial training, an artifact, a second recipe, an artifact that loads without surgeon."""
    tokens = example("bert")[1]["input_ids"].repeat(4, 1)
    labels = torch.arange(len(tokens)) % 2
    data = Columns(input_ids=tokens, attention_mask=torch.ones_like(tokens), labels=labels, domain=1 - labels)
    splits = surgeon.Splits(data, data, inputs=("input_ids", "attention_mask"))
    settings = surgeon.TrainSettings(epochs=1, batch_size=8, baseline="none", learning_rate=0.01)
    trained, _ = surgeon.finetune(build("bert"), [ReplaceHead(classes=2), DOMAIN], settings=settings, data=splits)
    surgeon.save(trained, tmp_path / "trained")
    operation = DropOutputs(outputs="domain")

    plan = surgeon.plan(tmp_path / "trained", [operation])
    assert [(edit.mark, edit.site) for edit in plan.steps[0].edits] == [("-", "grafts.domain")]
    assert plan.parameters == plan.parameters_before - sum(p.numel() for p in trained.grafts.parameters())

    surgeon.save(surgeon.apply(tmp_path / "trained", [operation]), tmp_path / "shipped")
    assert surgeon.check(tmp_path / "shipped")
    stock = AutoModelForSequenceClassification.from_pretrained(tmp_path / "shipped")
    loaded = surgeon.load(tmp_path / "shipped")
    assert type(loaded) is type(stock)
    args, kwargs = example("bert")
    expected = trained.eval()(*args, **kwargs)["logits"]
    assert torch.equal(stock.eval()(*args, **kwargs).logits, expected)
    assert torch.equal(loaded.eval()(*args, **kwargs).logits, expected)
    evaluation = surgeon.evaluate(tmp_path / "shipped", splits, part="test")
    assert set(evaluation.measures) == {"logits"}


def test_torchvision_alone_loads_the_weights(tmp_path):
    surgeon.save(surgeon.apply(build("resnet"), [DOMAIN]), tmp_path / "trained")
    dropped = surgeon.apply(tmp_path / "trained", [DropOutputs(outputs=["domain"])])
    surgeon.save(dropped, tmp_path / "shipped")
    stock = resnet18(num_classes=dropped.fc.out_features)
    stock.load_state_dict(load_file(tmp_path / "shipped/model.safetensors"))
    assert torch.equal(outputs_of(stock, "resnet"), outputs_of(surgeon.load(tmp_path / "shipped"), "resnet"))


def test_a_sequence_is_one_again():
    model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3))
    inputs = {"inputs": [[2, 4]]}
    branched = surgeon.apply(model, [GradientReversal(at="1")], **inputs)
    dropped = surgeon.apply(branched, [DropOutputs(outputs="domain")], **inputs)
    assert type(dropped) is nn.Sequential
    assert len(dropped) == 3


def test_other_branches_stay():
    tasks = Multitask(tasks={"kind": {"classes": 2}, "size": {"kind": "regression", "classes": 1}})
    model = surgeon.apply(build("resnet"), [DOMAIN, tasks])
    dropped = surgeon.apply(model, [DropOutputs(outputs=["domain", "size"])])
    args, kwargs = example("resnet")
    assert set(dropped(*args, **kwargs)) == {"logits", "kind"}
    assert torch.equal(dropped.eval()(*args, **kwargs)["kind"], model.eval()(*args, **kwargs)["kind"])


def test_a_network_that_ends_early_still_does():
    model = surgeon.apply(build("resnet"), [Truncate(after="layer2"), DOMAIN])
    dropped = surgeon.apply(model, [DropOutputs(outputs="domain")])
    args, kwargs = example("resnet")
    assert torch.equal(dropped.eval()(*args, **kwargs), model.eval()(*args, **kwargs)["features"])


@pytest.mark.parametrize(
    ("before", "outputs", "message"),
    [
        ([DOMAIN], "domains", r"no branch computes an output 'domains' \(branches: domain\)[\s\S]*domain"),
        ([], "logits", r"no branch computes an output 'logits' \(branches: none\)"),
        ([Multitask(tasks={"kind": {"classes": 2}}, original="drop")], "kind", "'kind' is the only output"),
    ],
)
def test_what_is_no_branch_is_refused(before, outputs, message):
    model = surgeon.apply(build("resnet"), before) if before else build("resnet")
    with pytest.raises(OperationError, match=message):
        surgeon.plan(model, [DropOutputs(outputs=outputs)])


def test_a_name_twice_is_refused():
    with pytest.raises(ValueError, match="outputs named twice: domain"):
        DropOutputs(outputs=["domain", "domain"])
