"""The progressive operation on real networks."""

from __future__ import annotations

import copy
from functools import cache

import families
import pytest
import torch
from pydantic import ValidationError
from torch import nn

import surgeon
from surgeon.errors import OperationError, SiteError
from surgeon.nn.features import main_tensor
from surgeon.nn.progressive import ProgressiveNetwork

SAMPLE = [
    "resnet", "vgg", "densenet", "vit", "swin", "convnext", "mobilenet", "googlenet", "fcn", "video", "bert",
    "distilbert", "gpt2", "llama", "t5", "hf_vit", "hf_swin", "hf_convnext", "wav2vec2", "whisper",
]  # fmt: skip
SMALL = ["vgg", "gpt2", "hf_swin"]


@cache
def _made(name: str, column: str = "copy", twice: bool = False) -> ProgressiveNetwork:
    operations = [surgeon.Progressive(task="second", column=column)]
    operations += [surgeon.Progressive(task="third", adapter="mlp")] if twice else []
    return surgeon.apply(families.build(name), operations, seed=3)  # type: ignore[return-value]


def made(name: str, column: str = "copy", *, twice: bool = False) -> ProgressiveNetwork:
    return copy.deepcopy(_made(name, column, twice))


@torch.no_grad()
def outputs(model: nn.Module, name: str) -> dict[str, torch.Tensor]:
    args, kwargs = families.example(name)
    return dict(model(*args, **kwargs))


@torch.no_grad()
def original(name: str) -> torch.Tensor:
    args, kwargs = families.example(name)
    return main_tensor(families.build(name)(*args, **kwargs))


def step(model: nn.Module, name: str, output: str) -> None:
    args, kwargs = families.example(name)
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=0.1)
    for _ in range(2):  # torchvision's ViT has a head of zeros, through which the first gradient is zero
        optimizer.zero_grad()
        (model.train()(*args, **kwargs)[output].float() - 1).pow(2).mean().backward()
        optimizer.step()


def tensors(model: nn.Module) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in model.state_dict().items()}


@pytest.mark.parametrize("name", SAMPLE)
def test_first_column_stays_the_same_to_the_bit_through_training_saving_and_loading(name, tmp_path):
    model, expected = made(name), original(name)
    assert list(outputs(model, name)) == ["task1", "second"]
    assert torch.equal(outputs(model, name)["task1"], expected)
    before = tensors(model)
    step(model, name, "second")
    after = model.state_dict()
    moved = {key for key in before if not torch.equal(before[key], after[key])}
    assert all(key.startswith(("columns.1.", "laterals.1.")) for key in moved)
    assert any(key.startswith("laterals.1.") for key in moved)
    trains = {key for key, p in model.named_parameters(remove_duplicate=False) if p.requires_grad}
    assert not {key for key in moved if key not in trains and "running_" not in key and "num_batches" not in key}
    assert torch.equal(outputs(model, name)["task1"], expected), "in train mode"
    assert torch.equal(outputs(model.eval(), name)["task1"], expected), "in eval mode"
    surgeon.save(model, tmp_path / "artifact")
    loaded = surgeon.load(tmp_path / "artifact", arch=getattr(families, name))
    results = outputs(model, name)
    for key, value in outputs(loaded, name).items():
        assert torch.equal(value, results[key])


@pytest.mark.parametrize("name", ["hf_vit", "mobilenet", "bert", "gpt2", "t5"])
def test_a_copied_column_starts_close_to_what_it_copies(name):
    model = made(name)
    result = outputs(model, name)
    torch.testing.assert_close(result["second"], result["task1"], atol=0.06, rtol=0)
    assert not torch.equal(result["second"], result["task1"]), "the lateral connections are in"
    for key, value in model.columns[0].state_dict().items():
        assert torch.equal(value, model.columns[1].state_dict()[key])
    assert not {id(p) for p in model.columns[0].parameters()} & {id(p) for p in model.columns[1].parameters()}


@pytest.mark.parametrize("name", ["gpt2", "t5"])
def test_ties_are_copied_as_ties(name):
    column = made(name).columns[1]
    assert column.lm_head.weight is column.get_input_embeddings().weight


