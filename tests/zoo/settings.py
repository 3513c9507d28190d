"""Settings that transformers' small networks need beyond what the rules of shrinking do.

Where a value is a function, it is given the config around the setting.
"""

from __future__ import annotations

from typing import Any

_ROPE = {"rope_theta": 10000.0, "rope_type": "default"}
_HALF_ROPE = {**_ROPE, "partial_rotary_factor": 0.5, "mrope_section": [8, 12, 12]}
_FOUR_STAGES = ["stage1", "stage2", "stage3", "stage4"]
_HALVING = {  # the defaults are those of a network that reads lines, and keeps their width
    "backbone_config.block_configs": [
        [[3, 96, 96, 1, False]], [[3, 96, 192, 2, False]], [[3, 192, 384, 2, False]], [[3, 384, 768, 2, False]]
    ],
    "backbone_config.depths": [1, 1, 1, 1],
    "backbone_config.stage_out_channels": [96, 192, 384, 768],
    "backbone_config.out_features": _FOUR_STAGES,
}  # fmt: skip
_SMALL_VIT = {"img_size": 224, "depth": 4, "embed_dim": 64, "num_heads": 4}
_BAND = {"long": ([7, 1], [1, 1], [3, 0]), "mid": ([5, 1], [1, 1], [2, 0]), "short": ([3, 1], [1, 1], [1, 0])}

LEFT_OUT: dict[str, dict[str, Any]] = {
    "blip-2": {"image_token_index": 500},
    "chameleon": {"vocabulary_map": {"<image>": 500}},
    "clvp": {"speech_config.vocab_size": 8192},
    "cohere_compass_text": {"rope_parameters": {"full_attention": _ROPE, "sliding_attention": _ROPE}},
    "dbrx": {"attn_config.rope_theta": 10000.0, "attn_config.clip_qkv": 8.0},
    "deepseek_ocr2_text": {
        "mlp_layer_types": ["dense", *["sparse"] * 31],
        "num_experts_per_tok": 2,
        "moe_intermediate_size": 1408,
    },
    "deepseek_v2": {"num_experts_per_tok": 2, "moe_intermediate_size": 1408},
    "diffusion_gemma_text": {"num_experts": 8, "top_k_experts": 2, "moe_intermediate_size": 704},
    "dots1": {"n_routed_experts": 128, "num_experts_per_tok": 6, "n_shared_experts": 2},
    "edgetam_vision_model": {"backbone_config.architecture": "repvit_m1"},
    "emu3": {"vocabulary_map": {"<|extra_200|>": 499, "<image>": 500}},
    "esm": {"vocab_size": 33, "pad_token_id": 1, "mask_token_id": 32},
    "gemma3n_vision": {"model_args": {"channel_multiplier": 0.25}},
    "glm4v_moe_text": {"rope_parameters": _HALF_ROPE, "head_dim": 128},
    "glm4v_text": {"rope_parameters": _HALF_ROPE},
    "glm_image_text": {"rope_parameters": _HALF_ROPE},
    "granite4_vision": {"downsample_rate": "4/8", "deepstack_layer_map": [[-1, 0], [-2, 1]]},
    "hunyuan_v1_dense": {"head_dim": 128},
    "hunyuan_v1_moe": {"head_dim": 128},
    "hunyuan_vl_text": {"head_dim": 128, "rope_parameters": {**_ROPE, "mrope_section": [16, 16, 16, 16]}},
    "instructblip": {"image_token_index": 500},
    "instructblipvideo": {"video_token_index": 500},
    "lfm2_moe": {"layer_types": ["conv", "conv", "full_attention", "conv"] * 8},
    "lw_detr": {"projector_scale_factors": (1.0,), "projector_in_channels": [256], "num_feature_levels": 1},
    "ministral": {"head_dim": 128},
    "moonshine_streaming": {"num_key_value_heads": 8},
    "nemotron": {"num_key_value_heads": 8},
    "pe_video_encoder": {"vision_config.model_args": _SMALL_VIT},
    "perception_lm": {
        "vision_config.architecture": "vit_pe_lang_large_patch14_448",
        "vision_config.model_args": {**_SMALL_VIT, "global_pool": ""},
    },
    "pp_ocrv6_medium_det": {
        **_HALVING,
        "kernel_list": [3, 2, 2],
        "scale_factor_list": [1, 2, 4, 8],
        "intraclass_block_config": {
            "reduce_channel": [1, 1, 0],
            "return_channel": [1, 1, 0],
            **{f"vertical_long_to_small_conv_{n}ratio": list(sizes) for n, sizes in _BAND.items()},
            **{f"horizontal_small_to_long_conv_{n}ratio": [s[::-1] for s in sizes] for n, sizes in _BAND.items()},
            **{f"symmetric_conv_long_{n}ratio": [sizes[0][0], 1, sizes[2][0]] for n, sizes in _BAND.items()},
        },
    },
    "pp_ocrv6_small_det": {**_HALVING, "layer_list_out_channels": [96, 192, 384, 768]},
    "qwen4_exp_text": {
        "indexer_n_heads": 16,
        "indexer_kv_heads": 1,
        "indexer_head_dim": 256,
        "indexer_budget": 64,
        "indexer_compress_ratio": 4,
    },
    "sapiens2": {
        "head_config.upsample_out_channels": [64, 64],
        "head_config.upsample_kernel_sizes": [4, 4],
        "head_config.conv_out_channels": [64],
        "head_config.conv_kernel_sizes": [1],
    },
    "step3p5": {"sliding_window": 512},
    "t5gemma2_text": {"dropout_rate": 0.0},
    "timm_backbone": {"backbone": lambda config: config.backbone or "resnet18"},
    "uvdoc": {"backbone_config.out_features": [*_FOUR_STAGES, "stage5", "stage6"]},
}
"""What the library's defaults leave out and a network does not run without, by the model type of its part of the
config; values are such as run, not those of any checkpoint."""

