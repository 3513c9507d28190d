"""Layers copied from another network."""

from __future__ import annotations

import json
import shutil

import pytest
import torch
from families import FAMILIES, build, example
from pydantic import ValidationError
from safetensors.torch import save_file

import surgeon
from surgeon.errors import ArchitectureError, CheckpointError, OperationError
from surgeon.nn.features import main_tensor
from surgeon.operations import AdaptInput, ReplaceHead, Transfer, Truncate
from surgeon.pipeline.prepare import prepare
from surgeon.testing import check_operations

SITES = {
    "resnet": ("layer2", "conv1 bn1 layer1 layer2"),
    "densenet": ("features.denseblock1", "features.conv0 features.norm0 features.denseblock1"),
    "vit": (
        "encoder.layers.encoder_layer_1",
        "conv_proj encoder.layers.encoder_layer_0 encoder.layers.encoder_layer_1",
    ),
    "bert": ("bert.encoder.layer.1", "bert.embeddings bert.encoder.layer.0 bert.encoder.layer.1"),
    "gpt2": ("transformer.h.1", "transformer.wte transformer.wpe transformer.h.0 transformer.h.1"),
}
"""A site, and what runs up to it."""


@pytest.fixture(scope="module")
def donors(tmp_path_factory):
    """An artifact of each family, of other values than ``build`` gives."""
    folder = tmp_path_factory.mktemp("donors")
    for name in SITES:
        surgeon.save(build(name, seed=7), folder / name)
    return folder


def same(one, other, prefixes):
    state = {name: tensor for name, tensor in one.state_dict().items() if name.startswith(tuple(prefixes))}
    assert state
    return all(torch.equal(tensor, other.state_dict()[name]) for name, tensor in state.items())


@pytest.mark.parametrize("name", list(SITES))
def test_what_runs_up_to_a_site_is_copied_and_the_rest_stays(name, donors):
    site, runs = SITES[name]
    args, kwargs = example(name)
    operation = Transfer(donor=str(donors / name), up_to=site)

    def loss(model):  # torchvision's ViT starts with a head of zeros, which a mean square would leave there
        return (main_tensor(model(*args, **kwargs)).float() - 1).square().mean()

    check_operations(FAMILIES[name], [operation], args, kwargs, loss=loss)
    model, donor = build(name), build(name, seed=7)
    edited = surgeon.apply(model, [operation])
    copied = tuple(f"{prefix}." for prefix in runs.split())
    assert same(edited, donor, copied)
    kept = {key for key in model.state_dict() if not torch.equal(edited.state_dict()[key], donor.state_dict()[key])}
    assert kept
    assert all(torch.equal(edited.state_dict()[key], model.state_dict()[key]) for key in kept)
    assert not any(key.startswith(copied) for key in kept)


@pytest.mark.parametrize("name", ["resnet", "bert"])
def test_copied_layers_stay_frozen_through_training_and_the_rest_is_reinitialised(name, donors):
    site, runs = SITES[name]
    args, kwargs = example(name)
    operation = Transfer(donor=str(donors / name), up_to=site, frozen=True, rest="reinit")
    check_operations(FAMILIES[name], [operation], args, kwargs)
    model = build(name)
    edited = surgeon.apply(model, [operation])
    plan = surgeon.plan(model, [operation])
    assert plan.counts.startswith("0 of ")
    assert {fact.origin for fact in plan.tensors} == {"derived", "new"}
    edited.train()
    outputs = edited(*args, **kwargs)
    (outputs if isinstance(outputs, torch.Tensor) else outputs.logits).square().mean().backward()
    torch.optim.SGD([p for p in edited.parameters() if p.requires_grad], lr=1.0).step()
    assert same(edited, build(name, seed=7), [f"{prefix}." for prefix in runs.split()])


