"""Small networks whose layers are identified by their position."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

DECODER = {
    "vocab_size": 64,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 256,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "pad_token_id": 0,
    "num_hidden_layers": 6,
}
WIDE = {**DECODER, "head_dim": 8}
ENCODER = {
    "vocab_size": 64,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_attention_heads": 4,
    "num_hidden_layers": 6,
}
SOUND = {
    "vocab_size": 32,
    "hidden_size": 32,
    "num_hidden_layers": 6,
    "num_attention_heads": 4,
    "intermediate_size": 64,
    "conv_dim": (16, 16),
    "conv_kernel": (10, 3),
    "conv_stride": (5, 2),
    "num_feat_extract_layers": 2,
    "num_conv_pos_embeddings": 16,
    "num_conv_pos_embedding_groups": 4,
    "classifier_proj_size": 16,
}
SEVEN = {
    **SOUND,
    "num_hidden_layers": 7,
    "conv_dim": (16,) * 7,
    "conv_kernel": (10, 3, 3, 3, 3, 2, 2),
    "conv_stride": (5, 2, 2, 2, 2, 2, 2),
    "num_feat_extract_layers": 7,
}
WHISPER = {
    "vocab_size": 64,
    "d_model": 32,
    "encoder_layers": 6,
    "decoder_layers": 2,
    "encoder_attention_heads": 4,
    "decoder_attention_heads": 4,
    "encoder_ffn_dim": 64,
    "decoder_ffn_dim": 64,
    "num_mel_bins": 16,
    "max_source_positions": 50,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "decoder_start_token_id": 1,
}
DEEPSEEK = {
    "vocab_size": 64,
    "hidden_size": 32,
    "intermediate_size": 64,
    "moe_intermediate_size": 16,
    "num_hidden_layers": 6,
    "num_attention_heads": 4,
    "num_key_value_heads": 4,
    "n_routed_experts": 4,
    "num_experts_per_tok": 2,
    "n_group": 1,
    "topk_group": 1,
    "first_k_dense_replace": 2,
    "q_lora_rank": 16,
    "kv_lora_rank": 16,
    "qk_rope_head_dim": 8,
    "qk_nope_head_dim": 8,
    "v_head_dim": 8,
}
MOE = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 16}
WINDOWS = {
    "sliding_window": 4,
    "layer_types": ["sliding_attention"] * 2 + ["full_attention"] + ["sliding_attention"] * 2 + ["full_attention"],
}


def words() -> dict[str, Tensor]:
    """Tokens of a text."""
    return {"input_ids": torch.randint(3, 64, (1, 12), generator=torch.Generator().manual_seed(0))}


def wave() -> dict[str, Tensor]:
    """A sound."""
    return {"input_values": torch.randn(1, 1600, generator=torch.Generator().manual_seed(0))}


def mel() -> dict[str, Tensor]:
    """A spectrogram."""
    return {"input_features": torch.randn(1, 16, 100, generator=torch.Generator().manual_seed(0))}


def both() -> dict[str, Tensor]:
    """Tokens for an encoder and for a decoder."""
    return {**words(), "decoder_input_ids": words()["input_ids"][:, :5]}


Network = tuple[str, dict[str, Any], str, Callable[[], dict[str, Tensor]]]
NETWORKS: dict[str, Network] = {
    "gpt2, inverse layer index": (
        "GPT2LMHeadModel",
        {
            "vocab_size": 64,
            "n_embd": 32,
            "n_layer": 6,
            "n_head": 4,
            "n_positions": 64,
            "scale_attn_by_inverse_layer_idx": True,
        },
        "transformer.h",
        words,
    ),
    "diffllama": ("DiffLlamaForCausalLM", WIDE, "model.layers", words),
    "gpt-neo": (
        "GPTNeoForCausalLM",
        {
            "vocab_size": 64,
            "hidden_size": 32,
            "num_layers": 6,
            "num_heads": 4,
            "attention_types": [[["global", "local"], 3]],
            "window_size": 4,
            "max_position_embeddings": 64,
        },
        "transformer.h",
        words,
    ),
    "gemma3": ("Gemma3ForCausalLM", {**WIDE, **WINDOWS}, "model.layers", words),
    "gemma2": ("Gemma2ForCausalLM", {**WIDE, "sliding_window": 4}, "model.layers", words),
    "qwen2, windows": (
        "Qwen2ForCausalLM",
        {**DECODER, "use_sliding_window": True, "sliding_window": 4, "max_window_layers": 3},
        "model.layers",
        words,
    ),
    "smollm3": ("SmolLM3ForCausalLM", {**DECODER, "no_rope_layer_interval": 3}, "model.layers", words),
    "cohere2": ("Cohere2ForCausalLM", {**DECODER, "sliding_window": 4}, "model.layers", words),
    "llama4": (
        "Llama4ForCausalLM",
        {
            **WIDE,
            "intermediate_size_mlp": 64,
            "num_local_experts": 2,
            "interleave_moe_layer_step": 2,
            "no_rope_layer_interval": 3,
            "attention_chunk_size": 4,
        },
        "model.layers",
        words,
    ),
    "deepseek-v3, dense first": ("DeepseekV3ForCausalLM", DEEPSEEK, "model.layers", words),
    "glm4-moe": (
        "Glm4MoeForCausalLM",
        {
            **WIDE,
            "n_routed_experts": 4,
            "num_experts_per_tok": 2,
            "moe_intermediate_size": 16,
            "first_k_dense_replace": 1,
            "n_group": 1,
            "topk_group": 1,
        },
        "model.layers",
        words,
    ),
    "qwen2-moe, every second": (
        "Qwen2MoeForCausalLM",
        {**DECODER, **MOE, "shared_expert_intermediate_size": 16, "decoder_sparse_step": 2},
        "model.layers",
        words,
    ),
    "qwen3-next": (
        "Qwen3NextForCausalLM",
        {
            **WIDE,
            **MOE,
            "num_hidden_layers": 8,
            "shared_expert_intermediate_size": 16,
            "linear_num_key_heads": 2,
            "linear_num_value_heads": 4,
            "linear_key_head_dim": 8,
            "linear_value_head_dim": 8,
        },
        "model.layers",
        words,
    ),
    "gemma3n, shared caches": (
        "Gemma3nForCausalLM",
        {
            **WIDE,
            "num_kv_shared_layers": 2,
            "laurel_rank": 8,
            "hidden_size_per_layer_input": 8,
            "vocab_size_per_layer_input": 64,
            "altup_num_inputs": 2,
            "sliding_window": 4,
            "layer_types": ["sliding_attention", "full_attention"] * 3,
            "activation_sparsity_pattern": [0.95, 0.95, 0.0, 0.0, 0.0, 0.0],
        },
        "model.layers",
        words,
    ),
    "recurrent gemma": (
        "RecurrentGemmaForCausalLM",
        {
            "vocab_size": 64,
            "hidden_size": 32,
            "intermediate_size": 64,
            "num_attention_heads": 4,
            "num_hidden_layers": 6,
            "lru_width": 32,
            "attention_window_size": 8,
            "pad_token_id": 0,
        },
        "model.layers",
        words,
    ),
    "longformer's windows": (
        "LongformerForSequenceClassification",
        {**ENCODER, "attention_window": [4, 4, 8, 8, 4, 4], "max_position_embeddings": 64, "pad_token_id": 0},
        "longformer.encoder.layer",
        words,
    ),
    "modernbert": (
        "ModernBertForMaskedLM",
        {**ENCODER, "global_attn_every_n_layers": 3, "local_attention": 4, "pad_token_id": 0},
        "model.layers",
        words,
    ),
    "deberta-v2's convolution": (
        "DebertaV2ForSequenceClassification",
        {
            **ENCODER,
            "relative_attention": True,
            "position_buckets": 8,
            "pos_att_type": ["p2c", "c2p"],
            "share_att_key": True,
            "norm_rel_ebd": "layer_norm",
            "conv_kernel_size": 3,
            "conv_act": "gelu",
            "position_biased_input": False,
            "pooler_hidden_size": 32,
        },
        "deberta.encoder.layer",
        words,
    ),
    "hubert, weighted sum": (
        "HubertForSequenceClassification",
        {**SOUND, "use_weighted_layer_sum": True, "num_labels": 5},
        "hubert.encoder.layers",
        wave,
    ),
    "wav2vec2, weighted sum": (
        "Wav2Vec2ForSequenceClassification",
        {**SOUND, "use_weighted_layer_sum": True, "num_labels": 5},
        "wav2vec2.encoder.layers",
        wave,
    ),
    "wavlm, first block's bias": (
        "WavLMForSequenceClassification",
        {**SOUND, "num_labels": 5},
        "wavlm.encoder.layers",
        wave,
    ),
    "whisper, weighted sum": (
        "WhisperForAudioClassification",
        {**WHISPER, "use_weighted_layer_sum": True, "num_labels": 5},
        "encoder.layers",
        mel,
    ),
    "seven layers, seven convolutions": (
        "Wav2Vec2ForSequenceClassification",
        {**SEVEN, "num_labels": 5},
        "wav2vec2.encoder.layers",
        wave,
    ),
    "bart's decoder": (
        "BartForConditionalGeneration",
        {
            "vocab_size": 64,
            "d_model": 32,
            "encoder_layers": 6,
            "decoder_layers": 6,
            "encoder_attention_heads": 4,
            "decoder_attention_heads": 4,
            "encoder_ffn_dim": 64,
            "decoder_ffn_dim": 64,
            "max_position_embeddings": 64,
            "pad_token_id": 0,
            "decoder_start_token_id": 2,
        },
        "model.decoder.layers",
        both,
    ),
    "t5's encoder": (
        "T5ForConditionalGeneration",
        {
            "vocab_size": 64,
            "d_model": 32,
            "d_kv": 8,
            "d_ff": 64,
            "num_layers": 6,
            "num_decoder_layers": 6,
            "num_heads": 4,
            "decoder_start_token_id": 0,
        },
        "encoder.block",
        both,
    ),
    "mamba": (
        "MambaForCausalLM",
        {"vocab_size": 64, "hidden_size": 32, "num_hidden_layers": 6, "state_size": 4},
        "backbone.layers",
        words,
    ),
    "opt": (
        "OPTForCausalLM",
        {
            "vocab_size": 64,
            "hidden_size": 32,
            "ffn_dim": 64,
            "num_hidden_layers": 6,
            "num_attention_heads": 4,
            "max_position_embeddings": 64,
            "word_embed_proj_dim": 32,
        },
        "model.decoder.layers",
        words,
    ),
    "falcon": (
        "FalconForCausalLM",
        {"vocab_size": 64, "hidden_size": 32, "num_hidden_layers": 6, "num_attention_heads": 4, "alibi": True},
        "transformer.h",
        words,
    ),
    "bloom": (
        "BloomForCausalLM",
        {"vocab_size": 64, "hidden_size": 32, "n_layer": 6, "n_head": 4},
        "transformer.h",
        words,
    ),
    "funnel": (
        "FunnelForSequenceClassification",
        {"vocab_size": 64, "d_model": 32, "n_head": 4, "d_head": 8, "d_inner": 64, "block_sizes": [2, 2, 2]},
        "funnel.encoder.blocks",
        words,
    ),
}
