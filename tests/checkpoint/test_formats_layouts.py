"""Where a model lies: in folders and shards, nested in training checkpoints, under wrappers' prefixes."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel
from transformers import BertConfig, BertModel, LlamaConfig, LlamaForCausalLM, LlamaModel

from surgeon.checkpoint.formats import Checkpoint, memory_checkpoint, open_checkpoint
from surgeon.checkpoint.prefixes import without_wrappers
from surgeon.errors import CheckpointError

TINY = {"hidden_size": 8, "intermediate_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "vocab_size": 32}


def network() -> nn.Sequential:
    return nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3))


def open_saved(content: Any, folder: Path, **options: Any) -> Checkpoint:
    torch.save(content, folder / "x.pt")
    return open_checkpoint(folder / "x.pt", **options)


def assert_equal(checkpoint: Checkpoint, state: dict[str, Tensor]) -> None:
    assert checkpoint.entries.keys() == state.keys()
    assert all(torch.equal(checkpoint.read(name), tensor) for name, tensor in state.items())


@pytest.fixture(scope="module")
def bert() -> BertModel:
    return BertModel(BertConfig(**TINY))


@pytest.fixture(scope="module")
def llama() -> LlamaForCausalLM:
    return LlamaForCausalLM(LlamaConfig(**TINY, num_key_value_heads=2))


@pytest.mark.parametrize("sharded", [False, True])
def test_a_hugging_face_folder_gives_its_tensors_and_config(tmp_path: Path, bert: BertModel, sharded: bool) -> None:
    bert.save_pretrained(tmp_path, max_shard_size="3KB" if sharded else "1GB")
    checkpoint = open_checkpoint(tmp_path)
    assert_equal(checkpoint, bert.state_dict())
    assert checkpoint.config is not None
    assert checkpoint.config["model_type"] == "bert"
    assert checkpoint.folder == tmp_path
    assert (len(checkpoint.files) > 2) is sharded
    inner = "sharded safetensors" if sharded else "safetensors"
    assert checkpoint.format == f"Hugging Face folder ({inner})"
    assert all(entry.bytes is not None for entry in checkpoint.entries.values())


@pytest.mark.parametrize("sharded", [False, True])
def test_a_folder_of_bin_files_is_read_lazily_too(tmp_path: Path, bert: BertModel, sharded: bool) -> None:
    state = bert.state_dict()
    bert.config.save_pretrained(tmp_path)
    if sharded:
        names = list(state)
        parts = {"pytorch_model-00001-of-00002.bin": names[:9], "pytorch_model-00002-of-00002.bin": names[9:]}
        for file, part in parts.items():
            torch.save({name: state[name].clone() for name in part}, tmp_path / file)
        index = {"weight_map": {name: file for file, part in parts.items() for name in part}}
        (tmp_path / "pytorch_model.bin.index.json").write_text(json.dumps(index))
    else:
        torch.save(state, tmp_path / "pytorch_model.bin")
    checkpoint = open_checkpoint(tmp_path)
    assert_equal(checkpoint, state)
    assert all(entry.bytes is not None for entry in checkpoint.entries.values())


def test_a_file_of_a_folder_brings_the_config_with_it(tmp_path: Path, bert: BertModel) -> None:
    bert.save_pretrained(tmp_path)
    assert open_checkpoint(tmp_path / "model.safetensors").config is not None
    shutil.copy(tmp_path / "model.safetensors", tmp_path / "other.safetensors")
    assert open_checkpoint(tmp_path / "other.safetensors").config is None


def test_an_artifact_gives_its_manifest_and_keeps_its_names(tmp_path: Path) -> None:
    from safetensors.torch import save_file

    save_file({"module.weight": torch.ones(2)}, tmp_path / "model.safetensors")
    (tmp_path / "surgeon.json").write_text('{"format": 1}')
    checkpoint = open_checkpoint(str(tmp_path))
    assert checkpoint.manifest == {"format": 1}
    assert checkpoint.format == "surgeon artifact (safetensors)"
    assert list(checkpoint.entries) == ["module.weight"]


@pytest.mark.parametrize(
    "key", ["state_dict", "model", "model_state_dict", "ema", "net", "network", "module", "params", "my_unusual_key"]
)
def test_a_nested_state_dict_is_found_and_what_lies_beside_it_is_noted(tmp_path: Path, key: str) -> None:
    model = network()
    optimizer = torch.optim.Adam(model.parameters())
    model(torch.ones(4, 2)).sum().backward()
    optimizer.step()
    content = {
        key: model.state_dict(),
        "optimizer": optimizer.state_dict(),
        "epoch": 3,
        "best": torch.tensor(0.9),
        "lr_scheduler": {"last": torch.tensor(1)},
    }
    checkpoint = open_saved(content, tmp_path)
    assert_equal(checkpoint, model.state_dict())
    assert checkpoint.notes == [
        f"state dict taken from '{key}'",
        "beside the state dict, ignored: optimizer, epoch, best, lr_scheduler",
    ]


def test_a_state_dict_is_found_three_deep(tmp_path: Path) -> None:
    state = network().state_dict()
    assert_equal(open_saved({"a": {"b": {"model": state}}}, tmp_path), state)
    with pytest.raises(CheckpointError, match="no tensors"):
        open_saved({"a": {"b": {"c": {"d": state}}}}, tmp_path)


def test_values_that_are_not_tensors_are_ignored_and_noted(tmp_path: Path) -> None:
    state = network().state_dict()
    checkpoint = open_saved({**state, "_extra_state": {"scale": torch.ones(1)}, "version": 2}, tmp_path)
    assert_equal(checkpoint, state)
    assert any("_extra_state" in note for note in checkpoint.notes)
    assert any("version" in note for note in checkpoint.notes)


def test_several_state_dicts_are_listed_with_their_sizes_until_one_is_chosen(tmp_path: Path) -> None:
    plain, averaged = network().state_dict(), {"only": torch.ones(1)}
    content = {"model": plain, "ema": {"model": averaged}, "optimizer": {"state": {}}}
    with pytest.raises(
        CheckpointError, match=r"2 state dicts: model \(7 tensors\), ema\.model \(1 tensors\)"
    ) as caught:
        open_saved(content, tmp_path)
    assert caught.value.hint == "choose one with --key, such as --key model"
    assert_equal(open_saved(content, tmp_path, key="model"), plain)
    for key in ("ema.model", "ema"):
        assert_equal(open_saved(content, tmp_path, key=key), averaged)
    with pytest.raises(CheckpointError, match="no state dict under key 'emma'") as caught:
        open_saved(content, tmp_path, key="emma")
    assert "ema.model" in str(caught.value.hint)


@pytest.mark.parametrize("suffix", [".pt", ".safetensors"])
def test_a_key_may_be_the_beginning_of_tensor_names(tmp_path: Path, suffix: str) -> None:
    from safetensors.torch import save_file

    tensors = {"encoder_q.w": torch.ones(2), "encoder_k.w": torch.zeros(2), "queue": torch.zeros(3)}
    path = tmp_path / f"moco{suffix}"
    save_file(tensors, path) if suffix == ".safetensors" else torch.save(tensors, path)
    assert_equal(open_checkpoint(path, key="encoder_q"), {"w": torch.ones(2)})
    with pytest.raises(CheckpointError, match="encoder_x"):
        open_checkpoint(path, key="encoder_x")


def test_a_bare_state_dict_has_no_key_to_choose(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="no state dict under key 'ema'") as caught:
        open_saved(network().state_dict(), tmp_path, key="ema")
    assert "bare" in str(caught.value.hint)


@pytest.mark.parametrize("content", [torch.ones(3), [torch.ones(3)], {"epoch": 3}, {}, 3, {1: torch.ones(1)}], ids=repr)
def test_a_file_without_named_tensors_is_refused(tmp_path: Path, content: object) -> None:
    with pytest.raises(CheckpointError, match=r"no tensors|single tensor"):
        open_saved(content, tmp_path)


def wrapped_twice() -> nn.Module:
    return torch.compile(nn.DataParallel(torch.compile(network())))  # type: ignore[return-value]


def compiled_inside() -> nn.Module:
    model = network()
    model[0] = torch.compile(model[0])  # type: ignore[assignment]
    return model


@pytest.mark.parametrize(
    "wrap",
    [
        lambda: nn.DataParallel(network()),
        lambda: torch.compile(network()),
        lambda: AveragedModel(network()),
        wrapped_twice,
        compiled_inside,
    ],
    ids=["DataParallel", "compile", "AveragedModel", "nested", "compiled inside"],
)
def test_the_prefixes_of_wrappers_are_stripped_and_reported(tmp_path: Path, wrap: Any) -> None:
    state = wrap().state_dict()
    checkpoint = open_saved(state, tmp_path)
    assert checkpoint.entries.keys() == network().state_dict().keys()
    assert any("stripped" in note for note in checkpoint.notes)
    values = [tensor for name, tensor in state.items() if name != "n_averaged"]
    assert all(torch.equal(checkpoint.read(n), t) for n, t in zip(checkpoint.entries, values, strict=True))
    assert all(entry.name == name for name, entry in checkpoint.entries.items())


def test_a_prefix_that_may_be_the_networks_own_is_a_candidate_only(llama: LlamaForCausalLM) -> None:
    whole = memory_checkpoint(llama.state_dict())
    assert whole.prefix_candidates() == [""]  # lm_head stands beside model.
    wrapped = without_wrappers(memory_checkpoint({f"net.model.{n}": t for n, t in llama.model.state_dict().items()}))
    assert wrapped.prefix_candidates() == ["", "net.", "net.model."]
    bare = wrapped.without_prefix("net.model.")
    assert bare.entries.keys() == LlamaModel(llama.config).state_dict().keys()
    assert bare.notes == [f"prefix 'net.model.' stripped from {len(bare.entries)} tensor names"]
    assert wrapped.notes == []  # the original is as it was


def test_tensors_outside_a_chosen_prefix_are_counted() -> None:
    checkpoint = memory_checkpoint({"model.a": torch.ones(1), "loss.weight": torch.ones(1)}).without_prefix("model.")
    assert checkpoint.notes == ["prefix 'model.' stripped from 1 tensor names; 1 tensors outside it are left out"]
    with pytest.raises(CheckpointError, match=r"begins with 'nothing\.'"):
        checkpoint.without_prefix("nothing.")


def test_a_wrappers_name_that_a_network_needs_is_left_alone() -> None:
    names = {"a._orig_mod.w": torch.ones(1), "a.w": torch.ones(1)}
    assert list(without_wrappers(memory_checkpoint(names)).entries) == list(names)
    partly = {"module.w": torch.ones(1), "head.w": torch.ones(1)}
    assert list(without_wrappers(memory_checkpoint(partly)).entries) == list(partly)