@pytest.mark.parametrize("name", SMALL)
def test_a_third_column_is_fed_by_both_and_changes_neither(name, tmp_path):
    model = made(name, twice=True)
    result = outputs(model, name)
    assert list(result) == ["task1", "second", "third"]
    for key, value in outputs(made(name), name).items():
        assert torch.equal(value, result[key])
    assert all(len(lateral.adapters) == 2 for lateral in model.laterals[2])
    step(model, name, "third")
    for earlier in range(2):
        assert all(p.grad is None for p in model.columns[earlier].parameters())
    assert all(p.grad is None for p in model.laterals[1].parameters())
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in model.laterals[2].parameters())
    assert torch.equal(outputs(model, name)["second"], result["second"])
    surgeon.save(model, tmp_path / "artifact")
    loaded = surgeon.load(tmp_path / "artifact", arch=getattr(families, name))
    assert torch.equal(outputs(loaded, name)["third"], outputs(model.eval(), name)["third"])


def test_columns_may_be_added_one_recipe_after_another():
    name = "vgg"
    again = surgeon.apply(made(name), [surgeon.Progressive(task="third", adapter="mlp")], seed=3)
    assert {k: tuple(v.shape) for k, v in again.state_dict().items()} == {
        k: tuple(v.shape) for k, v in made(name, twice=True).state_dict().items()
    }
    assert torch.equal(outputs(again, name)["second"], outputs(made(name), name)["second"])


@pytest.mark.parametrize("name", ["shufflenet", "bert"])
def test_a_column_is_initialised_as_the_architecture_does(name):
    first, second = made(name, "reinit").columns
    same = [torch.equal(a, b) for a, b in zip(first.parameters(), second.parameters(), strict=True) if a.std() > 0]
    assert not any(same)
    again = surgeon.apply(families.build(name), [surgeon.Progressive(task="second", column="reinit")], seed=3)
    other = surgeon.apply(families.build(name), [surgeon.Progressive(task="second", column="reinit")], seed=4)
    keys = [key for key, p in second.named_parameters() if p.std() > 0]
    assert all(torch.equal(again.columns[1].state_dict()[key], second.state_dict()[key]) for key in keys)
    assert not any(torch.equal(other.columns[1].state_dict()[key], second.state_dict()[key]) for key in keys)


def test_a_new_head_under_a_reinitialised_column_is_reinitialised_too():
    operations = [surgeon.ReplaceHead(classes=3), surgeon.Progressive(task="second", column="reinit")]
    first, second = surgeon.apply(families.build("shufflenet"), operations).columns
    assert second.fc.weight.shape == first.fc.weight.shape == (3, 1024)
    assert not torch.equal(first.fc.weight, second.fc.weight)
    assert 0 < second.fc.weight.std() < 1


def test_a_module_of_unknown_architecture_is_drawn_by_its_layers_or_refused():
    layers = nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 2))
    reinit = surgeon.Progressive(task="second", column="reinit", at=["0"])
    first, second = surgeon.apply(layers, [reinit], inputs=[[2, 4]]).columns
    assert not torch.equal(first[0].weight, second[0].weight)
    assert torch.equal(second[1].running_var, torch.ones(8))

    layers.register_parameter("scale", nn.Parameter(torch.ones(2)))
    with pytest.raises(OperationError, match="cannot reinitialise 1 tensors"):
        surgeon.apply(layers, [reinit], inputs=[[2, 4]])


def test_a_narrower_architecture_reads_the_stages_at_the_same_depth(tmp_path):
    narrow = surgeon.Progressive(task="small", arch="torchvision/shufflenet_v2_x0_5", options={"num_classes": 7})
    source = families.build("resnet")
    model = surgeon.apply(source, [narrow])
    result = outputs(model, "resnet")
    assert result["small"].shape == (2, 7)
    assert torch.equal(result["task1"], original("resnet"))
    reads = [adapter.source.channels for lateral in model.laterals[1] for adapter in lateral.adapters]
    assert reads == sorted(reads), "deeper sites read deeper stages"
    assert (reads[0], reads[-1]) == (64, 512)
    surgeon.save(model, tmp_path / "artifact")
    loaded = surgeon.load(tmp_path / "artifact", arch=families.resnet)
    assert torch.equal(outputs(loaded, "resnet")["small"], result["small"])


@pytest.mark.parametrize("name", ["shufflenet", "bert"])
def test_classes_give_the_new_column_a_head_of_its_own(name):
    model = surgeon.apply(families.build(name), [surgeon.Progressive(task="pets", classes=["cat", "dog", "eel"])])
    result = outputs(model, name)
    assert result["pets"].shape == (2, 3)
    assert torch.equal(result["task1"], original(name))
    if name == "bert":
        assert model.columns[1].config.id2label == {0: "cat", 1: "dog", 2: "eel"}
        assert model.columns[0].config.num_labels == families.CLASSES