def test_sites_and_a_map_of_names_say_what_is_copied(tmp_path):
    donor = build("resnet", seed=7)
    trunk = {f"encoder.body.{name}": tensor for name, tensor in donor.state_dict().items() if "fc" not in name}
    save_file(trunk | {"other.weight": torch.zeros(1)}, tmp_path / "own.safetensors")
    path = str(tmp_path / "own.safetensors")
    edited = surgeon.apply(build("resnet"), [Transfer(donor=path, map={"layer3": "encoder.body.layer3"})])
    assert same(edited, donor, ["layer3."])
    assert same(edited, build("resnet"), ["layer1.", "fc."])
    plan = surgeon.plan(build("resnet"), [Transfer(donor=path, map={"layer3": "encoder.body.layer3"})])
    assert "unknown network" in plan.steps[0].notes[0]
    swapped = Transfer(donor=path, map={"layer1.0": "encoder.body.layer1.1", "layer1.1": "encoder.body.layer1.0"})
    edited = surgeon.apply(build("resnet"), [swapped])
    assert torch.equal(edited.layer1[0].conv1.weight, donor.layer1[1].conv1.weight)


def test_sites_leave_out_what_they_say(donors):
    operation = Transfer(donor=str(donors / "resnet"), sites=["layer{1,2}", "!layer1.0"])
    edited = surgeon.apply(build("resnet"), [operation])
    assert same(edited, build("resnet", seed=7), ["layer1.1.", "layer2."])
    assert same(edited, build("resnet"), ["layer1.0."])


def test_a_donor_of_another_width_at_the_top_and_of_another_task_gives_its_trunk(donors, tmp_path):
    model = surgeon.apply(build("resnet", seed=9), [ReplaceHead(classes=3)])
    surgeon.save(model, tmp_path / "other")
    edited = surgeon.apply(build("resnet"), [Transfer(donor=str(tmp_path / "other"), sites="., !fc")])
    assert same(edited, model, ["conv1.", "layer4."])
    assert same(edited, build("resnet"), ["fc."])


def test_a_transformers_folder_and_a_torchvision_checkpoint_are_donors(tmp_path):
    donor = build("hf_vit", seed=7)
    donor.save_pretrained(tmp_path / "hf")
    edited = surgeon.apply(build("hf_vit"), [Transfer(donor=str(tmp_path / "hf"), sites="vit.layers.0")])
    assert same(edited, donor, ["vit.layers.0."])
    torch.save(build("resnet", seed=7).state_dict(), tmp_path / "resnet.pth")
    edited = surgeon.apply(build("resnet"), [Transfer(donor=str(tmp_path / "resnet.pth"), sites="layer1")])
    assert same(edited, build("resnet", seed=7), ["layer1."])


def test_the_plan_reads_no_weight_and_says_what_comes_from_where(tmp_path):
    surgeon.save(build("resnet", seed=7), tmp_path / "donor")
    operation = Transfer(donor=str(tmp_path / "donor"), sites="layer1")
    prepared = prepare(build("resnet"), [operation])
    edits = [(edit.mark, edit.site, edit.what) for edit in prepared.plan.steps[0].edits]
    assert edits == [("~", "layer1", f"values of {tmp_path / 'donor'}")]
    fact = next(fact for fact in prepared.plan.tensors if fact.name == "layer1.0.conv1.weight")
    assert (fact.origin, fact.by) == ("derived", "transfer")
    assert fact.source == f"{tmp_path / 'donor'}: layer1.0.conv1.weight"
    surgeon.save(build("resnet", seed=8), tmp_path / "donor", force=True)  # after the plan, before the weights
    with pytest.raises(CheckpointError, match="changed while it was read"):
        prepared.materialise()


