"""Folders as the hub and training tools leave them: variants, shards without an index, other formats."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import BertConfig, BertModel

from surgeon.checkpoint.formats import Checkpoint, open_checkpoint
from surgeon.errors import CheckpointError

TINY = {"hidden_size": 8, "intermediate_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "vocab_size": 32}


@pytest.fixture(scope="module")
def bert() -> BertModel:
    return BertModel(BertConfig(**TINY))


def assert_equal(checkpoint: Checkpoint, tensors: dict[str, Tensor]) -> None:
    assert checkpoint.entries.keys() == tensors.keys()
    assert all(torch.equal(checkpoint.read(name), tensor) for name, tensor in tensors.items())


def refused(path: Path) -> CheckpointError:
    with pytest.raises(CheckpointError) as caught:
        open_checkpoint(path)
    assert caught.value.hint
    assert str(path) in str(caught.value.where)
    return caught.value


@pytest.mark.parametrize("sharded", [False, True])
def test_the_only_variant_is_taken_with_a_note(tmp_path: Path, bert: BertModel, sharded: bool) -> None:
    bert.save_pretrained(tmp_path, variant="fp16", max_shard_size="3KB" if sharded else "1GB")
    assert not (tmp_path / "model.safetensors").exists()
    checkpoint = open_checkpoint(tmp_path)
    assert_equal(checkpoint, bert.state_dict())
    assert checkpoint.config is not None
    assert "variant 'fp16'" in checkpoint.notes[0]
    (file,) = [path for path in tmp_path.iterdir() if path.name in checkpoint.notes[0]]
    assert open_checkpoint(file).config == checkpoint.config


def test_a_bin_variant_is_taken_where_there_are_no_safetensors(tmp_path: Path, bert: BertModel) -> None:
    torch.save(bert.state_dict(), tmp_path / "pytorch_model.fp16.bin")
    assert_equal(open_checkpoint(tmp_path), bert.state_dict())
    save_file({"a": torch.ones(1)}, tmp_path / "model.fp16.safetensors")
    assert list(open_checkpoint(tmp_path).entries) == ["a"]


def test_weights_without_a_variant_come_first(tmp_path: Path, bert: BertModel) -> None:
    bert.save_pretrained(tmp_path)
    save_file({"a": torch.ones(1)}, tmp_path / "model.fp16.safetensors")
    checkpoint = open_checkpoint(tmp_path)
    assert_equal(checkpoint, bert.state_dict())
    assert checkpoint.notes == []


def test_several_variants_are_listed_and_each_can_be_named(tmp_path: Path) -> None:
    for variant in ("fp16", "non_ema"):
        save_file({variant: torch.ones(1)}, tmp_path / f"model.{variant}.safetensors")
    error = refused(tmp_path)
    assert "variants fp16, non_ema" in error.message
    for path in str(error.hint).partition(": ")[2].split(", "):
        assert open_checkpoint(path).entries


@pytest.mark.parametrize("suffix", [".safetensors", ".bin", ".fp16.safetensors"])
def test_shards_without_an_index_are_taken_with_a_note(tmp_path: Path, bert: BertModel, suffix: str) -> None:
    state = {name: tensor.clone() for name, tensor in bert.state_dict().items()}
    names = list(state)
    stem = "pytorch_model" if suffix == ".bin" else "model"
    for number, part in enumerate((names[:5], names[5:9], names[9:]), start=1):
        path = tmp_path / f"{stem}-{number:05d}-of-00003{suffix}"
        tensors = {name: state[name] for name in part}
        torch.save(tensors, path) if suffix == ".bin" else save_file(tensors, path)
    bert.config.save_pretrained(tmp_path)
    checkpoint = open_checkpoint(tmp_path)
    assert_equal(checkpoint, state)
    assert checkpoint.config is not None
    assert checkpoint.notes[0] == "no index: the 3 shards are read as one model"
    assert len(checkpoint.files) == 3
    part = {name.removeprefix("encoder.layer.0."): tensor for name, tensor in state.items() if "layer.0." in name}
    assert_equal(open_checkpoint(tmp_path, key="encoder.layer.0"), part)


def shards(folder: Path, *names: str) -> None:
    for number, name in enumerate(names):
        save_file({f"t{number}": torch.ones(1)}, folder / name)


def test_a_missing_shard_is_named(tmp_path: Path) -> None:
    shards(tmp_path, "model-00001-of-00003.safetensors", "model-00003-of-00003.safetensors")
    assert "1 of its 3 shards are missing: model-00002-of-00003.safetensors" in refused(tmp_path).message


def test_shards_of_two_models_are_not_mixed(tmp_path: Path) -> None:
    shards(tmp_path, "a-00001-of-00001.safetensors", "b-00001-of-00001.safetensors")
    assert "shards of 2 models" in refused(tmp_path).message


def test_a_tensor_in_two_shards_is_refused(tmp_path: Path) -> None:
    for number in (1, 2):
        save_file({"a": torch.ones(1)}, tmp_path / f"model-{number:05d}-of-00002.safetensors")
    assert "1 of its tensors are also in another shard: a" in refused(tmp_path / "").message


GGUF = b"GGUF\3\0\0\0" + bytes(16)
OTHERS = {
    "GGUF": (["model-Q4_K_M.gguf", "README.md"], GGUF, "GGUF", "gguf_file="),
    "TensorFlow": (["config.json", "tf_model.h5"], b"\x89HDF\r\n\x1a\n", "TensorFlow", "from_tf=True"),
    "TensorFlow shards": (["tf_model-00001-of-00002.h5"], b"\x89HDF\r\n\x1a\n", "TensorFlow", "from_tf=True"),
    "TensorFlow checkpoint": (
        ["model.ckpt.index", "model.ckpt.data-00000-of-00001"],
        bytes(9),
        "TensorFlow checkpoint",
        "from_tf=True",
    ),
    "BERT of 2018": (
        ["bert_model.ckpt.meta", "bert_model.ckpt.index", "bert_config.json"],
        bytes(9),
        "TensorFlow checkpoint",
        "from_tf=True",
    ),
    "SavedModel": (["saved_model.pb", "keras_metadata.pb"], b"\x08\1", "SavedModel", "from_tf=True"),
    "Flax": (["config.json", "flax_model.msgpack"], b"\x82\xa1a", "Flax", "from_flax=True"),
    "ONNX": (["model.onnx"], b"\x08\x07", "ONNX", "exported from"),
    "DeepSpeed ZeRO": (
        ["zero_to_fp32.py", "latest", "rng_state_0.pth", "training_args.bin", "scheduler.pt"],
        b"global_step100",
        "DeepSpeed ZeRO",
        "zero_to_fp32.py",
    ),
    "DeepSpeed, inside": (
        ["zero_pp_rank_0_mp_rank_00_optim_states.pt", "zero_pp_rank_0_mp_rank_00_model_states.pt"],
        b"PK\3\4",
        "DeepSpeed ZeRO",
        "zero_to_fp32.py",
    ),
    "FSDP": (["__0_0.distcp", "__1_0.distcp", ".metadata"], b"PK\3\4", "FSDP", "dcp_to_torch"),
}


@pytest.mark.parametrize("kind", OTHERS)
def test_a_folder_of_another_format_says_what_it_is_and_what_converts_it(tmp_path: Path, kind: str) -> None:
    names, data, what, tool = OTHERS[kind]
    for name in names:
        (tmp_path / name).write_bytes(b"{}" if name.endswith(".json") else data)
    error = refused(tmp_path)
    assert what in error.message
    assert tool in str(error.hint)


@pytest.mark.parametrize("kind", OTHERS)
def test_a_file_of_another_format_says_what_it_is_and_what_converts_it(tmp_path: Path, kind: str) -> None:
    names, data, what, tool = OTHERS[kind]
    name = next(name for name in names if not name.endswith((".json", ".md")))
    (tmp_path / name).write_bytes(data)
    error = refused(tmp_path / name)
    assert tool in str(error.hint)
    assert what in error.message


@pytest.mark.parametrize("folder", ["global_step100", "pytorch_model_fsdp_0"])
def test_a_folder_that_holds_the_shards_of_ranks_says_so(tmp_path: Path, folder: str) -> None:
    (tmp_path / folder).mkdir()
    (tmp_path / "optimizer.bin").write_bytes(b"x")
    assert re.search("DeepSpeed|FSDP", refused(tmp_path).message)


def test_a_checkpoint_beside_other_formats_is_named(tmp_path: Path) -> None:
    torch.save({"a": torch.ones(1)}, tmp_path / "best.pth")
    (tmp_path / "best.onnx").write_bytes(b"\x08\x07")
    assert str(tmp_path / "best.pth") in str(refused(tmp_path).hint)


def test_weights_that_zero_left_empty_are_refused(tmp_path: Path, bert: BertModel) -> None:
    bert.save_pretrained(tmp_path)
    state = load_file(tmp_path / "model.safetensors")
    state["pooler.dense.weight"] = torch.empty(0)
    save_file(state, tmp_path / "model.safetensors")
    (tmp_path / "zero_to_fp32.py").write_text("")
    error = refused(tmp_path)
    assert "not gathered: 1 tensors are empty, such as pooler.dense.weight" in error.message
    assert "zero_to_fp32.py" in str(error.hint)


FP8 = torch.ones(2, 2).to(torch.float8_e4m3fn)
INT = torch.ones(2, 2, dtype=torch.int32)
BYTES = torch.ones(4, 1, dtype=torch.uint8)
PACKED: dict[str, dict[str, Tensor]] = {
    "gptq": {"l.qweight": INT, "l.qzeros": INT, "l.scales": torch.ones(2), "l.g_idx": INT},
    "awq": {"l.qweight": INT, "l.qzeros": INT, "l.scales": torch.ones(2)},
    "bitsandbytes": {"l.weight": BYTES, "l.weight.absmax": BYTES, "l.weight.quant_state.bitsandbytes__nf4": BYTES},
    "bitsandbytes 8": {"l.weight": BYTES.view(torch.int8), "l.SCB": torch.ones(4)},
    "fp8": {"l.weight": FP8, "l.weight_scale_inv": torch.ones(1)},
    "mxfp4": {"l.gate_up_proj_blocks": BYTES, "l.gate_up_proj_scales": BYTES},
    "compressed-tensors": {"l.weight_packed": INT, "l.weight_scale": torch.ones(2)},
}
TOOLS = {
    "gptq": "original checkpoint",
    "awq": "original checkpoint",
    "bitsandbytes": ".dequantize()",
    "fp8": "FineGrainedFP8Config(dequantize=True)",
    "mxfp4": "Mxfp4Config(dequantize=True)",
    "compressed-tensors": "CompressedTensorsConfig",
}


@pytest.mark.parametrize("method", TOOLS)
def test_a_quantized_folder_is_refused_by_its_config(tmp_path: Path, method: str) -> None:
    config = {"model_type": "llama", "quantization_config": {"quant_method": method}}
    (tmp_path / "config.json").write_text(json.dumps(config))
    save_file({"a": torch.ones(1)}, tmp_path / "model.safetensors")
    error = refused(tmp_path)
    assert f"quantized ({method})" in error.message
    assert TOOLS[method] in str(error.hint)


@pytest.mark.parametrize("config", [{"load_in_8bit": True}, {"quant_method": "bitsandbytes", "load_in_4bit": True}])
@pytest.mark.parametrize("nested", [False, True])
def test_every_form_of_a_quantization_config_is_seen(tmp_path: Path, config: dict[str, object], nested: bool) -> None:
    described = {"quantization_config": config}
    whole = {"model_type": "llava", **({"text_config": described} if nested else described)}
    (tmp_path / "config.json").write_text(json.dumps(whole))
    save_file({"a": torch.ones(1)}, tmp_path / "model.safetensors")
    assert "quantized (bitsandbytes)" in refused(tmp_path).message


@pytest.mark.parametrize("kind", PACKED)
def test_quantized_tensors_are_refused_without_a_config_too(tmp_path: Path, kind: str) -> None:
    tensors = {name: tensor.clone() for name, tensor in PACKED[kind].items()}
    save_file({**tensors, "norm.weight": torch.ones(2)}, tmp_path / "x.safetensors")
    method = kind.partition(" ")[0]
    error = refused(tmp_path / "x.safetensors")
    assert f"quantized ({method})" in error.message
    assert TOOLS[method] in str(error.hint)


def test_plain_fp8_tensors_without_scales_are_read(tmp_path: Path) -> None:
    save_file({"l.weight": FP8}, tmp_path / "x.safetensors")
    assert open_checkpoint(tmp_path / "x.safetensors").read("l.weight").dtype is torch.float8_e4m3fn
