"""Depth pruning: fewer blocks, and everything in the network that speaks of them agrees."""

from __future__ import annotations

import copy

import pytest
import torch
import transformers
from families import build, example, t5_config
from torch import nn
from transformers import T5ForConditionalGeneration

import surgeon
from surgeon.errors import OperationError
from surgeon.nn.features import main_tensor
from surgeon.operations import Truncate

BLOCKS = {  # the container, and the field of the config that counts its blocks
    "bert": ("bert.encoder.layer", "num_hidden_layers"),
    "distilbert": ("distilbert.transformer.layer", "n_layers"),
    "gpt2": ("transformer.h", "n_layer"),
    "llama": ("model.layers", "num_hidden_layers"),
    "hf_vit": ("vit.layers", "num_hidden_layers"),
    "wav2vec2": ("wav2vec2.encoder.layers", "num_hidden_layers"),
    "t5": ("encoder.block", "num_layers"),
    "whisper": ("model.decoder.layers", "decoder_layers"),
}


@pytest.mark.parametrize("name", sorted(BLOCKS))
def test_fewer_blocks_leave_a_stock_class_that_from_pretrained_loads(name, tmp_path):
    container, field = BLOCKS[name]
    model = build(name)
    before = len(model.get_submodule(container))
    cut = surgeon.apply(model, [Truncate(keep_blocks=1, stack=container)])
    assert type(cut) is type(model)
    assert len(cut.get_submodule(container)) == 1
    assert getattr(cut.config, field) == 1
    assert getattr(model.config, field) == before, "the config of the model handed in was changed"
    surgeon.save(cut, tmp_path / "cut")
    args, kwargs = example(name)
    stock = type(model).from_pretrained(tmp_path / "cut")
    ours = surgeon.load(tmp_path / "cut")
    with torch.no_grad():
        expected = main_tensor(cut(*args, **kwargs))
        assert torch.equal(main_tensor(stock(*args, **kwargs)), expected)
        assert torch.equal(main_tensor(ours(*args, **kwargs)), expected)


@pytest.mark.parametrize("name", ["gpt2", "llama"])
def test_generation_with_a_cache_gives_what_it_gives_without(name):
    cut = surgeon.apply(build(name), [Truncate(keep_blocks=[1])])
    _, kwargs = example(name)
    ids = kwargs["input_ids"][:1]
    with_cache = cut.generate(ids, max_new_tokens=6, do_sample=False, use_cache=True, pad_token_id=0)
    without = cut.generate(ids, max_new_tokens=6, do_sample=False, use_cache=False, pad_token_id=0)
    assert torch.equal(with_cache, without)


def test_positions_choose_which_blocks_stay_and_they_are_renumbered():
    model = build("llama")
    cut = surgeon.apply(model, [Truncate(keep_blocks=[1])])
    old, new = model.model.layers[1], cut.model.layers[0]
    assert new.self_attn.layer_idx == 0
    for key, value in old.state_dict().items():
        assert torch.equal(value, new.state_dict()[key])


def test_a_network_that_mixes_attention_with_other_blocks_keeps_one_that_attends():
    kinds = ["conv", "conv", "full_attention", "conv"]
    sizes = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 4, "num_attention_heads": 2}
    config = transformers.Lfm2Config(**sizes, vocab_size=64, num_key_value_heads=1, layer_types=kinds)
    model = transformers.Lfm2ForCausalLM(config).eval()
    with pytest.raises(OperationError, match="attention, and generation needs one") as caught:
        surgeon.plan(model, Truncate(keep_blocks=2))
    assert caught.value.hint == "keep one with attention: keep_blocks: [0, 2]"
    tokens = torch.tensor([[3, 1, 4, 1, 5]])
    for keep in ([0, 2], 0.5):
        thinned = surgeon.apply(model, Truncate(keep_blocks=keep))
        assert thinned.config.layer_types == ["conv", "full_attention"]
        assert thinned.generate(tokens, max_new_tokens=3, do_sample=False, eos_token_id=None).shape == (1, 8)


