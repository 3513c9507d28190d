"""Several stems in front of one trunk."""

from __future__ import annotations

import copy

import pytest
import torch
from families import FAMILIES, build, example
from pydantic import ValidationError
from torch import nn

import surgeon
from surgeon.data.columns import Columns
from surgeon.errors import OperationError
from surgeon.interfaces.splits import Splits
from surgeon.nn.features import main_tensor
from surgeon.nn.stems import StemSwitch
from surgeon.operations import AdaptInput, Freeze, Multitask, ReplaceHead, Stems, Truncate
from surgeon.testing import check_operations

PLACES = {
    "resnet": ["conv1", "bn1"],
    "densenet": "features.conv0",
    "hf_vit": "vit.embeddings.patch_embeddings",
    "bert": "bert.embeddings",
    "gpt2": "transformer.h.0",
}


@torch.no_grad()
def run(model, name, **more):
    args, kwargs = example(name)
    return main_tensor(model(*args, **kwargs, **more))


def stirred(model):
    """The model with other values in every second stem."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for key, parameter in model.named_parameters():
            if ".stems.b." in key:
                parameter.add_(0.3 * torch.randn(parameter.shape, generator=generator))
    return model


def switch_of(model: nn.Module) -> StemSwitch:
    return next(module for module in model.modules() if isinstance(module, StemSwitch))


@pytest.mark.parametrize("name", list(PLACES))
def test_a_copied_stem_starts_as_the_first_and_then_goes_its_own_way(name, tmp_path):
    args, kwargs = example(name)
    operation = Stems(stems=["a", "b"], at=PLACES[name])
    check_operations(FAMILIES[name], [operation], args, {**kwargs, "stem": "b"})
    edited = surgeon.apply(build(name), [operation])
    assert switch_of(edited).names == ["a", "b"]
    before = run(build(name), name)
    assert torch.equal(run(edited, name), before)
    assert torch.equal(run(edited, name, stem="b"), before)
    stirred(edited)
    assert torch.equal(run(edited, name, stem="a"), before)
    other = run(edited, name, stem="b")
    assert not torch.allclose(other, before)
    surgeon.save(edited, tmp_path / "out")
    loaded = surgeon.load(tmp_path / "out", arch=FAMILIES[name])
    assert torch.equal(run(loaded, name), before), "a loaded network begins with the first"
    for model in (loaded, copy.deepcopy(edited)):
        assert torch.equal(run(model, name, stem="b"), other)
        assert torch.equal(run(model, name, stem="a"), before)
    assert switch_of(edited).active == "b", "a copy has its own choice"


def test_a_copy_and_the_network_it_was_made_of_choose_apart():
    edited = stirred(surgeon.apply(build("resnet"), [Stems(stems=["a", "b"], at="conv1")]))
    twin = copy.deepcopy(edited)
    other = run(twin, "resnet", stem="b")
    assert not torch.allclose(run(edited, "resnet"), other)


def test_only_the_stem_that_ran_and_the_trunk_are_moved_by_a_step():
    edited = surgeon.apply(build("resnet"), [Stems(stems=["a", "b"], at=["conv1", "bn1"])]).train()
    args, _ = example("resnet")
    edited(*args, stem="b").square().mean().backward()
    assert edited.conv1.stems["a"].weight.grad is None
    assert edited.conv1.stems["b"].weight.grad.abs().sum() > 0
    assert edited.layer1[0].conv1.weight.grad.abs().sum() > 0
    assert edited.bn1.stems["a"].num_batches_tracked == 0
    assert edited.bn1.stems["b"].num_batches_tracked == 1


def test_each_sample_may_go_through_its_own_stem():
    edited = stirred(surgeon.apply(build("resnet"), [Stems(stems=["a", "b", "c"], at=["conv1", "bn1"])]))
    alone = [run(edited, "resnet", stem=name) for name in ("b", "a")]
    mixed = run(edited, "resnet", stem=torch.tensor([1, 0]))
    torch.testing.assert_close(mixed, torch.stack([alone[0][0], alone[1][1]]), atol=1e-5, rtol=1e-5)
    assert torch.equal(run(edited, "resnet"), alone[1]), "numbers are for this once"
    with pytest.raises(OperationError, match="numbered from 0 to 2"):
        run(edited, "resnet", stem=torch.tensor([1, 3]))


def test_training_takes_each_sample_through_the_stem_that_its_column_names():
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.last = nn.Linear(3, 4), nn.Linear(4, 2)

        def forward(self, x):
            return self.last(self.first(x).relu())

    edited = surgeon.apply(Net(), [Stems(stems=["a", "b"], at="first")], inputs={"x": [2, 3]})
    before = {name: value.clone() for name, value in edited.state_dict().items()}
    x = torch.randn(8, 3, generator=torch.Generator().manual_seed(0))
    samples = Columns(x=x, stem=torch.ones(8, dtype=torch.long), labels=(x[:, 0] > 0).long())
    splits = Splits(samples, samples, inputs=("x", "stem"), classes={"labels": 2})
    surgeon.train(edited, surgeon.TrainSettings(epochs=1, batch_size=4), data=splits, quiet=True)
    moved = {name for name, value in edited.state_dict().items() if not torch.equal(value, before[name])}
    assert moved == {"first.stems.b.weight", "first.stems.b.bias", "last.weight", "last.bias"}


def test_each_stem_starts_from_different_initial_values():
    stems = {"a": "copy", "b": "reinit", "c": "reinit"}
    edited = surgeon.apply(build("resnet"), [Stems(stems=stems, at=["conv1", "bn1"])])
    a, b, c = (edited.conv1.stems[name].weight for name in "abc")
    assert torch.equal(a, build("resnet").conv1.weight)
    assert not torch.equal(a, b)
    assert not torch.equal(b, c)
    assert abs(b.std() / (2 / (64 * 49)) ** 0.5 - 1) < 0.05, "as torchvision draws it"


def test_stems_compose_with_other_operations():
    operations = [
        Stems(stems=["a", "b"], at="conv1"),
        Truncate(after="layer2"),
        ReplaceHead(classes=4),
        AdaptInput(channels=1, at="conv1.stems.b"),
        Multitask(tasks={"t": {"classes": 2}}),
        Freeze(all_but=["head", "conv1.stems.b"]),
    ]
    grey = (torch.rand(2, 1, 64, 64),)
    edited = check_operations(FAMILIES["resnet"], operations, grey, {"stem": "b"})
    assert edited(*example("resnet")[0], stem="a").logits.shape == (2, 4)
    trains = {key for key, p in edited.named_parameters() if p.requires_grad}
    assert {key for key in trains if not key.startswith("grafts.")} == {"conv1.stems.b.weight"}


def test_stems_of_a_network_that_was_grafted_before():
    first = surgeon.apply(build("resnet"), [Multitask(tasks={"t": {"classes": 2}})])
    edited = stirred(surgeon.apply(first, [Stems(stems=["a", "b"], at="conv1")]))
    assert not torch.allclose(run(edited, "resnet", stem="b"), run(edited, "resnet", stem="a"))


@pytest.mark.parametrize("name", ["resnet", "hf_vit"])
def test_stems_compile_whole(name):
    edited = stirred(surgeon.apply(build(name), [Stems(stems=["a", "b"], at=PLACES[name])]))
    args, kwargs = example(name)
    compiled = torch.compile(copy.deepcopy(edited), fullgraph=True, backend="aot_eager")
    with torch.no_grad():
        for stem in ("a", "b", "a"):
            compiled_output = main_tensor(compiled(*args, **kwargs, stem=stem))
            torch.testing.assert_close(compiled_output, run(edited, name, stem=stem), atol=1e-4, rtol=1e-4)


def test_the_plan_counts_kept_and_derived_tensors():
    plan = surgeon.plan(build("resnet"), [Stems(stems=["a", "b"], at="conv1")])
    assert plan.counts == "122 of 122 tensors kept, 1 derived by stems"
    assert plan.steps[0].notes == ("stem='a' by default; the forward also takes b",)


def test_what_runs_up_to_a_site_includes_every_stem():
    operations = [Stems(stems=["a", "b"], at="conv1"), Freeze(up_to="layer1")]
    edited = surgeon.apply(build("resnet"), operations)
    assert not any(p.requires_grad for p in edited.conv1.parameters())


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"stems": ["a"]}, "at least 2"),
        ({"stems": {"a": "copy"}}, "at least two stems"),
        ({"stems": ["a", "a"]}, "with different names"),
        ({"stems": ["a", "b c"]}, "cannot name a stem"),
        ({"stems": {"a": "reinit", "b": "copy"}}, "is the existing one"),
    ],
)
def test_names_that_do_not_do_are_refused(fields, words):
    with pytest.raises(ValidationError, match=words):
        Stems(**fields)


@pytest.mark.parametrize(
    ("operations", "words"),
    [
        ([Stems(stems=["a", "b"], at=["layer1", "layer1.0"])], "contains layer1.0"),
        ([Stems(stems=["a", "b"], at=".")], "contains everything"),
        ([Stems(stems=["a", "b"], at="conv1"), Stems(stems=["c", "d"], at="bn1")], "already has several stems"),
    ],
)
def test_places_that_do_not_do_are_refused(operations, words):
    with pytest.raises(OperationError, match=words):
        surgeon.plan(build("resnet"), operations)


def test_an_unknown_stem_is_refused_by_name():
    edited = surgeon.apply(build("resnet"), [Stems(stems=["a", "b"], at="conv1")])
    with pytest.raises(OperationError, match="no stem 'x'") as caught:
        run(edited, "resnet", stem="x")
    assert "a, b" in str(caught.value)
    assert isinstance(edited.conv1.stems["a"], nn.Conv2d)
