"""Stacks of blocks are found from the tree, a trace and the config, and from nothing that only looks like one."""

from __future__ import annotations

import pytest
import transformers
from torch import nn

from surgeon.graph.roles import find_roles
from surgeon.graph.skeleton import build_skeleton
from surgeon.graph.trace import trace


def test_lists_with_an_entry_for_each_layer_are_found():
    config = transformers.Qwen3Config(
        hidden_size=32, intermediate_size=64, num_hidden_layers=3, num_attention_heads=2, num_key_value_heads=2,
        head_dim=16, vocab_size=97,
    )  # fmt: skip
    model = build_skeleton(lambda: transformers.Qwen3ForCausalLM(config))
    (stack,) = find_roles(model, lambda: trace(model)).blocks
    assert stack.config_fields == ("num_hidden_layers", "layer_types")


def test_an_encoder_and_a_decoder_of_one_depth_keep_their_own_fields():
    config = transformers.BartConfig(
        vocab_size=97, d_model=32, encoder_layers=2, decoder_layers=2, encoder_attention_heads=2,
        decoder_attention_heads=2, encoder_ffn_dim=64, decoder_ffn_dim=64, max_position_embeddings=64,
    )  # fmt: skip
    model = build_skeleton(lambda: transformers.BartForConditionalGeneration(config))
    encoder, decoder = find_roles(model, lambda: trace(model)).blocks
    assert "encoder_layers" in encoder.config_fields
    assert "decoder_layers" not in encoder.config_fields
    assert decoder.config_fields == ("decoder_layers",)


def test_two_towers_of_one_depth_are_not_taken_for_stages():
    parts = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}
    config = transformers.CLIPConfig(
        text_config={**parts, "vocab_size": 97},
        vision_config={**parts, "image_size": 32, "patch_size": 8},
        projection_dim=16,
    )
    model = build_skeleton(lambda: transformers.CLIPModel(config))
    stacks = find_roles(model, lambda: trace(model)).blocks
    assert {s.container for s in stacks} == {"text_model.encoder.layers", "vision_model.encoder.layers"}
    assert [s.config_fields for s in stacks] == [("num_hidden_layers",)] * 2


def test_experts_inside_a_block_are_no_stack_of_their_own():
    class Block(nn.Module):
        def __init__(self):
            super().__init__()
            self.experts = nn.ModuleList(nn.Sequential(nn.Linear(4, 4), nn.ReLU()) for _ in range(3))

        def forward(self, x):
            return sum(expert(x) for expert in self.experts)

    model = nn.Sequential(nn.Linear(4, 4), *(Block() for _ in range(5)), nn.Linear(4, 2))
    (stack,) = find_roles(model, lambda: trace(model)).blocks
    assert stack.sites == ["1", "2", "3", "4", "5"]


def test_blocks_may_be_named_for_embeddings_that_they_are_not():
    sizes = {"hidden_size": 16, "num_hidden_layers": 3, "num_attention_heads": 2, "intermediate_size": 32}
    model = transformers.JinaEmbeddingsV3Model(transformers.JinaEmbeddingsV3Config(vocab_size=64, **sizes)).eval()
    (stack,) = find_roles(model, lambda: trace(model)).blocks
    assert stack.sites == ["layers.0", "layers.1", "layers.2"]


@pytest.mark.parametrize(
    ("counted", "sites"), [(4, ["0", "1", "2", "3"]), (5, ["0", "2", "3"])], ids=["together", "otherwise"]
)
def test_blocks_of_two_classes_are_one_stack_where_a_config_counts_them_together(counted, sites):
    config = transformers.JambaConfig(
        hidden_size=32, intermediate_size=64, num_hidden_layers=4, num_attention_heads=2, num_key_value_heads=1,
        vocab_size=97, attn_layer_period=4, attn_layer_offset=1, mamba_d_state=4, mamba_dt_rank=4, num_experts=2,
        use_mamba_kernels=False,
    )  # fmt: skip
    model = build_skeleton(lambda: transformers.JambaForCausalLM(config))
    for module in model.modules():
        if hasattr(module, "config"):
            module.config.num_hidden_layers = counted
    (stack,) = find_roles(model, lambda: trace(model)).blocks
    assert stack.sites == [f"model.layers.{site}" for site in sites]
    assert stack.evidence.startswith("3 × JambaMambaDecoderLayer")
    assert ("1 × JambaAttentionDecoderLayer" in stack.evidence) == (len(sites) == 4)


def test_blocks_that_no_input_reaches_do_not_hide_the_others():
    """Cross-attention that waits for images."""
    config = transformers.models.mllama.configuration_mllama.MllamaTextConfig(
        hidden_size=32, intermediate_size=64, num_hidden_layers=4, num_attention_heads=2, num_key_value_heads=1,
        vocab_size=97, cross_attention_layers=[1], pad_token_id=0,
    )  # fmt: skip
    model = build_skeleton(lambda: transformers.models.mllama.modeling_mllama.MllamaForCausalLM(config))
    (stack,) = find_roles(model, lambda: trace(model)).blocks
    assert stack.sites == [f"model.layers.{site}" for site in (0, 2, 3)]
    assert stack.evidence == "3 × MllamaSelfAttentionDecoderLayer"


def test_a_list_that_runs_in_another_order_is_not_a_stack():
    class Block(nn.Module):
        def __init__(self):
            super().__init__()
            self.linear = nn.Linear(4, 4)

        def forward(self, x):
            return self.linear(x)

    class Reverses(nn.Module):
        def __init__(self):
            super().__init__()
            self.layers = nn.ModuleList(Block() for _ in range(3))

        def forward(self, x):
            for layer in reversed(self.layers):
                x = layer(x)
            return x

    model = Reverses()
    assert find_roles(model, lambda: trace(model)).blocks == []


class Plain(nn.Module):
    """Blocks that are no blocks by their class: sequences of layers, and single layers behind them."""

    def __init__(self) -> None:
        super().__init__()
        self.blocks = nn.ModuleList([nn.Sequential(nn.Linear(6, 6), nn.ReLU()) for _ in range(3)])
        self.first, self.second = nn.Linear(6, 6), nn.Linear(6, 6)


@pytest.mark.parametrize(
    ("named", "sites"),
    [
        ("blocks.*", ["blocks.0", "blocks.1", "blocks.2"]),
        (["blocks.0", "blocks.2"], ["blocks.0", "blocks.2"]),
        ("blocks", ["blocks.0", "blocks.1", "blocks.2"]),
        (["first", "second"], ["first", "second"]),
    ],
)
def test_blocks_that_a_user_names_are_blocks_whatever_their_class(named, sites):
    model = Plain()
    (stack,) = find_roles(model, lambda: trace(model), {"blocks": named}).blocks
    assert (stack.sites, stack.evidence) == (sites, "said by the user")