def jamba() -> nn.Module:
    config = transformers.JambaConfig(
        hidden_size=32, intermediate_size=64, num_hidden_layers=6, num_attention_heads=2, num_key_value_heads=1,
        vocab_size=64, attn_layer_period=3, attn_layer_offset=2, num_experts=2, mamba_d_state=4, mamba_dt_rank=4,
        use_mamba_kernels=False,
    )  # fmt: skip
    return transformers.JambaForCausalLM(config).eval()


def test_blocks_of_several_classes_that_the_config_counts_together_are_one_stack(tmp_path):
    model, tokens = jamba(), torch.tensor([[3, 1, 4, 1, 5]])
    assert len({type(layer) for layer in model.model.layers}) == 2
    thinned = surgeon.apply(model, Truncate(keep_blocks=0.5))
    assert [type(layer) for layer in thinned.model.layers] == [type(layer) for layer in model.model.layers[:3]]
    surgeon.save(thinned, tmp_path / "thinned")
    again = transformers.JambaForCausalLM.from_pretrained(tmp_path / "thinned").eval()
    options = {"max_new_tokens": 3, "do_sample": False, "eos_token_id": None}
    assert torch.equal(again.generate(tokens, **options), thinned.generate(tokens, **options))


def test_kinds_of_blocks_that_the_config_works_out_otherwise_are_refused():
    with pytest.raises(OperationError, match="computes the kinds of blocks") as caught:
        surgeon.plan(jamba(), Truncate(keep_blocks=[0, 2]))
    assert caught.value.hint == "keep the first blocks: keep_blocks: 3"
    assert len(surgeon.apply(jamba(), Truncate(keep_blocks=0.3)).model.layers) == 3


def test_settings_that_name_blocks_by_position_follow_them(tmp_path):
    sizes = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 4, "num_attention_heads": 2}
    experts = {
        "num_experts": 2,
        "num_experts_per_tok": 1,
        "moe_intermediate_size": 16,
        "shared_expert_intermediate_size": 16,
    }
    config = transformers.Qwen2MoeConfig(
        **sizes, **experts, vocab_size=64, num_key_value_heads=1, mlp_only_layers=[1, 3]
    )
    model = transformers.Qwen2MoeForCausalLM(config).eval()
    thinned = surgeon.apply(model, Truncate(keep_blocks=[2, 3]))
    assert thinned.config.mlp_only_layers == [1]
    assert config.mlp_only_layers == [1, 3]
    surgeon.save(thinned, tmp_path / "thinned")
    again = transformers.Qwen2MoeForCausalLM.from_pretrained(tmp_path / "thinned").eval()
    tokens = torch.tensor([[3, 1, 4, 1, 5]])
    assert torch.equal(again(tokens).logits, thinned(tokens).logits)


def test_what_a_forward_looks_up_by_position_follows_the_blocks():
    """Qwen2.5-VL's tower asks in its forward which of its blocks see the whole picture."""
    config = transformers.Qwen2_5_VLConfig().vision_config
    config.depth, config.hidden_size, config.intermediate_size, config.num_heads, config.out_hidden_size = (
        4,
        32,
        64,
        2,
        32,
    )
    config.fullatt_block_indexes, config.window_size = [1, 3], 28
    tower = transformers.models.qwen2_5_vl.modeling_qwen2_5_vl.Qwen2_5_VisionTransformerPretrainedModel(config).eval()
    patches = torch.randn(64, 3 * 2 * 14 * 14)
    inputs = {"hidden_states": patches, "grid_thw": torch.tensor([[1, 8, 8]])}
    thinned = surgeon.apply(tower, Truncate(keep_blocks=[0, 3]), inputs=inputs)
    assert list(thinned.fullatt_block_indexes) == [1]
    by_hand = copy.deepcopy(tower)
    by_hand.blocks = nn.ModuleList([tower.blocks[0], tower.blocks[3]])
    by_hand.fullatt_block_indexes = [1]
    for ours, theirs in zip(thinned(**inputs).values(), by_hand(**inputs).values(), strict=True):
        assert torch.equal(ours, theirs)


