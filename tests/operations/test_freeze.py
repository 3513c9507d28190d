"""Freezing: what is frozen is the same to the byte after training, buffers included."""

from __future__ import annotations

import copy

import pytest
import torch
from families import FAMILIES, build, detection_targets, example
from torch import nn
from torch.utils._pytree import tree_leaves

import surgeon
from surgeon.errors import OperationError
from surgeon.operations import Freeze, Multitask

DETECTORS = {"fasterrcnn", "ssdlite"}


def train_a_step(model, name):
    """One step of SGD on whatever trains, in training mode."""
    model.train()
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=0.1)
    args, kwargs = example(name)
    if name in DETECTORS:
        loss = sum(model(*args, detection_targets()).values())
    else:
        leaves = [leaf for leaf in tree_leaves(model(*args, **kwargs)) if torch.is_tensor(leaf) and leaf.requires_grad]
        loss = torch.stack([leaf.float().pow(2).mean() for leaf in leaves]).sum()
    loss.backward()
    optimizer.step()
    return model


def changed_by_training(model, name):
    before = copy.deepcopy(model.state_dict())
    train_a_step(model, name)
    return {key for key, value in model.state_dict().items() if not torch.equal(value, before[key])}


def may_move(model):
    """The parameters that train, under all of their names, and the statistics of the layers that hold them."""
    trainable = {n for n, p in model.named_parameters(remove_duplicate=False) if p.requires_grad}
    layers = {n.rpartition(".")[0] for n in trainable}
    return trainable | {n for n, _ in model.named_buffers() if n.rpartition(".")[0] in layers}


@pytest.mark.parametrize("name", sorted(FAMILIES))
def test_all_but_the_head_leaves_only_the_head_to_move(name):
    model = build(name)
    frozen = surgeon.apply(model, [Freeze(all_but="pooler" if name == "bert_base" else "head")])
    trainable = may_move(frozen)
    assert 0 < sum(p.requires_grad for p in frozen.parameters()) < len(list(frozen.parameters()))
    moved = changed_by_training(frozen, name)
    assert moved <= trainable, f"frozen tensors moved: {sorted(moved - trainable)[:5]}"


@pytest.mark.parametrize("name", ["resnet", "densenet", "mobilenet", "convnext", "video", "googlenet", "wav2vec2"])
def test_frozen_norms_keep_their_statistics_after_a_copy_and_a_reload(name, tmp_path):
    frozen = surgeon.apply(build(name), [Freeze(all_but="head")])
    surgeon.save(frozen, tmp_path / "frozen")
    again = surgeon.load(tmp_path / "frozen", arch=FAMILIES[name])
    for model in (copy.deepcopy(frozen), again):
        trainable = {n for n, p in model.named_parameters() if p.requires_grad}
        assert changed_by_training(model, name) <= trainable


def test_norms_that_may_train_follow_the_data_with_frozen_weights():
    frozen = surgeon.apply(build("resnet"), [Freeze(all_but="head", norms="train")])
    moved = changed_by_training(frozen, "resnet")
    assert "bn1.running_mean" in moved
    assert "bn1.weight" not in moved


def test_up_to_a_site_means_executed_order():
    frozen = surgeon.apply(build("resnet"), [Freeze(up_to="layer2")])
    states = {n: p.requires_grad for n, p in frozen.named_parameters()}
    assert not any(state for n, state in states.items() if n.startswith(("conv1", "bn1", "layer1", "layer2")))
    assert all(state for n, state in states.items() if n.startswith(("layer3", "layer4", "fc")))


class HeadFetchedFirst(nn.Module):
    """Python takes hold of ``self.head`` before the blocks run."""

    def __init__(self) -> None:
        super().__init__()
        self.blocks = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4))
        self.head = nn.Linear(4, 2)

    def forward(self, values: torch.Tensor) -> torch.Tensor:
        return self.head(self.blocks(values))


def test_up_to_a_site_leaves_out_what_was_only_fetched_before_it():
    frozen = surgeon.apply(HeadFetchedFirst(), [Freeze(up_to="blocks.0")], inputs={"values": [2, 4]})
    assert {name for name, p in frozen.named_parameters() if not p.requires_grad} == {
        "blocks.0.weight",
        "blocks.0.bias",
    }


def test_up_to_a_block_freezes_the_class_token_and_positions_before_it():
    frozen = surgeon.apply(build("vit"), [Freeze(up_to="encoder.layers.encoder_layer_0")])
    states = {n: p.requires_grad for n, p in frozen.named_parameters()}
    assert not states["class_token"]
    assert not states["encoder.pos_embedding"]
    assert states["heads.head.weight"]


def test_what_is_left_out_of_a_frozen_part_trains():
    frozen = surgeon.apply(build("resnet"), [Freeze(sites=["layer1", "!layer1.0.bn1"])])
    states = {n: p.requires_grad for n, p in frozen.named_parameters()}
    assert states["layer1.0.bn1.weight"]
    assert not states["layer1.0.conv1.weight"]
    assert states["layer2.0.conv1.weight"]
    frozen.train()
    assert frozen.layer1[0].bn1.training
    assert not frozen.layer1[0].bn2.training


def test_freezing_everything_is_refused():
    with pytest.raises(OperationError, match="nothing to train"):
        surgeon.apply(build("resnet"), [Freeze(sites=".")])


def test_frozen_norms_stay_frozen_under_compile():
    frozen = surgeon.apply(build("resnet"), [Freeze(all_but="head")]).train()
    before = frozen.bn1.running_mean.clone()
    compiled = torch.compile(frozen, fullgraph=True, backend="aot_eager")
    args, _ = example("resnet")
    compiled(*args).sum().backward()
    assert torch.equal(before, frozen.bn1.running_mean)


@pytest.mark.parametrize("fields", [{}, {"sites": "a", "up_to": "b"}])
def test_exactly_one_way_of_saying_what(fields):
    with pytest.raises(ValueError, match="exactly one"):
        Freeze(**fields)


def test_what_is_spared_trains_also_where_it_is_tied_to_something_frozen():
    frozen = surgeon.apply(build("gpt2"), [Freeze(all_but="head")])
    assert frozen.lm_head.weight is frozen.transformer.wte.weight
    assert frozen.lm_head.weight.requires_grad
    assert not frozen.transformer.wpe.weight.requires_grad
    plan = surgeon.plan(build("gpt2"), [Freeze(all_but="head")])
    assert any("are one tensor, which trains" in note for note in plan.steps[0].notes)
    assert not surgeon.apply(build("gpt2"), [Freeze(sites="transformer.wte")]).lm_head.weight.requires_grad


def test_the_heads_that_surgery_put_in_are_heads_too():
    operations = [Multitask(tasks={"age": {"kind": "regression", "classes": 1}}), Freeze(all_but="head")]
    for name in ("resnet", "swin", "bert"):
        trains = {n for n, p in surgeon.apply(build(name), operations).named_parameters() if p.requires_grad}
        heads = {n.rpartition(".")[0] for n in trains}
        assert any(n.startswith("grafts.age") for n in heads)
        assert len(heads) == 2, heads