def test_classes_of_a_language_model_are_refused():
    with pytest.raises(OperationError, match="no classification head"):
        surgeon.apply(families.build("gpt2"), [surgeon.Progressive(task="second", classes=3)])


def test_branches_of_the_network_stay_named_after_its_column():
    branch = surgeon.GradientReversal(at="features.8")
    model = surgeon.apply(families.build("vgg"), [branch, surgeon.Progressive(task="second")])
    assert list(outputs(model, "vgg")) == ["task1", "task1_domain", "second", "second_domain"]


def test_what_the_user_froze_trains_in_the_new_column():
    model = surgeon.apply(families.build("shufflenet"), [surgeon.Freeze(up_to="stage3"), surgeon.Progressive(task="b")])
    assert not any(p.requires_grad for p in model.columns[0].parameters())
    assert all(p.requires_grad for p in model.columns[1].parameters())
    model.train()
    assert model.columns[1].conv1[1].training
    assert not any(module.training for module in model.columns[0].modules())


def test_what_the_architecture_freezes_stays_frozen_in_the_new_column():
    flags = {key for key, p in families.build("whisper").named_parameters() if not p.requires_grad}
    assert flags, "whisper's position table does not train"
    assert {key for key, p in made("whisper").columns[1].named_parameters() if not p.requires_grad} == flags


@pytest.mark.parametrize("name", ["vgg", "bert"])
def test_the_result_compiles_whole(name):
    model = made(name).eval()
    args, kwargs = families.example(name)
    with torch.no_grad():
        compiled = torch.compile(model, fullgraph=True, backend="aot_eager")(*args, **kwargs)
        for key, value in model(*args, **kwargs).items():
            torch.testing.assert_close(compiled[key], value)


def test_a_plan_reads_nothing_and_says_what_comes():
    plan = surgeon.plan("torchvision/resnet18", [surgeon.Progressive(task="second")])
    assert set(plan.outputs) == {"task1", "second"}
    assert not any(t.trainable for t in plan.tensors if t.name.startswith("columns.0."))


def test_half_precision_goes_through():
    model = surgeon.apply(families.build("bert").bfloat16(), [surgeon.Progressive(task="second", adapter="mlp")])
    assert all(p.dtype == torch.bfloat16 for p in model.parameters())
    assert outputs(model, "bert")["second"].dtype == torch.bfloat16


def test_objective_trains_the_new_output():
    (objective,) = surgeon.Progressive(task="pets", label="species").objectives()
    assert (objective.output, objective.loss, objective.label) == ("pets", "cross_entropy", "species")
    assert surgeon.Progressive(task="pets", loss=None).objectives() == []


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"task": "task1"}, "both 'task1'"),
        ({"task": "a b"}, "cannot name an output"),
        ({"task": "b", "arch": "torchvision/vgg11", "column": "copy"}, "do not fit another arch"),
        ({"task": "b", "options": {"num_classes": 3}}, "options needs arch"),
        ({"task": "b", "hidden": 3}, "adapter: mlp"),
        ({"task": "b", "alpha": 0}, "greater than 0"),
    ],
)
def test_fields_that_contradict_each_other_are_refused(fields, says):
    with pytest.raises(ValidationError, match=says):
        surgeon.Progressive(**fields)


@pytest.mark.parametrize(
    ("name", "fields", "error", "says"),
    [
        ("fasterrcnn", {}, OperationError, "boxes"),
        ("vgg", {"at": ["features.80"]}, SiteError, "nearest"),
        ("vgg", {"at": ["classifier.0"], "adapter": "conv"}, OperationError, "not feature maps"),
        ("vgg", {"arch": "torchvision/shuflenet_v2_x0_5"}, surgeon.ArchitectureError, "shufflenet_v2_x0_5"),
    ],
)
def test_what_cannot_be_done_is_said(name, fields, error, says):
    with pytest.raises(error, match=says):
        surgeon.plan(families.build(name), [surgeon.Progressive(task="second", **fields)])


def test_a_second_column_of_the_same_name_is_refused():
    with pytest.raises(OperationError, match="a column 'second' already exists"):
        surgeon.plan(made("vgg"), [surgeon.Progressive(task="second")])


def test_named_sites_are_those_of_the_column():
    model = surgeon.apply(families.build("vgg"), [surgeon.Progressive(task="second", at=["features.{2,5}"])])
    assert model.sites[1] == ["features.2", "features.5"]
