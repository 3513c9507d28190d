"""Comparing two networks: what differs, how far it moved, and whether frozen parts stayed."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from families import build
from safetensors.torch import save_file
from torch import nn

import surgeon
from surgeon import cli
from surgeon.cli.diff import DIFFERENT


def nudged(model: nn.Module, step: float = 0.01) -> nn.Module:
    """``model``, each parameter that trains moved a little, as training does."""
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.add_(step * torch.randn(parameter.shape, generator=generator))
    return model


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("source") / "net.pt"
    torch.save(build("resnet").state_dict(), path)
    return path


@pytest.fixture(scope="module")
def tuned(source: Path) -> Path:
    """An artifact of ``source`` with a new head, all but its last stage frozen, trained a little."""
    edited = surgeon.apply(source, [surgeon.ReplaceHead(classes=3), surgeon.Freeze(up_to="layer3")])
    return surgeon.save(nudged(edited), source.parent / "tuned")


def test_a_checkpoint_equals_itself(source):
    result = surgeon.diff(source, source)
    assert result.equal
    assert len(result.with_status("same")) == len(build("resnet").state_dict())


def test_frozen_parts_did_not_move_and_the_others_did(source, tuned):
    result = surgeon.diff(source, tuned)
    assert result.frozen_moved == ()
    assert [group.name for group in result.blocks if group.moved] == ["layer4.0", "layer4.1"]
    assert {group.state for group in result.blocks if not group.moved} == {"frozen", "trainable"}
    assert not result.equal


def test_a_frozen_tensor_that_moved_is_named(tuned, tmp_path):
    model = surgeon.load(tuned)
    with torch.no_grad():
        model.layer1[0].conv1.weight.add_(0.1)
    result = surgeon.diff(tuned, surgeon.save(model, tmp_path / "wrong"))
    assert [tensor.name for tensor in result.frozen_moved] == ["layer1.0.conv1.weight"]


def test_running_statistics_of_frozen_norms_count_as_frozen(tuned, tmp_path):
    model = surgeon.load(tuned)
    model.layer1[0].bn1.running_mean.add_(1)
    assert [tensor.name for tensor in surgeon.diff(tuned, model).frozen_moved] == ["layer1.0.bn1.running_mean"]


def test_what_an_operation_made_names_it(source, tuned):
    other = surgeon.diff(source, tuned).with_status("other shape")
    assert {tensor.name: (tensor.shape_a, tensor.shape_b, tensor.made_by) for tensor in other} == {
        "fc.weight": ((5, 512), (3, 512), "replace_head"),
        "fc.bias": ((5,), (3,), "replace_head"),
    }


def test_the_movement_is_that_of_the_formulas():
    a, b = build("resnet"), nudged(build("resnet"))
    one, other = (model.layer1[0].conv1.weight.detach().double().flatten() for model in (a, b))
    result = surgeon.diff(a, b)
    movement = next(t.movement for t in result.tensors if t.name == "layer1.0.conv1.weight")
    assert movement.relative == pytest.approx(float((other - one).norm() / one.norm()))
    assert movement.cosine == pytest.approx(float(torch.cosine_similarity(one, other, dim=0)))
    assert movement.largest == pytest.approx(float((other - one).abs().max()))


def test_a_block_moves_as_one_vector_of_its_parameters():
    a, b = build("resnet"), nudged(build("resnet"))
    b.layer4[1].bn1.num_batches_tracked.add_(1000)
    b.layer4[1].bn1.running_var.add_(1000)
    one, other = (torch.cat([p.detach().double().flatten() for p in m.layer4[1].parameters()]) for m in (a, b))
    block = next(group for group in surgeon.diff(a, b).blocks if group.name == "layer4.1")
    assert block.movement.relative == pytest.approx(float((other - one).norm() / one.norm()))
    assert block.moved == len(list(b.layer4[1].parameters())) + 2


def test_a_site_holds_the_tensors_directly_at_it():
    sites = {group.name: group for group in surgeon.diff(build("resnet"), build("resnet")).sites}
    assert [tensor.name for tensor in sites["layer1.0.bn1"].tensors][:2] == ["layer1.0.bn1.weight", "layer1.0.bn1.bias"]


def test_a_half_precision_copy_has_other_dtypes_and_hardly_moved(source, tmp_path):
    state = {name: t.bfloat16() if t.is_floating_point() else t for name, t in torch.load(source).items()}
    torch.save(state, tmp_path / "half.pt")
    result = surgeon.diff(source, tmp_path / "half.pt")
    assert not result.equal
    assert len(result.with_status("other dtype")) == sum(t.is_floating_point() for t in state.values())
    assert 0 < result.whole.movement.relative < 4e-3


def test_a_value_that_is_not_a_number_equals_itself_and_is_counted_when_it_comes():
    a, b = build("resnet"), build("resnet")
    with torch.no_grad():
        a.fc.bias[0] = math.nan
    assert surgeon.diff(a, a).equal
    tensor = next(t for t in surgeon.diff(b, a).tensors if t.name == "fc.bias")
    assert (tensor.status, tensor.movement.not_finite, tensor.movement.largest) == ("moved", 1, 0)
    json.dumps(surgeon.diff(b, a).to_dict(), allow_nan=False)


def test_tensors_are_read_in_pieces_that_add_up_to_the_same(source, tuned, monkeypatch):
    whole = surgeon.diff(source, tuned).whole.movement
    monkeypatch.setattr("surgeon.pipeline.comparison.CHUNK", 1000)
    pieces = surgeon.diff(source, tuned).whole.movement
    assert pieces.relative == pytest.approx(whole.relative)
    assert pieces.largest == whole.largest


# pairing ----------------------------------------------------------------------------------------------


def test_tensors_that_an_operation_renamed_are_paired_by_the_manifest(source, tmp_path):
    grown = surgeon.apply(source, [surgeon.Progressive(task="second", classes=3)])
    result = surgeon.diff(source, surgeon.save(nudged(grown, 0), tmp_path / "grown"))
    kept = [tensor for tensor in result.tensors if tensor.status == "same"]
    assert {tensor.name_a for tensor in kept} >= {"conv1.weight", "layer4.1.conv2.weight"}
    assert all(tensor.name_a != tensor.name for tensor in kept)
    assert result.with_status("only in A") == ()


def test_two_artifacts_of_one_source_are_compared_by_what_they_kept(source, tuned, tmp_path):
    other = surgeon.apply(source, [surgeon.Truncate(after="layer4"), surgeon.ReplaceHead(classes=2)])
    result = surgeon.diff(tuned, surgeon.save(other, tmp_path / "other"))
    assert [group.name for group in result.blocks if group.moved] == ["layer4.0", "layer4.1"]


def test_an_artifact_of_an_artifact_is_compared_with_the_first_source(source, tuned, tmp_path):
    second = surgeon.apply(tuned, [surgeon.Progressive(task="second", classes=2)])
    result = surgeon.diff(source, surgeon.save(second, tmp_path / "second"))
    assert [tensor.name_a for tensor in result.with_status("only in A")] == []
    moved = {tensor.name_a for tensor in result.tensors if tensor.moved}
    assert "layer4.1.conv2.weight" in moved
    assert "layer1.0.conv1.weight" not in moved


def test_names_are_those_of_the_network_where_both_are_known(source, tmp_path):
    state = {f"module.{name}": tensor for name, tensor in torch.load(source).items()}
    torch.save({"state_dict": state, "epoch": 3}, tmp_path / "wrapped.pt")
    assert surgeon.diff(source, tmp_path / "wrapped.pt").equal


def test_a_backbone_is_compared_with_that_of_a_larger_network(tmp_path):
    whole = build("bert")
    save_file({n: t.contiguous() for n, t in whole.bert.state_dict().items()}, tmp_path / "backbone.safetensors")
    result = surgeon.diff(tmp_path / "backbone.safetensors", whole)
    assert result.with_status("only in A") == ()
    assert len(result.with_status("same")) == len(whole.bert.state_dict())
    assert any("'bert.'" in note for note in result.notes)


def test_shards_equal_the_file_in_one_piece(tmp_path):
    model = build("bert")
    model.save_pretrained(tmp_path / "one")
    model.save_pretrained(tmp_path / "many", max_shard_size="40KB")
    assert len(list((tmp_path / "many").glob("*.safetensors"))) > 1
    assert surgeon.diff(tmp_path / "one", tmp_path / "many").equal


def test_files_of_unknown_networks_are_compared_by_their_names(tmp_path):
    torch.manual_seed(0)
    state = {f"layers.{i}.{part}.weight": torch.randn(4, 4) for i in range(3) for part in ("up", "down")}
    torch.save(state, tmp_path / "a.pt")
    torch.save({**state, "layers.2.up.weight": torch.randn(4, 4), "extra.bias": torch.zeros(2)}, tmp_path / "b.pt")
    result = surgeon.diff(tmp_path / "a.pt", tmp_path / "b.pt")
    assert [(group.name, group.moved) for group in result.blocks] == [
        ("layers.0", 0), ("layers.1", 0), ("layers.2", 1), ("extra", 0),
    ]  # fmt: skip
    assert [tensor.name for tensor in result.with_status("only in B")] == ["extra.bias"]
    assert any("by the names in the file" in note for note in result.notes)


def test_a_selector_limits_what_is_compared(source, tuned, tmp_path):
    result = surgeon.diff(source, tuned, select="layer4.1, !**.bn1")
    assert {group.name for group in result.blocks} == {"layer4.1"}
    torch.save({"layers.0.weight": torch.ones(2), "layers.1.weight": torch.ones(2)}, tmp_path / "odd.pt")
    odd = surgeon.diff(tmp_path / "odd.pt", tmp_path / "odd.pt", select="layers[1]")
    assert [tensor.name for tensor in odd.tensors] == ["layers.1.weight"]


def test_a_selector_that_names_nothing_in_either_is_refused(source, tuned):
    with pytest.raises(surgeon.SiteError, match="layer9"):
        surgeon.diff(source, tuned, select="layer9")


def test_training_state_that_changed_is_a_difference(tuned):
    free = surgeon.load(tuned)
    free.layer3.requires_grad_(True)
    result = surgeon.diff(tuned, free)
    assert not result.equal
    assert not any(tensor.moved for tensor in result.tensors)
    assert [group.state for group in result.blocks if group.name == "layer3.0"] == ["frozen → trainable"]


def test_a_network_without_weights_is_compared_by_structure_only(source):
    with pytest.raises(surgeon.CheckpointError, match="--structure"):
        surgeon.diff(source, "torchvision/resnet18")
    result = surgeon.diff(source, "torchvision/resnet18", values=False)
    assert [tensor.name for tensor in result.with_status("other shape")] == ["fc.weight", "fc.bias"]
    assert not any(tensor.moved for tensor in result.tensors)


# the command ------------------------------------------------------------------------------------------


def test_the_exit_code_says_whether_they_differ(source, tuned, tmp_path, capsys):
    assert cli.run(["diff", str(source), str(source), "-q"]) == 0
    assert cli.run(["diff", str(source), str(tuned), "-q"]) == DIFFERENT == 20
    assert capsys.readouterr().out == ""
    assert cli.run(["diff", str(source), str(tmp_path / "none.pt"), "-q"]) == surgeon.CheckpointError.exit_code


def test_the_command_prints_what_the_function_returns(source, tuned, capsys):
    capsys.readouterr()
    cli.run(["diff", str(source), str(tuned), "--json"])
    printed = json.loads(capsys.readouterr().out)
    assert printed == json.loads(json.dumps(surgeon.diff(source, tuned).to_dict()))
    assert printed["frozen_moved"] == []


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="the peak of memory is read from Linux's /proc")
def test_memory_does_not_grow_with_the_networks(tmp_path):
    for name in ("a", "b"):
        state = {f"layers.{i}.weight": torch.full((5000, 1000), float(i)) for i in range(5)}
        state["wide.weight"] = torch.full((25_000, 1000), 1.0 if name == "a" else 2.0)
        save_file(state, tmp_path / f"{name}.safetensors")
        save_file({"layers.0.weight": torch.ones(4)}, tmp_path / f"small_{name}.safetensors")
    script = (
        "import re, sys, surgeon\n"
        "for a, b in (sys.argv[1:3], sys.argv[3:5]):\n"
        "    surgeon.diff(a, b)\n"
        "    print(re.search(r'VmHWM:\\s+(\\d+)', open('/proc/self/status').read())[1])"
    )
    files = [tmp_path / f"{name}.safetensors" for name in ("small_a", "small_b", "a", "b")]
    command = [sys.executable, "-c", script, *map(str, files)]
    process = subprocess.run(command, capture_output=True, text=True, check=True)
    baseline, peak = (int(kilobytes) / 1024 for kilobytes in process.stdout.split())
    assert peak - baseline < 60  # of 200 MB each, one tensor half of that