_B0 = {"width_coefficient": 1.0, "depth_coefficient": 1.0, "hidden_dim": 1280, "initializer_range": 0.1}
"""An EfficientNet-B0, of weights so large that something comes out of its last layer."""

BESIDE_THE_RULES: dict[str, dict[str, Any]] = {
    "align": {
        **{f"vision_config.{name}": value for name, value in _B0.items()},
        "vision_config.out_channels": [16, 24, 40, 80, 112, 192, 320],
        "projection_dim": 320,
    },
    "autoformer": {"prediction_length": 8, "context_length": 16},
    "bamba": {"attn_layer_indices": [2]},
    "depth_pro": {
        "patch_size": 112,
        **{f"{part}_model_config.image_size": 112 for part in ("image", "patch", "fov")},
    },
    "detr": {"encoder_attention_heads": 8, "decoder_attention_heads": 8},  # with the width a multiple of 8, for masks
    "efficientnet": _B0,
    "granite4_vision": {
        "vision_config.hidden_size": 128,
        "vision_config.num_attention_heads": 2,
        "qformer_config.hidden_size": 128,
        "qformer_config.encoder_hidden_size": 128,
        "qformer_config.num_attention_heads": 2,
    },
    "granitemoehybrid": {"layer_types": ["linear_attention", "linear_attention", "full_attention", "linear_attention"]},
    "hrm_text": {"num_layers_per_stack": 2, "num_hidden_layers": 16},
    "informer": {"prediction_length": 8, "context_length": 16},
    "janus": {"vision_config.projection_dim": 128},  # as wide as the words
    "jamba": {"attn_layer_period": 4, "attn_layer_offset": 2},
    "reformer": {  # positions for as long a text as ours, or it does not train
        "axial_pos_shape": (2, 4),
        "lsh_attn_chunk_length": 4,
        "local_attn_chunk_length": 4,
    },
    "rf_detr": {"num_queries": 100},  # of all the places in a smaller image
    "qwen2_vl": {"vision_config.hidden_size": 256},  # 3584 beside words of 8192 features, by default
    "time_series_transformer": {"prediction_length": 8, "context_length": 16},
    "tvp": {"num_frames": 2},
    "vibevoice": {"audio_config.num_filters": 4, "semantic_model_config.num_filters": 4},
    "vivit": {"num_frames": 4},  # thousands of patches of video attend to each other otherwise
    "vjepa2": {"frames_per_clip": 4},
    "xmod": {"default_language": "en_XX"},
    "zamba": {"layers_block_type": ["linear_attention", "linear_attention", "hybrid", "hybrid"]},
    "zamba2": {
        "hybrid_layer_ids": lambda config: [i for i, kind in enumerate(config.layers_block_type) if kind == "hybrid"],
        "mamba_headdim": lambda config: config.mamba_expand * config.hidden_size // config.n_mamba_heads,
    },
}
"""What a network made smaller needs, by its model type and the path to each setting."""
