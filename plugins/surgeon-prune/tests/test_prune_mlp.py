"""prune_mlp: which channels go, that the class stays stock, that nothing else changes."""

from __future__ import annotations

import sys

import pytest
import torch
from prune_networks import IDS, IMAGES, bert, gpt2, llama, notes, outputs, phi3, resnet, t5, torchvision_vit, vit
from pydantic import ValidationError
from surgeon_prune import PruneMlp

import surgeon
from surgeon.testing import check_operations


def test_it_keeps_what_surgeon_promises_of_every_operation():
    check_operations(llama, [PruneMlp(keep=0.5)], (IDS,))
    check_operations(torchvision_vit, [PruneMlp(keep=20, by="l1")], (IMAGES,))


@pytest.mark.parametrize(
    ("build", "args", "layers"),
    [
        (llama, (IDS,), "model.layers.{}.mlp.down_proj"),
        (bert, (IDS,), "bert.encoder.layer.{}.output.dense"),
        (gpt2, (IDS,), "transformer.h.{}.mlp.c_proj"),
        (phi3, (IDS,), "model.layers.{}.mlp.down_proj"),
        (vit, (IMAGES,), "vit.layers.{}.mlp.fc2"),
        (torchvision_vit, (IMAGES,), "encoder.layers.encoder_layer_{}.mlp.3"),
    ],
)
def test_the_result_computes_what_the_network_does_with_silent_channels(build, args, layers):
    model = build()
    channels = [1, 2, 5, 11, 20, 21, 30, 40]
    with torch.no_grad():
        for block in (0, 1):
            layer = model.get_submodule(layers.format(block))
            reads = layer.weight if type(layer).__name__ == "Conv1D" else layer.weight.T
            removed = [channel for channel in range(len(reads)) if channel not in channels]
            reads[channels] *= 100  # so that these are the largest
            reads[removed] *= 0.01
    pruned = surgeon.apply(model, [PruneMlp(keep=len(channels))])
    with torch.no_grad():
        for block in (0, 1):
            layer = model.get_submodule(layers.format(block))
            reads = layer.weight if type(layer).__name__ == "Conv1D" else layer.weight.T
            reads[[channel for channel in range(len(reads)) if channel not in channels]] = 0
    torch.testing.assert_close(outputs(pruned, *args), outputs(model, *args), rtol=1e-4, atol=1e-4)


def test_tensors_are_rows_and_columns_of_the_source():
    model = llama()
    pruned = surgeon.apply(model, [PruneMlp(keep=16)])
    for old, new in zip(model.model.layers, pruned.model.layers, strict=True):
        square = sum(w.square().sum(1) for w in (old.mlp.gate_proj.weight, old.mlp.up_proj.weight))
        scores = square + old.mlp.down_proj.weight.square().sum(0)
        rows = scores.topk(16).indices.sort().values
        assert torch.equal(new.mlp.gate_proj.weight, old.mlp.gate_proj.weight[rows])
        assert torch.equal(new.mlp.up_proj.weight, old.mlp.up_proj.weight[rows])
        assert torch.equal(new.mlp.down_proj.weight, old.mlp.down_proj.weight[:, rows])


@pytest.mark.parametrize(("build", "field"), [(llama, "intermediate_size"), (gpt2, "n_inner"), (t5, "d_ff")])
def test_from_pretrained_alone_loads_the_result(build, field, tmp_path):
    plan = surgeon.plan(build(), [PruneMlp(keep=0.5, round_to=8)])
    assert f"stays a stock {type(build()).__name__}: {field}" in notes(plan)
    pruned = surgeon.apply(build(), [PruneMlp(keep=0.5, round_to=8)])
    stock = type(pruned).from_pretrained(surgeon.save(pruned, tmp_path / "artifact"))
    args = (IDS,) if build is not t5 else (IDS, None, IDS)
    assert torch.equal(outputs(stock, *args), outputs(pruned, *args))


def test_some_blocks_alone_are_no_stock_network_and_the_plan_says_so(tmp_path):
    operation = PruneMlp(keep=0.5, at="@blocks[0]")
    assert "only surgeon.load opens the result" in notes(surgeon.plan(llama(), [operation]))
    pruned = surgeon.apply(llama(), [operation])
    assert pruned.config.intermediate_size == 48
    again = surgeon.load(surgeon.save(pruned, tmp_path / "artifact"), arch=llama)
    assert torch.equal(outputs(again, IDS), outputs(pruned, IDS))


def test_loading_needs_neither_torch_pruning_nor_a_trace(tmp_path, monkeypatch):
    pruned = surgeon.apply(llama(), [PruneMlp(keep=0.5, at="@blocks[0]")])
    path = surgeon.save(pruned, tmp_path / "artifact")
    monkeypatch.setitem(sys.modules, "torch_pruning", None)
    monkeypatch.setattr("surgeon.surgery.inspection.trace", None)
    assert torch.equal(outputs(surgeon.load(path, arch=llama), IDS), outputs(pruned, IDS))


def test_the_choice_at_random_follows_the_seed():
    first, again, other = (
        surgeon.apply(llama(), [PruneMlp(keep=8, by="random", seed=seed)]).model.layers[0].mlp.gate_proj.weight
        for seed in (1, 1, 2)
    )
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"keep": 1.5}, "between 0 and 1"),
        ({"keep": 0}, "keep"),
        ({"keep": 0.5, "by": "activations"}, "needs data"),
        ({"keep": 0.5, "data": {"source": "digits"}}, "uses no data"),
    ],
)
def test_a_mistake_in_the_fields_is_refused(fields, message):
    with pytest.raises(ValidationError, match=message):
        PruneMlp(**fields)


@pytest.mark.parametrize(
    ("operation", "message"),
    [
        (PruneMlp(keep=49), "has 48 units.*keep asks for 49"),
        (PruneMlp(keep=12, round_to=8), "in steps of 8"),
        (PruneMlp(keep=0.5, at="**.self_attn"), "has no MLP"),
    ],
)
def test_what_cannot_be_is_refused_before_an_edit(operation, message):
    with pytest.raises(surgeon.OperationError, match=message):
        surgeon.plan(llama(), [operation])


def test_a_network_of_convolutions_is_refused():
    with pytest.raises(surgeon.OperationError, match="prune_channels is for convolutions"):
        surgeon.plan(resnet(), [PruneMlp(keep=0.5)])
