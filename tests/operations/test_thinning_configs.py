"""After thinning, the config says what is left; where no config can, the plan says so and none is written."""

from __future__ import annotations

import pytest
import torch
import transformers
from pydantic import ValidationError
from torch import nn

import surgeon
from surgeon.errors import OperationError
from surgeon.nn.features import main_tensor
from surgeon.operations import Truncate
from surgeon.operations.truncate.keep_blocks import changed_output

SIZES = {"hidden_size": 32, "intermediate_size": 64, "num_attention_heads": 4}
TOKENS = torch.tensor([[3, 5, 8, 13, 21, 34, 55, 5]])


def longformer() -> nn.Module:
    config = transformers.LongformerConfig(
        **SIZES, vocab_size=64, num_hidden_layers=4, attention_window=[4, 8, 4, 8], max_position_embeddings=64,
        pad_token_id=0,
    )  # fmt: skip
    return transformers.LongformerForSequenceClassification(config).eval()


def hubert() -> nn.Module:
    """With as many layers in the feature extractor as blocks, and a learned sum of hidden states."""
    config = transformers.HubertConfig(
        **SIZES, vocab_size=32, num_hidden_layers=3, conv_dim=(16, 16, 16), conv_kernel=(10, 3, 3),
        conv_stride=(5, 2, 2), num_feat_extract_layers=3, num_conv_pos_embeddings=16,
        num_conv_pos_embedding_groups=4, classifier_proj_size=16, use_weighted_layer_sum=True, num_labels=5,
    )  # fmt: skip
    model = transformers.HubertForSequenceClassification(config).eval()
    nn.init.uniform_(model.layer_weights)
    return model


def deepseek() -> nn.Module:
    config = transformers.DeepseekV3Config(
        vocab_size=64, hidden_size=32, intermediate_size=64, moe_intermediate_size=16, num_hidden_layers=4,
        num_attention_heads=4, num_key_value_heads=4, n_routed_experts=4, num_experts_per_tok=2, n_group=1,
        topk_group=1, first_k_dense_replace=2, q_lora_rank=16, kv_lora_rank=16, qk_rope_head_dim=8,
        qk_nope_head_dim=8, v_head_dim=8, bos_token_id=1, eos_token_id=2,
    )  # fmt: skip
    return transformers.DeepseekV3ForCausalLM(config).eval()


def gpt_neo() -> nn.Module:
    config = transformers.GPTNeoConfig(
        vocab_size=64, hidden_size=32, num_layers=4, num_heads=4, attention_types=[[["global", "local"], 2]],
        window_size=4, max_position_embeddings=64,
    )  # fmt: skip
    return transformers.GPTNeoForCausalLM(config).eval()


def recurrent_gemma() -> nn.Module:
    config = transformers.RecurrentGemmaConfig(
        **SIZES, vocab_size=64, num_hidden_layers=4, lru_width=32, block_types=["recurrent", "attention"]
    )
    return transformers.RecurrentGemmaForCausalLM(config).eval()


STOCK = {
    "longformer": (longformer, TOKENS, {"attention_window": [4, 8]}),
    "hubert": (hubert, torch.randn(1, 2000), {"num_feat_extract_layers": 3, "num_hidden_layers": 2}),
    "deepseek": (deepseek, TOKENS, {"first_k_dense_replace": 1}),
    "gpt_neo": (gpt_neo, TOKENS, {"attention_layers": ["global", "local"]}),
    "recurrent_gemma": (recurrent_gemma, TOKENS, {"block_types": ["recurrent", "attention"]}),
}


@pytest.mark.parametrize("name", sorted(STOCK))
def test_from_pretrained_of_the_result_gives_its_outputs(name, tmp_path):
    make, inputs, fields = STOCK[name]
    torch.manual_seed(0)
    model = make()
    last = 2 if name == "hubert" else 3
    thinned = surgeon.apply(model, Truncate(keep_blocks=[0, last]))
    assert {field: getattr(thinned.config, field) for field in fields} == fields
    surgeon.save(thinned, tmp_path / "thinned")
    stock = type(model).from_pretrained(tmp_path / "thinned").eval()
    with torch.no_grad():
        assert torch.equal(main_tensor(stock(inputs)), main_tensor(thinned(inputs)))


