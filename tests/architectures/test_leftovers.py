"""Checkpoints of transformers that hold more than their class has: poolers, next-sentence heads, old buffers."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file
from torch import Tensor

import surgeon
from surgeon.architectures.source import Source, open_source
from surgeon.errors import ArchitectureError, CheckpointError
from surgeon.plugins import load

SIZES = {
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 32,
    "vocab_size": 50,
    "max_position_embeddings": 32,
}
VISION = {key: SIZES[key] for key in list(SIZES)[:4]} | {"image_size": 16, "patch_size": 8}
POOLER = ("pooler.dense.weight", "pooler.dense.bias")
MASKS = {
    f"transformer.h.{block}.attn.attention.{name}": tensor
    for block in range(2)
    for name, tensor in (("bias", torch.ones(1, 1, 32, 32, dtype=torch.bool)), ("masked_bias", torch.tensor(-1e9)))
}
FILES = {
    "BertForMaskedLM": (transformers.BertConfig, SIZES, ("bert.", *POOLER, "cls.seq_relationship.weight")),
    "AlbertForMaskedLM": (
        transformers.AlbertConfig,
        {**SIZES, "embedding_size": 8},
        ("albert.", "pooler.weight", "pooler.bias", "sop_classifier.classifier.weight"),
    ),
    "XLMRobertaForMaskedLM": (transformers.XLMRobertaConfig, SIZES, ("roberta.", *POOLER)),
    "CamembertForMaskedLM": (transformers.CamembertConfig, SIZES, ("roberta.", *POOLER)),
    "MPNetForMaskedLM": (transformers.MPNetConfig, SIZES, ("mpnet.", *POOLER)),
    "LayoutLMForMaskedLM": (transformers.LayoutLMConfig, SIZES, ("", "cls.seq_relationship.weight")),
    "ViTForImageClassification": (transformers.ViTConfig, VISION, ("vit.", *POOLER)),
}


def written(name: str, config: type, sizes: dict, extra: dict[str, Tensor], folder: Path) -> dict[str, Tensor]:
    """Save a network of the class ``name`` with ``extra`` tensors beside its own."""
    torch.manual_seed(0)
    model = getattr(transformers, name)(config(**sizes))
    model.save_pretrained(folder)
    tensors = load_file(folder / "model.safetensors")
    save_file({**tensors, **extra}, folder / "model.safetensors", {"format": "pt"})
    return dict(model.state_dict())


def opened(folder: Path) -> Source:
    return open_source(folder, plugins=load(installed=False))


def extra_of(prefix: str, *names: str) -> dict[str, Tensor]:
    return {name if "pooler" not in name else f"{prefix}{name}": torch.rand(16, 16) for name in names}


@pytest.mark.parametrize("name", FILES)
def test_a_head_that_the_class_lacks_is_left_out_with_a_note_and_nothing_else_is(name: str, tmp_path: Path) -> None:
    config, sizes, leftovers = FILES[name]
    extra = extra_of(*leftovers)
    tensors = written(name, config, sizes, extra, tmp_path)
    source = opened(tmp_path)
    assert set(source.unexpected) == set(extra)
    assert any(f"{len(extra)} tensors of the file have no place and are left out" in note for note in source.notes)
    loaded = surgeon.load(tmp_path).state_dict()
    assert loaded.keys() == tensors.keys()
    assert all(torch.equal(loaded[key], tensors[key]) for key in tensors)


def test_masks_that_gpt_neo_computes_today_are_left_out(tmp_path: Path) -> None:
    sizes = {
        **{key: SIZES[key] for key in ("hidden_size", "vocab_size", "max_position_embeddings")},
        "num_layers": 2,
        "num_heads": 2,
        "attention_types": [[["global", "local"], 1]],
        "bos_token_id": 1,
        "eos_token_id": 2,
    }
    written("GPTNeoForCausalLM", transformers.GPTNeoConfig, sizes, MASKS, tmp_path)
    assert set(opened(tmp_path).unexpected) == set(MASKS)


@pytest.mark.parametrize(
    "name",
    ["bert.encoder.layer.2.output.dense.weight", "bert.embeddings.extra.weight", "bert.norm.weight", "cls.x.weight"],
)
def test_a_tensor_that_no_class_of_the_config_has_is_refused(name: str, tmp_path: Path) -> None:
    extra = {**extra_of("bert.", *POOLER), name: torch.rand(16, 16)}
    written("BertForMaskedLM", transformers.BertConfig, SIZES, extra, tmp_path)
    with pytest.raises(ArchitectureError, match="unexpected") as caught:
        opened(tmp_path)
    assert name in str(caught.value)
    assert "pooler" not in str(caught.value)


def test_leftovers_do_not_excuse_a_tensor_of_another_shape(tmp_path: Path) -> None:
    extra = {**extra_of("bert.", *POOLER), "bert.embeddings.LayerNorm.weight": torch.rand(17)}
    written("BertForMaskedLM", transformers.BertConfig, SIZES, extra, tmp_path)
    with pytest.raises(ArchitectureError, match="of another shape"):
        opened(tmp_path)


@pytest.fixture
def bert(tmp_path: Path) -> transformers.BertModel:
    torch.manual_seed(0)
    return transformers.BertModel(transformers.BertConfig(**SIZES))


def assert_has_values(folder: Path, model: transformers.BertModel) -> None:
    source = open_source(f"hf:{folder}", plugins=load(installed=False))
    assert source.checkpoint is not None
    assert source.mapping is not None
    for name, tensor in model.state_dict().items():
        assert torch.equal(source.checkpoint.read(source.mapping[name]), tensor)


def test_a_folder_with_only_a_variant_is_not_taken_for_an_untrained_network(bert, tmp_path: Path) -> None:
    bert.half().save_pretrained(tmp_path, variant="fp16")
    assert_has_values(tmp_path, bert)


def test_a_folder_with_shards_and_no_index_is_not_taken_for_an_untrained_network(bert, tmp_path: Path) -> None:
    bert.save_pretrained(tmp_path, max_shard_size="10KB")
    (tmp_path / "model.safetensors.index.json").unlink()
    assert_has_values(tmp_path, bert)


@pytest.mark.parametrize(
    ("name", "what"), [("model-q4.gguf", "GGUF"), ("tf_model.h5", "TensorFlow"), ("weights.safetensors", "name one")]
)
def test_a_folder_of_other_weights_is_not_taken_for_an_untrained_network(bert, name, what, tmp_path: Path) -> None:
    bert.config.save_pretrained(tmp_path)
    (tmp_path / name).write_bytes(b"GGUF")
    with pytest.raises(CheckpointError, match=what):
        open_source(f"hf:{tmp_path}", plugins=load(installed=False))


def test_a_folder_with_a_config_and_what_a_trainer_keeps_is_an_untrained_network(bert, tmp_path: Path) -> None:
    bert.config.save_pretrained(tmp_path)
    torch.save({}, tmp_path / "training_args.bin")
    assert open_source(f"hf:{tmp_path}", plugins=load(installed=False)).checkpoint is None


def test_tensors_that_a_class_computes_and_leaves_out_of_its_files_are_computed(tmp_path):
    config = transformers.MarianConfig(
        vocab_size=50, d_model=16, encoder_layers=1, decoder_layers=1, encoder_attention_heads=2,
        decoder_attention_heads=2, encoder_ffn_dim=16, decoder_ffn_dim=16, max_position_embeddings=32, pad_token_id=1,
        eos_token_id=2, decoder_start_token_id=1,
    )  # fmt: skip
    transformers.MarianMTModel(config).save_pretrained(tmp_path / "in")
    edited = surgeon.apply(str(tmp_path / "in"), [surgeon.Freeze(sites="@stem")])
    surgeon.save(edited, tmp_path / "out")
    stock = transformers.MarianMTModel.from_pretrained(tmp_path / "in").state_dict()
    for network in (
        edited,
        surgeon.load(tmp_path / "out"),
        transformers.MarianMTModel.from_pretrained(tmp_path / "out"),
    ):
        values = network.state_dict()
        assert values.keys() == stock.keys()
        assert all(torch.equal(values[name], stock[name]) for name in stock)