def test_the_artifact_knows_its_donor_and_loads_without_it(tmp_path):
    shutil.copytree(surgeon.save(build("bert", seed=7), tmp_path / "first"), tmp_path / "donor")
    operation = Transfer(donor=str(tmp_path / "donor"), sites="bert.encoder.layer.0", frozen=True)
    edited = surgeon.apply(build("bert"), [operation])
    surgeon.save(edited, tmp_path / "out")
    fingerprint = surgeon.record_of(edited).surgeries[0].donors[str(tmp_path / "donor")]
    manifest = json.loads((tmp_path / "out" / "surgeon.json").read_text())
    assert manifest["record"]["surgeries"][0]["donors"] == {str(tmp_path / "donor"): fingerprint}
    assert len(fingerprint) == 64
    shutil.rmtree(tmp_path / "donor")
    loaded = surgeon.load(tmp_path / "out")
    assert same(loaded, edited, ["bert.", "classifier."])
    assert not loaded.bert.encoder.layer[0].output.dense.weight.requires_grad


def test_a_donor_is_never_overwritten(tmp_path):
    surgeon.save(build("resnet", seed=7), tmp_path / "donor")
    prepared = prepare(build("resnet"), [Transfer(donor=str(tmp_path / "donor"), sites="layer1")])
    with pytest.raises(surgeon.errors.OutputError, match="is or contains the input"):
        prepared.write(tmp_path / "donor", force=True)


def test_a_recipe_finds_the_donor_beside_itself(tmp_path, monkeypatch):
    (tmp_path / "recipes").mkdir()
    surgeon.save(build("resnet", seed=7), tmp_path / "recipes" / "donor")
    recipe = tmp_path / "recipes" / "r.yaml"
    recipe.write_text("operations:\n  - {op: transfer, donor: donor, sites: layer1}\n")
    monkeypatch.chdir(tmp_path)
    assert same(surgeon.apply(build("resnet"), recipe), build("resnet", seed=7), ["layer1."])


def test_donors_and_cuts_compose(donors):
    operations = [
        Truncate(after="layer3"),
        Transfer(donor=str(donors / "resnet"), up_to="layer2", frozen=True),
        ReplaceHead(classes=4),
    ]
    args, kwargs = example("resnet")
    edited = check_operations(FAMILIES["resnet"], operations, args, kwargs)
    assert edited(*args).shape == (2, 4)


def test_shapes_that_differ_are_named_with_what_to_do(donors):
    operations = [AdaptInput(channels=1), Transfer(donor=str(donors / "resnet"), up_to="layer1")]
    with pytest.raises(OperationError) as caught:
        surgeon.plan(build("resnet"), operations)
    assert "conv1.weight is [64, 1, 7, 7] here and [64, 3, 7, 7] there" in str(caught.value)
    assert "!conv1" in str(caught.value)


@pytest.mark.parametrize(
    ("fields", "error", "words"),
    [
        ({"donor": "resnet", "map": {"layer1": "stage1"}}, OperationError, "lacks 20 of 24 tensors: stage1"),
        ({"donor": "bert", "sites": "layer1"}, OperationError, "map: {SITE: ITS SITE}"),
        ({"donor": "resnet", "sites": "relu"}, OperationError, "hold no tensors"),
        ({"donor": "nothing", "sites": "layer1"}, CheckpointError, "no such file"),
    ],
)
def test_what_a_donor_cannot_give_is_refused(fields, error, words, donors):
    with pytest.raises(error, match=words):
        surgeon.plan(build("resnet"), [Transfer(**{**fields, "donor": str(donors / fields["donor"])})])


def test_a_donor_without_weights_is_refused():
    with pytest.raises(CheckpointError, match="has no weights"):
        surgeon.plan(build("resnet"), [Transfer(donor="torchvision/resnet18", sites="layer1")])
    with pytest.raises(ArchitectureError, match="resnet999"):
        surgeon.plan(build("resnet"), [Transfer(donor="torchvision/resnet999", sites="layer1")])


@pytest.mark.parametrize("fields", [{}, {"sites": "a", "up_to": "b"}, {"map": {}}])
def test_what_to_copy_is_said_in_one_way(fields):
    with pytest.raises(ValidationError, match=r"exactly one|at least 1"):
        Transfer(donor="x", **fields)