def test_blocks_that_features_are_taken_from_stay_and_are_followed():
    """Each layer of Qwen3-VL's list of mergers is for the features of one block of the tower."""
    config = transformers.Qwen3VLConfig().vision_config
    config.depth, config.hidden_size, config.intermediate_size, config.num_heads, config.out_hidden_size = (
        4,
        32,
        64,
        2,
        32,
    )
    config.deepstack_visual_indexes = [1, 3]
    tower = transformers.models.qwen3_vl.modeling_qwen3_vl.Qwen3VLVisionModel(config).eval()
    patch = config.in_channels * config.temporal_patch_size * config.patch_size**2
    inputs = {"hidden_states": torch.randn(64, patch), "grid_thw": torch.tensor([[1, 8, 8]])}
    with pytest.raises(
        OperationError, match="block 3 of blocks cannot be removed: features are taken from it"
    ) as caught:
        surgeon.plan(tower, Truncate(keep_blocks=0.5), inputs=inputs)
    assert caught.value.hint == "keep it: keep_blocks: [0, 1, 3], stack: blocks"
    thinned = surgeon.apply(tower, Truncate(keep_blocks=[1, 3]), inputs=inputs)
    assert len(thinned.deepstack_merger_list) == 2
    by_hand = copy.deepcopy(tower)
    by_hand.blocks = nn.ModuleList([tower.blocks[1], tower.blocks[3]])
    by_hand.deepstack_visual_indexes = [0, 1]
    ours, theirs = thinned(**inputs).deepstack_features, by_hand(**inputs).deepstack_features
    assert len(ours) == len(theirs) == 2
    assert all(torch.equal(one, other) for one, other in zip(ours, theirs, strict=True))


def test_lists_with_an_entry_for_each_block_are_thinned_with_the_blocks(tmp_path):
    config = transformers.XLMConfig(
        vocab_size=64, emb_dim=32, n_layers=4, n_heads=2, dropout=0.0, attention_dropout=0.0
    )
    model, tokens = transformers.XLMModel(config).eval(), torch.tensor([[3, 1, 4, 1, 5]])
    thinned = surgeon.apply(model, Truncate(keep_blocks=[0, 2]))
    lists = (thinned.attentions, thinned.layer_norm1, thinned.ffns, thinned.layer_norm2)
    assert [len(layers) for layers in lists] == [2, 2, 2, 2]
    assert torch.equal(thinned.layer_norm2[1].weight, model.layer_norm2[2].weight)
    surgeon.save(thinned, tmp_path / "thinned")
    again = transformers.XLMModel.from_pretrained(tmp_path / "thinned").eval()
    assert torch.equal(again(tokens).last_hidden_state, thinned(tokens).last_hidden_state)


class Layer(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Linear(4, 4)

    def forward(self, values: torch.Tensor) -> torch.Tensor:
        return values + self.inner(values)


class Expert(nn.Module):
    """Its layers take turns with another network's, as those of PI0's expert do with its language model's."""

    def __init__(self) -> None:
        super().__init__()
        self.trunk, self.expert = (nn.ModuleDict({"layers": nn.ModuleList(Layer() for _ in range(4))}) for _ in "ab")

    def forward(self, values: torch.Tensor) -> torch.Tensor:
        for layer, other in zip(self.trunk["layers"], self.expert["layers"], strict=True):
            values = other(layer(values))
        return values


def test_networks_whose_layers_take_turns_are_thinned_together():
    """Neither can be without the other's blocks, not even in passing."""
    model, values = Expert(), torch.randn(2, 4)
    thinned = surgeon.apply(model, Truncate(keep_blocks=0.25), inputs={"values": [2, 4]})
    assert (len(thinned.trunk["layers"]), len(thinned.expert["layers"])) == (1, 1)
    assert torch.equal(thinned(values), model.expert["layers"][0](model.trunk["layers"][0](values)))


def test_a_fraction_thins_every_stack():
    cut = surgeon.apply(build("whisper"), [Truncate(keep_blocks=0.5)])
    assert (len(cut.model.encoder.layers), len(cut.model.decoder.layers)) == (2, 1)  # of 3 and 2


def test_a_t5_with_as_many_encoder_as_decoder_blocks_is_thinned_on_both_sides():
    config = t5_config()
    config.num_layers = config.num_decoder_layers = 4
    model = T5ForConditionalGeneration(config).eval()
    thinned = surgeon.apply(model, [Truncate(keep_blocks=0.5)])
    assert (thinned.config.num_layers, thinned.config.num_decoder_layers) == (2, 2)
    assert len(thinned.encoder.block) == len(thinned.decoder.block) == 2