def test_a_learned_sum_of_hidden_states_keeps_the_weights_of_those_that_are_left():
    model = hubert()
    thinned = surgeon.apply(model, Truncate(keep_blocks=[0, 2]))
    assert torch.equal(thinned.layer_weights, model.layer_weights[[0, 1, 3]])


def test_blocks_that_compute_a_constant_from_their_position_keep_it_and_no_stock_config_is_written(tmp_path):
    config = transformers.GPT2Config(
        vocab_size=64, n_embd=32, n_layer=4, n_head=4, n_positions=64, scale_attn_by_inverse_layer_idx=True,
        bos_token_id=1, eos_token_id=2,
    )  # fmt: skip
    model = transformers.GPT2LMHeadModel(config).eval()
    (step,) = surgeon.plan(model, Truncate(keep_blocks=[0, 3])).steps
    assert any("no config of GPT2LMHeadModel builds this" in note and "scaling" in note for note in step.notes)
    thinned = surgeon.apply(model, Truncate(keep_blocks=[0, 3]))
    assert thinned.transformer.h[1].attn.scaling == model.transformer.h[3].attn.scaling
    surgeon.save(thinned, tmp_path / "thinned")
    assert not (tmp_path / "thinned" / "config.json").exists()
    assert torch.equal(surgeon.load(tmp_path / "thinned").eval()(TOKENS).logits, thinned(TOKENS).logits)


def test_a_block_whose_keys_and_values_another_one_reads_has_to_stay():
    config = transformers.Gemma3nTextConfig(
        **SIZES, vocab_size=64, num_key_value_heads=2, head_dim=8, num_hidden_layers=6, num_kv_shared_layers=2,
        laurel_rank=8, hidden_size_per_layer_input=8, vocab_size_per_layer_input=64, altup_num_inputs=2,
        sliding_window=4, layer_types=["sliding_attention", "full_attention"] * 3,
        activation_sparsity_pattern=[0.0] * 6,
    )  # fmt: skip
    model = transformers.Gemma3nForCausalLM(config).eval()
    with pytest.raises(
        OperationError, match=r"block 2 of model\.layers cannot be removed: block 4 reads its keys"
    ) as caught:
        surgeon.plan(model, Truncate(keep_blocks=[0, 1, 4]))
    assert caught.value.hint == "keep it: keep_blocks: [0, 1, 2, 4]"


@pytest.mark.parametrize(
    ("before", "after", "change"),
    [
        (["a.0", "a.1", "a.2", "a.3", "a.4"], ["a.0", "a.1", "a.2"], None),  # two entries for two blocks
        (["a.0", "a.1", "b.0"], ["b.0"], None),  # a list of two entries that loses both
        (["a.0", "a.1", "a.2", "a.3", "a.4"], ["a.0"], None),  # two entries a block
        (["a.0", "a.1", "a.2", "a.3", "a.4"], ["a.0", "a.1"], "a from 5 entries to 2"),
    ],
)
def test_lists_with_entries_for_each_block_are_compared_by_their_length(before, after, change):
    shapes = [{name: [7, 7] for name in names} for names in (before, after)]
    assert changed_output(*shapes, [(6, 4)]) == change


def test_a_network_without_repeated_blocks_says_what_to_do_instead():
    with pytest.raises(OperationError, match="MLP has no repeated blocks to thin") as caught:
        surgeon.plan(MLP(), Truncate(keep_blocks=1), inputs=[[2, 4]])
    assert caught.value.hint == "end the network at a site instead: after: SITE"


class MLP(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.one, self.two = nn.Linear(4, 8), nn.Linear(8, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.two(self.one(x))


@pytest.mark.parametrize(
    ("keep", "message"),
    [
        (1.5, r"keep_blocks as a fraction must be between 0 and 1 \(exclusive\), got 1.5"),
        (0, "keep_blocks must be at least 1, got 0"),
        ([1, 1], r"keep_blocks as a list must hold distinct positions from 0 on, got \[1, 1\]"),
    ],
)
def test_a_senseless_choice_of_blocks_is_refused_in_its_own_terms(keep, message):
    with pytest.raises(ValidationError, match=message):
        Truncate(keep_blocks=keep)
